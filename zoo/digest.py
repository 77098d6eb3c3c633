"""Digests of arrays: two sums of every array's bits, and how many of its numbers are none.

Sums of integers do not depend on their order. So no array is gathered, every mesh agrees, and one look at a
state, where it lies, says what it is and whether it may be stored.
"""

import functools
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.lettered import ParamSpec
from zoo.tree import named_leaves

Sums = dict[str, list[int]]


def looked_at(leaves: dict[str, Any], specs: tuple[ParamSpec, ...]) -> tuple[Sums, dict[str, int]]:
    """Two 32-bit sums of each array's bits, one plain and one weighted by position, without the vocabulary's
    padding; and how many numbers are not finite in each array that holds such."""
    seen = jax.device_get(_looked_at(list(leaves.values()), specs))
    found = dict(zip(leaves, (np.asarray(each).tolist() for each in seen), strict=True))
    return {name: each[:2] for name, each in found.items()}, {
        name: each[2] for name, each in found.items() if each[2]
    }


def state_digest(tree, specs) -> str:
    """16 hexadecimal digits that two equal states share, on any mesh; vocabulary padding is left out."""
    return digest_of(leaf_sums(tree, specs))


def leaf_sums(tree, specs) -> dict[str, list[int]]:
    """Two 32-bit sums of each array's bits, by name."""
    return looked_at(named_leaves(tree), tuple(jax.tree.leaves(specs)))[0]


def digest_of(sums: Sums) -> str:
    """16 hexadecimal digits for a whole tree."""
    return hashlib.sha256(repr(sorted(sums.items())).encode()).hexdigest()[:16]


@functools.partial(jax.jit, static_argnums=1)
def _looked_at(leaves: list[Any], specs: tuple[ParamSpec, ...]):
    leaves = jax.device_put(leaves, jax.memory.Space.Device)  # some may lie in the host's
    return [jnp.append(bit_sums(spec.visible(x)), _odd(x)) for x, spec in zip(leaves, specs, strict=True)]


def bit_sums(x):
    """The two sums of one array, uint32 [2]."""
    x = x.astype(jnp.uint8) if x.dtype == bool else x
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, width).astype(jnp.uint32)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(bits.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    weight = ((place * jnp.uint32(2654435761)) ^ (place >> 15)) | 1  # Knuth's multiplicative hash, odd
    return jnp.stack([bits.sum(dtype=jnp.uint32), (bits * weight).sum(dtype=jnp.uint32)])


def _odd(x):
    """How many numbers of an array are not finite, in its padding too."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.uint32(0)
    return (~jnp.isfinite(x)).sum(dtype=jnp.uint32)
