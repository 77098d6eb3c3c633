"""Files that somebody else wrote: the limits that they are read within, and the ways in.

    raw   = contents(path, CONFIG)      # bytes of a regular file, of which there are not more
    found = json_object(raw)            # an object: no name twice, no NaN, not nested deeper than DEPTH
    check_links(folder)                 # no file of a model leads out of its folder

Sizes are looked at before anything is read, and counts before anything is made of them. What is refused is a
ValueError of a few words, or the OSError of the system; whoever reads says where, and what to do.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

CONFIG = 1 << 20  # bytes of a config.json; published ones have a few thousand
INDEX = 16 << 20  # of the index of a model's shards
HEADER = 16 << 20  # of the header of a .safetensors file
TOKENIZER = 64 << 20  # of a tokenizer's file; Gemma 3's tokenizer.json has 33 million
NOTE = 64 << 20  # of a JSON file that a run keeps of itself
LINE = 16 << 20  # of one line of a file of records
TREE = 256 << 20  # of a file of records that is one JSON value
TEXT = 4 << 30  # of any other text; it is held in memory once, digested and encoded whole

TENSORS = 100_000  # in all files of a model, and one more is refused
LABELS = 100_000  # of a classifier
LAYERS = 10_000
EXPERTS = 10_000
DEPTH = 64  # of JSON
BLOCK = 1 << 20  # bytes that are read at a time
HOLE = bytes(BLOCK)

# Text unzips to four times its size, logs to fifty. What goes beyond RATIO is refused once it has FREE bytes.
RATIO, FREE = 200, 16 << 20

FILES = (".json", ".jinja", ".safetensors", ".txt", ".model", ".bpe", ".gz")  # that a model is made of


def opened(path: str | os.PathLike) -> IO[bytes]:
    """A regular file, to be read. A pipe or a device, which may never end or never begin, is a ValueError."""
    _check_regular(os.stat(path).st_mode, path)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _check_regular(os.fstat(file.fileno()).st_mode, path)  # it may be another by now
    except BaseException:
        file.close()
        raise
    return file


def _check_regular(mode: int, path: str | os.PathLike) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder", os.fspath(path))
    if not stat.S_ISREG(mode):
        raise ValueError("neither a file nor a folder")


def contents(path: str | os.PathLike, most: int) -> bytes:
    """The bytes of a regular file. ValueError where there are more than `most`."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        check_size(size, most)
        return file.read(size)


def check_size(size: int, most: int) -> None:
    """ValueError for a size beyond `most`."""
    if size > most:
        raise ValueError(f"{size:,} bytes, and the most is {most:,}")


def check_links(folder: Path) -> None:
    """ValueError where a file of a model is a link that leads out of its folder, or into a circle.

    The hub's copies are links too: models--x/snapshots/REVISION/config.json -> ../../blobs/DIGEST.
    """
    home = os.path.realpath(folder)
    homes = {home}
    if os.path.basename(os.path.dirname(home)) == "snapshots":
        homes.add(os.path.join(os.path.dirname(os.path.dirname(home)), "blobs"))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink() and entry.name.endswith(FILES):
                target = os.path.realpath(entry.path)
                if os.path.dirname(target) not in homes or not os.path.isfile(target):
                    raise ValueError(f"{entry.name} is a link out of it; put the file itself there")


# --- JSON -----------------------------------------------------------------------------------------


def json_value(raw: bytes | str) -> Any:
    """What JSON says, strictly. ValueError for what other readers may read in another way, or not at all:
    a name twice, NaN and infinities, half of a surrogate pair, more than DEPTH levels."""
    text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
    try:
        found = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEPTH} levels") from None
    check_depth(found)
    if "\\u" in text:
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair in it") from None
    return found


def json_object(raw: bytes | str) -> dict[str, Any]:
    """The same, where it must be an object."""
    found = json_value(raw)
    if not isinstance(found, dict):
        raise ValueError(f"a JSON {type(found).__name__}, not an object")
    return found


def check_depth(value: Any) -> None:
    """ValueError for what is nested deeper than DEPTH: whatever walks through it may call itself as often."""
    level = [value]
    for _ in range(DEPTH + 1):
        level = [item for each in level for item in _inside(each) if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError(f"nested deeper than {DEPTH} levels")


def _inside(value: Any):
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"{twice!r:.80} stands there twice")
    return found


def _constant(name: str):
    raise ValueError(f"{name} is no JSON")


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text:.80} is no finite number")
    return number


# --- text -----------------------------------------------------------------------------------------


def blocks(file: IO[bytes], *, most: int, line: int | None = None, packed: int = 0) -> Iterator[bytes]:
    """The bytes of a text in blocks, each looked at before the next is read.

    ValueError for more than `most` bytes, a block of zeros (a hole, which a file system makes of nothing),
    a line of more than `line` bytes, and what unzips to more than RATIO times its `packed` size.
    """
    total = begun = 0  # bytes of all, and of the line that is not ended yet
    number = 1  # of that line
    while block := file.read(BLOCK):
        total += len(block)
        if total > most:
            raise ValueError(f"more than {most:,} bytes; split it into several files")
        if packed:
            check_ratio(total, packed)
        if block == HOLE:
            raise ValueError(f"{BLOCK:,} bytes of zeros before byte {total:,}; fetch the file again")
        if line is not None:
            first = block.find(b"\n")
            if begun + (len(block) if first < 0 else first) > line:
                raise ValueError(f"line {number} has more than {line:,} bytes; divide it")
            number += block.count(b"\n")
            begun = begun + len(block) if first < 0 else len(block) - block.rfind(b"\n") - 1
        yield block


def check_ratio(unzipped: int, packed: int) -> None:
    """ValueError for a file that unzips to far more than any text does."""
    if unzipped > max(FREE, RATIO * packed):
        raise ValueError(f"unzips to more than {RATIO} times its size; unzip it first, if it is sound")
