"""Several processes that train as one: equal to one process, stopped together, ended together."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_train import TINY, text_in

import train
from zoo import cluster, joining
from zoo.errors import CheckpointError, ConfigError
from zoo.joining import ClusterConfig
from zoo.metrics import records
from zoo.pretrained import from_pretrained
from zoo.recipes.recipe import EXEMPT
from zoo.tree import named_leaves

ROOT = Path(__file__).parent.parent
FAMILIES = {
    "gpt": ["gpt_stdlib", *TINY],
    "bert": (
        "bert_stdlib --data.vocab-size 300 --data.length 32 --data.batch-size 8 --model.num-layers 1 "
        "--model.num-heads 2 --model.d-model 16 --model.d-ff 32 --steps 12 "
        "--model.max-length 32 --eval-every 5 --log-every 1 --save-every 4"
    ).split(),
    "lstm": (
        "lstm_stdlib --data.tokenizer char --data.vocab-size 0 --model.num-layers 1 --model.d-model 16 "
        "--model.d-state 16 --data.length 32 --data.batch-size 8 --steps 12 --eval-every 5 --log-every 1 "
        "--save-every 4 --sample-tokens 0"
    ).split(),
}


def argv_of(family, folder, name, *more):
    text = folder / "text.txt"
    argv = [*FAMILIES[family], "--data.path", str(text if text.exists() else text_in(folder))]
    return [*argv, "--runs", str(folder), "--name", name, *more]


def launched(processes, argv, **settings):
    """Several processes of eight devices in all, started as a user would."""
    command = [sys.executable, "-m", "zoo", "launch", "--processes", str(processes), "--devices", "8"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([*command, str(ROOT / "train.py"), *argv], env=environment, **pipes, **settings)


def losses(folder) -> dict[int, float]:
    return {each["step"]: each["loss"] for each in records(folder / "metrics.jsonl") if "loss" in each}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "processes", "mesh"),
    [
        ("gpt", 2, ("--mesh.data", "2", "--mesh.fsdp", "2", "--mesh.tensor", "2")),
        pytest.param("gpt", 4, ("--mesh.fsdp", "8"), marks=pytest.mark.long),
        pytest.param("bert", 2, ("--mesh.fsdp", "4", "--mesh.data", "2"), marks=pytest.mark.long),
        pytest.param("bert", 4, (), marks=pytest.mark.long),
        pytest.param("lstm", 2, ("--mesh.fsdp", "4", "--mesh.data", "2"), marks=pytest.mark.long),
        pytest.param("lstm", 4, (), marks=pytest.mark.long),
    ],
)
def test_several_processes_train_as_one_does(family, processes, mesh, tmp_path):
    """The same rows, so the same losses but for the order of sums; one log, one checkpoint, one result."""
    several = launched(processes, argv_of(family, tmp_path, "several", *mesh))
    assert train.main(argv_of(family, tmp_path, "one")) == 0
    out, err = several.communicate(timeout=300)
    assert several.returncode == 0, err
    found, want = losses(tmp_path / "several"), losses(tmp_path / "one")
    assert list(found) == list(want) == list(range(1, 13))
    np.testing.assert_allclose(found[1], want[1], rtol=1e-6)
    np.testing.assert_allclose(list(found.values()), list(want.values()), rtol=1e-5)
    result = json.loads(out.splitlines()[-1])
    one = json.loads((tmp_path / "one" / "result.json").read_text())
    assert result == json.loads((tmp_path / "several" / "result.json").read_text())
    assert result["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-5)
    (_, ours, _), (_, theirs, _) = from_pretrained(tmp_path / "several"), from_pretrained(tmp_path / "one")
    for name, x in named_leaves(ours).items():
        np.testing.assert_allclose(x, named_leaves(theirs)[name], atol=2e-4, err_msg=name)


@pytest.mark.slow
def test_a_stop_that_one_hears_is_everybodys_and_another_number_goes_on(tmp_path):
    """Undisturbed, the run would have had the same losses."""
    several = launched(4, argv_with("gpt", tmp_path, "stopped", steps=100_000))
    log = tmp_path / "stopped" / "metrics.jsonl"
    wait_for(lambda: log.exists() and len(losses(tmp_path / "stopped")) > 2, several)
    os.kill(child_of(several.pid, "cluster.process 3"), signal.SIGTERM)
    _, err = several.communicate(timeout=120)
    assert several.returncode == 75, err
    saved = max(int(path.name) for path in (tmp_path / "stopped" / "checkpoints").iterdir())
    assert f"stopped at step {saved}, which is saved" in err
    assert train.main(argv_with("gpt", tmp_path, "stopped", steps=saved + 4)) == 0
    assert train.main(argv_with("gpt", tmp_path, "one", steps=saved + 4)) == 0
    found, want = losses(tmp_path / "stopped"), losses(tmp_path / "one")
    assert list(found) == list(want)
    np.testing.assert_allclose(list(found.values()), list(want.values()), rtol=1e-4)


@pytest.mark.slow
def test_the_doctor_of_several_looks_at_each_machine_and_at_all_devices_together(tmp_path):
    command = [sys.executable, "-m", "zoo", "launch", "--processes", "2", "--devices", "4", "--"]
    command += ["-m", "zoo", "doctor", "--runs", str(tmp_path / "runs")]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    said = {each["subject"]: each["text"] for each in report["findings"]}
    assert report["faults"] == 0 and said["processes"] == "0 of 2"
    assert "over 4 devices" in said["links"]
    assert "[1] ok       processes 1 of 2" in done.stderr


def argv_with(family, folder, name, *, steps):
    """With a schedule that does not depend on the number of steps."""
    argv = argv_of(family, folder, name)
    argv[argv.index("--steps") + 1] = str(steps)
    del argv[argv.index("--schedule.warmup-steps") : argv.index("--schedule.warmup-steps") + 2]
    return [*argv, "--schedule", "constant"]


def wait_for(is_so, process, seconds=180):
    until = time.monotonic() + seconds
    while not is_so():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.1)


def child_of(parent: int, words: str) -> int:
    """The process that another started with these words in its command."""
    found = subprocess.run(["pgrep", "-P", str(parent), "-f", words], capture_output=True, text=True)
    return int(found.stdout.split()[0])


@pytest.mark.slow
def test_an_error_of_the_first_is_everybodys(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.json").write_text("{")
    (tmp_path / "taken" / "result.json").write_text('{"step": 3}')
    several = launched(2, argv_of("gpt", tmp_path, "taken"))
    _, err = several.communicate(timeout=120)
    assert several.returncode == CheckpointError.exit_code
    lines = [line for line in err.splitlines() if "error: " in line]
    assert [line[:3] for line in sorted(lines)] == ["[0]", "[1]"]
    assert len({line[3:] for line in lines}) == 1 and "Traceback" not in err


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("lost", [0, 1])
def test_where_a_process_is_killed_all_end(lost, tmp_path):
    argv = [*argv_with("gpt", tmp_path, "killed", steps=100_000), "--cluster.heartbeat-seconds", "10"]
    several = launched(2, argv)
    wait_for(lambda: (tmp_path / "killed" / "checkpoints" / "4").exists(), several)
    os.kill(child_of(several.pid, f"cluster.process {lost}"), signal.SIGKILL)
    killed = time.monotonic()
    several.communicate(timeout=120)
    assert several.returncode == 71
    assert time.monotonic() - killed < 45  # heartbeats of 10 s, and what the launcher waits


# --- without any other process --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"coordinator": "a:1"}, "give all three"),
        ({"processes": 2}, "give all three"),
        ({"coordinator": "a", "processes": 2, "process": 0}, "is no HOST:PORT"),
        ({"coordinator": ":1", "processes": 2, "process": 0}, "is no HOST:PORT"),
        ({"coordinator": "a:0", "processes": 2, "process": 0}, "is no HOST:PORT"),
        ({"coordinator": "a:65536", "processes": 2, "process": 0}, "is no HOST:PORT"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "process=2 is none of 2"),
        ({"heartbeat_seconds": 0}, "heartbeat_seconds=0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, what):
    with pytest.raises(ConfigError, match=what):
        ClusterConfig(**settings)


@pytest.mark.parametrize(
    ("variables", "want"),
    [
        ({}, ""),
        ({"SLURM_NTASKS": "1"}, ""),
        ({"SLURM_NTASKS": "16"}, ""),  # a batch script, which starts its tasks with srun
        ({"SLURM_NTASKS": "16", "SLURM_STEP_NODELIST": "n[1-2]"}, "SLURM"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, ""),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU slice"),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a:1"}, "TPU slice"),
    ],
)
def test_a_launcher_is_known_by_its_variables(variables, want, monkeypatch):
    for name in (*joining.COUNTS.values(), *joining.HOSTS, joining.SLICES):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert joining.launched() == want


def test_a_host_with_a_tpu_asks_jax_and_trains_alone_where_that_knows_nothing(monkeypatch, capsys, tmp_path):
    for name in (*joining.COUNTS.values(), *joining.HOSTS, joining.SLICES, "JAX_PLATFORMS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(joining, "CHIPS", (str(tmp_path),))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "libtpu" or None)
    assert joining.launched() == "TPU"

    def unknown(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr("jax.distributed.initialize", unknown)
    joining.join(ClusterConfig())
    assert "trains alone" in capsys.readouterr().err and not cluster.is_several()
    with pytest.raises(ConfigError, match="SLURM says .* give --cluster.coordinator"):
        monkeypatch.setenv("SLURM_NTASKS", "4")
        monkeypatch.setenv("SLURM_STEP_NODELIST", "n1")
        joining.join(ClusterConfig())
    monkeypatch.delenv("SLURM_NTASKS")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert joining.launched() == ""


def test_alone_nothing_is_joined_and_everything_is_the_firsts(monkeypatch):
    for name in (*joining.COUNTS.values(), *joining.HOSTS, joining.SLICES):
        monkeypatch.delenv(name, raising=False)
    joining.join(ClusterConfig())
    assert cluster.is_first() and not cluster.is_several()
    assert cluster.from_first(lambda: {"a": (1,)}) == {"a": (1,)}
    assert cluster.everywhere(True) and not cluster.everywhere(False)


def test_after_a_failure_the_first_leaves_last_whatever_became_of_its_devices(monkeypatch):
    told = []
    monkeypatch.setattr("jax.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("zoo.ending.die", lambda code: told.append(code))
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: told.append(seconds))
    monkeypatch.setattr("jax.process_count", lambda: 2)
    cluster.leave(3)
    monkeypatch.setattr("jax.process_index", lambda: 1)
    cluster.leave(3)

    def broken():
        raise RuntimeError("Unable to initialize backend")

    monkeypatch.setattr("jax.process_count", broken)
    cluster.leave(70)
    assert told == [cluster.MOMENT_SECONDS, 3, 3, 70]


def test_where_a_run_is_computed_does_not_make_it_another():
    assert {f"cluster.{field.name}" for field in dataclasses.fields(ClusterConfig)} <= EXEMPT


@pytest.fixture
def program(tmp_path):
    """A program that ends as its first words say, the process with number N by the N-th of them."""
    path = tmp_path / "program.py"
    path.write_text(
        "import os, sys, time\n"
        "words = sys.argv[1:]\n"
        "word = words[int(words[words.index('--cluster.process') + 1])]\n"
        "print('out', word, flush=True); print('err', word, file=sys.stderr, flush=True)\n"
        "time.sleep(600) if word == 'hang' else os.kill(os.getpid(), 9) if word == 'killed' else 0\n"
        "sys.exit(int(word))\n"
    )
    return str(path)


def ending(program, *words):
    command = [sys.executable, "-m", "zoo", "launch", "--processes", str(len(words)), program, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_what_processes_write_and_how_they_end_is_handed_on(program):
    found = ending(program, "0", "0")
    assert found.returncode == 0 and found.stdout == "out 0\n"
    assert {"[0] err 0", "[1] err 0", "[1] out 0"} == set(found.stderr.splitlines())
    assert ending(program, "0", "3").returncode == 3
    assert ending(program, "75", "75").returncode == 75
    assert ending(program, "0", "killed").returncode == 71


def test_what_does_not_end_after_a_failure_is_ended(program):
    began = time.monotonic()
    found = ending(program, "hang", "5")
    assert found.returncode == 5 and "process 1 was the first to fail: code 5" in found.stderr
    assert time.monotonic() - began < 30  # GRACE_SECONDS and a start


def test_a_job_is_started_again_where_that_may_help(tmp_path):
    """Three times in a row, and anew once a later step was saved; a mistake is nothing to repeat."""
    program = tmp_path / "train.py"
    program.write_text(
        "import pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--runs') + 1]) / 'gpt_stdlib'\n"
        "starts = folder / 'starts'\n"
        "count = len(starts.read_text()) + 1 if starts.exists() else 1\n"
        "folder.mkdir(exist_ok=True); starts.write_text('x' * count)\n"
        "if count == 2:\n"
        "    (folder / 'checkpoints' / '4').mkdir(parents=True)\n"
        "    (folder / 'checkpoints' / '4' / 'MANIFEST.json').write_text('{}')\n"
        "sys.exit({1: 75, 2: 70, 3: 71, 4: 75}.get(count, int(sys.argv[sys.argv.index('--seed') + 1])))\n"
    )
    for last, retries, starts in (("0", "2", 5), ("2", "9", 5), ("70", "2", 5), ("71", "1", 4)):
        folder = tmp_path / f"{last}-{retries}"
        folder.mkdir()
        command = [sys.executable, "-m", "zoo", "launch", "--processes", "1", "--retries", retries]
        argv = ["gpt_stdlib", "--runs", str(folder), "--seed", last]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        found = subprocess.run(
            [*command, str(program), *argv], env=environment, capture_output=True, text=True, timeout=120
        )
        assert len((folder / "gpt_stdlib" / "starts").read_text()) == starts, found.stderr
        assert found.returncode == (75 if starts == 4 else int(last))
