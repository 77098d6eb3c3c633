"""Parallel files: line n of each belongs to record n.

train.en    a man sleeping .       train/seq.in     play blues for me
train.de    ein mann schläft .     train/seq.out    O B-genre O O
                                   train/label      PlayMusic
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from zoo.data.examples.record import KINDS, Record, make_record
from zoo.data.examples.records.lines import read_lines
from zoo.data.files import find
from zoo.errors import DataError

SLOT_FILES = {"words": "seq.in", "tags": "seq.out", "label": "label"}  # of Goo et al. 2018


def read_parallel(source: Path, target: Path) -> list[Record]:
    """A record of source and target per line of two files."""
    return [
        make_record({"source": source_line, "target": target_line}, where)
        for where, (source_line, target_line) in _aligned([source, target])
    ]


def read_slots(folder: Path, columns: Mapping[str, str]) -> list[Record]:
    """A record per line of a folder's three files; `columns` may say how they are called."""
    names = SLOT_FILES | dict(columns)
    paths = [find(folder, [names[field]]) for field in KINDS["slots"]]
    return [
        make_record({"words": _words(words), "tags": _words(tags), "label": label}, where)
        for where, (words, tags, label) in _aligned(paths)
    ]


def _aligned(paths: list[Path]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Where each record stands (in the first file), and its line of every file."""
    files = [read_lines(path) for path in paths]
    for path, lines in zip(paths, files, strict=True):
        if len(lines) != len(files[0]):
            end = min(len(lines), len(files[0]))
            raise DataError(
                f"{paths[0]}:{end + 1}: {paths[0].name} has {len(files[0]):,} lines and {path.name} "
                f"{len(lines):,}; line n of each must belong to line n of the others"
            )
    for number, row in enumerate(zip(*files, strict=True), start=1):
        yield f"{paths[0]}:{number}", row


def _words(line: str) -> tuple[str, ...]:
    """What blanks and tabs part; other white space may be a word."""
    return tuple(filter(None, re.split("[ \t]", line)))
