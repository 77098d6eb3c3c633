"""RNNs against their papers: counts, first values, state, directions, and what each kind of dropout drops."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import assert_close, first_values, jit, parameters, tokens

import zoo.models
from zoo.errors import ConfigError
from zoo.models.rnn import CELLS, SIZES, RNNConfig, Stack

TINY = RNNConfig(vocab_size=50, num_layers=2, d_model=6, d_state=8, dropout_rate=0.0)
B, T = 4, 9
LENGTHS = np.asarray([0, 3, 9, 1], np.int32)

KINDS = {cell: dataclasses.replace(TINY, cell=cell) for cell in CELLS}
KINDS["lstm, projected"] = dataclasses.replace(TINY, d_projection=5)
KINDS["gru, two biases"] = dataclasses.replace(TINY, cell="gru", recurrent_bias=True)
each_kind = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


def drawn(config, rows=B, length=T):
    """(model, parameters far from their first values, tokens)."""
    model = zoo.models.create(config)
    return model, parameters(model), tokens(model, rows=rows, length=length)


@functools.partial(jit, static_argnums=0)
def read(model, params, x, state=None, lengths=None):
    """(features, state) of rows, read into a state or not."""
    inputs = {"tokens": x} | ({} if lengths is None else {"lengths": lengths})
    return model.features(params, inputs, state=state)


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, count",
    [
        ("lstm_zaremba_small", 4_651_600),
        ("lstm_zaremba_medium", 19_775_200),
        ("lstm_zaremba_large", 66_022_000),
        ("awd_lstm", 24_221_600),
    ],
)
def test_published_models_have_the_parameters_of_their_papers(size, count):
    assert zoo.models.create(size).num_params() == count


@each_kind
def test_the_closed_form_counts_the_parameters_of_every_kind(config):
    for changes in ({}, {"direction": "both"}, {"recurrent_bias": True}):
        model = zoo.models.create(dataclasses.replace(config, **changes))
        assert model.num_params() == model.config.num_params


def test_flops_per_token_equal_the_figures_derived_by_hand():
    # Small model: 2 layers of (200 + 200) x 800 weights and 200 x 10,000 of the output, 6 operations each;
    # the biases, which are counted too, are 0.4 % of it.
    flops = SIZES["lstm_zaremba_small"].flops_per_token(20)
    assert flops.full == flops.causal == pytest.approx(6 * (2 * 400 * 800 + 200 * 10_000), rel=5e-3)
    # AWD-LSTM: 400 -> 1,150 -> 1,150 -> 400, the output tied: 20.2 million and 4 million weights.
    recurrent = 4 * (1_150 * (400 + 1_150) + 1_150 * (1_150 + 1_150) + 400 * (1_150 + 400))
    by_hand = 6 * (recurrent + 400 * 10_000)
    assert SIZES["awd_lstm"].flops_per_token(70).full == pytest.approx(by_hand, rel=5e-3)


def test_the_last_layer_of_a_tied_model_is_as_wide_as_its_table():
    assert SIZES["awd_lstm"].widths == (1150, 1150, 400)
    assert dataclasses.replace(TINY, tied=True, direction="both").widths == (8, 3)
    model, params, x = drawn(dataclasses.replace(TINY, tied=True))
    x_BTD, _ = read(model, params, x)
    expected = x_BTD @ params["tokens"]["table"].T + params["bias"]
    assert_close(model.apply(params, x), np.asarray(expected)[..., :50])


# --- first values ---------------------------------------------------------------------------------


def test_the_table_can_begin_wider_than_the_rest():
    config = dataclasses.replace(TINY, vocab_size=256, d_model=32, d_state=32, table_scale=0.3)
    params = zoo.create(config).init(jax.random.key(0))
    assert 0.29 < np.abs(params["tokens"]["table"]).max() <= 0.3
    assert np.abs(params["stack"]["layer0"]["w"]).max() <= (config.init_scale or 32**-0.5)


@pytest.mark.parametrize("init_scale, bound", [(0.1, 0.1), (0.0, 32**-0.5)])
def test_first_values_are_spread_evenly_over_the_published_interval(init_scale, bound):
    config = dataclasses.replace(TINY, vocab_size=128, d_model=32, d_state=32, init_scale=init_scale)
    for leaf in jax.tree.leaves(first_values(zoo.models.create(config))):
        values = np.asarray(leaf, np.float64).ravel()
        assert np.abs(values).max() <= bound
        # Of an even spread over -1 to 1 the variance is 1/3, its sampling error about 1 / sqrt(n).
        assert values.var() / bound**2 == pytest.approx(1 / 3, abs=1.5 / math.sqrt(values.size))


def test_forget_bias_raises_the_forget_gates_bias_and_nothing_else():
    config = dataclasses.replace(TINY, direction="both", recurrent_bias=True)
    plain = first_values(zoo.models.create(config))
    raised = first_values(zoo.models.create(dataclasses.replace(config, forget_bias=1.5)))
    forget_gates = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(plain):
        expected, other = np.array(leaf), raised
        for key in path:
            other = other[key.key]
        if path[-1].key == "b":
            expected[1] += 1.5  # gates i, f, g, o
            forget_gates += 1
        np.testing.assert_allclose(other, expected, rtol=1e-6, atol=0, err_msg=str(path))
    assert forget_gates == 2 * config.num_directions
    with jax.enable_x64(True):
        specs = zoo.models.create(dataclasses.replace(config, forget_bias=0.5)).abstract()
    assert {str(spec.dtype) for spec in jax.tree.leaves(specs)} == {"float32"}


# --- state ----------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("pieces", [[1] * T, [4, 1, 3, 1]], ids=["ones", "uneven"])
def test_reading_in_pieces_leaves_the_outputs_and_the_state_of_reading_at_once(config, pieces):
    model, params, x = drawn(config)
    whole, last = read(model, params, x, model.initial_state(B, T))
    state, parts, start = model.initial_state(B, T), [], 0
    for size in pieces:
        part, state = read(model, params, x[:, start : start + size], state)
        parts.append(part)
        start += size
    assert_close(np.concatenate(parts, axis=1), whole)
    jax.tree.map(assert_close, state, last)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, model.initial_state(B, T))


@each_kind
def test_a_state_of_zeros_is_where_a_row_without_one_begins(config):
    model, params, x = drawn(config)
    without, nothing = read(model, params, x)
    assert nothing is None
    np.testing.assert_array_equal(without, read(model, params, x, model.initial_state(B, T))[0])


@each_kind
def test_lengths_leave_the_state_at_the_last_real_token(config):
    model, params, x = drawn(config)
    first = jax.tree.map(lambda leaf: leaf + 0.5, model.initial_state(B, T))
    features, last = read(model, params, x, first, LENGTHS)
    states, outputs = [first], []  # after no word, after one, after two
    for t in range(T):
        output, state = read(model, params, x[:, t : t + 1], states[-1])
        outputs.append(output[:, 0])
        states.append(state)
    for row, length in enumerate(LENGTHS):
        for leaf, expected in zip(jax.tree.leaves(last), jax.tree.leaves(states[length]), strict=True):
            assert_close(leaf[row], expected[row])  # of an empty row: the state as it came
        for t in range(T):
            assert_close(features[row, t], outputs[t][row] if t < length else np.zeros_like(outputs[t][row]))


# --- directions and padding -----------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("lengths", [np.full(B, T), LENGTHS], ids=["whole rows", "ragged"])
def test_the_reverse_direction_equals_flipping_by_hand(config, lengths):
    model, params, x = drawn(dataclasses.replace(config, direction="both", num_layers=1))
    features, _ = read(model, params, x, None, lengths)
    forward = zoo.models.create(dataclasses.replace(config, num_layers=1))
    W = model.config.widths[0]
    words = {"table": params["words"]["table"][:, :W]}

    def alone(name, x):
        stack = {"layer0": params["stack"][name]}
        return np.asarray(read(forward, params | {"stack": stack, "words": words}, x, None, lengths)[0])

    times = np.arange(T)
    flipped = np.where(times < lengths[:, None], lengths[:, None] - 1 - times, times)
    rows = np.arange(B)[:, None]
    assert_close(features[..., :W], alone("layer0", x))
    assert_close(features[..., W:], alone("layer0_reverse", x[rows, flipped])[rows, flipped])


@functools.partial(jit, static_argnums=0)
def gradient_and_features(model, params, x):
    """Of a sum in which every feature has a weight of its own."""

    def loss(params):
        features, _ = model.features(params, {"tokens": x, "lengths": LENGTHS})
        return (features * jnp.cos(jnp.arange(features.size)).reshape(features.shape)).sum(), features

    return jax.grad(loss, has_aux=True)(params)


@each_kind
def test_what_stands_in_the_padding_changes_nothing(config):
    model, params, x = drawn(dataclasses.replace(config, direction="both"))
    padding = np.arange(T) >= LENGTHS[:, None]
    other = np.where(padding, (x + 7) % 50, x)
    gradient, features = gradient_and_features(model, params, x)
    gradient_other, features_other = gradient_and_features(model, params, other)
    np.testing.assert_array_equal(features, features_other)
    jax.tree.map(np.testing.assert_array_equal, gradient, gradient_other)
    unread = sorted(set(range(50)) - set(x[~padding].tolist()))
    assert not np.any(np.asarray(gradient["tokens"]["table"])[unread])


def test_unrolled_loops_compute_the_same():
    model, params, x = drawn(TINY)
    for unroll in (2, 20):
        unrolled = zoo.models.create(dataclasses.replace(TINY, unroll=unroll))
        assert_close(read(unrolled, params, x)[0], read(model, params, x)[0])


def test_a_model_of_both_directions_has_no_state():
    model, params, x = drawn(dataclasses.replace(TINY, direction="both"))
    with pytest.raises(ValueError, match="^a model that reads both ways .* no state to go on from"):
        model.initial_state(B, T)
    state = zoo.models.create(TINY).initial_state(B, T)
    with pytest.raises(ValueError, match="^a model that reads both ways .* takes no state"):
        model.features(params, {"tokens": x}, state=state)


def test_packed_rows_cannot_be_read_into_a_state():
    model, params, x = drawn(TINY)
    with pytest.raises(ValueError, match="^inputs with 'segments' are whole rows; "):
        model.features(params, {"tokens": x, "segments": np.ones_like(x)}, state=model.initial_state(B, T))


# --- dropout --------------------------------------------------------------------------------------

# An Elman network with relu whose input weights are the identity and whose recurrent weights are zero puts
# out what it reads: ones go in, and what comes out is the mask.
MIRROR = RNNConfig(
    vocab_size=400,
    cell="elman_relu",
    num_layers=2,
    d_model=128,
    d_state=128,
    dropout_rate=0.0,
    input_dropout_rate=0.0,
    output_dropout_rate=0.0,
)


def mirror_params(config) -> dict:
    """A stack that puts out what it reads."""
    eye = np.eye(config.d_model, dtype=np.float32)[:, None]
    layer = {"w_in": eye, "w": np.zeros_like(eye), "b": np.zeros((1, config.d_model), np.float32)}
    return {f"layer{n}": layer for n in range(config.num_layers)}


def stack_in_training(config, stack, x_BTD, seed=0, state=None):
    rngs = {"dropout": jax.random.key(seed)}
    out, _ = jit(lambda stack, x: Stack(config).apply({"params": stack}, x, state, rngs=rngs))(stack, x_BTD)
    return np.asarray(out)


def assert_rate(dropped, rate: float) -> None:
    """The share of independent draws that came out True, within four standard errors."""
    assert abs(dropped.mean() - rate) < 4 * math.sqrt(rate * (1 - rate) / dropped.size)


PLACES = pytest.mark.parametrize("field", ["input_dropout_rate", "dropout_rate", "output_dropout_rate"])


@PLACES
@pytest.mark.parametrize("rate", [0.25, 0.6])
def test_variational_masks_are_equal_over_time_and_differ_between_rows(field, rate):
    config = dataclasses.replace(MIRROR, dropout_draws="once", **{field: rate})
    mask = stack_in_training(config, mirror_params(config), np.ones((8, 5, 128), np.float32))
    np.testing.assert_array_equal(mask, mask[:, :1].repeat(5, axis=1))
    kept = mask[:, 0]
    np.testing.assert_allclose(kept[kept > 0], 1 / (1 - rate), rtol=1e-6)
    assert_rate(kept == 0, rate)
    assert len({row.tobytes() for row in kept}) == 8
    again = stack_in_training(config, mirror_params(config), np.ones((8, 5, 128), np.float32), seed=1)
    assert np.any(again != mask)


@PLACES
def test_each_position_has_its_own_mask_otherwise(field):
    config = dataclasses.replace(MIRROR, **{field: 0.4})
    mask = stack_in_training(config, mirror_params(config), np.ones((3, 5, 128), np.float32))
    assert len({position.tobytes() for row in mask for position in row}) == 15
    np.testing.assert_allclose(mask[mask > 0], 1 / 0.6, rtol=1e-6)
    assert_rate(mask == 0, 0.4)


def test_dropout_rate_is_also_that_of_input_and_output_unless_they_have_their_own():
    ones = np.ones((4, 2, 128), np.float32)
    for draws in ("each", "once"):
        shared = dataclasses.replace(
            MIRROR, dropout_rate=0.3, input_dropout_rate=-1.0, output_dropout_rate=-1.0, dropout_draws=draws
        )
        spelled = dataclasses.replace(shared, input_dropout_rate=0.3, output_dropout_rate=0.3)
        out = stack_in_training(shared, mirror_params(shared), ones)
        np.testing.assert_array_equal(out, stack_in_training(spelled, mirror_params(spelled), ones))
        kept = out[:, 0] > 0  # three masks, one behind the other
        assert_rate(~kept, 1 - 0.7**3)
        np.testing.assert_allclose(out[:, 0][kept], 0.7**-3, rtol=1e-5)


def test_weights_are_dropped_once_a_call_and_differently_in_each_layer():
    # Each unit is multiplied by its own diagonal weight at every step: while that is kept it grows by
    # 1 / (1 - rate), and once it is dropped it stays at zero.
    rate, Z, length = 0.5, 512, 4
    config = dataclasses.replace(
        MIRROR, num_layers=1, d_model=Z, d_state=Z, weight_dropout_rate=rate, init_scale=0.1
    )
    eye = np.eye(Z, dtype=np.float32)[:, None]
    stack = {"layer0": {"w_in": 0 * eye, "w": eye, "b": np.zeros((1, Z), np.float32)}}
    state = {"layer0": {"h_BR": jnp.ones((2, Z))}}
    out = stack_in_training(config, stack, np.zeros((2, length, Z), np.float32), state=state)
    np.testing.assert_array_equal(out[0], out[1])  # rows share the weights
    alive = out[0, 0] > 0
    assert_rate(~alive, rate)
    for t in range(length):
        np.testing.assert_allclose(out[0, t], np.where(alive, 2.0 ** (t + 1), 0), rtol=1e-6)
    other = stack_in_training(config, stack, np.zeros((2, length, Z), np.float32), seed=1, state=state)
    assert np.any((other[0, 0] > 0) != alive)


def model_in_training(config, table, x, seed=0):
    """Features of a model that puts out the vectors of the words that it reads."""
    model = zoo.models.create(config)
    params = jax.tree.map(lambda spec: np.zeros(spec.shape, np.float32), model.abstract())
    params["tokens"]["table"][:400] = table
    params["stack"] = mirror_params(config)
    rngs = {"dropout": jax.random.key(seed)}
    return np.asarray(jit(lambda params: model.features(params, x, train=True, rngs=rngs)[0])(params))


def test_embedding_dropout_drops_a_word_wherever_it_stands():
    config = dataclasses.replace(MIRROR, embedding_dropout_rate=0.3)
    x = np.stack([np.random.default_rng(row).permutation(400) for row in range(3)])
    out = model_in_training(config, np.ones((400, 128)), x)
    np.testing.assert_array_equal(out, out[..., :1].repeat(128, axis=-1))  # the whole vector or none of it
    by_word = np.stack([row[np.argsort(words)] for row, words in zip(out[..., 0], x, strict=True)])
    np.testing.assert_array_equal(by_word, by_word[:1].repeat(3, axis=0))
    np.testing.assert_allclose(by_word[by_word > 0], 1 / 0.7, rtol=1e-6)
    assert_rate(by_word[0] == 0, 0.3)
    assert np.any(model_in_training(config, np.ones((400, 128)), x, seed=1) != out)


def test_word_dropout_reads_unknown_words_instead():
    config = dataclasses.replace(MIRROR, word_dropout_rate=0.2)
    x = np.random.default_rng(0).integers(2, 400, (4, 300))
    table = np.arange(400)[:, None] * np.ones(128)  # every vector says which word it is
    seen = model_in_training(config, table, x)[..., 0].astype(int)
    assert_rate(seen == 1, 0.2)
    np.testing.assert_array_equal(seen[seen != 1], x[seen != 1])
    assert len({row.tobytes() for row in seen == 1}) == 4


def test_nothing_is_dropped_in_evaluation():
    rates = {field.name: 0.5 for field in dataclasses.fields(RNNConfig) if "dropout_rate" in field.name}
    config = dataclasses.replace(MIRROR, **rates)
    out, _ = Stack(config).apply({"params": mirror_params(config)}, np.ones((2, 3, 128), np.float32), None)
    np.testing.assert_array_equal(out, 1.0)


# --- bad configurations ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"num_layers": 0}, ["num_layers=0", "at least 1"]),
        ({"d_model": 0}, ["d_model=0", "at least 1"]),
        ({"d_state": -3}, ["d_state=-3", "at least 1"]),
        ({"unroll": 0}, ["unroll=0", "at least 1"]),
        ({"vocab_size": -1}, ["vocab_size=-1", "negative"]),
        ({"d_projection": -1}, ["d_projection=-1", "negative"]),
        ({"init_scale": -0.1}, ["init_scale=-0.1", "negative"]),
        ({"init_scale": math.nan}, ["init_scale=nan"]),
        ({"table_scale": math.inf}, ["table_scale=inf", "infinite"]),
        ({"table_scale": -1.0}, ["table_scale=-1.0", "negative"]),
        ({"forget_bias": math.nan}, ["forget_bias=nan"]),
        ({"dropout_rate": 1.0}, ["dropout_rate=1.0", "less than 1"]),
        ({"dropout_rate": math.nan}, ["dropout_rate=nan"]),
        ({"word_dropout_rate": -0.1}, ["word_dropout_rate=-0.1", "at least 0"]),
        ({"embedding_dropout_rate": 1.5}, ["embedding_dropout_rate=1.5", "less than 1"]),
        ({"weight_dropout_rate": 1.0}, ["weight_dropout_rate=1.0", "less than 1"]),
        ({"input_dropout_rate": -0.5}, ["input_dropout_rate=-0.5", "-1 for dropout_rate"]),
        ({"output_dropout_rate": 1.0}, ["output_dropout_rate=1.0", "-1 for dropout_rate"]),
        ({"cell": "lstn"}, ["cell='lstn'", "gru_original"]),
        ({"direction": "backward"}, ["direction='backward'", "both"]),
        ({"dropout_draws": "never"}, ["dropout_draws='never'", "once"]),
        ({"dtype": "float16"}, ["dtype='float16'", "bfloat16"]),
        ({"cell": "gru", "d_projection": 8}, ["d_projection=8", "cell=lstm, not gru", "set it to 0"]),
        ({"tied": True, "direction": "both", "d_model": 7}, ["d_model=7", "even"]),
        ({"tied": True, "d_projection": 8, "d_model": 6}, ["d_projection=8", "must be 6"]),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_a_bad_configuration_is_one_line_with_the_value_and_the_remedy(changes, words):
    with pytest.raises(ConfigError) as caught:
        RNNConfig(**changes)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []
