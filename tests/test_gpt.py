"""GPT against its papers: counts, first values, operations, and who sees whom."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import features, first_values, jit, logits, parameters, tiny, tokens

import zoo.models
from zoo.errors import ConfigError
from zoo.models.gpt import SIZES, GPTConfig
from zoo.recipes import CONFIGS

TINY = tiny(GPTConfig)

# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, count",
    [
        ("gpt2", 124_439_808),
        ("gpt2_medium", 354_823_168),
        ("gpt2_large", 774_030_080),
        ("gpt2_xl", 1_557_611_200),
    ],
)
def test_gpt2_has_the_parameters_that_were_released(size, count):
    assert zoo.models.create(size).num_params() == count


@pytest.mark.parametrize(
    "size, millions",
    [
        ("gpt3_small", 125),
        ("gpt3_medium", 350),
        ("gpt3_large", 760),
        ("gpt3_xl", 1_300),
        ("gpt3_2.7b", 2_700),
        ("gpt3_6.7b", 6_700),
        ("gpt3_13b", 13_000),
        ("gpt3_175b", 175_000),
    ],
)
def test_gpt3_has_the_parameters_of_its_name(size, millions):
    # The names are rounded to two or three digits: 1.3 stands for anything within 4 % of it, and the
    # furthest of the eight, 2.65 named 2.7, is 1.8 % off. A wrong width or depth is off by more.
    assert abs(zoo.models.create(size).num_params() / (millions * 1e6) - 1) < 0.02


def test_nanogpts_character_model_has_the_parameters_it_prints():
    # "number of parameters: 0.80M" of train_shakespeare_char.py with the README's CPU settings, which leaves
    # the 64 x 128 positions out.
    config = dataclasses.replace(CONFIGS["gpt_shakespeare_char"].model, vocab_size=65)
    assert not config.bias and config.activation == "gelu"
    count = zoo.models.create(config).num_params()
    assert round((count - config.max_length * config.d_model) / 1e6, 2) == 0.80


# --- first values ---------------------------------------------------------------------------------


def test_first_values_are_spread_as_published():
    config = dataclasses.replace(TINY, num_layers=4, d_model=64, d_ff=0, vocab_size=300)
    model = zoo.models.create(config)
    params = first_values(model)
    branch = 0.02 / math.sqrt(2 * 4)
    for path, spec in jax.tree_util.tree_leaves_with_path(model.abstract()):
        names = [key.key for key in path]
        values = params
        for name in names:
            values = values[name]
        values = np.asarray(spec.visible(values), np.float64)
        if names[-1] in ("b", "bias"):
            assert np.all(values == 0), names
        elif names[-1] == "scale":
            assert np.all(values == 1), names
        else:
            std = branch if names[-2] in ("out", "down") else 0.02
            # The sampling error of a standard deviation is std / sqrt(2 n), of a mean std / sqrt(n).
            for layer in values if spec.letters.startswith("N") else [values]:
                assert abs(layer.std() / std - 1) < 4 / math.sqrt(2 * layer.size), names
                assert abs(layer.mean() / std) < 4 / math.sqrt(layer.size), names


def test_no_two_layers_or_kernels_start_with_the_same_values():
    params = first_values(zoo.models.create(TINY))
    firsts = [float(np.ravel(layer)[0]) for leaf in jax.tree.leaves(params["blocks"]) for layer in leaf]
    random = [first for first in firsts if first not in (0.0, 1.0)]
    assert len(random) == 6 * TINY.num_layers == len(set(random))


def test_the_first_loss_is_that_of_a_guess():
    model = zoo.models.create(TINY)
    out = logits(model, first_values(model), {"tokens": tokens(model)})
    nats = -jax.nn.log_softmax(out).mean()
    assert abs(float(nats) - math.log(TINY.vocab_size)) < 0.01


# --- operations -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, full, causal",
    [  # GFLOP per token at T=1024, by hand from the released configurations and counts of four digits
        ("gpt2", 0.8596, 0.8030),
        ("gpt2_medium", 2.431, 2.280),
        ("gpt2_large", 5.210, 4.927),
        ("gpt2_xl", 10.289, 9.818),
    ],
)
def test_flops_per_token_equal_the_figures_derived_by_hand(size, full, causal):
    flops = SIZES[size].flops_per_token(1024)
    # Counts of four digits (124.4 million) are exact to 0.05 %, the two conventions 6 % apart.
    assert flops.full / 1e9 == pytest.approx(full, rel=5e-4)
    assert flops.causal / 1e9 == pytest.approx(causal, rel=5e-4)


def counted_flops(config, length):
    """What XLA counts in a forward pass of one row, before it optimises anything."""
    model = zoo.models.create(dataclasses.replace(config, layer_unroll=0))
    params = jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), model.abstract())
    row = jax.ShapeDtypeStruct((1, length), jnp.int32)
    analysis = jax.jit(model.apply).lower(params, row).cost_analysis()
    return (analysis[0] if isinstance(analysis, list) else analysis)["flops"]


def test_flops_per_token_are_three_times_what_xla_counts_forward():
    config = SIZES["gpt2"]
    forward = {length: counted_flops(config, length) for length in (128, 1024)}
    for length, flops in forward.items():
        # We count the positions' table (0.6 %), which is looked up and not multiplied; XLA counts softmax,
        # norms and GELU (about as much).
        assert flops / length == pytest.approx(config.flops_per_token(length).full / 3, rel=0.01)
    # The part that grows with the row, by itself: 12 N D T / 3. XLA adds the softmax, five operations a score
    # where the two matmuls of a head have 4 x 64.
    per_token = forward[1024] / 1024 - forward[128] / 128
    N, D = config.num_layers, config.d_model
    assert per_token == pytest.approx(4 * N * D * (1024 - 128), rel=0.04)


# --- who sees whom --------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", [False, True])
def test_gpt_cannot_see_the_future_by_its_gradients(segments):
    model = zoo.models.create(TINY)
    params, x = parameters(model), tokens(model, rows=1, length=8)
    inputs = {"tokens": x}
    if segments:
        inputs |= {"segments": np.asarray([[1, 1, 1, 2, 2, 2, 2, 2]]), "positions": np.arange(8)[None] % 3}

    def sums(onto_TD):
        """Of each position's features, as a function of what is added to each token's vector."""
        table = jnp.asarray(params["tokens"]["table"])
        # A word of its own for every position: row t of the table is position t's vector.
        words = jnp.zeros_like(table).at[:8].set(table[x[0]] + onto_TD)
        moved = params | {"tokens": {"table": words}}
        x_BTD, _ = model.features(moved, inputs | {"tokens": jnp.arange(8)[None]})
        return (x_BTD[0] * jnp.arange(1, 1 + TINY.d_model)).sum(-1)

    jacobian = np.abs(jit(jax.jacobian(sums))(jnp.zeros((8, TINY.d_model)))).sum(-1)  # [out, in]
    may_see = np.tri(8, dtype=bool)
    if segments:
        may_see &= inputs["segments"].T == inputs["segments"]
    np.testing.assert_array_equal(jacobian > 0, may_see)


def test_every_layer_drops_its_own_entries():
    """With nothing in the stream but 1 from the first layer and 10 from the second, each half dropped, a
    position holds four different numbers; if both dropped the same entries it would hold two."""
    config = dataclasses.replace(TINY, num_layers=2, d_model=64, d_ff=8, dropout_rate=0.5)
    model = zoo.models.create(config)
    params = jax.tree.map(lambda spec: np.zeros(spec.shape, np.float32), model.abstract())
    params["blocks"]["mlp"]["down"]["b"][:] = [[1.0], [10.0]]
    params["norm"]["scale"][:] = 1.0
    out = features_in_training(model, params, np.zeros((1, 4), np.int32), jax.random.key(0))
    for position in np.asarray(out)[0]:
        assert len(np.unique(position.round(3))) == 4


def features_in_training(model, params, x, key):
    return jit(lambda params: model.features(params, x, train=True, rngs={"dropout": key})[0])(params)


def test_positions_tell_equal_tokens_apart():
    model = zoo.models.create(TINY)
    params = parameters(model)
    same = np.full((3, 12), 7, np.int32)
    out = np.asarray(features(model, params, {"tokens": same}))
    assert len({position.tobytes() for position in out[0]}) == 12


# --- bad configurations ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"d_model": 768, "num_heads": 10}, ["d_model=768", "num_heads=10", "8 and 12 divide it"]),
        ({"num_layers": 0}, ["num_layers=0", "at least 1"]),
        ({"num_heads": 0}, ["num_heads=0", "at least 1"]),
        ({"max_length": -1}, ["max_length=-1", "at least 1"]),
        ({"d_model": 0}, ["d_model=0", "at least 1"]),
        ({"vocab_size": -5}, ["vocab_size=-5", "negative"]),
        ({"d_ff": -1}, ["d_ff=-1", "negative"]),
        ({"layer_unroll": -1}, ["layer_unroll=-1", "negative"]),
        ({"dropout_rate": 1.0}, ["dropout_rate=1.0", "less than 1"]),
        ({"dropout_rate": -0.1}, ["dropout_rate=-0.1", "at least 0"]),
        ({"dropout_rate": math.nan}, ["dropout_rate=nan"]),
        ({"activation": "gelu_tahn"}, ["activation='gelu_tahn'", "did you mean 'gelu_tanh'"]),
        ({"remat": "ful"}, ["remat='ful'", "did you mean 'full'"]),
        ({"dtype": "float16"}, ["dtype='float16'", "bfloat16"]),
    ],
)
def test_a_bad_configuration_is_one_line_with_the_value_and_the_remedy(changes, words):
    with pytest.raises(ConfigError) as caught:
        GPTConfig(**changes)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_an_unknown_model_is_one_line_with_the_nearest_name():
    with pytest.raises(ConfigError, match="^unknown model 'gtp2'; did you mean 'gpt2'?[^\n]*$"):
        zoo.models.create("gtp2")


def test_a_name_and_its_configuration_are_the_same_model():
    assert zoo.models.create("gpt2") == zoo.models.create(GPTConfig())
    assert zoo.models.list_models("gpt2*") == ["gpt2", "gpt2_large", "gpt2_medium", "gpt2_xl"]


def test_layers_read_one_checkpoint_however_they_are_run():
    scanned, unrolled = TINY, dataclasses.replace(TINY, layer_unroll=0, remat="full")
    assert zoo.models.create(scanned).abstract() == zoo.models.create(unrolled).abstract()
