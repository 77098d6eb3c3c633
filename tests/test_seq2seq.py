"""The encoder-decoder against torch, its own state, and what it promises about sources and targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import assert_close, jit, parameters, step, train_logits
from goldens import seq2seq as goldens

from zoo.errors import ConfigError
from zoo.losses import cross_entropy
from zoo.models.pure import Model
from zoo.models.seq2seq import SIZES, Seq2Seq, Seq2SeqConfig, attention_weights

TOLERANCE = {"float64": 1e-9, "float32": 1e-5}  # what DESIGN.md calls parity
GOLDENS = np.load(goldens.FILE)
V, B, S, T = goldens.COMMON["vocab_size"], 3, 5, 6
each_case = pytest.mark.parametrize("case", goldens.CASES)
each_attention = pytest.mark.parametrize("case", [case for case in goldens.CASES if case != "none"])


def make(config) -> Model:
    return Model(config, Seq2Seq(config))


def model_of(case, **changes) -> Model:
    return make(Seq2SeqConfig(**goldens.settings(case) | {"dropout_rate": 0.0} | changes))


def pair(seed=0, **lengths) -> dict:
    """Inputs with rows of several lengths."""
    rng = np.random.default_rng(seed)
    words = {"source": rng.integers(0, V, (B, S)), "tokens": rng.integers(0, V, (B, T))}
    words = {name: ids.astype(np.int32) for name, ids in words.items()}
    return words | {"source_lengths": goldens.SOURCE_LENGTHS} | lengths


# --- parity with torch ----------------------------------------------------------------------------


def stored(model, tensors, dtype):
    """The tree of parameters that has these visible values."""

    def array(path, spec):
        padded = np.zeros(spec.shape, dtype)
        value = tensors["/".join(key.key for key in path)]
        padded[tuple(slice(0, size) for size in value.shape)] = value
        return jnp.asarray(padded)

    return jax.tree_util.tree_map_with_path(array, model.abstract())


@pytest.mark.parametrize(
    "case, dtype",
    [*((case, "float64") for case in goldens.CASES), ("none", "float32"), ("concat", "float32")],
)
def test_logits_attention_and_gradients_are_those_of_torch(case, dtype):
    golden = {name.split("/", 1)[1]: GOLDENS[name] for name in GOLDENS.files if name.startswith(f"{case}/")}
    tensors = goldens.weights(case)
    assert goldens.digest(tensors) == str(golden["digest"])
    with jax.enable_x64(dtype == "float64"):
        model = model_of(case, dtype=dtype)
        params = stored(model, tensors, dtype)
        tokens = golden["tokens"]
        inputs = {
            "source": golden["source"],
            "source_lengths": goldens.SOURCE_LENGTHS,
            "tokens": tokens[:, :-1],
        }

        def loss(params):
            x_BTF, _ = model.features(params, inputs)
            nats, weight = cross_entropy(
                model.readout_stored(params, x_BTF), tokens[:, 1:], jnp.asarray(goldens.counted())
            )
            return nats / weight, model.readout(params, x_BTF)

        (found, logits), gradients = jit(jax.value_and_grad(loss, has_aux=True))(params)
        assert logits.dtype == found.dtype == dtype
        named = {"logits": (logits, golden["logits"]), "loss": (found, golden["loss"])}
        if case != "none":
            named["attention"] = (attention_weights(model, params, inputs), golden["attention"])
        for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
            name = "gradient/" + "/".join(key.key for key in path)
            want = golden.pop(name)
            named[name] = (gradient[tuple(slice(0, size) for size in want.shape)], want)
        assert not [name for name in golden if name.startswith("gradient/")]
        apart = {name: deviation(*values) for name, values in named.items()}
    assert max(apart.values()) <= TOLERANCE[dtype], apart


def deviation(found, expected) -> float:
    return float(np.max(np.abs(np.asarray(found) - expected)) / np.max(np.abs(expected)))


@pytest.mark.parity
@each_case
def test_the_golden_numbers_are_what_torch_computes_now(case):
    pytest.importorskip("torch")
    for name, array in goldens.golden(case).items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, GOLDENS[f"{case}/{name}"], rtol=1e-9, atol=1e-12)


# --- source and target ----------------------------------------------------------------------------


@each_case
def test_padding_of_a_source_changes_nothing(case):
    model = model_of(case)
    params, inputs = parameters(model), pair()
    whole, _ = step(model, params, inputs, None)
    is_padding = np.arange(S) >= inputs["source_lengths"][:, None]
    other = inputs | {"source": np.where(is_padding, pair(seed=1)["source"], inputs["source"])}
    np.testing.assert_array_equal(step(model, params, other, None)[0], whole)
    wider = inputs | {"source": np.pad(inputs["source"], ((0, 0), (0, 3)), constant_values=7)}
    assert_close(step(model, params, wider, None)[0], whole)
    alone = {name: x[1:2] for name, x in inputs.items()} | {"source": inputs["source"][1:2, :2]}
    del alone["source_lengths"]
    assert_close(step(model, params, alone, None)[0][0], whole[1])


@each_case
def test_padding_of_a_target_changes_nothing(case):
    model = model_of(case)
    params, inputs = parameters(model), pair()
    whole, _ = step(model, params, inputs, None)
    lengths = np.array([2, 6, 3], np.int32)
    is_padding = np.arange(T) >= lengths[:, None]
    tokens = np.where(is_padding, pair(seed=1)["tokens"], inputs["tokens"])
    padded, _ = step(model, params, inputs | {"tokens": tokens, "lengths": lengths}, None)
    for b, length in enumerate(lengths):
        assert_close(padded[b, :length], whole[b, :length])


@each_case
def test_rows_do_not_see_each_other(case):
    model = model_of(case)
    params, inputs = parameters(model), pair()
    before = np.asarray(step(model, params, inputs, None)[0])
    for name in ("source", "tokens"):
        changed = inputs[name].copy()
        changed[1] = (changed[1] + 1) % V
        after = np.asarray(step(model, params, inputs | {name: changed}, None)[0])
        np.testing.assert_array_equal(before[[0, 2]], after[[0, 2]])
        assert np.any(before[1] != after[1])


@each_case
def test_a_position_sees_all_of_the_source_and_nothing_of_the_target_ahead(case):
    model = model_of(case)
    params, inputs = parameters(model), pair()
    before = np.asarray(step(model, params, inputs, None)[0])
    for t in (0, 3, T - 1):
        tokens = inputs["tokens"].copy()
        tokens[:, t] = (tokens[:, t] + 1) % V
        after = np.asarray(step(model, params, inputs | {"tokens": tokens}, None)[0])
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert np.all(np.any(after[:, t:] != before[:, t:], axis=-1))
    for s in (0, S - 1):
        source = inputs["source"].copy()
        source[0, s] = (source[0, s] + 1) % V
        after = np.asarray(step(model, params, inputs | {"source": source}, None)[0])
        assert np.all(np.any(after[0] != before[0], axis=-1))


# --- the state ------------------------------------------------------------------------------------


@each_case
@pytest.mark.parametrize("pieces", [[1] * T, [2, 3, 1]], ids=["ones", "uneven"])
def test_reading_in_pieces_equals_reading_at_once(case, pieces):
    model = model_of(case)
    params, inputs = parameters(model), pair()
    whole, nothing = step(model, params, inputs, None)
    assert nothing is None
    state, parts, start = model.initial_state(B, S), [], 0
    shapes = jax.tree.map(jnp.shape, state)
    for size in pieces:
        piece = inputs if not start else {}
        piece = piece | {"tokens": inputs["tokens"][:, start : start + size]}
        part, state = step(model, params, piece, state)
        assert jax.tree.map(jnp.shape, state) == shapes
        parts.append(part)
        start += size
    assert_close(np.concatenate(parts, axis=1), whole)


@each_case
def test_ragged_beginnings_go_on_each_from_its_own_length(case):
    model = model_of(case)
    params, inputs = parameters(model), pair()
    whole = np.asarray(step(model, params, inputs, None)[0])
    lengths = np.array([1, 4, 2], np.int32)
    begun = inputs | {"tokens": inputs["tokens"][:, :4], "lengths": lengths}
    _, state = step(model, params, begun, model.initial_state(B, S))
    for place in range(2):
        rows = np.arange(B)
        word_B1 = inputs["tokens"][rows, lengths + place][:, None]
        part, state = step(model, params, {"tokens": word_B1}, state)
        assert_close(part[:, 0], whole[rows, lengths + place])


@each_case
def test_every_array_of_a_state_is_named_by_its_letters(case):
    model = model_of(case)
    for spec in jax.tree.leaves(model.state_specs(B, S)):
        assert len(spec.letters) == len(spec.shape) and spec.shape[spec.letters.index("B")] == B


# --- attention ------------------------------------------------------------------------------------


@each_attention
def test_attention_is_spread_over_the_source_alone(case):
    model = model_of(case)
    weights_BTS = np.asarray(attention_weights(model, parameters(model), pair()))
    assert weights_BTS.shape == (B, T, S)
    np.testing.assert_allclose(weights_BTS.sum(-1), 1.0, rtol=1e-6)
    for row, length in zip(weights_BTS, goldens.SOURCE_LENGTHS, strict=True):
        assert np.all(row[:, :length] > 0) and not row[:, length:].any()


def test_a_model_without_attention_has_no_weights_to_show():
    model = model_of("none")
    with pytest.raises(ValueError, match="no attention"):
        attention_weights(model, parameters(model), pair())


@each_attention
def test_an_empty_source_is_harmless(case):
    model = model_of(case)
    inputs = pair(source_lengths=np.array([5, 0, 4], np.int32))
    assert np.isfinite(step(model, parameters(model), inputs, None)[0]).all()


# --- teacher forcing ------------------------------------------------------------------------------


def trained(model, params, inputs, seed=0):
    return np.asarray(train_logits(model, params, inputs, jax.random.key(seed)))


def own_logits(model, params, inputs):
    """Logits where each word but the first is the likeliest of the step before, by full forwards."""
    tokens = np.array(inputs["tokens"])
    for t in range(1, T):
        tokens[:, t] = np.asarray(step(model, params, inputs | {"tokens": tokens}, None)[0])[:, t - 1].argmax(
            -1
        )
    return np.asarray(step(model, params, inputs | {"tokens": tokens}, None)[0])


@each_case
def test_each_row_reads_either_the_right_words_or_its_own(case):
    """With probability 1/2, each row by a coin of its own."""
    model = model_of(case, teacher_forcing_rate=0.5)
    params, inputs = parameters(model), pair()
    forced, own = np.asarray(step(model, params, inputs, None)[0]), own_logits(model, params, inputs)
    coins = set()
    for seed in range(6):
        logits = trained(model, params, inputs, seed)
        is_forced = np.abs(logits - forced).max((1, 2)) < 1e-4
        is_own = np.abs(logits - own).max((1, 2)) < 1e-4
        np.testing.assert_array_equal(is_forced, ~is_own)
        coins.add(tuple(is_forced.tolist()))
    assert any(len(set(coin)) == 2 for coin in coins)


@pytest.mark.parametrize("case", ["none", "general"])
def test_teacher_forcing_is_of_training_alone(case):
    model, params, inputs = model_of(case), parameters(model_of(case)), pair()
    never = model_of(case, teacher_forcing_rate=0.0)
    np.testing.assert_array_equal(step(never, params, inputs, None)[0], step(model, params, inputs, None)[0])
    assert_close(trained(never, params, inputs), own_logits(model, params, inputs))
    assert_close(trained(model, params, inputs), step(model, params, inputs, None)[0])


@pytest.mark.parametrize("case", ["none", "general"])
def test_gradients_pass_a_row_that_reads_its_own_words(case):
    model = model_of(case, teacher_forcing_rate=0.0)
    params, inputs = parameters(model), pair()

    def loss(params):
        return model.apply(params, inputs, train=True, rngs={"dropout": jax.random.key(0)}).sum()

    for path, gradient in jax.tree_util.tree_leaves_with_path(jit(jax.grad(loss))(params)):
        assert np.any(gradient) and np.isfinite(gradient).all(), path


# --- loops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["none", "general", "additive"])
def test_unrolled_loops_compute_the_same(case):
    model, inputs = model_of(case), pair()
    params = parameters(model)
    assert_close(
        step(model_of(case, unroll=3), params, inputs, None)[0], step(model, params, inputs, None)[0]
    )


# --- configurations -------------------------------------------------------------------------------


@each_case
def test_the_closed_form_counts_the_parameters(case):
    model = model_of(case)
    named = goldens.shapes(case).values()
    assert model.num_params() == model.config.num_params == sum(int(np.prod(shape)) for shape in named)


def test_luongs_network_has_the_size_that_its_paper_tells():
    """4 layers of 1,000 cells on each side, of which the decoder's first reads the attentional vector too."""
    layer = 4 * 1000 * (2 * 1000 + 1)
    fed, attentional, tables = 4 * 1000 * 1000, 2 * 1000 * 1000, 50_000 * 2001
    assert make(SIZES["lstm_luong"]).num_params() == 8 * layer + fed + attentional + tables


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"d_state": 0}, "d_state=0"),
        ({"vocab_size": -1}, "vocab_size=-1"),
        ({"dropout_rate": 1.0}, "dropout_rate=1.0"),
        ({"teacher_forcing_rate": 1.5}, "teacher_forcing_rate=1.5"),
        ({"cell": "rnn"}, "cell='rnn' is none of lstm"),
        ({"attention": "luong"}, "attention='luong' is none of dot"),
        ({"feeding": "input"}, "feeding='input' is none of none"),
        ({"direction": "both", "d_state": 11}, "d_state=11 must be even"),
        ({"attention": "none"}, "feeding=attentional needs an attention"),
        (
            {"attention": "none", "feeding": "none", "tied": True, "d_state": 8},
            "d_model=1000 must be d_state=8",
        ),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_one_line(fields, words):
    with pytest.raises(ConfigError, match=words):
        Seq2SeqConfig(**fields)


def test_inputs_that_make_no_pair_are_refused():
    model = model_of("general")
    params = parameters(model)
    with pytest.raises(ValueError, match="without 'source'"):
        model.apply(params, pair()["tokens"])
    with pytest.raises(ValueError, match="leave 'segments' out"):
        model.apply(params, pair() | {"segments": np.ones((B, T), np.int32)})
