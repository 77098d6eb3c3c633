"""What a chip can do: memory, arithmetic and wires, from vendors' sheets. Nothing here was measured on one.

FLOP/s, memory bandwidth    docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e}, read November 2026
bytes a link carries        jax-ml/scaling-book, "How to Think About TPUs" (tpus.md): one way, per link
memory a program may use    what libtpu 0.0.42.1 names as available when it refuses a program that is too
                            large; a little is kept for itself ("15.75G" of a v5e's 16)
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
    link_bandwidth: float
    """Bytes per second that one link carries one way."""
    dimensions: int
    """Of the torus that the links make: two links for each."""
    ring: int
    """A dimension of this many chips, or a multiple, is closed to a ring; a shorter one is a line."""


CHIPS = {
    "v5e": Chip("TPU v5e", int(15.75 * GiB), 197e12, 819e9, 45e9, dimensions=2, ring=16),
    "v5p": Chip("TPU v5p", int(95.74 * GiB), 459e12, 2765e9, 90e9, dimensions=3, ring=4),
    "v6e": Chip("TPU v6e", int(31.25 * GiB), 918e12, 1640e9, 90e9, dimensions=2, ring=16),
}
