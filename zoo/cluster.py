"""Several processes that train as one: who they are, and how they agree.

zoo/joining.py has joined them by JAX's own runtime, and every one of them runs this same program. The first
owns the run's folder: it alone writes, and what it finds there is what all go by, so no decision hangs on a
file that one sees and another does not yet. Errors that a person can mend travel with it: all leave, with its
line and its exit code.

Before the first step all compare what they are about to do (`check_alike`) and whether they see one folder
(`check_shared`): what differs would show as a hang, or as numbers that nobody can explain.

A process that fails leaves without a farewell, as the runtime's would wait for the others; they are ended by
the runtime when its heartbeats stay away. The first has the runtime's server, without which the others are
aborted where they stand: it stays a moment longer, as what it has met, a wrong path say, they are about to
meet too.
"""

import contextlib
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypeVar

import jax
import numpy as np

from zoo import errors
from zoo.errors import PREEMPTED, ConfigError, UserError, storage_errors

# What the runtime and Gloo say where another process is gone.
SIGNS_OF_LOSS = ("heartbeat timeout", "Connection closed by peer", "Connection reset by peer", "UNAVAILABLE")

Found = TypeVar("Found")

MOMENT_SECONDS = 1.0  # for the others to say what the first has failed of, too
SEEN_SECONDS = 5.0  # for a file of the first process to show on another host


def is_several() -> bool:
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return not is_several() or jax.process_index() == 0


def index() -> int:
    """Which of the processes this is, from 0."""
    return jax.process_index() if is_several() else 0


def stderr() -> TextIO:
    """Where progress goes: the first process's stderr. Errors go to everybody's own."""
    return sys.stderr if is_first() else open(os.devnull, "w")


def from_first(make: Callable[[], Found]) -> Found:
    """What `make` returns in the first process, which alone calls it: something that JSON can say. Its
    UserError is raised in all of them."""
    if not is_several():
        return make()
    said: dict[str, Any] = {}
    if is_first():
        try:
            said["value"] = make()
        except UserError as error:
            said = {"error": str(error), "kind": type(error).__name__}
    said = told(said)
    if "error" in said:
        raise getattr(errors, said["kind"], UserError)(said["error"])
    return said["value"]


def told(said: dict[str, Any]) -> dict[str, Any]:
    """What the first process says, in all of them."""
    from jax.experimental import multihost_utils

    text = np.frombuffer(json.dumps(said).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.resize(text, length) if len(text) != length else text
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


def gathered(said: dict[str, Any]) -> list[dict[str, Any]]:
    """What every process says, in all of them, by their numbers."""
    if not is_several():
        return [said]
    from jax.experimental import multihost_utils

    text = np.frombuffer(json.dumps(said).encode(), np.uint8)
    lengths = np.ravel(multihost_utils.process_allgather(np.int32(len(text))))
    padded = np.zeros(max(lengths), np.uint8)
    padded[: len(text)] = text
    texts = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(text[:length].tobytes()) for text, length in zip(texts, lengths, strict=True)]


def everywhere(is_so: bool) -> bool:
    """Whether it is so in every process."""
    if not is_several():
        return is_so
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.array(is_so))))


def check_alike(facts: dict[str, Any], differences: Callable[[dict, dict], list[str]]) -> None:
    """Whether all processes are about to do the same. Raises ConfigError in all where one is not, with what
    `differences` finds between the first's facts and its."""
    first, *others = gathered(facts)
    for process, theirs in enumerate(others, 1):
        if found := differences(first, theirs):
            raise ConfigError(
                f"process {process} is about to do something else than process 0 ({'; '.join(found)}); start "
                "all with the same command, code and data"
            )


def check_shared(folder: Path) -> None:
    """Whether all processes see the folder that the first writes to. Raises ConfigError in all where one
    does not."""
    if not is_several():
        return
    path = folder / ".seen"

    def written() -> str:
        token = uuid.uuid4().hex
        with storage_errors(folder):
            path.write_text(token)
        return token

    token, until = from_first(written), time.monotonic() + SEEN_SECONDS
    while not (sees := path.is_file() and path.read_text() == token) and time.monotonic() < until:
        time.sleep(0.1)
    blind = [process for process, said in enumerate(gathered({"sees": sees})) if not said["sees"]]
    if is_first():
        path.unlink(missing_ok=True)
    if blind:
        raise ConfigError(
            f"{folder} is another folder for process {', '.join(map(str, blind))} than for process 0; give a "
            "folder that all see with --runs"
        )


def is_lost(error: Exception) -> bool:
    """Whether an error of the runtime says that another process is gone."""
    return jax.distributed.is_initialized() and any(sign in str(error) for sign in SIGNS_OF_LOSS)


def leave(exit_code: int) -> None:
    """Parts from the others: after a success together, after a failure at once, or the first in a moment."""
    if not jax.distributed.is_initialized():
        return
    if exit_code in (0, PREEMPTED):
        jax.distributed.shutdown()
        return
    from zoo.ending import die

    with contextlib.suppress(RuntimeError):  # of devices that do not start
        if is_several() and is_first():
            time.sleep(MOMENT_SECONDS)
    die(exit_code)
