"""Splash attention on TPUs: blocks of scores in fast memory, and blocks that see nothing skipped
(jax.experimental.pallas.ops.tpu.splash_attention, after Dao et al. 2022, arXiv 2205.14135).

The kernel takes one row; a vmap gives it the batch. Segments and lengths become its segment ids, where a key
that nobody may see has id 0. A row is filled up to whole blocks with positions of id 0, cut off again.
"""

from typing import Any

import jax
import jax.numpy as jnp

BLOCK = 128  # lengths are filled up to a multiple of it, the width of a TPU's vector unit
LARGEST = 512  # positions of a block, as in MaxText: its scores are 1 MiB of float32
WIDEST = 512  # heads; the widest that was compiled (v5e, v5p and v6e, libtpu 0.0.42.1)


def attention(q_BTHK, k_BTJK, v_BTJK, seen, *, scale: float, cap: float, interpret: bool = False):
    """[B, T, H, K], on the arrays of one device. `seen` is a Seen; what a row that sees nothing gives
    is not defined. `interpret` runs the kernel without a TPU."""
    from jax.experimental.pallas.ops.tpu import splash_attention as library  # slow to import

    B, T, H, _ = q_BTHK.shape
    padding = -T % BLOCK
    size = T + padding
    block = max(size_of for size_of in range(BLOCK, LARGEST + 1, BLOCK) if size % size_of == 0)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    blocks: dict[str, Any] = {f"block_{name}": block for name in names}
    kernel = library.make_splash_mha(
        library.MultiHeadMask([mask_of(library, seen, size)] * H),
        block_sizes=library.BlockSizes(**blocks),
        attn_logits_soft_cap=cap or None,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )

    def filled(x, axis):
        return jnp.pad(x, [(0, padding if place == axis else 0) for place in range(x.ndim)])

    ids = None
    if seen.segments is not None or seen.lengths is not None or (padding and not seen.causal):
        query_BT, key_BT = (jnp.broadcast_to(x, (B, T)) for x in seen.ids(T))
        ids = library.SegmentIds(q=filled(query_BT, 1), kv=filled(key_BT, 1))
    q_BHTK, k_BJTK, v_BJTK = (
        filled(x.swapaxes(1, 2), 2) for x in (q_BTHK * jnp.asarray(scale, q_BTHK.dtype), k_BTJK, v_BTJK)
    )
    out_BHTK = jax.vmap(kernel)(q_BHTK, k_BJTK, v_BJTK, ids)
    return out_BHTK[:, :, :T].swapaxes(1, 2)


def mask_of(library, seen, size: int):
    """The kernel's own words for what does not depend on the batch."""
    if seen.window is not None:
        return library.LocalMask((size, size), (seen.window - 1, 0 if seen.causal else seen.window - 1), 0)
    return (library.CausalMask if seen.causal else library.FullMask)((size, size))
