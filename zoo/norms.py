"""The norm of everything in a tree."""

import math

import jax
import jax.numpy as jnp

TERMS = 32


def global_norm(tree) -> jax.Array:
    """The root of the sum of squares of all numbers in a tree of float32 arrays."""
    return jnp.sqrt(sum(map(_squares, jax.tree.leaves(tree)), jnp.zeros((), jnp.float32)))


def _squares(x):
    if x.ndim == 0 or jax.sharding.get_abstract_mesh().size > 1:
        return _at_once(x)
    return jax.lax.platform_dependent(x, cpu=_in_parts, default=_at_once)


def _at_once(x):
    return jnp.sum(jnp.square(x))


def _in_parts(x):
    """Up to 32 parts' squares added to one another, then all numbers of that sum. On a CPU XLA writes squares
    to memory before it adds them up one by one; of this it makes one loop that reads each number once: 31 and
    4 ms for 113 MB on two cores of an Intel Xeon, jaxlib 0.10.2. Only for arrays in one piece, as the
    parts of one that is spread over devices need not lie where it does."""
    parts = x.reshape(math.gcd(TERMS, x.size), -1)
    return jnp.sum(sum(map(jnp.square, parts)))
