"""Adapters in peft's format, read and written without peft; test_parity_adapter.py asks peft itself."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from folders import ENCODER, SIZES, classifier, random_params, refusal, written
from safetensors.numpy import save_file

import zoo
from zoo.__main__ import main
from zoo.errors import CheckpointError, ConfigError
from zoo.models.decoder_config import DecoderConfig
from zoo.models.gpt import GPTConfig
from zoo.models.lora import LoRA, with_lora
from zoo.models.modernbert import ModernBERTConfig
from zoo.models.neox import NeoXConfig
from zoo.pretrained.adapter import FILE, PREFIX, WEIGHTS, with_adapter
from zoo.pretrained.write_adapter import as_published
from zoo.tree import named_leaves, nested

GPT = GPTConfig(**SIZES)
LLAMA = DecoderConfig(**SIZES | {"num_heads": 4, "num_kv_heads": 2}, tied=True)
NEOX = NeoXConfig(**SIZES, rotary_share=0.5)
CONFIGS = {"gpt2": GPT, "llama": LLAMA, "neox": NEOX, "modernbert": ModernBERTConfig(**SIZES)}
CONFIGS |= {"bert": ENCODER, "bert classes": classifier(ENCODER)}
EVERYWHERE = LoRA(rank=2, alpha=6.0, targets=("*attention/*", "*mlp/*"))
SETTINGS = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "somewhere/tiny"}


def adapted(config, lora=EVERYWHERE):
    """(model, parameters) with adapters that are not zero, on the host."""
    model = with_lora(zoo.create(config), lora)
    random = np.random.default_rng(4)
    draw = lambda spec: random.normal(size=spec.shape).astype(np.float32)  # noqa: E731
    specs = named_leaves(model.abstract())
    adapters = {name: draw(spec) for name, spec in specs.items() if "lora_" in name}
    return model, nested(named_leaves(random_params(config)) | adapters)


def base_of(model, params):
    """The parameters without adapters, on a device."""
    leaves = named_leaves(params)
    return nested({name: jax.device_put(leaves[name]) for name in named_leaves(model.base.abstract())})


def put(folder, settings, tensors):
    """An adapter's folder."""
    folder.mkdir(exist_ok=True)
    (folder / FILE).write_text(json.dumps(settings))
    save_file({PREFIX + name: np.ascontiguousarray(x, np.float32) for name, x in tensors.items()},
              folder / WEIGHTS)  # fmt: skip
    return folder


def close(one, other):
    one, other = named_leaves(one), named_leaves(other)
    assert one.keys() == other.keys()
    for name in one:  # sums of a few products, in another order
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-5, err_msg=name)


# --- both ways ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", ["rank", "root"])
@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_and_read_is_what_the_run_is_merged(name, scaling, tmp_path):
    model, params = adapted(CONFIGS[name], dataclasses.replace(EVERYWHERE, scaling=scaling))
    settings, tensors = as_published(model, params)
    folder = put(tmp_path / "a", settings, {key.removeprefix(PREFIX): x for key, x in tensors.items()})
    close(with_adapter(folder, model.base, base_of(model, params)), model.merged(params))


def test_one_adapter_of_c_attn_is_read_by_columns_and_written_of_those_that_have_one(tmp_path):
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 8)), random.normal(size=(24, 2))
    folder = put(
        tmp_path / "a",
        SETTINGS,
        {"transformer.h.1.attn.c_attn.lora_A.weight": a, "transformer.h.1.attn.c_attn.lora_B.weight": b},
    )
    model, params = adapted(GPT)
    before = base_of(model, params)
    after = with_adapter(folder, model.base, before)["blocks"]["attention"]
    delta = 3.0 * (b @ a).T  # [in, out], as Conv1D has it: queries, keys, values
    for number, part in enumerate(("query", "key", "value")):
        change = np.asarray(after[part]["w"]) - before["blocks"]["attention"][part]["w"]
        want = delta[:, 8 * number : 8 * number + 8].reshape(8, 2, 4)
        np.testing.assert_allclose(change[1], want, rtol=1e-4, atol=1e-5)
        assert not change[0].any() and not change[2].any()

    model, params = adapted(GPT, LoRA(rank=2, targets=("*query", "*value")))
    settings, tensors = as_published(model, params)
    b = tensors[f"{PREFIX}transformer.h.1.attn.c_attn.lora_B.weight"]
    assert b.shape == (24, 4) and not b[8:16].any() and not b[:8, 2:].any() and not b[16:, :2].any()
    assert settings["target_modules"] == ["c_attn"] and settings["fan_in_fan_out"]
    assert settings["rank_pattern"] == {"c_attn": 4} and settings["alpha_pattern"] == {"c_attn": 32.0}


def test_rows_of_a_neox_are_those_of_each_head_in_turn(tmp_path):
    layer, random = "gpt_neox.layers.0.attention.query_key_value", np.random.default_rng(0)
    a, b = random.normal(size=(2, 8)), random.normal(size=(24, 2))
    folder = put(tmp_path / "a", SETTINGS, {f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b})
    model, params = adapted(NEOX)
    before = base_of(model, params)
    key = np.asarray(with_adapter(folder, model.base, before)["blocks"]["attention"]["key"]["w"])
    by_head = (3.0 * b @ a).reshape(2, 3, 4, 8)  # heads; queries, keys, values; width of a head; in
    want = by_head[:, 1].transpose(2, 0, 1)
    np.testing.assert_allclose(
        key[0] - before["blocks"]["attention"]["key"]["w"][0], want, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "settings, scale",
    [
        ({}, 3.0),
        ({"use_rslora": True}, 6 / 2**0.5),
        ({"alpha_pattern": {"mlp.down_proj": 8}}, 4.0),
        ({"alpha_pattern": {"up_proj": 8, "layers.0.mlp.down_proj": 1}}, 0.5),
        ({"r": 7, "rank_pattern": {"^model.layers.0.mlp.down_proj": 2}}, 3.0),
        ({"alpha_pattern": {"down": 8, "^layers.0.mlp.down_proj": 8}}, 3.0),
    ],
)
def test_a_layers_scale_is_that_of_the_first_end_of_its_name(settings, scale, tmp_path):
    layer = "model.layers.0.mlp.down_proj"
    tensors = {f"{layer}.lora_A.weight": np.eye(2, 20), f"{layer}.lora_B.weight": np.eye(8, 2)}
    model, params = adapted(LLAMA)
    before = base_of(model, params)
    after = with_adapter(put(tmp_path / "a", SETTINGS | settings, tensors), model.base, before)
    change = np.asarray(after["blocks"]["mlp"]["down"]["w"]) - before["blocks"]["mlp"]["down"]["w"]
    np.testing.assert_allclose(change[0], scale * np.eye(20, 8) * (np.arange(20) < 2)[:, None], atol=1e-6)


def test_an_adapter_of_a_bare_model_has_names_without_prefix(tmp_path):
    tensors = {"h.0.mlp.c_fc.lora_A.weight": np.eye(2, 8), "h.0.mlp.c_fc.lora_B.weight": np.eye(20, 2)}
    model, params = adapted(GPT)
    before = base_of(model, params)
    after = with_adapter(put(tmp_path / "a", SETTINGS, tensors), model.base, before)
    change = np.asarray(after["blocks"]["mlp"]["up"]["w"]) - before["blocks"]["mlp"]["up"]["w"]
    np.testing.assert_allclose(change[0], 3.0 * np.eye(8, 20) * (np.arange(8) < 2)[:, None], atol=1e-6)


def test_a_head_is_written_whole_with_the_adapters_it_has():
    lora = dataclasses.replace(EVERYWHERE, targets=("*query", "hidden"), trained=("*blocks/norm1/*",))
    model, params = adapted(classifier(ENCODER), lora)
    settings, tensors = as_published(model, params)
    norms = [f"bert.encoder.layer.{n}.attention.output.LayerNorm" for n in range(3)]
    assert settings["modules_to_save"] == [*norms, "bert.pooler", "classifier"]
    assert settings["task_type"] == "SEQ_CLS" and settings["target_modules"] == ["query"]
    pooler = tensors[f"{PREFIX}bert.pooler.dense.weight"]
    np.testing.assert_array_equal(pooler.T, model.merged(params)["hidden"]["w"])
    assert not any("pooler" in name and "lora" in name for name in tensors)


def test_layers_are_named_by_ends_that_no_other_layer_has():
    model, params = adapted(ENCODER, LoRA(rank=2, targets=("*mlp/down",)))
    assert as_published(model, params)[0]["target_modules"] == [f"{n}.output.dense" for n in range(3)]
    model, params = adapted(LLAMA, LoRA(rank=2))
    assert as_published(model, params)[0]["target_modules"] == ["q_proj", "v_proj"]


def test_words_that_were_trained_too_are_refused():
    model, params = adapted(GPT, dataclasses.replace(EVERYWHERE, trained=("tokens/table",)))
    assert "tokens/table was trained too" in refusal(as_published, model, params, error=ConfigError)


# --- what is refused ------------------------------------------------------------------------------

GOOD = {"transformer.h.0.mlp.c_fc.lora_A.weight": np.ones((2, 8)),
        "transformer.h.0.mlp.c_fc.lora_B.weight": np.ones((20, 2))}  # fmt: skip
(A, a), (B, b) = GOOD.items()


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"use_dora": True}, "use_dora=True is not read here; merge it in peft"),
        ({"peft_type": "LOHA"}, "peft_type='LOHA' is not read here"),
        ({"peft_type": None}, "peft_type=None is not read here"),
        ({"bias": "all"}, "bias='all' is not read here"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' is not read here"),
        ({"invented_in_2031": 1}, "invented_in_2031=1 is not read here"),
        ({"layer_replication": [[0, 1]]}, "layer_replication=[[0, 1]] is not read here"),
        ({"rank_pattern": {"(a+)+$": 2}}, "is no object of layers' names"),
        ({"alpha_pattern": {"c_fc": -1}}, "c_fc=-1.0 must be above 0"),
        ({"r": 0}, "r=0 must be above 0"),
        ({"r": "2"}, 'adapter_config.json: r="2": not an int'),
        ({"lora_alpha": float("nan")}, "cannot be read as JSON (NaN is no JSON)"),
        ({"r": 3}, "lora_A.weight [2, 8], not [3, 8]"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_would_change_the_numbers_are_refused(settings, said, tmp_path):
    model, params = adapted(GPT)
    folder = put(tmp_path / "a", SETTINGS | settings, GOOD)
    error = refusal(with_adapter, folder, model.base, base_of(model, params))
    assert said in error and str(folder) in error


@pytest.mark.parametrize(
    "tensors, said",
    [
        ({A: a}, f"missing: {B}"),
        ({A: a, B: b, "transformer.h.3.mlp.c_fc.lora_A.weight": a}, "unexpected: transformer.h.3.mlp"),
        ({"model.layers.0.mlp.up_proj.lora_A.weight": a}, "unexpected: model.layers.0.mlp.up_proj"),
        ({A: np.ones((2, 16)), B: b}, f"{A} [2, 16], not [2, 8]); give the model that they were made for"),
        ({A: a, B: b, "transformer.wte.lora_embedding_A": a}, "unexpected: transformer.wte.lora_embedding"),
        ({A: a, B: b, "lm_head.weight": np.ones((12, 8))}, "unexpected: lm_head.weight"),
        ({"transformer.ln_f.lora_A.weight": np.ones((2, 1))}, "unexpected: transformer.ln_f.lora_A"),
        ({A: a, B: b, A.replace("transformer.", ""): a}, f"unexpected: {PREFIX}"),
        ({A: a * np.inf, B: b}, "is inf at [0, 0]"),
        ({}, "no tensors in it"),
    ],
)
def test_tensors_that_do_not_fit_the_model_are_named(tensors, said, tmp_path):
    model, params = adapted(GPT)
    folder = put(tmp_path / "a", SETTINGS, tensors)
    assert said in refusal(with_adapter, folder, model.base, base_of(model, params))


def test_files_that_are_damaged_or_pickles_are_refused(tmp_path):
    model, params = adapted(GPT)
    params, folder = base_of(model, params), put(tmp_path / "a", SETTINGS, GOOD)
    whole = (folder / WEIGHTS).read_bytes()

    def said():
        return refusal(with_adapter, folder, model.base, params)

    for content in (whole[:-1], whole[:100], b"", (1 << 62).to_bytes(8, "little") + whole[8:]):
        (folder / WEIGHTS).write_bytes(content)
        assert "not a whole safetensors file" in said()
    (folder / WEIGHTS).unlink()
    assert "has no adapter_model.safetensors" in said()
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04")
    assert "a pickle (adapter_model.bin), which can run code and is never read" in said()
    (folder / FILE).write_text("[]")
    assert "holds a JSON list" in said()
    (folder / FILE).unlink()
    assert "has no adapter_config.json" in said()


# --- commands -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(language model, classifier, sentences, their classes) to be read by verbs."""
    path = tmp_path_factory.mktemp("adapter")
    for name, config in (("words", ENCODER), ("classes", classifier(ENCODER))):
        written(path / name, config)
    written(path / "gpt", dataclasses.replace(GPT, max_length=16))
    (path / "lines.txt").write_text("a film\ngood film\n")
    (path / "labels.tsv").write_text("text\tlabel\na film\tyes\n")
    return path


@pytest.mark.parametrize(
    "argv",
    [
        ("generate", "gpt", "a film"),
        ("score", "gpt", "lines.txt"),
        ("fill", "words", "a [MASK]"),
        ("eval", "classes", "labels.tsv"),
        ("predict", "classes", "lines.txt"),
        ("embed", "words", "lines.txt"),
        ("export", "words", "out"),
    ],
    ids=lambda argv: argv[0],
)
def test_every_verb_that_reads_a_model_reads_its_adapters(argv, folders, capsys, monkeypatch):
    monkeypatch.chdir(folders)
    put(folders / "dora", SETTINGS | {"use_dora": True}, GOOD)
    assert main([*argv, "--adapter", "dora"]) == 4
    assert "error: dora: adapter_config.json: use_dora=True" in capsys.readouterr().err
    assert not (folders / "out").exists()


def test_exporting_with_an_adapter_writes_the_merged_model(folders, capsys, monkeypatch):
    monkeypatch.chdir(folders)
    model, params = adapted(ENCODER)
    settings, tensors = as_published(model, params)
    put(folders / "lora", settings, {name.removeprefix(PREFIX): x for name, x in tensors.items()})
    assert main(["export", "words", "merged", "--adapter", "lora"]) == 0
    _, found, _ = zoo.from_pretrained("merged")
    close(found, model.merged(params))


@pytest.mark.parametrize(
    "argv, code, said",
    [
        (("export", "words", "out", "--format", "peft"), 4, "words holds no adapters"),
        (("export", "words", "out", "--format", "peft", "--adapter", "a"), 2, "--adapter=a is of no use"),
        (("score", "lora_only", "lines.txt"), 4, "it holds adapters: give the model that they are for"),
    ],
)
def test_folders_that_are_the_wrong_ones_are_said_to_be(argv, code, said, folders, capsys, monkeypatch):
    monkeypatch.chdir(folders)
    put(folders / "lora_only", SETTINGS, GOOD)
    assert main(list(argv)) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("ties", [None, False, True])
def test_words_that_are_trained_at_one_end_of_a_tied_model_are_refused(ties, tmp_path):
    """peft gives the lower end a table of its own, unless it is told that both are one."""
    model = zoo.create(LLAMA)
    params = base_of(model, random_params(LLAMA))
    table = np.random.default_rng(5).normal(size=(LLAMA.vocab_size, LLAMA.d_model)).astype(np.float32)
    tensors = {"model.embed_tokens.weight": table} | ({"lm_head.weight": table} if ties else {})
    settings = SETTINGS | {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": ties}
    folder = put(tmp_path / "a", settings, tensors)
    if not ties:
        with pytest.raises(CheckpointError, match="trained at the lower end alone"):
            with_adapter(folder, model, params)
        return
    found = with_adapter(folder, model, params)["tokens"]["table"]
    np.testing.assert_array_equal(np.asarray(found)[: LLAMA.vocab_size], table)
    put(folder, settings, tensors | {"lm_head.weight": table + 1})
    with pytest.raises(CheckpointError, match="differ, and should be one table"):
        with_adapter(folder, model, base_of(model, random_params(LLAMA)))


def test_adapters_for_another_base_or_beside_a_runs_own_are_noted(tmp_path, capsys):
    written(tmp_path / "tiny", LLAMA, None), written(tmp_path / "other", LLAMA, None)
    model, params = adapted(LLAMA)
    settings, tensors = as_published(model, params)
    folder = put(tmp_path / "a", settings | {"base_model_name_or_path": "somewhere/tiny"},
                 {name.removeprefix(PREFIX): x for name, x in tensors.items()})  # fmt: skip
    capsys.readouterr()
    zoo.from_pretrained(tmp_path / "tiny", adapter=folder)
    assert "made for" not in capsys.readouterr().err
    zoo.from_pretrained(tmp_path / "other", adapter=folder)
    assert "made for somewhere/tiny" in capsys.readouterr().err
