"""What attention remembers of a text: keys and values of every position, as precisely as is asked for.

float32 and bfloat16 are what they say. int8 keeps a position's vector of one head as whole numbers from -127
to 127 and their scale, a float32 that is the largest entry over 127: no entry is off by more than half a
scale, and K + 4 bytes stand for the 4 K of float32.

    k_NBSJK   k_scale_NBSJ   v_NBSJK   v_scale_NBSJ   length_B          (scales with int8 only)

The heads are those of keys and values, J, which may be fewer than the queries'. A layer's part has the same
names without the N. What a layer reads in a piece of text it writes into the
cache before it looks, so a position sees itself as later ones will: to read in pieces is to read at once.
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
    shape = (dims["N"], batch_size, length, dims.get("J", dims["H"]), dims["K"])
    state = {f"{name}_NBSJK": jnp.zeros(shape, dtype) for name in "kv"}
    if dtype == "int8":
        state |= {f"{name}_scale_NBSJ": jnp.zeros(shape[:-1], jnp.float32) for name in "kv"}
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
    length = state["k_NBSJK"].shape[2]
    if T > length:
        raise ValueError(f"a row of {T} tokens does not fit a state of length {length}")
    if "segments" in inputs:
        raise ValueError("inputs with 'segments' are whole rows; they cannot be read into a state")
    return jnp.arange(T)[None] + state["length_B"][:, None]


def by_layer(state: dict) -> dict:
    """The arrays that a scan over layers takes apart, by the names that a layer knows them by."""
    return {layer_name(name): x for name, x in state.items() if layer_name(name) != name}


def layer_name(name: str) -> str:
    """k_scale_NBSJ -> k_scale_BSJ; what has no N keeps its name."""
    stem, _, letters = name.rpartition("_")
    return f"{stem}_{letters.removeprefix('N')}"


def written(cache: dict, place_BT, k_BTJK, v_BTJK) -> tuple[dict, dict]:
    """(a layer's cache with these keys and values at their places, the two as they are stored there)."""
    new = packed("k", k_BTJK, cache["k_BSJK"].dtype) | packed("v", v_BTJK, cache["v_BSJK"].dtype)
    row_B1 = jnp.arange(len(place_BT))[:, None]
    return {name: x.at[row_B1, place_BT].set(new[name]) for name, x in cache.items()}, new


def packed(name: str, x_BTJK, dtype) -> dict:
    """Vectors as a cache of this dtype stores them."""
    if dtype != jnp.int8:
        return {f"{name}_BSJK": x_BTJK.astype(dtype)}
    x_BTJK = x_BTJK.astype(jnp.float32)
    scale_BTJ = jnp.abs(x_BTJK).max(-1) / 127
    whole_BTJK = jnp.round(x_BTJK / jnp.maximum(scale_BTJ, 1e-30)[..., None])
    return {f"{name}_BSJK": whole_BTJK.astype(jnp.int8), f"{name}_scale_BSJ": scale_BTJ}


def unpacked(name: str, cache: dict, dtype):
    """The vectors of a layer's cache, in the dtype of activations."""
    x_BSJK = cache[f"{name}_BSJK"]
    if x_BSJK.dtype != jnp.int8:
        return x_BSJK.astype(dtype)
    return (x_BSJK.astype(jnp.float32) * cache[f"{name}_scale_BSJ"][..., None]).astype(dtype)


def remember(state: dict, read: dict, place_BT, lengths_B) -> dict:
    """The cache with what all layers have just read, `read`, written at its places.

    Padding at the end of a row is written too, and then overwritten: a row goes on after its length,
    and nothing looks at a place that is still to come.
    """
    row_B1 = jnp.arange(len(place_BT))[:, None]
    after = {
        name: x.at[:, row_B1, place_BT].set(read[layer_name(name)])
        for name, x in state.items()
        if layer_name(name) in read
    }
    return after | {"length_B": state["length_B"] + lengths_B}
