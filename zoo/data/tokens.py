"""The tokens of one part of a corpus: encoded once, one after another in one flat array.

with an end of text     [eot] d o c 0 [eot] d o c 1 [eot]     every document begins and ends with it
without                 d o c 0 d o c 1
starts                  ^             ^             ^         where each begins, and where the last ends
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.data.cache import cached
from zoo.data.corpus import part_digest
from zoo.data.files import Document
from zoo.data.tokenizers import Tokenizer
from zoo.errors import DataError

FORMAT = 1  # of what is cached; raise it when the same text and tokenizer come to mean other arrays


@dataclass(frozen=True)
class Tokens:
    """Documents as tokens: uint16 where the vocabulary allows, mapped into memory where the cache does."""

    ids: np.ndarray
    starts: np.ndarray
    has_eot: bool
    is_target: np.ndarray | None = None
    """Which of them are to be predicted, where something comes before them; None: all."""
    documents: np.ndarray | None = None
    """Which documents of their part these are; None: all."""

    @property
    def ends(self) -> np.ndarray:
        """Where each document ends: behind its end of text, with which the next one begins."""
        return self.starts[1:] + self.has_eot

    def origins(self, begin: int, end: int, names: Sequence[str]) -> list[dict]:
        """Where the tokens [begin, end) come from: for each document its name, the place of the first of them
        in it and how many there are. An end of text counts as the first token of what it stands before."""
        found = []
        while begin < end:
            which = min(int(np.searchsorted(self.starts, begin, side="right")), len(self.starts) - 1) - 1
            stop = min(end, int(self.starts[which + 1])) if which + 2 < len(self.starts) else end
            document = which if self.documents is None else int(self.documents[which])
            offset = begin - int(self.starts[which])
            found.append({"document": names[document], "offset": offset, "tokens": stop - begin})
            begin = stop
        return found


def encode(documents: Sequence[Document], tokenizer: Tokenizer) -> Tokens:
    """The documents' tokens, from the cache where these texts met this tokenizer before."""
    key = hashlib.sha256(f"tokens {FORMAT} {part_digest(documents)} {tokenizer.digest}".encode()).hexdigest()
    has_eot = tokenizer.eot is not None
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32

    def build():
        eot = np.array([tokenizer.eot] if has_eot else [], dtype)
        parts, starts = [eot], [0]
        for document in documents:
            ids = encoded(document, tokenizer).astype(dtype)
            parts += [ids, eot]
            starts.append(starts[-1] + len(ids) + has_eot)
        return {"ids": np.concatenate(parts), "starts": np.array(starts, np.int64)}

    def is_sound(arrays):
        ids, starts = arrays["ids"], arrays["starts"]
        return bool(
            ids.dtype == dtype
            and starts.dtype == np.int64
            and starts.shape == (len(documents) + 1,)
            and starts[0] == 0
            and np.all(np.diff(starts) >= has_eot)
            and ids.shape == (starts[-1] + has_eot,)
            and ids.max(initial=0) < tokenizer.vocab_size
        )

    arrays = cached(f"tokens-{key[:32]}", build=build, is_sound=is_sound, names=("ids", "starts"))
    return Tokens(arrays["ids"], arrays["starts"], has_eot)


def encoded(document: Document, tokenizer: Tokenizer) -> np.ndarray:
    """The tokens of one document; what a vocabulary cannot spell is a DataError that says where."""
    try:
        return tokenizer.encode(document.text)
    except DataError as error:
        raise DataError(f"{document.name}: {error}") from None
