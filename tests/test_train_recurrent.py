"""train.py with recurrent models and with labelled examples, and what `python -m zoo` makes of their runs."""

import gzip
import json
import math

import pytest
from test_train import refusal, terminate_at_step_six

import train
from zoo.__main__ import main

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


# --- labelled examples ----------------------------------------------------------------------------

SHORT = "--steps 6 --save-every 6 --eval-every 6 --log-every 3 --data.batch-size 8".split()
SMALL = "--model.encoder.d-model 8 --model.encoder.d-state 8".split()


def write(path, lines):
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.write("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """A folder of each kind."""
    folder = tmp_path_factory.mktemp("examples")
    for part, count in (("train", 60), ("valid", 9), ("test", 9)):
        texts = [(f"a {'good' if i % 2 else 'bad'} one {i % 5}", i % 2) for i in range(count)]
        rows = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in texts)]
        write(folder / "classify" / f"{part}.tsv.gz", rows)
        tagged = [f"we {i % 7}\tO\n{'rome' if i % 2 else 'oslo'}\tB-city\n" for i in range(count)]
        write(folder / "tag" / f"{part}.conll", [line.replace(" ", "") for line in tagged])
        pairs = [f"IN: walk {i % 3} OUT: {'W ' * (i % 3 + 1)}".strip() for i in range(count)]
        write(folder / "pairs" / f"{part}.txt", pairs)
    return folder


def command(recipe, folder, *more):
    return [
        recipe,
        "--data.path",
        str(folder),
        "--runs",
        str(folder / "runs"),
        "--name",
        "run",
        *SHORT,
        *more,
    ]


@pytest.mark.parametrize(
    ("recipe", "kind", "more", "metrics"),
    [
        (
            *("lstm_sst2", "classify"),
            *(
                [*SMALL, "--model.d-hidden", "8", "--model.d-attention", "8"],
                ["accuracy", "majority_accuracy"],
            ),
        ),
        ("tag_stdlib", "tag", [*SMALL, "--schedule.warmup-steps", "1"], ["entity_f1", "tag_accuracy"]),
        ("seq2seq_scan", "pairs", ["--model.d-model", "8", "--model.d-state", "8"], ["exact_match"]),
    ],
)
def test_a_run_on_labelled_examples_has_its_metrics_on_every_part(
    examples, capsys, recipe, kind, more, metrics
):
    assert train.main(command(recipe, examples / kind, *more)) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(0 <= result[name] <= 1 for name in metrics) and result["step"] == 6
    _, found = verb(capsys, "eval", examples / kind / "runs" / "run", "--part", "test")
    assert set(found) >= {"eval_loss", *[name for name in metrics if "majority" not in name]}
    if kind == "pairs":
        lines, found = verb(capsys, "generate", examples / kind / "runs" / "run", "walk 1", "--tokens", "5")
        assert lines == [found["text"]]


@pytest.mark.parametrize(
    ("recipe", "name", "line", "said"),
    [
        ("lstm_sst2", "classify/valid.tsv.gz", "sentence\tlabel\na fine one\t7", "'7'"),
        ("seq2seq_scan", "pairs/valid.txt", "IN: walk OUT:", "target"),
        ("tag_stdlib", "tag/valid.conll", "rome", "valid.conll:1"),
    ],
)
def test_a_bad_example_is_one_line_with_its_place(examples, tmp_path, capsys, recipe, name, line, said):
    kind = name.split("/")[0]
    for path in (examples / kind).glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write(tmp_path / name.split("/")[1], [line])
    error = refusal(capsys, 3, command(recipe, tmp_path))
    assert said in error and name.split("/")[1] in error
