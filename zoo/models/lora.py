"""Adapters of low rank beside frozen matmuls (LoRA, Hu et al. 2021, arXiv 2106.09685).

    y = x W + b + scale (x A) B        W [D, E] stays, A [D, L] and B [L, E] are trained; scale = alpha / L

Of any model, and no model knows: a Linear that finds "lora_a" and "lora_b" among its parameters adds their
product. The low-rank path is computed beside the matmul, never as a change of W, so that no gradient of W's
size is formed. Layers that are stacked have stacked adapters, placed by the letters of their kernels. B
begins at zero, A uniform within 1 / sqrt(width in), as in peft.

    model  = with_lora(zoo.create("gpt2"), LoRA(rank=8))
    params = model.init(key)
    plain  = model.merged(params)                           # those of model.base, which computes the same
"""

import dataclasses
import fnmatch
import math
from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.errors import ConfigError, nearest
from zoo.layers import Linear, dropout, dropout_key, matmul, parse
from zoo.lettered import ParamSpec
from zoo.sharding import constrain

A, B = "lora_a", "lora_b"


@dataclass(frozen=True)
class LoRA:
    """The paper's choice of layers, as they are called in the Transformers here; none by default."""

    rank: int = 0
    """Of every adapter; 0: no adapters, all parameters are trained."""
    alpha: float = 16.0
    """What the adapters' product is multiplied by, in units of 1 / rank."""
    scaling: Literal["rank", "root"] = "rank"
    """alpha / rank, or alpha / sqrt(rank), which keeps high ranks learning (rsLoRA, arXiv 2312.03732)."""
    targets: tuple[str, ...] = ("*attention/query", "*attention/value")
    """Patterns of the matmuls that are adapted: "*attention/*", "*mlp/up"."""
    dropout_rate: float = 0.0
    """Of the adapters' inputs."""
    trained: tuple[str, ...] = ()
    """Patterns of other parameters that are trained too: "*norm*"; without any, a head over an encoder is."""

    def __post_init__(self):
        if self.rank < 0:
            raise ConfigError(f"rank={self.rank} must not be negative; 0 is no adapters")
        if not self.alpha > 0:
            raise ConfigError(f"alpha={self.alpha} must be above 0")
        if self.scaling not in ("rank", "root"):
            raise ConfigError(f"scaling={self.scaling!r} is none of rank, root")
        if not 0 <= self.dropout_rate < 1:
            raise ConfigError(f"dropout_rate={self.dropout_rate} must be at least 0 and less than 1")
        if self.rank and not self.targets:
            raise ConfigError(f"rank={self.rank} adapts nothing without targets; name some")

    @property
    def scale(self) -> float:
        return self.alpha / (self.rank if self.scaling == "rank" else self.rank**0.5)


def matching(patterns: tuple[str, ...], names, field: str, what: str) -> list[str]:
    """The names that any pattern matches; `*` matches slashes too. ConfigError for a pattern without any."""
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            hint = nearest(pattern, names) or f"; there are {', '.join(names)}"
            raise ConfigError(f"lora.{field}={pattern!r} matches no {what}{hint}")
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


# --- parameters -----------------------------------------------------------------------------------


def adapter_specs(lora: LoRA, kernels: dict[str, ParamSpec]) -> dict[str, ParamSpec]:
    """{name: ParamSpec} of the adapters of those of a model's matmuls ({name: its kernel's}) that the targets
    match. Raises ConfigError for a target that matches none, or a rank that saves nothing."""
    found = {}
    for name in matching(lora.targets, list(kernels), "targets", "matmul"):
        w = kernels[name]
        n = w.letters.startswith("N")
        cut = n + w.contracted
        stack, into, out = (slice(0, n), slice(n, cut), slice(cut, None))
        width = min(math.prod(w.visible_shape[into]), math.prod(w.visible_shape[out]))
        if lora.rank > width:
            raise ConfigError(f"lora.rank={lora.rank} is more than {name} has, {width}; lower it")

        def spec(make, contracted, w=w, stack=stack):
            shape, visible = (make(each[stack], each, (lora.rank,)) for each in (w.shape, w.visible_shape))
            return ParamSpec(make(w.letters[stack], w.letters, "L"), shape, visible, w.dtype, contracted)

        found[f"{name}/{A}"] = spec(lambda n, each, low, into=into: n + each[into] + low, w.contracted)
        found[f"{name}/{B}"] = spec(lambda n, each, low, out=out: n + low + each[out], 1)
    return found


def init_adapters(specs: dict[str, ParamSpec], key) -> dict:
    """{name: array}: A at random, B zero, so that an adapted model begins as the model it adapts."""
    found = {}
    for number, (name, spec) in enumerate(sorted(specs.items())):
        found[name] = jnp.zeros(spec.shape, spec.dtype)
        if name.endswith(A):
            n = spec.letters.startswith("N")
            bound = math.prod(spec.visible_shape[n:-1]) ** -0.5
            shape, each = spec.visible_shape, jax.random.fold_in(key, number)
            values = jax.random.uniform(each, shape, spec.dtype, -bound, bound)
            found[name] = found[name].at[tuple(slice(0, size) for size in shape)].set(values)
    return found


def frozen_beside(lora: LoRA, names) -> frozenset[str]:
    """The names of the parameters that stay as they are: of a model with adapters, all but those and what
    `trained` matches; of one without, none. A head over an encoder is trained unless `trained` says what is:
    it most often begins at random."""
    if not lora.rank:
        return frozenset()
    others = [name for name in names if not is_adapter(name)]
    trained = matching(lora.trained, others, "trained", "parameter") if lora.trained else head_of(others)
    return frozenset(others).difference(trained)


def head_of(names) -> list[str]:
    """The names of a head's own parameters; none of a model that is no head over an encoder."""
    own = [name for name in names if not name.startswith("encoder/")]
    return own if len(own) < len(names) else []


def is_adapter(name: str) -> bool:
    return name.endswith((f"/{A}", f"/{B}"))


def merged(lora: LoRA, leaves: dict, kernels: dict[str, ParamSpec]) -> dict:
    """{name: array} of the model without adapters that computes the same: W + scale A B."""
    found = {name: leaf for name, leaf in leaves.items() if not is_adapter(name)}
    for name, w in kernels.items():
        if f"{name}/{A}" in leaves:
            n = w.shape[0] if w.letters.startswith("N") else 1
            a, b = leaves[f"{name}/{A}"], leaves[f"{name}/{B}"]
            product = a.reshape(n, -1, lora.rank) @ b.reshape(n, lora.rank, -1)
            found[f"{name}/w"] = leaves[f"{name}/w"] + lora.scale * product.reshape(w.shape)
    return found


# --- the computation ------------------------------------------------------------------------------


def adapting(lora: LoRA):
    """A context in which every Linear adds its adapter's product, where it has one."""

    def add(call, args, kwargs, context):
        y, linear = call(*args, **kwargs), context.module
        if not isinstance(linear, Linear) or not linear.has_variable("params", A):
            return y
        kept, summed, new = parse(linear.equation)
        x = dropout(args[0], lora.dropout_rate, dropout_key(linear))
        a, b = (linear.get_variable("params", name).astype(x.dtype) for name in (A, B))
        low = constrain(matmul(x, a, len(summed)), kept + "L")
        return y + constrain(lora.scale * matmul(low, b, 1), kept + new)

    return nn.intercept_methods(add)


def with_lora(model, lora: LoRA):
    """A model with adapters; the same one where the rank is 0. Raises ConfigError where they do not fit."""
    model = dataclasses.replace(model, lora=lora if lora.rank else None)
    model.abstract()  # which says what does not fit
    return model
