"""Characters as tokens, numbered in the order of their code points, as in nanoGPT's data/shakespeare_char."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo.data.tokenizers import published
from zoo.data.tokenizers.saved import write_note
from zoo.errors import DataError

FILE = "characters.json"


@dataclass(frozen=True)
class CharTokenizer:
    """The vocabulary is the characters of a corpus, and an end of text where it has several documents."""

    name: ClassVar[str] = "char"
    spells_text: ClassVar[bool] = True

    characters: str
    """The sorted vocabulary: character k is token k."""

    eot: int | None
    """None where the text is a single document, which has no other to be kept apart from."""

    @classmethod
    def of(cls, texts: Iterable[str], *, has_eot: bool) -> "CharTokenizer":
        """The vocabulary of these texts together."""
        characters = "".join(sorted(set().union(*texts)))
        return cls(characters, eot=len(characters) if has_eot else None)

    @property
    def vocab_size(self) -> int:
        return len(self.characters) + (self.eot is not None)

    @property
    def bos(self) -> int | None:
        return self.eot

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"char {self.eot} {self.characters}".encode()).hexdigest()

    @cached_property
    def _points(self) -> np.ndarray:
        """Their code points, ascending, so that a search finds the token."""
        return _code_points(self.characters)

    def encode(self, text: str) -> np.ndarray:
        points = _code_points(text)
        ids = np.searchsorted(self._points, points).astype(np.int32)
        known = (
            self._points.take(ids, mode="clip") == points if self.characters else np.zeros(len(points), bool)
        )
        if not known.all():
            place = int(np.argmin(known))
            raise DataError(
                f"character {text[place]!r} (U+{ord(text[place]):04X}, at {place}) is not among the "
                f"{len(self.characters)} of this vocabulary; leave it out or use tokenizer=byte"
            )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text; the end of text, and padding of a vocabulary, decode to nothing."""
        return "".join(self.characters[i] for i in map(int, ids) if i < len(self.characters))

    def save(self, folder: Path) -> None:
        write_note(folder, name=self.name, digest=self.digest)
        (folder / FILE).write_text(json.dumps({"characters": self.characters, "eot": self.eot}) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "CharTokenizer":
        """The tokenizer that `save` wrote."""
        found = published.parsed(folder / FILE, dict)
        characters, eot = found.get("characters"), found.get("eot")
        sound = isinstance(characters, str) and found.keys() == {"characters", "eot"}
        if not sound or list(characters) != sorted(set(characters)) or eot not in (None, len(characters)):
            raise DataError(f"{folder / FILE}: not a character vocabulary; save it again")
        return cls(characters, eot)


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)
