"""GPT-2's byte-level byte-pair encoding, from its published files (Radford et al. 2019).

The vocabulary is brought along, never trained: a folder with `encoder.json` and `vocab.bpe` (OpenAI's
names) or `vocab.json` and `merges.txt` (Hugging Face's), each also .gz. The text "<|endoftext|>" inside a
document is ordinary text (as in tiktoken's encode_ordinary), so no document can end itself.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo.data.files import find, read_text
from zoo.data.tokenizers.rust import Located, located, refusing
from zoo.data.tokenizers.saved import write_note
from zoo.data.tokenizers.text import chunks
from zoo.errors import DataError

VOCAB = ("encoder.json", "vocab.json")
MERGES = ("vocab.bpe", "merges.txt")
EOT = "<|endoftext|>"
BEGIN, END = "<s>", "</s>"  # RoBERTa's (arXiv 1907.11692)


@dataclass(frozen=True)
class BPETokenizer:
    """Byte-level byte-pair encoding with GPT-2's pattern of words; loses nothing."""

    name: ClassVar[str] = "bpe"
    spells_text: ClassVar[bool] = True

    vocab: dict[str, int]
    merges: tuple[tuple[str, str], ...]

    @property
    def vocab_size(self) -> int:
        return len(self.vocab)

    @property
    def eot(self) -> int | None:
        """<|endoftext|>, or </s> in a vocabulary that has RoBERTa's marks instead."""
        return self.vocab.get(EOT, self.vocab.get(END))

    @property
    def bos(self) -> int | None:
        return self.vocab.get(BEGIN, self.eot)

    @cached_property
    def digest(self) -> str:
        pieces = sorted(self.vocab, key=self.vocab.__getitem__)
        return hashlib.sha256(json.dumps(["bpe", pieces, self.merges]).encode()).hexdigest()

    @cached_property
    def _library(self):
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        tokenizer = Tokenizer(models.BPE(vocab=self.vocab, merges=list(self.merges)))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    def encode(self, text: str) -> np.ndarray:
        parts = [np.array(self._library.encode(chunk).ids, np.int32) for chunk in chunks(text)]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def encode_with_offsets(self, text: str) -> Located:
        """The tokens, and where in the text each begins and ends: a part of a character where it does."""
        return located(self._library, text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text; the end of text, and padding of a vocabulary, decode to nothing."""
        return self._library.decode(
            [i for i in map(int, ids) if i not in (self.bos, self.eot) and i < self.vocab_size]
        )

    def save(self, folder: Path) -> None:
        write_note(folder, name=self.name, digest=self.digest)
        (folder / "vocab.json").write_text(json.dumps(self.vocab))
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in self.merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")

    @classmethod
    def read(cls, folder: Path) -> "BPETokenizer":
        """The tokenizer of a folder with a vocabulary and merges, each checked against the other."""
        vocab_path, merges_path = find(folder, VOCAB), find(folder, MERGES)
        vocab = _read_vocab(vocab_path)
        tokenizer = cls(vocab, _read_merges(merges_path, vocab, vocab_path))
        with refusing(folder):
            tokenizer.encode("zoo")
        return tokenizer


def _read_vocab(path: Path) -> dict[str, int]:
    try:
        vocab = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); fetch the file again") from None
    if not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
        raise DataError(
            f"{path}: not a JSON object of pieces and their ids; give the vocabulary of a byte-level BPE"
        )
    for expected, (i, piece) in enumerate(sorted((i, piece) for piece, i in vocab.items())):
        if i != expected:
            raise DataError(
                f"{path}: the {len(vocab)} ids do not count up from 0 "
                f"({piece!r} has {i} in place of {expected}); fetch the file again"
            )
    missing = [symbol for symbol in byte_symbols() if symbol not in vocab]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of the 256 bytes have no piece ({missing[0]!r}); give a byte-level BPE"
        )
    return vocab


def _read_merges(path: Path, vocab: dict[str, int], vocab_path: Path) -> tuple[tuple[str, str], ...]:
    merges = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        match line.split(" "):
            case [left, right] if left and right:
                merges.append((left, right))
            case _:
                raise DataError(f"{path}:{number}: {line!r} is not two pieces and a blank; fetch it again")
        for piece in (left, right, left + right):
            if piece not in vocab:
                raise DataError(
                    f"{path}:{number}: piece {piece!r} is not in {vocab_path.name}; take both from one source"
                )
    return tuple(merges)


def byte_symbols() -> list[str]:
    """The 256 characters that stand for bytes: visible Latin-1 for itself, the others from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in visible] + [chr(0x100 + k) for k in range(256 - len(visible))]
