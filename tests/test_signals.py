"""SIGTERM, SIGINT and SIGHUP at any moment: in phases of the loop, in C, off the main thread, twice."""

import hashlib
import json
import os
import signal
import threading
import time

import pytest
from starts import Starts, argv_of

from zoo import events
from zoo.signals import TOGETHER_SECONDS, StopRequest

SECONDS = 240  # the machine is shared; tests/README.md has what was measured


@pytest.fixture(scope="module")
def starts():
    with Starts() as starts:
        yield starts


def saved(folder) -> int:
    return max((int(path.name) for path in (folder / "checkpoints").glob("[0-9]*")), default=0)


def wait_for(is_so, seconds=SECONDS):
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.005)


def held(folder) -> dict[str, str]:
    """Digests of all files that a run has written."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("fault", "at_least"),
    [
        ("int@6:data", 4),  # read ahead, while an earlier step is computed
        pytest.param("hup@5:evaluate", 5, marks=pytest.mark.long),
        ("term@8:save", 8),
        pytest.param("term@12:evaluate", 12, marks=pytest.mark.long),
    ],
)
def test_in_every_phase_the_current_step_is_saved_and_the_same_command_ends_the_run(
    fault, at_least, starts, tmp_path
):
    argv = argv_of("gpt", tmp_path, "run")
    start = starts.start(argv, tmp_path / "log", ZOO_FAULT=fault)
    assert start.code() == 75, start.said()
    step = saved(tmp_path / "run")
    assert at_least <= step <= 12  # steps are quick, and a save is in the background
    kinds = [found["event"] for found in events.read(tmp_path / "run" / "events.jsonl")]
    assert kinds in (["fault", "preempted"], ["fault"][: step // 12])  # behind the last step it is no event
    if step == 12:
        assert starts.run(argv, tmp_path / "log") == 0
        assert json.loads((tmp_path / "run" / "result.json").read_text())["step"] == 12


def test_before_the_first_step_a_run_leaves_at_once_and_changes_nothing(starts, tmp_path):
    argv = argv_of("gpt", tmp_path, "run")
    assert starts.run(argv, tmp_path / "log", ZOO_FAULT="kill@4:sealed") == -signal.SIGKILL
    before = held(tmp_path / "run" / "checkpoints")
    for fault in ("term@0:start", "int@0:restore", "term@5:compile"):
        start = starts.start(argv, tmp_path / "log", ZOO_FAULT=fault)
        assert start.code() == 75 and "nothing to save" in start.said()
        assert {"4"} == {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
        assert held(tmp_path / "run" / "checkpoints") == before


def test_a_signal_in_the_midst_of_a_compilation_is_heard(starts, tmp_path):
    """A program that is in no cache: its first step is compiled for seconds, in C."""
    argv = argv_of("gpt", tmp_path, "run", "--model.num-layers", "3", "--model.layer-unroll", "3")
    start = starts.start(
        argv, tmp_path / "log", JAX_COMPILATION_CACHE_DIR="", JAX_ENABLE_COMPILATION_CACHE="false"
    )
    wait_for(lambda: "attention" in start.said())  # said as the step is traced
    time.sleep(0.3)
    sent = time.monotonic()
    start.send(signal.SIGTERM)
    assert start.code() == 75
    assert time.monotonic() - sent < 10
    assert saved(tmp_path / "run") == 0


def test_a_second_signal_leaves_at_once(starts, tmp_path):
    """Also out of what never comes to an end; the step before is intact."""
    argv = argv_of("gpt", tmp_path, "run")
    start = starts.start(argv, tmp_path / "log", ZOO_FAULT="sleep@6:data")
    wait_for(
        lambda: "step 2/12" in start.said()
    )  # the last that is reported before the batch of step 6 is read
    start.send(signal.SIGTERM)
    start.send(signal.SIGHUP)  # as a scheduler may, to a process and its group
    wait_for(lambda: "again to leave at once" in start.said())
    time.sleep(2 * TOGETHER_SECONDS)
    sent = time.monotonic()
    start.send(signal.SIGINT)
    assert start.code() == 128 + signal.SIGINT
    assert time.monotonic() - sent < 10


# --- in this process ------------------------------------------------------------------------------


def test_off_the_main_thread_no_handler_is_installed(capsys):
    before = signal.getsignal(signal.SIGTERM)

    def use():
        with StopRequest() as stop:
            assert not stop.requested and not stop.is_due(1)
            stop.all_saved()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before
    assert "a program's main thread alone" in capsys.readouterr().err


def test_what_was_there_before_is_there_again():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    threads = threading.active_count()
    with StopRequest() as stop:
        stop.unsaved = True
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: stop.requested)
    assert {number: signal.getsignal(number) for number in before} == before
    wait_for(lambda: threading.active_count() == threads)


def test_a_hangup_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            stop.unsaved = True
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.1)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)
