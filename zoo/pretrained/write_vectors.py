"""Word vectors written as word2vec's and GloVe's tools do; vectors.py has the formats.

Binary round trips are exact; text carries nine significant digits, which are exact for float32.
"""

import gzip
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from zoo.errors import DataError, StorageError, storage_errors
from zoo.pretrained.vectors import Vectors


def write_word2vec_text(path: Path | str, vectors: Vectors) -> None:
    """The header, and lines of a word and its numbers to nine digits."""
    _write(Path(path), vectors, lambda: (_header(vectors), *_lines(vectors)))


def write_word2vec_binary(path: Path | str, vectors: Vectors) -> None:
    """The header, and each word, its float32 and a newline, as the original tool writes them."""
    table_VD = vectors.table_VD.astype("<f4")

    def pieces():
        yield _header(vectors)
        for word, vector_D in zip(vectors.words, table_VD, strict=True):
            yield _encoded(word) + b" " + vector_D.tobytes() + b"\n"

    _write(Path(path), vectors, pieces)


def write_glove(path: Path | str, vectors: Vectors) -> None:
    """Lines of a word and its numbers to nine digits."""
    if vectors.words and vectors.words[0].startswith("\ufeff") and vectors.words[0] != "\ufeff":
        raise DataError(f"word 1 {vectors.words[0]!r} begins with a byte-order mark; put another word first")
    _write(Path(path), vectors, lambda: _lines(vectors))


def _header(vectors: Vectors) -> bytes:
    return b"%d %d\n" % vectors.table_VD.shape


def _lines(vectors: Vectors) -> Iterator[bytes]:
    numbers = " ".join(["%.9g"] * vectors.width)
    for word, vector_D in zip(vectors.words, vectors.table_VD, strict=True):
        yield _encoded(word) + b" " + (numbers % tuple(vector_D.tolist())).encode() + b"\n"


def _encoded(word: str) -> bytes:
    return word.encode("utf-8", "surrogateescape")


def check_folder(path: Path) -> None:
    """Raises StorageError where the folder that a file is to stand in is not there."""
    if not path.parent.is_dir():
        raise StorageError(f"{path.parent}: no such folder; create it (mkdir -p) or choose another path")


def _write(path: Path, vectors: Vectors, pieces: Callable) -> None:
    """All pieces into a file that appears whole or not at all."""
    check_folder(path)
    _check_writable(vectors)
    with storage_errors(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".unfinished-")
        try:
            with open(handle, "wb") as raw:
                if path.suffix.lower() == ".gz":  # no name and no time in it: equal vectors, equal files
                    with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
                        file.writelines(pieces())
                else:
                    raw.writelines(pieces())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _check_writable(vectors: Vectors) -> None:
    """Raises DataError for what a reader would refuse or read as something else."""
    for number, word in enumerate(vectors.words, start=1):
        if not word or " " in word or "\n" in word or word != word.strip("\r"):
            raise DataError(
                f"word {number} {word!r} has a blank or a line's end in it, or nothing; rename it"
            )
    if len(vectors.places) != len(vectors.words):
        twice = next(word for i, word in enumerate(vectors.words) if vectors.places[word] != i)
        raise DataError(f"word {twice!r} is there twice; remove one of them")
    if not vectors.words or not vectors.width:
        raise DataError(f"vectors of shape {vectors.table_VD.shape} make no file; give a word and a number")
    finite_V = np.isfinite(vectors.table_VD).all(axis=1)
    if not finite_V.all():
        raise DataError(f"the vector of {vectors.words[int(np.argmin(finite_V))]!r} is not finite")
