"""Weights of 8 or 4 bits for inference: whole numbers, and a scale for each output channel of a matmul.

    w = scale q        q in -127 ... 127 or -7 ... 7, scale = (largest |w| of its channel) / 127 or / 7

Symmetric, without a zero point, rounded to the nearest, no data to calibrate on (as the vector-wise weights
of LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339; activations stay floats). Of 4 bits a scale serves
GROUP inputs of a channel (as in GPTQ, Frantar et al. 2022, arXiv 2210.17323), or the whole channel where the
width is no multiple of that. A vocabulary's table has a scale for each row, and 8 bits at either setting:
what it says of a word is not averaged with anything. The cost in quality stands in benchmarks/README.md.

What is saved is room. Every matmul makes floats of its kernel first: of one layer's at a time where layers
are stacked, and of a table whole.

Of any model, and no model knows: a Linear that finds "w_scale" among its parameters, or an Embed that finds
"table_scale", multiplies with it. All else stays float32: norms, biases, tables of positions, and the
kernels of recurrences and convolutions, which are no Linear.

    model, params = quantised(*zoo.from_pretrained("gpt2/")[:2], bits=8)
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from zoo.errors import ConfigError, nearest
from zoo.lettered import ParamSpec
from zoo.sharding import shardings_like
from zoo.tree import named_leaves, nested

WEIGHTS = {"int8": 8, "int4": 4}
INTEGERS = {bits: jnp.dtype(name) for name, bits in WEIGHTS.items()}
GROUP = 32
"""Inputs that share a scale of 4 bits."""


def quantised(model, params, bits: int = 8):
    """(model, params) that compute nearly the same with weights of `bits`, 8 or 4.

    `params` are given up, like an argument that is donated: an array is deleted once its whole numbers are
    there, so that no more than one is there twice. Every array stays on the devices that it was on. Raises
    ConfigError for other bits, for adapters that are not merged, for layers that stand apart
    (zoo/inference/apart.py) and for what is quantised already.
    """
    if model.bits:
        raise ConfigError(
            f"the model has weights of {model.bits} bits already; quantise what it was made from"
        )
    quantised_model = dataclasses.replace(model, bits=bits)
    specs, leaves = named_leaves(quantised_model.abstract()), named_leaves(params)
    kept = {name for name in specs if not is_scale(name)}
    if leaves.keys() != kept:
        strange = min(leaves.keys() ^ kept)
        raise ConfigError(
            f"params: {strange} is not as the model has it; quantise before layers are taken apart"
        )
    for name in sorted(kept):
        if (scale := f"{name}_scale") in specs:
            leaves |= _rounded(leaves[name], {name: specs[name], scale: specs[scale]})
    return quantised_model, nested(leaves)


def bits_of(weights: str) -> int:
    """8 of "int8", 4 of "int4". Raises ConfigError for any other."""
    if weights not in WEIGHTS:
        raise ConfigError(f"weights={weights!r} is none of {', '.join(WEIGHTS)}{nearest(weights, WEIGHTS)}")
    return WEIGHTS[weights]


def is_scale(name: str) -> bool:
    return name.endswith(("/w_scale", "/table_scale"))


def check(model) -> None:
    """ConfigError for bits that no weight has, or beside adapters."""
    if model.bits not in (0, *INTEGERS):
        raise ConfigError(f"bits={model.bits} is none of {', '.join(map(str, INTEGERS))}; 0 is float32")
    if model.bits and model.lora:
        raise ConfigError(
            f"bits={model.bits}: adapters stand beside float32 weights; merge them first (model.merged)"
        )


def refuse(model, what: str) -> None:
    """ConfigError where a model of whole numbers would have to do what only floats can."""
    if model.bits:
        raise ConfigError(f"weights of {model.bits} bits cannot be {what}; take the float32 model")


def quantised_specs(specs: dict[str, ParamSpec], kernels: dict[str, ParamSpec], bits: int) -> dict:
    """{name: ParamSpec} of a model's parameters ({name: ParamSpec}), with whole numbers and their scales in
    place of its matmuls' ({name: its kernel's}) and its vocabularies' tables."""
    found = dict(specs)
    for name, w in kernels.items():
        n = w.letters.startswith("N")
        cut = n + w.contracted
        width = math.prod(w.shape[n:cut])
        parts = width // GROUP if bits == 4 and width % GROUP == 0 else 1
        found[f"{name}/w"] = dataclasses.replace(w, dtype=INTEGERS[bits])
        found[f"{name}/w_scale"] = ParamSpec(
            w.letters[:n] + "." + w.letters[cut:],
            (*w.shape[:n], parts, *w.shape[cut:]),
            (*w.visible_shape[:n], parts, *w.visible_shape[cut:]),
            jnp.float32,
        )
    for name, table in specs.items():
        if name.endswith("/table") and table.letters.startswith("V"):
            found[name] = dataclasses.replace(table, dtype=INTEGERS[8])
            found[f"{name}_scale"] = ParamSpec("V", table.shape[:1], table.visible_shape[:1], jnp.float32)
    return found


def _rounded(x, specs: dict[str, ParamSpec]) -> dict:
    """{name: array} of the whole numbers and the scales that stand for `x`, which is deleted."""
    whole, scale = specs.values()
    placed = shardings_like(x, specs)
    compiled = jax.jit(
        _whole_numbers, static_argnums=(1, 2, 3), out_shardings=placed and tuple(placed.values())
    )
    made = compiled(x, scale.shape, 1 + scale.letters.startswith("N"), whole.dtype)
    jax.block_until_ready(made)
    if isinstance(x, jax.Array):
        x.delete()
    return dict(zip(specs, made, strict=True))


def _whole_numbers(x, shape: tuple[int, ...], axis: int, dtype):
    """(q, scale): scales of this shape serve equal parts of `x`, whose entries stand at `axis`.

    Where all are zero the scale is too. A number that is not finite makes its scale so, and shows.
    """
    parts = x.astype(jnp.float32).reshape(*shape[:axis], -1, *shape[axis:])
    scale = jnp.abs(parts).max(axis) / jnp.iinfo(dtype).max
    # jaxlib 0.12.0.1 takes the maximum of what is not NaN on a CPU.
    scale = jnp.where(jnp.isfinite(parts).all(axis), scale, jnp.nan)
    q = jnp.round(parts / jnp.expand_dims(jnp.where(scale == 0, 1.0, scale), axis))
    return q.astype(dtype).reshape(x.shape), scale
