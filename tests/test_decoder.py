"""Decoders of today: the releases' parameter counts, PyTorch's numbers, and facts peculiar to them."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from families import assert_close, jit, logits, parameters, step
from goldens import decoder as goldens

import zoo
from zoo.errors import CheckpointError, ConfigError
from zoo.models.decoder_config import DecoderConfig
from zoo.models.decoder_sizes import SIZES
from zoo.models.neox import SIZES as NEOX_SIZES
from zoo.models.neox import NeoXConfig
from zoo.pretrained import decoder, neox
from zoo.pretrained.architectures import ARCHITECTURES, architecture_of, config_of, settings_of
from zoo.rotary import Llama3, YaRN

each_recorded = pytest.mark.parametrize("case", goldens.RECORDED)

# Of the releases: what their index of safetensors or their paper's table counts, tied tables once.
PARAMETERS = {
    "llama2_7b": 6_738_415_616,
    "llama3_8b": 8_030_261_248,
    "llama3_70b": 70_553_706_496,
    "llama3.1_8b": 8_030_261_248,
    "llama3.1_405b": 405_853_388_800,
    "llama3.2_1b": 1_235_814_400,
    "mistral_7b": 7_241_732_096,
    "mixtral_8x7b": 46_702_792_704,
    "mixtral_8x22b": 140_620_634_112,
    "qwen3_30b_a3b": 30_532_122_624,
    "olmoe_1b_7b": 6_919_161_856,
    "qwen2.5_0.5b": 494_032_768,
    "qwen2.5_1.5b": 1_543_714_304,
    "qwen3_0.6b": 596_049_920,
    "qwen3_8b": 8_190_735_360,
    "olmo2_7b": 7_298_617_344,
    "gemma2_2b": 2_614_341_888,
    "gemma2_27b": 27_227_128_320,
    "gemma3_1b": 999_885_952,
    "smollm_135m": 134_515_008,
    "smollm_360m": 361_821_120,
    "pythia_70m": 70_426_624,
    "pythia_160m": 162_322_944,
    "pythia_410m": 405_334_016,
    "pythia_1b": 1_011_781_632,
    "pythia_2.8b": 2_775_208_960,
    "pythia_6.9b": 6_857_302_016,
    "pythia_12b": 11_846_072_320,
}


@pytest.mark.parametrize("size", PARAMETERS)
def test_the_published_sizes_have_their_parameters(size):
    assert zoo.create(size).num_params() == PARAMETERS[size]


# --- PyTorch's numbers ----------------------------------------------------------------------------


@functools.cache
def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(goldens.FILE) as file:
        return {
            name.removeprefix(f"{case}/"): file[name] for name in file.files if name.startswith(f"{case}/")
        }


def settings_in(case: str) -> dict:
    """The config.json of a golden's model."""
    kinds = {"Llama": "llama", "Qwen3": "qwen3", "Olmo2": "olmo2", "Gemma2": "gemma2"}
    kinds |= {"Mixtral": "mixtral", "Qwen3Moe": "qwen3_moe", "Olmoe": "olmoe"}
    kinds |= {"Gemma3": "gemma3_text", "GPTNeoX": "gpt_neox", "Mistral": "mistral", "Qwen2": "qwen2"}
    name, settings = goldens.CASES[case]
    return settings | {"model_type": kinds[name]}


def of(case: str):
    """(family, configuration, tensors) of a golden, drawn again."""
    settings = settings_in(case)
    architecture = architecture_of(settings | {"architectures": [f"{goldens.CASES[case][0]}ForCausalLM"]})
    family, config = architecture.family, config_of(settings, architecture)
    there = {name: place.shape for name, place in family.places(config).items()}
    renamed = {name.replace("embed_out", "lm_head"): name for name in there}
    drawn = goldens.weights(case, {theirs: there[ours] for theirs, ours in renamed.items()})
    assert goldens.digest(drawn) == str(golden(case)["digest"])
    return family, config, {renamed[name]: x for name, x in drawn.items()}


@each_recorded
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float64", 1e-9), pytest.param("float32", 1e-5, marks=pytest.mark.long)],
)
def test_logits_loss_and_gradients_are_pytorchs(case, dtype, tolerance):
    family, config, tensors = of(case)
    given, want = goldens.batch(case), golden(case)
    with jax.enable_x64(dtype == "float64"):
        model = zoo.create(dataclasses.replace(config, dtype=dtype))
        params = family.from_hf({name: x.astype(dtype) for name, x in tensors.items()}, config)

        def loss(params):
            logits_BTV = model.apply(params, given["tokens"])
            logp_BTV = jax.nn.log_softmax(logits_BTV[:, :-1])
            logp_BT = jax.numpy.take_along_axis(logp_BTV, given["tokens"][:, 1:, None], -1)[..., 0]
            return -(logp_BT * given["counts"]).sum() / given["counts"].sum(), logits_BTV

        (value, found), gradients = jit(jax.value_and_grad(loss, has_aux=True))(params)
        gradients = family.to_hf(gradients, config)
    found = goldens.thinned(np.asarray(found)[given["mask"]])
    assert np.abs(found - want["logits"]).max() <= tolerance * np.abs(want["logits"]).max()
    assert abs(value - want["loss"][0]) <= tolerance * want["loss"][0]
    assert {f"gradient/{name}" for name in gradients} == {name for name in want if "gradient/" in name}
    largest = max(np.abs(each).max() for each in gradients.values())
    for name, gradient in gradients.items():
        wanted, most = want[f"gradient/{name}"], np.abs(gradient).max()  # the few recorded may all be small
        # The gradient of a key's bias is zero in exact arithmetic: that is compared with the largest of all.
        assert np.abs(goldens.thinned(gradient) - wanted).max() <= tolerance * max(most, 1e-3 * largest), name


# --- Hugging Face's names -------------------------------------------------------------------------


@each_recorded
def test_tensors_go_there_and_back_unchanged(case):
    family, config, tensors = of(case)
    again = family.to_hf(family.from_hf(tensors, config), config)
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)


@pytest.mark.parametrize("case", goldens.CASES)
def test_settings_go_there_and_back_unchanged(case):
    settings = settings_in(case)
    found = config_of(settings, architecture_of(settings))
    written = settings_of(found, (), "")
    assert config_of(written, architecture_of(written)) == found
    assert settings_of(found, (), "") == written


CLASSES = {"llama": "Llama", "smollm": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3_0": "Qwen3"}
CLASSES |= {"qwen3_8": "Qwen3", "qwen3_30b": "Qwen3Moe", "mixtral": "Mixtral", "olmoe": "Olmoe"}
CLASSES |= {"olmo2": "Olmo2", "gemma2": "Gemma2", "gemma3": "Gemma3", "pythia": "GPTNeoX"}


@pytest.mark.parametrize("size", [name for name in (*SIZES, *NEOX_SIZES) if name != "decoder_tiny"])
def test_every_published_size_has_a_config_json_of_its_class(size):
    config = zoo.create(size).config
    written = settings_of(config, (), "")
    found = config_of(written, architecture_of(written))
    same = decoder.config_to_hf if isinstance(config, DecoderConfig) else neox.config_to_hf
    assert same(found) == same(config)
    (named,) = (name for start, name in CLASSES.items() if size.startswith(start))
    assert written["architectures"] == [f"{named}ForCausalLM"]


def test_both_forms_of_rotary_settings_mean_the_same():
    old = settings_in("llama3")
    new = {name: value for name, value in old.items() if not name.startswith("rope")}
    new["rope_parameters"] = old["rope_scaling"] | {"rope_theta": old["rope_theta"]}
    assert decoder.config_from_hf(new) == decoder.config_from_hf(old)
    assert decoder.config_from_hf(old).rotary_scaling == Llama3(8.0, 16)
    old = settings_in("gemma3") | {"rope_theta": 90.0, "rope_local_base_freq": 7.0}
    bases = {"full_attention": {"rope_theta": 90.0}, "sliding_attention": {"rope_theta": 7.0}}
    new = settings_in("gemma3") | {"rope_parameters": bases}
    assert decoder.config_from_hf(new) == decoder.config_from_hf(old)


def test_a_deepseek_like_yarn_has_the_ratio_of_its_two_sharpenings():
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    rope |= {"mscale": 2.0, "mscale_all_dim": 1.0}
    found = decoder.config_from_hf(settings_in("llama2") | {"rope_scaling": rope}).rotary_scaling
    assert isinstance(found, YaRN)
    want = (0.2 * np.log(4) + 1) / (0.1 * np.log(4) + 1)
    assert found.amplitude == pytest.approx(want, rel=1e-12)


def test_a_pattern_is_read_from_a_number_as_from_a_list():
    numbers = settings_in("gemma2") | {"num_hidden_layers": 5}
    assert decoder.config_from_hf(numbers).kinds == "LGLGL"
    numbers = settings_in("gemma3") | {"layer_types": None, "sliding_window_pattern": 3}
    assert decoder.config_from_hf(numbers).kinds == "LLGL"
    assert decoder.config_from_hf(settings_in("qwen2")).kinds == "GGL"
    assert decoder.config_from_hf(settings_in("qwen2") | {"use_sliding_window": False}).kinds == "GGG"
    assert decoder.config_from_hf(settings_in("mistral") | {"sliding_window": None}).kinds == "GGG"


@pytest.mark.parametrize(
    ("case", "changes", "said"),
    [
        ("llama2", {"mlp_bias": True}, "mlp_bias=True, but zoo's Decoder has only False"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ("llama2", {"hidden_act": "tanh"}, "hidden_act='tanh' is none of silu"),
        ("llama2", {"rope_scaling": {"type": "longrope"}}, "rope_type='longrope' is none of default, linear"),
        (
            "llama2",
            {"rope_scaling": {"type": "linear", "factor": 2.0, "fcator": 3}},
            "fcator=3, which zoo has not",
        ),
        ("llama2", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ("gemma2", {"layer_types": ["full_attention"]}, "must name 4 layers"),
        ("llama2", {"num_key_value_heads": "two"}, 'num_key_value_heads="two": not an int'),
        ("neox", {"use_parallel_residual": False}, "use_parallel_residual=False"),
        ("neox", {"hidden_dropout": 0.1}, "one dropout rate"),
        ("neox", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "does not stretch its positions"),
    ],
)
def test_a_setting_that_is_not_here_is_refused_by_name(case, changes, said):
    settings = settings_in(case) | changes
    with pytest.raises(CheckpointError, match=said):
        config_of(settings, architecture_of(settings))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"norms": "both"}, "norm_offset=0.0, and a Gemma2ForCausalLM"),
        ({"logit_cap": 5.0}, "logit_cap=5.0, and a LlamaForCausalLM"),
        ({"qk_norm": "width"}, "qk_norm='width', and a LlamaForCausalLM"),
        ({"pattern": "LG", "window": 8}, "pattern='LG', and a MistralForCausalLM"),
    ],
)
def test_what_no_class_there_computes_is_not_exported(changes, said):
    with pytest.raises(ConfigError, match=said):
        settings_of(dataclasses.replace(TINY, **changes), (), "")


def test_every_class_in_the_table_is_read_back_from_its_own_settings():
    kinds = {each.model_type for each in ARCHITECTURES.values() if each.family in (decoder, neox)}
    assert kinds == {settings_in(case)["model_type"] for case in goldens.CASES}


# --- facts peculiar to them -----------------------------------------------------------------------

TINY = DecoderConfig(
    vocab_size=50, max_length=24, num_layers=2, num_heads=4, num_kv_heads=2, d_model=16, d_ff=6
)


def test_a_local_layer_sees_its_window_and_a_global_one_everything_before():
    """Read off as a word is exchanged, with the attention of the other layer switched off."""
    model = zoo.create(dataclasses.replace(TINY, pattern="LG", window=3))
    params, words = parameters(model), np.arange(12)[None]
    exchanged = words.copy()
    exchanged[0, 4] = 40
    for layer, seeing in ((0, range(4, 7)), (1, range(4, 12))):
        only = jax.tree.map(np.copy, params)
        only["blocks"]["attention"]["out"]["w"][1 - layer] = 0.0
        one, other = (np.asarray(jit(model.features)(only, x)[0]) for x in (words, exchanged))
        assert list(np.flatnonzero(np.any(one != other, axis=-1)[0])) == list(seeing)


def test_no_logit_is_beyond_its_cap_and_small_ones_are_nearly_what_they_were():
    plain, capped = (zoo.create(dataclasses.replace(TINY, logit_cap=cap)) for cap in (0.0, 3.0))
    params, tokens = parameters(plain), {"tokens": np.arange(20)[None]}
    free, bound = (np.asarray(logits(model, params, tokens)) for model in (plain, capped))
    assert np.abs(free).max() > 3 >= np.abs(bound).max()
    np.testing.assert_allclose(bound, 3 * np.tanh(free / 3), atol=1e-5)


def test_fewer_key_heads_equal_as_many_that_repeat_them():
    """Query head h reads key head h // 2, of which both models have the same numbers."""
    grouped, whole = zoo.create(TINY), zoo.create(dataclasses.replace(TINY, num_kv_heads=4))
    params, tokens = parameters(grouped), {"tokens": np.arange(20)[None]}
    repeated = jax.tree.map(np.copy, params)
    for name in ("key", "value"):
        repeated["blocks"]["attention"][name]["w"] = np.repeat(params["blocks"]["attention"][name]["w"], 2, 2)
    assert_close(logits(grouped, params, tokens), logits(whole, repeated, tokens))


@pytest.mark.parametrize("cache_dtype", [None, "bfloat16", "int8"])
def test_a_cache_holds_the_heads_of_keys_and_ragged_rows_go_on_in_it(cache_dtype):
    model = zoo.create(dataclasses.replace(TINY, pattern="LG", window=3))
    params, x = parameters(model), np.random.default_rng(0).integers(0, 50, (3, 12))
    whole = np.asarray(logits(model, params, {"tokens": x}))
    state, lengths = model.initial_state(3, 12, cache_dtype), np.array([2, 7, 5])
    assert state["k_NBJSK"].shape == (2, 3, 2, 12, 4)
    read, state = step(model, params, {"tokens": x[:, :7], "lengths": lengths}, state)
    tolerance = {None: 2e-5, "bfloat16": 0.02, "int8": 0.03}[
        cache_dtype
    ]  # as in test_cache.py, wider numbers
    for place in range(5):
        next_B1 = x[np.arange(3), lengths + place][:, None]
        read, state = step(model, params, {"tokens": next_B1}, state)
        assert_close(read[:, 0], whole[np.arange(3), lengths + place], tolerance)


@pytest.mark.parametrize("length", [1, 3, 4, 17])
def test_operations_are_counted_by_what_each_layer_sees(length):
    """Areas counted in thin strips: a position at t sees min(t, window) before it."""
    config = dataclasses.replace(TINY, pattern="LG", window=3)
    strips = (np.arange(10_000) + 0.5) * length / 10_000
    seen = np.minimum(strips, 3).mean() + strips.mean()
    want = 6 * config.num_feature_params + 12 * 16 * seen  # the untied output is as large as the table
    assert config.flops_per_token(length).causal == pytest.approx(want, rel=1e-6)
    full = 6 * config.num_feature_params + 12 * 16 * (min(3, length) + length)
    assert config.flops_per_token(length).full == pytest.approx(full, rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_kv_heads": 3}, "num_heads=4 is not a multiple of num_kv_heads=3"),
        ({"num_kv_heads": 0}, "num_kv_heads=0 must be at least 1"),
        ({"d_head": 5}, "a head is 5 wide, but rotary positions turn pairs"),
        ({"pattern": "LX"}, "pattern='LX' must be letters G and L"),
        ({"pattern": "GGGGGL", "window": 3}, "up to num_layers=2"),
        ({"pattern": "L"}, "window=0 do not fit"),
        ({"window": 4}, "pattern='G' and window=4 do not fit"),
        ({"local_rotary_base": 100.0}, "needs layers L"),
        ({"rotary_base": 1.0}, "must be more than 1"),
        ({"norm_epsilon": 0.0}, "norm_epsilon=0.0"),
        ({"logit_cap": -1.0}, "logit_cap=-1.0 must not be negative"),
        ({"d_ff": 0}, "d_ff=0 must be at least 1"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rotary_share": 0.01}, "rotary_share=0.01 of a head of 64 is 0"),
        ({"rotary_base": 0.5}, "rotary_base=0.5 must be more than 1"),
        ({"d_ff": 0}, "d_ff=0 must be at least 1"),
    ],
)
def test_a_neox_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        NeoXConfig(**changes)
