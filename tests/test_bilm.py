"""The biLM against its paper: counts, its layers by hand, which side each direction sees, and its task."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from families import assert_close, jit, parameters

from zoo.data import characters
from zoo.errors import ConfigError
from zoo.models.bilm import SIZES, BiLM, BiLMConfig, layers
from zoo.models.classifier import Classifier, ClassifierConfig
from zoo.models.pure import Model
from zoo.models.scalar_mix import ELMo, ELMoConfig, mixed
from zoo.tasks.bilm import BidirectionalLM

TABLE = BiLMConfig(vocab_size=50, words="table", num_layers=2, d_model=6, d_state=10, dropout_rate=0.0)
CHARACTERS = dataclasses.replace(
    TABLE, words="characters", num_filters=64, num_highway=2, d_character=4, max_characters=9
)
CONFIGS = {"table": TABLE, "characters": CHARACTERS}
each_kind = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
B, T, D = 3, 8, 6

WORDS = [f"{'abcdefghij'[i % 10]}{i}" * (1 + i % 3) for i in range(50)]  # some are cut off


def model_of(config) -> Model:
    if isinstance(config, ELMoConfig):
        return Model(config, ELMo(config, BiLM(config.encoder)))
    return Model(config, BiLM(config))


def drawn(config, seed=1):
    """(model, parameters far from their first values, inputs)."""
    model = model_of(config)
    return model, parameters(model), spelled(np.random.default_rng(seed).integers(50, size=(B, T)))


def spelled(tokens_BT) -> dict:
    """The inputs of some words; a model that reads tokens does not look at their characters."""
    return {"tokens": tokens_BT, "characters": characters.spelled(WORDS, max_characters=9)[tokens_BT]}


@functools.partial(jit, static_argnums=0)
def read(model, params, inputs):
    """(all layers, logits)."""
    return layers(model, params, inputs), model.apply(params, inputs)


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, released",
    [
        ("elmo_small", 13_593_296),
        ("elmo_medium", 28_027_728),
        ("elmo", 93_600_848),
    ],  # 13.6, 28.0, 93.6 million
)
def test_elmo_has_the_parameters_that_were_released(size, released):
    config = SIZES[size]
    no_word = config.d_character  # released files leave out the vector of a position without a word
    assert config.num_feature_params == released + no_word
    softmax = 793_471 * (config.d_model + 1)
    assert model_of(config).num_params() == config.num_params == released + no_word + softmax


@each_kind
def test_the_closed_form_counts_the_parameters(config):
    assert model_of(config).num_params() == config.num_params
    mixing = ELMoConfig(config)
    assert model_of(mixing).num_params() == mixing.num_params


def test_flops_per_token_equal_the_sum_by_hand():
    filters = {1: 32, 2: 32, 3: 64, 4: 128, 5: 256, 6: 512, 7: 1024}
    convolutions = sum((51 - width) * width * 16 * count for width, count in filters.items())
    words = convolutions + 2 * 2 * 2048 * 2048 + 2048 * 512
    lstm = (512 + 512) * 4 * 4096 + 4096 * 512
    assert SIZES["elmo"].flops_per_token(20).full == 6 * (words + 4 * lstm + 2 * 793_471 * 512)


# --- the layers, by hand --------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def vectors_by_hand(params, inputs, config):
    """x_0 of every word, a convolution as a loop over places."""
    if config.words == "table":
        return params["tokens"]["table"][inputs["tokens"]]
    p = params["characters"]
    x = p["characters"][inputs["characters"]]
    found = []
    for width in range(1, 8):
        places = [x[:, :, k : k + width].reshape(B, T, -1) @ p[f"w{width}"] for k in range(9 - width + 1)]
        found.append(np.max(places, axis=0) + p[f"b{width}"])
    x = np.maximum(np.concatenate(found, axis=-1), 0)
    for n in range(config.num_highway):
        gate = sigmoid(x @ p[f"highway{n}_gate_w"] + p[f"highway{n}_gate_b"])
        x = gate * np.maximum(x @ p[f"highway{n}_w"] + p[f"highway{n}_b"], 0) + (1 - gate) * x
    return x @ p["projection"]["w"] + p["projection"]["b"]


def direction_by_hand(params, x, clip, step):
    """One LSTM over a row of vectors [T, D], from the first or the last."""
    h, c, outputs = np.zeros(D), np.zeros(10), [None] * len(x)
    for t in range(len(x))[::step]:
        read, recalled = (
            np.einsum("d,dgz->gz", *pair) for pair in ((x[t], params["w_in"]), (h, params["w"]))
        )
        i, f, g, o = read + recalled + params["b"]
        c = np.clip(sigmoid(f) * c + sigmoid(i) * np.tanh(g), -clip, clip)
        h = np.clip((sigmoid(o) * np.tanh(c)) @ params["projection"], -clip, clip)
        outputs[t] = h
    return np.stack(outputs)


@each_kind
@pytest.mark.parametrize("clip", [3.0, 0.2])
def test_layers_equal_those_computed_by_hand(config, clip):
    config = dataclasses.replace(config, clip=clip, num_layers=3)
    _, params, inputs = drawn(config)
    model = model_of(dataclasses.replace(config, dtype="float64"))
    params = jax.tree.map(lambda leaf: 2 * np.asarray(leaf, np.float64), params)
    with jax.enable_x64(True):
        found, logits = jax.device_get(read(model, params, inputs))
    x_0 = vectors_by_hand(params, inputs, config)
    expected = [np.concatenate([x_0, x_0], axis=-1)]
    halves = [x_0, x_0]
    for n in range(3):
        for side, (name, step) in enumerate((("forward_layers", 1), ("backward_layers", -1))):
            y = np.stack([direction_by_hand(params[f"{name}_{n}"], row, clip, step) for row in halves[side]])
            halves[side] = y + halves[side] if n else y
        expected.append(np.concatenate(halves, axis=-1))
    for one, by_hand in zip(found, expected, strict=True):
        assert_close(one, by_hand, tolerance=1e-12)
    for side in (0, 1):
        by_hand = halves[side] @ params["words"]["table"][:50].T + params["bias"][:50]
        assert_close(logits[:, :, side], by_hand, tolerance=1e-12)


def test_without_clipping_nothing_is_clipped():
    free, high = (model_of(dataclasses.replace(TABLE, clip=clip)) for clip in (0.0, 1e6))
    _, params, inputs = drawn(TABLE)
    assert_close(read(free, params, inputs)[1], read(high, params, inputs)[1])


# --- who sees whom --------------------------------------------------------------------------------


@each_kind
def test_no_direction_sees_the_word_it_predicts_nor_what_lies_beyond(config):
    model, params, inputs = drawn(config)
    before_layers, before = (jax.tree.map(np.asarray, part) for part in read(model, params, inputs))
    for u in range(T):
        changed = inputs["tokens"].copy()
        changed[:, u] = (changed[:, u] + 1) % 50
        after_layers, after = read(model, params, spelled(changed))
        moved = np.any(np.asarray(after) != before, axis=(0, 3))  # [T, 2]
        np.testing.assert_array_equal(moved[:, 0], np.arange(T) >= u)  # t predicts t + 1 and has seen up to t
        np.testing.assert_array_equal(moved[:, 1], np.arange(T) <= u)
        for layer, (one, other) in enumerate(zip(before_layers, after_layers, strict=True)):
            moved = np.any(one != other, axis=0).reshape(T, 2, D).any(-1)
            sees = [np.arange(T) >= u, np.arange(T) <= u] if layer else [np.arange(T) == u] * 2
            np.testing.assert_array_equal(moved, np.stack(sees, axis=-1))


@each_kind
def test_rows_do_not_see_each_other(config):
    model, params, inputs = drawn(config)
    other = spelled(np.where(np.arange(B)[:, None] == 1, (inputs["tokens"] + 1) % 50, inputs["tokens"]))
    before, after = (np.asarray(read(model, params, each)[1]) for each in (inputs, other))
    np.testing.assert_array_equal(before[[0, 2]], after[[0, 2]])


@each_kind
def test_padding_changes_nothing_and_reads_as_zero(config):
    model, params, inputs = drawn(config)
    lengths = np.asarray([5, 8, 1])
    padding = np.arange(T) >= lengths[:, None]
    other = spelled(np.where(padding, (inputs["tokens"] + 3) % 50, inputs["tokens"]))
    found, logits = read(model, params, inputs | {"lengths": lengths})
    for one, same in zip(found, read(model, params, other | {"lengths": lengths})[0], strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.any(np.asarray(one)[padding])
    alone = {name: x[:1, :5] for name, x in inputs.items()}
    assert_close(logits[:1, :5], read(model, params, alone)[1])


@each_kind
def test_documents_of_a_packed_row_do_not_see_each_other(config):
    model, params, inputs = drawn(config)
    segments = np.tile([1, 1, 1, 2, 2, 2, 2, 0], (B, 1))
    packed = read(model, params, inputs | {"segments": segments})[1]
    for start, stop in ((0, 3), (3, 7)):
        alone = {name: x[:, start:stop] for name, x in inputs.items()}
        assert_close(packed[:, start:stop], read(model, params, alone)[1])


@each_kind
def test_gradient_reaches_every_parameter(config):
    model, params, inputs = drawn(config)
    batch = BidirectionalLM().batch(inputs)

    def loss(params):
        x, _ = model.features(params, batch["inputs"])
        return BidirectionalLM().loss(x, lambda x: model.readout_stored(params, x), batch)["loss"]

    for path, gradient in jax.tree_util.tree_leaves_with_path(jit(jax.grad(loss))(params)):
        assert np.isfinite(gradient).all() and np.any(gradient), path
        if path[-1].key in ("bias", "table"):
            assert not np.any(gradient[50:]), "padding has a gradient"


# --- the mix --------------------------------------------------------------------------------------


def test_the_mix_is_a_softmax_weighted_sum_times_gamma():
    rng = np.random.default_rng(0)
    some, weights = [rng.normal(size=(2, 3, 4)) for _ in range(3)], np.asarray([0.5, -1.0, 2.0])
    shares = np.exp(weights) / np.exp(weights).sum()
    expected = 1.5 * (shares[0] * some[0] + shares[1] * some[1] + shares[2] * some[2])
    with jax.enable_x64(True):
        assert_close(mixed([jnp.asarray(x) for x in some], jnp.asarray(weights), 1.5), expected, 1e-14)


@each_kind
def test_elmo_mixes_the_layers_of_its_bilm(config):
    model, params, inputs = drawn(ELMoConfig(config, dropout_rate=0.0))
    features, _ = jit(lambda params: model.features(params, inputs))(params)
    own = params["mix"]
    found, _ = read(model_of(config), params["encoder"] | output(config), inputs)
    assert_close(features, mixed(found, own["weights"], own["gamma"]))
    first = jit(model.init)(jax.random.key(0))["mix"]
    assert_close(mixed(found, first["weights"], first["gamma"]), np.mean(found, axis=0))


def output(config) -> dict:
    """The output layer, which a biLM under ELMo does not have."""
    params = parameters(model_of(config))
    return {"words": params["words"], "bias": params["bias"]}


def test_elmo_is_an_encoder_for_heads():
    elmo = ELMoConfig(CHARACTERS)
    config = ClassifierConfig(encoder=elmo, num_classes=4)
    model = Model(config, Classifier(config, ELMo(elmo, BiLM(CHARACTERS))))
    _, _, inputs = drawn(CHARACTERS)
    params = jit(model.init)(jax.random.key(0))
    lengths = np.asarray([8, 3, 1])
    assert jit(model.apply)(params, inputs | {"lengths": lengths}).shape == (B, 4)


# --- the task -------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_of_both_directions_nats():
    model, params, inputs = drawn(TABLE)
    weights = np.ones((B, T - 1), np.float32)
    weights[0, 2:4] = 0
    batch = BidirectionalLM().batch({"tokens": inputs["tokens"], "weights": weights})

    @jit
    def sums_and_logp(params):
        x, _ = model.features(params, batch["inputs"])
        sums = BidirectionalLM().loss(x, functools.partial(model.readout_stored, params), batch)
        return sums, jax.nn.log_softmax(model.readout(params, x))

    sums, logp = jax.device_get(sums_and_logp(params))
    forward = backward = 0.0
    for b in range(B):
        for t in range(T - 1):
            left, right = inputs["tokens"][b, t], inputs["tokens"][b, t + 1]
            forward -= weights[b, t] * logp[b, t, 0, right]
            backward -= weights[b, t] * logp[b, t + 1, 1, left]
    assert float(sums["forward"]) == pytest.approx(forward, rel=1e-5)
    assert float(sums["backward"]) == pytest.approx(backward, rel=1e-5)
    assert float(sums["loss"]) == pytest.approx((forward + backward) / 2, rel=1e-5)
    assert float(sums["weight"]) == weights.sum()


def test_metrics_are_nats_and_perplexities_per_token():
    sums = {"loss": 30.0, "forward": 20.0, "backward": 40.0, "weight": 10.0}
    assert BidirectionalLM().metrics(sums, [], None) == {
        "eval_loss": 3.0,
        "perplexity": pytest.approx(math.exp(3)),
        "forward_perplexity": pytest.approx(math.exp(2)),
        "backward_perplexity": pytest.approx(math.exp(4)),
    }


def test_the_last_token_of_a_packed_row_belongs_to_the_document_that_predicts_it():
    tokens = np.arange(10).reshape(2, 5)
    segments = np.asarray([[1, 1, 2, 2], [1, 1, 0, 0]])
    weights = np.asarray([[1, 0, 1, 1], [1, 0, 0, 0]], np.float32)
    batch = BidirectionalLM().batch({"tokens": tokens, "segments": segments, "weights": weights})
    np.testing.assert_array_equal(batch["inputs"]["segments"], [[1, 1, 2, 2, 2], [1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(batch["targets"][0, 2], [3, 2])


def test_both_directions_learn():
    """Words that go round in a circle tell their neighbours on both sides."""
    model = model_of(dataclasses.replace(CHARACTERS, d_model=16, d_state=24))
    task, rng, tx = BidirectionalLM(), np.random.default_rng(0), optax.adam(1e-2)

    def sums(params, batch):
        x, _ = model.features(params, batch["inputs"])
        return task.loss(x, functools.partial(model.readout_stored, params), batch)

    def mean(params, batch):
        found = sums(params, batch)
        return found["loss"] / found["weight"]

    @jax.jit
    def step(params, opt_state, batch):
        loss, gradient = jax.value_and_grad(mean)(params, batch)
        updates, opt_state = tx.update(gradient, opt_state)
        return optax.apply_updates(params, updates), opt_state, loss

    params = jit(model.init)(jax.random.key(0))
    opt_state = jit(tx.init)(params)
    for _ in range(80):
        tokens = (rng.integers(50, size=(8, 1)) + np.arange(T)) % 50
        batch = task.batch(spelled(tokens))
        params, opt_state, loss = step(params, opt_state, batch)
    found = jit(sums)(params, batch)
    per_token = {name: float(found[name] / found["weight"]) for name in ("forward", "backward")}
    print(per_token)
    assert max(per_token.values()) < 1.0 < math.log(50)


# --- characters -----------------------------------------------------------------------------------


def test_words_are_spelled_as_elmos_characters():
    table = characters.spelled(["cat", "<s>", "</s>", "é", "", "abcdefgh"], max_characters=7)
    bow, eow, pad = 259, 260, 261
    c, a, t = (1 + byte for byte in b"cat")
    expected = [
        [bow, c, a, t, eow, pad, pad],
        [bow, 257, eow, pad, pad, pad, pad],
        [bow, 258, eow, pad, pad, pad, pad],
        [bow, 1 + 0xC3, 1 + 0xA9, eow, pad, pad, pad],
        [bow, eow, pad, pad, pad, pad, pad],
        [bow, *(1 + byte for byte in b"abcde"), eow],
    ]
    np.testing.assert_array_equal(table, expected)
    assert table.dtype == np.int32 and characters.spelled(["word"]).shape == (1, 50)
    assert expected[0][0] < characters.NUM_CHARACTERS == 262


def test_words_alike_in_their_characters_are_the_same_to_the_network():
    model, params, inputs = drawn(CHARACTERS)
    other = inputs | {"tokens": (inputs["tokens"] + 1) % 50}
    np.testing.assert_array_equal(read(model, params, inputs)[1], read(model, params, other)[1])


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"num_layers": 0}, ["num_layers=0", "at least 1"]),
        ({"d_state": 0}, ["d_state=0", "at least 1"]),
        ({"vocab_size": -1}, ["vocab_size=-1", "negative"]),
        ({"clip": -3.0}, ["clip=-3.0", "negative"]),
        ({"clip": math.nan}, ["clip=nan"]),
        ({"num_filters": 100}, ["num_filters=100", "multiple of 64"]),
        ({"max_characters": 6}, ["max_characters=6", "at least 7"]),
        ({"dropout_rate": 1.0}, ["dropout_rate=1.0", "less than 1"]),
        ({"words": "bytes"}, ["words='bytes'", "characters, table"]),
        ({"dtype": "float16"}, ["dtype='float16'", "bfloat16"]),
    ],
)
def test_a_bad_configuration_is_one_line_with_the_value_and_the_remedy(changes, words):
    with pytest.raises(ConfigError) as caught:
        BiLMConfig(**changes)
    assert "\n" not in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


def test_words_without_their_characters_are_refused():
    model, params, inputs = drawn(CHARACTERS)
    with pytest.raises(ValueError, match=r"inputs 'characters' none must be \[3, 8, 9\]"):
        model.features(params, {"tokens": inputs["tokens"]})
    cut = inputs | {"characters": inputs["characters"][:, :, :8]}
    with pytest.raises(ValueError, match=r"inputs 'characters' \[3, 8, 8\] must be \[3, 8, 9\]"):
        model.features(params, cut)
    with pytest.raises(ValueError, match="max_characters=2 must be at least 3"):
        characters.spelled(["a"], max_characters=2)


def test_a_bilm_has_no_state():
    model, params, inputs = drawn(TABLE)
    with pytest.raises(ValueError, match="a biLM reads whole rows; it has no state to go on from"):
        model.initial_state(B, T)
    with pytest.raises(ValueError, match="a biLM reads whole rows; it takes no state"):
        model.features(params, inputs, state={})
