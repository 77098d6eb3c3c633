"""A model as pure functions of plain arrays, whatever library its layers are written in.

    model        = zoo.create("gpt2")
    params       = model.init(jax.random.key(0))          # nested dict of arrays
    specs        = model.abstract()                       # the same tree of ParamSpecs, no arrays
    x_BTD, state = model.features(params, tokens)
    logits       = model.readout(params, x_BTD)           # of any positions: x may be any part of x_BTD
    logits_BTV   = model.apply(params, tokens)            # the two composed

The split lets a task read a few positions, or the vocabulary in chunks, or no vocabulary at all.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo import sharding

INPUTS = ("tokens", "positions", "segments", "lengths")


@dataclass(frozen=True)
class Model:
    """The pure functions of one configuration. Two models are equal where their configurations are.

    `inputs` of every function is an array of token ids [B, T], or a dict with "tokens" and optionally
    "positions" [B, T] (default 0, 1, 2, ...) and "segments" [B, T] (the document of each position of a
    packed row, from 1; 0 is padding), or, with a state, "lengths" [B] (how many tokens of each row are
    there to be read; the rest pads the row on the right).
    """

    config: Any
    module: nn.Module

    def init(self, key) -> dict:
        """Random parameters: a nested dict of float32 arrays."""
        return _unboxed(self, key)

    @functools.cache  # noqa: B019 -- models are few and small: no arrays in them
    def abstract(self) -> dict:
        """The parameters' letters, shapes and dtypes, without any array."""
        return sharding.specs(jax.eval_shape(self._boxed, jax.random.key(0)))

    def _boxed(self, key):
        return self.module.init(key, {"tokens": jnp.zeros((1, 1), jnp.int32)}, method=features_and_readout)[
            "params"
        ]

    def num_params(self) -> int:
        """Parameters as papers count them: tied arrays once, padding not at all."""
        return sum(spec.size for spec in jax.tree.leaves(self.abstract()))

    def features(self, params, inputs, *, state=None, train: bool = False, rngs=None):
        """(x_BTD, state): the final features and, where a state came in, its successor.

        `train=True` switches dropout on and needs `rngs={"dropout": key}`.
        Raises ValueError where a row is longer than the model.
        """
        if train and "dropout" not in (rngs or {}):
            raise ValueError('train=True needs rngs={"dropout": key}')
        if self.config.dtype == "float64" and not jax.config.read("jax_enable_x64"):
            raise ValueError("dtype=float64 needs jax.enable_x64(True)")
        rngs = rngs if train else None  # a model drops out exactly where it is given keys to
        return self.module.apply({"params": params}, as_inputs(inputs), state, rngs=rngs, method="features")

    def readout(self, params, x):
        """Logits, float32, of features at any positions: [..., D] -> [..., V]."""
        return self.readout_stored(params, x)[..., : self.config.vocab_size]

    def readout_stored(self, params, x):
        """Logits as the sharded vocabulary stores them: the rows that pad it come last, each at the
        lowest float, so that a softmax over all equals the softmax over the visible ones."""
        return self.module.apply({"params": params}, x, method="readout")

    def apply(self, params, inputs, *, train: bool = False, rngs=None):
        """Logits [B, T, V], float32."""
        x_BTD, _ = self.features(params, inputs, train=train, rngs=rngs)
        return self.readout(params, x_BTD)

    def initial_state(self, batch_size: int, length: int):
        """What features() starts from to read a text piece by piece: room for `length` positions."""
        return self.module.initial_state(batch_size, length)


@functools.partial(jax.jit, static_argnums=0)  # one program is made faster than a thousand small ones
def _unboxed(model: Model, key):
    return nn.meta.unbox(model._boxed(key))


def features_and_readout(module, inputs):
    """Touches every parameter, so that Linen declares them all."""
    return module.readout(module.features(inputs, None)[0])


def as_inputs(inputs) -> dict:
    """`inputs` as a dict; raises ValueError for a key that no model reads."""
    if not isinstance(inputs, Mapping):
        return {"tokens": inputs}
    unknown = sorted(set(inputs) - set(INPUTS))
    if unknown or "tokens" not in inputs:
        raise ValueError(f"inputs {sorted(inputs)}: expected 'tokens' and any of {', '.join(INPUTS[1:])}")
    return dict(inputs)
