"""BERT's WordPiece, from its published files (Devlin et al. 2018, arXiv 1810.04805) or trained on a text
(word_piece_training.py).

Words are split at blanks and punctuation, every Chinese character is a word, and a word becomes the
longest pieces that fit. Text is cleaned on the way, so decoding gives readable text, not the text itself.

A vocab.txt does not say whether its text was lower-cased; tokenizer_config.json and tokenizer.json may. Where
they do not, it was if no piece changes when it is lower-cased, the bracketed ones ([CLS], <S>) aside; that is
right for the published uncased, cased and Chinese vocabularies.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo import untrusted
from zoo.data.files import find, read_text
from zoo.data.tokenizers import published
from zoo.data.tokenizers.rust import Located, located, refusing
from zoo.data.tokenizers.saved import write_note
from zoo.data.tokenizers.text import chunks
from zoo.errors import DataError

FILE = "vocab.txt"
UNKNOWN, BEGIN, SEPARATOR = "[UNK]", "[CLS]", "[SEP]"
PADDING, MASK = "[PAD]", "[MASK]"
SETTINGS = {  # ours: those of tokenizer_config.json
    "lowercase": "do_lower_case",
    "strip_accents": "strip_accents",
    "splits_chinese": "tokenize_chinese_chars",
}


@dataclass(frozen=True)
class WordPieceTokenizer:
    """BERT's tokens without its special ones: [CLS] and [SEP] are for a task to add."""

    name: ClassVar[str] = "wordpiece"
    spells_text: ClassVar[bool] = False

    pieces: tuple[str, ...]
    """Piece k is token k; "##" marks the continuation of a word."""

    lowercase: bool | None = None
    """Whether text is lower-cased; None: if no piece changes when it is."""

    strip_accents: bool | None = None
    """Whether accents are taken off letters; None: where text is lower-cased."""

    splits_chinese: bool = True
    """Whether every Chinese character is a word."""

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
        """What `lowercase` comes to."""
        return self._pieces_are_lower_case if self.lowercase is None else self.lowercase

    @property
    def strips_accents(self) -> bool:
        """What `strip_accents` comes to."""
        return self.lowercases if self.strip_accents is None else self.strip_accents

    @cached_property
    def _pieces_are_lower_case(self) -> bool:
        return all(
            piece == piece.lower() for piece in self.pieces if piece[0] + piece[-1] not in ("[]", "<>")
        )

    @cached_property
    def digest(self) -> str:
        how = (self.lowercases, self.strips_accents, self.splits_chinese)
        usual = (self._pieces_are_lower_case, self._pieces_are_lower_case, True)
        settings = [] if how == usual else [how]
        return hashlib.sha256(json.dumps(["wordpiece", *self.pieces, *settings]).encode()).hexdigest()

    @cached_property
    def _library(self):
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

        tokenizer = Tokenizer(
            models.WordPiece(vocab=self.ids, unk_token=UNKNOWN, max_input_chars_per_word=100)
        )
        tokenizer.normalizer = normalizers.BertNormalizer(
            lowercase=self.lowercases,
            strip_accents=self.strips_accents,
            handle_chinese_chars=self.splits_chinese,
        )
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
        self.publish(folder)

    def publish(self, folder: Path, **settings) -> None:
        """Writes the files as BERT's are published, with more settings of tokenizer_config.json."""
        (folder / FILE).write_text("\n".join(self.pieces) + "\n", encoding="utf-8", newline="")
        marks = {"unk": UNKNOWN, "cls": BEGIN, "sep": SEPARATOR, "pad": PADDING, "mask": MASK}
        settings |= {f"{mark}_token": piece for mark, piece in marks.items() if piece in self.ids}
        settings |= {"tokenizer_class": "BertTokenizer", "do_lower_case": self.lowercases}
        settings |= {
            "strip_accents": self.strips_accents,
            "tokenize_chinese_chars": self.splits_chinese,
        }
        published.write_settings(folder, settings)

    @classmethod
    def read(cls, folder: Path) -> "WordPieceTokenizer":
        """The tokenizer of a vocab.txt, or of the folder that holds one or a tokenizer.json."""
        if folder.is_file():
            return cls._checked(read_pieces(folder), folder, {})
        whole, settings = published.read_whole(folder, "WordPiece"), published.read_settings(folder)
        how = published.bert_normalizer(whole, folder) | {
            ours: settings[theirs] for ours, theirs in SETTINGS.items() if type(settings.get(theirs)) is bool
        }
        if whole:
            path = folder / published.FILE
            return cls._checked(tuple(published.vocabulary(whole, path)), path, how)
        path = find(folder, (FILE,))
        return cls._checked(read_pieces(path), path, how)

    @classmethod
    def _checked(cls, pieces: tuple[str, ...], path: Path, how: dict) -> "WordPieceTokenizer":
        if UNKNOWN not in pieces:
            raise DataError(
                f"{path}: no {UNKNOWN} among its {len(pieces):,} pieces; give the vocab.txt of a BERT"
            )
        tokenizer = cls(pieces, **how)
        with refusing(path):
            tokenizer.encode("zoo")
        return tokenizer


def read_pieces(path: Path) -> tuple[str, ...]:
    """The lines of a vocab.txt. Raises DataError for one that is empty or stands there twice."""
    # Only "\n" ends a line: the Chinese vocabulary has pieces that are other Unicode line separators.
    pieces = tuple(read_text(path, most=untrusted.TOKENIZER).removesuffix("\n").split("\n"))
    first: dict[str, int] = {}
    for number, piece in enumerate(pieces, start=1):
        if not piece or piece.endswith("\r"):
            fault = "ends in a carriage return" if piece else "is empty"
            raise DataError(f"{path}:{number}: line {fault}; one piece a line, ended by a line feed alone")
        if first.setdefault(piece, number) != number:
            raise DataError(
                f"{path}:{number}: piece {piece!r} stands in line {first[piece]} too; fetch it again"
            )
    return pieces
