"""Published folders without torch: what is read, what is refused in one line, and that what is written comes
back byte for byte. The folders are written here, with safetensors and by hand."""

import dataclasses
import json
import socket
import struct
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit
from folders import (
    CONFIGS,
    DISTILBERT,
    ENCODER,
    LABELS,
    PIECES,
    TOKENIZER,
    change,
    classifier,
    digests,
    equal,
    random_params,
    refusal,
    written,
)
from safetensors.numpy import save_file

import zoo
from zoo.data.tokenizers.word_piece import WordPieceTokenizer
from zoo.errors import ConfigError, StorageError
from zoo.mesh import MeshConfig, make_mesh
from zoo.models.pretraining import PretrainingConfig
from zoo.models.rnn import RNNConfig
from zoo.models.tagger import TaggerConfig
from zoo.pretrained import bert, hub, stored
from zoo.pretrained.start import load_start
from zoo.pretrained.stored import open_tensors

# --- both ways ------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_shard_size", [10**9, 3000], ids=["one file", "shards"])
@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_saved_and_loaded_is_saved_again_byte_for_byte(name, max_shard_size, tmp_path):
    params = written(tmp_path / "a", CONFIGS[name], max_shard_size=max_shard_size)
    model, loaded, tokenizer = zoo.from_pretrained(tmp_path / "a")
    assert equal(loaded, params)
    assert model.abstract() == zoo.create(CONFIGS[name]).abstract()
    labels = {"labels": LABELS if "classes" in name else (), "tags": LABELS if "tags" in name else ()}
    assert zoo.labels_of(tmp_path / "a") == labels
    names = labels["labels"] or labels["tags"]
    again = {"labels": names, "max_shard_size": max_shard_size}
    zoo.save_pretrained(tmp_path / "b", model, loaded, tokenizer, **again)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert (len(list((tmp_path / "a").glob("*.safetensors"))) > 1) == (max_shard_size == 3000)


def test_a_model_of_both_heads_is_written_as_one_for_pretraining(tmp_path, capsys):
    """Both heads start a run of the same model; read by itself, the folder is a BERT."""
    config = PretrainingConfig(ENCODER)
    params = random_params(config)
    zoo.save_pretrained(tmp_path / "a", zoo.create(config), params, TOKENIZER)
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    assert equal(load_start(tmp_path / "a", zoo.create(config), {}, mesh, TOKENIZER), params)
    assert capsys.readouterr().err == ""
    model, loaded, _ = zoo.from_pretrained(tmp_path / "a")
    assert model.config == ENCODER and equal(loaded, params["encoder"])
    assert (
        "not read: bert.pooler.dense.bias, bert.pooler.dense.weight, cls.seq_rel" in capsys.readouterr().err
    )


def test_no_shard_is_larger_than_asked_for_but_one_of_a_single_tensor(tmp_path):
    written(tmp_path / "a", max_shard_size=3000)
    index = json.loads((tmp_path / "a" / "model.safetensors.index.json").read_text())
    tensors = open_tensors(tmp_path / "a")
    sizes: dict[str, list[int]] = {}
    for name, shard in index["weight_map"].items():
        sizes.setdefault(shard, []).append(4 * int(np.prod(tensors[name].shape)))
    assert all(sum(each) <= 3000 or len(each) == 1 for each in sizes.values())
    assert index["metadata"]["total_size"] == sum(map(sum, sizes.values()))


def test_the_functions_survive_the_way_there_and_back(tmp_path):
    config = CONFIGS["distilbert classes"]
    params = written(tmp_path / "a", config)
    model, loaded, _ = zoo.from_pretrained(tmp_path / "a")
    inputs = {"tokens": np.array([[2, 7, 6, 3]]), "lengths": np.array([4])}
    logits = jit(lambda p: model.apply(p, inputs))(loaded)
    np.testing.assert_array_equal(jit(lambda p: zoo.create(config).apply(p, inputs))(params), logits)
    tanh = zoo.create(dataclasses.replace(config, hidden_activation="tanh"))
    assert np.abs(jit(lambda p: tanh.apply(p, inputs))(params) - logits).max() > 0.01


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_half_precision_is_read_exactly(kind, tmp_path):
    """bfloat16 has no name in safetensors' NumPy side, so the file is made by hand."""
    tensors = {
        name: x.astype(jnp.dtype(kind)) for name, x in bert.to_hf(random_params(ENCODER), ENCODER).items()
    }
    write_by_hand(tmp_path, tensors, {"bfloat16": "BF16", "float16": "F16"}[kind])
    (tmp_path / "config.json").write_text(json.dumps(bert.config_to_hf(ENCODER)))
    _, params, _ = zoo.from_pretrained(tmp_path)
    wanted = bert.from_hf({name: x.astype(np.float32) for name, x in tensors.items()}, ENCODER)
    assert equal(params, wanted) and {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}


def write_by_hand(folder, tensors, kind: str):
    """A .safetensors file: the header's length, the header, the numbers."""
    header, at = {}, 0
    for name, x in tensors.items():
        header[name] = {"dtype": kind, "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    text = json.dumps(header).encode()
    numbers = b"".join(np.ascontiguousarray(x).tobytes() for x in tensors.values())
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + numbers)


def test_a_hub_snapshot_of_links_is_read_as_it_is(tmp_path):
    params = written(tmp_path / "made", max_shard_size=3000)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots" / "f00").mkdir(parents=True)
    for number, path in enumerate((tmp_path / "made").iterdir()):
        path.rename(tmp_path / "blobs" / str(number))
        (tmp_path / "snapshots" / "f00" / path.name).symlink_to(f"../../blobs/{number}")
    _, loaded, tokenizer = zoo.from_pretrained(tmp_path / "snapshots" / "f00")
    assert equal(loaded, params) and tokenizer.pieces == tuple(PIECES)


def test_no_more_than_one_parameter_is_on_the_host_beside_the_model(tmp_path, monkeypatch):
    """Traced are NumPy's arrays; JAX keeps its own elsewhere, so what is traced is what is on its way."""
    config = dataclasses.replace(ENCODER, num_layers=24, d_model=64, num_heads=2, d_ff=256)
    written(tmp_path / "a", config, max_shard_size=200_000)
    specs = jax.tree.leaves(zoo.create(config).abstract())
    whole, largest = (4 * size([int(np.prod(spec.shape)) for spec in specs]) for size in (sum, max))
    model, mesh = zoo.create(config), make_mesh(MeshConfig(data=1), jax.devices()[:1])
    copied = []
    monkeypatch.setattr("zoo.pretrained.huggingface.on_devices", lambda array, _: copied.append(array.shape))
    found = zoo.pretrained.huggingface.described(tmp_path / "a")
    tracemalloc.start()
    try:
        zoo.pretrained.huggingface.load(found, model, mesh)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(copied) == len(specs) and whole > 3 * largest
    assert peak < 1.5 * largest, (peak, largest, whole)


def test_parameters_arrive_on_the_mesh_that_is_given(tmp_path):
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    params = written(tmp_path / "a")
    mesh = make_mesh(MeshConfig(data=1, fsdp=2), jax.devices()[:2])
    _, loaded, _ = zoo.from_pretrained(tmp_path / "a", mesh)
    assert equal(loaded, params)
    assert len(loaded["blocks"]["mlp"]["up"]["w"].sharding.device_set) == 2


# --- which model ----------------------------------------------------------------------------------


def test_a_bare_model_is_an_encoder_whose_head_for_words_is_new(tmp_path, capsys):
    """Names without "bert.", a pooler, no head: what BertModel is saved as."""
    params = random_params(ENCODER)
    tensors = {
        name.removeprefix("bert."): x for name, x in bert.to_hf(params, ENCODER).items() if "cls." not in name
    }
    tensors |= {
        "pooler.dense.weight": np.zeros((8, 8), np.float32),
        "pooler.dense.bias": np.zeros(8, np.float32),
    }
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps(bert.config_to_hf(ENCODER) | {"architectures": ["BertModel"]})
    )
    model, loaded, tokenizer = zoo.from_pretrained(tmp_path)
    said = capsys.readouterr().err
    assert "not in it, random at first: bias, transform, transform_norm" in said
    assert "not read: bert.pooler.dense.bias, bert.pooler.dense.weight" in said and tokenizer is None
    assert equal(loaded["blocks"], params["blocks"]) and equal(loaded["tokens"], params["tokens"])
    fresh = model.init(jax.random.key(0))["transform"]
    assert equal(loaded["transform"], fresh)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"architectures": ["BertForMaskdLM"]},
            "Gemma3ForCausalLM, Gemma3TextModel; did you mean 'BertForMaskedLM'?",
        ),
        ({"architectures": ["T5Model"]}, "architectures='T5Model' is none of BertForMaskedLM, BertModel, "),
        (
            {"architectures": [], "model_type": "bart"},
            "model_type='bart' is none of bert, roberta, distilbert",
        ),
        ({"architectures": [], "model_type": {}}, "model_type={}: not text"),
        ({"architectures": "BertModel"}, "architectures='BertModel' is no list of names"),
        ({"model_type": "roberta"}, "BertForMaskedLM is no model_type='roberta'"),
        ({"hidden_size": "8"}, 'hidden_size="8": not an int'),
        ({"hidden_size": True}, "hidden_size=true: not an int"),
        ({"hidden_size": 2**70}, "hidden_size=1180591620717411303424: not a size between 0 and"),
        ({"hidden_size": -8}, "hidden_size=-8: not a size"),
        ({"hidden_size": 9}, "d_model=9 is not a multiple of num_heads=2"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000: not a size between 0 and 10,000"),
        ({"num_hidden_layers": 59}, "59 layers, but its files hold 58 tensors"),
        ({"vocab_size": 2**31 - 1}, "bert.embeddings.word_embeddings.weight [12, 8], not [2147483647, 8]"),
        ({"layer_norm_eps": [1]}, "layer_norm_eps=[1]: not a number"),
        ({"hidden_act": {}}, "hidden_act={}: not text"),
    ],
)
def test_a_config_json_that_is_not_ours_is_refused_in_one_line(settings, said, tmp_path):
    written(tmp_path / "a", tokenizer=None)
    change(tmp_path / "a", **settings)
    found = refusal(zoo.from_pretrained, tmp_path / "a")
    assert found.startswith(str(tmp_path / "a")) and said in found


@pytest.mark.parametrize("names", [{"0": "no", "2": "yes"}, {"0": 1}, ["no"], {}], ids=str)
def test_names_of_classes_that_do_not_count_up_are_refused(names, tmp_path):
    written(tmp_path / "a", classifier(ENCODER))
    change(tmp_path / "a", id2label=names)
    assert "id2label is no object of names by the numbers" in refusal(zoo.from_pretrained, tmp_path / "a")


@pytest.mark.parametrize("text", ["[1]", "{", '"x"', "[" * 100_000], ids=["list", "cut", "text", "deep"])
def test_a_config_json_that_is_no_object_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    assert f"{tmp_path}/config.json: " in refusal(zoo.from_pretrained, tmp_path)


def test_all_faults_of_the_tensors_stand_in_one_line(tmp_path):
    tensors = bert.to_hf(random_params(ENCODER), ENCODER)
    del tensors["cls.predictions.bias"]
    tensors["bert.encoder.layer.3.output.dense.bias"] = np.zeros(8, np.float32)
    tensors["bert.encoder.layer.0.output.dense.weight"] = np.zeros((8, 21), np.float32)
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(bert.config_to_hf(ENCODER)))
    said = refusal(zoo.from_pretrained, tmp_path)
    assert (
        "missing: cls.predictions.bias; unexpected: bert.encoder.layer.3.output.dense.bias; of another"
        in said
    )
    assert "bert.encoder.layer.0.output.dense.weight [8, 21], not [8, 20]" in said


def test_a_vocabulary_of_another_size_than_the_table_is_refused(tmp_path):
    written(tmp_path / "a")
    (tmp_path / "a" / "vocab.txt").write_text("\n".join(PIECES[:-1]) + "\n")
    said = refusal(zoo.from_pretrained, tmp_path / "a")
    assert "its wordpiece vocabulary has 11 pieces, and the model's table 12" in said


# --- hostile files --------------------------------------------------------------------------------


def header(length: int, text: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("<Q", length) + text + rest


ENTRY = b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        header(2**62, ENTRY, bytes(8)),
        header(len(ENTRY), ENTRY, bytes(4)),
        header(len(ENTRY), ENTRY, bytes(12)),
        header(len(ENTRY), ENTRY.replace(b"[0, 8]", b"[8, 800]"), bytes(8)),
        header(len(ENTRY), ENTRY.replace(b'"x"', b'"\xff"'), bytes(8)),
        header(len(ENTRY), ENTRY.replace(b"[2]", b"[9]"), bytes(8)),
        header(len(ENTRY), ENTRY.replace(b"F32", b"OBJ"), bytes(8)),
        header(4, b"[[[[", bytes(8)),
    ],
    ids="empty long truncated trailing beyond latin1 shape object list".split(),
)
def test_a_damaged_safetensors_file_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(bert.config_to_hf(ENCODER)))
    (tmp_path / "model.safetensors").write_bytes(content)
    assert "model.safetensors: not a whole safetensors file" in refusal(zoo.from_pretrained, tmp_path)


def test_numbers_that_are_not_finite_are_refused_by_their_name(tmp_path):
    params = random_params(ENCODER)
    params["norm"]["bias"][3] = np.nan
    zoo.save_pretrained(tmp_path / "a", zoo.create(ENCODER), params)
    said = refusal(zoo.from_pretrained, tmp_path / "a")
    assert "tensor bert.embeddings.LayerNorm.bias is nan at [3]" in said


def test_numbers_that_are_no_weights_are_refused(tmp_path):
    tensors = {name: x.astype(np.int32) for name, x in bert.to_hf(random_params(ENCODER), ENCODER).items()}
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(bert.config_to_hf(ENCODER)))
    assert "is I32, and weights here are F64, F32, F16, BF16" in refusal(zoo.from_pretrained, tmp_path)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (
            {"weight_map": {"x": "../model.safetensors"}},
            "names '../model.safetensors', which is no .safetensors file",
        ),
        (
            {"weight_map": {"x": "/etc/passwd"}},
            "names '/etc/passwd', which is no .safetensors file beside it",
        ),
        ({"weight_map": {"x": "code.py"}}, "names 'code.py', which is no .safetensors file beside it"),
        (
            {"weight_map": {"x": "b.safetensors"}},
            "names b.safetensors, which is not there; did you mean 'a.safetens",
        ),
        ({"weight_map": {"y": "a.safetensors"}}, "its shards do not hold y"),
        ({"weight_map": {"x": 1}}, 'has no "weight_map" from tensors to files'),
        ([], 'has no "weight_map"'),
    ],
)
def test_an_index_that_does_not_fit_its_folder_is_refused(index, said, tmp_path):
    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "a.safetensors")
    (tmp_path.parent / "model.safetensors").touch()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert said in refusal(open_tensors, tmp_path)


def test_a_pickle_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    said = refusal(open_tensors, tmp_path)
    assert "its weights are a pickle (pytorch_model.bin)" in said and "save_pretrained" in said


# --- writing --------------------------------------------------------------------------------------


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("mine")
    assert "is there already and not empty" in refusal(written, tmp_path / "a", error=StorageError)
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "mine.txt"]


def test_what_fails_half_way_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored, "write_tensors", full)
    assert "No space left" in refusal(written, tmp_path / "a", error=StorageError)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "settings", "said"),
    [
        (RNNConfig(vocab_size=12), {}, "RNNConfig has no class in Hugging Face's format"),
        (
            TaggerConfig(ENCODER, num_tags=3),
            {"labels": LABELS},
            "decoder='crf', and a BertForTokenClassification has",
        ),
        (dataclasses.replace(classifier(ENCODER), pooling="mean"), {}, "pooling='mean', and a BertForSeq"),
        (
            classifier(DISTILBERT),
            {},
            "hidden_activation='tanh', and a DistilBertForSequenceClassification has only 'relu'",
        ),
        (classifier(ENCODER), {"labels": ("a", "b")}, "2 different labels for a model of 3"),
        (classifier(ENCODER), {"labels": ("a", "b", "a")}, "2 different labels for a model of 3"),
        (ENCODER, {"max_shard_size": 0}, "max_shard_size=0 must be at least 1 byte"),
        (ENCODER, {"format": "hg"}, "format='hg' is none of hf; did you mean 'hf'?"),
    ],
)
def test_what_the_format_does_not_have_is_refused_before_anything_is_written(
    config, settings, said, tmp_path
):
    with pytest.raises(ConfigError) as caught:
        zoo.save_pretrained(tmp_path / "a", zoo.create(config), {}, **settings)
    assert said in str(caught.value) and not list(tmp_path.iterdir())


def test_a_tokenizer_of_another_model_is_not_written_beside_this_one(tmp_path):
    tokenizer = WordPieceTokenizer(tuple(PIECES[:-1]))
    said = refusal(written, tmp_path / "a", ENCODER, tokenizer, error=ConfigError)
    assert "the model has 12 words and this wordpiece tokenizer 11" in said


# --- names and the network ------------------------------------------------------------------------


def test_a_path_never_asks_the_network(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    written(tmp_path / "a")
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # an import of it fails
    zoo.from_pretrained(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    said = refusal(zoo.from_pretrained, "google-bert/bert-base-uncased")
    assert (
        said
        == "google-bert/bert-base-uncased: no such folder; from the hub: hf:google-bert/bert-base-uncased"
    )


def test_only_the_prefix_asks_the_hub_and_for_no_pickles(tmp_path, monkeypatch):
    params = written(tmp_path / "a")
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path / "a")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert equal(zoo.from_pretrained("hf:someone/model")[1], params)
    assert asked == [("someone/model", ["*.json", "*.safetensors", "*.txt", "*.model"])]


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def offline(*_, **__):
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    assert "hf:someone/model: not to be had from the hub (no route)" in refusal(hub.local, "hf:someone/model")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = refusal(hub.local, "hf:someone/model", error=ConfigError)
    assert said.startswith("hf:someone/model needs huggingface_hub; pip install huggingface_hub")
