"""What a checkpoint's files were when it was complete: every one's bytes and checksums, written last.

    checkpoints/1200/MANIFEST.json    step, digest of the state, the step before it, and of each file the
                                      number of bytes and a crc32 of every 64 MiB

A manifest is made when every file and folder of its step is on the disk; so a step that has one was whole,
and whether it still is, the checksums say. A step without one was killed on the way, or is of a version that
made none: that proves nothing, and no damage either.

crc32 finds accidents. Whoever means harm can write a manifest too.
"""

import contextlib
import dataclasses
import errno
import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from zoo import durable, steps
from zoo.errors import CheckpointError, StorageError, first_line

NAME = "MANIFEST.json"
BLOCK = 64 << 20  # bytes that a checksum stands for: a large file is read by several threads
READ = 1 << 20
THREADS = min(4, os.cpu_count() or 1)
# What the disk says of a file that is not there any more, or cannot be read back.
DAMAGE = (errno.ENOENT, errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


@dataclass(frozen=True)
class Manifest:
    """One step's."""

    step: int
    state_digest: str
    settings: str
    """Digest of the configuration that the step was made with."""
    previous: tuple[int, int] | None
    """The step saved before it and that one's `crc32`: which history this step belongs to."""
    files: dict[str, list[int]]
    """{"state/d/1a2b": [bytes, crc32 of the first block, of the second, ...]}"""

    @property
    def crc32(self) -> int:
        """Of all it says."""
        return zlib.crc32(json.dumps(dataclasses.asdict(self), sort_keys=True).encode())

    @property
    def bytes(self) -> int:
        return sum(size for size, *_ in self.files.values())

    def damage(self, folder: Path, *, share: tuple[int, int] = (0, 1), only: str = "") -> str:
        """What is wrong with the files of `folder`, the first of them by name; empty where nothing is. With
        `share` (i, n) every n-th file is looked at, from the i-th on; with `only` that one."""
        if folder.name != str(self.step):
            return f"{NAME} is of step {self.step}"
        names = [name for name in sorted(self.files) if only in ("", name)][share[0] :: share[1]]
        for name in names:  # before anything is read
            try:
                size = (folder / name).stat().st_size
            except OSError as error:
                return _damage_of(name, error)
            if size != self.files[name][0]:
                return f"{name} has {size:,} bytes, not {self.files[name][0]:,}"
        with ThreadPoolExecutor(THREADS) as pool:
            blocks = [(name, index) for name in names for index in range(len(self.files[name]) - 1)]
            read = [pool.submit(_checksum, folder / name, index * BLOCK) for name, index in blocks]
            for (name, index), checksum in zip(blocks, read, strict=True):
                try:
                    if checksum.result() != self.files[name][index + 1]:
                        return f"{name} is not what was written"
                except OSError as error:
                    return _damage_of(name, error)
        return ""


@dataclass(frozen=True)
class Finding:
    """What a look at a step's files shows."""

    sealed: bool
    """Whether there is a manifest to compare them with."""
    wrong: str
    """What is damaged, the manifest itself included; empty where nothing is known to be."""


def look(folder: Path, **which) -> Finding:
    """Compares the files of a step with its manifest, or those that Manifest.damage is to look at. Changes
    nothing."""
    try:
        manifest = read(folder)
    except CheckpointError as error:
        return Finding(False, str(error))
    return Finding(False, "") if manifest is None else Finding(True, manifest.damage(folder, **which))


def read(folder: Path) -> Manifest | None:
    """The manifest of a step; None where it has none, CheckpointError where it is damaged."""
    try:
        content = json.loads((folder / NAME).read_bytes())
        checksum = content.pop("crc32")
        previous = content.pop("previous")
        manifest = Manifest(**content, previous=previous and tuple(previous))
        names = [PurePosixPath(name) for name in manifest.files]
        sizes = [size for size, *_ in manifest.files.values()]
        within = not any(name.is_absolute() or ".." in name.parts for name in names)
        if checksum == manifest.crc32 and within and all(isinstance(size, int) for size in sizes):
            return manifest
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CheckpointError(_damage_of(NAME, error)) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise CheckpointError(f"{NAME} is damaged")


def seal(folder: Path, *, state_digest: str, settings: str) -> Manifest:
    """Brings all files of a step to the disk and writes its manifest: from now on it is a checkpoint."""
    names = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != NAME
    )
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(durable.flush, [*(folder / name for name in names), *folders, folder.parent]))
        files: dict[str, list] = {}
        for name in names:
            size = (folder / name).stat().st_size
            starts = range(0, size, BLOCK)
            files[name] = [size, *(pool.submit(_checksum, folder / name, start) for start in starts)]
        files = {name: [size, *(each.result() for each in read)] for name, (size, *read) in files.items()}
    manifest = Manifest(int(folder.name), state_digest, settings, _before(folder), files)
    content = dataclasses.asdict(manifest) | {"crc32": manifest.crc32}
    durable.replace(folder / NAME, json.dumps(content) + "\n")
    return manifest


def _before(folder: Path) -> tuple[int, int] | None:
    """The sealed step before one, and its manifest's crc32."""
    for step in reversed(steps.numbered(folder.parent)):
        with contextlib.suppress(CheckpointError):
            if step < int(folder.name) and (manifest := read(folder.with_name(str(step)))):
                return step, manifest.crc32
    return None


def _checksum(path: Path, start: int) -> int:
    """crc32 of the block of a file that begins at `start`."""
    checksum, left, room = 0, BLOCK, memoryview(bytearray(READ))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left and (count := file.readinto(room[: min(READ, left)])):
            checksum, left = zlib.crc32(room[:count], checksum), left - count
    return checksum


def _damage_of(name: str, error: OSError) -> str:
    """What an error of the disk says of a file; StorageError where it says something of this process."""
    if error.errno == errno.ENOENT:
        return f"{name} is missing"
    if error.errno in DAMAGE:
        return f"{name} cannot be read ({error.strerror})"
    raise StorageError(f"{error.filename or name}: cannot be read ({first_line(error)}); mend that first")
