"""GPT-2's byte-level byte-pair encoding, from published files (Radford et al. 2019); also RoBERTa's and
ModernBERT's.

The vocabulary is brought along, never trained: a folder with `tokenizer.json`, or `vocab.json` and
`merges.txt` (Hugging Face's names), or `encoder.json` and `vocab.bpe` (OpenAI's), all but the first also .gz.
The text "<|endoftext|>" inside a document is ordinary text (as in tiktoken's encode_ordinary), so no document
can end itself; the same holds for every other mark.
"""

import copy
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from zoo import untrusted
from zoo.data.files import find, read_text
from zoo.data.tokenizers import published
from zoo.data.tokenizers.rust import Located, located, refusing
from zoo.data.tokenizers.saved import read_note, write_note
from zoo.data.tokenizers.text import chunks
from zoo.errors import DataError

VOCAB = ("encoder.json", "vocab.json")
MERGES = ("vocab.bpe", "merges.txt")
MARKS = (  # what begins a text, ends it, and stands for a word to be found: BERT's, RoBERTa's, GPT-2's names
    ("[CLS]", "[SEP]", "[MASK]"),
    ("<s>", "</s>", "<mask>"),
    ("<|endoftext|>", "<|endoftext|>", ""),
)
BLANKS = tuple(chr(0x100 + byte) for byte in b" \t\r\n")  # as byte_symbols writes them
SILENT = frozenset("[CLS] [SEP] [MASK] [PAD] [UNK] <s> </s> <mask> <pad> <unk> <|endoftext|>".split())


@dataclass(frozen=True)
class BPETokenizer:
    """Byte-level byte-pair encoding with GPT-2's pattern of words; loses nothing."""

    name: ClassVar[str] = "bpe"
    spells_text: ClassVar[bool] = True

    vocab: dict[str, int]
    merges: tuple[tuple[str, str], ...]

    whole_pieces: tuple[str, ...] = ()
    """Pieces of the vocabulary that are found in a text as they stand, before it is cut into words."""

    normal_form: Literal["", "NFC"] = ""
    """Of Unicode, which a text is brought to; empty: left as it is."""

    @property
    def vocab_size(self) -> int:
        return len(self.vocab)

    @cached_property
    def _marks(self) -> tuple[str, str, str]:
        """The first of MARKS that the vocabulary has."""
        return next((marks for marks in MARKS if {*marks[:2]} <= self.vocab.keys()), ("", "", ""))

    @property
    def bos(self) -> int | None:
        return self.vocab.get(self._marks[0])

    @property
    def eot(self) -> int | None:
        return self.vocab.get(self._marks[1])

    @property
    def mask(self) -> int | None:
        """What stands for a word to be found, where the vocabulary has it."""
        return self.vocab.get(self._marks[2])

    @property
    def pad(self) -> int | None:
        """What fills rows up, where the vocabulary has it."""
        return self.vocab.get("[PAD]", self.vocab.get("<pad>"))

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        """The pieces that no text spells: marks that no merge makes."""
        made = {left + right for left, right in self.merges}
        return tuple(sorted(self.vocab[piece] for piece in (SILENT & self.vocab.keys()) - made))

    @property
    def goes_on_V(self) -> np.ndarray:
        """Which pieces go on with the word of the piece before: those that no white space begins."""
        goes_on_V = np.zeros(self.vocab_size, bool)
        goes_on_V[[i for piece, i in self.vocab.items() if not piece.startswith(BLANKS)]] = True
        goes_on_V[list(self.special_ids)] = False
        return goes_on_V

    @cached_property
    def digest(self) -> str:
        pieces = sorted(self.vocab, key=self.vocab.__getitem__)
        more = [self.whole_pieces, self.normal_form] if self.whole_pieces or self.normal_form else []
        return hashlib.sha256(json.dumps(["bpe", pieces, self.merges, *more]).encode()).hexdigest()

    @cached_property
    def _library(self):
        from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

        tokenizer = Tokenizer(models.BPE(vocab=self.vocab, merges=list(self.merges)))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        if self.normal_form:
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in self.whole_pieces])
        return tokenizer

    def encode(self, text: str) -> np.ndarray:
        parts = [np.array(self._library.encode(chunk).ids, np.int32) for chunk in chunks(text)]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def encode_with_offsets(self, text: str) -> Located:
        """The tokens, and where in the text each begins and ends: a part of a character where it does."""
        return located(self._library, text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text; marks, and padding of a vocabulary, decode to nothing."""
        silent = set(self.special_ids)
        return self._library.decode([i for i in map(int, ids) if i not in silent and i < self.vocab_size])

    def save(self, folder: Path) -> None:
        more = {"whole_pieces": self.whole_pieces, "normal_form": self.normal_form}
        write_note(folder, name=self.name, digest=self.digest, **{k: v for k, v in more.items() if v})
        self._write(folder)

    def _write(self, folder: Path) -> None:
        (folder / "vocab.json").write_text(json.dumps(self.vocab))
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in self.merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")

    def publish(self, folder: Path, **settings) -> None:
        """Writes the files as GPT-2's and RoBERTa's are published, or a tokenizer.json where these say too
        little, with more settings of tokenizer_config.json."""
        begin, end, mask = self._marks
        settings |= {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
        if begin:
            settings |= {"bos_token": begin, "eos_token": end, "unk_token": end}
        if mask:
            kind = "PreTrainedTokenizerFast" if begin == "[CLS]" else "RobertaTokenizer"
            settings |= {"cls_token": begin, "sep_token": end, "mask_token": mask, "tokenizer_class": kind}
            named = {"[PAD]": "pad_token", "<pad>": "pad_token", "[UNK]": "unk_token", "<unk>": "unk_token"}
            settings |= {name: piece for piece, name in named.items() if piece in self.vocab}
        published.write_settings(folder, settings)
        if settings["tokenizer_class"] == "PreTrainedTokenizerFast":
            self._published(begin, end).save(str(folder / published.FILE))
        else:
            self._write(folder)

    def _published(self, begin: str, end: str):
        """The library's tokenizer with the marks that it puts around a text, and its special pieces."""
        from tokenizers import AddedToken, processors

        tokenizer = copy.deepcopy(self._library)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A {end}",
            pair=f"{begin} $A {end} $B {end}",
            special_tokens=[(mark, self.vocab[mark]) for mark in (begin, end)],
        )
        pieces = [tokenizer.id_to_token(i) for i in self.special_ids]
        tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in pieces])
        return tokenizer

    @classmethod
    def read(cls, folder: Path) -> "BPETokenizer":
        """The tokenizer of a folder with a vocabulary and merges, each checked against the other."""
        note = read_note(folder) or {}
        whole = {} if note else published.read_whole(folder, "BPE")
        if whole:
            tokenizer = cls._of_json(whole, folder / published.FILE)
        else:
            vocab_path, merges_path = find(folder, VOCAB), find(folder, MERGES)
            vocab = _read_vocab(vocab_path)
            merges = _checked_merges(_read_merges(merges_path), vocab, vocab_path.name)
            more = {
                "whole_pieces": tuple(note.get("whole_pieces", ())),
                "normal_form": note.get("normal_form", ""),
            }
            tokenizer = cls(vocab, merges, **more)
        with refusing(folder):
            tokenizer.encode("zoo")
        return tokenizer

    @classmethod
    def _of_json(cls, whole: dict, path: Path) -> "BPETokenizer":
        """That of a tokenizer.json. Raises DataError where it is made in another way than GPT-2's."""
        model, form = published.part(whole, "model", path), published.part(whole, "normalizer", path)
        usual = {"dropout": None, "byte_fallback": False, "ignore_merges": False}
        usual |= {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
        published.expect(model, usual, "its model", path)
        published.expect(form, {"type": "NFC"}, "its normalizer", path)
        words = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        published.expect(published.part(whole, "pre_tokenizer", path), words, "its pre_tokenizer", path)
        vocab = _checked_vocab(published.vocabulary(whole, path), path)
        wholes = [each for each in published.added_pieces(whole, path) if not each.get("special")]
        for each in wholes:
            published.expect(
                each, dict.fromkeys(("single_word", "lstrip", "rstrip"), False), "an added piece", path
            )
        pairs = model.get("merges")
        if not isinstance(pairs, list) or not all(isinstance(pair, str | list) for pair in pairs):
            raise DataError(f"{path}: its model has no merges; fetch the file again")
        merges = [
            (f"{path}: merge {number}", pair.split(" ") if isinstance(pair, str) else pair)
            for number, pair in enumerate(pairs)
        ]
        pieces = tuple(each["content"] for each in wholes)
        return cls(vocab, _checked_merges(merges, vocab, path.name), pieces, "NFC" if form else "")


def _read_vocab(path: Path) -> dict[str, int]:
    vocab = published.parsed(path, dict)
    if not all(type(i) is int for i in vocab.values()):
        raise DataError(
            f"{path}: not a JSON object of pieces and their ids; give the vocabulary of a byte-level BPE"
        )
    return _checked_vocab(vocab, path)


def _checked_vocab(vocab: dict[str, int], path: Path) -> dict[str, int]:
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


def _read_merges(path: Path) -> list[tuple[str, list[str]]]:
    """(where, the pieces) of every merge."""
    lines = enumerate(read_text(path, most=untrusted.TOKENIZER).split("\n"), start=1)
    return [
        (f"{path}:{number}", line.split(" "))
        for number, line in lines
        if line and not (number == 1 and line.startswith("#version"))
    ]


def _checked_merges(
    merges: list[tuple[str, list[str]]], vocab: dict[str, int], vocab_name: str
) -> tuple[tuple[str, str], ...]:
    for where, pieces in merges:
        match pieces:
            case [str(left), str(right)] if left and right:
                whole = left + right
            case _:
                line = " ".join(map(str, pieces))
                raise DataError(f"{where}: {line!r} is not two pieces and a blank; fetch it again")
        for piece in (left, right, whole):
            if piece not in vocab:
                raise DataError(f"{where}: piece {piece!r} is not in {vocab_name}; take both from one source")
    return tuple((left, right) for _, (left, right) in merges)


def byte_symbols() -> list[str]:
    """The 256 characters that stand for bytes: visible Latin-1 for itself, the others from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in visible] + [chr(0x100 + k) for k in range(256 - len(visible))]
