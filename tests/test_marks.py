"""What stands before a text and what ends it, by a published folder: as transformers reads and stops."""

import json

import jax
import numpy as np
import pytest
from test_whole_tokenizer import library

import zoo
from zoo.__main__ import main
from zoo.data import load_tokenizer
from zoo.data.tokenizers.marks import ends_of, prefix_of, prompt_of
from zoo.data.tokenizers.published import is_gpt2s
from zoo.errors import DataError
from zoo.inference.generate import generate
from zoo.models.decoder_config import DecoderConfig


def tokenizer_in(folder, *, begins=True, ends=None):
    """A Llama-like tokenizer's files, whose post-processor begins every text with <|begin|>."""
    from tokenizers import processors

    folder.mkdir(exist_ok=True)
    made = library("metaspace")
    if begins:
        mark = ("<|begin|>", made.token_to_id("<|begin|>"))
        single, pair = "<|begin|> $A", "<|begin|> $A <|begin|> $B"
        made.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=[mark])
    made.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "tokenizer_class": "LlamaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if ends is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends, "top_k": 5}))
    return load_tokenizer(folder)


def model_of(tokenizer):
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        max_length=64,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        d_model=16,
        d_ff=24,
    )
    model = zoo.create(config)
    params = jax.tree.map(lambda x: 5 * x, model.init(jax.random.key(1)))  # decided about its next words
    return model, params


def test_the_files_post_processor_says_what_stands_before_a_text(tmp_path):
    tokenizer = tokenizer_in(tmp_path / "a")
    assert prompt_of(tokenizer, "film") == [tokenizer.bos, *tokenizer.encode("film")]
    assert prompt_of(tokenizer, "") == [tokenizer.bos]
    silent = tokenizer_in(tmp_path / "b", begins=False)
    assert prompt_of(silent, "film") == silent.encode("film").tolist()
    assert prompt_of(silent, "") == [silent.eot]


@pytest.mark.parametrize(
    ("single", "is_whole"),
    [("<|begin|> $A", True), ("<|begin|> $A <|end|>", False), ("$A", False)],
    ids=["decoder's", "encoder's", "none"],
)
def test_gpt2s_cuts_with_a_beginning_of_its_own_are_read_whole(single, is_whole, tmp_path):
    from tokenizers import pre_tokenizers, processors

    made = library("split")
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    marks = [(mark, made.token_to_id(mark)) for mark in ("<|begin|>", "<|end|>")]
    template = processors.TemplateProcessing(single=single, special_tokens=marks)
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    assert is_gpt2s(tmp_path) is not is_whole
    if is_whole:
        assert prompt_of(load_tokenizer(tmp_path), "a film") == made.encode("a film").ids


def test_a_tokenizer_without_such_a_file_begins_with_nothing():
    byte = load_tokenizer_of_bytes()
    assert prefix_of(byte) == () and ends_of(byte) == (256,)
    assert prompt_of(byte, "ab") == [97, 98] and prompt_of(byte, "") == [256]


def load_tokenizer_of_bytes():
    from zoo.data.tokenizers.byte import ByteTokenizer

    return ByteTokenizer()


def test_the_ends_of_a_generation_config_are_kept_by_runs_and_exports(tmp_path):
    tokenizer = tokenizer_in(tmp_path / "a", ends=[7, 269])
    assert ends_of(tokenizer) == (tokenizer.eot, 7)
    tokenizer.save(tmp_path / "run")
    assert ends_of(load_tokenizer(tmp_path / "run")) == (tokenizer.eot, 7)
    model, params = model_of(tokenizer)
    zoo.save_pretrained(tmp_path / "out", model, params, tokenizer)
    assert ends_of(load_tokenizer(tmp_path / "out")) == (tokenizer.eot, 7)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (tokenizer.bos, [tokenizer.eot, 7])


@pytest.mark.parametrize("ends", ["7", [7, None], -1, 1.5, True])
def test_ends_that_are_no_tokens_are_one_line(tmp_path, ends):
    with pytest.raises(DataError, match=r"generation_config.json: eos_token_id=.* is no token's number"):
        tokenizer_in(tmp_path / "a", ends=ends)


def test_a_text_ends_at_whichever_end_comes_first(tmp_path):
    model, params = model_of(tokenizer_in(tmp_path / "a"))
    free = generate(model, params, [[1, 2, 3]], max_new_tokens=30)[0]
    first, second = free[4], next(token for token in free[5:] if token not in free[:5])
    for eot in ([first, second], [second, first], np.array([first, second])):
        assert (
            generate(model, params, [[1, 2, 3]], max_new_tokens=30, eot=eot)[0] == free[: free.index(first)]
        )
    assert (
        generate(model, params, [[1, 2, 3]], max_new_tokens=30, eot=second)[0] == free[: free.index(second)]
    )


@pytest.mark.parity
def test_prompts_ends_and_scores_are_transformers(tmp_path, capsys, monkeypatch):
    """`zoo generate` writes what transformers' generate writes for the same folder and words, and `zoo score`
    gives the log-probability that transformers' model gives behind the beginning of text."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizer_in(tmp_path / "a", ends=[7, 269])
    model, params = model_of(tokenizer)
    folder = str(tmp_path / "out")
    zoo.save_pretrained(folder, model, params, tokenizer)

    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    net = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = theirs("a film", return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == prompt_of(tokenizer, "a film")
    out = net.generate(ids, max_new_tokens=40, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    want = theirs.decode(out, skip_special_tokens=True)
    assert main(["generate", folder, "a film", "--tokens", "40", "--temperature", "0"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["text"].strip() == want.strip()

    with torch.no_grad():
        logp = net(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None]).sum().item()
    (tmp_path / "lines.txt").write_text("a film\n")
    assert main(["score", folder, str(tmp_path / "lines.txt")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["log_probability"] == pytest.approx(
        logp, rel=1e-5
    )


def test_older_folders_say_marks_and_ends_in_other_files(tmp_path):
    tokenizer = tokenizer_in(tmp_path / "a")
    settings = json.loads((tmp_path / "a" / "tokenizer_config.json").read_text())
    marks = {name: {"content": settings.pop(name)} for name in ("bos_token", "eos_token")}
    (tmp_path / "a" / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "a" / "special_tokens_map.json").write_text(json.dumps(marks))
    (tmp_path / "a" / "config.json").write_text(json.dumps({"eos_token_id": [tokenizer.eot, 5]}))
    found = load_tokenizer(tmp_path / "a")
    assert (found.bos, found.eot) == (tokenizer.bos, tokenizer.eot)
    assert ends_of(found) == (tokenizer.eot, 5)
    (tmp_path / "a" / "generation_config.json").write_text(json.dumps({"eos_token_id": tokenizer.eot}))
    assert ends_of(load_tokenizer(tmp_path / "a")) == (tokenizer.eot,)
