"""Matmuls of groups of rows, each group with a kernel of its own: what a mixture of experts consists of.

A TPU has an instruction for that (ragged_dot), which other compilers make a matmul of every row with every
kernel of. Those are given a matmul for each block of rows instead.

For the gradient of the kernels libtpu 0.0.42.1 has no such instruction either: with 8 groups the three
products of a training step cost 10 / 3 times what they would, with 64 twenty times. There it is a matmul of a
part of the rows at a time, added to the gradient of the group that the rows are of.

Letters as in zoo/models/experts.py: X groups, S rows, G blocks of them.
"""

import functools

import jax
import jax.numpy as jnp

LANES, MOST_ROWS = 128, 512  # of a part: as wide as a TPU's matmul unit, or as large as pays


def grouped(x_SD, w_XDF, *, size_X, rows: int):
    """The first size_X[0] rows of `x` times w[0], the next size_X[1] times w[1], ...; sizes are multiples of
    `rows`. What comes behind the last group's rows is not defined."""
    by_matmuls = functools.partial(by_blocks, rows=rows)
    return jax.lax.platform_dependent(x_SD, w_XDF, size_X, tpu=by_instruction, default=by_matmuls)


def by_blocks(x_SD, w_XDF, size_X, *, rows: int):
    """A matmul for each block of `rows`."""
    blocks = len(x_SD) // rows
    group_G = jnp.searchsorted(jnp.cumsum(size_X), jnp.arange(blocks) * rows, side="right")
    w_GDF = jnp.take(w_XDF, group_G, axis=0, mode="clip")
    return (x_SD.reshape(blocks, rows, -1) @ w_GDF).reshape(len(x_SD), -1)


def by_instruction(x_SD, w_XDF, size_X):
    """ragged_dot, with a gradient by parts for the kernels."""
    if len(w_XDF) == 1:  # libtpu 0.0.42.1 fails to compile it for one group alone: a second has no rows
        w_XDF, size_X = jnp.pad(w_XDF, ((0, 1), (0, 0), (0, 0))), jnp.pad(size_X, (0, 1))
    return _ragged(varying(x_SD, w_XDF), varying(w_XDF, x_SD), size_X)


@jax.custom_vjp
def _ragged(x_SD, w_XDF, size_X):
    return jax.lax.ragged_dot(x_SD, w_XDF, size_X)


def _pulled_back(kept, dy_SF):
    x_SD, w_XDF, size_X = kept
    dx_SD = jax.lax.ragged_dot(dy_SF, w_XDF.swapaxes(1, 2), size_X)
    return dx_SD, products(x_SD, dy_SF, size_X).astype(w_XDF.dtype), None


_ragged.defvjp(lambda *given: (_ragged(*given), given), _pulled_back)


def products(x_SD, y_SF, size_X):
    """[X, D, F]: the outer products of each group's rows of `x` and of `y`, added up in float32 at least.

    A part of the rows has its turn once for every group that has rows in it; there are as many turns as that
    may need, and those that are left over add zeros to the last group. What lies behind the last group's
    rows may be anything.
    """
    S, X = len(x_SD), len(size_X)
    rows = part_rows(S, X)
    end_X = jnp.cumsum(size_X)
    begin_X = end_X - size_X
    first_X = begin_X // rows
    parts_X = jnp.where(size_X > 0, -(-end_X // rows) - first_X, 0)
    turn_X = jnp.cumsum(parts_X)  # at which a group is done

    def add(sums_XDF, turn):
        group = jnp.minimum(jnp.searchsorted(turn_X, turn, side="right"), X - 1)
        part = first_X[group] + turn - (turn_X[group] - parts_X[group])
        begin = jnp.minimum(part * rows, S - rows)  # the last part has rows of the one before
        row = begin + jnp.arange(rows)
        low = jnp.maximum(begin_X[group], part * rows)
        is_its = (low <= row) & (row < jnp.minimum(end_X[group], (part + 1) * rows))
        parts = (jax.lax.dynamic_slice_in_dim(array, begin, rows) for array in (x_SD, y_SF))
        x, y = (jnp.where(is_its[:, None], part, 0) for part in parts)  # no row's NaN is another's
        return sums_XDF.at[group].add(jnp.matmul(x.T, y, preferred_element_type=sums_XDF.dtype)), None

    wide = jnp.promote_types(x_SD.dtype, jnp.float32)
    sums_XDF = varying(varying(jnp.zeros((X, x_SD.shape[1], y_SF.shape[1]), wide), x_SD), y_SF)
    return jax.lax.scan(add, sums_XDF, jnp.arange(-(-S // rows) + X))[0]


def part_rows(S: int, X: int) -> int:
    """Rows of a part: a group's on average, down to a power of two."""
    return min(S, max(LANES, min(MOST_ROWS, 1 << (S // X).bit_length() >> 1)))


def varying(array, other):
    """`array`, known by jax.shard_map to differ between devices where `other` does."""
    return jnp.where(False, other.ravel()[0].astype(array.dtype), array)
