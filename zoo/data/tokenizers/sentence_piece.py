"""SentencePiece: byte-pair pieces trained on the corpus itself (Kudo and Richardson 2018, arXiv 1808.06226).

Ours loses nothing: no normalisation, no space put in front, no white space removed, and bytes for what
the vocabulary lacks, so decode(encode(x)) == x for every text. Pieces may be runs of blanks and may
end in line ends, which is what source code is made of.

Byte-pair rather than the library's default unigram model: its training counts integers, so the model
is the same on every machine (every host of a pod trains its own), and on the standard library it takes
1 s, where unigram takes 16 s for 0.5 % more bytes per token.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zoo import untrusted
from zoo.data.files import read_bytes
from zoo.data.tokenizers import trial
from zoo.data.tokenizers.saved import write_note
from zoo.data.tokenizers.text import chunks
from zoo.errors import DataError

FILE = "tokenizer.model"
SPACE = "\u2581"  # how the library writes a space inside; the character itself needs a detour
SLICE = 2048  # characters; the unit of the training sample
SAMPLE = 16 * 2**20  # characters; a larger text is sampled evenly
SETTINGS: dict[str, Any] = {
    "model_type": "bpe",
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "byte_fallback": True,
    "character_coverage": 0.9995,
    "max_sentence_length": 4 * SLICE,  # bytes: no slice is longer
    "unk_id": 0, "eos_id": 1, "bos_id": -1, "pad_id": -1,
    "eos_piece": "<|endoftext|>",
    "num_threads": 1,
    "minloglevel": 2,  # the trainer's log is 200 lines
}  # fmt: skip


class SentencePieceTokenizer:
    """A SentencePiece model, trained here or brought along; `eot` is its end of sentence, if it has one."""

    name: ClassVar[str] = "sentencepiece"
    spells_text: ClassVar[bool] = True

    def __init__(self, model: bytes, source: str = "SentencePiece model"):
        from sentencepiece import SentencePieceProcessor

        try:
            self._processor = SentencePieceProcessor(model_proto=model)
        except (RuntimeError, TypeError, ValueError):
            raise DataError(f"{source}: not a SentencePiece model; give the .model file of one") from None
        self.model = model
        self.vocab_size: int = self._processor.vocab_size()
        if not self.vocab_size:
            raise DataError(f"{source}: has no pieces; give another .model file")
        self.eot: int | None = self._processor.eos_id() if self._processor.eos_id() >= 0 else None
        self.bos: int | None = self._processor.bos_id() if self._processor.bos_id() >= 0 else self.eot

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"sentencepiece " + self.model).hexdigest()

    def encode(self, text: str) -> np.ndarray:
        ids: list[int] = []
        for chunk in chunks(text):
            first, *others = chunk.split(SPACE) if self._space else [chunk]
            ids += self._processor.encode(first)
            for other in others:
                ids += self._space + self._processor.encode(other)
        return np.array(ids, np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """The text; the end of text, and padding of a vocabulary, decode to nothing."""
        return self._processor.decode([i for i in map(int, ids) if i < self.vocab_size])

    @cached_property
    def _space(self) -> list[int]:
        """U+2581 as three bytes, or nothing where a model has no pieces for bytes."""
        ids = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]
        return ids if all(map(self._processor.is_byte, ids)) else []

    def save(self, folder: Path) -> None:
        write_note(folder, name=self.name, digest=self.digest)
        (folder / FILE).write_bytes(self.model)

    @classmethod
    def read(cls, path: Path) -> "SentencePieceTokenizer":
        """The tokenizer of a model file, or of the folder that holds just one."""
        found = [path] if path.is_file() else sorted(path.glob("*.model"))
        if len(found) != 1:
            raise DataError(
                f"{path}: holds {len(found)} .model files, not one; give the file itself as vocab_path"
            )
        model = read_bytes(found[0], most=untrusted.TOKENIZER)
        trial.check("sentencepiece", model, str(found[0]))
        return cls(model, source=str(found[0]))


def train(texts: Sequence[str], vocab_size: int) -> bytes:
    """The model of `vocab_size` pieces for these texts: equal texts, equal bytes."""
    from sentencepiece import SentencePieceTrainer

    written = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(sample(texts)), model_writer=written, vocab_size=vocab_size, **SETTINGS
        )
    except RuntimeError as error:
        raise DataError(_reason(str(error), vocab_size)) from None
    return written.getvalue()


def sample(texts: Sequence[str]) -> list[str]:
    """Every n-th slice of the texts, n so that about SAMPLE characters remain."""
    slices = [text[start : start + SLICE] for text in texts for start in range(0, len(text), SLICE)]
    every = max(1, -(-len(slices) * SLICE // SAMPLE))
    return slices[::every]


def _reason(message: str, vocab_size: int) -> str:
    """The trainer's complaint as one line with its remedy."""
    most = re.search(r"too high.*<= (\d+)", message)
    least = re.search(r"required_chars\. \d+ vs (\d+)", message)
    if most:
        return f"vocab_size={vocab_size} is more pieces than this text yields; set it to {most[1]} or less"
    if least:
        return (
            f"vocab_size={vocab_size} is too small for the characters of this text; set it above {least[1]}"
        )
    return f"SentencePiece cannot be trained with vocab_size={vocab_size}: {' '.join(message.split())[:200]}"
