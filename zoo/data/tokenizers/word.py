"""Words as tokens: what white space divides, numbered by falling frequency.

Two vocabularies are built from one class. Where a language model reads a text line by line (the Penn
Treebank, WikiText-2), every line end is a token; where examples are texts of their own (a sentence to
classify, a pair to translate), line ends are white space like any other and marks stand around the text:

    lines       <eos> <unk> the , of ...            "the cat\\n\\n" is the cat <eos> <eos>
    examples    <pad> <unk> <s> </s> the , ...      the marks only where they are asked for

So a perplexity per word counts the line ends, as the published ones do. What is lost: how much white
space stood where, and which word it was that the vocabulary lacks. A text that says "<unk>" itself
means that token; one that says another mark ("</s>") gets <unk>, so that no text ends itself.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo.data.tokenizers import published
from zoo.data.tokenizers.saved import write_note
from zoo.data.tokenizers.text import utf8
from zoo.errors import DataError

FILE = "words.json"
PAD, UNKNOWN, LINE_END = "<pad>", "<unk>", "<eos>"
BEGIN, END = "<s>", "</s>"
LINES = (LINE_END, UNKNOWN)  # the marks of a text read line by line; <unk> is 1 here as it is there
EXAMPLES = (PAD, UNKNOWN)  # of texts that need no end; EXAMPLES + (BEGIN, END) where they do
MARKS = (PAD, UNKNOWN, LINE_END, BEGIN, END)


@dataclass(frozen=True)
class WordTokenizer:
    """White-space words; `<unk>` stands for all that the vocabulary lacks."""

    name: ClassVar[str] = "word"
    spells_text: ClassVar[bool] = False

    words: tuple[str, ...]
    """Word k is token k; the marks come first."""

    @classmethod
    def of(
        cls, words: Iterable[str], marks: Sequence[str], *, min_count: int = 1, vocab_size: int = 0
    ) -> "WordTokenizer":
        """The marks, then the words seen `min_count` times or more, frequent ones first, equals by spelling.

        Not more than `vocab_size` entries in all; 0: as many as there are.
        """
        if vocab_size and vocab_size <= len(marks):
            raise DataError(
                f"vocab_size={vocab_size} leaves no word beside the {len(marks)} marks {' '.join(marks)}; "
                "set it higher, or to 0 for every word"
            )
        counts = Counter(words)
        known = [word for word in counts if counts[word] >= min_count and word not in MARKS]
        known.sort(key=lambda word: (-counts[word], word))
        return cls((*marks, *known)[: vocab_size or None])

    @classmethod
    def of_lines(cls, texts: Iterable[str], *, min_count: int = 1, vocab_size: int = 0) -> "WordTokenizer":
        """The vocabulary of a language model: line ends are tokens, and nothing is there for padding."""
        words = (word for text in texts for word in text.split())
        return cls.of(words, LINES, min_count=min_count, vocab_size=vocab_size)

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @property
    def unk(self) -> int:
        return self.ids[UNKNOWN]

    @property
    def bos(self) -> int | None:
        return self.ids.get(BEGIN)

    @property
    def eot(self) -> int | None:
        """`</s>`, where the vocabulary has it; in a text of lines nothing but their ends is marked."""
        return self.ids.get(END)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(["word", *self.words]).encode()).hexdigest()

    @cached_property
    def _spelled(self) -> dict[str, int]:
        """The words that a text can spell: all but the marks that stand around it."""
        return {word: i for word, i in self.ids.items() if word not in (PAD, BEGIN, END)}

    def encode(self, text: str) -> np.ndarray:
        utf8(text)
        lined = text.replace("\n", f" {LINE_END} ") if LINE_END in self.ids else text
        return self.encode_words(lined.split())

    def encode_words(self, words: Sequence[str]) -> np.ndarray:
        """One token for each of these words, int32, whatever characters are in it."""
        unk = self.unk
        return np.fromiter((self._spelled.get(word, unk) for word in words), np.int32, len(words))

    def decode(self, ids: Iterable[int]) -> str:
        """The words with a blank between, each line end as one; other marks and padding decode to nothing."""
        silent = (self.ids.get(PAD), self.bos, self.eot)
        words = [self.words[i] for i in map(int, ids) if i < self.vocab_size and i not in silent]
        if LINE_END not in self.ids:
            return " ".join(words)
        lines: list[list[str]] = [[]]
        for word in words:
            if word == LINE_END:
                lines.append([])
            else:
                lines[-1].append(word)
        return "\n".join(map(" ".join, lines))

    def save(self, folder: Path) -> None:
        write_note(folder, name=self.name, digest=self.digest)
        (folder / FILE).write_text(json.dumps(self.words, indent=0) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "WordTokenizer":
        """The tokenizer that `save` wrote."""
        path = folder if folder.is_file() else folder / FILE
        words = published.parsed(path, list)
        if not all(isinstance(word, str) for word in words):
            raise DataError(f"{path}: not a list of words; save the vocabulary again")
        if len(set(words)) != len(words):
            twice = Counter(words).most_common(1)[0][0]
            raise DataError(f"{path}: word {twice!r} stands there twice; save the vocabulary again")
        if UNKNOWN not in words:
            raise DataError(f"{path}: no {UNKNOWN} among its {len(words):,} words; add it, or save it again")
        return cls(tuple(words))
