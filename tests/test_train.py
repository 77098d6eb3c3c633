"""train.py from the outside: what it prints, what it keeps, what it refuses, and being killed."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from training import eight_devices

import train
from zoo import metrics
from zoo.evaluation import Evaluation

ROOT = Path(__file__).parents[1]
TINY = (
    "--data.tokenizer char --model.num-layers 1 --model.num-heads 2 --model.d-model 16 --model.max-length 32 "
    "--data.length 32 --data.batch-size 8 --model.dropout-rate 0.1 --schedule.warmup-steps 2 "
    "--optimizer adamw --optimizer.learning-rate 1e-2 --sample-tokens 8 "
    "--sample-prompt line --eval-every 5 --log-every 1 --save-every 4 --steps 12"
).split()


def text_in(folder):
    """A file with a text that has a pattern."""
    lines = [f"line {i} says that {i} times {i} is {i * i}.\n" for i in range(400)]
    (folder / "text.txt").write_text("".join(lines))
    return folder / "text.txt"


@pytest.fixture
def text(tmp_path, monkeypatch):
    """A text in a folder to work in."""
    monkeypatch.chdir(tmp_path)
    return text_in(tmp_path)


def command(text, *more):
    """The tiny run, with flags added or, where it has them already, changed."""
    argv = ["gpt_stdlib", "--data.path", str(text), *TINY]
    for flag, value in zip(more[::2], more[1::2], strict=True):
        if flag in argv:
            argv[argv.index(flag) + 1] = value
        else:
            argv += [flag, value]
    return argv


def run(text, capsys, *more):
    """(exit code, last line of stdout as JSON or None, stderr)."""
    code = train.main(command(text, *more))
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if out.strip() else None, err


@dataclass(frozen=True)
class Done:
    """What a command left and said."""

    folder: Path
    code: int
    result: dict
    err: str

    def copied(self, text) -> dict:
        """The result; its runs are copied into the folder of `text`."""
        shutil.copytree(self.folder / "runs", text.parent / "runs", dirs_exist_ok=True)
        return self.result


def done(folder, *more) -> Done:
    """The tiny run in a new folder, undisturbed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = train.main(command(text_in(folder), *more))
    return Done(folder, code, json.loads(out.getvalue().splitlines()[-1]), err.getvalue())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Made once: what every interrupted run is compared with."""
    return done(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def whole(undisturbed, text):
    """The result of the run gpt_stdlib, which is complete in the folder of `text`."""
    return undisturbed.copied(text)


@pytest.fixture(scope="module")
def at_one_rate(tmp_path_factory):
    """The same with a schedule that does not depend on the number of steps."""
    return done(tmp_path_factory.mktemp("constant"), "--schedule", "constant")


def refusal(capsys, code, argv):
    """The one line that `argv` is refused with."""
    assert train.main(argv) == code
    out, err = capsys.readouterr()
    assert not out
    error = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and error[0] == err.splitlines()[-1], err
    return error[0]


def terminate_at_step_six(monkeypatch):
    """SIGTERM to this process when step 6 is logged, as a scheduler would send it."""
    write = metrics.MetricsLog.write

    def terminated(log, step, **numbers):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return write(log, step, **numbers)

    monkeypatch.setattr(metrics.MetricsLog, "write", terminated)


def test_a_run_leaves_a_result_metrics_a_sample_and_a_tokenizer(undisturbed):
    result, err = undisturbed.result, undisturbed.err
    assert undisturbed.code == 0
    assert {
        "recipe",
        "step",
        "loss",
        "eval_loss",
        "perplexity",
        "bits_per_byte",
        "tokens_per_s",
        "mfu",
        "seconds",
    } <= set(result)
    assert {"gzip_bits_per_byte", "order3_bits_per_byte", "run", "state_digest"} <= set(result)
    assert result["step"] == 12
    folder = undisturbed.folder / "runs" / "gpt_stdlib"
    assert json.loads((folder / "result.json").read_text()) == result
    assert len((folder / "samples.txt").read_text()) >= 2
    records = metrics.records(folder / "metrics.jsonl")
    logged = [record for record in records if "loss" in record]
    assert [record["step"] for record in logged] == list(range(1, 13))
    assert {"loss", "learning_rate", "grad_norm", "tokens_per_s", "step_ms", "mfu"} <= set(logged[-1])
    assert [record["step"] for record in records if "eval_loss" in record] == [5, 10, 12]
    assert "step 12/12" in err and "GPTConfig" in err
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["12", "8"]


def test_a_complete_run_says_so_and_repeats_its_result(text, whole, capsys):
    code, again, err = run(text, capsys)
    assert (code, again) == (0, whole)
    assert "is complete at step 12" in err


def test_killed_twice_and_started_again_ends_with_the_same_digest(text, whole, capsys):
    """SIGKILL at moments that the run does not know of; logs and digest are as if undisturbed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for killed_at in ("4", "8"):
        process = subprocess.Popen(
            [sys.executable, ROOT / "train.py", *command(text, "--name", "killed")],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        reached = text.parent / "runs" / "killed" / "checkpoints" / killed_at
        deadline = time.monotonic() + 120
        while not reached.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert reached.exists()
    code, result, _ = run(text, capsys, "--name", "killed")
    assert code == 0
    assert result["state_digest"] == whole["state_digest"]
    assert result["loss"] == whole["loss"] and result["eval_loss"] == whole["eval_loss"]
    runs = text.parent / "runs"
    logs = [metrics.records(runs / name / "metrics.jsonl") for name in ("gpt_stdlib", "killed")]
    for name in ("step", "loss", "grad_norm", "eval_loss"):
        assert [r.get(name) for r in logs[0]] == [r.get(name) for r in logs[1]]


def test_sigterm_saves_the_step_and_the_same_command_continues(text, whole, capsys, monkeypatch):
    terminate_at_step_six(monkeypatch)
    code, result, err = run(text, capsys, "--name", "stopped")
    assert (code, result) == (75, None)
    assert "the same command continues" in err
    monkeypatch.undo()
    monkeypatch.chdir(text.parent)
    code, result, err = run(text, capsys, "--name", "stopped")
    assert code == 0 and "continued at step" in err
    assert result["state_digest"] == whole["state_digest"]


def test_a_signal_breaks_an_evaluation_off(text, capsys, monkeypatch):
    told = []

    class Asked(Evaluation):
        """Is sent a signal when it begins, and goes on when that has been heard."""

        def __call__(self, params, batches=0):
            os.kill(os.getpid(), signal.SIGTERM)
            until = time.monotonic() + 20
            while self._goes_on() and time.monotonic() < until:
                time.sleep(0.01)
            told.append("begun")
            metrics = super().__call__(params, batches)
            told.append("whole")
            return metrics

    monkeypatch.setattr(train, "Evaluation", Asked)
    assert run(text, capsys)[0] == 75
    assert told == ["begun"]
    assert (text.parent / "runs" / "gpt_stdlib" / "checkpoints" / "5").is_dir()


def test_watching_a_run_does_not_change_it(text, whole, capsys):
    _, watched, _ = run(
        text, capsys, "--name", "watched", "--log-every", "5", "--eval-every", "3", "--save-every", "5"
    )
    assert watched["state_digest"] == whole["state_digest"]


@eight_devices
def test_the_mesh_of_a_run_may_change_between_two_starts(text, capsys, monkeypatch):
    """What is saved on eight devices goes on, exactly, on another arrangement of them."""
    terminate_at_step_six(monkeypatch)
    two = ("--model.num-layers", "2")
    code, _, err = run(text, capsys, *two, "--mesh.pipeline", "2", "--mesh.tensor", "2")
    assert code == 75 and "pipeline 2 stages, 4 micro-batches, each stage idle for 20%" in err
    monkeypatch.undo()
    monkeypatch.chdir(text.parent)
    others = ("--mesh.context", "2", "--mesh.slice", "2", "--mesh.fsdp", "2")
    code, result, err = run(text, capsys, *two, *others)
    assert code == 0 and "continued at step" in err and result["step"] == 12


@eight_devices
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--mesh.slice 3", "mesh slice=3 data=-1 does not fit 8 devices"),
        ("--mesh.expert 2", "mesh.expert=2: GPTConfig has no experts to spread"),
        ("--mesh.pipeline 8", "does not divide over mesh pipeline=8"),
        (
            "--mesh.data 8 --data.batch-size 12",
            "=12 in accumulate=1 parts does not divide over 8 batch shards",
        ),
    ],
)
def test_a_mesh_that_cannot_be_is_refused_before_anything_is_written(text, capsys, flags, message):
    assert train.main(command(text, *flags.split())) == 2
    assert message in capsys.readouterr().err and not (text.parent / "runs").exists()


def test_a_loss_that_is_not_finite_exits_with_5_and_names_the_checkpoint(text, whole, capsys, monkeypatch):
    from zoo.data import TextSet

    read = TextSet.batch

    def poisoned(self, step, rows):
        examples = read(self, step, rows)
        return examples if step != 9 else examples | {"weights": examples["weights"] * float("nan")}

    monkeypatch.setattr(TextSet, "batch", poisoned)
    assert train.main(command(text, "--name", "poisoned")) == 5
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("error: step 10: loss nan") and "the last good checkpoint is step 8" in err
    monkeypatch.undo()
    monkeypatch.chdir(text.parent)
    code, result, _ = run(text, capsys, "--name", "poisoned")
    assert code == 0
    assert result["state_digest"] == whole["state_digest"]


def test_a_disk_that_fills_up_ends_the_run_with_6_and_the_same_command_goes_on(
    text, whole, capsys, monkeypatch
):
    from zoo import manifest

    def full(*_, **__):
        raise OSError(28, os.strerror(28))

    seal = manifest.seal
    monkeypatch.setattr(
        manifest, "seal", lambda folder, **said: (full if folder.name == "8" else seal)(folder, **said)
    )
    error = refusal(capsys, 6, command(text, "--name", "full"))
    assert "checkpoints: cannot be written" in error and "No space left on device" in error
    assert manifest.look(text.parent / "runs" / "full" / "checkpoints" / "4") == manifest.Finding(True, "")
    monkeypatch.undo()
    monkeypatch.chdir(text.parent)
    code, result, err = run(text, capsys, "--name", "full")
    assert code == 0 and "checkpoint 8: it has no manifest" in err and "continued at step 8" in err
    assert result["state_digest"] == whole["state_digest"]


def test_a_run_killed_before_its_result_was_written_ends_with_the_same_result(text, whole, capsys):
    folder = text.parent / "runs" / "gpt_stdlib"
    (folder / "result.json").unlink()
    _, again, _ = run(text, capsys)
    timed = ("seconds", "tokens_per_s", "step_ms", "mfu")
    assert {k: v for k, v in again.items() if k not in timed} == {
        k: v for k, v in whole.items() if k not in timed
    }
    assert [r["step"] for r in metrics.records(folder / "metrics.jsonl") if "eval_loss" in r] == [5, 10, 12]


def test_an_evaluation_that_a_kill_prevented_is_made_up_for(text, capsys, monkeypatch):
    """Save and evaluation fall on step 4; the run dies between the two."""
    from zoo.reporter import Reporter

    both = ("--save-every", "4", "--eval-every", "4")

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Reporter, "evaluated", die)
    with pytest.raises(KeyboardInterrupt):
        train.main(command(text, *both))
    monkeypatch.undo()
    monkeypatch.chdir(text.parent)
    assert run(text, capsys, *both)[0] == 0
    log = metrics.records(text.parent / "runs" / "gpt_stdlib" / "metrics.jsonl")
    assert [record["step"] for record in log if "eval_loss" in record] == [4, 8, 12]


def test_a_start_that_got_nowhere_does_not_keep_the_name(text, capsys):
    refusal(capsys, 2, command(text, "--data.batch-size", "16", "--mesh.data", "3"))
    refusal(capsys, 4, command(text, "--data.batch-size", "16", "--init", "runs/nope"))
    assert run(text, capsys)[0] == 0


def test_checkpoints_know_their_configuration_without_config_json(text, whole, capsys):
    folder = text.parent / "runs" / "gpt_stdlib"
    for content in (None, "{}", "not json"):
        (folder / "config.json").unlink()
        if content is not None:
            (folder / "config.json").write_text(content)
        assert "seed: 0 -> 3" in refusal(capsys, 4, command(text, "--seed", "3"))
        assert run(text, capsys)[0] == 0


def test_fewer_steps_than_were_taken_are_refused(text, at_one_rate, capsys):
    at_one_rate.copied(text)
    (text.parent / "runs" / "gpt_stdlib" / "result.json").unlink()
    error = refusal(capsys, 4, command(text, "--schedule", "constant", "--steps", "6"))
    assert "is at step 12 already" in error


def test_a_damaged_result_is_made_again(text, whole, capsys):
    for content in ("{}", "{"):
        (text.parent / "runs" / "gpt_stdlib" / "result.json").write_text(content)
        assert run(text, capsys)[1]["state_digest"] == whole["state_digest"]


@eight_devices
def test_virtual_devices_claim_no_speed(undisturbed):
    assert undisturbed.result["mfu"] is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--seed", "1"], "seed: 0 -> 1"),
        (["--model.d-model", "32"], "model.d_model: 16 -> 32"),
        (["--data.batch-size", "16"], "data.batch_size: 8 -> 16"),
        (["--optimizer", "sgd"], "optimizer: "),
        (["--steps", "20"], "steps: 12 -> 20"),
    ],
)
def test_a_folder_of_another_configuration_is_refused_with_what_differs(text, whole, capsys, change, named):
    before = {path: path.read_bytes() for path in text.parent.rglob("*") if path.is_file()}
    error = refusal(capsys, 4, command(text, *change))
    assert named in error and "choose another --name" in error
    assert {path: path.read_bytes() for path in text.parent.rglob("*") if path.is_file()} == before


def test_other_data_under_the_same_path_is_refused(text, whole, capsys):
    text.write_text(text.read_text().replace("says", "SAYS"))
    assert "data: digest" in refusal(capsys, 4, command(text))


def test_more_steps_continue_where_the_schedule_allows(text, at_one_rate, capsys):
    constant = ("--schedule", "constant")
    at_one_rate.copied(text)
    code, more, err = run(text, capsys, *constant, "--steps", "16")
    assert code == 0 and "continued at step 12" in err
    _, whole, _ = run(text, capsys, "--name", "whole", *constant, "--steps", "16")
    assert more["step"] == 16 and more["state_digest"] == whole["state_digest"]


@pytest.mark.long
def test_init_starts_from_another_runs_parameters(text, capsys):
    _, first, _ = run(text, capsys, "--name", "first")
    _, second, _ = run(text, capsys, "--name", "second", "--init", "runs/first", "--average-decay", "0.999")
    log = metrics.records(text.parent / "runs" / "second" / "metrics.jsonl")
    assert log[0]["loss"] < metrics.records(text.parent / "runs" / "first" / "metrics.jsonl")[0]["loss"] - 0.1
    assert second["state_digest"] != first["state_digest"]
    assert second["eval_loss"] < first["eval_loss"]  # of the average, which starts from them too
    error = refusal(capsys, 4, command(text, "--name", "third", "--init", "runs/first", "--model.d-ff", "8"))
    assert "another model" in error


@pytest.mark.parametrize(
    ("code", "more", "said"),
    [
        (2, ["--model.num-heads", "3"], "d_model=16 is not a multiple of num_heads=3"),
        (2, ["--data.length", "64"], "data.length=64 is longer than the model, model.max_length=32"),
        (2, ["--mesh.fsdp", "3"], "does not fit"),
        (2, ["--data.batch-size", "9"], "does not divide over"),
        (
            2,
            ["--accumulate", "3"],
            "data.batch_size=8 is not a multiple of accumulate=3; give --accumulate 4,",
        ),
        (2, ["--accumulate", "9"], "is not a multiple of accumulate=9; give --accumulate 8,"),
        (2, ["--model.vocab-size", "7"], "model.vocab_size=7, but the data has"),
        (2, ["--seed", "99999999999999999999"], "seed=99999999999999999999"),
        (2, ["--clip-norm", "nan"], "clip_norm=nan"),
        (2, ["--model.dtype", "float64"], "float64"),
        (2, ["--name", "../elsewhere"], "name='../elsewhere'"),
        (2, ["--stepz", "3"], "steps"),
        (2, ["--steps", "many"], "--steps=many"),
        (3, ["--data.path", "nowhere.txt"], "nowhere.txt"),
        (3, ["--data.path", "empty.txt"], "empty.txt"),
        (3, ["--data.path", "latin.txt"], "latin.txt"),
        (3, ["--data.path", "bad.jsonl"], "bad.jsonl:2"),
        (6, ["--runs", "file.txt"], "cannot be written"),
    ],
)
@eight_devices
def test_bad_input_is_one_line_with_its_exit_code(text, capsys, code, more, said):
    (text.parent / "empty.txt").write_text("")
    (text.parent / "latin.txt").write_bytes("caf\xe9 ".encode("latin-1") * 500)
    (text.parent / "bad.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (text.parent / "file.txt").write_text("in the way")
    assert said in refusal(capsys, code, command(text, *more))


def test_an_unknown_recipe_shows_the_nearest(capsys):
    assert "'gpt_stdlib'" in refusal(capsys, 2, ["gpt_stdlip"])


def test_two_processes_do_not_share_a_folder(text, whole, capsys):
    import fcntl

    with (text.parent / "runs" / "gpt_stdlib" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "in use by another process" in refusal(capsys, 6, command(text))


def test_a_refusal_is_quick_and_starts_no_device(tmp_path):
    started = time.monotonic()
    code = (
        "import sys, train\n"
        "status = train.main(['gpt2', '--optimizr.learning-rate', '1'])\n"
        "from jax._src import xla_bridge\n"
        "sys.exit(status if not xla_bridge.backends_are_initialized() else 99)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and "optimizer.learning-rate" in done.stderr
    assert time.monotonic() - started < 10  # 2 s on an idle machine; the bound is for a busy one
