"""Names of workloads and peers, with the nearest one where a name is unknown."""

from benchmarks.gpu_workloads import GPU, REHEARSAL
from benchmarks.workloads import WORKLOADS, Workload
from zoo.errors import ConfigError, nearest

ALL: dict[str, Workload] = WORKLOADS | GPU | REHEARSAL

# Sides of each kind of peer, in the order in which a table has them.
PEERS = {
    "torch": ("torch", "torch.compile"),
    "transformers": ("transformers", "transformers.compile"),
    "flax": ("flax",),
}
PACKAGES = {"torch": "torch", "transformers": "transformers", "flax": "flax"}


def workload_of(name: str) -> Workload:
    return ALL[checked(name, ALL, "workload")]


def checked(name: str, known, what: str) -> str:
    """The name; ConfigError with the nearest one where there is no such thing."""
    if name not in known:
        raise ConfigError(f"{what} {name!r}: not one of {', '.join(known)}{nearest(name, known)}")
    return name
