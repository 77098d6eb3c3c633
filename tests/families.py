"""The families as tests see them: every configuration type of zoo.models.MODELS, made tiny.

A new family needs no line here. Its tiny configurations are its smallest published size with the sizes of
TINY put in, once as published and once with every yes/no and every choice turned to another value. What
may be tested of it is what its Linen module declares, e.g. `traits = frozenset({"causal"})`, of some
modules a property that depends on the configuration:

    causal          a position sees itself and what came before; a state reads a text piece by piece
    bidirectional   a position sees the whole row, or the whole document of a packed row
    recurrent       what a state remembers has a fixed size, and no row is too long
    pair            reads two rows and compares or translates them
    table           one vector a word, no positions
    head            reads something else out of another model's features: classify, embed, tag, slots, span,
                    or pretraining
    directions      reads rows from both ends apart, neither side knowing the other

Programs compiled here are compiled for a quick build, not for speed: six times less time to compile.
"""

import dataclasses
import functools
import typing
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo.models
from zoo.errors import ConfigError
from zoo.layers import ACTIVATIONS
from zoo.losses import cross_entropy
from zoo.models.experts import Experts, NoExperts
from zoo.models.pure import Model
from zoo.rotary import NTK, Linear, Llama3, Unscaled, YaRN

TRAITS = {
    "causal",
    "bidirectional",
    "recurrent",
    "pair",
    "table",
    "head",
    "classify",
    "embed",
    "tag",
    "slots",
    "pretraining",
    "span",
    "directions",
}
SEQUENCE = ("causal", "bidirectional")  # language models: tokens in, a word's logits at every position out

# 100 words are stored as 128; 3 layers do not divide by an unroll of 2; no two sizes are alike.
TINY = {
    "vocab_size": 100,
    "max_length": 16,
    "reach": 3,
    "window": 3,
    "rotary_share": 0.4,
    "num_layers": 3,
    "num_heads": 2,
    "d_model": 12,
    "d_ff": 40,
    "d_state": 14,
    "d_attention": 10,
    "d_hidden": 18,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_classes": 5,
    "num_tags": 7,
    "num_filters": 64,
    "max_characters": 8,
    "dropout_rate": 0.25,
}
GROUPED = {"num_heads": 4, "num_kv_heads": 2, "d_head": 6}  # where two heads of queries share one of keys
B, T = 3, 12  # of every batch, so that programs are shared

CHOICES = {  # of fields that are no Literal
    "activation": tuple(ACTIVATIONS),
    "pattern": ("LG", "GGL", "L"),
    "remat": ("none", "dots", "full", "save:up", "save:query,offload:attention"),
    "experts": (NoExperts(), Experts(5, 2, balance_loss=0.1), Experts(5, 3, False, 0.1), Experts(5, 2)),
    "rotary_scaling": (Unscaled(), Llama3(original_length=12), Linear(2.0), NTK(2.0, 8), YaRN(4.0, 8)),
}
NOT_MATHEMATICS = {"dtype", "remat"}  # choices that change how, not what; they have tests of their own


@dataclass(frozen=True)
class Case:
    """A tiny configuration under test."""

    name: str
    config: typing.Any

    @property
    def traits(self) -> frozenset:
        return self.model().traits

    def model(self, **changes) -> Model:
        return zoo.models.create(dataclasses.replace(self.config, **changes))

    def has(self, field: str) -> bool:
        return field in {f.name for f in dataclasses.fields(self.config)}


def tiny(kind):
    """The smallest published size of a configuration type, made tiny."""
    published = [config for config in zoo.models.SIZES.values() if type(config) is kind]
    smallest = min(published, key=lambda config: config.num_params, default=kind())
    return made_tiny(smallest)


def made_tiny(config):
    """`config` with the sizes of TINY, its encoder's too."""
    changes = dict(GROUPED) if hasattr(config, "num_kv_heads") else {}
    for field in dataclasses.fields(config):
        if field.name in changes or field.name in CHOICES:
            continue
        if dataclasses.is_dataclass(getattr(config, field.name)):
            changes[field.name] = made_tiny(getattr(config, field.name))
        elif field.name in TINY:
            changes[field.name] = TINY[field.name]
    return dataclasses.replace(config, **changes)


def turned(config):
    """`config` with every yes/no and every choice turned to another value."""
    changes = {}
    for field in dataclasses.fields(config):
        is_choice = isinstance(getattr(config, field.name), bool) or choices(config, field)
        if is_choice and field.name not in NOT_MATHEMATICS:
            changes[field.name] = alternatives(config, field)[0]
    return dataclasses.replace(config, **changes)


def choices(config, field) -> tuple:
    """The values that a field of names may take; none for a number."""
    annotation = typing.get_type_hints(type(config))[field.name]
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)
    return CHOICES.get(field.name, ())


def alternatives(config, field) -> list:
    """Other values of a field that are valid: every other choice, or another number."""
    value = getattr(config, field.name)
    if choices(config, field):
        return [x for x in choices(config, field) if x != value and is_valid(config, field.name, x)]
    if dataclasses.is_dataclass(value):
        return [dataclasses.replace(value, d_model=2 * value.d_model)]
    if isinstance(value, bool):
        return [not value]
    assert isinstance(value, int | float), f"say in families.CHOICES which values {field.name!r} may take"
    for other in map(type(value), (2 * value, value + 1, value / 2, value + 0.25)):
        if other != value and is_valid(config, field.name, other):
            return [other]
    raise AssertionError(f"no other value of {field.name} is valid")


def is_valid(config, name: str, value) -> bool:
    try:
        dataclasses.replace(config, **{name: value})
    except ConfigError:
        return False
    return True


def _cases():
    found = []
    for kind in zoo.models.MODELS:
        config = tiny(kind)
        found.append(Case(kind.__name__, config))
        if turned(config) != config:
            found.append(Case(f"{kind.__name__}-turned", turned(config)))
    return found


CASES = _cases()


def over(*traits: str, turned: bool = True, field: str = ""):
    """Parametrises a test over the cases with any of `traits` (default: all) whose configuration has `field`;
    without `turned`, one case a family. Models of pairs are among them only where that is asked for."""
    chosen = [
        case
        for case in CASES
        if (not traits or case.traits & set(traits) and ("pair" in traits or "pair" not in case.traits))
        and (turned or not case.name.endswith("-turned"))
        and (not field or case.has(field))
    ]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case.name)


# --- arrays ---------------------------------------------------------------------------------------


def parameters(model, *, seed=0, padding=0.0, dtype=np.float32):
    """Parameters far from their first values, so that no bias is zero and every softmax has an opinion.

    `padding` fills the rows that pad the vocabulary.
    """
    rng = np.random.default_rng(seed)

    def array(path, spec):
        stored = np.full(spec.shape, padding, dtype)
        centre = 1.0 if path[-1].key == "scale" else 0.0
        visible = tuple(slice(0, size) for size in spec.visible_shape)
        stored[visible] = centre + 0.3 * rng.standard_normal(spec.visible_shape)
        return stored

    return jax.tree_util.tree_map_with_path(array, model.abstract())


def tokens(model, rows=B, length=T, seed=1):
    return np.random.default_rng(seed).integers(0, model.config.vocab_size, (rows, length)).astype(np.int32)


def inputs_of(model, rows=B, length=T) -> dict:
    """Whatever the model cannot do without, by shape alone."""
    reads = getattr(model.module, "reads", ("tokens",))
    shapes = dict.fromkeys(reads, (rows, length))
    if "characters" in reads:
        config = getattr(model.config, "encoder", model.config)
        shapes["characters"] = (rows, length, config.max_characters)
    return {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()}


def assert_close(got, want, tolerance=2e-5):
    """Equal up to float32 rounding, relative to the largest number: one rounding is 6e-8, and a few hundred
    of them add up to about 1e-6 in these models; a wrong mask or a wrong order shows at 1e-2."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


# --- programs -------------------------------------------------------------------------------------


@functools.cache
def quick_options() -> dict:
    """XLA options that compile a tiny program in a sixth of the time; none where this jaxlib does not know
    them."""
    options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x, compiler_options=options)(0.0)
    except Exception:  # what jaxlib raises for an option it does not know differs between versions
        return {}
    return options


def jit(function, **arguments):
    """jax.jit for a program that runs once or twice."""
    return jax.jit(function, compiler_options=quick_options(), **arguments)


@functools.cache
def first_values(model):
    return jit(model.init)(jax.random.key(0))


@functools.partial(jit, static_argnums=0)
def logits(model, params, inputs):
    return model.apply(params, inputs)


@functools.partial(jit, static_argnums=0)
def features(model, params, inputs):
    return model.features(params, inputs)[0]


@functools.partial(jit, static_argnums=0)
def step(model, params, inputs, state):
    """(logits, state) of the next piece of a text."""
    x_BTD, state = model.features(params, inputs, state=state)
    return model.readout(params, x_BTD), state


@functools.partial(jit, static_argnums=0)
def train_logits(model, params, inputs, key):
    return model.apply(params, inputs, train=True, rngs={"dropout": key})


def train_loss(model, params, inputs, targets_BT, key):
    """Mean nats with dropout, by the road that the train step takes; without it if there is no key."""
    train = {} if key is None else {"train": True, "rngs": {"dropout": key}}
    x_BTD, _ = model.features(params, inputs, **train)
    nats, weight = cross_entropy(model.readout_stored(params, x_BTD), targets_BT, jnp.ones(targets_BT.shape))
    return nats / weight


def any_loss(model, params, inputs, key):
    """A number that every logit has a part in, and what the layers ask for, of any model."""
    (x, _), penalty, _ = model.watched(params, inputs, train=True, rngs={"dropout": key})
    return sum((jnp.sin(leaf).sum() for leaf in jax.tree.leaves(model.readout(params, x))), penalty)


@functools.partial(jit, static_argnums=0)
def loss_and_gradients(model, params, inputs, targets_BT, key=None):
    return jax.value_and_grad(train_loss, argnums=1)(model, params, inputs, targets_BT, key)
