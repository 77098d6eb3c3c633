"""BERT's WordPiece, from its published vocab.txt (Devlin et al. 2018, arXiv 1810.04805) or trained on a text
(word_piece_training.py).

Words are split at blanks and punctuation, every Chinese character is a word, and a word becomes the
longest pieces that fit. Text is cleaned on the way, so decoding gives readable text, not the text itself.

The file does not say whether its text was lower-cased. It was if no piece changes when it is lower-cased,
the bracketed ones ([CLS], <S>) aside; that is right for the published uncased, cased and Chinese
vocabularies.
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

FILE = "vocab.txt"
UNKNOWN, BEGIN, SEPARATOR = "[UNK]", "[CLS]", "[SEP]"
PADDING, MASK = "[PAD]", "[MASK]"


@dataclass(frozen=True)
class WordPieceTokenizer:
    """BERT's tokens without its special ones: [CLS] and [SEP] are for a task to add."""

    name: ClassVar[str] = "wordpiece"
    spells_text: ClassVar[bool] = False

    pieces: tuple[str, ...]
    """Piece k is token k; "##" marks the continuation of a word."""

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {piece: i for i, piece in enumerate(self.pieces)}

    @property
    def eot(self) -> int | None:
        """[SEP] ends a text, where the vocabulary has it."""
        return self.ids.get(SEPARATOR)

    @property
    def bos(self) -> int | None:
        """[CLS], where the vocabulary has it."""
        return self.ids.get(BEGIN)

    @property
    def unk(self) -> int:
        return self.ids[UNKNOWN]

    @property
    def pad(self) -> int | None:
        """[PAD], where the vocabulary has it."""
        return self.ids.get(PADDING)

    @property
    def mask(self) -> int | None:
        """[MASK], which stands for a word to be found, where the vocabulary has it."""
        return self.ids.get(MASK)

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The pieces in brackets, which no text spells, as a bracket is a word of its own."""
        return tuple(i for i, p in enumerate(self.pieces) if len(p) > 2 and p[0] + p[-1] == "[]")

    @property
    def goes_on_V(self) -> np.ndarray:
        """Which pieces go on with the word of the piece before."""
        return np.array([len(piece) > 2 and piece.startswith("##") for piece in self.pieces])

    @cached_property
    def lowercases(self) -> bool:
        return all(
            piece == piece.lower() for piece in self.pieces if piece[0] + piece[-1] not in ("[]", "<>")
        )

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(["wordpiece", *self.pieces]).encode()).hexdigest()

    @cached_property
    def _library(self):
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

        tokenizer = Tokenizer(
            models.WordPiece(vocab=self.ids, unk_token=UNKNOWN, max_input_chars_per_word=100)
        )
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=self.lowercases)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        return tokenizer

    def encode(self, text: str) -> np.ndarray:
        parts = [np.array(self._library.encode(chunk).ids, np.int32) for chunk in chunks(text)]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def encode_with_offsets(self, text: str) -> Located:
        """The tokens, and where in the text each begins and ends."""
        return located(self._library, text)

    def decode(self, ids: Iterable[int]) -> str:
        """Readable text; [SEP], and padding of a vocabulary, decode to nothing."""
        return self._library.decode([i for i in map(int, ids) if i != self.eot and i < self.vocab_size])

    def save(self, folder: Path) -> None:
        write_note(folder, name=self.name, digest=self.digest)
        (folder / FILE).write_text("\n".join(self.pieces) + "\n", encoding="utf-8", newline="")

    @classmethod
    def read(cls, folder: Path) -> "WordPieceTokenizer":
        """The tokenizer of a vocab.txt, or of the folder that holds one."""
        path = folder if folder.is_file() else find(folder, (FILE,))
        # Only "\n" ends a line: the Chinese vocabulary has pieces that are other Unicode line separators.
        pieces = tuple(read_text(path).removesuffix("\n").split("\n"))
        first: dict[str, int] = {}
        for number, piece in enumerate(pieces, start=1):
            if not piece or piece.endswith("\r"):
                fault = "ends in a carriage return" if piece else "is empty"
                raise DataError(
                    f"{path}:{number}: line {fault}; one piece a line, ended by a line feed alone"
                )
            if first.setdefault(piece, number) != number:
                raise DataError(
                    f"{path}:{number}: piece {piece!r} stands in line {first[piece]} too; fetch it again"
                )
        if UNKNOWN not in first:
            raise DataError(
                f"{path}: no {UNKNOWN} among its {len(pieces):,} pieces; give the vocab.txt of a BERT"
            )
        tokenizer = cls(pieces)
        with refusing(path):
            tokenizer.encode("zoo")
        return tokenizer
