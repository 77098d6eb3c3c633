"""Documents out of one file: plain text or JSON lines, each also gzip-compressed.

Text arrives exactly as it lies on disk: UTF-8, line ends of every kind untouched, a byte-order mark
kept as the character it is. What cannot be read says so in one line, naming file, place and remedy.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import DataError

TEXT = frozenset(
    ".txt .text .md .rst .tex .org .html .xml "
    ".py .pyi .c .h .cc .cpp .hpp .rs .go .java .js .ts .rb .sh .sql".split()
)
JSON_LINES = ".jsonl"

# A gzip file may unfold a thousandfold. Text is held in memory once (sources are digested and encoded
# whole), so what does not fit there is refused before it is unfolded.
MAX_UNZIPPED = 4 * 2**30


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
    lines = read_text(path).removeprefix("\ufeff").split("\n")  # never splitlines: JSON may hold U+2028
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
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, brackets 100,000 deep
        raise DataError(f"{where}: JSON that cannot be read ({type(error).__name__}); {remedy}") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: a JSON {type(value).__name__}, not an object; {remedy}")
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


def read_text(path: Path) -> str:
    """The whole text of a file, unzipped where its name ends in .gz."""
    return decoded(read_bytes(path), str(path))


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


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unzipped where its name ends in .gz, never more than MAX_UNZIPPED of them."""
    try:
        if path.suffix.lower() != ".gz":
            return path.read_bytes()
        with gzip.open(path) as file:
            raw = file.read(MAX_UNZIPPED + 1)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder; give one file of it") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); fetch or compress it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if len(raw) > MAX_UNZIPPED:
        raise DataError(f"{path}: unzips to more than {MAX_UNZIPPED:,} bytes; split it into several files")
    return raw
