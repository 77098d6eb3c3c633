"""The mathematics that the families share: matmuls by equation, norms, lookups, dropout.

Linen classes here only declare parameters; what they compute is a plain function of arrays. Every
parameter is declared through `parameter`, which ties it to the letters of zoo/sharding.py.
"""

import math
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from zoo.lettered import Lettered, stored_size
from zoo.sharding import Copies, constrain, on_each_part, spread

ACTIVATIONS: dict[str, Callable] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),  # the erf form of arXiv 1606.08415 (BERT, nanoGPT)
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),  # its tanh approximation (GPT-2)
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,  # x times its sigmoid (Swish of arXiv 1710.05941; Llama)
}


def normal(std: float) -> Callable:
    """Initial values std * N(0, 1), the same numbers on every version of JAX."""
    return lambda key, shape: std * jax.random.normal(key, shape, jnp.float32)


def uniform(scale: float) -> Callable:
    """Initial values spread evenly over -scale to scale."""
    return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -scale, scale)


def constant(value: float) -> Callable:
    return lambda key, shape: jnp.full(shape, value, jnp.float32)


def parameter(
    module: nn.Module, name: str, letters: str, dims: Mapping[str, int], init: Callable, contracted: int = 0
):
    """Declares a float32 parameter of `module`, stored with its vocabulary padded by zeros."""
    shape = tuple(dims[letter] for letter in letters)

    def boxed(key):
        padding = [(0, stored_size(letter, size) - size) for letter, size in zip(letters, shape, strict=True)]
        return Lettered(jnp.pad(init(key, shape), padding), letters, shape, contracted)

    return module.param(name, boxed)


class Linear(nn.Module):
    """A matmul written as its equation: `Linear("BTD,DHK->BTHK", dims)` maps D to heads.

    The input's letters are those kept, then those summed; the kernel's are those summed, then the new
    ones. The bias has the new ones. Weights are cast to the input's dtype; whole numbers have scales beside.
    """

    equation: str
    dims: Mapping[str, int]
    std: float = 0.02
    bias: bool = True

    @nn.compact
    def __call__(self, x):
        kept, summed, new = parse(self.equation)
        w = parameter(self, "w", summed + new, self.dims, normal(self.std), contracted=len(summed))
        if self.has_variable("params", "w_scale"):  # whole numbers (zoo/models/quantised.py)
            y = scaled_matmul(x, w, self.get_variable("params", "w_scale"), len(summed))
        else:
            y = matmul(x, w.astype(x.dtype), len(summed), summed + new)
        if self.bias:
            y += parameter(self, "b", new, self.dims, constant(0.0)).astype(x.dtype)
        return checkpoint_name(constrain(y, kept + new), self.name or "")  # which remat may keep by name


def parse(equation: str) -> tuple[str, str, str]:
    """("BT", "D", "HK") of "BTD,DHK->BTHK": the letters kept, summed and new."""
    inputs, out = equation.split("->")
    x, w = inputs.split(",")
    summed = "".join(letter for letter in w if letter in x)
    kept, new = x.removesuffix(summed), w.removeprefix(summed)
    if x != kept + summed or w != summed + new or out != kept + new:
        raise ValueError(f"equation {equation!r} is not of the form 'kept summed, summed new -> kept new'")
    return kept, summed, new


def matmul(x, w, summed: int, letters: str = ""):
    """Sums the last `summed` dimensions of `x` with the first of `w`, as one flat matrix product.

    Flattened to [rows, columns] the gradient runs twice as fast on a CPU, and compilers for other
    devices flatten for themselves. The batch is the slowest dimension, so it stays sharded; where positions
    are sharded too, one flat dimension could not say how, and nothing is flattened.

    With the kernel's `letters` it is gathered flat, and its gradient scattered flat: of [D, H, K] the TPU's
    compiler makes K rows of D, and leaves their sum whole. Of several dimensions the first alone is spread.
    """
    kept, new = x.shape[: x.ndim - summed], w.shape[summed:]
    if spread("T", (0,)) > 1:
        return jnp.tensordot(x, w, summed)
    flat = w.reshape(math.prod(w.shape[:summed]), -1)
    if letters:
        flat = constrain(flat, letters[0] + letters[summed])
    return (x.reshape(-1, len(flat)) @ flat).reshape(*kept, *new)


def scaled_matmul(x, w, scale, summed: int):
    """`matmul` with whole numbers `w`; `scale` [G, *new] multiplies each of G equal parts of what is summed.

    One scale of a whole column waits until the column's sum is there: whole numbers up to 127 are exact in
    bfloat16, their products with a scale are not.
    """
    if len(scale) == 1:
        return (matmul(x, w.astype(x.dtype), summed) * scale[0]).astype(x.dtype)
    parts = w.reshape(len(scale), -1, *scale.shape[1:]).astype(scale.dtype) * scale[:, None]
    return matmul(x, parts.astype(x.dtype).reshape(w.shape), summed)


class Embed(nn.Module):
    """A table of learned vectors, looked up by row; `rows` is the letter that counts them, `width` that
    of the vectors."""

    rows: str
    dims: Mapping[str, int]
    init_values: Callable = normal(0.02)
    width: str = "D"

    def setup(self):
        self.table = parameter(self, "table", self.rows + self.width, self.dims, self.init_values)

    def scale(self):
        """Of each row, where the table holds whole numbers (zoo/models/quantised.py); else None."""
        return self.get_variable("params", "table_scale")

    def copies(self):
        """Of the table, for each part of a batch (zoo/models/copies.py); None where there are none."""
        return self.get_variable("params", "table_copies")

    def __call__(self, ids_BT, dtype):
        copies, scale_V = self.copies(), self.scale()
        if copies is not None and ids_BT.ndim == 2 and len(copies.value) == spread("B", ids_BT.shape[:1]):
            x_BTD = lookup_in_copies(copies, ids_BT, self.rows)
        else:
            x_BTD = lookup(self.table, ids_BT, self.rows)
        if scale_V is not None:
            x_BTD = x_BTD * jnp.take(scale_V, ids_BT, mode="clip")[..., None]
        return x_BTD.astype(dtype)

    def attend(self, x, vocab_size: int, bias_V=None, cap: float = 0.0):
        """Logits of every row as the next token, [..., D] -> [..., V], in at least float32: an output
        layer, and where the table is looked up too, one tied to the input (arXiv 1608.05859).

        They are soft-capped at `cap`, if it is not 0. The rows that pad the vocabulary come out as the
        lowest number there is, so that they take no probability and give no gradient.
        """
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        x_BD = x.reshape(-1, x.shape[-1])  # one long batch of positions
        copies, table_VD = self.copies(), self.table
        if copies is not None and len(copies.value) == 1:  # on a part of the batch
            table_VD = copies.value[0]
        table_VD = constrain(table_VD.astype(x.dtype), self.rows + ".")
        logits_BV = against_rows(x_BD, table_VD, dtype)
        if (scale_V := self.scale()) is not None:
            logits_BV *= scale_V
        if bias_V is not None:
            logits_BV += bias_V.astype(dtype)
        logits_BV = soft_cap(logits_BV, cap)
        if len(self.table) > vocab_size:
            logits_BV = jnp.where(jnp.arange(len(self.table)) < vocab_size, logits_BV, jnp.finfo(dtype).min)
        return constrain(logits_BV, "BV").reshape(*x.shape[:-1], -1)


def against_rows(x_BD, table_VD, dtype):
    """Every row of `x` times every row of a table, BD,VD->BV, summed in `dtype`.

    With few rows a CPU is two to five times faster (a row alone equally fast, more than 512 slower) where the
    table comes first; the barrier keeps the compiler from turning the product around.
    """

    def table_last(x_BD, table_VD):
        return jnp.einsum("BD,VD->BV", x_BD, table_VD, preferred_element_type=dtype)

    def table_first(x_BD, table_VD):
        logits_VB = jnp.einsum("VD,BD->VB", table_VD, x_BD, preferred_element_type=dtype)
        return jax.lax.optimization_barrier(logits_VB).T

    if len(x_BD) > 512:
        return table_last(x_BD, table_VD)
    return jax.lax.platform_dependent(x_BD, table_VD, cpu=table_first, default=table_last)


def lookup(table_VD, ids_BT, rows: str):
    """Rows of a table. The table is gathered over D first: a lookup in a table that is spread over
    the same axis as the batch would otherwise gather the whole batch."""
    x_BTD = jnp.take(constrain(table_VD, rows + "."), ids_BT, axis=0, mode="clip")
    return constrain(x_BTD, "BT"[: ids_BT.ndim] + "D")


def lookup_in_copies(copies: Copies, ids_BT, rows: str):
    """The same, each part of a batch in its own copy; gradients are added up in at least float32 there."""

    def on_part(copies, ids_BT):
        table_VD = copies.value[0]
        wide = jnp.promote_types(table_VD.dtype, jnp.float32)
        return {}, lookup(table_VD.astype(wide), ids_BT, rows).astype(table_VD.dtype)

    return on_each_part(on_part, copies.value.shape[1], copies, ids_BT)[1]


class LayerNorm(nn.Module):
    """Layer normalisation (arXiv 1607.06450) over D, computed in at least float32."""

    dims: Mapping[str, int]
    bias: bool = True
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x_BTD):
        scale_D = parameter(self, "scale", "D", self.dims, constant(1.0))
        bias_D = parameter(self, "bias", "D", self.dims, constant(0.0)) if self.bias else None
        return layer_norm(x_BTD, scale_D, bias_D, self.epsilon)


def layer_norm(x_BTD, scale_D, bias_D, epsilon: float):
    x = x_BTD.astype(jnp.promote_types(x_BTD.dtype, jnp.float32))
    centred = x - x.mean(-1, keepdims=True)
    y = centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + epsilon) * scale_D
    return (y if bias_D is None else y + bias_D).astype(x_BTD.dtype)


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467) over the last dimensions,
    those of `letters`, computed in at least float32.

    What is stored is the scale less `offset`: with 1, as Gemma has it, a decay of weights pulls it to one.
    """

    dims: Mapping[str, int]
    letters: str = "D"
    epsilon: float = 1e-6
    offset: float = 0.0

    @nn.compact
    def __call__(self, x):
        scale = parameter(self, "scale", self.letters, self.dims, constant(1.0 - self.offset))
        return rms_norm(x, self.offset + scale, self.epsilon)


def rms_norm(x, scale, epsilon: float):
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    power = (wide * wide).mean(tuple(range(-scale.ndim, 0)), keepdims=True)
    return (wide * jax.lax.rsqrt(power + epsilon) * scale).astype(x.dtype)


def soft_cap(x, cap: float):
    """`x` where it is small, and never beyond `cap` on either side (Gemma 2, arXiv 2408.00118); 0 caps
    nothing."""
    return cap * jnp.tanh(x / cap) if cap else x


def unit(x):
    """Vectors [..., D] with length 1, in their directions; one of length 0 stays what it is."""
    return x / jnp.sqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-24))  # 1e-12 as in PyTorch's normalize


def dropout(x, rate: float, key, *, shared: int | None = None):
    """Zeroes a share `rate` of `x` and scales the rest up (Srivastava et al. 2014); nothing without a key.

    One draw serves a whole dimension `shared`: positions (variational dropout, arXiv 1512.05287), or the
    columns of a row.
    """
    if key is None or rate == 0.0:
        return x
    shape = tuple(1 if axis == shared else size for axis, size in enumerate(x.shape))
    kept = jax.random.bernoulli(key, 1.0 - rate, shape)
    return jnp.where(kept, x / (1.0 - rate), 0).astype(x.dtype)


def dropout_key(module: nn.Module):
    """A fresh key of the stream "dropout" in training; None elsewhere, where no such stream is given."""
    return module.make_rng("dropout") if module.has_rng("dropout") else None
