"""zoo's recurrent layers against implementations that share nothing with them: the same numbers, to rounding.

torch's LSTM, GRU and RNN: golden numbers (goldens/rnn.py), and torch itself where it is installed (marked
`parity`); outputs, last states, and the gradients by every weight, input and first state, under torch's
names. Keras's layers: NumPy loops written from the equations of its documentation, and Keras itself where
it is installed. Deviations are relative to the largest number of the reference tensor.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from goldens import rnn as goldens

import zoo
from zoo.errors import CheckpointError, ConfigError
from zoo.models.rnn import Recurrent, RNNConfig, Stack
from zoo.pretrained import keras_rnn, torch_rnn
from zoo.pretrained.tensors import read_tensors, write_tensors
from zoo.tasks import CausalLM

TOLERANCE = {"float64": 1e-9, "float32": 1e-5}  # what DESIGN.md calls parity
GOLDENS = np.load(goldens.FILE)
QUICK = {"xla_backend_optimization_level": 0}  # LLVM's, not XLA's: the tests take half the time

each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


def config_of(settings: dict, **changes) -> RNNConfig:
    """zoo's configuration of a torch module, inferred from nothing but its tensors."""
    tensors = {name: np.zeros(shape) for name, shape in goldens.shapes(settings).items()}
    if "vocab_size" in settings and not goldens.is_tied(settings):
        tensors["decoder.weight"] = tensors["decoder.weight"] + 1
    config = torch_rnn.config_from_torch(tensors, nonlinearity=settings.get("nonlinearity", ""))
    return dataclasses.replace(config, **changes)


# --- what zoo computes, under torch's names -------------------------------------------------------


def zoo_layer_values(tensors, given, config: RNNConfig, dtype: str) -> dict[str, np.ndarray]:
    """What goldens.layer_values returns: outputs, last states, gradients."""
    with jax.enable_x64(dtype == "float64"):
        config = dataclasses.replace(config, dtype=dtype)
        stack = jax.tree.map(lambda x: jnp.asarray(x, dtype), torch_rnn.stack_from_torch(tensors, config))
        given = {name: jnp.asarray(x, dtype) for name, x in given.items()}

        @functools.partial(jax.value_and_grad, has_aux=True, argnums=(0, 1))
        def weighted(stack, roots):
            state = None if config.direction == "both" else state_from_torch(roots)
            values = stack_values(stack, roots["x"], state, config)
            return sum((values[name] * given[f"d_{name}"]).sum() for name in values), values

        roots = {name: x for name, x in given.items() if not name.startswith("d_")}
        (_, values), (by_stack, by_roots) = jax.jit(weighted, compiler_options=QUICK)(stack, roots)
        assert {x.dtype for x in jax.tree.leaves((values, by_stack, by_roots))} == {jnp.dtype(dtype)}
        gradients = torch_rnn.stack_to_torch(by_stack, config) | by_roots
    found = values | {f"gradient/{name}": gradient for name, gradient in gradients.items()}
    return {name: np.asarray(x) for name, x in found.items()}


def stack_values(stack, x_BTD, state, config: RNNConfig) -> dict:
    """Outputs and last states of ragged rows; the states of both directions are read off on the way."""

    def is_layer(module, method):
        return isinstance(module, Recurrent)

    (output, successors), seen = Stack(config).apply(
        {"params": stack}, x_BTD, state, jnp.asarray(goldens.RAGGED), capture_intermediates=is_layer
    )
    layers = [name for name, _, _ in torch_rnn.layers(config)]
    last = {name: seen["intermediates"][name]["__call__"][0][1] for name in layers}
    if state is not None:
        assert successors.keys() == last.keys()
        last = successors
    values = {"output": output, "h_n": jnp.stack([last[name]["h_BR"] for name in layers])}
    if config.cell == "lstm":
        values["c_n"] = jnp.stack([last[name]["c_BZ"] for name in layers])
    return values


def state_from_torch(roots) -> dict:
    letters = {"h_0": "h_BR", "c_0": "c_BZ"}
    count = len(roots["h_0"])
    return {
        f"layer{layer}": {ours: roots[theirs][layer] for theirs, ours in letters.items() if theirs in roots}
        for layer in range(count)
    }


def zoo_model_values(tensors, tokens, config: RNNConfig, dtype: str) -> dict[str, np.ndarray]:
    """What goldens.model_values returns: logits, loss, gradients."""
    with jax.enable_x64(dtype == "float64"):
        config = dataclasses.replace(config, dtype=dtype)
        model, batch = zoo.create(config), CausalLM().batch({"tokens": tokens})
        params = jax.tree.map(lambda x: jnp.asarray(x, dtype), torch_rnn.from_torch(tensors, config))

        @functools.partial(jax.value_and_grad, has_aux=True)
        def loss(params):
            x_BTE, _ = model.features(params, batch["inputs"])
            sums = CausalLM().loss(x_BTE, functools.partial(model.readout_stored, params), batch)
            return sums["loss"] / sums["weight"], model.readout(params, x_BTE)

        (loss, logits), gradients = jax.jit(loss, compiler_options=QUICK)(params)
        gradients = torch_rnn.to_torch(gradients, config)
    if config.tied:
        del gradients["decoder.weight"]  # torch has one parameter of two names
    found = {"logits": logits, "loss": loss, **{f"gradient/{name}": x for name, x in gradients.items()}}
    return {name: np.asarray(x) for name, x in found.items()}


def assert_equal(found, expected, tolerance: float) -> None:
    """Holds two dicts of values together; names what differs."""
    assert found.keys() == expected.keys()
    apart = {name: deviation(found[name], expected[name]) for name in expected}
    print(f"relative: {max(apart.values()):.1e} ({max(apart, key=apart.__getitem__)})")
    wrong = {name: f"{value:.1e}" for name, value in apart.items() if not value <= tolerance}
    assert not wrong, f"apart by more than {tolerance}: {wrong}"


def deviation(found, expected) -> float:
    assert np.shape(found) == np.shape(expected)
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


def by_one_bias(values: dict[str, np.ndarray], config: RNNConfig) -> dict[str, np.ndarray]:
    """`values` without what a model with one bias does not have: gradients by the recurrent bias, but for
    that of a GRU's candidate, the last third."""
    kept = {name: x for name, x in values.items() if "bias_hh" not in name}
    if config.cell == "gru":
        kept |= {name: x[-len(x) // 3 :] for name, x in values.items() if "bias_hh" in name}
    return kept


# --- golden numbers -------------------------------------------------------------------------------


def golden_values(case: str) -> dict[str, np.ndarray]:
    before = f"{case}/"
    stored = {name.removeprefix(before): name for name in GOLDENS.files if name.startswith(before)}
    return {name: GOLDENS[file] for name, file in stored.items() if name != "digest"}


@pytest.mark.parametrize("case", [*goldens.CASES, *goldens.MODELS])
def test_golden_weights_and_inputs_are_drawn_again_bit_for_bit(case):
    settings = (goldens.CASES | goldens.MODELS)[case]
    read = {"tokens": goldens.tokens(settings)} if case in goldens.MODELS else goldens.inputs(settings)
    assert goldens.digest(goldens.weights(settings) | read) == GOLDENS[f"{case}/digest"]


@each_dtype
@pytest.mark.parametrize("case", goldens.CASES)
def test_zoos_layers_compute_the_golden_numbers(case, dtype):
    settings = goldens.CASES[case]
    config = config_of(settings)
    found = zoo_layer_values(goldens.weights(settings), goldens.inputs(settings), config, dtype)
    assert_equal(found, golden_values(case), TOLERANCE[dtype])


@pytest.mark.parametrize("case", ["elman_tanh", "lstm", "lstm_projected", "gru", "gru_both"])
def test_one_bias_computes_the_golden_numbers_of_two(case):
    settings = goldens.CASES[case]
    config = config_of(settings, recurrent_bias=False)
    found = zoo_layer_values(goldens.weights(settings), goldens.inputs(settings), config, "float64")
    assert_equal(by_one_bias(found, config), by_one_bias(golden_values(case), config), TOLERANCE["float64"])


@each_dtype
@pytest.mark.parametrize("case", goldens.MODELS)
def test_zoos_language_models_compute_the_golden_numbers(case, dtype):
    settings = goldens.MODELS[case]
    config = config_of(settings)
    found = zoo_model_values(goldens.weights(settings), goldens.tokens(settings), config, dtype)
    assert_equal(found, golden_values(case), TOLERANCE[dtype])


# --- the mapping ----------------------------------------------------------------------------------

LSTM = RNNConfig(vocab_size=9, num_layers=2, d_model=5, d_state=6)
CONFIGS = {
    "lstm": LSTM,
    "lstm projected both": dataclasses.replace(LSTM, d_projection=4, direction="both"),
    "gru": dataclasses.replace(LSTM, cell="gru"),
    "gru both, two biases": dataclasses.replace(LSTM, cell="gru", direction="both", recurrent_bias=True),
    "elman": dataclasses.replace(LSTM, cell="elman_relu", num_layers=3),
}
GRU_ORIGINAL = dataclasses.replace(LSTM, cell="gru_original", direction="both")
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def random_params(config: RNNConfig, seed: int = 0) -> dict:
    """Every parameter of a model, as stored: the rows that pad the vocabulary are zero."""
    rng = np.random.default_rng(seed)

    def array(spec):
        stored = np.zeros(spec.shape, np.float32)
        stored[tuple(slice(0, size) for size in spec.visible_shape)] = rng.normal(size=spec.visible_shape)
        return stored

    return jax.tree.map(array, zoo.create(config).abstract())


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    assert all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)


@each_config
def test_a_stack_survives_torchs_format_bit_for_bit(config):
    stack = random_params(config)["stack"]
    tensors = torch_rnn.stack_to_torch(stack, config)
    assert_same_bits(torch_rnn.stack_from_torch(tensors, config), stack)


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_survives_torchs_format_and_a_file_bit_for_bit(tied, tmp_path):
    config = dataclasses.replace(LSTM, d_model=6, tied=tied)
    params = random_params(config)
    write_tensors(tmp_path / "model.safetensors", torch_rnn.to_torch(params, config))
    tensors = read_tensors(tmp_path / "model.safetensors")
    assert tensors["encoder.weight"].shape == (9, 6), "padding was exported"
    assert_same_bits(torch_rnn.from_torch(tensors, config), params)


@pytest.mark.parametrize("case", goldens.CASES | goldens.MODELS)
def test_tensors_with_two_biases_survive_zoos_tree_bit_for_bit(case):
    settings = (goldens.CASES | goldens.MODELS)[case]
    tensors, config = goldens.weights(settings), config_of(settings)
    assert config.recurrent_bias
    if case in goldens.MODELS:
        back = torch_rnn.to_torch(torch_rnn.from_torch(tensors, config), config)
    else:
        back = torch_rnn.stack_to_torch(torch_rnn.stack_from_torch(tensors, config), config)
    assert list(back) == list(tensors)
    assert_same_bits(back, tensors)


def test_folded_biases_come_back_as_their_sum_beside_zero():
    settings = goldens.CASES["lstm"]
    tensors, config = goldens.weights(settings), config_of(settings, recurrent_bias=False)
    back = torch_rnn.stack_to_torch(torch_rnn.stack_from_torch(tensors, config), config)
    for end in ("l0", "l1"):
        expected = tensors[f"bias_ih_{end}"] + tensors[f"bias_hh_{end}"]
        np.testing.assert_array_equal(back[f"bias_ih_{end}"], expected)
        assert not np.any(back[f"bias_hh_{end}"])


def test_the_recurrent_bias_of_a_grus_candidate_is_never_folded():
    settings = goldens.CASES["gru"]
    tensors, config = goldens.weights(settings), config_of(settings, recurrent_bias=False)
    back = torch_rnn.stack_to_torch(torch_rnn.stack_from_torch(tensors, config), config)
    H, candidate = 7, slice(14, 21)
    np.testing.assert_array_equal(back["bias_hh_l0"][candidate], tensors["bias_hh_l0"][candidate])
    np.testing.assert_array_equal(back["bias_ih_l0"][candidate], tensors["bias_ih_l0"][candidate])
    assert not np.any(back["bias_hh_l0"][: 2 * H])


def test_a_state_dict_without_biases_has_biases_of_zero():
    settings = goldens.CASES["gru"]
    bare = {name: x for name, x in goldens.weights(settings).items() if "bias" not in name}
    config = torch_rnn.config_from_torch(bare)
    assert not config.recurrent_bias
    stack = torch_rnn.stack_from_torch(bare, config)
    assert not np.any(stack["layer1"]["b"]) and not np.any(stack["layer1"]["b_candidate"])


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_becomes_float32(dtype, tmp_path):
    settings = goldens.CASES["lstm"]
    half = {name: x.astype(dtype) for name, x in goldens.weights(settings).items()}
    write_tensors(tmp_path / "model.safetensors", half)
    tensors = read_tensors(tmp_path / "model.safetensors")
    assert {x.dtype for x in tensors.values()} == {np.dtype(dtype)}
    stack = torch_rnn.stack_from_torch(tensors, config_of(settings))
    assert {x.dtype for x in jax.tree.leaves(stack)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    "case, expected",
    {
        "elman_relu": {"cell": "elman_relu", "num_layers": 2, "d_model": 5, "d_state": 7},
        "lstm_projected_both": {"cell": "lstm", "direction": "both", "d_state": 7, "d_projection": 3},
        "gru_both": {"cell": "gru", "direction": "both", "d_projection": 0, "recurrent_bias": True},
        "model_lstm": {"cell": "lstm", "vocab_size": 11, "tied": False, "dropout_rate": 0.0},
        "model_gru_tied": {"cell": "gru", "vocab_size": 13, "tied": True, "d_model": 7},
    }.items(),
)
def test_tensors_tell_their_configuration(case, expected):
    config = config_of((goldens.CASES | goldens.MODELS)[case])
    assert {name: getattr(config, name) for name in expected} == expected


# --- what does not fit ----------------------------------------------------------------------------


def refusal(function, *arguments, **named) -> str:
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        function(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_tensors_that_do_not_fit_are_named_in_one_line():
    settings = goldens.MODELS["model_gru_tied"]
    tensors, config = goldens.weights(settings), config_of(settings)
    del tensors["rnn.bias_hh_l1"], tensors["decoder.bias"]
    tensors["rnn.weight_ih_l2"] = np.zeros((21, 7))
    tensors["rnn.weight_hh_l0"] = tensors["rnn.weight_hh_l0"].T
    tensors["decoder.weight"] = tensors["decoder.weight"] + 1
    assert refusal(torch_rnn.from_torch, tensors, config) == (
        "tensors do not fit this language model of 2 gru (missing: rnn.bias_hh_l1, decoder.bias; "
        "unexpected: rnn.weight_ih_l2; of another shape: rnn.weight_hh_l0 [7, 21], not [21, 7]; "
        "not tied to encoder: decoder.weight); take the config that config_from_torch reads from them"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value):
    """In half precision too, whose tensors are made float32 on the way."""
    settings = goldens.MODELS["model_lstm"]
    tensors = {name: np.zeros(shape, np.float16) for name, shape in goldens.shapes(settings).items()}
    config = config_of(settings)
    tensors["rnn.weight_hh_l0"][3, 1] = tensors["rnn.bias_ih_l0"][2] = value
    said = refusal(torch_rnn.from_torch, tensors, config)
    assert (
        said.startswith(f"tensor rnn.weight_hh_l0 is {value} at [3, 1], and so ") and "rnn.bias_ih_l0" in said
    )
    recurrent = {name.removeprefix("rnn."): x for name, x in tensors.items() if name.startswith("rnn.")}
    said = refusal(torch_rnn.stack_from_torch, recurrent, config)
    assert said.startswith(f"tensor weight_hh_l0 is {value} at [3, 1]")
    weights = keras_weights("lstm", 2)
    weights[1][4][0, 2] = value
    said = refusal(keras_rnn.stack_from_keras, weights, keras_config("lstm", weights))
    assert said.startswith(f"tensor layer1_reverse/recurrent_kernel is {value} at [0, 2];")


def test_an_elman_networks_nonlinearity_must_be_told():
    tensors = goldens.weights(goldens.CASES["elman_tanh"])
    message = refusal(torch_rnn.config_from_torch, tensors)
    assert message.startswith("nonlinearity='': say 'tanh' or 'relu'")
    assert refusal(torch_rnn.config_from_torch, tensors, nonlinearity="sigmoid").startswith(
        "nonlinearity='sigmoid'"
    )
    assert torch_rnn.config_from_torch(tensors, nonlinearity="tanh").cell == "elman_tanh"


@pytest.mark.parametrize(
    "tensors, words",
    [
        ({}, "no tensors"),
        ({"lstm.weight_ih_l0": np.zeros((8, 3))}, "among lstm.weight_ih_l0; give the state dict"),
        ({f"weight_{side}_l0": np.zeros(3) for side in ("ih", "hh")}, "no matrices weight_ih_l0"),
        ({f"weight_{side}_l0": np.zeros((10, 5)) for side in ("ih", "hh")}, "has 10 rows for 5 units"),
        (
            {f"weight_{side}_l0": np.zeros((5, 5)[side == "hr" :]) for side in ("ih", "hh", "hr")},
            "no matrices",
        ),
    ],
)
def test_tensors_of_no_recurrent_network_are_refused(tensors, words):
    assert words in refusal(torch_rnn.config_from_torch, tensors)


def test_layers_that_torch_does_not_have_are_refused():
    message = refusal(torch_rnn.stack_to_torch, {}, GRU_ORIGINAL)
    assert message.startswith("cell=gru_original resets before the matmul, which torch's GRU does not")
    awd_lstm = zoo.create("awd_lstm").config
    assert refusal(torch_rnn.stack_from_torch, {}, awd_lstm).startswith(
        "layers of widths 1150, 1150, 400 are not one torch module"
    )


def test_a_file_that_is_not_safetensors_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04 a pickle, perhaps")
    assert "model.safetensors: not a whole safetensors file" in refusal(
        read_tensors, tmp_path / "model.safetensors"
    )
    assert "missing.safetensors: cannot be read" in refusal(read_tensors, tmp_path / "missing.safetensors")


# --- Keras: loops over its documented equations ---------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def keras_lstm(x, state, kernel, recurrent_kernel, bias):
    h, c = state
    i, f, candidate, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
    return sigmoid(o) * np.tanh(c), c


def keras_gru_reset_after(x, state, kernel, recurrent_kernel, bias):
    (h,) = state
    x_z, x_r, x_h = np.split(x @ kernel + bias[0], 3, axis=-1)
    h_z, h_r, h_h = np.split(h @ recurrent_kernel + bias[1], 3, axis=-1)
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    return (z * h + (1 - z) * np.tanh(x_h + r * h_h),)


def keras_gru(x, state, kernel, recurrent_kernel, bias):
    (h,) = state
    x_z, x_r, x_h = np.split(x @ kernel + bias, 3, axis=-1)
    u_z, u_r, u_h = np.split(recurrent_kernel, 3, axis=-1)
    z, r = sigmoid(x_z + h @ u_z), sigmoid(x_r + h @ u_r)
    return (z * h + (1 - z) * np.tanh(x_h + (r * h) @ u_h),)


def keras_simple(x, state, kernel, recurrent_kernel, bias):
    return (np.tanh(x @ kernel + state[0] @ recurrent_kernel + bias),)


# Per case: the step, the layer's class and arguments, gates, and how many biases.
KERAS = {
    "lstm": (keras_lstm, "LSTM", {}, 4, 1),
    "gru": (keras_gru_reset_after, "GRU", {"reset_after": True}, 3, 2),
    "gru_original": (keras_gru, "GRU", {"reset_after": False}, 3, 1),
    "elman_tanh": (keras_simple, "SimpleRNN", {}, 1, 1),
}
DIRECTIONS = pytest.mark.parametrize("num_directions", [1, 2], ids=["forward", "both"])


def keras_weights(cell: str, num_directions: int, num_layers: int = 2, units: int = 4, width: int = 3):
    """Random arrays, one list a layer, in the order of get_weights()."""
    rng, (_, _, _, gates, biases) = np.random.default_rng(3), KERAS[cell]
    weights = []
    for _ in range(num_layers):
        bias = (gates * units,) if biases == 1 else (2, gates * units)
        shapes = [(width, gates * units), (units, gates * units), bias] * num_directions
        weights.append([rng.normal(0, 0.6, shape) for shape in shapes])
        width = num_directions * units
    return weights


def keras_loop(cell: str, weights, x_BTD):
    """The outputs of stacked layers, a step at a time, in float64."""
    step, units = KERAS[cell][0], weights[0][1].shape[0]
    for arrays in weights:
        sides = []
        for side in range(len(arrays) // 3):
            state = tuple(np.zeros((len(x_BTD), units)) for _ in range(2 if cell == "lstm" else 1))
            times = range(x_BTD.shape[1])
            outputs = {}
            for t in reversed(times) if side else times:
                state = step(x_BTD[:, t], state, *arrays[3 * side :][:3])
                outputs[t] = state[0]
            sides.append(np.stack([outputs[t] for t in times], axis=1))
        x_BTD = np.concatenate(sides, axis=-1)
    return x_BTD


def keras_config(cell: str, weights) -> RNNConfig:
    config = keras_rnn.config_from_keras(weights, activation=cell.removeprefix("elman_"))
    assert config.cell == cell
    return config


@pytest.mark.parametrize("recurrent_bias", [True, False], ids=["two biases", "one bias"])
@DIRECTIONS
@pytest.mark.parametrize("cell", KERAS)
def test_zoo_computes_kerass_equations(cell, num_directions, recurrent_bias):
    weights = keras_weights(cell, num_directions)
    config = dataclasses.replace(keras_config(cell, weights), recurrent_bias=recurrent_bias, dtype="float64")
    assert config.num_directions == num_directions
    x = np.random.default_rng(4).normal(size=(2, 5, 3))
    with jax.enable_x64(True):
        stack = keras_rnn.stack_from_keras(weights, config)
        found, _ = jax.jit(
            lambda stack, x: Stack(config).apply({"params": stack}, x, None), compiler_options=QUICK
        )(stack, x)
    assert deviation(np.asarray(found), keras_loop(cell, weights, x)) <= TOLERANCE["float64"]


@DIRECTIONS
@pytest.mark.parametrize("cell", KERAS)
def test_arrays_survive_zoos_tree_on_their_way_back_to_keras(cell, num_directions):
    weights = keras_weights(cell, num_directions)
    config = keras_config(cell, weights)
    stack = keras_rnn.stack_from_keras(weights, config)
    assert_same_bits(keras_rnn.stack_to_keras(stack, config), weights)
    assert_same_bits(keras_rnn.stack_from_keras(keras_rnn.stack_to_keras(stack, config), config), stack)


def test_keras_layers_without_biases_have_biases_of_zero():
    weights = [[arrays[0], arrays[1], arrays[3], arrays[4]] for arrays in keras_weights("lstm", 2)]
    config = keras_rnn.config_from_keras(weights)
    assert config.direction == "both"
    stack = keras_rnn.stack_from_keras(weights, config)
    np.testing.assert_array_equal(stack["layer1_reverse"]["w"].reshape(4, 16), weights[1][3])
    assert not np.any(stack["layer1_reverse"]["b"])


def test_all_keras_arrays_that_do_not_fit_are_named_in_one_line():
    weights = keras_weights("gru", 1)
    config = keras_config("gru", weights)
    weights[1] = weights[1][:1] + [weights[1][2]]
    weights[0].append(np.zeros(3))
    assert refusal(keras_rnn.stack_from_keras, weights, config) == (
        "tensors do not fit this stack of 2 gru (missing: layer1/bias; unexpected: layer0_1/kernel; "
        "of another shape: layer1/recurrent_kernel [2, 12], not [4, 12]); "
        "take the config that config_from_keras reads from them"
    )


def test_what_keras_does_not_tell_or_have_is_refused():
    simple = keras_weights("elman_tanh", 1)
    assert refusal(keras_rnn.config_from_keras, simple).startswith("activation='': say 'tanh' or 'relu'")
    assert "layers of [] arrays" in refusal(keras_rnn.config_from_keras, [])
    assert "layers of [3, 6] arrays" in refusal(keras_rnn.config_from_keras, [simple[0], simple[0] * 2])
    five = [np.zeros((3, 10)), np.zeros((5, 10)), np.zeros(10)]
    assert "10 columns for 5 units" in refusal(keras_rnn.config_from_keras, [five])
    projected = dataclasses.replace(LSTM, d_projection=4)
    assert "Keras's LSTM has no projection" in refusal(keras_rnn.stack_to_keras, {}, projected)


# --- torch and Keras, live ------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


LIVE = {
    "RNN tanh": {"kind": "RNN", "nonlinearity": "tanh", "input_size": 3, "hidden_size": 16, "num_layers": 3},
    "RNN relu both": {"kind": "RNN", "nonlinearity": "relu", "input_size": 12, "hidden_size": 5}
    | {"num_layers": 1, "bidirectional": True},
    "LSTM both": {"kind": "LSTM", "input_size": 9, "hidden_size": 11, "num_layers": 3, "bidirectional": True},
    "LSTM projected": {"kind": "LSTM", "input_size": 6, "hidden_size": 13, "num_layers": 3, "proj_size": 4},
    "GRU both": {"kind": "GRU", "input_size": 10, "hidden_size": 6, "num_layers": 2, "bidirectional": True},
    "GRU": {"kind": "GRU", "input_size": 4, "hidden_size": 9, "num_layers": 3},
}


@pytest.mark.parity
@each_dtype
@pytest.mark.parametrize("case", LIVE)
def test_zoo_computes_what_torch_does(case, dtype, torch, tmp_path):
    settings = LIVE[case]
    module, given = goldens.torch_module(settings), goldens.inputs(settings, seed=5)
    goldens.set_weights(module, goldens.weights(settings, seed=5))
    from safetensors.torch import save_file

    save_file(module.state_dict(), tmp_path / "model.safetensors")
    tensors = read_tensors(tmp_path / "model.safetensors")
    config = torch_rnn.config_from_torch(tensors, nonlinearity=settings.get("nonlinearity", ""))
    found = zoo_layer_values(tensors, given, config, dtype)
    assert_equal(found, goldens.layer_values(module, settings, given), TOLERANCE[dtype])


@pytest.mark.parity
@pytest.mark.parametrize("recurrent_bias", [True, False], ids=["two biases", "one bias"])
@pytest.mark.parametrize("case", goldens.MODELS)
def test_torch_computes_the_same_from_what_zoo_writes(case, recurrent_bias, torch, tmp_path):
    from safetensors.torch import load_file

    settings = goldens.MODELS[case]
    config = config_of(settings, recurrent_bias=recurrent_bias)
    params = random_params(config, seed=7)
    write_tensors(tmp_path / "model.safetensors", torch_rnn.to_torch(params, config))
    module = goldens.torch_module(settings).float()
    module.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    tokens = goldens.tokens(settings)
    with torch.no_grad():
        expected = module(torch.from_numpy(tokens)).numpy()
    found = np.asarray(jax.jit(zoo.create(config).apply)(params, tokens))
    assert deviation(found, expected) <= TOLERANCE["float32"]


@pytest.mark.parity
def test_the_goldens_are_what_their_script_makes_today(torch):
    for case in [*goldens.CASES, *goldens.MODELS]:
        for name, array in goldens.golden(case).items():
            stored = GOLDENS[f"{case}/{name}"]
            if array.dtype == np.float64:
                assert deviation(array, stored) <= 1e-12, f"{case}/{name}"
            else:
                np.testing.assert_array_equal(array, stored)


@pytest.mark.parity
@DIRECTIONS
@pytest.mark.parametrize("cell", KERAS)
def test_zoo_computes_what_keras_does(cell, num_directions, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    _, kind, arguments, _, _ = KERAS[cell]
    inputs = keras.Input((5, 3))
    layers, x = [], inputs
    for _ in range(2):
        layer = getattr(keras.layers, kind)(4, return_sequences=True, **arguments)
        layers.append(layer if num_directions == 1 else keras.layers.Bidirectional(layer))
        x = layers[-1](x)
    weights = [[a.astype(np.float32) for a in arrays] for arrays in keras_weights(cell, num_directions)]
    config = keras_config(cell, weights)
    stack = keras_rnn.stack_from_keras(weights, config)
    for layer, arrays in zip(layers, keras_rnn.stack_to_keras(stack, config), strict=True):
        layer.set_weights(arrays)
    given = np.random.default_rng(4).normal(size=(2, 5, 3)).astype(np.float32)
    found, _ = jax.jit(lambda stack, x: Stack(config).apply({"params": stack}, x, None))(stack, given)
    expected = np.asarray(keras.Model(inputs, x)(given))
    assert deviation(np.asarray(found), expected) <= TOLERANCE["float32"]
    assert deviation(expected, keras_loop(cell, weights, given)) <= TOLERANCE["float32"]
