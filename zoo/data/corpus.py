"""A corpus: documents in a training, a validation and sometimes a test part.

    path          what                                       how it is split
    ""            the standard library of this Python        by file
    a file        .txt, .md, .py, ...: one document          by characters, the first part trains
                  .jsonl: a document per line                by document
    a folder      every text file in it, by path             by file
                  with train and valid (val, dev, ...)       as named, test kept apart

"By file" and "by document" mean by a hash of the name (of the text, for .jsonl: copies stay together),
which does not change when other documents come or go. So a document lies wholly in one part.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from zoo.data import stdlib
from zoo.data.files import JSON_LINES, TEXT, Document, kind, read_documents
from zoo.errors import DataError

PARTS = {
    "train": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
}


@dataclass(frozen=True)
class Corpus:
    """Documents by part: "train", "valid" and, where the source has one, "test"."""

    name: str
    """The path as it was given, or "stdlib"."""

    python: str
    """The interpreter whose library this is; empty for a user's text."""

    parts: dict[str, tuple[Document, ...]]

    @cached_property
    def digest(self) -> str:
        """Names the texts and their division, whatever the files are called."""
        parts = (f"{part} {part_digest(documents)}" for part, documents in sorted(self.parts.items()))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @cached_property
    def num_documents(self) -> dict[str, int]:
        """How many documents each part has."""
        return {part: len(documents) for part, documents in self.parts.items()}

    @cached_property
    def num_bytes(self) -> dict[str, int]:
        """How many bytes of UTF-8 each part has."""
        return {
            part: sum(len(document.text.encode()) for document in documents)
            for part, documents in self.parts.items()
        }

    def text(self, part: str) -> bytes:
        """The documents of a part one after another, with nothing between."""
        return b"".join(document.text.encode() for document in self.parts[part])

    def __str__(self) -> str:
        parts = ", ".join(
            f"{part} {self.num_documents[part]:,} documents {self.num_bytes[part]:,} bytes"
            for part in self.parts
        )
        source = f"{self.name} of {self.python}" if self.python else self.name
        return f"{source}, digest {self.digest[:12]}: {parts}"


def part_digest(documents: Sequence[Document]) -> str:
    """Names the texts of one part, in order, and where one ends and the next begins."""
    digest = hashlib.sha256()
    for document in documents:
        raw = document.text.encode()
        digest.update(b"%d\n" % len(raw))
        digest.update(raw)
    return digest.hexdigest()


@dataclass(frozen=True)
class Reader:
    """How documents come out of files."""

    kinds: frozenset[str]
    """The extensions of the files of a folder that are read; others are passed over."""
    read: Callable[[Path, str], list[Document]]
    """The documents of one file, and the name that it has in messages."""
    split_one: Callable[[Sequence[Document], float], dict[str, tuple[Document, ...]]]
    """The training and the validation part of a single document."""


def read_corpus(path: str, valid_fraction: float, reader: Reader | None = None) -> Corpus:
    """The corpus that `path` names, of texts or of what `reader` reads; "" is the standard library."""
    reader = reader or TEXTS
    if not path:
        parts = split_by_hash(stdlib.documents(), valid_fraction)
        return Corpus(stdlib.NAME, stdlib.version(), parts)
    try:
        parts = _read_parts(Path(path), valid_fraction, reader)
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: cannot be read ({error.strerror}); check its permissions"
        ) from None
    for part, documents in parts.items():
        if not documents:
            raise DataError(
                f"{path}: the {part} part is empty; add text to it, or change data.valid_fraction"
            )
    return Corpus(path, "", parts)


def _read_parts(source: Path, valid_fraction: float, reader: Reader) -> dict[str, tuple[Document, ...]]:
    if source.is_dir():
        return read_folder(source, valid_fraction, reader)
    if source.is_file():
        return split(source, reader.read(source, source.name), valid_fraction, reader)
    if source.exists():
        raise DataError(f"{source}: neither a file nor a folder; write the text to a file first")
    raise DataError(f"{source}: no such file or folder; check data.path")


def read_folder(folder: Path, valid_fraction: float, reader: Reader) -> dict[str, tuple[Document, ...]]:
    """A folder's own parts where it has a `train`, else all its text split by file."""
    named = _named_parts(folder, reader)
    if "train" not in named:
        return split(folder, _documents_below(folder, folder, reader), valid_fraction, reader)
    if "valid" not in named:
        raise DataError(
            f"{folder}: has {named['train'].name} but no valid, val, dev or validation beside it; add one"
        )
    return {
        part: tuple(_documents_below(named[part], folder, reader))
        for part in sorted(named, key=list(PARTS).index)
    }


def _named_parts(folder: Path, reader: Reader) -> dict[str, Path]:
    """The entries named after a part: subfolders, .txt and .jsonl. A train.py is just another source."""
    wanted = reader.kinds & {".txt", JSON_LINES, ".json"}
    named: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        part = PARTS.get(path.name.split(".")[0].lower())
        if part is None or not (path.is_dir() or kind(path) in wanted):
            continue
        if part in named:
            raise DataError(
                f"{folder}: {named[part].name} and {path.name} both name the {part} part; keep one"
            )
        named[part] = path
    return named


def _documents_below(path: Path, root: Path, reader: Reader) -> list[Document]:
    """Every document in a file or under a folder, by path; hidden entries and other kinds are passed over."""
    if path.is_file():
        return reader.read(path, path.relative_to(root).as_posix())
    files = []
    for folder, subfolders, names in os.walk(path, onerror=_refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "__pycache__"))]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    files = sorted(
        (file for file in files if kind(file) in reader.kinds),
        key=lambda file: file.relative_to(root).as_posix(),
    )
    if not files:
        raise DataError(
            f"{path}: no text file in this folder; it may hold {listed_kinds(reader)}, each also .gz"
        )
    return [document for file in files for document in reader.read(file, file.relative_to(root).as_posix())]


def listed_kinds(reader: Reader) -> str:
    usual = [name for name in (".txt", JSON_LINES, ".json", ".md", ".py") if name in reader.kinds]
    return ", ".join(usual) + ", ..." * (len(reader.kinds) > len(usual))


def _refuse(error: OSError):
    raise error


def split(
    source: Path, documents: list[Document], valid_fraction: float, reader: Reader
) -> dict[str, tuple[Document, ...]]:
    """One document is cut as its reader says, several are divided by hash."""
    if not documents:
        raise DataError(f"{source}: no text in it; give a file or folder that is not empty")
    if len(documents) == 1:
        return reader.split_one(documents, valid_fraction)
    return split_by_hash(documents, valid_fraction)


def split_by_characters(
    documents: Sequence[Document], valid_fraction: float
) -> dict[str, tuple[Document, ...]]:
    """The first 1 - valid_fraction of one document's characters train, as in nanoGPT's
    data/shakespeare_char."""
    (document,) = documents
    cut = int(len(document.text) * (1 - valid_fraction))
    parts = {"train": document.text[:cut], "valid": document.text[cut:]}
    return {part: (replace(document, text=text),) if text else () for part, text in parts.items()}


def split_by_hash(documents: Sequence[Document], valid_fraction: float) -> dict[str, tuple[Document, ...]]:
    """About `valid_fraction` of the documents validate, always the same ones, at least one and not all."""
    draws = [_draw(document.key) for document in documents]
    lowest, highest = min(draws), max(draws)
    is_valid = [draw != highest and (draw < valid_fraction or draw == lowest) for draw in draws]
    pairs = list(zip(documents, is_valid, strict=True))
    return {
        "train": tuple(document for document, valid in pairs if not valid),
        "valid": tuple(document for document, valid in pairs if valid),
    }


def _draw(key: str) -> float:
    """A number in [0, 1) that is the same for this key everywhere and always."""
    return int.from_bytes(hashlib.sha256(key.encode(errors="surrogateescape")).digest()[:6], "big") / 2**48


TEXTS = Reader(TEXT | {JSON_LINES}, read_documents, split_by_characters)
