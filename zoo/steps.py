"""The folder of a run's checkpoints: which steps there are, and how one goes.

    checkpoints/1200/                        a step; nothing else has a name that is a number
    checkpoints/1600.orbax-checkpoint-tmp/   being written, or left by a kill
    checkpoints/800.removed/                 being deleted, or left by a kill
    checkpoints-damaged/400/                 not what was written: for a person to look at
    checkpoints-left/400/                    a run has gone back from here

A step is renamed out of its number before the first of its files goes, so no kill leaves half of one. Nothing
here knows of other processes: who calls it owns the folder.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from zoo.errors import StorageError

REMOVED = ".removed"
WRITING = ".orbax-checkpoint-tmp"


def numbered(folder: Path) -> list[int]:
    """The steps of a folder, oldest first: what lies on the disk now."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = [entry.name for entry in entries if entry.name.isascii() and entry.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def remove(folder: Path, steps: Iterable[int]) -> None:
    """Deletes steps. What of a renamed one cannot be deleted now is swept at the next start."""
    for step in steps:
        removed = folder / f"{step}{REMOVED}"
        shutil.rmtree(removed, ignore_errors=True)
        (folder / str(step)).rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Deletes what killed runs have left: what they were writing, and what they were deleting."""
    for path in folder.iterdir():
        if WRITING in path.name or path.name.endswith(REMOVED):
            shutil.rmtree(path, ignore_errors=True)


def set_aside(folder: Path, steps: list[int], why: str) -> None:
    """checkpoints/6 -> checkpoints-damaged/6, where a person may look at it; or what else is `why`."""
    aside = folder.with_name(f"{folder.name}-{why}")
    if steps:
        aside.mkdir(exist_ok=True)
    for step in steps:
        shutil.rmtree(aside / str(step), ignore_errors=True)
        (folder / str(step)).rename(aside / str(step))


def require_room(folder: Path, size: int) -> None:
    """StorageError where the disk has no room for two checkpoints of `size` bytes; where some are there, for
    one more."""
    wanted = size * max(1, 2 - len(numbered(folder)))
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise StorageError(
            f"{folder}: {free:,} bytes are free on this disk, and checkpoints need {wanted:,} more; make "
            "room, or choose another place with --runs"
        )
