"""A model as pure functions of plain arrays, whatever library its layers are written in.

    model        = zoo.create("gpt2")
    params       = model.init(jax.random.key(0))          # nested dict of arrays
    specs        = model.abstract()                       # the same tree of ParamSpecs, no arrays
    x_BTD, state = model.features(params, tokens)
    logits       = model.readout(params, x_BTD)           # of any positions: x may be any part of x_BTD
    logits_BTV   = model.apply(params, tokens)            # the two composed

The split lets a task read a few positions, or the vocabulary in chunks, or no vocabulary at all.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zoo import lettered
from zoo.errors import ConfigError
from zoo.layers import Linear
from zoo.models import lora as low_rank
from zoo.models import quantised as whole_numbers
from zoo.tree import named_leaves, nested

INPUTS = (
    *("tokens", "positions", "segments", "lengths", "token_types"),
    *("source", "source_lengths", "characters", "word_starts", "word_counts"),
)


class FlopsPerToken(NamedTuple):
    """Floating-point operations to train on one token, by the two conventions in use."""

    full: float
    """Attention counted over all positions (PaLM's appendix B, arXiv 2204.02311; nanoGPT)."""
    causal: float
    """Attention counted over the causal half only (llm.c). Without attention the two are equal."""


@dataclass(frozen=True)
class Model:
    """The pure functions of one configuration. Two models are equal where their configurations are.

    `inputs` of every function is an array of token ids [B, T], or a dict with "tokens" and optionally
    "positions" [B, T] (default 0, 1, 2, ...) and "segments" [B, T] (the document of each position of a
    packed row, from 1; 0 is padding), or "lengths" [B] (how many tokens of each row are there to be
    read; the rest pads the row on the right). BERT reads "token_types" [B, T] too (default 0), models of
    pairs "source" [B, S] and "source_lengths" [B], models of spelling the "characters" [B, T, 50], taggers
    of words in several pieces "word_starts" [B, W], the first piece of each, and "word_counts" [B].
    Heads that make one vector of a text also read groups of texts: [B, G, T] and "lengths" [B, G].
    """

    config: Any
    module: nn.Module
    lora: low_rank.LoRA | None = None
    """Adapters beside some of its matmuls (zoo/models/lora.py); None: there are none."""
    bits: int = 0
    """Of its weights where they are whole numbers, 8 or 4 (zoo/models/quantised.py); 0: they are float32."""

    def __post_init__(self):
        whole_numbers.check(self)

    def init(self, key) -> dict:
        """Random parameters: a nested dict of float32 arrays."""
        whole_numbers.refuse(self, "drawn at random")
        return _unboxed(self, key)

    @functools.cache  # noqa: B019 -- models are few and small: no arrays in them
    def abstract(self) -> dict:
        """The parameters' letters, shapes and dtypes, without any array."""
        specs = lettered.specs(jax.eval_shape(self._boxed_of_any_key))
        if self.bits:
            return nested(whole_numbers.quantised_specs(named_leaves(specs), self.kernels(), self.bits))
        return nested(named_leaves(specs) | self._adapter_specs()) if self.lora else specs

    @property
    def base(self) -> "Model":
        """The model of float32 parameters without adapters."""
        return dataclasses.replace(self, lora=None, bits=0)

    @functools.cache  # noqa: B019 -- as for abstract()
    def kernels(self) -> dict:
        """{name: its kernel's ParamSpec} of every Linear: "blocks/attention/query"."""
        names: dict[str, None] = {}

        def note(call, args, kwargs, context):
            if isinstance(context.module, Linear):
                names["/".join(context.module.path)] = None
            return call(*args, **kwargs)

        with nn.intercept_methods(note):
            jax.eval_shape(self._boxed_of_any_key)
        specs = named_leaves(self.base.abstract())
        return {name: specs[f"{name}/w"] for name in names}

    def _adapter_specs(self) -> dict:
        return low_rank.adapter_specs(self.lora, self.kernels())

    def merged(self, params) -> dict:
        """The parameters of `base` that compute the same."""
        if self.lora is None:
            return params
        return nested(low_rank.merged(self.lora, named_leaves(params), self.kernels()))

    def _boxed(self, key):
        reads = getattr(self.module, "reads", ("tokens",))  # the inputs that it cannot do without
        inputs = {name: jnp.zeros((1, 1), jnp.int32) for name in reads}
        return self.module.init(key, inputs, method=features_and_readout)["params"]

    def _boxed_of_any_key(self):
        """For shapes alone: a key made inside is none, so that no device starts."""
        return self._boxed(jax.random.key(0))

    def num_params(self) -> int:
        """Parameters as papers count them: tied arrays once, padding and scales not at all."""
        specs = named_leaves(self.abstract())
        return sum(spec.size for name, spec in specs.items() if not whole_numbers.is_scale(name))

    def features(self, params, inputs, *, state=None, train: bool = False, rngs=None):
        """(x_BTD, state): the final features and, where a state came in, its successor.

        `train=True` switches dropout on and needs `rngs={"dropout": key}`.
        Raises ValueError where a row is longer than the model.
        """
        return self._features(params, inputs, state, train, rngs)

    def watched(self, params, inputs, *, state=None, train: bool = False, rngs=None):
        """((x_BTD, state), penalty, gauges): features(), and what its layers say about themselves beside it.

        The penalty is a number that training adds to the mean loss (experts ask for it, to be used evenly);
        the gauges are numbers by name that a log may show. Both are means over layers; 0.0 and {} of a model
        whose layers say nothing. They are those modules' "penalties" and "gauges", each sown once a layer.
        """
        found, said = self._features(params, inputs, state, train, rngs, mutable=["penalties", "gauges"])
        penalties = [leaf.mean() for leaf in jax.tree.leaves(said.get("penalties", {}))]
        gauges = jax.tree_util.tree_leaves_with_path(said.get("gauges", {}))
        return found, sum(penalties, 0.0), {path[-2].key: leaf.mean() for path, leaf in gauges}

    def _features(self, params, inputs, state, train: bool, rngs, mutable=False):
        if train:
            whole_numbers.refuse(self, "trained")
        if train and "dropout" not in (rngs or {}):
            raise ValueError('train=True needs rngs={"dropout": key}')
        if self.config.dtype == "float64" and not jax.config.read("jax_enable_x64"):
            raise ValueError("dtype=float64 needs jax.enable_x64(True)")
        rngs = rngs if train else None  # a model drops out exactly where it is given keys to
        with self._adapting():
            return self.module.apply(
                {"params": joined(params)},
                as_inputs(inputs),
                state,
                rngs=rngs,
                method="features",
                mutable=mutable,
            )

    def _adapting(self):
        return low_rank.adapting(self.lora) if self.lora else contextlib.nullcontext()

    def layers(self, params, inputs, *, train: bool = False, rngs=None):
        """(x, layers): the final features, and what its Transformer's layers computed on the way to them.

        The layers are {"x_BTD": [N, B, T, D], "q_BTHK": [N, B, T, H, K], "k_BTHK": ...}: each block's output,
        and the queries and keys of its attention. Of a model without such blocks they are {}.
        """
        with self._adapting():
            (x, _), shown = self.module.apply(
                {"params": joined(params)},
                as_inputs(inputs),
                None,
                rngs=rngs if train else None,
                method="features",
                mutable=["intermediates"],
            )
        leaves = jax.tree_util.tree_leaves_with_path(shown)
        return x, {path[-2].key: leaf for path, leaf in leaves}  # path[-1] counts repeated calls: one

    @functools.cache  # noqa: B019 -- as for abstract()
    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of layers() for a row of one token."""
        params = jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), self.abstract())
        reads = getattr(self.module, "reads", ("tokens",))
        inputs = {name: jnp.zeros((1, 1), jnp.int32) for name in reads}
        _, layers = jax.eval_shape(lambda params: self.layers(params, inputs), params)
        return {name: x.shape for name, x in layers.items()}

    def readout(self, params, x, rows=None):
        """Logits, float32, of features at any positions: [..., D] -> [..., V], or [..., C] of a head.

        With `rows` [B, C] only those of the words that it names: [B, ..., D] -> [B, ..., C]. Tables of
        word vectors can do that (trait "table").
        """
        if rows is not None:
            return self.readout_stored(params, x, rows)
        dims, letters = self.config.dims, self.module.output
        logits = self.readout_stored(params, x)
        if isinstance(letters, Mapping):
            return {name: logits[name][..., : dims[letter]] for name, letter in letters.items()}
        return logits[..., : dims[letters]] if letters else logits

    def readout_stored(self, params, x, rows=None):
        """Logits as the sharded vocabulary stores them: the rows that pad it come last, each at the
        lowest float, so that a softmax over all equals the softmax over the visible ones."""
        named = () if rows is None else (rows,)
        with self._adapting():
            return self.module.apply({"params": joined(params)}, x, *named, method="readout")

    def apply(self, params, inputs, *, train: bool = False, rngs=None):
        """Logits [B, T, V], float32."""
        x_BTD, _ = self.features(params, inputs, train=train, rngs=rngs)
        return self.readout(params, x_BTD)

    @property
    def traits(self) -> frozenset[str]:
        """What it promises: causal, bidirectional, recurrent, pair, table; tests/families.py has the list."""
        return self.module.traits

    def initial_state(self, batch_size: int, length: int, cache_dtype: str | None = None):
        """What features() starts from to read a text piece by piece: room for `length` positions.

        Its arrays are named by their letters, "h_BZ" or "k_NBJSK". `cache_dtype` is that of attention's keys
        and values: float32, bfloat16 or int8 (zoo/models/cache.py); the activations' unless it is given.
        Raises ConfigError where a model remembers none.
        """
        if cache_dtype is None:
            return self.module.initial_state(batch_size, length)
        if self.traits & {"recurrent", "pair"}:
            raise ConfigError(
                f"cache_dtype={cache_dtype}: {type(self.config).__name__} remembers a state of fixed size, "
                "no keys and values; leave it out"
            )
        return self.module.initial_state(batch_size, length, cache_dtype)

    def state_specs(self, batch_size: int, length: int):
        """The letters, shapes and dtypes of initial_state(), without any array."""

        def spec(path, leaf):
            letters = path[-1].key.rpartition("_")[2]
            return lettered.ParamSpec(letters, leaf.shape, leaf.shape, leaf.dtype)

        state = jax.eval_shape(lambda: self.initial_state(batch_size, length))
        return jax.tree_util.tree_map_with_path(spec, state)


@functools.partial(jax.jit, static_argnums=0)  # one program is made faster than a thousand small ones
def _unboxed(model: Model, key):
    params = nn.meta.unbox(model._boxed(key))
    if model.lora is None:
        return params
    adapters = low_rank.init_adapters(model._adapter_specs(), jax.random.fold_in(key, 1))
    return nested(named_leaves(params) | adapters)


def joined(params) -> dict:
    """Parameters whose layers stand apart (zoo/inference/apart.py), stacked as the modules declare them.
    Where their loop is unrolled the compiler takes each layer's array as it is, and nothing is stacked."""
    is_apart = {"is_leaf": lambda x: isinstance(x, tuple)}
    return jax.tree.map(lambda x: jnp.stack(x) if isinstance(x, tuple) else x, params, **is_apart)


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
    rows = {"lengths": "tokens", "source_lengths": "source", "word_counts": "word_starts"}
    for name, row in rows.items():
        if name in inputs and row in inputs:
            check_lengths(name, inputs[name], inputs[row].shape[-1])
    return dict(inputs)


def present(inputs):
    """Which positions hold a token."""
    tokens_BT = inputs["tokens"]
    if "segments" in inputs:
        return inputs["segments"] > 0
    lengths_B = inputs.get("lengths", jnp.full(len(tokens_BT), tokens_BT.shape[1]))
    return jnp.arange(tokens_BT.shape[1]) < lengths_B[:, None]


def check_lengths(name: str, lengths_B, T: int) -> None:
    """ValueError for a length that is no part of a row; inside a compiled program they are not known yet."""
    try:
        lengths_B = np.asarray(lengths_B)
    except jax.errors.TracerArrayConversionError:
        return
    wrong = (lengths_B < 0) | (lengths_B > T)
    if wrong.any():
        row = tuple(map(int, np.argwhere(wrong)[0]))
        place = ", ".join(map(str, row))
        raise ValueError(f"{name}[{place}]={lengths_B[row]} is not between 0 and {T}, the length of the rows")
