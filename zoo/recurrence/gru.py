"""GRU (Cho et al. 2014, arXiv 1406.1078), in the form of cuDNN and torch and in that of the paper."""

import jax
import jax.numpy as jnp

from zoo.recurrence.loop import Cell, at_least_float32, by_gate, outer, recur, times, times_turned, total


def gru(x_TBGZ, w_RGZ, b_Z, state, *, present_TB=None, fresh_TB=None, reverse=False, unroll=1):
    """Gated recurrent unit as in cuDNN and torch; returns (h_TBZ, state), a state being h_BZ.

    r, u = sigmoid(x + h W); n = tanh(x_n + r (h W_n + b)); h' = (1 - u) n + u h. The gates G are ordered
    r, u, n (torch calls u z). The reset comes after the matmul, so `b` cannot be folded into `x`.
    """
    state = (state.astype(x_TBGZ.dtype),)
    h_TBZ, (h_BZ,) = recur(GRU, reverse, unroll, x_TBGZ, (w_RGZ, b_Z), state, present_TB, fresh_TB)
    return h_TBZ, h_BZ


def gru_original(x_TBGZ, w_RGZ, state, *, present_TB=None, fresh_TB=None, reverse=False, unroll=1):
    """Gated recurrent unit of Cho et al. 2014 (arXiv 1406.1078), which resets before the matmul.

    n = tanh(x_n + (r h) W_n), all else as in `gru`. Two matmuls a step, one waiting for the other.
    """
    state = (state.astype(x_TBGZ.dtype),)
    h_TBZ, (h_BZ,) = recur(GRU_ORIGINAL, reverse, unroll, x_TBGZ, (w_RGZ,), state, present_TB, fresh_TB)
    return h_TBZ, h_BZ


def gru_step(weights, x_BGZ, before):
    """Keeps r, u, n and what r multiplies, a = h W_n + b."""
    (w_RGZ, b_Z), (h_BZ,) = weights, before
    z_BGZ = times(h_BZ, w_RGZ)
    r, u = (jax.nn.sigmoid(x_BGZ[:, gate] + z_BGZ[:, gate]) for gate in (0, 1))
    a = z_BGZ[:, 2] + b_Z
    n = jnp.tanh(x_BGZ[:, 2] + r * a)
    h_BZ = n + u * (h_BZ - n)
    return (h_BZ.astype(x_BGZ.dtype),), jnp.stack([r, u, n, a], axis=1).astype(x_BGZ.dtype)


def gru_slopes(kept_TBGZ, before, after):
    """Of r, u, a by the gradient of h, which the kernel wants; of n, which `x` wants in place of a; and u."""
    (h_TBZ,) = before
    r, u, n, a = gates_of(kept_TBGZ)
    slope_n = (1 - u) * (1 - n * n)
    slopes = by_gate(slope_n * a * r * (1 - r), (h_TBZ - n) * u * (1 - u), slope_n * r), slope_n, u
    return tuple(slope.astype(kept_TBGZ.dtype) for slope in slopes)


def gru_back(weights, slopes, d_after):
    (w_GZR, _), (slope_BGZ, slope_n_BZ, u_BZ), (d_h_BZ,) = weights, slopes, d_after
    d_a_BGZ = (d_h_BZ[:, None] * slope_BGZ).astype(slope_BGZ.dtype)
    d_n_BZ = (d_h_BZ * slope_n_BZ).astype(slope_n_BZ.dtype)
    return (d_a_BGZ, d_n_BZ), (d_h_BZ * u_BZ + times_turned(d_a_BGZ, w_GZR),)


def gru_collect(kept, before, after, d_gates):
    d_a_TBGZ, d_n_TBZ = d_gates
    d_x_TBGZ = jnp.concatenate([d_a_TBGZ[:, :, :2], d_n_TBZ[:, :, None]], axis=2)
    return d_x_TBGZ, (outer(before[0], d_a_TBGZ), total(d_a_TBGZ[:, :, 2]))


GRU = Cell(gru_step, gru_slopes, gru_back, gru_collect, ("..Z", "Z"))


def gru_original_step(weights, x_BGZ, before):
    (w_RGZ,), (h_BZ,) = weights, before
    z_BGZ = x_BGZ[:, :2] + times(h_BZ, w_RGZ[:, :2])
    r, u = jax.nn.sigmoid(z_BGZ[:, 0]), jax.nn.sigmoid(z_BGZ[:, 1])
    n = jnp.tanh(x_BGZ[:, 2] + times((r * h_BZ).astype(h_BZ.dtype), w_RGZ[:, 2]))
    h_BZ = n + u * (h_BZ - n)
    return (h_BZ.astype(x_BGZ.dtype),), jnp.stack([r, u, n], axis=1).astype(x_BGZ.dtype)


def gru_original_slopes(gates_TBGZ, before, after):
    """Of r by the gradient of r h and of u by that of h, of n by that of h; then r and u."""
    (h_TBZ,) = before
    r, u, n = gates_of(gates_TBGZ)
    slopes = by_gate(h_TBZ * r * (1 - r), (h_TBZ - n) * u * (1 - u)), (1 - u) * (1 - n * n), r, u
    return tuple(slope.astype(gates_TBGZ.dtype) for slope in slopes)


def gru_original_back(weights, slopes, d_after):
    """Through n first: the gradient of r h is known only after its matmul."""
    (w_GZR,), (slope_BGZ, slope_n_BZ, r_BZ, u_BZ), (d_h_BZ,) = weights, slopes, d_after
    d_n_BZ = (d_h_BZ * slope_n_BZ).astype(slope_n_BZ.dtype)
    d_rh_BZ = times_turned(d_n_BZ, w_GZR[2])
    d_ru_BGZ = (by_gate(d_rh_BZ, d_h_BZ) * slope_BGZ).astype(slope_BGZ.dtype)
    d_h_BZ = d_h_BZ * u_BZ + d_rh_BZ * r_BZ + times_turned(d_ru_BGZ, w_GZR[:2])
    return (d_ru_BGZ, d_n_BZ), (d_h_BZ,)


def gru_original_collect(gates_TBGZ, before, after, d_gates):
    (h_TBR,), (d_ru_TBGZ, d_n_TBZ) = before, d_gates
    d_ru_RGZ = outer(h_TBR, d_ru_TBGZ)
    d_n_RZ = outer(gates_TBGZ[:, :, 0] * h_TBR, d_n_TBZ)
    d_x_TBGZ = jnp.concatenate([d_ru_TBGZ, d_n_TBZ[:, :, None]], axis=2)
    return d_x_TBGZ, (jnp.concatenate([d_ru_RGZ, d_n_RZ[:, None]], axis=1),)


def gates_of(kept_TBGZ):
    """What is kept of each gate, [T, B, Z], in at least float32."""
    kept_TBGZ = kept_TBGZ.astype(at_least_float32(kept_TBGZ))
    return [kept_TBGZ[:, :, gate] for gate in range(kept_TBGZ.shape[2])]


GRU_ORIGINAL = Cell(gru_original_step, gru_original_slopes, gru_original_back, gru_original_collect, ("..Z",))
