"""Hostile files: what anybody might put where zoo reads, made here, none stored.

Each Case is a folder's content, who reads it, and what must become of it: an error of zoo's own, one line, or
nothing at all. test_hostile.py runs them under the gate (gate.py), which sees what a reader does beside that,
with limits on time and memory. A canary is a file that only running a folder's code would make.

    python -m hostile FOLDER        in tests/: writes all of them into a folder, to look at them
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

CANARY = "zoo-canary"
Content = bytes | str | Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One hostile folder."""

    name: str
    reader: str
    """Who reads it, of READERS in test_hostile.py."""
    files: dict[str, Content]
    """By their paths: bytes, text, or what makes the file where it is told to."""
    error: str = ""
    """The name of the error that must come of it; empty where the file is harmless after all."""
    source: str = ""
    """Where the idea is from: a report, an advisory, a row of the reference."""
    arguments: dict = field(default_factory=dict)
    seconds: float = 0.1
    """Of computing, at most."""
    megabytes: int = 64

    def write(self, folder: Path) -> None:
        """Makes the folder."""
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)


def sparse(size: int, first: bytes = b"") -> Callable[[Path], None]:
    """A file of so many bytes that takes no room."""

    def make(path):
        path.write_bytes(first)
        os.truncate(path, size)

    return make


def link(target: str) -> Callable[[Path], None]:
    """A link to somewhere."""
    return lambda path: path.symlink_to(target)


def pipe(path: Path) -> None:
    """A pipe that nobody writes to: opening it for reading waits for ever."""
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def cases() -> list[Case]:
    """All of them; no two have one name."""
    from hostile import settings, texts, vocabularies, weights

    found = [case for part in (weights, settings, vocabularies, texts) for case in part.cases()]
    assert len({case.name for case in found}) == len(found), repeated(case.name for case in found)
    return found


def repeated(names: Iterable[str]) -> list[str]:
    names = list(names)
    return sorted({name for name in names if names.count(name) > 1})
