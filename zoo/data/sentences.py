"""A text as the words of its lines, without marks: what word vectors are counted and trained on.

Words that the vocabulary lacks are left out before distances are measured, and nothing looks across the
end of a line, as in the tools of word2vec and GloVe:

    text        the zyzzyva sat <eos> it slept <eos>
    words       the sat it slept
    lines       0   0   1  1
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zoo.data.corpus import Corpus
from zoo.data.files import Document
from zoo.data.tokenizers.word import LINE_END, MARKS, WordTokenizer
from zoo.data.tokens import Tokens, encode
from zoo.errors import DataError


@dataclass(frozen=True)
class Sentences:
    """Words one after another, and the number of the line that each stands in, ascending."""

    words: np.ndarray
    lines: np.ndarray
    vocab_size: int

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def counts_V(self) -> np.ndarray:
        """How often each word of the vocabulary occurs; marks never do."""
        return np.bincount(self.words, minlength=self.vocab_size)


def read_sentences(corpus: Corpus, part: str, tokenizer: WordTokenizer) -> Sentences:
    """The sentences of one part of a corpus. Raises DataError where no line has two known words."""
    if part not in corpus.parts:
        raise DataError(f"{corpus.name}: has no {part} part, only {', '.join(corpus.parts)}")
    sentences = sentences_of(corpus.parts[part], tokenizer)
    if not (np.diff(sentences.lines) == 0).any():
        raise DataError(
            f"{corpus.name}: no line of the {part} part has two words of the vocabulary of "
            f"{tokenizer.vocab_size:,}; give more text or a smaller min_count"
        )
    return sentences


def sentences_of(documents: Sequence[Document], tokenizer: WordTokenizer) -> Sentences:
    """Documents as sentences; a document's end is a line's end."""
    tokens = encode(documents, tokenizer)
    ids, places = np.asarray(tokens.ids), places_of_words(tokens, tokenizer)
    begins = ids == tokenizer.ids[LINE_END]
    starts = tokens.starts[:-1]
    begins[starts[starts < len(ids)]] = True
    lines = np.cumsum(begins, dtype=np.int32)
    return Sentences(ids[places], lines[places], tokenizer.vocab_size)


def places_of_words(tokens: Tokens, tokenizer: WordTokenizer) -> np.ndarray:
    """Which of the tokens are words, by their places."""
    mark_ids = [tokenizer.ids[mark] for mark in MARKS if mark in tokenizer.ids]
    return np.flatnonzero(~np.isin(np.asarray(tokens.ids), mark_ids))
