"""Several processes that train as one: who they are, and how they agree.

JAX's own runtime joins them (jax.distributed), and every one of them runs this same program. A process is one
of several where its launcher says so,

    SLURM, Open MPI            more than one task
    TPU VMs, GKE's JobSets     a slice, or several, of more than one host: where there is a TPU, JAX finds out
    by hand                    --cluster.coordinator HOST:PORT --cluster.processes 4 --cluster.process 2

and alone everywhere else, at no cost. The first process owns the run's folder: it alone writes, and what it
finds there is what all go by, so no decision hangs on a file that one sees and another does not yet. Errors
that a person can mend travel with it: all leave, with its line and its exit code.

Before the first step all compare what they are about to do (`check_alike`) and whether they see one folder
(`check_shared`): what differs would show as a hang, or as numbers that nobody can explain.

A process that fails leaves without a farewell, as the runtime's would wait for the others; they are ended by
the runtime when its heartbeats stay away. The first has the runtime's server, without which the others are
aborted where they stand: it stays a moment longer, as what it has met, a wrong path say, they are about to
meet too.
"""

import contextlib
import importlib.util
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

import jax
import numpy as np

from zoo import errors
from zoo.errors import PREEMPTED, ConfigError, UserError, storage_errors

# What the runtime and Gloo say where another process is gone.
SIGNS_OF_LOSS = ("heartbeat timeout", "Connection closed by peer", "Connection reset by peer", "UNAVAILABLE")

Found = TypeVar("Found")

FAREWELL_SECONDS = 60  # for the others to come to the end of a run too
MOMENT_SECONDS = 1.0  # for the others to say what the first has failed of, too
LATER_SECONDS = 60  # by which the runtime waits longer than we do: its own end is an abort
SEEN_SECONDS = 5.0  # for a file of the first process to show on another host

TPU = "TPU"
# {launcher: the variable that counts its tasks}
COUNTS = {"SLURM": "SLURM_NTASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE"}
# What srun sets and sbatch does not: a batch script alone is one process, however many tasks it may start.
STEP = "SLURM_STEP_NODELIST"
# Lists of the hosts of a TPU slice, and what several slices have.
HOSTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")
SLICES = "MEGASCALE_COORDINATOR_ADDRESS"
CHIPS = ("/dev/accel0", "/dev/vfio/0")


@dataclass(frozen=True)
class ClusterConfig:
    """Which of how many processes this is, where no launcher says it."""

    coordinator: str = ""
    """HOST:PORT of the first process, where the others find it; empty: as the launcher says, else alone."""
    processes: int = 0
    """How many there are; 0: as the launcher says."""
    process: int = -1
    """Which of them this is, from 0; -1: as the launcher says."""
    start_seconds: int = 300
    """How long to wait for the others at the start."""
    heartbeat_seconds: int = 10
    """After how long a silence a process counts as lost, and all are ended."""

    def __post_init__(self):
        for name in ("start_seconds", "heartbeat_seconds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        given = (bool(self.coordinator), self.processes > 0, self.process >= 0)
        if any(given) and not all(given):
            raise ConfigError(
                f"coordinator={self.coordinator!r} processes={self.processes} process={self.process}: give "
                "all three, or none where a launcher says them"
            )
        host, _, port = self.coordinator.rpartition(":")
        if self.coordinator and not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
            raise ConfigError(f"coordinator={self.coordinator!r} is no HOST:PORT, for example 10.0.0.1:1234")
        if self.process >= max(self.processes, 1):
            raise ConfigError(f"process={self.process} is none of {self.processes}, which are counted from 0")


def late(text: str) -> None:
    """Ends a process that has waited in vain."""
    from zoo.ending import die

    die(ConfigError.exit_code, text=f"error: {text}")


def join(config: ClusterConfig, late: Callable[[str], None] = late) -> None:
    """Makes this process one of several where it is meant to be. Before the first device is asked for.

    Where the others do not come in time, `late` is told so in a thread, and ends the process: nothing else
    gets it out of the runtime.
    """
    launcher = launched()
    if not (config.coordinator or launcher):
        return
    given: dict[str, Any] = {}
    if config.coordinator:
        given = {"coordinator_address": config.coordinator, "num_processes": config.processes}
        given |= {"process_id": config.process, "cluster_detection_method": "deactivate"}
        if config.coordinator.startswith(("127.0.0.1:", "localhost:")):  # nobody else's business
            given["coordinator_bind_address"] = config.coordinator
    timeouts = {"initialization_timeout": config.start_seconds + LATER_SECONDS}
    timeouts["heartbeat_timeout_seconds"] = config.heartbeat_seconds
    timeouts["shutdown_timeout_seconds"] = FAREWELL_SECONDS
    with limited(config, late):
        try:
            jax.distributed.initialize(**given, **timeouts)
        except (ValueError, RuntimeError) as error:
            if launcher == TPU and isinstance(error, ValueError):  # no variables, and no server with others
                print("cluster  this TPU's host knows of no others, and trains alone", file=sys.stderr)
                return
            said = errors.first_line(error)
            if launcher and isinstance(error, ValueError):
                raise ConfigError(
                    f"{launcher} says that this is one of several processes, and JAX finds no others "
                    f"by its variables ({said}); give --cluster.coordinator, --cluster.processes and "
                    "--cluster.process, or train alone without these variables"
                ) from None
            raise ConfigError(
                f"the processes do not come together ({said}); check that all were started, with the same "
                "coordinator and their own numbers, and that the first one's port is free"
            ) from None
        jax.process_count()  # starts devices: all wait for all here, and not in the midst of an error


@contextlib.contextmanager
def limited(config: ClusterConfig, late: Callable[[str], None]) -> Iterator[None]:
    """Tells `late` where what is inside takes longer than the others have to come."""
    at = f" at {config.coordinator}" if config.coordinator else ""
    text = (
        f"the processes do not come together{at} within {config.start_seconds} s (--cluster.start-seconds); "
        "check that all were started, each with its own number, and that all reach the first one's port"
    )
    overdue = threading.Timer(config.start_seconds, late, [text])
    overdue.daemon = True
    overdue.start()
    try:
        yield
    finally:
        overdue.cancel()


def launched() -> str:
    """The launcher that started several processes, or TPU where only JAX can tell; empty where none did."""
    for name, variable in COUNTS.items():
        if os.environ.get(variable, "1") not in ("", "1") and (name != "SLURM" or os.environ.get(STEP)):
            return name
    if any("," in os.environ.get(variable, "") for variable in HOSTS) or os.environ.get(SLICES):
        return "TPU slice"
    has_chip = importlib.util.find_spec("libtpu") is not None and any(map(os.path.exists, CHIPS))
    wanted = os.environ.get("JAX_PLATFORMS", "tpu").partition(",")[0] in ("", "tpu")
    return TPU if has_chip and wanted else ""


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
