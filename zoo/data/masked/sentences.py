"""A text as sentences: what pairs are made of, and where chunks are cut.

A sentence ends at the end of a line, or behind a full stop, a question or an exclamation mark that a blank
and a capital follow. So a line of code is one, and so is a line of a text with a sentence a line, as BERT's
own tool reads it.

    documents    0 ......... 2 ........        numbers of the sentences that they begin with
    starts       0 .... 7 .. 12 .......        numbers of the tokens that the sentences begin with
    ids          the cat sat ...               without marks of any kind
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.data.cache import cached
from zoo.data.corpus import part_digest
from zoo.data.files import Document
from zoo.data.packed import count_up
from zoo.data.tokenizers import Tokenizer

FORMAT = 1  # of what is cached; raise it when the same text and tokenizer come to mean other arrays
BREAK = re.compile(r"""\n+|(?<=[.!?])[ \t]+(?=["'(]?[A-Z])""")


@dataclass(frozen=True)
class Sentences:
    """Documents as sentences of tokens; none of either is empty."""

    ids: np.ndarray
    starts: np.ndarray
    """Where each sentence begins in the ids, and where the last one ends."""
    documents: np.ndarray
    """Which sentence each document begins with, and how many there are in all."""

    def cut(self, longest: int) -> "Sentences":
        """The same with long sentences cut into parts of `longest` tokens and a rest."""
        counts = -(-np.diff(self.starts) // longest)
        parts = np.repeat(self.starts[:-1], counts) + count_up(counts) * longest
        before = np.cumsum([0, *counts])
        return Sentences(self.ids, np.append(parts, self.starts[-1]), before[self.documents])


def split(text: str) -> list[str]:
    """The sentences of a text with the blanks behind them: joined they are the text."""
    places = [0, *(match.end() for match in BREAK.finditer(text)), len(text)]
    return [text[start:end] for start, end in zip(places, places[1:], strict=False) if end > start]


def encode_sentences(documents: Sequence[Document], tokenizer: Tokenizer) -> Sentences:
    """The documents' sentences, from the cache where these texts met this tokenizer before."""
    what = f"sentences {FORMAT} {part_digest(documents)} {tokenizer.digest}"
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32

    def build():
        parts, sizes, counts = [np.empty(0, dtype)], [0], [0]
        for document in documents:
            found = [ids for ids in map(tokenizer.encode, split(document.text)) if len(ids)]
            if found:
                parts.append(np.concatenate(found).astype(dtype))
                sizes += map(len, found)
                counts.append(len(found))
        return {
            "ids": np.concatenate(parts),
            "starts": np.cumsum(sizes, dtype=np.int64),
            "documents": np.cumsum(counts, dtype=np.int64),
        }

    def is_sound(arrays):
        ids, starts, documents = (arrays[name] for name in ("ids", "starts", "documents"))
        return bool(
            ids.dtype == dtype
            and starts.dtype == documents.dtype == np.int64
            and ids.ndim == starts.ndim == documents.ndim == 1
            and starts[0] == documents[0] == 0
            and starts[-1] == len(ids)
            and documents[-1] == len(starts) - 1
            and np.all(np.diff(starts) > 0)
            and np.all(np.diff(documents) > 0)
            and ids.max(initial=0) < tokenizer.vocab_size
        )

    names = ("ids", "starts", "documents")
    key = f"sentences-{hashlib.sha256(what.encode()).hexdigest()[:32]}"
    return Sentences(**cached(key, build=build, is_sound=is_sound, names=names))
