"""`python -m zoo generate`: what its options do, alone and together, and which refuse each other."""

import io
import math

import numpy as np
import pytest
from test_main import refused, result, trained

import zoo
from zoo.__main__ import main
from zoo.inference.generate import Text
from zoo.inference.score import log_probabilities
from zoo.inference.stop import Stop
from zoo.verbs import generate as verb

TOKENS = ("--tokens", "12")
SEED = ("--seed", "5")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a tiny finished run."""
    return trained(tmp_path_factory.mktemp("generate"))


def texts(found) -> list[str]:
    return [each["text"] for each in found.get("continuations", [found])]


def test_each_line_of_standard_input_is_a_prompt_with_the_text_it_has_alone(capsys, monkeypatch, run):
    monkeypatch.setattr("sys.stdin", io.StringIO("line 3\n\nthe\n"))
    lines, found = result(capsys, "generate", run, "-", *TOKENS, *SEED)
    alone = [
        result(capsys, "generate", run, prompt, *TOKENS, *SEED)[1]["text"] for prompt in ("line 3", "the")
    ]
    assert texts(found) == alone
    assert "\n".join(lines) == "\n".join(
        prompt + text for prompt, text in zip(["line 3", "the"], alone, strict=True)
    )


def test_the_next_continuation_is_that_of_the_next_seed(capsys, run):
    _, found = result(capsys, "generate", run, "line 3", *TOKENS, *SEED, "--count", "3")
    assert texts(found)[2] == result(capsys, "generate", run, "line 3", *TOKENS, "--seed", "7")[1]["text"]
    assert len(set(texts(found))) == 3


def test_log_probabilities_are_those_that_score_gives(capsys, run):
    found = result(capsys, "generate", run, "line 3", *TOKENS, "--logprobs", "--min-p", "0.01")[1]
    model, params, tokenizer = zoo.from_pretrained(run)
    prompt = tokenizer.encode("line 3").tolist()
    want = log_probabilities(model, params, [prompt + found["tokens"]])[0][len(prompt) - 1 :]
    np.testing.assert_allclose(found["logprobs"], want, atol=1e-4)
    assert tokenizer.decode(found["tokens"]) == found["text"] and found["ended"] == "length"


@pytest.mark.parametrize("more", [(), ("--stream",), ("--draft",)], ids=["at once", "streamed", "drafted"])
def test_a_text_ends_before_its_stop_string(capsys, run, more):
    more = ("--draft", run) if more == ("--draft",) else more
    greedy = ("generate", run, "line 3", *TOKENS, "--temperature", "0")
    free = result(capsys, *greedy)[1]["text"]
    lines, found = result(capsys, *greedy, *more, "--stop", free[4:6], "--stop", "no such thing")
    assert found["text"] == free[: free.index(free[4:6])] and found["ended"] == "stop"
    assert "\n".join(lines) == "line 3" + found["text"]


def test_a_draft_by_the_model_itself_is_kept_and_changes_nothing(capsys, run):
    greedy = ("generate", run, "line 3", *TOKENS, "--temperature", "0")
    found = result(capsys, *greedy, "--draft", run)[1]
    assert found["acceptance_rate"] == 1 and found["text"] == result(capsys, *greedy)[1]["text"]


def test_a_beam_finds_texts_at_least_as_likely_as_greedy(capsys, run):
    settings = ("generate", run, "line 3", *TOKENS)
    lines, found = result(capsys, *settings, "--beam", "3", "--count", "2", "--cache", "int8")
    scores = [each["score"] for each in found["continuations"]]
    greedy = result(capsys, *settings, "--temperature", "0", "--logprobs")[1]
    assert scores == sorted(scores, reverse=True) and scores[0] >= math.fsum(greedy["logprobs"]) - 0.1
    assert all("line 3" + text in "\n".join(lines) for text in texts(found))


def test_penalties_and_a_cache_reach_the_text(capsys, run):
    settings = ("generate", run, "line 3", "--tokens", "16", "--temperature", "0")
    free = result(capsys, *settings)[1]["text"]
    for penalty in ("repetition", "presence", "frequency"):
        found = result(capsys, *settings, f"--{penalty}-penalty", "9", "--cache", "int8")[1]
        assert found["text"] != free and found[f"{penalty}_penalty"] == 9
        assert len(set(found["text"])) > len(set(free))


def test_ctrl_c_ends_a_stream_with_what_was_written(capsys, monkeypatch, run):
    def interrupted(model, params, prompt, **settings):
        for count in (2, 4):
            yield Text(prompt, new=prompt[:1] * count, logprobs=[0.0] * count)
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "stream", interrupted)
    lines, found = result(capsys, "generate", run, "line 3", *TOKENS, "--stream", "--count", "2")
    assert lines == ["line 3llll"]
    assert (found["ended"], found["text"], found["new_tokens"]) == ("interrupted", "llll", 4)


def test_ctrl_c_elsewhere_is_one_line_and_130(capsys, monkeypatch, run):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "complete", interrupted)
    assert main(["generate", str(run), "line 3"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


class Bytes:
    """Each token is a byte."""

    def decode(self, ids):
        return bytes(ids).decode("utf-8", errors="replace")


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_stream_splits_no_character_and_shows_no_beginning_of_a_stop_string(monkeypatch, size):
    printed = []
    monkeypatch.setattr("builtins.print", lambda text="", **_: printed.append(text))
    new = list("naïve 你好 🙂 and ##END".encode())
    pieces = (Text([], new=new[:end]) for end in range(size, len(new) + size, size))
    verb.shown([], pieces, Bytes(), Stop(("##END",), Bytes()))
    assert "".join(printed) == "naïve 你好 🙂 and "
    assert not [text for text in printed if "\ufffd" in text or "#" in text]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--min-p", "2"], "min_p=2.0 must be between 0 and 1"),
        (["--repetition-penalty", "0"], "repetition_penalty=0.0"),
        (["--presence-penalty", "nan"], "presence_penalty=nan"),
        (["--stop", ""], "stop=''"),
        (["--cache", "int4"], "cache_dtype='int4'"),
        (["--count", "0"], "--count=0"),
        (["--beam", "0"], "size=0"),
        (["--beam", "2", "--count", "3", "--tokens", "4"], "count=3 texts cannot come from a beam of size=2"),
        (["--beam", "2", "--tokens", "27"], "a prompt of 6 tokens and 27 new ones"),
        (["--beam", "2", "--temperature", "1"], "--temperature is of no use to --beam"),
        (["--beam", "2", "--logprobs"], "--logprobs is of no use to --beam"),
        (["--draft", "x", "--stream"], "--stream cannot be together with --draft"),
        (["--seed", "-1"], "--seed=-1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_be_meant_are_refused_in_one_line(capsys, run, more, said):
    assert said in refused(capsys, 2, "generate", run, "line 3", *more)


def test_what_a_draft_cannot_do_is_refused_in_one_line(capsys, run):
    said = refused(capsys, 2, "generate", run, "line 3", "--draft", run, "--tokens", "30")
    assert "6 tokens of prompt and 30 new ones do not fit the context of 32" in said


def test_no_prompt_on_standard_input_is_one_line(capsys, monkeypatch, run):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n \n"))
    assert "standard input has no prompt" in refused(capsys, 3, "generate", run, "-")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9 a\n"), encoding="utf-8"))
    assert "standard input is no UTF-8" in refused(capsys, 3, "generate", run, "-")
