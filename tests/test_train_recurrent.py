"""train.py with recurrent language models, and what `python -m zoo` makes of their runs."""

import json
import math

import jax
import numpy as np
import pytest
from test_train import refusal, terminate_at_step_six

import train
import zoo
from zoo.__main__ import main
from zoo.data.tokenizers.word import WordTokenizer
from zoo.errors import CheckpointError
from zoo.mesh import MeshConfig, make_mesh
from zoo.models.classifier import ClassifierConfig
from zoo.models.rnn import RNNConfig
from zoo.pretrained.runs import choices
from zoo.pretrained.start import load_start
from zoo.tree import named_leaves

LSTM = (
    "lstm_stdlib --data.tokenizer word --data.vocab-size 0 --model.d-model 12 --model.d-state 16 "
    "--model.num-layers 2 --model.dropout-rate 0.1 --data.length 8 --data.batch-size 8 "
    "--schedule.warmup-steps 2 --sample-tokens 8 --sample-prompt line --eval-every 5 --log-every 1 "
    "--save-every 4 --steps 12"
).split()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recurrent")
    lines = [f"line {i % 10} says that {i % 7} follows\n" for i in range(200)]
    (folder / "train.txt").write_text("".join(lines))
    for part in ("valid", "test"):
        (folder / f"{part}.txt").write_text("".join(lines[3:40]))
    return folder


def run(text, capsys, name, *more, argv=LSTM):
    """(exit code, last line of stdout as JSON or None, stderr)."""
    code = train.main([*argv, "--data.path", str(text), "--runs", str(text / "runs"), "--name", name, *more])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if out.strip() else None, err


def verb(capsys, *argv):
    assert main([str(word) for word in argv]) == 0
    lines = capsys.readouterr().out.splitlines()
    return lines[:-1], json.loads(lines[-1])


@pytest.fixture(scope="module")
def lstm(text):
    """The folder of a finished run."""
    assert train.main([*LSTM, "--data.path", str(text), "--runs", str(text / "runs"), "--name", "lstm"]) == 0
    return text / "runs" / "lstm"


@pytest.mark.long  # tests/test_resume.py has an LSTM killed at its first, a middle and its last step
def test_a_run_that_was_stopped_ends_with_the_digest_of_one_that_was_not(text, lstm, capsys, monkeypatch):
    whole = json.loads((lstm / "result.json").read_text())
    terminate_at_step_six(monkeypatch)
    assert run(text, capsys, "stopped")[0] == 75
    monkeypatch.undo()
    code, result, err = run(text, capsys, "stopped")
    assert code == 0 and "continued at step" in err
    assert result["state_digest"] == whole["state_digest"] and result["eval_loss"] == whole["eval_loss"]


def test_eval_repeats_the_result_and_one_stream_is_nearly_the_same(lstm, capsys):
    whole = json.loads((lstm / "result.json").read_text())
    _, again = verb(capsys, "eval", lstm)
    # On one device here and on eight in the run, so the sums are rounded in another order.
    assert math.isclose(again["eval_loss"], whole["eval_loss"], rel_tol=1e-6)
    assert again["bits_per_byte"] is None
    _, alone = verb(capsys, "eval", lstm, "--batch-size", "1", "--part", "test")
    assert alone["eval_loss"] != whole["eval_loss"]  # the state is carried on where streams began anew
    assert math.isclose(alone["eval_loss"], whole["eval_loss"], rel_tol=0.05)


def test_eval_of_a_file_is_that_of_the_same_text_as_a_part(text, lstm, capsys):
    _, part = verb(capsys, "eval", lstm, "--part", "test")
    _, file = verb(capsys, "eval", lstm, text / "test.txt")
    assert file["eval_loss"] == part["eval_loss"] and file["file"] == str(text / "test.txt")
    for option in (("--data", str(text)), ("--part", "test")):
        assert main(["eval", str(lstm), str(text / "test.txt"), *option]) == 2
        assert "give one of them" in capsys.readouterr().err
    assert main(["eval", str(lstm), "--batch-size", "100000000"]) == 2
    assert "batch_size=100000000 must be 1 to 65,536" in capsys.readouterr().err


def test_predict_of_a_language_model_says_which_verbs_do(text, lstm, capsys):
    assert main(["predict", str(lstm), str(text / "test.txt")]) == 2
    assert (
        "CausalLM, predicts nothing of a text; `python -m zoo` generate and score do"
        in capsys.readouterr().err
    )


def test_a_classifier_starts_from_a_language_model_that_it_reads_with(lstm):
    _, trained, tokenizer = zoo.from_pretrained(lstm)
    sizes = {"vocab_size": tokenizer.vocab_size, "num_layers": 2, "d_model": 12, "d_state": 16}
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])

    def started(vocabulary=tokenizer, **changes):
        encoder = RNNConfig(**(sizes | {"forget_bias": 0.0} | changes))
        model = zoo.create(ClassifierConfig(encoder, num_classes=3, d_hidden=0))
        params = model.init(jax.random.key(0))
        return params, load_start(lstm, model, params, mesh, vocabulary)

    before, after = map(named_leaves, started())
    for name, array in after.items():
        wanted = named_leaves(trained).get(name.removeprefix("encoder/"), before[name])
        np.testing.assert_array_equal(array, wanted, err_msg=name)
    assert any((after[name] != before[name]).any() for name in after)
    elman = [f"elman_{name}" for name in ("tanh", "relu")]
    assert choices(RNNConfig(cell=elman[0])) != choices(RNNConfig(cell=elman[1]))  # of equal shapes
    strange = WordTokenizer(tuple(reversed(tokenizer.words)))  # as many words, and others of the same number
    with pytest.raises(CheckpointError, match="another vocabulary"):
        started(vocabulary=strange)
    for other in ({"d_state": 17}, {"cell": "gru"}, {"num_layers": 3}):
        with pytest.raises(CheckpointError, match="another model"):
            started(**other)


def test_score_adds_up_to_eval_on_one_stream(text, lstm, capsys):
    """The test text as one line: its probability is eval's, token by token."""
    words = (text / "test.txt").read_text().split("\n")[0]
    (text / "one.txt").write_text(words + "\n")
    lines, found = verb(capsys, "score", lstm, text / "one.txt")
    assert found["tokens"] == len(words.split()) - 1 and lines[0].endswith(words)
    assert math.isclose(found["perplexity"], math.exp(-found["log_probability"] / found["tokens"]))


def test_a_recurrent_run_writes_and_streams_the_same_text(lstm, capsys):
    wanted = verb(capsys, "generate", lstm, "line 3", "--tokens", "40", "--seed", "5")
    assert wanted[1]["new_tokens"] == 40
    assert (
        verb(capsys, "generate", lstm, "line 3", "--tokens", "40", "--seed", "5", "--stream")[0] == wanted[0]
    )


def test_words_shows_neighbours_and_exports_what_a_run_can_start_from(text, lstm, capsys):
    _, found = verb(capsys, "words", lstm, "line", "--export", text / "vectors.txt")
    assert len(found["neighbours"]["line"]) == 10 and found["width"] == 12
    code, _, err = run(text, capsys, "from_vectors", "--vectors", str(text / "vectors.txt"))
    assert code == 0 and f"vectors.txt: {found['words']} of" in err
    wide = [*LSTM, "--data.path", str(text), "--runs", str(text / "runs"), "--name", "wide"]
    wide += ["--model.d-model", "14", "--vectors", str(text / "vectors.txt")]
    wide.pop(wide.index("--model.d-model") + 1), wide.pop(wide.index("--model.d-model"))
    assert "the vectors are 12 wide" in refusal(capsys, 3, wide)


def test_streams_are_for_models_with_a_state(text, capsys):
    argv = ["gpt_stdlib", "--data.path", str(text), "--data.layout", "streams"]
    assert "GPTConfig has none; choose data.layout=stream" in refusal(capsys, 2, argv)


def test_another_number_of_streams_is_another_run(text, lstm, capsys):
    argv = [*LSTM, "--data.path", str(text), "--runs", str(text / "runs"), "--name", "lstm"]
    argv[argv.index("--data.batch-size") + 1] = "16"
    assert "data.batch_size: 8 -> 16" in refusal(capsys, 4, argv)
