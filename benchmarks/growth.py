"""How long a text takes to become a data set, as it grows: processor seconds, with and without the cache.

The first time files are read, digested, divided and encoded; later tokens come from the cache, and what is
left is reading and digesting, which says that they are the same files.
"""

import os
import tempfile
import time
from pathlib import Path

from zoo import data

FILE_BYTES = 16 << 10
LINE = "This line of text number {} says no more than the others do.\n"


def files_of(count: int) -> dict[str, float]:
    """Of a folder of so many files of FILE_BYTES."""
    return seconds(count, FILE_BYTES)


def sizes_of(size: int) -> dict[str, float]:
    """Of two files of so many bytes together."""
    return seconds(2, size // 2)


def seconds(count: int, size: int) -> dict[str, float]:
    """Processor seconds of `count` files of `size` bytes: cold_s without tokens in the cache, warm_s with
    them; each the least of three."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made, "text")
        folder.mkdir()
        for number in range(count):
            (folder / f"{number:05}.txt").write_text(text(number, size))
        cfg = data.DataConfig(path=str(folder), tokenizer="byte", length=64)
        cold = [in_cache(cfg, Path(made, f"tokens{turn}")) for turn in range(3)]
        warm = [in_cache(cfg, Path(made, "tokens0")) for _ in range(3)]
    return {"cold_s": min(cold), "warm_s": min(warm)}


def in_cache(cfg, folder: Path) -> float:
    """Of loading with the tokens of `folder`, from there or into it."""
    before = os.environ.get("ZOO_CACHE")
    os.environ["ZOO_CACHE"] = str(folder)
    try:
        start = time.process_time()
        data.load(cfg, 0).batch(0, range(cfg.batch_size))
        return time.process_time() - start
    finally:
        if before is None:
            del os.environ["ZOO_CACHE"]
        else:
            os.environ["ZOO_CACHE"] = before


def text(number: int, size: int) -> str:
    """`size` bytes, other ones for every number."""
    line = LINE.format(number)
    return (line * (size // len(line) + 1))[:size]
