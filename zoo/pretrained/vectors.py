"""Word vectors as word2vec's and GloVe's tools write them; each also .gz. write_vectors.py writes them.

    word2vec text      a header line "V D", then lines: word, blank, D numbers with blanks between
    word2vec binary    the header line, then: word, blank, D float32 little endian, a newline or none
    GloVe text         the lines without a header

Files are read as a stream, a row at a time, and `words` chooses the rows that are kept, so that a file of
gigabytes serves a small vocabulary. Words are UTF-8; bytes that are not become lone surrogates and come out
again as they were (Python's "surrogateescape"), so that no two words fall together and a file that is read
and written is the same to the byte. A byte-order mark before the text and empty lines behind it, which
editors add, are passed over; a mark with a blank behind it is a word.

Refused, in one line that names file and line: another width, a number that is none or not finite, a
word that is there twice, an end before its time, a header that says otherwise.
"""

import contextlib
import gzip
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, cast

import numpy as np

from zoo import untrusted
from zoo.errors import DataError

MAX_WIDTH = 1 << 16  # of a vector; a header that says more is none
MAX_WORD = 1 << 12  # bytes; a binary file without a blank for so long is none
BLOCK = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Row = tuple[str, np.ndarray]


@dataclass(frozen=True)
class Vectors:
    """Words and their vectors, float32 [V, D]."""

    words: tuple[str, ...]
    table_VD: np.ndarray

    def __post_init__(self):
        if len(self.words) != len(self.table_VD) or self.table_VD.ndim != 2:
            raise DataError(f"{len(self.words)} words with vectors of shape {self.table_VD.shape}")

    @property
    def width(self) -> int:
        return self.table_VD.shape[1]

    @cached_property
    def places(self) -> dict[str, int]:
        """The row of each word."""
        return {word: place for place, word in enumerate(self.words)}

    @cached_property
    def unit_VD(self) -> np.ndarray:
        """The vectors at length one; a zero vector stays zero."""
        length_V1 = np.linalg.norm(self.table_VD, axis=1, keepdims=True)
        return self.table_VD / np.maximum(length_V1, 1e-30)


def read_vectors(path: Path | str, words: Collection[str] | None = None) -> Vectors:
    """The vectors of a file in any of the three formats, all or those of `words`, in the file's order.

    A first line of two whole numbers is a header; what follows it is binary where the name ends in .bin
    (or .bin.gz), as the original tool's users name it.
    """
    path = Path(path)
    with opened(path) as file:
        first = file.readline(MAX_WORD)
    if header(first) is None:
        return gathered(path, glove_rows(path), words)
    is_binary = path.name.lower().removesuffix(".gz").endswith(".bin")
    return gathered(path, (word2vec_binary_rows if is_binary else word2vec_text_rows)(path), words)


def read_word2vec_text(path: Path | str, words: Collection[str] | None = None) -> Vectors:
    """word2vec's text, all or the rows of `words`."""
    return gathered(Path(path), word2vec_text_rows(Path(path)), words)


def read_word2vec_binary(path: Path | str, words: Collection[str] | None = None) -> Vectors:
    """word2vec's binary, all or the rows of `words`."""
    return gathered(Path(path), word2vec_binary_rows(Path(path)), words)


def read_glove(path: Path | str, words: Collection[str] | None = None) -> Vectors:
    """GloVe's text, all or the rows of `words`."""
    return gathered(Path(path), glove_rows(Path(path)), words)


def gathered(path: Path, rows: Iterator[Row], words: Collection[str] | None) -> Vectors:
    """The rows of a file in one table, all or those of `words`."""
    wanted = None if words is None else frozenset(words)
    seen: dict[str, int] = {}
    kept, table, width = [], [], 0
    for number, (word, vector_D) in enumerate(rows, start=1):
        if seen.setdefault(word, number) != number:
            raise DataError(f"{path}: word {number} {word!r} is word {seen[word]} too; remove one of them")
        width = len(vector_D)
        if wanted is None or word in wanted:
            kept.append(word)
            table.append(vector_D)
    if not seen:
        raise DataError(f"{path}: no vectors in it; give a file of word2vec's or GloVe's")
    return Vectors(tuple(kept), np.array(table, np.float32).reshape(len(kept), width))


def word2vec_text_rows(path: Path) -> Iterator[Row]:
    """(word, vector) of word2vec's text, one at a time."""
    with opened(path) as file:
        count, width = required_header(path, file)
        number = 0
        for number, row in enumerate(text_rows(path, file, width, first=2), start=1):
            if number > count:
                raise DataError(f"{path}:{number + 1}: the header promises {count} words; correct it")
            yield row
        if number < count:
            raise DataError(
                f"{path}:{number + 1}: ends after {number} of the {count} words that its header promises; "
                "fetch it again or correct the header"
            )


def glove_rows(path: Path) -> Iterator[Row]:
    """(word, vector) of GloVe's text, one at a time."""
    with opened(path) as file:
        yield from text_rows(path, file, width=None, first=1)


def text_rows(path: Path, file: IO[bytes], width: int | None, *, first: int) -> Iterator[Row]:
    """(word, vector) of lines; the first one says the width where none is given."""
    empty = 0  # the line that is
    for number, line in enumerate(lines(path, file), start=first):
        line = without_mark(line, number).rstrip(b"\r\n ")
        if empty and line:
            raise DataError(f"{path}:{empty}: an empty line with others behind it; remove it")
        if not line:
            empty = empty or number
            continue
        fields = line.split(b" ")
        if width is None:
            width = len(fields) - 1
            if width > MAX_WIDTH:
                raise DataError(f"{path}:{number}: a vector of {width:,} numbers, more than {MAX_WIDTH:,}")
        if len(fields) != width + 1:
            # GloVe's largest file has words with blanks in them (". . ."): then the numbers are the last.
            fields = line.rsplit(b" ", width)
            if len(fields) != width + 1 or is_number(fields[0].rsplit(b" ", 1)[-1]):
                wide = len(line.split(b" ")) - 1
                raise DataError(
                    f"{path}:{number}: a vector of {wide} numbers among vectors of {width}; all must be alike"
                )
        if not fields[0] or width < 1:
            raise DataError(f"{path}:{number}: not a word and its numbers; remove the line")
        vector_D = numbers(fields[1:], f"{path}:{number}")
        yield checked(decoded(fields[0]), vector_D, f"{path}:{number}")


def lines(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file, none longer than a file of vectors has."""
    while line := file.readline(untrusted.LINE + 1):
        if len(line) > untrusted.LINE:
            raise DataError(f"{path}: a line of more than {untrusted.LINE:,} bytes; fetch it again")
        check_unzipped(path, file)
        yield line


def check_unzipped(path: Path, file: IO[bytes]) -> None:
    """DataError where far more comes out of a .gz than went in."""
    if isinstance(file, gzip.GzipFile):
        try:
            untrusted.check_ratio(file.tell(), path.stat().st_size)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from None


def without_mark(line: bytes, number: int) -> bytes:
    """A file's first line without the byte-order mark before it; any other as it is."""
    is_word = line.startswith(BYTE_ORDER_MARK + b" ")
    return line if number > 1 or is_word else line.removeprefix(BYTE_ORDER_MARK)


def numbers(fields: Sequence[bytes], where: str) -> np.ndarray:
    """A vector, float32, of its numbers as text."""
    try:
        if b"_" in b"".join(fields):  # Python reads 1_0 as 10, no other tool does
            raise ValueError
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
            return np.array([float(field) for field in fields]).astype(np.float32)
    except ValueError:
        wrong = decoded(next(field for field in fields if not is_number(field))[:40])
        raise DataError(f"{where}: {wrong!r} is no number; a line is a word and its numbers") from None


def word2vec_binary_rows(path: Path) -> Iterator[Row]:
    """(word, vector) of word2vec's binary, one at a time."""
    with opened(path) as file:
        count, width = required_header(path, file)
        block, start = b"", 0  # what has been read, and where in it the next word begins
        for number in range(1, count + 1):
            where = f"{path}: word {number} of {count}"
            remedy = "fetch it again, or correct its header or name (.bin is binary, .txt is text)"
            while (end := block.find(b" ", start, start + MAX_WORD)) < 0 or len(block) < end + 1 + 4 * width:
                if end < 0 and len(block) >= start + MAX_WORD:
                    raise DataError(f"{where}: no blank behind it, so this is no such file; {remedy}")
                more = file.read(BLOCK)
                check_unzipped(path, file)
                if not more:
                    raise DataError(f"{where}: the file ends inside it; {remedy}")
                block, start = block[start:] + more, 0
            word = block[start:end].lstrip(b"\n")
            if not word:
                raise DataError(f"{where}: it is empty; {remedy}")
            vector_D = np.frombuffer(block, "<f4", width, end + 1).astype(np.float32)
            yield checked(decoded(word), vector_D, where)
            start = end + 1 + 4 * width
        if (block[start:] + file.read(2)).strip(b"\n"):
            raise DataError(f"{path}: goes on behind the {count} words that its header promises; correct it")


def checked(word: str, vector_D: np.ndarray, where: str) -> Row:
    """The row, if its numbers are finite."""
    if not np.isfinite(vector_D).all():
        place = int(np.argmin(np.isfinite(vector_D)))
        raise DataError(
            f"{where}: number {place + 1} of {word!r} is {vector_D[place]}; vectors must be finite"
        )
    return word, vector_D


def header(line: bytes) -> tuple[int, int] | None:
    """The count and width that a first line says, or None where it says no such thing."""
    fields = without_mark(line, 1).split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields) or len(line) > 40:
        return None
    return int(fields[0]), int(fields[1])


def required_header(path: Path, file: IO[bytes]) -> tuple[int, int]:
    """The count and width of a file that must say them."""
    line = file.readline(MAX_WORD)
    said = header(line)
    if said is None:
        raise DataError(
            f"{path}:1: no header of two numbers, words and width, but {line[:40]!r}; "
            "a file without one is read as GloVe's"
        )
    if not said[0] or not 0 < said[1] <= MAX_WIDTH:
        raise DataError(f"{path}:1: a header of {said[0]} words of width {said[1]} cannot be; correct it")
    return said


def is_number(field: bytes) -> bool:
    """Whether it is one, for Python and for everybody else."""
    try:
        float(field)
        return b"_" not in field
    except ValueError:
        return False


def decoded(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unzipped where its name ends in .gz; what goes wrong is one line."""
    try:
        with untrusted.opened(path) as raw:
            if path.suffix.lower() != ".gz":
                yield raw
                return
            with gzip.open(raw) as file:
                yield cast(IO[bytes], file)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
