"""Heads over encoders: what they compute, against NumPy, and what every model promises."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoders import LSTM, TRANSFORMER, WORDS, WordsConfig, model_of
from families import assert_close, jit, parameters

from zoo import sharding
from zoo.config import from_json, to_json
from zoo.crf import Chain, PerToken
from zoo.errors import ConfigError
from zoo.mesh import MeshConfig, make_mesh
from zoo.models.classifier import ClassifierConfig
from zoo.models.joint import JointConfig
from zoo.models.pooling import POOLINGS
from zoo.models.rnn import RNNConfig
from zoo.models.tagger import TaggerConfig

B, T = 4, 5
LENGTHS = np.asarray([5, 1, 3, 2], np.int32)
THERE = np.arange(T) < LENGTHS[:, None]

HEADS = {
    **{
        f"classifier-{pooling}": ClassifierConfig(
            num_classes=3, pooling=pooling, d_attention=4, d_hidden=7, encoder=WORDS
        )
        for pooling in POOLINGS
    },
    "classifier-flat": ClassifierConfig(num_classes=3, pooling="mean", d_hidden=0, encoder=WORDS),
    "tagger-softmax": TaggerConfig(num_tags=3, decoder="softmax", dropout_rate=0.5, encoder=WORDS),
    "tagger-crf": TaggerConfig(num_tags=3, decoder="crf", dropout_rate=0.5, encoder=WORDS),
    "joint-softmax": JointConfig(num_classes=4, num_tags=3, dropout_rate=0.5, encoder=WORDS),
    "joint-crf": JointConfig(num_classes=4, num_tags=3, decoder="crf", dropout_rate=0.5, encoder=WORDS),
}
each_head = pytest.mark.parametrize("config", HEADS.values(), ids=HEADS)
one_of_each = pytest.mark.parametrize(
    "config", [HEADS[name] for name in ("classifier-attention", "tagger-crf", "joint-crf")], ids=type
)
each_encoder = pytest.mark.parametrize(
    "encoder", [encoder for encoder in (WORDS, LSTM, TRANSFORMER) if hasattr(encoder, "d_features")], ids=type
)


def tokens(seed=1):
    return np.random.default_rng(seed).integers(0, 11, (B, T)).astype(np.int32)


def features_and_readout(model, params, inputs, key=None):
    """(features, what is read out of them)."""
    train = {} if key is None else {"train": True, "rngs": {"dropout": key}}
    x, _ = model.features(params, inputs, **train)
    return x, model.readout(params, x)


read = jit(features_and_readout, static_argnums=0)


def inputs(seed=1, lengths=LENGTHS):
    return {"tokens": tokens(seed), "lengths": lengths}


def inner(config, **changes):
    return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, **changes))


def at(tree, rows, length):
    """The given rows of features or of what was read from them, cut to `length` positions; parameters as
    they are."""

    def cut(path, x):
        if jax.tree_util.keystr(path[-1:]) in (".transitions_CC", ".start_C", ".stop_C"):
            return x
        return x[rows][..., :length, :] if x.ndim == 3 else x[rows]

    return jax.tree_util.tree_map_with_path(cut, tree)


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# --- pooling --------------------------------------------------------------------------------------


def pooled(pooling, lengths=LENGTHS, **encoder):
    """(features of the encoder, pooled features, parameters) of a classifier without a hidden layer."""
    cfg = ClassifierConfig(
        pooling=pooling, d_attention=4, d_hidden=0, encoder=dataclasses.replace(WORDS, **encoder)
    )
    params = parameters(model_of(cfg))
    x_BTD = params["encoder"]["table"]["table"][tokens()]
    return x_BTD, read(model_of(cfg), params, inputs(lengths=lengths))[0], params


@pytest.mark.parametrize(
    "pooling, function",
    {
        "first": lambda x: x[0],
        "last": lambda x: x[-1],
        "mean": lambda x: x.mean(0),
        "max": lambda x: x.max(0),
    }.items(),
    ids=["first", "last", "mean", "max"],
)
def test_pooling_is_over_the_words_that_are_there(pooling, function):
    x_BTD, got, _ = pooled(pooling)
    assert_close(got, np.stack([function(row[:n]) for row, n in zip(x_BTD, LENGTHS, strict=True)]))


def test_attention_pools_by_the_keys_alone():
    x_BTD, got, params = pooled("attention")
    keys, v = params["attention"]["keys"]["w"], params["attention"]["v"]
    for row, n, vector in zip(x_BTD, LENGTHS, got, strict=True):
        weights = np.exp(np.tanh(row[:n] @ keys) @ v)
        assert_close(vector, (weights / weights.sum()) @ row[:n])


def test_the_last_of_two_directions_is_where_each_of_them_ends():
    x_BTD, got, _ = pooled("last", num_directions=2)
    for row, n, vector in zip(x_BTD, LENGTHS, got, strict=True):
        np.testing.assert_array_equal(vector, np.concatenate([row[n - 1, :3], row[0, 3:]]))


def test_the_last_state_of_a_bidirectional_encoder_has_read_the_whole_row():
    cfg = ClassifierConfig(pooling="last", d_hidden=0, encoder=LSTM)
    params, changed = parameters(model_of(cfg)), inputs()
    before = read(model_of(cfg), params, inputs())[0]
    for t in range(T):
        changed = inputs()
        changed["tokens"][:, t] = (changed["tokens"][:, t] + 1) % 11
        after = read(model_of(cfg), params, changed)[0]
        np.testing.assert_array_equal(np.all(before != after, axis=-1), t < LENGTHS)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_row_without_words_is_pooled_to_zero(pooling):
    _, got, params = pooled(pooling, lengths=np.asarray([0, 5, 0, 1]))
    np.testing.assert_array_equal(got[::2], 0)
    assert np.all(got[1::2] != 0)
    cfg = ClassifierConfig(pooling=pooling, d_attention=4, d_hidden=0, encoder=WORDS)

    def total(params):
        return features_and_readout(model_of(cfg), params, inputs(lengths=np.zeros(B, np.int32)))[1].sum()

    gradient = jit(jax.grad(total))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_the_hidden_layer_is_the_activation_of_a_linear_layer(activation):
    cfg = dataclasses.replace(HEADS["classifier-mean"], hidden_activation=activation)
    params = parameters(model_of(cfg))
    x_BTD = params["encoder"]["table"]["table"][tokens()]
    mean = np.stack([row[:n].mean(0) for row, n in zip(x_BTD, LENGTHS, strict=True)])
    linear = np.asarray(mean @ params["hidden"]["w"] + params["hidden"]["b"])
    below = np.vectorize(lambda x: (1 + math.erf(x / math.sqrt(2))) / 2)(linear)  # the share of a normal
    hidden = {"tanh": np.tanh(linear), "relu": np.maximum(linear, 0), "gelu": linear * below}[activation]
    x, logits = read(model_of(cfg), params, inputs())
    assert_close(x, hidden)
    assert_close(logits, hidden @ params["classes"]["w"] + params["classes"]["b"])


# --- tags, and both -------------------------------------------------------------------------------


def test_a_taggers_emissions_are_a_linear_layer_of_the_features():
    for decoder, kind in (("softmax", PerToken), ("crf", Chain)):
        model = model_of(HEADS[f"tagger-{decoder}"])
        params = parameters(model)
        x_BTD, tags = read(model, params, inputs())
        assert isinstance(tags, kind)
        emissions = params["tags"]["emissions"]
        assert_close(x_BTD, params["encoder"]["table"]["table"][tokens()])
        assert_close(tags.emissions_BTC, x_BTD @ emissions["w"] + emissions["b"])
    np.testing.assert_array_equal(tags.transitions_CC, params["tags"]["transitions"])
    np.testing.assert_array_equal(tags.start_C, params["tags"]["start"])
    np.testing.assert_array_equal(tags.stop_C, params["tags"]["stop"])


def test_a_crf_begins_as_a_softmax():
    params = jit(model_of(HEADS["tagger-crf"]).init)(jax.random.key(0))["tags"]
    assert not any(np.any(params[name]) for name in ("transitions", "start", "stop"))
    assert np.any(params["emissions"]["w"])


@pytest.mark.parametrize("head", ["tagger-crf", "tagger-softmax", "joint-crf"])
def test_a_word_is_tagged_by_the_features_of_its_first_piece(head):
    model = model_of(HEADS[head])
    params = parameters(model)
    starts = np.array([[0, 2, 3], [0, 0, 0], [1, 2, 0], [1, 0, 0]], np.int32)
    words = {"word_starts": starts, "word_counts": np.array([3, 1, 2, 1], np.int32)}
    whole, _ = read(model, params, inputs())
    some, said = read(model, params, inputs() | words)
    whole, some = (x["slots"] if isinstance(x, dict) else x for x in (whole, some))
    said = said["slots"] if isinstance(said, dict) else said
    for row in range(B):
        np.testing.assert_allclose(some[row], whole[row][starts[row]], atol=1e-6)
    assert said.emissions_BTC.shape[1] == 3


def test_joint_attention_equals_a_loop_over_words():
    cfg = HEADS["joint-softmax"]
    params = parameters(model_of(cfg))
    x, out = read(model_of(cfg), params, inputs())

    def attended(weights, words, query):
        hidden = words @ weights["keys"]["w"] + query @ weights["query"]["w"] + weights["query"]["b"]
        scores = np.exp(np.tanh(hidden) @ weights["v"])
        return (scores / scores.sum()) @ words

    for b, n in enumerate(LENGTHS):
        words = params["encoder"]["table"]["table"][tokens()[b, :n]]
        end = words[-1]
        intent = np.concatenate([attended(params["intent_attention"], words, end), end])
        assert_close(x["intent"][b], intent)
        assert_close(out["intent"][b], intent @ params["intent"]["w"] + params["intent"]["b"])
        for t in range(n):
            slot = np.concatenate([attended(params["slot_attention"], words, words[t]), words[t]])
            assert_close(x["slots"][b, t], slot)


# --- what every model promises --------------------------------------------------------------------


@each_encoder
@one_of_each
def test_the_closed_form_counts_the_encoder_too(config, encoder):
    config = dataclasses.replace(config, encoder=encoder)
    assert config.num_params == model_of(config).num_params()


@each_head
def test_the_closed_form_counts_the_parameters_that_init_makes(config):
    assert config.num_params == model_of(config).num_params()


@each_head
def test_work_is_six_operations_a_parameter_of_the_head_and_the_encoders_own(config):
    flops = config.flops_per_token(T)
    assert flops.full == flops.causal == 6 * (config.num_params - WORDS.num_params)  # a lookup is no work


@one_of_each
def test_two_models_of_one_configuration_are_equal(config):
    assert model_of(config) == model_of(config) and hash(model_of(config)) == hash(model_of(config))


@each_head
def test_gradient_reaches_every_parameter(config):
    model = model_of(config)
    row = {"tokens": np.arange(11, dtype=np.int32)[None], "lengths": np.asarray([11])}

    def loss(params):
        out = features_and_readout(model, params, row)[1]
        out = out if isinstance(out, dict) else {"intent": out} if hasattr(out, "shape") else {"slots": out}
        total = out["slots"].nats(np.arange(11)[None] % 3, row["lengths"]).sum() if "slots" in out else 0.0
        return total + (jnp.sin(out["intent"]).sum() if "intent" in out else 0.0)

    gradient = jit(jax.grad(loss))(parameters(model))
    specs = model.abstract()
    for (path, leaf), spec in zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(specs), strict=True
    ):
        assert np.isfinite(leaf).all() and np.any(spec.visible(leaf)), jax.tree_util.keystr(path)


@each_head
def test_what_stands_behind_a_rows_length_changes_nothing(config):
    model = model_of(config)
    params = parameters(model)
    other = {"tokens": np.where(THERE, tokens(), tokens(seed=2)), "lengths": LENGTHS}
    before, after = read(model, params, inputs()), read(model, params, other)
    for b, n in enumerate(LENGTHS.tolist()):
        jax.tree.map(np.testing.assert_array_equal, at(before, b, n), at(after, b, n))


@each_encoder
@one_of_each
def test_a_row_in_a_batch_is_read_as_it_is_alone(config, encoder):
    model = model_of(dataclasses.replace(config, encoder=encoder))
    params = parameters(model)
    alone = read(model, params, {"tokens": tokens()[2:3, :3]})
    jax.tree.map(assert_close, at(read(model, params, inputs()), slice(2, 3), 3), alone)


@each_head
def test_rows_of_a_batch_do_not_see_each_other(config):
    model = model_of(config)
    params, changed = parameters(model), inputs()
    changed["tokens"][2] = tokens(seed=3)[2]
    before, after = read(model, params, inputs()), read(model, params, changed)
    rows = np.asarray([0, 1, 3])
    jax.tree.map(np.testing.assert_array_equal, at(before, rows, T), at(after, rows, T))
    assert all(
        np.any(x[2] != y[2]) for x, y in zip(*map(jax.tree.leaves, (before[0], after[0])), strict=True)
    )


@one_of_each
def test_rows_without_lengths_are_whole(config):
    model = model_of(config)
    params, whole = parameters(model), inputs(lengths=np.full(B, T))
    jax.tree.map(
        np.testing.assert_array_equal,
        read(model, params, whole),
        read(model, params, {"tokens": tokens()}),
    )


@one_of_each
def test_dropout_is_a_function_of_its_key(config):
    model = model_of(config)
    params = parameters(model)
    still, first, again, other = (
        jax.tree.leaves(read(model, params, inputs(), key)[0])
        for key in (None, jax.random.key(0), jax.random.key(0), jax.random.key(1))
    )
    for x, y, same, different in zip(still, first, again, other, strict=True):
        np.testing.assert_array_equal(y, same)
        assert np.any(y != different) and np.any(x != y)


def test_dropout_comes_before_and_after_the_hidden_layer():
    # Of 400 hidden units at rate 0.5 about 200 are dropped; a unit whose inputs were all dropped would
    # be tanh(bias) = 0 too, so the draws before are seen in the values that remain.
    cfg = dataclasses.replace(HEADS["classifier-mean"], d_hidden=400)
    model = model_of(cfg)
    params = parameters(model)
    out = np.asarray(read(model, params, inputs(), jax.random.key(0))[0])
    still = np.asarray(read(model, params, inputs())[0])
    assert abs(np.mean(out == 0) - 0.5) < 4 * 0.5 / np.sqrt(out.size)
    kept = out != 0
    assert not np.allclose(out[kept], 2 * still[kept])


@one_of_each
def test_bfloat16_features_are_read_out_in_float32(config):
    model = model_of(inner(config, dtype="bfloat16"))
    params = parameters(model)
    x, out = read(model, params, inputs())
    assert {leaf.dtype for leaf in jax.tree.leaves(x)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype("float32")}
    # bfloat16 rounds at 2^-9; a handful of roundings in a row.
    close = functools.partial(assert_close, tolerance=0.05)
    jax.tree.map(close, out, read(model_of(config), params, inputs())[1])


@one_of_each
def test_float64_activations_compute_in_float64_throughout(config):
    with jax.enable_x64(True):
        model = model_of(inner(config, dtype="float64"))
        params = parameters(model, dtype=np.float64)

        def total(params):
            out = features_and_readout(model, params, inputs(), key)[1]
            return sum(leaf.sum() for leaf in jax.tree.leaves(out))

        key = jax.random.key(0)
        program = str(jax.make_jaxpr(jax.grad(total))(params))
    assert "f64[" in program and "f32[" not in program and "bf16[" not in program


@pytest.mark.skipif(jax.device_count() != 8, reason="needs 8 devices: JAX_NUM_CPU_DEVICES=8")
@one_of_each
def test_a_mesh_changes_nothing(config):
    sizes = {"encoder": dataclasses.replace(LSTM, vocab_size=11)}
    sizes |= {"d_hidden": 8} if isinstance(config, ClassifierConfig) else {}
    model = model_of(dataclasses.replace(config, **sizes))
    params = parameters(model)
    alone = read(model, params, inputs())
    mesh = make_mesh(MeshConfig(2, 2, 2))
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, sharding.shardings(model.abstract(), mesh))
        rows = jax.device_put(inputs(), sharding.rows_sharding(mesh))
        jax.tree.map(assert_close, jit(features_and_readout, static_argnums=0)(model, placed, rows), alone)


# --- configurations -------------------------------------------------------------------------------


@each_head
def test_a_configuration_survives_json(config):
    classes = (RNNConfig, WordsConfig)
    assert from_json(to_json(config), type(config), classes) == config
    other = dataclasses.replace(config, encoder=LSTM)
    assert from_json(to_json(other), type(config), classes) == other


@pytest.mark.parametrize("kind", [ClassifierConfig, TaggerConfig, JointConfig])
def test_a_bad_field_is_one_line_with_its_value(kind):
    bad = {"dropout_rate": 1.0, "num_classes": -1, "num_tags": -1, "d_hidden": -1, "d_attention": 0}
    bad |= {"pooling": "men", "decoder": "crff"}
    for name in {field.name for field in dataclasses.fields(kind)} & set(bad):
        with pytest.raises(ConfigError, match=f"^{name}={bad[name]!r}[^\n]+$"):
            kind(**{name: bad[name]})


def test_a_mistyped_pooling_is_answered_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        ClassifierConfig(pooling="men")


def test_an_encoder_without_features_is_refused_by_name():
    @dataclasses.dataclass(frozen=True)
    class NoEncoder:
        vocab_size: int = 3

    with pytest.raises(ConfigError, match="^encoder=NoEncoder is no encoder[^\n]*$"):
        TaggerConfig(encoder=NoEncoder())


@one_of_each
def test_packed_rows_and_pieces_of_a_text_are_refused(config):
    model = model_of(config)
    params = parameters(model)
    with pytest.raises(ValueError, match="^a head reads one text a row; give 'lengths'"):
        model.features(params, {"tokens": tokens(), "segments": np.ones((B, T), np.int32)})
    with pytest.raises(ValueError, match="^a head reads whole rows"):
        model.features(params, tokens(), state={})
