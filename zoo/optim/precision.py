"""Parameters of 16 bits, and where the bits that they lack are kept.

bfloat16 has 8 bits of mantissa: an update below a 256th of a weight is lost when the sum is rounded to the
nearest. Two ways out, and AdamW's bytes a parameter in each, gradients (g) and their moments (m) included:

    param_dtype           params  master  m, m   g     sum   on a device, --offload optimizer, between steps
    float32                 4       -      8     4     16    4
    bfloat16                2       4      8     2     16    2
    bfloat16_stochastic     2       -      8     2     12    2

bfloat16: the optimizer works on a float32 copy, the master, which is part of its state; the model reads the
copy rounded to the nearest (mixed precision, Micikevicius et al. 2017, arXiv 1710.03740).

bfloat16_stochastic: there is no copy. Each updated parameter is rounded up or down at random, up with the
share of the gap that it has behind it, so that it is right on average and small updates add up (Gupta et al.
2015, arXiv 1502.02551; of bfloat16, Zamirai et al. 2020, arXiv 2010.06192).

Optimizers see float32 in either case: their moments, gradients of several micro-batches, and averages of
parameters are float32 always. Frozen parameters are stored in 16 bits too and have no master.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo.optim.state import state_specs as rule_specs
from zoo.tree import named_leaves, nested

MASTER, STOCHASTIC = "bfloat16", "bfloat16_stochastic"


class Mastered(NamedTuple):
    """An optimizer's state with the parameters that it works on."""

    master: Any
    """Of the trained parameters, float32."""
    rule: Any


def stored(params, param_dtype: str):
    """Parameters as they are kept between steps."""
    return params if param_dtype == "float32" else jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)


def stored_specs(specs, param_dtype: str):
    """Their ParamSpecs."""
    if param_dtype == "float32":
        return specs
    return jax.tree.map(lambda spec: dataclasses.replace(spec, dtype=jnp.bfloat16), specs)


def wide(tree):
    """In at least float32, which changes no value."""
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)


def first_state(tx: optax.GradientTransformation, params, param_dtype: str):
    """The optimizer's state for parameters [float32] that are to be stored so."""
    state = tx.init(params)
    return Mastered(jax.tree.map(jnp.copy, params), state) if param_dtype == MASTER else state


def state_specs(tx: optax.GradientTransformation, specs, param_dtype: str):
    """The ParamSpecs of `first_state`."""
    rule = rule_specs(tx, specs)
    return Mastered(specs, rule) if param_dtype == MASTER else rule


def started_from(state, params):
    """The optimizer's state with a master copy of other parameters, where it has one."""
    if not isinstance(state, Mastered):
        return state
    given = named_leaves(params)
    master = {
        name: jax.device_put(given[name].astype(old.dtype), old.sharding)
        for name, old in named_leaves(state.master).items()
    }
    return state._replace(master=nested(master))


def updated(tx: optax.GradientTransformation, gradients, state, params, *, param_dtype: str, key):
    """(parameters as stored, in float32 for an average of them, the optimizer's state) after one update."""
    rule, exact = (state.rule, state.master) if param_dtype == MASTER else (state, wide(params))
    updates, rule = tx.update(wide(gradients), rule, exact)
    exact = optax.apply_updates(exact, updates)
    if param_dtype == MASTER:
        return stored(exact, param_dtype), exact, Mastered(exact, rule)
    if param_dtype == STOCHASTIC:
        params = rounded_at_random(exact, key)
        return params, wide(params), rule
    return exact, exact, rule


def rounded_at_random(tree, key):
    """float32 to bfloat16, up or down with the chances that make the mean exact; each array from a key of its
    own."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [_rounded(x, k) for x, k in zip(leaves, keys, strict=True)])


def _rounded(x, key):
    """A bfloat16 is the upper half of a float32: a random lower half is added, what carries over stays."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    moved = bits + jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    cut = jax.lax.bitcast_convert_type((moved >> 16).astype(jnp.uint16), jnp.bfloat16)
    return jnp.where(jnp.isfinite(x), cut, x.astype(jnp.bfloat16))  # a NaN's bits must not carry over to -0
