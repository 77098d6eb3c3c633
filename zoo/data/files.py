"""Documents out of one file: plain text or JSON lines, each also gzip-compressed.

Text arrives exactly as it lies on disk: UTF-8, line ends of every kind untouched, a byte-order mark
kept as the character it is. What cannot be read says so in one line, naming file, place and remedy.
"""

import contextlib
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo import untrusted
from zoo.errors import DataError

TEXT = frozenset(
    ".txt .text .md .rst .tex .org .html .xml "
    ".py .pyi .c .h .cc .cpp .hpp .rs .go .java .js .ts .rb .sh .sql".split()
)
JSON_LINES = ".jsonl"


@dataclass(frozen=True)
class Document:
    """One text with nothing before it and nothing after it."""

    name: str
    """Where it comes from: a path, a path and line, a topic."""

    text: str

    key: str
    """What a split by hash goes by: a file's path; a digest of the text for a line of JSON, as lines move."""


def kind(path: Path) -> str:
    """The extension that decides how a file is read: lower case, without .gz."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def find(folder: Path, names: Sequence[str]) -> Path:
    """The first of these names that the folder holds, plain or .gz."""
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise DataError(f"{folder}: has no {' or '.join(names)}, plain or .gz; give the folder that holds it")


def read_documents(path: Path, name: str) -> list[Document]:
    """The documents of one file that hold any text: a whole file is one, or each line of a .jsonl."""
    if kind(path) == JSON_LINES:
        return read_json_lines(path, name)
    if kind(path) in TEXT:
        text = read_text(path)
        return [Document(name, text, key=name)] if text else []
    raise DataError(
        f"{path}: its name is not that of a text file; give .txt (.md, .py, ...), .jsonl, "
        "each also .gz, or a folder of them"
    )


def read_json_lines(path: Path, name: str) -> list[Document]:
    """The "text" of each line, which is a JSON object; blank lines and empty texts are passed over."""
    documents = []
    text = read_text(path, line=untrusted.LINE)
    lines = text.removeprefix("\ufeff").split("\n")  # never splitlines: JSON may hold U+2028
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        text = _text_of(line, f"{path}:{number}")
        if text:
            key = hashlib.sha256(text.encode()).hexdigest()
            documents.append(Document(f"{name}:{number}", text, key))
    return documents


def json_object(line: str, where: str, remedy: str) -> dict:
    """The JSON object that a line holds; DataError with the remedy where it holds none."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno}); {remedy}") from None
    except RecursionError:
        raise DataError(f"{where}: JSON nested deeper than {untrusted.DEPTH} levels; {remedy}") from None
    except ValueError as error:  # a number of 5,000 digits
        raise DataError(f"{where}: JSON that cannot be read ({type(error).__name__}); {remedy}") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: a JSON {type(value).__name__}, not an object; {remedy}")
    if line.count("[") + line.count("{") > untrusted.DEPTH:  # else it cannot be deep
        try:
            untrusted.check_depth(value)
        except ValueError as error:
            raise DataError(f"{where}: JSON {error}; {remedy}") from None
    return value


def _text_of(line: str, where: str) -> str:
    remedy = 'each line is an object such as {"text": "..."}'
    value = json_object(line, where, remedy)
    if "text" not in value:
        keys = ", ".join(map(repr, list(value)[:5])) or "none"
        raise DataError(f'{where}: no "text" among its keys ({keys}); {remedy}')
    text = value["text"]
    if not isinstance(text, str):
        raise DataError(f'{where}: "text" is a JSON {type(text).__name__}, not a string; {remedy}')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f'{where}: "text" has half of a surrogate pair at character {error.start}; replace it'
        ) from None
    return text


def read_text(path: Path, *, most: int = untrusted.TEXT, line: int | None = None) -> str:
    """The whole text of a file, unzipped where its name ends in .gz; of at most `most` bytes, and where
    `line` is given, lines of at most so many."""
    return decoded(read_bytes(path, most=most, line=line), str(path))


def decoded(raw: bytes, where: str) -> str:
    """The text that bytes are in UTF-8; DataError for others."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        likely = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin1"
        raise DataError(
            f"{where}: byte {error.start} (0x{raw[error.start]:02x}) is not UTF-8; "
            f"convert it, for example: iconv -f {likely} -t utf-8"
        ) from None


def read_bytes(path: Path, *, most: int = untrusted.TEXT, line: int | None = None) -> bytes:
    """The bytes of a file, unzipped where its name ends in .gz. DataError before more than a block of what
    is not allowed has been read (zoo/untrusted.py)."""
    with _reading(path), untrusted.opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if path.suffix.lower() == ".gz":
            with gzip.open(file) as unzipped:
                return b"".join(untrusted.blocks(unzipped, most=most, line=line, packed=size))
        if size > most:
            raise ValueError(f"more than {most:,} bytes; split it into several files")
        return b"".join(untrusted.blocks(file, most=most, line=line))


@contextlib.contextmanager
def _reading(path: Path):
    """What goes wrong with a file, as a DataError."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder; give one file of it") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); fetch or compress it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
