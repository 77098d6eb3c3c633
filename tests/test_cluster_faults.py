"""Trouble in one of two processes: what differs is refused by both, what fails or stands still ends both."""

import re
import signal
import time

import pytest
from starts import Starts, argv_of

from zoo import cluster, run
from zoo.errors import ConfigError, DataError
from zoo.verbs.launch import free_port

SECONDS = 240  # the machine is shared; tests/README.md has what was measured


@pytest.fixture(scope="module")
def starts():
    with Starts() as starts:
        yield starts


def pair(starts, folder, *more, other=(), **environment):
    """Two processes of a run; the second with other flags."""
    flags = ("--cluster.coordinator", f"127.0.0.1:{free_port()}", "--cluster.processes", "2", *more)
    each = [("--cluster.process", "0"), ("--cluster.process", "1", *other)]
    return [
        starts.start(argv_of("gpt", folder, "run", *flags, *own), folder / f"log{number}", **environment)
        for number, own in enumerate(each)
    ]


def errors(start) -> list[str]:
    return re.findall(r"^error: .*", start.said(), re.MULTILINE)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (("--seed", "3"), "process 1 is about to do something else than process 0 (seed: 0 -> 3)"),
        pytest.param(
            *(("--runs", "ELSEWHERE"), "is another folder for process 1 than for process 0"),
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_differs_is_refused_by_both_before_the_first_step(other, said, starts, tmp_path):
    other = [word.replace("ELSEWHERE", str(tmp_path / "elsewhere")) for word in other]
    both = pair(starts, tmp_path, other=other)
    assert [start.code() for start in both] == [ConfigError.exit_code] * 2
    for start in both:
        (line,) = errors(start)
        assert said in line
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_both_are_wrong_about_both_say_in_one_line(starts, tmp_path):
    """Also the slower one: the first has the runtime's server, and stays until the other has said it."""
    both = pair(starts, tmp_path, "--data.path", str(tmp_path / "nowhere.txt"))
    assert [start.code() for start in both] == [DataError.exit_code] * 2, both[1].said()
    for start in both:
        (line,) = errors(start)
        assert "nowhere.txt: no such file" in line and "Traceback" not in start.said()


LAUNCHERS = {
    "SLURM": {
        "SLURM_JOB_ID": "{job}",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "{process}",
        "SLURM_LOCALID": "{process}",
    },
    "Open MPI": {
        "OMPI_MCA_orte_hnp_uri": "{mpi_job}.0;tcp://127.0.0.1:1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "{process}",
        "OMPI_COMM_WORLD_LOCAL_RANK": "{process}",
    },
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launchers_variables_are_enough(launcher, starts, tmp_path):
    """As srun and mpirun set them. That both know of each other shows in what they refuse together."""
    job = (
        free_port()
    )  # a number that differs from test to test: JAX makes the port of it, beyond all of these
    both = []
    for process in range(2):
        numbers = {"job": job, "mpi_job": job << 12, "process": process}
        variables = {name: text.format(**numbers) for name, text in LAUNCHERS[launcher].items()}
        argv = argv_of("gpt", tmp_path, "run", "--seed", str(process))
        both.append(starts.start(argv, tmp_path / f"log{process}", **variables))
    assert [start.code() for start in both] == [ConfigError.exit_code] * 2, both[0].said()
    for start in both:
        assert errors(start)[0].startswith(
            "error: process 1 is about to do something else than process 0 (seed"
        )


def test_who_waits_for_the_others_in_vain_says_so_in_one_line(starts, tmp_path):
    """The first without the second, and a second without its first."""
    waiting = {}
    for process in ("0", "1"):
        port = free_port()
        flags = ("--cluster.coordinator", f"127.0.0.1:{port}", "--cluster.processes", "2")
        flags += ("--cluster.process", process, "--cluster.start-seconds", "1")
        waiting[port] = starts.start(argv_of("gpt", tmp_path, "run", *flags), tmp_path / f"log{process}")
    for port, start in waiting.items():
        assert start.code() == ConfigError.exit_code, start.said()
        (line,) = errors(start)
        assert f"127.0.0.1:{port} within 1 s" in line and "Fatal" not in start.said()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("raise@5:1", 70),
        ("sleep@5:1", 71),
        pytest.param("exit@5:0", 70, marks=pytest.mark.long),
        pytest.param("kill@5:0", -signal.SIGKILL, marks=pytest.mark.long),
        pytest.param("raise@4:1:data", 70, marks=pytest.mark.long),
        pytest.param("raise@5:1:evaluate", 70, marks=pytest.mark.long),
    ],
)
def test_where_one_fails_or_stands_still_both_end(fault, code, starts, tmp_path):
    stall = ("--stall-seconds", "10") if "sleep" in fault else ()
    both = pair(starts, tmp_path, *stall, ZOO_FAULT=fault)
    process = int(fault.split(":")[1])
    assert both[process].code() == code, both[process].said()
    assert both[1 - process].code() != 0
    assert abs(both[0].ended - both[1].ended) < SECONDS


@pytest.mark.long
def test_a_frozen_process_does_not_keep_the_other(starts, tmp_path):
    both = pair(starts, tmp_path, ZOO_FAULT="stop@5:1")
    assert both[0].code() != 0
    both[1].send(signal.SIGKILL)
    assert both[1].code() == -signal.SIGKILL


@pytest.mark.long
def test_a_signal_to_one_stops_both_at_one_step_and_a_second_leaves_at_once(starts, tmp_path):
    both = pair(starts, tmp_path, "--steps", "100000", "--log-every", "1")
    until = time.monotonic() + 200
    while "step 3" not in both[0].said() and time.monotonic() < until:
        time.sleep(0.1)
    both[1].send(signal.SIGTERM)
    assert [start.code() for start in both] == [75, 75]


# --- without any other process --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data_digest": "b"}, 'data_digest: "a" -> "b"'),
        ({"code": "b"}, 'code: "a" -> "b"'),
        ({"versions": {"jax": "2"}}, 'versions.jax: "1" -> "2"'),
        ({"recipe": {"seed": 1, "cluster": {"process": 1}}}, "seed: 0 -> 1"),
    ],
)
def test_each_difference_is_named_with_its_process(change, named, monkeypatch):
    first = {"recipe": {"seed": 0, "cluster": {"process": 0}}, "data_digest": "a", "code": "a"}
    first |= {"versions": {"jax": "1"}}
    same = first | {"recipe": {"seed": 0, "cluster": {"process": 1}}}
    monkeypatch.setattr(cluster, "gathered", lambda said: [said, same])
    cluster.check_alike(first, run.differing_starts)
    monkeypatch.setattr(cluster, "gathered", lambda said: [said, same, same | change])
    with pytest.raises(ConfigError, match="process 2 is about to do something else") as error:
        cluster.check_alike(first, run.differing_starts)
    assert named in str(error.value)


def test_the_digest_of_the_code_is_of_every_file_and_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "__file__", str(tmp_path / "run.py"))
    found = [run.code()["code"]]
    for name, text in (("a.py", "x"), ("a.py", "y"), ("below/b.py", "x")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        found.append(run.code()["code"])
    assert len(set(found)) == len(found)
