"""Bytes of UTF-8 as tokens: 256 of them and an end of text. Needs no training and loses nothing."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo.data.tokenizers.saved import write_note
from zoo.data.tokenizers.text import utf8


@dataclass(frozen=True)
class ByteTokenizer:
    """Token i < 256 is byte i; 256 is the end of text, which decodes to nothing."""

    name: ClassVar[str] = "byte"
    spells_text: ClassVar[bool] = True
    vocab_size: ClassVar[int] = 257
    eot: ClassVar[int] = 256
    bos: ClassVar[int] = 256

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"byte").hexdigest()

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(utf8(text), np.uint8).astype(np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """The text; bytes that are no UTF-8, as a model may write them, become U+FFFD."""
        return bytes(i for i in map(int, ids) if i < 256).decode("utf-8", errors="replace")

    def save(self, folder: Path) -> None:
        write_note(folder, name=self.name, digest=self.digest)

    @classmethod
    def read(cls, folder: Path) -> "ByteTokenizer":
        return cls()
