"""ModernBERT: the release's parameter counts, PyTorch's numbers, and facts peculiar to it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit, parameters
from goldens import modernbert as goldens

import zoo
from zoo.errors import CheckpointError, ConfigError
from zoo.models.classifier import ClassifierConfig
from zoo.models.depth import depths
from zoo.models.modernbert import SIZES, ModernBERTConfig
from zoo.models.tagger import TaggerConfig
from zoo.pretrained.modernbert import config_from_hf, config_to_hf, from_hf, places, to_hf
from zoo.tree import named_leaves

each_case = pytest.mark.parametrize("case", goldens.CASES)

# Of ModernBertForMaskedLM in transformers 5.24, counted there.
PARAMETERS = {"modernbert_base": 149_655_232, "modernbert_large": 395_881_664}


@pytest.mark.parametrize("size", PARAMETERS)
def test_the_published_sizes_have_their_parameters(size):
    assert zoo.create(size).num_params() == PARAMETERS[size]


# --- PyTorch's numbers ----------------------------------------------------------------------------


def shapes_of(config) -> dict[str, tuple[int, ...]]:
    return {name: place.shape for name, place in places(config).items()}


def weights_of(case: str) -> dict[str, np.ndarray]:
    """The golden's weights, drawn again."""
    drawn = goldens.weights(case, shapes_of(config_from_hf(goldens.CASES[case])))
    assert goldens.digest(drawn) == str(golden(case)["digest"])
    return drawn


@functools.cache
def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(goldens.FILE) as file:
        return {
            name.removeprefix(f"{case}/"): file[name] for name in file.files if name.startswith(f"{case}/")
        }


def computed(case: str, dtype: str):
    """(logits, loss, gradients under Hugging Face's names), in float64 or float32."""
    config = dataclasses.replace(config_from_hf(goldens.CASES[case]), dtype=dtype)
    tensors = {name: x.astype(dtype) for name, x in weights_of(case).items()}
    given, model = goldens.batch(case), zoo.create(config)
    inputs = {"tokens": given["tokens"], "lengths": np.array(goldens.LENGTHS)}
    counts, labels = given["labels"] >= 0, np.maximum(given["labels"], 0)

    def loss(params):
        logits_BTV = model.apply(params, inputs)
        logp_BT = jnp.take_along_axis(jax.nn.log_softmax(logits_BTV), labels[..., None], -1)[..., 0]
        return -(logp_BT * counts).sum() / counts.sum(), logits_BTV

    (value, logits), gradients = jit(jax.value_and_grad(loss, has_aux=True))(from_hf(tensors, config))
    return np.asarray(logits)[given["mask"]], float(value), to_hf(gradients, config)


@each_case
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
def test_logits_loss_and_gradients_are_pytorchs(case, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        logits, loss, gradients = computed(case, dtype)
    want = golden(case)
    assert np.abs(logits - want["logits"]).max() <= tolerance * np.abs(want["logits"]).max()
    assert abs(loss - want["loss"]) <= tolerance * want["loss"]
    assert {f"gradient/{name}" for name in gradients} == {name for name in want if "gradient/" in name}
    for name, gradient in gradients.items():
        wanted = want[f"gradient/{name}"]
        assert np.abs(gradient - wanted).max() <= tolerance * np.abs(wanted).max(), name


# --- Hugging Face's names -------------------------------------------------------------------------


@each_case
def test_tensors_and_settings_go_there_and_back_unchanged(case):
    config = config_from_hf(goldens.CASES[case])
    tensors = weights_of(case)
    again = to_hf(from_hf(tensors, config), config)
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)
    assert config_from_hf(config_to_hf(config)) == config


@pytest.mark.parametrize("size", SIZES)
def test_every_published_size_has_a_config_json(size):
    assert config_from_hf(config_to_hf(SIZES[size])) == SIZES[size]


def test_a_config_json_that_lists_every_layer_means_the_same():
    old = goldens.CASES["every_second"]
    new = {name: value for name, value in old.items() if not name.startswith(("global", "local_rope"))}
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    ropes = {
        "full_attention": {"rope_type": "default", "rope_theta": 90.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
    }
    assert config_from_hf(new | {"layer_types": kinds, "rope_parameters": ropes}) == config_from_hf(old)


def test_a_repeated_output_layer_is_read_where_it_is_the_words_table():
    config, tensors = config_from_hf(goldens.CASES["released"]), weights_of("released")
    words = tensors["model.embeddings.tok_embeddings.weight"]
    found = from_hf(tensors | {"decoder.weight": words}, config)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(from_hf(tensors, config)), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(CheckpointError, match="not tied to the words: decoder.weight"):
        from_hf(tensors | {"decoder.weight": words + 1}, config)


def test_tensors_that_do_not_fit_are_listed_in_one_line():
    config, tensors = config_from_hf(goldens.CASES["released"]), weights_of("released")
    tensors["model.layers.0.attn_norm.weight"] = tensors.pop("model.layers.1.attn_norm.weight")
    tensors["model.layers.2.mlp.Wi.weight"] = np.zeros((14, 12))
    with pytest.raises(CheckpointError) as caught:
        from_hf(tensors, config)
    said = str(caught.value)
    assert "\n" not in said and "missing: model.layers.1.attn_norm.weight" in said
    assert "unexpected: model.layers.0.attn_norm.weight" in said
    assert "model.layers.2.mlp.Wi.weight [14, 12], not [28, 12]" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "bert"}, "model_type='bert'"),
        ({"norm_bias": True}, "norm_bias=True, but zoo's ModernBERT has only False"),
        ({"hidden_activation": "tanh", "classifier_activation": "tanh"}, "'tanh' is none of gelu"),
        ({"hidden_activation": "relu"}, "hidden_activation=relu, classifier_activation=gelu"),
        ({"mlp_dropout": 0.1}, "mlp_dropout=0.1, but zoo's ModernBERT has one for all"),
        ({"layer_types": ["full_attention"] * 3 + ["sliding_attention"]}, "every n-th"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "every n-th"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type='yarn'"),
    ],
)
def test_a_setting_that_modernbert_here_has_not_is_refused(changes, said):
    with pytest.raises(CheckpointError, match=said):
        config_from_hf(goldens.CASES["released"] | changes)


# --- facts peculiar to it -------------------------------------------------------------------------

TINY = ModernBERTConfig(
    vocab_size=50, max_length=24, num_layers=2, num_heads=2, d_model=8, d_ff=6, reach=3, global_every=2
)


def test_the_second_layer_sees_its_reach_on_either_side_and_the_first_the_whole_row():
    """Read off as a word is exchanged, with the attention of the other layer switched off."""
    model, params = zoo.create(TINY), parameters(zoo.create(TINY))
    words = np.arange(12)[None]
    exchanged = words.copy()
    exchanged[0, 6] = 40
    for layer, seeing in ((0, range(12)), (1, range(3, 10))):
        only = jax.tree.map(np.copy, params)
        only["blocks"]["attention"]["out"]["w"][1 - layer] = 0.0
        one, other = (np.asarray(jit(model.features)(only, x)[0]) for x in (words, exchanged))
        assert list(np.flatnonzero(np.any(one != other, axis=-1)[0])) == list(seeing)


def test_moving_every_position_alike_changes_nothing_and_stretching_them_does():
    model, params = zoo.create(TINY), parameters(zoo.create(TINY))
    tokens, positions = np.arange(10)[None] + 5, np.arange(10)[None]
    read = jit(model.features)
    plain, moved, stretched = (
        np.asarray(read(params, {"tokens": tokens, "positions": at})[0])
        for at in (positions, positions + 100, positions * 2)
    )
    # An angle of 100 radians is exact to 4e-6 in float32.
    np.testing.assert_allclose(moved, plain, atol=1e-4)
    assert np.abs(stretched - plain).max() > 1e-2


@pytest.mark.parametrize(
    "config",
    [ClassifierConfig(TINY, num_classes=3, pooling="mean", d_hidden=0), TaggerConfig(TINY, num_tags=4)],
    ids=["classifier", "tagger"],
)
def test_heads_read_its_features_without_the_head_for_masked_words(config):
    model = zoo.create(config)
    assert not {"transform", "transform_norm", "bias"} & model.abstract()["encoder"].keys()
    assert model.num_params() == config.num_params
    inputs = {"tokens": np.ones((2, 5), int), "lengths": np.array([5, 2])}
    x, _ = jit(model.features)(parameters(model), inputs)
    assert np.isfinite(x).all()


def test_fine_tuning_counts_its_layers_from_the_embedding_up():
    found = named_leaves(depths(zoo.create(TINY)))
    assert found["tokens/table"] == found["norm/scale"] == 0
    assert found["blocks/norm2/scale"].ravel().tolist() == [1, 2]
    assert found["transform/w"] == found["bias"] == 3


def test_an_empty_row_is_finite_in_value_and_gradient():
    model, params = zoo.create(TINY), parameters(zoo.create(TINY))
    inputs = {"tokens": np.ones((2, 5), int), "lengths": np.array([5, 0])}
    value, gradients = jit(jax.value_and_grad(lambda p: model.apply(p, inputs).sum()))(params)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize("length", [1, 3, 4, 17])
def test_operations_are_counted_by_what_each_layer_sees(length):
    """Pairs counted one by one: 12 D for each, over the row's positions."""
    config = dataclasses.replace(TINY, num_layers=5)  # global, local, global, local, global
    near = sum(abs(t - s) <= config.reach for t in range(length) for s in range(length))
    pairs = 3 * length**2 + 2 * near
    want = 6 * config.num_params + 12 * config.d_model * pairs / length
    assert config.flops_per_token(length).full == pytest.approx(want, rel=1e-12)
    assert config.flops_per_token(length).causal == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_heads": 3}, "d_model=8 is not a multiple of num_heads=3"),
        ({"num_heads": 8}, "d_model=8 over num_heads=8 is 1, but rotary positions turn pairs"),
        ({"d_ff": 0}, "d_ff=0 must be at least 1"),
        ({"reach": 0}, "reach=0 must be at least 1"),
        ({"global_every": 0}, "global_every=0 must be at least 1"),
        ({"local_rotary_base": 1.0}, "local_rotary_base=1.0"),
        ({"norm_epsilon": 0.0}, "norm_epsilon=0.0"),
        ({"activation": "gelo"}, "did you mean 'gelu'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(TINY, **changes)


def test_states_are_refused():
    model, params = zoo.create(TINY), parameters(zoo.create(TINY))
    with pytest.raises(ValueError, match="reads whole rows"):
        model.features(params, np.ones((1, 3), int), state={})
    with pytest.raises(ValueError, match="no state to go on from"):
        model.initial_state(1, 3)
