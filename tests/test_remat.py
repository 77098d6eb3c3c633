"""What a block keeps for its backward pass: the tensors that are named, on the device or beside it."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import pytest
from families import CASES, B, T

import zoo.models
from zoo.errors import ConfigError
from zoo.models.bert import BERTConfig
from zoo.models.gpt import GPTConfig
from zoo.models.remat import GATED, OF_ATTENTION, TENSORS, kept_tensors
from zoo.plan.matmuls import matmul_flops
from zoo.plan.program import read_program

STACKED = [  # the turned decoder has norms on other places
    case
    for case in CASES
    if case.has("remat") and (case.name == "DecoderConfig-turned" or not case.name.endswith("turned"))
]
stacked = pytest.mark.parametrize("case", STACKED, ids=lambda case: case.name)


def left_for_backwards(case, remat: str) -> collections.Counter:
    """How many arrays [N, B, T, ...] of each shape the blocks leave for their backward pass, and where."""
    model = case.model(remat=remat, dropout_rate=0.0)
    params = jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), model.abstract())

    def residuals(params):
        tokens_BT = jnp.zeros((B, T), jnp.int32)
        return jax.vjp(lambda params: model.features(params, tokens_BT)[0].sum(), params)[1]

    found = jax.make_jaxpr(residuals)(params).out_avals
    return collections.Counter(
        (x.shape[3:], "host" if x.memory_space == jax.memory.Space.Host else "device")
        for x in found
        if x.shape[:3] == (case.config.num_layers, B, T)
    )


def shape_of(case, tensor: str) -> tuple[int, ...]:
    """Of a named tensor, without [B, T]."""
    dims = case.config.dims
    keys = dims.get("J", dims["H"]), dims["K"]
    shapes = {"query": (dims["H"], dims["K"]), "key": keys, "value": keys}
    shapes |= {"attention": shapes["query"], "out": (dims["D"],), "down": (dims["D"],)}
    return shapes.get(tensor, (dims["F"],))


def read_backwards(case, tensor: str) -> bool:
    """Whether a block's gradient depends on it: on what is added to the stream, only through a later norm."""
    if type(case.config).__name__ == "NeoXConfig":
        return tensor not in ("out", "down")
    if type(case.config).__name__ in ("GPTConfig", "DecoderConfig"):
        return tensor != "down" or getattr(case.config, "norms", "before") != "before"
    return True


@stacked
def test_what_is_kept_of_a_block_is_what_is_named(case):
    """Beside the stream that it reads, which is all that full recomputation keeps."""
    full = left_for_backwards(case, "full")
    stream = (case.config.d_model,), "device"
    assert set(full) == {stream} and full[stream] <= 2  # ModernBERT's blocks hand on two streams
    tensors = GATED if type(case.config).__name__ in ("DecoderConfig", "ModernBERTConfig") else TENSORS
    if has_experts := bool(getattr(getattr(case.config, "experts", None), "num_experts", 0)):
        tensors = OF_ATTENTION
    read = [tensor for tensor in tensors if read_backwards(case, tensor)]
    for how, place in (("save", "device"), ("offload", "host")):
        kept = left_for_backwards(case, f"{how}:{','.join(tensors)}") - full
        assert kept == collections.Counter((shape_of(case, tensor), place) for tensor in read)
    one = "query" if has_experts else "up"
    some = left_for_backwards(case, f"save:{one},key,offload:attention") - full
    want = [(one, "device"), ("key", "device"), ("attention", "host")]
    assert some == collections.Counter((shape_of(case, tensor), place) for tensor, place in want)


def test_a_group_of_names_lasts_until_the_next_begins():
    assert kept_tensors("save:up,out,offload:key") == {"save": ("up", "out"), "offload": ("key",)}
    assert kept_tensors("full") == {"save": (), "offload": ()}


@pytest.mark.parametrize(
    "remat, words",
    [
        ("ful", ["remat='ful'", "did you mean 'full'"]),
        ("up,down", ["remat='up,down'", "save:NAME"]),
        ("sav:up", ["remat='sav:up'", "did you mean 'save'"]),
        ("save:atention", ["'atention'", "query, key", "did you mean 'attention'"]),
        ("save:up,offload:gate", ["'gate' is none of this block's tensors"]),
        ("save:up,offload:up", ["names 'up' twice"]),
        ("save:", ["'' is none"]),
    ],
)
def test_a_name_that_no_block_has_is_one_line_with_the_nearest(remat, words):
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(GPTConfig(), remat=remat)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize("kind", [GPTConfig, BERTConfig], ids=lambda kind: kind.__name__)
def test_full_recomputation_repeats_each_matmul_of_a_block_but_what_nobody_reads(kind):
    """In a GPT the last one, whose result is only added to the stream; in a BERT a norm reads the sum."""
    D, T, N = 32, 16, 3
    config = kind(vocab_size=128, max_length=T, num_layers=N, num_heads=4, d_model=D, dropout_rate=0.0)
    layer = 2 * 12 * D * D + 4 * T * D  # FLOPs of a token, forward
    again = layer if kind is BERTConfig else layer - 2 * 4 * D * D
    plain, full = (matmuls_of_gradient(dataclasses.replace(config, remat=how)) for how in ("none", "full"))
    assert full / plain == pytest.approx(1 + again / (3 * layer), rel=1e-6)


def matmuls_of_gradient(config) -> float:
    """FLOPs of the compiled gradient of something that depends on all features."""
    model = zoo.models.create(config)
    params = jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), model.abstract())
    tokens_BT = jnp.zeros((B, config.max_length), jnp.int32)
    gradient = jax.grad(lambda params: model.features(params, tokens_BT)[0].var())
    return matmul_flops(read_program(jax.jit(gradient).lower(params).compile().as_text()))
