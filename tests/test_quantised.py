"""Weights of whole numbers: what they stand for, in every family, and who may not have them."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import SEQUENCE, assert_close, features, inputs_of, jit, logits, over, parameters, tokens
from test_main import refused, result, trained
from training import eight_devices

import zoo
import zoo.pretrained
from zoo.data.examples.record import Record
from zoo.errors import ConfigError
from zoo.inference import evaluate, predict
from zoo.inference.apart import apart
from zoo.inference.generate import complete
from zoo.mesh import MeshConfig, make_mesh
from zoo.models import quantised as whole_numbers
from zoo.models.gpt import GPTConfig
from zoo.models.lora import LoRA, with_lora
from zoo.sharding import shardings
from zoo.tree import named_leaves, nested

# Of 64 inputs of a channel, two groups share a scale of 4 bits each; of its 256, eight.
GPT = GPTConfig(vocab_size=100, max_length=32, num_layers=2, num_heads=4, d_model=64, dropout_rate=0.0)
MODEL = zoo.create(GPT)
each_bits = pytest.mark.parametrize("bits", [8, 4])


def read(model, params):
    """The logits of random inputs, whatever the model reads."""
    shapes = inputs_of(model)
    random = np.random.default_rng(1)
    inputs = {name: random.integers(0, 100, shape.shape).astype(np.int32) for name, shape in shapes.items()}
    return jax.tree.leaves(logits(model, params, inputs))


def made(model, bits, params=None):
    """(model, parameters) of whole numbers."""
    return zoo.quantised(model, jax.tree.map(jnp.array, params or parameters(model)), bits)


def rounded(model, params, bits):
    """The float parameters with each weight at the whole number of scales that is nearest, in NumPy."""
    leaves = dict(named_leaves(params))
    for name, w in model.kernels().items():
        stacked = w.shape[: w.letters.startswith("N")]
        width = math.prod(w.shape[len(stacked) : len(stacked) + w.contracted])
        group = whole_numbers.GROUP if bits == 4 and width % whole_numbers.GROUP == 0 else width
        layers = leaves[f"{name}/w"].reshape(math.prod(stacked), width, -1).copy()
        for layer in layers:
            for start in range(0, width, group):
                layer[start : start + group] = nearest(layer[start : start + group].T, 2 ** (bits - 1) - 1).T
        leaves[f"{name}/w"] = layers.reshape(w.shape)
    for name, spec in named_leaves(model.abstract()).items():
        if name.endswith("/table") and spec.letters[0] == "V":
            leaves[name] = nearest(leaves[name], 127)
    return nested(leaves)


def nearest(rows, most):
    """Every row in steps of its largest number divided by `most`."""
    step = np.abs(rows).max(1, keepdims=True) / np.float32(most)
    return np.where(step > 0, np.round(rows / np.where(step > 0, step, 1)) * step, 0).astype(np.float32)


# --- what is computed -----------------------------------------------------------------------------


@over(turned=False)
def test_every_family_computes_what_its_rounded_weights_do(case):
    model, params = case.model(), parameters(case.model())
    plain = read(model, params)
    for bits in (8, 4):
        quantised_model, quantised = made(model, bits)
        got = read(quantised_model, quantised)
        for x, want, other in zip(got, read(model, rounded(model, params, bits)), plain, strict=True):
            assert_close(x, want)
            assert x.shape == other.shape
        assert any(not np.allclose(x, other, rtol=1e-4) for x, other in zip(got, plain, strict=True))


def test_groups_of_inputs_have_scales_of_their_own():
    params = parameters(MODEL)
    model, quantised = made(MODEL, 4)
    groups = {name: x.shape[1] for name, x in named_leaves(quantised).items() if name.endswith("w_scale")}
    assert groups["blocks/mlp/down/w_scale"] == 8
    assert groups["blocks/attention/query/w_scale"] == groups["blocks/attention/out/w_scale"] == 2
    x = tokens(MODEL)
    assert_close(logits(model, quantised, x), logits(MODEL, rounded(MODEL, params, 4), x))


@over(*SEQUENCE, turned=False, field="d_ff")
def test_bfloat16_activations_give_nearly_the_logits_of_float32(case):
    """As near as with float weights (test_contract.py has the arithmetic of the tolerance)."""
    model, params = made(case.model(), 8)
    low = dataclasses.replace(case.model(dtype="bfloat16"), bits=8)
    x = {"tokens": tokens(model)}
    assert jax.eval_shape(lambda params: low.features(params, x)[0], params).dtype == jnp.bfloat16
    assert_close(logits(low, params, x), logits(model, params, x), tolerance=0.05)


@pytest.mark.parametrize("rows", ["some", "all"])
def test_word_vectors_score_some_words_as_they_score_all(rows):
    plain = zoo.create(dataclasses.replace(zoo.create("word2vec_news").config, vocab_size=100, d_model=12))
    model, params = made(plain, 8)
    x, picked_BC = features(model, params, tokens(plain, 3, 1)[:, 0]), np.array([[1, 2], [3, 99], [0, 5]])
    every = np.asarray(model.readout(params, x))
    want = np.take_along_axis(every, picked_BC, 1)
    assert_close(
        model.readout(params, x, picked_BC) if rows == "some" else every[[[0], [1], [2]], picked_BC], want
    )


# --- weights --------------------------------------------------------------------------------------


@each_bits
def test_a_weight_is_off_by_half_a_step_at_most(bits):
    x = np.random.default_rng(0).standard_normal((3, 64, 5)).astype(np.float32)
    x *= 10.0 ** np.arange(-3, 2)  # each channel has its own scale
    x[1, :, 2] = 0
    q, scale = whole_numbers._whole_numbers(x, (3, 2, 5), 1 + 1, whole_numbers.INTEGERS[bits])
    most = 2 ** (bits - 1) - 1
    steps = np.asarray(q, np.float32).reshape(3, 2, 32, 5)
    off = np.abs(steps * np.asarray(scale)[:, :, None] - x.reshape(3, 2, 32, 5))
    assert (off <= np.asarray(scale)[:, :, None] / 2 * 1.0001).all()
    largest = np.abs(steps).max(2)
    assert (largest[1, :, 2] == 0).all() and (np.delete(largest.reshape(6, 5), 2, 1) == most).all()
    assert (np.asarray(scale)[1, :, 2] == 0).all()


@each_bits
def test_a_channel_of_zeros_is_zero_and_what_is_not_finite_shows(bits):
    zeros = jax.tree.map(np.zeros_like, parameters(MODEL))
    assert not np.asarray(logits(*made(MODEL, bits, zeros), tokens(MODEL))[..., :100]).any()
    broken = parameters(MODEL)
    broken["blocks"]["mlp"]["up"]["w"][0, 3, 7] = np.nan
    assert np.isnan(np.asarray(logits(*made(MODEL, bits, broken), tokens(MODEL)))).any()


@each_bits
def test_parameters_are_those_that_abstract_names_and_papers_count(bits):
    model, params = made(MODEL, bits)
    specs, leaves = named_leaves(model.abstract()), named_leaves(params)
    assert {name: (spec.shape, spec.dtype) for name, spec in specs.items()} == {
        name: (x.shape, x.dtype) for name, x in leaves.items()
    }
    assert leaves["blocks/mlp/up/w"].dtype == f"int{bits}" and leaves["tokens/table"].dtype == jnp.int8
    assert leaves["positions/table"].dtype == leaves["norm/scale"].dtype == jnp.float32
    assert not np.asarray(leaves["tokens/table"])[100:].any()  # rows that pad the vocabulary
    assert model.num_params() == MODEL.num_params()


# --- where they lie -------------------------------------------------------------------------------


@eight_devices
@each_bits
@pytest.mark.parametrize("sizes", [(1, 2, 4), (2, 2, 2)])
def test_a_mesh_changes_nothing(bits, sizes):
    model, one = made(MODEL, bits)
    mesh = make_mesh(MeshConfig(*sizes))
    spread = jax.device_put(parameters(MODEL), shardings(MODEL.abstract(), mesh))
    _, many = zoo.quantised(MODEL, spread, bits)
    placed = shardings(model.abstract(), mesh)
    assert jax.tree.map(lambda x: x.sharding, many) == placed
    for name in ("w", "w_scale"):
        up = many["blocks"]["mlp"]["up"][name]
        assert up.addressable_shards[0].data.shape[-1] * sizes[2] == up.shape[-1]
    for name, x in named_leaves(many).items():
        np.testing.assert_array_equal(x, named_leaves(one)[name], err_msg=name)
    with jax.set_mesh(mesh):
        got = jit(functools.partial(model.apply))(many, {"tokens": tokens(MODEL, 4)})
    assert_close(got, logits(model, one, {"tokens": tokens(MODEL, 4)}))


@each_bits
@pytest.mark.parametrize("cache_dtype", [None, "int8"])
def test_greedy_texts_are_those_of_the_rounded_weights(bits, cache_dtype):
    settings = {"max_new_tokens": 10, "cache_dtype": cache_dtype}
    prompts = [[1, 2, 3], [4]]
    got = complete(*apart(*made(MODEL, bits)), prompts, **settings)
    want = complete(MODEL, rounded(MODEL, parameters(MODEL), bits), prompts, **settings)
    assert [row.tokens for row in got] == [row.tokens for row in want]
    for row, other in zip(got, want, strict=True):
        np.testing.assert_allclose(row.logprobs, other.logprobs, atol=1e-4 if cache_dtype is None else 0.05)


def test_a_step_makes_floats_of_one_layer_at_a_time():
    """Of 8 layers with 3 MB of kernels as floats, the compiled step has room for one, and not for two."""
    plain = zoo.create(GPTConfig(vocab_size=64, max_length=16, num_layers=8, num_heads=4, d_model=256))
    model, params = apart(*made(plain, 8))
    state, tokens_BT = model.initial_state(1, 16), np.ones((1, 1), np.int32)
    read = jax.jit(lambda params, state: model.features(params, tokens_BT, state=state))
    room = read.lower(params, state).compile().memory_analysis().temp_size_in_bytes
    assert room < 2 * 12 * 256 * 256 * 4


def test_float_arrays_are_given_up_and_the_others_kept():
    params = jax.tree.map(jnp.array, parameters(MODEL))
    _, quantised = zoo.quantised(MODEL, params)
    assert params["blocks"]["mlp"]["up"]["w"].is_deleted() and params["tokens"]["table"].is_deleted()
    assert quantised["blocks"]["mlp"]["up"]["b"] is params["blocks"]["mlp"]["up"]["b"]


# --- who may not ----------------------------------------------------------------------------------


def test_what_cannot_be_is_refused_in_one_line(tmp_path):
    params = parameters(MODEL)
    model, quantised = made(MODEL, 8)
    own = jax.tree.map(jnp.array, params)
    adapted = with_lora(MODEL, LoRA(rank=2))
    for said, call in {
        "bits=3 is none of 8, 4": lambda: zoo.quantised(MODEL, params, 3),
        "merge them first": lambda: zoo.quantised(adapted, params),
        "adapters stand beside float32": lambda: with_lora(model, LoRA(rank=2)),
        "weights of 8 bits already": lambda: zoo.quantised(model, quantised, 4),
        "before layers are taken apart": lambda: zoo.quantised(*apart(MODEL, own)),
        "cannot be trained": lambda: model.apply(quantised, tokens(MODEL), train=True),
        "cannot be drawn at random": lambda: model.init(jax.random.key(0)),
        "cannot be written": lambda: zoo.save_pretrained(tmp_path / "out", model, quantised),
        "weights='int7' is none of int8, int4": lambda: zoo.from_pretrained("nowhere", weights="int7"),
    }.items():
        with pytest.raises(ConfigError) as caught:
            call()
        assert said in str(caught.value) and "\n" not in str(caught.value)
    assert with_lora(model, LoRA()) == model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a tiny finished run."""
    return trained(tmp_path_factory.mktemp("quantised"))


def test_a_run_of_fewer_bits_scores_nearly_the_same_and_writes(run, tmp_path, capsys):
    lines = tmp_path / "lines.txt"
    lines.write_text("line 3\nline 4\n")
    score = lambda *weights: result(capsys, "score", run, lines, *weights)[1]["perplexity"]  # noqa: E731
    full, eight = score(), score("--weights", "int8")
    assert 0 < abs(eight / full - 1) < 0.01
    greedy = ("generate", run, "line 3", "--tokens", "4", "--temperature", "0", "--weights", "int4")
    assert result(capsys, *greedy)[1]["new_tokens"] == 4


def test_every_verb_hands_the_weights_on(run, tmp_path, capsys, monkeypatch):
    def reached(weights):
        raise ConfigError(f"reached with {weights}")

    for module in (zoo.pretrained, evaluate):
        monkeypatch.setattr(module, "bits_of", reached)
    file, template = tmp_path / "a.txt", tmp_path / "template.jinja"
    file.write_text("line 3\n")
    template.write_text("{{ messages[0].content }}")
    for verb, *rest in (
        *(("generate", "a"), ("score", file), ("fill", "a"), ("embed", file)),
        *(("chat", "--template", template), ("eval", file), ("eval",)),
    ):
        assert "reached with int4" in refused(capsys, 2, verb, run, *rest, "--weights", "int4"), verb
    with monkeypatch.context() as patched:  # a tiny run is no classifier
        patched.setattr(predict, "kind_of", lambda folder: "classify")
        with pytest.raises(ConfigError, match="reached with int8"):
            predict.predict_records(run, [Record({"text": "a"}, "here")], weights="int8")
    assert "invalid choice: 'int7'" in refused(capsys, 2, "score", run, file, "--weights", "int7")
