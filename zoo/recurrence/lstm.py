"""LSTM (Hochreiter & Schmidhuber 1997) with a forget gate (Gers et al. 2000), plain and projected."""

import functools

import jax.numpy as jnp
import numpy as np

from zoo.recurrence.loop import (
    Cell,
    at_least_float32,
    by_gate,
    outer,
    recur,
    times,
    times_turned,
    where_present,
)


def lstm(x_TBGZ, w_RGZ, state, *, present_TB=None, fresh_TB=None, reverse=False, unroll=1):
    """Long short-term memory with a forget gate; returns (h_TBZ, state), a state being (h_BR, c_BZ).

    i, f, o = sigmoid(x + h W), g = tanh(x + h W); c' = f c + i g; h' = o tanh(c'). The gates G are ordered
    i, f, g, o, and R = Z.
    """
    h_BR, c_BZ = state
    state = (h_BR.astype(x_TBGZ.dtype), c_BZ.astype(at_least_float32(x_TBGZ)))
    return recur(LSTM, reverse, unroll, x_TBGZ, (w_RGZ,), state, present_TB, fresh_TB)


def projected_lstm(
    x_TBGZ,
    w_RGZ,
    p_ZR,
    state,
    *,
    cell_clip=None,
    projection_clip=None,
    present_TB=None,
    fresh_TB=None,
    reverse=False,
    unroll=1,
):
    """LSTM whose output is projected: h' = (o tanh(c')) P (Sak et al. 2014, arXiv 1402.1128).

    Returns (h_TBR, state). `cell_clip` and `projection_clip` bound |c'| and |h'|, as in ELMo's language
    model (Peters et al. 2018, arXiv 1802.05365); no gradient passes where a bound is met.
    """
    h_BR, c_BZ = state
    state = (h_BR.astype(x_TBGZ.dtype), c_BZ.astype(at_least_float32(x_TBGZ)))
    cell = projected_cell(cell_clip, projection_clip)
    return recur(cell, reverse, unroll, x_TBGZ, (w_RGZ, p_ZR), state, present_TB, fresh_TB)


# sigmoid(z) = tanh(z / 2) / 2 + 1 / 2, so all four gates are one expression, s tanh(s z) + 1 - s, with slope
# s^2 - (gate - (1 - s))^2: on a CPU the forward loop of 256 units is 1.4 times as fast as gate by gate. The
# price: a closed gate is exact to 6e-8 of one, not of itself; below z = -18 it is 0 in float32.
STEEPNESS = np.array([0.5, 0.5, 1.0, 0.5], np.float32)[:, None]


def lstm_step(weights, x_BGZ, before):
    (w_RGZ,), (h_BR, c_BZ) = weights, before
    gates_BGZ, c_BZ = lstm_gates(w_RGZ, x_BGZ, h_BR, c_BZ)
    h_BZ = gates_BGZ[:, 3] * jnp.tanh(c_BZ)
    return (h_BZ.astype(x_BGZ.dtype), c_BZ), gates_BGZ.astype(x_BGZ.dtype)


def lstm_gates(w_RGZ, x_BGZ, h_BR, c_BZ):
    """(the gates i, f, g, o after their nonlinearity, the new cell)."""
    z_BGZ = x_BGZ + times(h_BR, w_RGZ)
    steepness = STEEPNESS.astype(z_BGZ.dtype)
    gates_BGZ = jnp.tanh(z_BGZ * steepness) * steepness + (1 - steepness)
    i, f, g = (gates_BGZ[:, gate] for gate in range(3))
    return gates_BGZ, f * c_BZ + i * g


def lstm_slopes(gates_TBGZ, before, after):
    """Of i, f, g by the gradient of c and of o by that of h; of c by that of h; and f, by which c goes on."""
    (_, c_before_TBZ), (_, c_TBZ) = before, after
    gates = gates_TBGZ.astype(c_TBZ.dtype)
    i, f, g, o = (gates[:, :, gate] for gate in range(4))
    tanh_c = jnp.tanh(c_TBZ)
    steepness = STEEPNESS.astype(gates.dtype)
    slope = steepness * steepness - jnp.square(gates - (1 - steepness))
    slopes = slope * by_gate(g, c_before_TBZ, i, tanh_c), o * (1 - tanh_c * tanh_c), f
    return tuple(slope.astype(gates_TBGZ.dtype) for slope in slopes)


def lstm_back(weights, slopes, d_after):
    (w_GZR,), (slope_BGZ, slope_c_BZ, f_BZ), (d_h_BZ, d_c_BZ) = weights, slopes, d_after
    d_c_BZ += d_h_BZ * slope_c_BZ
    d_gates_BGZ = (by_gate(d_c_BZ, d_c_BZ, d_c_BZ, d_h_BZ) * slope_BGZ).astype(slope_BGZ.dtype)
    return d_gates_BGZ, (times_turned(d_gates_BGZ, w_GZR), d_c_BZ * f_BZ)


def lstm_collect(gates_TBGZ, before, after, d_gates_TBGZ):
    return d_gates_TBGZ, (outer(before[0], d_gates_TBGZ),)


LSTM = Cell(lstm_step, lstm_slopes, lstm_back, lstm_collect, ("..Z",))


@functools.cache
def projected_cell(cell_clip: float | None, projection_clip: float | None) -> Cell:
    """The cell of `projected_lstm`; the gradient of its output joins those of the gates."""

    def step(weights, x_BGZ, before):
        (w_RGZ, p_ZR), (h_BR, c_BZ) = weights, before
        gates_BGZ, c_BZ = lstm_gates(w_RGZ, x_BGZ, h_BR, c_BZ)
        c_BZ = clipped(c_BZ, cell_clip)
        m_BZ = (gates_BGZ[:, 3] * jnp.tanh(c_BZ)).astype(x_BGZ.dtype)
        h_BR = clipped(times(m_BZ, p_ZR), projection_clip)
        return (h_BR.astype(x_BGZ.dtype), c_BZ), (gates_BGZ.astype(x_BGZ.dtype), m_BZ)

    def slopes(kept, before, after):
        (gates_TBGZ, _), (h_TBR, c_TBZ) = kept, after
        open_TBR, open_TBZ = within(h_TBR, projection_clip), within(c_TBZ, cell_clip)
        return *lstm_slopes(gates_TBGZ, before, after), open_TBR, open_TBZ

    def back(weights, slopes, d_after):
        (w_GZR, p_RZ), (d_h_BR, d_c_BZ) = weights, d_after
        slope_BGZ, slope_c_BZ, f_BZ, open_BR, open_BZ = slopes
        d_h_BR = where_present(open_BR, d_h_BR, jnp.zeros_like(d_h_BR)).astype(slope_BGZ.dtype)
        d_m_BZ = times_turned(d_h_BR, p_RZ)
        d_c_BZ += d_m_BZ * slope_c_BZ
        d_c_BZ = where_present(open_BZ, d_c_BZ, jnp.zeros_like(d_c_BZ))
        d_gates_BGZ = (by_gate(d_c_BZ, d_c_BZ, d_c_BZ, d_m_BZ) * slope_BGZ).astype(slope_BGZ.dtype)
        return (d_gates_BGZ, d_h_BR), (times_turned(d_gates_BGZ, w_GZR), d_c_BZ * f_BZ)

    def collect(kept, before, after, d_gates):
        (_, m_TBZ), (d_gates_TBGZ, d_h_TBR) = kept, d_gates
        return d_gates_TBGZ, (outer(before[0], d_gates_TBGZ), outer(m_TBZ, d_h_TBR))

    return Cell(step, slopes, back, collect, ("..Z", "Z."))


def clipped(x, bound):
    return x if bound is None else jnp.clip(x, -bound, bound)


def within(clipped_x, bound):
    """Where `clipped` let a gradient through: not where it met the bound. None without a bound."""
    return None if bound is None else jnp.abs(clipped_x) < bound
