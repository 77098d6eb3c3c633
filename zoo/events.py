"""What happened to a run beside its steps: runs/NAME/events.jsonl, one JSON object per line.

    {"time": "2026-11-30T12:00:00Z", "event": "preempted", "process": 0, "step": 6}

README.md lists the kinds. Of several processes the first writes, and each its own end. A line is on disk
before `write` returns, and one that a kill tore apart spoils no other. A run that cannot write them goes on:
events tell of trouble and are not to be more of it.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo import cluster
from zoo.errors import INTERNAL, LOST, first_line
from zoo.metrics import finite

_path: Path | None = None  # of the run that this process is busy with


@contextlib.contextmanager
def of_run(folder: Path) -> Iterator[None]:
    """Until it is left, `write` appends to the events of this folder; an error that leaves it is one."""
    global _path
    before, _path = _path, folder / "events.jsonl"
    try:
        yield
    except BaseException as error:  # sys.exit too
        code = LOST if cluster.is_lost(error) else getattr(error, "exit_code", INTERNAL)
        write("error", of_all=True, code=code, error=f"{type(error).__name__}: {first_line(error)}")
        raise
    finally:
        _path = before


def write(event: str, *, of_all: bool = False, **facts: Any) -> None:
    """Appends one line where a run is under way: the first process's, or with `of_all` everybody's own."""
    if _path is None or not (of_all or cluster.is_first()):
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = {"time": now, "event": event, "process": cluster.index(), **facts}
    try:
        append(_path, json.dumps(finite(record), allow_nan=False))
    except OSError as error:
        print(f"{_path} cannot be written ({error}): {event}", file=sys.stderr)


def append(path: Path, line: str) -> None:
    """Adds a line by one write to the end of a file, after what a kill may have left of another, and waits
    until the disk has it."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(file).st_size
        torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        os.write(file, f"{chr(10) * torn}{line}\n".encode())
        os.fsync(file)
    finally:
        os.close(file)


def read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of an events.jsonl, oldest first; none where there is no such file."""
    found: list[dict[str, Any]] = []
    if not path.exists():
        return found
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError):  # torn: not JSON, or not even UTF-8
            record = json.loads(line)
            if isinstance(record, dict) and "event" in record:
                found.append(record)
    return found
