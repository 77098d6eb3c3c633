"""Tokenizers: text to numbers and back.

    name            vocabulary                        loses        end of text
    byte            none needed                       nothing      256
    char            the characters of the corpus      nothing      only between several documents
    sentencepiece   trained on the corpus             nothing      <|endoftext|>
    bpe             GPT-2's files                     nothing      <|endoftext|>
    wordpiece       BERT's, or trained on the corpus  white space  [SEP]
    word            the words of the corpus           white space  </s>, where texts are examples
    whole           a decoder's tokenizer.json        what it says the eos_token that it says, and others that
                                                                   its generation_config.json has

`save` writes one to a folder and `load_tokenizer` reads it from there, or from a folder as Hugging Face
publishes them (tokenizer.json, vocab.json and merges.txt, vocab.txt, a .model file); `publish` of wordpiece
and bpe writes those.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from zoo import untrusted
from zoo.data.tokenizers import bpe, published, word_piece
from zoo.data.tokenizers.bpe import BPETokenizer
from zoo.data.tokenizers.byte import ByteTokenizer
from zoo.data.tokenizers.char import CharTokenizer
from zoo.data.tokenizers.saved import FILE, read_note
from zoo.data.tokenizers.sentence_piece import SentencePieceTokenizer
from zoo.data.tokenizers.whole import WholeTokenizer
from zoo.data.tokenizers.word import WordTokenizer
from zoo.data.tokenizers.word_piece import WordPieceTokenizer
from zoo.errors import ConfigError, DataError, nearest


class Tokenizer(Protocol):
    """What every tokenizer can do."""

    name: ClassVar[str]
    spells_text: ClassVar[bool]
    """Whether decoding what was encoded gives the text back, so that bits per byte of it can be counted."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def eot(self) -> int | None:
        """The token that ends one text and begins the next, if there is one; it decodes to nothing."""

    @property
    def bos(self) -> int | None:
        """The token before the first of a text to be written; the end of text where there is no other."""

    @property
    def digest(self) -> str:
        """Equal for tokenizers that give every text the same tokens, in every process."""

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, int32, without an end of text."""

    def decode(self, ids: Iterable[int]) -> str: ...

    def save(self, folder: Path) -> None:
        """Writes what `load_tokenizer` reads, into a folder that is made if it is not there."""


TOKENIZERS: dict[str, type[Any]] = {
    "byte": ByteTokenizer,
    "char": CharTokenizer,
    "sentencepiece": SentencePieceTokenizer,
    "bpe": BPETokenizer,
    "wordpiece": WordPieceTokenizer,
    "word": WordTokenizer,
    "whole": WholeTokenizer,
}


def check_settings(cfg) -> None:
    """ConfigError where a configuration's tokenizer, vocab_path, vocab_size and min_count do not fit."""
    if cfg.min_count > 1 and cfg.tokenizer != "word":
        raise ConfigError(
            f"min_count={cfg.min_count} is not read by tokenizer={cfg.tokenizer}; set it to 1, or "
            "tokenizer to word"
        )
    if cfg.tokenizer in ("bpe", "whole") and not cfg.vocab_path:
        raise ConfigError(f"tokenizer={cfg.tokenizer} needs vocab_path, the folder that holds its vocabulary")
    if cfg.tokenizer == "wordpiece" and not (cfg.vocab_path or cfg.vocab_size):
        raise ConfigError(
            "tokenizer=wordpiece needs vocab_path, the folder of a vocab.txt, or vocab_size, for example 8192"
        )
    if cfg.tokenizer in ("byte", "char") and cfg.vocab_path:
        raise ConfigError(
            f"vocab_path={cfg.vocab_path} is not read by tokenizer={cfg.tokenizer}; "
            "set tokenizer to bpe, wordpiece or sentencepiece"
        )
    if cfg.tokenizer == "sentencepiece" and not (cfg.vocab_path or cfg.vocab_size):
        raise ConfigError(
            "tokenizer=sentencepiece needs vocab_size, for example 4096, or a .model as vocab_path"
        )


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """The tokenizer that was saved in a folder, or that Hugging Face's files in it describe."""
    folder = Path(folder)
    note = read_note(folder)
    if note is None:
        _check_links(folder)
        return _load_published(folder)
    if note["name"] not in TOKENIZERS:
        raise DataError(
            f"{folder / FILE}: unknown tokenizer {note['name']!r}{nearest(note['name'], TOKENIZERS)}"
        )
    tokenizer = read_vocabulary(note["name"], folder)
    if tokenizer.digest != note.get("digest"):
        raise DataError(
            f"{folder}: its vocabulary is not the one that was saved there; save the tokenizer again"
        )
    return tokenizer


def read_vocabulary(name: str, path: Path) -> Tokenizer:
    """The tokenizer `name` of a vocabulary's file or folder."""
    _check_links(path)
    return TOKENIZERS[name].read(path)


def _check_links(path: Path) -> None:
    try:
        if path.is_dir():
            untrusted.check_links(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None


def holds_tokenizer(folder: Path) -> bool:
    """Whether `load_tokenizer` finds files of a tokenizer there, sound or not."""
    known = {FILE, published.FILE, *bpe.VOCAB, word_piece.FILE}
    names = {path.name.removesuffix(".gz") for path in folder.glob("*")}
    return bool(names & known) or any(name.endswith(".model") for name in names)


def _load_published(folder: Path) -> Tokenizer:
    names = {path.name.removesuffix(".gz") for path in folder.glob("*")}
    if kind := published.kind_of(folder):
        kinds: dict[str, type[Any]] = {"WordPiece": WordPieceTokenizer, "BPE": BPETokenizer}
        if kind == "BPE" and (published.read_template(folder) or not published.is_gpt2s(folder)):
            return WholeTokenizer.read(folder)
        if kind not in kinds:
            raise DataError(
                f"{folder / published.FILE}: a tokenizer of the kind {kind!r:.80}, which is not known here; "
                f"{' and '.join(kinds)} are"
            )
        return kinds[kind].read(folder)
    if names.intersection(bpe.VOCAB):
        return BPETokenizer.read(folder)
    if word_piece.FILE in names:
        return WordPieceTokenizer.read(folder)
    if any(name.endswith(".model") for name in names):
        return SentencePieceTokenizer.read(folder)
    raise DataError(
        f"{folder}: no tokenizer in it; it may hold {FILE}, tokenizer.json, vocab.json and merges.txt, "
        "vocab.txt or a .model"
    )
