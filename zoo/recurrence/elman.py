"""The simple recurrent network of Elman (1990)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from zoo.errors import ConfigError, nearest
from zoo.recurrence.loop import Cell, at_least_float32, outer, recur, times, times_turned


def elman(x_TBZ, w_RZ, state, *, activation="tanh", present_TB=None, fresh_TB=None, reverse=False, unroll=1):
    """Simple recurrent network: h' = tanh(x + h W), or relu; returns (h_TBZ, state), a state being h_BZ."""
    if activation not in ELMAN:
        raise ConfigError(f"{activation=} is not one of {', '.join(ELMAN)}{nearest(activation, ELMAN)}")
    state = (state.astype(x_TBZ.dtype),)
    h_TBZ, (h_BZ,) = recur(ELMAN[activation], reverse, unroll, x_TBZ, (w_RZ,), state, present_TB, fresh_TB)
    return h_TBZ, h_BZ


def elman_cell(activation: Callable, slope: Callable) -> Cell:
    """The cell of `elman`; `slope` is the derivative of the activation, written in its output."""

    def step(weights, x_BZ, before):
        (w_RZ,), (h_BR,) = weights, before
        return (activation(x_BZ + times(h_BR, w_RZ)).astype(x_BZ.dtype),), ()

    def slopes(kept, before, after):
        (h_TBZ,) = after
        return slope(h_TBZ.astype(at_least_float32(h_TBZ))).astype(h_TBZ.dtype)

    def back(weights, slope_BZ, d_after):
        (w_ZR,), (d_h_BZ,) = weights, d_after
        d_x_BZ = (d_h_BZ * slope_BZ).astype(slope_BZ.dtype)
        return d_x_BZ, (times_turned(d_x_BZ, w_ZR),)

    def collect(kept, before, after, d_x_TBZ):
        return d_x_TBZ, (outer(before[0], d_x_TBZ),)

    return Cell(step, slopes, back, collect, (".Z",))


ELMAN = {
    "tanh": elman_cell(jnp.tanh, lambda h: 1 - h * h),
    "relu": elman_cell(jax.nn.relu, lambda h: h > 0),
}
