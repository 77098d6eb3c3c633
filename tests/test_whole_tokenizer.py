"""Tokenizers of decoders, taken as their tokenizer.json says: small ones of the kinds that are published."""

import json

import jax
import pytest

import zoo
from zoo.data import load_tokenizer
from zoo.data.tokenizers.bpe import BPETokenizer, byte_symbols
from zoo.data.tokenizers.whole import WholeTokenizer
from zoo.errors import CheckpointError, DataError
from zoo.models.decoder_config import DecoderConfig

TEXTS = ["a film, 2024!", "  film\n\tfilm", "<|end|> is text", "\u00e9\u4e2d\u6587 film", ""]
LLAMA3 = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"


def library(kind: str):
    """A tokenizer as the library makes it, with two marks."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    if kind == "metaspace":  # Llama 2, Mistral, Gemma
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        pieces = ["<unk>", *bytes_, *"\u2581filma,", "\u2581f", "il", "\u2581fil", "\u2581film"]
        merges = [("\u2581", "f"), ("i", "l"), ("\u2581f", "il"), ("\u2581fil", "m")]
        vocab = {piece: i for i, piece in enumerate(pieces)}
        made = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
        steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    else:
        pieces = [*byte_symbols(), "\u0120f", "il", "\u0120fil", "\u0120film", "20"]
        merges = [("\u0120", "f"), ("i", "l"), ("\u0120f", "il"), ("\u0120fil", "m"), ("2", "0")]
        vocab = {piece: i for i, piece in enumerate(pieces)}
        made = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=kind == "split"))
        bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind != "split")
        first = {
            "split": pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated"),  # Llama 3, Qwen, OLMo 2
            "digits": pre_tokenizers.Digits(individual_digits=True),  # SmolLM
        }
        made.pre_tokenizer = pre_tokenizers.Sequence([first[kind], bytewise])
        made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(mark, special=True) for mark in ("<|begin|>", "<|end|>")])
    return made


def written(folder, kind: str):
    folder.mkdir()
    made = library(kind)
    made.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>"}, "auto_map": {"x": "y.py"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return made


@pytest.mark.parametrize("kind", ["metaspace", "split", "digits"])
def test_tokens_are_the_librarys_and_come_back_as_text(kind, tmp_path):
    made = written(tmp_path / "a", kind)
    found = load_tokenizer(tmp_path / "a")
    assert isinstance(found, WholeTokenizer) and found.vocab_size == made.get_vocab_size()
    assert (found.bos, found.eot) == (made.token_to_id("<|begin|>"), made.token_to_id("<|end|>"))
    for text in TEXTS:
        ids = found.encode(text).tolist()
        assert found.decode(ids) == text
        if "<|end|>" not in text:
            assert ids == made.encode(text).ids
        assert found.eot not in ids
    assert found.decode([found.bos, *found.encode("film"), found.eot, 10_000]) == "film"


def test_digits_are_taken_apart_where_the_file_says_so(tmp_path):
    written(tmp_path / "a", "digits"), written(tmp_path / "b", "split")
    apart, together = load_tokenizer(tmp_path / "a"), load_tokenizer(tmp_path / "b")
    assert len(apart.encode("2020")) == 4 and len(together.encode("2020")) == 3  # 20, 2; 0
    found = apart.encode_with_offsets("a film")
    assert [("a film"[s:e]) for s, e in zip(found.starts, found.ends, strict=True)] == ["a", " film"]


@pytest.mark.parametrize("kind", ["metaspace", "split"])
def test_a_tokenizer_saved_and_published_is_the_same(kind, tmp_path):
    written(tmp_path / "a", kind)
    found = load_tokenizer(tmp_path / "a")
    found.save(tmp_path / "run")
    (tmp_path / "out").mkdir()
    found.publish(tmp_path / "out", model_max_length=8)
    for folder in ("run", "out"):
        again = load_tokenizer(tmp_path / folder)
        assert (
            again.digest == found.digest
            and again.encode("a film").tolist() == found.encode("a film").tolist()
        )
        assert (tmp_path / folder / "tokenizer.json").read_bytes() == (
            tmp_path / "a" / "tokenizer.json"
        ).read_bytes()
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == 8 and "auto_map" not in settings


def test_gpt2s_way_of_cutting_is_read_as_before(tmp_path):
    from tokenizers import pre_tokenizers

    made = library("split")
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.model.ignore_merges = False
    made.save(str(tmp_path / "tokenizer.json"))
    assert isinstance(load_tokenizer(tmp_path), BPETokenizer)


def test_a_decoders_table_may_have_more_rows_than_its_vocabulary_and_never_fewer(tmp_path):
    written(tmp_path / "a", "split")
    found = load_tokenizer(tmp_path / "a")
    config = DecoderConfig(
        vocab_size=found.vocab_size + 5,
        max_length=8,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        d_model=8,
        d_ff=4,
    )
    params = zoo.create(config).init(jax.random.key(0))
    zoo.save_pretrained(tmp_path / "b", zoo.create(config), params, found)
    _, _, again = zoo.from_pretrained(tmp_path / "b")
    assert again.digest == found.digest
    path = tmp_path / "b" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": found.vocab_size - 1}))
    with pytest.raises(CheckpointError, match=f"has {found.vocab_size} pieces, and the model's table"):
        zoo.from_pretrained(tmp_path / "b")


def test_files_that_are_no_tokenizer_are_one_line(tmp_path):
    written(tmp_path / "a", "split")
    path = tmp_path / "a" / "tokenizer.json"
    whole = json.loads(path.read_text())
    whole["pre_tokenizer"]["pretokenizers"][0]["type"] = "Cutter"
    path.write_text(json.dumps(whole))
    with pytest.raises(DataError, match="refused by the tokenizers library") as caught:
        load_tokenizer(tmp_path / "a")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="has no tokenizer.json"):
        WholeTokenizer.read(tmp_path)
