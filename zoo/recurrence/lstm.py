"""LSTM (Hochreiter & Schmidhuber 1997) with a forget gate (Gers et al. 2000), plain and projected."""

import functools

import jax
import jax.numpy as jnp

from zoo.recurrence.loop import Cell, at_least_float32, outer, recur, times, times_turned


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


def lstm_step(weights, x_BGZ, before):
    (w_RGZ,), (h_BR, c_BZ) = weights, before
    gates_BGZ, c_BZ = lstm_gates(w_RGZ, x_BGZ, h_BR, c_BZ)
    h_BZ = gates_BGZ[:, 3] * jnp.tanh(c_BZ)
    return (h_BZ.astype(x_BGZ.dtype), c_BZ), gates_BGZ.astype(x_BGZ.dtype)


def lstm_gates(w_RGZ, x_BGZ, h_BR, c_BZ):
    """(the gates i, f, g, o after their nonlinearity, the new cell)."""
    z_BGZ = x_BGZ + times(h_BR, w_RGZ)
    i, f, o = (jax.nn.sigmoid(z_BGZ[:, gate]) for gate in (0, 1, 3))
    g = jnp.tanh(z_BGZ[:, 2])
    return jnp.stack([i, f, g, o], axis=1), f * c_BZ + i * g


def lstm_back(weights, gates_BGZ, before, after, d_after):
    (w_GZR,), (_, c_before_BZ), (_, c_BZ), (d_h_BZ, d_c_BZ) = weights, before, after, d_after
    tanh_c_BZ = jnp.tanh(c_BZ)
    d_o_BZ = d_h_BZ * tanh_c_BZ
    d_c_BZ += d_h_BZ * gates_BGZ[:, 3] * (1 - tanh_c_BZ * tanh_c_BZ)
    d_gates_BGZ, d_c_BZ = lstm_gates_back(gates_BGZ, c_before_BZ, d_o_BZ, d_c_BZ)
    return d_gates_BGZ, (times_turned(d_gates_BGZ, w_GZR), d_c_BZ)


def lstm_gates_back(gates_BGZ, c_before_BZ, d_o_BZ, d_c_BZ):
    """(gradients of the gates before their nonlinearity, gradient of the cell before the step)."""
    i, f, g, o = (gates_BGZ[:, gate].astype(d_c_BZ.dtype) for gate in range(4))
    d_i = d_c_BZ * g * i * (1 - i)
    d_f = d_c_BZ * c_before_BZ * f * (1 - f)
    d_g = d_c_BZ * i * (1 - g * g)
    d_o = d_o_BZ * o * (1 - o)
    return jnp.stack([d_i, d_f, d_g, d_o], axis=1).astype(gates_BGZ.dtype), d_c_BZ * f


def lstm_collect(gates_TBGZ, before, after, d_gates_TBGZ):
    return d_gates_TBGZ, (outer(before[0], d_gates_TBGZ),)


LSTM = Cell(lstm_step, lstm_back, lstm_collect, ("..Z",))


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

    def back(weights, kept, before, after, d_after):
        (w_GZR, p_RZ), (gates_BGZ, _), (_, c_before_BZ) = weights, kept, before
        (h_BR, c_BZ), (d_h_BR, d_c_BZ) = after, d_after
        d_h_BR = within(h_BR, projection_clip, d_h_BR).astype(h_BR.dtype)
        d_m_BZ = times_turned(d_h_BR, p_RZ)
        tanh_c_BZ = jnp.tanh(c_BZ)
        d_o_BZ = d_m_BZ * tanh_c_BZ
        d_c_BZ += d_m_BZ * gates_BGZ[:, 3] * (1 - tanh_c_BZ * tanh_c_BZ)
        d_c_BZ = within(c_BZ, cell_clip, d_c_BZ)
        d_gates_BGZ, d_c_BZ = lstm_gates_back(gates_BGZ, c_before_BZ, d_o_BZ, d_c_BZ)
        return (d_gates_BGZ, d_h_BR), (times_turned(d_gates_BGZ, w_GZR), d_c_BZ)

    def collect(kept, before, after, d_gates):
        (_, m_TBZ), (d_gates_TBGZ, d_h_TBR) = kept, d_gates
        return d_gates_TBGZ, (outer(before[0], d_gates_TBGZ), outer(m_TBZ, d_h_TBR))

    return Cell(step, back, collect, ("..Z", "Z."))


def clipped(x, bound):
    return x if bound is None else jnp.clip(x, -bound, bound)


def within(clipped_x, bound, gradient):
    """The gradient through `clipped`: what met the bound lets nothing through."""
    return gradient if bound is None else jnp.where(jnp.abs(clipped_x) < bound, gradient, 0)
