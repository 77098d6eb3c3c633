"""Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762), in the form that every platform has.

Where a platform has a kernel that computes the same without writing the scores to memory, that one runs
(zoo/kernels); the form here is what it is compared with. What may be seen is a value of zoo/sees.py.

Unlike a call of `jax.nn.dot_product_attention` the heads are moved in front of the positions first: on
a CPU that is two to three times faster, and elsewhere the compiler chooses the layout anyway. A row that
may see nothing (padding) yields zeros, never NaN.
"""

import jax
import jax.numpy as jnp

from zoo import kernels
from zoo.layers import dropout, soft_cap
from zoo.sees import All, Causal, Choice, Lengths, Sees, Segments, Window
from zoo.sharding import constrain, divides

__all__ = ["All", "Causal", "Choice", "Lengths", "Sees", "Segments", "Window", "attention"]


def attention(
    q_BTHK,
    k_BSJK,
    v_BSJK,
    sees: Sees,
    *,
    query_BT=None,
    key_BS=None,
    scale: float = 0.0,
    cap: float = 0.0,
    dropout_rate=0.0,
    dropout_key=None,
):
    """Each position's mean of the values it may see, weighted by softmax(scale q k).

    A key head serves H / J query heads in a row (grouped queries, Ainslie et al. 2023, arXiv 2305.13245);
    mostly J is H. `query_BT` and `key_BS` are positions in the row, 0, 1, 2, ... unless a cache says
    otherwise. `scale` is 1 / sqrt(K) unless it is given; scores are soft-capped at `cap`, if it is not 0.
    Scores and softmax are computed in at least float32; the result has the dtype of `v`.
    """
    kernel = kernels.chosen(
        *(q_BTHK, k_BSJK, v_BSJK, sees),
        dropout_rate=0.0 if dropout_key is None else dropout_rate,
        cap=cap,
        has_positions=query_BT is not None or key_BS is not None,
    )
    scale = scale or q_BTHK.shape[-1] ** -0.5
    rows, keys = inside(q_BTHK.shape[2])
    q_BTHK, k_BSJK, v_BSJK = constrain(q_BTHK, rows), constrain(k_BSJK, keys), constrain(v_BSJK, keys)
    if kernel is not None:
        out_BTHK = kernels.attend(kernel, q_BTHK, k_BSJK, v_BSJK, sees, scale=scale, cap=cap)
        return constrain(constrain(out_BTHK, rows), "BTHK")

    dtype = jnp.promote_types(q_BTHK.dtype, jnp.float32)
    query_BT = jnp.arange(q_BTHK.shape[1])[None] if query_BT is None else query_BT
    key_BS = jnp.arange(k_BSJK.shape[1])[None] if key_BS is None else key_BS
    mask_BTS = sees.mask_BTS(query_BT, key_BS)

    q_BHTK, k_BJSK, v_BJSK = (x.swapaxes(1, 2) for x in (q_BTHK, k_BSJK, v_BSJK))
    B, H, T, K = q_BHTK.shape
    J, S = k_BJSK.shape[1:3]
    q_BHTK = q_BHTK * scale
    # Queries that share a key head lie one after the other: here T counts H / J times as many, and no key
    # is copied.
    q_BJTK = q_BHTK.reshape(B, J, -1, K)
    scores_BJTS = jnp.einsum("BJTK,BJSK->BJTS", q_BJTK, k_BJSK, preferred_element_type=dtype)
    scores_BHTS = soft_cap(scores_BJTS.reshape(B, H, T, S), cap)
    scores_BHTS = jnp.where(mask_BTS[:, None], scores_BHTS, jnp.finfo(dtype).min)
    weights_BHTS = jax.nn.softmax(scores_BHTS, axis=-1)
    weights_BHTS = dropout(weights_BHTS, dropout_rate, dropout_key).astype(v_BJSK.dtype)
    mixed_BJTK = jnp.einsum("BJTS,BJSK->BJTK", weights_BHTS.reshape(B, J, -1, S), v_BJSK)
    seen_BT = mask_BTS.any(-1)[:, None, :, None]
    out_BHTK = jnp.where(seen_BT, mixed_BJTK.reshape(B, H, T, K), 0)
    return constrain(constrain(out_BHTK.swapaxes(1, 2), rows), "BTHK")


def inside(heads: int) -> tuple[str, str]:
    """How queries and results, and keys and values, lie while attention is computed: so that a device needs
    nothing of others, though a row's positions are spread over some (mesh axis context).

    Heads are spread in place of positions, with an exchange before and one behind (all-to-all; DeepSpeed
    Ulysses, arXiv 2309.14509). Where they do not divide, a device keeps its positions' queries and gets the
    keys and values of all (Llama 3, arXiv 2407.21783, section 3.3.2).
    """
    return ("BSAK", "BSAK") if divides("A", heads) else ("BTHK", "BSJK")
