"""Adafactor's parts (Shazeer and Stern 2018, arXiv 1804.04235): squared gradients as rows and columns."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from zoo.optim.matrices import layer_axes, matrix_axes


class FactoredState(NamedTuple):
    """The updates so far, and the running mean squares over each matrix's columns and over its rows.

    Of a kernel NDHK: row [N, D, 1, 1], column [N, 1, H, K]. A norm or bias has all its entries in
    `row`, and in `column` their mean, which cancels.
    """

    count: Any
    row: Any
    column: Any


def scale_by_factored_moment(specs, decay_exponent: float) -> optax.GradientTransformation:
    """Divides gradients by the root of their mean square, kept as row * column / mean(row) (algorithm 4).

    The zeros of a padded vocabulary halve, say, both a column's mean and the mean of rows: they cancel.
    """
    eps = 1e-30  # the paper's epsilon_1

    def means(tree, axes):  # over the rows (axes=0) or the columns (axes=1) of every matrix
        def mean(path, spec, x):
            return jnp.mean(x, matrix_axes(path, spec)[axes], keepdims=True)

        return jax.tree_util.tree_map_with_path(mean, specs, tree)

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return FactoredState(jnp.zeros([], jnp.int32), row=means(zeros, 1), column=means(zeros, 0))

    def update(updates, state, params=None):
        count = optax.safe_increment(state.count)
        decay = 1 - count.astype(jnp.float32) ** -decay_exponent  # 0 at the first update: no bias to correct
        square = jax.tree.map(lambda g: g * g + eps, updates)
        row, column = jax.tree.map(
            lambda old, new: (decay * old + (1 - decay) * new).astype(old.dtype),
            (state.row, state.column),
            (means(square, 1), means(square, 0)),
        )
        updates = jax.tree.map(
            # Each root by itself: row * column of a padding row would be below the smallest float32.
            lambda g, r, c, m: g * jax.lax.rsqrt(r) * jnp.sqrt(m) * jax.lax.rsqrt(c),
            updates,
            row,
            column,
            means(row, 0),
        )
        return updates, FactoredState(count, row, column)

    return optax.GradientTransformation(init, update)


def scale_to_parameters(specs, clipping_threshold: float) -> optax.GradientTransformation:
    """Clips the root mean square of each layer's change, then multiplies it by that of its parameter.

    Padding does not count among the entries.
    """
    smallest = 1e-3  # the paper's epsilon_2: a tensor of zeros must be able to leave

    def root_mean_square(spec, x):
        axes = layer_axes(spec)
        entries = math.prod(spec.visible_shape[axis] for axis in axes)
        return jnp.sqrt(jnp.sum(x * x, axes, keepdims=True) / entries)

    def scale(spec, update, param):
        clipped = update / jnp.maximum(1, root_mean_square(spec, update) / clipping_threshold)
        return clipped * jnp.maximum(smallest, root_mean_square(spec, param))

    return optax.stateless(lambda updates, params: jax.tree.map(scale, specs, updates, params))
