"""What a chip can do: memory, arithmetic and wires, from vendors' sheets. Nothing here was measured on one.

TPU
FLOP/s, memory bandwidth    docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e}, read November 2026
bytes a link carries        jax-ml/scaling-book, "How to Think About TPUs" (tpus.md): one way, per link
memory a program may use    what libtpu 0.0.42.1 names as available when it refuses a program that is too
                            large; a little is kept for itself ("15.75G" of a v5e's 16)

GPU, the SXM form
memory, FLOP/s, NVLink      NVIDIA's data sheets "A100 80GB", "H100", "H200" and "DGX B200" (an eighth of its
                            1,440 GB, 64 TB/s and 36 PFLOP/s with sparsity). FLOP/s are dense, half of what
                            the sheets print with sparsity; NVLink's are one way, half of theirs
network                     one adapter a GPU, as in NVIDIA's own machines: DGX A100 200 Gb/s, DGX H100, H200
                            and B200 400 Gb/s, one way
"""

from dataclasses import dataclass

GiB = 1 << 30


@dataclass(frozen=True)
class Chip:
    """One chip, which is one JAX device."""

    name: str
    hbm_bytes: int
    """Memory that a program may use."""
    flops: float
    """Dense bfloat16 FLOP/s."""
    hbm_bandwidth: float
    """Bytes per second between memory and the chip."""


@dataclass(frozen=True)
class TPU(Chip):
    """A chip of a torus."""

    link_bandwidth: float
    """Bytes per second that one link carries one way."""
    dimensions: int
    """Of the torus that the links make: two links for each."""
    ring: int
    """A dimension of this many chips, or a multiple, is closed to a ring; a shorter one is a line."""


@dataclass(frozen=True)
class GPU(Chip):
    """A chip of a node whose chips all reach each other equally fast."""

    nvlink_bandwidth: float
    """Bytes per second that it sends to the others of its node."""
    network_bandwidth: float
    """Bytes per second that its network adapter sends to other nodes."""
    most: int = 8
    """GPUs of one node."""


CHIPS = {
    "v5e": TPU("TPU v5e", int(15.75 * GiB), 197e12, 819e9, 45e9, dimensions=2, ring=16),
    "v5p": TPU("TPU v5p", int(95.74 * GiB), 459e12, 2765e9, 90e9, dimensions=3, ring=4),
    "v6e": TPU("TPU v6e", int(31.25 * GiB), 918e12, 1640e9, 90e9, dimensions=2, ring=16),
}

GPUS = {
    "a100": GPU("NVIDIA A100 80GB", int(80e9), 312e12, 2039e9, 300e9, 25e9),
    "h100": GPU("NVIDIA H100", int(80e9), 989e12, 3350e9, 450e9, 50e9),
    "h200": GPU("NVIDIA H200", int(141e9), 989e12, 4800e9, 450e9, 50e9),
    "b200": GPU("NVIDIA B200", int(180e9), 2250e12, 8000e9, 900e9, 50e9),
}
