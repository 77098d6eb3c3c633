"""The loop over time, forward and backward, for any cell; zoo/recurrence/__init__.py says how it works.

A cell is four functions. They see whole rows and no masks: what is absent or begins a document is put in
place here, before and after each step.

A step backward is linear in the gradients that come in. All that they are multiplied with, the slopes, is
known before the loop begins and computed there for all steps at once, which a compiler turns into wide
parallel code; the loop itself has a few products and the matmul left. On two CPU cores (AMD EPYC, family
25) a backward loop that computed its slopes step by step took 1.1 (256 units) to 1.3 times (200) as long.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.sharding import constrain


class Cell(NamedTuple):
    """One step and its derivative. A state is a tuple whose first entry is the output h."""

    step: Callable
    """(weights, x, before) -> (after, kept): the new state, and what else backward needs."""
    slopes: Callable
    """(kept, before, after), stacked over T -> slopes, stacked over T."""
    back: Callable
    """(turned weights, slopes, d_after) -> (d_gates, d_before): the step's gradients."""
    collect: Callable
    """(kept, before, after, d_gates), stacked over T -> (d_x, d_weights)."""
    letters: tuple[str, ...]
    """Of the weights as the loop reads them: R whole, whatever shares it out at rest."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def recur(cell: Cell, reverse: bool, unroll: int, x_T, weights, state, present_TB, fresh_TB):
    """(outputs of all steps, last state)."""
    cast = ready(cell, weights, x_T.dtype)

    def step(before, inputs):
        after, _ = masked_step(cell, cast, before, *inputs)
        return after, after[0]

    inputs = (x_T, present_TB, fresh_TB)
    last, h_T = jax.lax.scan(step, state, inputs, reverse=reverse, unroll=unroll)
    return where_present(present_TB, h_T, jnp.zeros_like(h_T)), last


def recur_forward(cell, reverse, unroll, x_T, weights, state, present_TB, fresh_TB):
    """The same, and what is kept for backward."""
    cast = ready(cell, weights, x_T.dtype)

    def step(before, inputs):
        after, kept = masked_step(cell, cast, before, *inputs)
        return after, (after, kept)

    inputs = (x_T, present_TB, fresh_TB)
    last, (after_T, kept_T) = jax.lax.scan(step, state, inputs, reverse=reverse, unroll=unroll)
    h_T = where_present(present_TB, after_T[0], jnp.zeros_like(after_T[0]))
    return (h_T, last), (weights, state, after_T, kept_T, present_TB, fresh_TB)


def recur_backward(cell, reverse, unroll, saved, gradients):
    """Gradients of x, the weights and the first state, from those of the outputs and the last state."""
    weights, state, after_T, kept_T, present_TB, fresh_TB = saved
    d_h_T, d_last = gradients
    cast = jax.tree.map(turned, ready(cell, weights, d_h_T.dtype))
    before_T = jax.tree.map(functools.partial(shifted, reverse=reverse), state, after_T)
    before_T = without_fresh(fresh_TB, before_T)

    def step(d_after, inputs):
        d_h, slopes, present_B, fresh_B = inputs
        d_after = (d_after[0] + d_h, *d_after[1:])
        d_gates, d_before = cell.back(cast, slopes, d_after)
        d_before = without_fresh(fresh_B, where_present(present_B, d_before, d_after))
        return d_before, where_present(present_B, d_gates, jax.tree.map(jnp.zeros_like, d_gates))

    d_last = jax.tree.map(lambda d: d.astype(at_least_float32(d)), d_last)
    d_h_T = where_present(present_TB, d_h_T, jnp.zeros_like(d_h_T))
    inputs = (d_h_T, cell.slopes(kept_T, before_T, after_T), present_TB, fresh_TB)
    d_state, d_gates_T = jax.lax.scan(step, d_last, inputs, reverse=not reverse, unroll=unroll)
    d_x_T, d_weights = cell.collect(kept_T, before_T, after_T, d_gates_T)
    return d_x_T, like(d_weights, weights), like(d_state, state), None, None


recur.defvjp(recur_forward, recur_backward)


def ready(cell: Cell, weights, dtype):
    """The weights as the loop reads them: cast, and gathered over R once rather than in every step."""
    return tuple(
        constrain(w.astype(dtype), letters) for w, letters in zip(weights, cell.letters, strict=True)
    )


def masked_step(cell: Cell, weights, before, x, present_B, fresh_B):
    """A step of the rows that are present; what `x` holds for the others is not looked at."""
    before = without_fresh(fresh_B, before)
    after, kept = cell.step(weights, where_present(present_B, x, jnp.zeros_like(x)), before)
    return where_present(present_B, after, before), kept


def where_present(mask, tree, other):
    """`tree` in the rows where `mask` holds and `other` elsewhere; without a mask, `tree`."""
    if mask is None:
        return tree
    return jax.tree.map(
        lambda x, y: jnp.where(jnp.expand_dims(mask, range(mask.ndim, x.ndim)), x, y), tree, other
    )


def without_fresh(mask, tree):
    """`tree` with zeros in the rows where `mask` holds."""
    return tree if mask is None else where_present(~mask, tree, jax.tree.map(jnp.zeros_like, tree))


def shifted(first, after_T, *, reverse: bool):
    """The states before the steps: the first one, then those after all steps but the last."""
    return jnp.concatenate([after_T[1:], first[None]] if reverse else [first[None], after_T[:-1]])


def like(tree, other):
    """`tree` in the dtypes of `other`."""
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, other)


def by_gate(*each):
    """Arrays of one gate each, [..., Z], as one [..., G, Z]. They are chosen from rather than concatenated:
    fused with what follows, a choice is computed many numbers at a time, a concatenation one by one."""
    gates_G1 = jnp.arange(len(each))[:, None]
    joint = each[-1][..., None, :]
    for gate in reversed(range(len(each) - 1)):
        joint = jnp.where(gates_G1 == gate, each[gate][..., None, :], joint)
    return joint


# --- matmuls, with sums in at least float32 -------------------------------------------------------


def times(h_BR, w):
    """h W, for kernels w_RGZ and w_RZ."""
    return jnp.tensordot(h_BR, w, 1, preferred_element_type=at_least_float32(h_BR))


def turned(w):
    """A kernel with its first dimension last. Made once before the loop backwards, whose matmuls then read it
    row by row; on a CPU they run two to three times faster than with the kernel as it is."""
    return jax.lax.optimization_barrier(jnp.moveaxis(w, 0, -1))


def times_turned(d_gates, w):
    """d W', the gradient of h, given the turned kernel."""
    return jnp.tensordot(d_gates, w, w.ndim - 1, preferred_element_type=at_least_float32(d_gates))


def outer(h_TBR, d_gates):
    """The gradient of a kernel: one matmul over all steps and rows, with h laid out for reading by rows."""
    h_RTB = jax.lax.optimization_barrier(jnp.moveaxis(h_TBR, -1, 0))
    return jnp.tensordot(h_RTB, d_gates, 2, preferred_element_type=at_least_float32(h_TBR))


def total(d_gates):
    """The gradient of a bias: the sum over all steps and rows, as a matmul with ones. On a CPU, XLA's own sum
    over the two leading dimensions takes thirty times as long (20 against 0.6 ms for 128 x 32 x 1,024)."""
    ones_TB = jnp.ones(d_gates.shape[:2], d_gates.dtype)
    return jnp.tensordot(ones_TB, d_gates, 2, preferred_element_type=at_least_float32(d_gates))


def at_least_float32(x):
    return jnp.promote_types(x.dtype, jnp.float32)
