"""The start of several processes as one: whether there are others, and how they find each other.

JAX's own runtime joins them (jax.distributed). A process is one of several where its launcher says so,

    SLURM, Open MPI            more than one task
    TPU VMs, GKE's JobSets     a slice, or several, of more than one host: where there is a TPU, JAX finds out
    by hand                    --cluster.coordinator HOST:PORT --cluster.processes 4 --cluster.process 2

and alone everywhere else, at no cost. What they are to each other afterwards is in zoo/cluster.py.
"""

import contextlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from zoo import errors
from zoo.errors import ConfigError

FAREWELL_SECONDS = 60  # for the others to come to the end of a run too
LATER_SECONDS = 60  # by which the runtime waits longer than we do: its own end is an abort

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
