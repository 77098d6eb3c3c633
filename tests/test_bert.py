"""BERT: the papers' parameter counts, PyTorch's numbers, and facts peculiar to it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit
from goldens import bert as goldens

import zoo
from zoo.errors import CheckpointError, ConfigError
from zoo.models.bert import SIZES, BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.pretrained.bert import config_from_hf, config_to_hf, from_hf, places, to_hf

each_case = pytest.mark.parametrize("case", goldens.CASES)

# Of ...ForMaskedLM in transformers 5.24, counted there; BERT's two stand in many papers.
PARAMETERS = {
    "bert_tiny": 4_416_698,
    "bert_mini": 11_201_594,
    "bert_small": 28_795_194,
    "bert_medium": 41_404_730,
    "bert_base": 109_514_298,
    "bert_large": 335_174_458,
    "roberta_base": 124_697_433,
    "roberta_large": 355_412_057,
    "distilbert_base": 66_985_530,
}


@pytest.mark.parametrize("size", PARAMETERS)
def test_the_published_sizes_have_their_parameters(size):
    assert zoo.create(size).num_params() == PARAMETERS[size]


def test_minilm_is_a_bert_by_its_config_json():
    """12 heads of 32; of its sentence encoder 22,713,216 parameters are published, a pooler's among them."""
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
    config = config_from_hf({"model_type": "bert", "num_attention_heads": 12} | sizes)
    assert config.dims["K"] == 32
    assert config.num_feature_params + 384 * 384 + 384 == 22_713_216


# --- PyTorch's numbers ----------------------------------------------------------------------------


def shapes_of(config) -> dict[str, tuple[int, ...]]:
    return {name: place.shape for name, place in places(config).items()}


def weights_of(case: str, config) -> dict[str, np.ndarray]:
    """The golden's weights, drawn again."""
    drawn = goldens.weights(case, shapes_of(config))
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
    tensors = {name: x.astype(dtype) for name, x in weights_of(case, config).items()}
    given, model = goldens.batch(case), zoo.create(config)
    inputs = {"tokens": given["tokens"], "lengths": np.array(goldens.LENGTHS)}
    if config.num_token_types > 1:
        inputs["token_types"] = given["token_types"]
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
    wanted = want["logits"][goldens.batch(case)["mask"]]
    assert np.abs(logits - wanted).max() <= tolerance * np.abs(wanted).max()
    assert abs(loss - want["loss"]) <= tolerance * want["loss"]
    assert {f"gradient/{name}" for name in gradients} == {name for name in want if "gradient/" in name}
    for name, gradient in gradients.items():
        wanted = want[f"gradient/{name}"]
        # A key's bias moves all scores of a query alike, so its gradient is zero but for rounding, that of
        # its kernel's gradient.
        beside = name.replace(".bias", ".weight") if name.endswith(("key.bias", "k_lin.bias")) else name
        scale = np.abs(want[f"gradient/{beside}"]).max()
        assert np.abs(gradient - wanted).max() <= tolerance * scale, name


# --- Hugging Face's names -------------------------------------------------------------------------


@each_case
def test_tensors_and_settings_go_there_and_back_unchanged(case):
    config = config_from_hf(goldens.CASES[case])
    tensors = weights_of(case, config)
    again = to_hf(from_hf(tensors, config), config)
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)
    assert config_from_hf(config_to_hf(config)) == config


@pytest.mark.parametrize("size", SIZES)
def test_every_published_size_has_a_config_json(size):
    assert config_from_hf(config_to_hf(SIZES[size])) == dataclasses.replace(
        SIZES[size], d_ff=SIZES[size].dims["F"]
    )


def test_what_a_released_file_has_besides_is_not_read():
    """Pooler, next-sentence head, counted positions, the repeated output layer; old files' gamma and beta."""
    config = config_from_hf(goldens.CASES["bert"])
    tensors = weights_of("bert", config)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
        for name, x in tensors.items()
    }
    more = {"bert.pooler.dense.weight": np.zeros((24, 24)), "cls.seq_relationship.bias": np.zeros(2)}
    more |= {
        "bert.embeddings.position_ids": np.arange(14)[None],
        "cls.predictions.decoder.bias": np.zeros(97),
    }
    words = tensors["bert.embeddings.word_embeddings.weight"]
    found = from_hf(old | more | {"cls.predictions.decoder.weight": words}, config)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(from_hf(tensors, config)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_tensors_that_do_not_fit_are_listed_in_one_line():
    config = config_from_hf(goldens.CASES["bert"])
    tensors = weights_of("bert", config)
    tensors["bert.encoder.layer.0.output.dense.weight"] = np.zeros((24, 41))
    tensors["bert.encoder.layer.9.output.dense.bias"] = tensors.pop("bert.encoder.layer.2.output.dense.bias")
    tensors["cls.predictions.decoder.weight"] = np.zeros((97, 24))
    with pytest.raises(CheckpointError) as caught:
        from_hf(tensors, config)
    said = str(caught.value)
    assert "\n" not in said and "missing: bert.encoder.layer.2.output.dense.bias" in said
    assert "unexpected: bert.encoder.layer.9.output.dense.bias" in said
    assert "bert.encoder.layer.0.output.dense.weight [24, 41], not [24, 40]" in said
    assert "not tied to the words: cls.predictions.decoder.weight" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model_type": "bart"},
            "model_type='bart' is none of bert, roberta, distilbert; did you mean 'bert'?",
        ),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"hidden_act": "swish"}, "hidden_act='swish' is none of gelu"),
        ({"hidden_dropout_prob": 0.3}, "hidden_dropout_prob differ"),
    ],
)
def test_a_setting_that_bert_here_has_not_is_refused(changes, said):
    with pytest.raises(CheckpointError, match=said.replace("?", r"\?")):
        config_from_hf(goldens.CASES["bert"] | changes)


# --- facts peculiar to it -------------------------------------------------------------------------

TINY = BERTConfig(vocab_size=50, max_length=12, num_layers=2, num_heads=2, d_model=8, dropout_rate=0.0)


def random_params(config, seed=0):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda spec: (0.4 * random.standard_normal(spec.shape)).astype(np.float32),
        zoo.create(config).abstract(),
    )


def test_token_types_and_positions_change_what_is_read():
    model, params = zoo.create(TINY), random_params(TINY)
    tokens = np.full((1, 6), 7)
    x_BTD, _ = model.features(params, {"tokens": tokens, "token_types": np.array([[0, 0, 0, 1, 1, 1]])})
    plain_BTD, _ = model.features(params, tokens)
    assert np.abs(x_BTD - plain_BTD).max() > 0.01
    assert np.abs(plain_BTD[0, 0] - plain_BTD[0, 1]).max() > 0.01


def test_a_model_with_one_type_reads_both_texts_alike():
    config = dataclasses.replace(TINY, num_token_types=1)
    model, params = zoo.create(config), random_params(config)
    tokens = np.full((1, 6), 7)
    x_BTD, _ = model.features(params, {"tokens": tokens, "token_types": np.array([[0, 0, 0, 1, 1, 1]])})
    np.testing.assert_array_equal(x_BTD, model.features(params, tokens)[0])


def test_robertas_positions_count_from_two():
    roberta = dataclasses.replace(TINY, position_offset=2)
    params = random_params(roberta)
    shifted = params | {"positions": {"table": params["positions"]["table"][2:]}}
    tokens = np.arange(12)[None] + 3
    np.testing.assert_array_equal(
        zoo.create(roberta).apply(params, tokens), zoo.create(TINY).apply(shifted, tokens)
    )


def test_the_head_for_masked_words_is_not_under_another_head():
    """A classifier reads the first position through a tanh layer: BERT's pooler, without the words' head."""
    config = ClassifierConfig(TINY, num_classes=3, pooling="first", d_hidden=8)
    params = zoo.create(config).init(jax.random.key(0))
    assert not {"transform", "transform_norm", "bias"} & params["encoder"].keys()
    logits_BC = zoo.create(config).apply(
        params, {"tokens": np.ones((2, 5), int), "lengths": np.array([5, 2])}
    )
    assert logits_BC.shape == (2, 3) and np.isfinite(logits_BC).all()


def test_an_empty_row_is_finite_in_value_and_gradient():
    model, params = zoo.create(TINY), random_params(TINY)
    inputs = {"tokens": np.ones((2, 5), int), "lengths": np.array([5, 0])}
    value, gradients = jax.value_and_grad(lambda p: model.apply(p, inputs).sum())(params)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_heads": 3}, "d_model=8 is not a multiple of num_heads=3"),
        ({"num_token_types": -1}, "num_token_types=-1"),
        ({"norm_epsilon": 0.0}, "norm_epsilon=0.0"),
        ({"activation": "gelo"}, "did you mean 'gelu'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(TINY, **changes)


def test_rows_longer_than_the_model_and_states_are_refused():
    model, params = zoo.create(TINY), random_params(TINY)
    with pytest.raises(ValueError, match="a row of 13 tokens is longer than the model, max_length=12"):
        model.features(params, np.ones((1, 13), int))
    with pytest.raises(ValueError, match="reads whole rows"):
        model.features(params, np.ones((1, 3), int), state={})
