"""What attention remembers of a text: keys and values of every position, as precisely as is asked for.

float32 and bfloat16 are what they say. int8 keeps a position's vector of one head as whole numbers from -127
to 127 and their scale, a float32 that is the largest entry over 127: no entry is off by more than half a
scale, and K + 4 bytes stand for the 4 K of float32.

    k_NBJSK   k_scale_NBJS   v_NBJSK   v_scale_NBJS   length_B          (scales with int8 only)

The heads are those of keys and values, J, which may be fewer than the queries'; they stand before the
positions, as attention multiplies them. The layers hand all of it on from one to the next, and each writes
its part in place: an array that a loop takes apart by layers and puts together again is copied at each token.
What a layer reads in a piece of text it writes before it looks, so a position sees itself as later ones will:
to read in pieces is to read at once.
"""

import jax.numpy as jnp

from zoo.errors import ConfigError, nearest

CACHE_DTYPES = ("float32", "bfloat16", "float64", "int8")


def empty(dims, batch_size: int, length: int, dtype: str) -> dict:
    """Room for `length` positions of all layers, none read yet. Raises ConfigError for an unknown dtype."""
    if dtype not in CACHE_DTYPES:
        raise ConfigError(
            f"cache_dtype={dtype!r} is none of {', '.join(CACHE_DTYPES)}{nearest(dtype, CACHE_DTYPES)}"
        )
    shape = (dims["N"], batch_size, dims.get("J", dims["H"]), length, dims["K"])
    state = {f"{name}_NBJSK": jnp.zeros(shape, dtype) for name in "kv"}
    if dtype == "int8":
        state |= {f"{name}_scale_NBJS": jnp.zeros(shape[:-1], jnp.float32) for name in "kv"}
    return state | {"length_B": jnp.zeros(batch_size, jnp.int32)}


def places(cfg, inputs, state: dict | None):
    """Where each token of a row stands, [1, T] or [B, T]: from 0, or behind what the state has read.

    Raises ValueError for a row that is longer than the model or the state, and for a packed one.
    """
    T = inputs["tokens"].shape[1]
    if T > cfg.max_length:
        raise ValueError(f"a row of {T} tokens is longer than the model, max_length={cfg.max_length}")
    if state is None:
        return jnp.arange(T)[None]
    length = state["k_NBJSK"].shape[3]
    if T > length:
        raise ValueError(f"a row of {T} tokens does not fit a state of length {length}")
    if "segments" in inputs:
        raise ValueError("inputs with 'segments' are whole rows; they cannot be read into a state")
    return jnp.arange(T)[None] + state["length_B"][:, None]


def remembered(state: dict | None, layer, place_BT, k_BTJK, v_BTJK):
    """(the state with a layer's keys and values at their places, k_BSJK, v_BSJK: all that the layer has now).

    Without a state the row is all there is. Padding at the end of a row is written too, and then
    overwritten: a row goes on after its length, and nothing looks at a place that is still to come.
    """
    if state is None:
        return None, k_BTJK, v_BTJK
    row_B1 = jnp.arange(len(place_BT))[:, None]
    dtype = state["k_NBJSK"].dtype
    new = packed("k", k_BTJK, dtype) | packed("v", v_BTJK, dtype)
    state = state | {name: state[name].at[layer, row_B1, :, place_BT].set(x) for name, x in new.items()}
    k_BSJK, v_BSJK = (unpacked(name, state, layer, k_BTJK.dtype) for name in "kv")
    return state, k_BSJK, v_BSJK


def packed(name: str, x_BTJK, dtype) -> dict:
    """Vectors as a cache of this dtype stores them."""
    if dtype != jnp.int8:
        return {f"{name}_NBJSK": x_BTJK.astype(dtype)}
    x_BTJK = x_BTJK.astype(jnp.float32)
    scale_BTJ = jnp.abs(x_BTJK).max(-1) / 127
    whole_BTJK = jnp.round(x_BTJK / jnp.maximum(scale_BTJ, 1e-30)[..., None])
    return {f"{name}_NBJSK": whole_BTJK.astype(jnp.int8), f"{name}_scale_NBJS": scale_BTJ}


def unpacked(name: str, state: dict, layer, dtype):
    """The vectors of a layer, [B, S, J, K], in the dtype of activations."""
    x_BJSK = state[f"{name}_NBJSK"][layer]
    if x_BJSK.dtype == jnp.int8:
        x_BJSK = x_BJSK.astype(jnp.float32) * state[f"{name}_scale_NBJS"][layer][..., None]
    return x_BJSK.astype(dtype).swapaxes(1, 2)


def moved_on(state: dict | None, lengths_B) -> dict | None:
    """The state behind the rows that all layers have just read."""
    return state and state | {"length_B": state["length_B"] + lengths_B}
