"""cuDNN's flash attention on NVIDIA GPUs (Dao et al. 2022, arXiv 2205.14135), through JAX."""

import jax
import jax.numpy as jnp


def attention(q_BTHK, k_BTJK, v_BTJK, seen, *, scale: float, cap: float = 0.0):
    """[B, T, H, K], on the arrays of one device. `seen` is a Seen without segments; what a row that sees
    nothing gives is not defined, but finite. There is no cap."""
    assert not cap and seen.segments is None  # zoo/kernels/choice.py
    lengths = seen.lengths
    if lengths is not None:  # what the kernel makes of no key at all is not documented
        lengths = jnp.maximum(lengths, 1).astype(jnp.int32)
    return jax.nn.dot_product_attention(
        *(q_BTHK, k_BTJK, v_BTJK),
        scale=scale,
        is_causal=seen.causal,
        key_value_seq_lengths=lengths,
        local_window_size=None if seen.window is None else (seen.window - 1, 0),
        implementation="cudnn",
    )
