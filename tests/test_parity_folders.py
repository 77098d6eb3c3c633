"""Folders that transformers wrote, read here, and folders written here, read by transformers: same logits,
same tokens. Skipped where torch is not installed; test_pretrained_folders.py has what needs no torch."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from families import jit

import zoo
from zoo.data import load_tokenizer
from zoo.models.tagger import TaggerConfig
from zoo.pretrained import config_of

pytestmark = pytest.mark.parity

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"un ##broken film Film é e 中 文 ##中 ##文 中文 , . ( )".split(),
]
V = len(WORDS)
BERT = {"vocab_size": V, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
BERT |= {"intermediate_size": 40, "max_position_embeddings": 14}
SETTINGS = {
    "Bert": BERT,
    "Roberta": BERT | {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1},
    "DistilBert": {"vocab_size": V, "dim": 20, "n_layers": 2, "n_heads": 2, "hidden_dim": 30}
    | {"max_position_embeddings": 13},
    "ModernBert": BERT
    | {"num_hidden_layers": 4, "local_attention": 4, "pad_token_id": 0}
    | dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    "GPT2": {"vocab_size": V, "n_positions": 13, "n_layer": 3, "n_head": 3, "n_embd": 18}
    | {"bos_token_id": None, "eos_token_id": None},
}
HEADS = ("ForMaskedLM", "ForPreTraining", "Model", "ForSequenceClassification", "ForTokenClassification")
HEADS += ("ForQuestionAnswering",)
CLASSES = [f"{family}{head}" for family in ("Bert", "Roberta", "DistilBert") for head in HEADS]
CLASSES = [name for name in CLASSES if name not in ("RobertaForPreTraining", "DistilBertForPreTraining")]
CLASSES += ["ModernBertForMaskedLM", "ModernBertModel", "GPT2LMHeadModel", "GPT2Model"]
LABELS = {0: "no", 1: "yes", 2: "perhaps"}
LENGTHS = np.array([11, 7, 4])


@pytest.fixture
def torch(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("transformers")
    return pytest.importorskip("torch")


def random_net(torch, name: str):
    """A transformers model of uneven random weights, biases and norms included, in float64."""
    import transformers

    family = next(each for each in SETTINGS if name.startswith(each))
    settings = SETTINGS[family] | ({"id2label": LABELS} if "Classification" in name else {})
    torch.manual_seed(0)
    net = getattr(transformers, name)(getattr(transformers, f"{family}Config")(**settings)).double()
    for parameter in net.parameters():
        parameter.data += 0.25 * torch.randn_like(parameter)
    return net.eval()


def batch():
    tokens = np.random.default_rng(5).integers(2, V, (3, LENGTHS.max()))
    return np.where(np.arange(LENGTHS.max()) < LENGTHS[:, None], tokens, 1)


def theirs(torch, net):
    """What transformers says of the batch: logits, or features."""
    tokens = batch()
    there = np.arange(tokens.shape[1]) < LENGTHS[:, None]
    with torch.no_grad():
        out = net(input_ids=torch.tensor(tokens), attention_mask=torch.tensor(there.astype(int)))
    if hasattr(out, "start_logits"):
        return torch.stack([out.start_logits, out.end_logits], dim=-1).numpy()
    found = getattr(out, "logits", None)
    found = getattr(out, "prediction_logits", found)
    return (out.last_hidden_state if found is None else found).numpy()


def ours(folder, name: str, dtype: str):
    """What zoo says of it; a tagger's readout holds its logits."""
    model, params, _ = zoo.from_pretrained(folder)
    config = model.config
    if hasattr(config, "encoder"):
        config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, dtype=dtype))
    else:
        config = dataclasses.replace(config, dtype=dtype)
    model, inputs = zoo.create(config), {"tokens": batch(), "lengths": LENGTHS}
    if name.endswith("Model") and name != "GPT2LMHeadModel":
        return np.asarray(jit(lambda p: model.features(p, inputs)[0])(params))
    out = jit(lambda p: model.apply(p, inputs))(params)
    return np.asarray(out.emissions_BTC if isinstance(config, TaggerConfig) else out)


def deviation(found, wanted, name: str) -> float:
    """Largest difference, relative to the largest value; behind a row's end nothing is meant."""
    assert found.shape == wanted.shape
    if found.ndim == 3:
        there = np.arange(found.shape[1]) < LENGTHS[:, None]
        found, wanted = found[there], wanted[there]
    return np.abs(found - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("name", CLASSES)
def test_logits_of_a_folder_are_transformers_both_ways(torch, name, tmp_path, capsys):
    """Read in float64 and in float32; written, and read again by transformers."""
    import transformers

    net = random_net(torch, name)
    net.save_pretrained(tmp_path / "theirs", max_shard_size="20KB" if "ForMaskedLM" in name else "5GB")
    with jax.enable_x64(True):
        found = ours(tmp_path / "theirs", name, "float64")
    # transformers rotates positions (ModernBERT) in float32 whatever its numbers are
    assert deviation(found, theirs(torch, net), name) <= (1e-6 if name.startswith("Modern") else 1e-9)
    assert deviation(ours(tmp_path / "theirs", name, "float32"), theirs(torch, net), name) <= 1e-5

    if name in ("BertModel", "RobertaModel", "DistilBertModel", "ModernBertModel"):
        assert "not in it, random at first: bias, transform, transform_norm" in capsys.readouterr().err
        return  # what is written of it has a head for words
    labels = list(LABELS.values()) if "Classification" in name else ()
    model, params, _ = zoo.from_pretrained(tmp_path / "theirs")
    zoo.save_pretrained(tmp_path / "ours", model, params, labels=labels, max_shard_size=30_000)
    wanted = name.replace("PreTraining", "MaskedLM").replace("GPT2Model", "GPT2LMHeadModel")
    again, report = getattr(transformers, wanted).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert again.dtype == torch.float32
    if name == "GPT2Model":
        again = again.transformer
    assert deviation(theirs(torch, again.eval()), theirs(torch, net), name) <= 1e-5
    if labels:
        assert list(again.config.id2label.values()) == labels == list(again.config.label2id)


def test_half_precision_folders_are_read_exactly(torch, tmp_path):
    net = random_net(torch, "BertForMaskedLM")
    for dtype in (torch.bfloat16, torch.float16):
        net.to(dtype).save_pretrained(tmp_path / str(dtype))
        _, params, _ = zoo.from_pretrained(tmp_path / str(dtype))
        found = np.asarray(params["tokens"]["table"])[:V]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(
            found, net.bert.embeddings.word_embeddings.weight.detach().float().numpy()
        )


# --- tokens ---------------------------------------------------------------------------------------

TEXTS = ["unbroken Film, \u00e9\u4e2d\u6587", "film.", "  e e\u0301 (Film) unknown", "a\u00a0film\tfilm"]
CASES = {
    "cased": {"do_lower_case": False},
    "accents kept, Chinese words whole": {"do_lower_case": True, "strip_accents": False}
    | {"tokenize_chinese_chars": False},
}


def byte_level(folder, marks, kind: str, **settings):
    """The files of a byte-level vocabulary with these marks first, and "\u0120film" merged."""
    from zoo.data.tokenizers.bpe import byte_symbols

    merges = [("\u0120", "f"), ("i", "l"), ("\u0120f", "il"), ("\u0120fil", "m")]
    pieces = [*marks, *byte_symbols(), *(left + right for left, right in merges)]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind} | settings))


def write_tokenizer(folder, case: str) -> str:
    """Writes a published tokenizer; returns the class of a model that has it."""
    folder.mkdir()
    if case in CASES:
        (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
        settings = CASES[case]
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "BertTokenizer"} | settings)
        )
        return "Bert"
    if case == "gpt2":
        byte_level(folder, ["<|endoftext|>"], "GPT2Tokenizer")
        return "GPT2"
    byte_level(folder, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "RobertaTokenizer")
    return "Roberta"


@pytest.mark.parametrize("form", ["vocabulary files", "tokenizer.json"])
@pytest.mark.parametrize("case", [*CASES, "gpt2", "roberta"])
def test_tokens_are_transformers_both_ways(torch, case, form, tmp_path):
    """Of the plain files and of what transformers itself saves; and of what zoo exports."""
    import transformers
    from transformers import AutoTokenizer

    family, folder = write_tokenizer(tmp_path / "theirs", case), tmp_path / "theirs"
    config = getattr(transformers, f"{family}Config")
    config(**SETTINGS[family]).save_pretrained(folder)
    reference = AutoTokenizer.from_pretrained(folder)
    if form == "tokenizer.json":
        folder = tmp_path / "saved"
        reference.save_pretrained(folder)
        assert {path.name for path in folder.iterdir()} & {"tokenizer.json", "vocab.txt", "vocab.json"} == {
            "tokenizer.json"
        }
    found = load_tokenizer(folder)
    assert found.vocab_size == len(reference)
    for text in TEXTS:
        assert found.encode(text).tolist() == reference.encode(text, add_special_tokens=False), text
    assert found.mask == reference.mask_token_id
    if family != "GPT2":
        assert (found.bos, found.eot) == (reference.cls_token_id, reference.sep_token_id)
        assert set(found.special_ids) == set(reference.all_special_ids)

    settings = SETTINGS[family] | {"vocab_size": found.vocab_size}
    config(**settings).save_pretrained(tmp_path)
    model = zoo.create(config_of(tmp_path))
    params = model.init(jax.random.key(0))
    zoo.save_pretrained(tmp_path / "ours", model, params, found)
    exported = AutoTokenizer.from_pretrained(tmp_path / "ours")
    for text in TEXTS:
        assert exported(text)["input_ids"] == reference(text)["input_ids"], text
        assert exported(text, "film")["input_ids"] == reference(text, "film")["input_ids"], text
    assert exported.mask_token_id == reference.mask_token_id
    assert exported.model_max_length == model.config.max_length
