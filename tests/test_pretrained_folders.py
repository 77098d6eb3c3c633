"""Published folders without torch: what is read, what is refused in one line, and that what is written comes
back byte for byte. The folders are written here, with safetensors and by hand."""

import dataclasses
import hashlib
import json
import shutil
import socket
import struct
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit
from safetensors.numpy import save_file

import train
import zoo
from zoo import sharding
from zoo.__main__ import main as command
from zoo.checkpoint import named_leaves
from zoo.data import ExamplesConfig
from zoo.data.tokenizers.word_piece import WordPieceTokenizer
from zoo.errors import CheckpointError, ConfigError, DataError, StorageError
from zoo.models.bert import BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.models.gpt import GPTConfig
from zoo.models.modernbert import ModernBERTConfig
from zoo.models.pretraining import PretrainingConfig
from zoo.models.rnn import RNNConfig
from zoo.models.span import SpanConfig
from zoo.models.tagger import TaggerConfig
from zoo.pretrained import bert, hub, stored
from zoo.pretrained.start import completed, load_start
from zoo.pretrained.stored import open_tensors
from zoo.recipes import Recipe
from zoo.schedules import Constant
from zoo.tasks import Classify

PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] a film good ##s bad , .".split()
TOKENIZER = WordPieceTokenizer(tuple(PIECES))
SIZES = {
    "vocab_size": len(PIECES),
    "max_length": 12,
    "num_layers": 3,
    "num_heads": 2,
    "d_model": 8,
    "d_ff": 20,
}
SIZES |= {"dropout_rate": 0.0}
ENCODER = BERTConfig(**SIZES)
ROBERTA = dataclasses.replace(ENCODER, num_token_types=1, position_offset=2, norm_epsilon=1e-5)
DISTILBERT = dataclasses.replace(ENCODER, num_token_types=0)


def classifier(encoder, activation="tanh") -> ClassifierConfig:
    head = {"pooling": "first", "d_hidden": 8, "dropout_rate": 0.0, "hidden_activation": activation}
    return ClassifierConfig(encoder, num_classes=3, **head)


CONFIGS = {
    "bert": ENCODER,
    "roberta": ROBERTA,
    "distilbert": DISTILBERT,
    "modernbert": ModernBERTConfig(**SIZES),
    "gpt2": GPTConfig(**SIZES),
    "bert classes": classifier(ENCODER),
    "roberta classes": classifier(ROBERTA),
    "distilbert classes": classifier(DISTILBERT, "relu"),
    "bert tags": TaggerConfig(ENCODER, num_tags=3, decoder="softmax"),
    "distilbert spans": SpanConfig(DISTILBERT),
}
LABELS = ("no", "yes", "perhaps")


def random_params(config) -> dict:
    """Uneven numbers in every parameter, and nothing in the vocabulary's padding."""
    random = np.random.default_rng(3)

    def draw(spec):
        array = np.zeros(spec.shape, np.float32)
        spec.visible(array)[...] = random.normal(size=spec.visible_shape)
        return array

    return jax.tree.map(draw, zoo.create(config).abstract())


def written(folder, config=ENCODER, tokenizer=TOKENIZER, **settings):
    """A folder of random parameters; returns them."""
    params = random_params(config)
    labels = (
        LABELS if {"num_classes", "num_tags"} & {field.name for field in dataclasses.fields(config)} else ()
    )
    zoo.save_pretrained(folder, zoo.create(config), params, tokenizer, labels=labels, **settings)
    return params


def digests(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def equal(one, other) -> bool:
    one, other = named_leaves(one), named_leaves(other)
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def refusal(call, *args, error=CheckpointError) -> str:
    with pytest.raises(error) as caught:
        call(*args)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    return str(caught.value)


def change(folder, **settings):
    """Settings of a folder's config.json put anew."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


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
    mesh = sharding.make_mesh(sharding.MeshConfig(data=1), jax.devices()[:1])
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
    model, mesh = zoo.create(config), sharding.make_mesh(sharding.MeshConfig(data=1), jax.devices()[:1])
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
    mesh = sharding.make_mesh(sharding.MeshConfig(data=1, fsdp=2), jax.devices()[:2])
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
            "GPT2LMHeadModel, GPT2Model; did you mean 'BertForMaskedLM'?",
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
        ({"num_hidden_layers": 10**9}, "1000000000 layers, but its files hold 58 tensors"),
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


# --- tokenizers -----------------------------------------------------------------------------------


def tokenizer_json(folder, **changes) -> None:
    """A tokenizer.json such as transformers writes for BERT."""
    model = {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {piece: i for i, piece in enumerate(PIECES)}}
    normalizer = {"type": "BertNormalizer", "lowercase": True, "strip_accents": None, "clean_text": True}
    whole = {"model": model, "normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"}}
    (folder / "tokenizer.json").write_text(json.dumps(whole | changes))


@pytest.mark.parametrize(
    ("settings", "lowercases", "strips", "text", "pieces"),
    [
        ({}, True, True, "Good f\u00efLm", "good film"),
        ({"do_lower_case": False}, False, False, "Good film", "[UNK] film"),
        ({"strip_accents": False}, True, False, "Good f\u00efLm", "good [UNK]"),
        ({"do_lower_case": None}, True, True, "GOOD", "good"),
    ],
)
def test_tokenizer_config_json_has_the_last_word(settings, lowercases, strips, text, pieces, tmp_path):
    tokenizer_json(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = WordPieceTokenizer.read(tmp_path)
    assert (tokenizer.lowercases, tokenizer.strips_accents) == (lowercases, strips)
    assert [PIECES[i] for i in tokenizer.encode(text)] == pieces.split()
    tokenizer.save(tmp_path / "saved")
    assert zoo.data.load_tokenizer(tmp_path / "saved").digest == tokenizer.digest


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"type": "Unigram"}}, "a tokenizer of the kind 'Unigram'"),
        ({"model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "b": 2}}}, "'b' has 2 in place of 1"),
        ({"model": {"type": "WordPiece", "vocab": 3}}, "its model has no vocab"),
        (
            {"normalizer": {"type": "Lowercase"}},
            "its normalizer has type='Lowercase', and here it is 'BertNormalizer'",
        ),
        ({"normalizer": 7}, "normalizer is no object"),
        ({"added_tokens": [{"content": "x"}]}, "added_tokens is no list of pieces"),
    ],
)
def test_a_tokenizer_json_of_another_make_is_refused(changes, said, tmp_path):
    tokenizer_json(tmp_path, **changes)
    assert said in refusal(zoo.data.load_tokenizer, tmp_path, error=DataError)


# --- commands -------------------------------------------------------------------------------------


def test_show_and_export_of_a_published_folder(tmp_path, capsys):
    written(tmp_path / "a", classifier(ENCODER), max_shard_size=10**9)
    assert command(["show", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().out
    assert '"perhaps"' in shown and json.loads(shown.splitlines()[-1])["parameters"] == 2327
    assert command(["export", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert command(["export", str(tmp_path / "a"), str(tmp_path / "b")]) == StorageError.exit_code


def test_predict_answers_with_the_folders_own_names(tmp_path, capsys):
    written(tmp_path / "a", classifier(ENCODER))
    (tmp_path / "texts.txt").write_text("a good film\nbad films.\n")
    assert command(["predict", str(tmp_path / "a"), str(tmp_path / "texts.txt")]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()[:2]]
    assert [answer["text"] for answer in answers] == ["a good film", "bad films."]
    model, params, tokenizer = zoo.from_pretrained(tmp_path / "a")
    tokens = [tokenizer.bos, *tokenizer.encode("a good film"), tokenizer.eot]
    logits_BC = jit(lambda p: model.apply(p, np.array([tokens])))(params)
    assert answers[0]["label"] == LABELS[int(np.argmax(logits_BC))]


def test_what_a_published_model_cannot_do_is_one_line(tmp_path, capsys):
    written(tmp_path / "words")
    written(tmp_path / "mute", CONFIGS["gpt2"], tokenizer=None)
    (tmp_path / "texts.txt").write_text("a film\n")
    for verb, folder, said in (
        ("predict", "words", "MaskedLM, predicts nothing of a text"),
        ("score", "words", "does not read from left to right"),
        ("score", "mute", "holds no tokenizer, so that it reads no text"),
        ("eval", "mute", "holds no tokenizer"),
    ):
        assert command([verb, str(tmp_path / folder), str(tmp_path / "texts.txt")]) > 0
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ") and said in error


# --- a training run -------------------------------------------------------------------------------

EXAMPLES = ExamplesConfig(kind="classify", tokenizer="wordpiece", vocab_size=500, wrap="both", max_length=12)
NAMED = Recipe(
    model=ClassifierConfig(
        BERTConfig(vocab_size=0, num_layers=2, num_heads=2, d_model=16, dropout_rate=0.3, dtype="bfloat16"),
        num_classes=0,
        pooling="first",
        d_hidden=16,
    ),
    task=Classify(),
    data=EXAMPLES,
)


def started(folder, *, named=NAMED, encoder=(), model=(), **changes):
    """A recipe with what was set by hand, completed from a folder."""
    inner = dataclasses.replace(named.model.encoder, **dict(encoder))
    head = dataclasses.replace(named.model, encoder=inner, **dict(model))
    recipe = dataclasses.replace(named, model=head, init=str(folder), **changes)
    return completed(recipe, named)


def test_a_run_takes_sizes_and_vocabulary_from_the_folder_it_starts_from(tmp_path):
    written(tmp_path / "a")
    recipe = started(tmp_path / "a")
    assert recipe.model.encoder == dataclasses.replace(ENCODER, dropout_rate=0.3, dtype="bfloat16")
    assert recipe.model.d_hidden == 8 and recipe.model.num_classes == 0
    assert (recipe.data.tokenizer, recipe.data.vocab_path, recipe.data.vocab_size) == (
        *("wordpiece", str(tmp_path / "a")),
        0,
    )
    assert started(tmp_path / "a", encoder={"num_layers": 3}) == recipe  # what the folder has too
    by_hand = dataclasses.replace(EXAMPLES, vocab_path="mine", vocab_size=0)
    assert started(tmp_path / "a", data=by_hand).data == by_hand


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": {"num_layers": 4}}, "model.encoder.num_layers=4, but "),
        ({"encoder": {"activation": "relu"}}, "model.encoder.activation='relu', but "),
        ({"data": dataclasses.replace(EXAMPLES, tokenizer="word")}, "set data.tokenizer=wordpiece"),
        ({"data": dataclasses.replace(EXAMPLES, max_length=13)}, "data.length=13 is longer than the model"),
    ],
)
def test_a_value_set_by_hand_that_the_folder_has_not_is_refused(changes, said, tmp_path):
    written(tmp_path / "a")
    with pytest.raises(ConfigError) as caught:
        started(tmp_path / "a", **changes)
    assert said in str(caught.value)


def test_a_recipe_of_another_family_is_refused(tmp_path):
    written(tmp_path / "a", CONFIGS["gpt2"], tokenizer=None)
    with pytest.raises(ConfigError, match="model.encoder is a BERTConfig, and .* holds a GPTConfig"):
        started(tmp_path / "a")


@pytest.mark.parametrize(
    ("source", "fresh"), [("bert", "classes, hidden"), ("bert classes", ""), ("bert tags", "classes, hidden")]
)
def test_a_classifier_starts_from_what_a_folder_has_of_it(source, fresh, tmp_path, capsys):
    theirs = written(tmp_path / "a", CONFIGS[source])
    model = zoo.create(CONFIGS["bert classes"])
    mesh = sharding.make_mesh(sharding.MeshConfig(data=1), jax.devices()[:1])
    found = load_start(tmp_path / "a", model, {}, mesh, TOKENIZER)
    said = capsys.readouterr().err
    assert (f"not in it, random at first: {fresh}\n" in said) == bool(fresh)
    encoder = theirs.get("encoder", theirs)
    wanted = {name: x for name, x in named_leaves(encoder).items() if name in named_leaves(found["encoder"])}
    assert equal(found["encoder"], wanted)
    if not fresh:
        assert equal(found, theirs)
    strange = WordPieceTokenizer((*PIECES[:-2], ".", ","))
    assert "another vocabulary" in refusal(load_start, tmp_path / "a", model, {}, mesh, strange)


def test_a_classifier_takes_the_pooler_of_a_pretrained_bert(tmp_path, capsys):
    params = random_params(PretrainingConfig(ENCODER))
    zoo.save_pretrained(tmp_path / "a", zoo.create(PretrainingConfig(ENCODER)), params)
    mesh = sharding.make_mesh(sharding.MeshConfig(data=1), jax.devices()[:1])
    found = load_start(tmp_path / "a", zoo.create(CONFIGS["bert classes"]), {}, mesh, TOKENIZER)
    pooler = params["pooler"]["w"].reshape(8, 8)  # [D, H, K]
    np.testing.assert_array_equal(found["hidden"]["w"], pooler)
    said = capsys.readouterr().err
    assert "random at first: classes" in said and "hidden" not in said


def test_another_number_of_classes_leaves_the_classes_new(tmp_path, capsys):
    theirs = written(tmp_path / "a", CONFIGS["bert classes"])
    model = zoo.create(dataclasses.replace(CONFIGS["bert classes"], num_classes=5))
    mesh = sharding.make_mesh(sharding.MeshConfig(data=1), jax.devices()[:1])
    found = load_start(tmp_path / "a", model, {}, mesh, TOKENIZER)
    assert equal(found["hidden"], theirs["hidden"]) and found["classes"]["w"].shape == (8, 5)
    assert "random at first: classes" in capsys.readouterr().err


@pytest.fixture
def examples(tmp_path):
    """Sentences of two classes, divided."""
    for part, count in (("train", 24), ("valid", 8)):
        rows = [f"a {'good' if i % 2 else 'bad'} film{'s' * (i % 3)} .\t{i % 2}" for i in range(count)]
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{part}.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    return tmp_path / "data"


def test_a_run_from_a_folder_goes_on_without_it_and_is_exported(tmp_path, examples, monkeypatch, capsys):
    """Two steps, two more when the folder is gone, and the run as a folder again, which predicts the same."""
    written(tmp_path / "a")
    recipe = dataclasses.replace(NAMED, schedule=Constant(), sample_tokens=0, data=EXAMPLES)
    monkeypatch.setitem(train.CONFIGS, "named", dataclasses.replace(recipe, name="named"))
    flags = ["--data.path", str(examples), "--data.batch-size", "8", "--runs", str(tmp_path / "runs")]
    flags += ["--init", str(tmp_path / "a"), "--model.encoder.dtype", "float32", "--save-every", "2"]
    assert train.main(["named", "--steps", "2", *flags]) == 0
    assert "random at first: classes, hidden" in capsys.readouterr().err
    shutil.move(tmp_path / "a", tmp_path / "elsewhere")
    assert train.main(["named", "--steps", "4", *flags]) == 0
    assert "continued at step 2" in capsys.readouterr().err
    run = tmp_path / "runs" / "named"
    model, params, _ = zoo.from_pretrained(run)
    assert model.config.encoder.d_model == 8 and model.config.d_hidden == 8

    assert command(["export", str(run), str(tmp_path / "b")]) == 0
    assert zoo.labels_of(tmp_path / "b")["labels"] == ("0", "1")
    assert equal(zoo.from_pretrained(tmp_path / "b")[1], params)
    capsys.readouterr()
    answers = []
    for folder in (run, tmp_path / "b"):
        for verb in ("predict", "eval"):
            assert command([verb, str(folder), str(examples / "valid.tsv")]) == 0
        out = capsys.readouterr().out.splitlines()
        answers.append([line for line in out if not line.startswith('{"model"')])
    assert answers[0] == answers[1] and "accuracy" in "".join(answers[0])
