"""Layers apart compute what stacked layers do, and a program of them copies none of their kernels."""

import dataclasses

import jax
import numpy as np
import pytest

import zoo
from zoo.inference.apart import apart
from zoo.inference.generate import complete
from zoo.mesh import MeshConfig, make_mesh
from zoo.models.classifier import ClassifierConfig
from zoo.models.gpt import GPTConfig
from zoo.models.rnn import RNNConfig

SMALL = {"vocab_size": 50, "max_length": 32, "num_layers": 3, "num_heads": 2, "d_model": 16}
CONFIGS = {
    "GPT": GPTConfig(**SMALL),
    "decoder": dataclasses.replace(
        zoo.create("llama2_7b").config, **SMALL, num_kv_heads=1, d_head=8, d_ff=24
    ),
    "NeoX": dataclasses.replace(zoo.create("pythia_70m").config, **SMALL, d_ff=24),
}
PROMPTS = [[1, 2, 3], [4]]


def made(config):
    model = zoo.create(config)
    return model, model.init(jax.random.key(0))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_layers_apart_write_the_same_text(config):
    model, params = made(config)
    want = complete(model, params, PROMPTS, max_new_tokens=12)
    got = complete(*apart(model, params), PROMPTS, max_new_tokens=12)
    assert [row.tokens for row in got] == [row.tokens for row in want]
    for row, other in zip(got, want, strict=True):  # another program rounds otherwise
        np.testing.assert_allclose(row.logprobs, other.logprobs, atol=1e-5)


def test_a_head_takes_its_encoder_apart():
    encoder = dataclasses.replace(zoo.create("bert_mini").config, vocab_size=50, num_layers=3, d_model=16)
    model, params = made(ClassifierConfig(encoder, num_classes=5))
    inputs = {"tokens": np.array([[1, 2, 3]]), "lengths": np.array([3])}
    want = model.apply(params, inputs)
    other, layers = apart(model, params)
    assert isinstance(layers["encoder"]["blocks"]["mlp"]["up"]["w"], tuple)
    np.testing.assert_allclose(jax.jit(other.apply)(layers, inputs), want, atol=1e-5)


def test_stacked_arrays_are_given_up_and_the_others_kept():
    model, params = made(CONFIGS["GPT"])
    _, layers = apart(model, params)
    assert params["blocks"]["mlp"]["up"]["w"].is_deleted()
    assert layers["tokens"]["table"] is params["tokens"]["table"]


def test_what_has_no_stack_or_lies_on_several_devices_stays_as_it_is():
    model, params = made(RNNConfig(vocab_size=50, num_layers=2, d_model=8, d_state=8))
    assert apart(model, params) == (model, params)
    model, params = made(CONFIGS["GPT"])
    mesh = make_mesh(MeshConfig(data=2), jax.devices()[:2])
    params = jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    assert apart(model, params)[1] is params


def test_a_step_copies_no_kernel():
    """Of 8 layers of 1 MB a kernel, the compiled step needs less room than one kernel; stacked, two."""
    config = GPTConfig(vocab_size=64, max_length=16, num_layers=8, num_heads=4, d_model=256)
    model, params = made(config)
    state, tokens_BT = model.initial_state(1, 16), np.ones((1, 1), np.int32)

    def room(model, params):
        step = jax.jit(lambda params, state: model.features(params, tokens_BT, state=state))
        return step.lower(params, state).compile().memory_analysis().temp_size_in_bytes

    kernel = 4 * 256 * 1024
    assert room(model, params) > kernel
    assert room(*apart(model, params)) < kernel
