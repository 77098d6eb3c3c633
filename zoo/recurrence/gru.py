"""GRU (Cho et al. 2014, arXiv 1406.1078), in the form of cuDNN and torch and in that of the paper."""

import jax
import jax.numpy as jnp

from zoo.recurrence.loop import Cell, outer, recur, times, times_turned, total


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


def gru_back(weights, kept_BGZ, before, after, d_after):
    """Gradients of r, u, a, which the kernel wants, and of n, which `x` wants in place of a's."""
    (w_GZR, _), (h_BZ,), (d_h_BZ,) = weights, before, d_after
    r, u, n, a = (kept_BGZ[:, gate].astype(d_h_BZ.dtype) for gate in range(4))
    d_n = d_h_BZ * (1 - u) * (1 - n * n)
    d_u = d_h_BZ * (h_BZ - n) * u * (1 - u)
    d_r = d_n * a * r * (1 - r)
    d_a_BGZ = jnp.stack([d_r, d_u, d_n * r], axis=1).astype(kept_BGZ.dtype)
    return (d_a_BGZ, d_n.astype(kept_BGZ.dtype)), (d_h_BZ * u + times_turned(d_a_BGZ, w_GZR),)


def gru_collect(kept, before, after, d_gates):
    d_a_TBGZ, d_n_TBZ = d_gates
    d_x_TBGZ = jnp.concatenate([d_a_TBGZ[:, :, :2], d_n_TBZ[:, :, None]], axis=2)
    return d_x_TBGZ, (outer(before[0], d_a_TBGZ), total(d_a_TBGZ[:, :, 2]))


GRU = Cell(gru_step, gru_back, gru_collect, ("..Z", "Z"))


def gru_original_step(weights, x_BGZ, before):
    (w_RGZ,), (h_BZ,) = weights, before
    z_BGZ = x_BGZ[:, :2] + times(h_BZ, w_RGZ[:, :2])
    r, u = jax.nn.sigmoid(z_BGZ[:, 0]), jax.nn.sigmoid(z_BGZ[:, 1])
    n = jnp.tanh(x_BGZ[:, 2] + times((r * h_BZ).astype(h_BZ.dtype), w_RGZ[:, 2]))
    h_BZ = n + u * (h_BZ - n)
    return (h_BZ.astype(x_BGZ.dtype),), jnp.stack([r, u, n], axis=1).astype(x_BGZ.dtype)


def gru_original_back(weights, gates_BGZ, before, after, d_after):
    """Through n first: the gradient of r h is known only after its matmul."""
    (w_GZR,), (h_BZ,), (d_h_BZ,) = weights, before, d_after
    r, u, n = (gates_BGZ[:, gate].astype(d_h_BZ.dtype) for gate in range(3))
    d_n = (d_h_BZ * (1 - u) * (1 - n * n)).astype(gates_BGZ.dtype)
    d_u = d_h_BZ * (h_BZ - n) * u * (1 - u)
    d_rh = times_turned(d_n, w_GZR[2])
    d_r = d_rh * h_BZ * r * (1 - r)
    d_ru_BGZ = jnp.stack([d_r, d_u], axis=1).astype(gates_BGZ.dtype)
    d_h_BZ = d_h_BZ * u + d_rh * r + times_turned(d_ru_BGZ, w_GZR[:2])
    return jnp.concatenate([d_ru_BGZ, d_n[:, None]], axis=1), (d_h_BZ,)


def gru_original_collect(gates_TBGZ, before, after, d_gates_TBGZ):
    (h_TBR,) = before
    d_ru_RGZ = outer(h_TBR, d_gates_TBGZ[:, :, :2])
    d_n_RZ = outer(gates_TBGZ[:, :, 0] * h_TBR, d_gates_TBGZ[:, :, 2])
    return d_gates_TBGZ, (jnp.concatenate([d_ru_RGZ, d_n_RZ[:, None]], axis=1),)


GRU_ORIGINAL = Cell(gru_original_step, gru_original_back, gru_original_collect, ("..Z",))
