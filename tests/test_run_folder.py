"""A run's folder: one owner at a time, and files that are whole whatever happens to the disk."""

import dataclasses
import errno
import json
import os
import resource
import subprocess
import sys
import threading
import time

import pytest

from zoo import metrics
from zoo.errors import StorageError
from zoo.recipes import CONFIGS
from zoo.run import RunFolder


@pytest.fixture
def recipe(tmp_path):
    return dataclasses.replace(CONFIGS["gpt_stdlib"], runs=str(tmp_path), name="mine")


def folder_of(recipe) -> RunFolder:
    return RunFolder(recipe, "0123", "gpt_stdlib")


def test_of_a_hundred_that_want_a_folder_one_has_it_at_a_time(recipe):
    """Each waits for its turn at the gate, so that they meet; who is refused hears whose it is, at once."""
    gate, inside, met, refused = threading.Barrier(10), [], [], []

    def start():
        for _ in range(10):
            gate.wait()
            began = time.monotonic()
            try:
                with folder_of(recipe):
                    inside.append(1)
                    met.append(len(inside))
                    time.sleep(0.01)
                    inside.pop()
            except StorageError as error:
                refused.append((str(error), time.monotonic() - began))

    threads = [threading.Thread(target=start) for _ in range(10)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert set(met) == {1} and len(met) + len(refused) == 100 and len(refused) >= 50
    assert max(seconds for _, seconds in refused) < 5


def test_who_is_refused_hears_whose_the_folder_is(recipe):
    with folder_of(recipe), pytest.raises(StorageError) as error:
        folder_of(recipe)
    assert f"mine is in use by another process ({os.getpid()} on " in str(error.value)
    assert f"since {time.strftime('%Y-%m-%d')}" in str(error.value)


def test_a_folder_whose_owner_was_killed_is_free(recipe):
    with folder_of(recipe) as run:
        path = run.path
    hold = (
        "import fcntl, sys, time; lock = open(sys.argv[1], 'a'); fcntl.flock(lock, fcntl.LOCK_EX); "
        "print('held', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", hold, path / ".lock"], stdout=subprocess.PIPE)
    assert owner.stdout.readline() == b"held\n"
    with pytest.raises(StorageError, match="in use by another process"):
        folder_of(recipe)
    owner.kill(), owner.wait(), owner.stdout.close()
    with folder_of(recipe):
        pass


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_settings_and_result(recipe, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with folder_of(recipe) as run:
        run.write("result.json", {"step": 1})
        with monkeypatch.context() as patched, pytest.raises(StorageError, match="No space left"):
            patched.setattr(os, call, full)
            run.write("result.json", {"step": 2})
        assert run.result() == {"step": 1}
    with monkeypatch.context() as patched, pytest.raises(StorageError, match="No space left"):
        patched.setattr(os, call, full)
        folder_of(recipe)
    with folder_of(recipe) as run:  # the lock was given back
        assert run.read("config.json")["data_digest"] == "0123"


def test_a_log_that_may_not_grow_is_an_error_and_reads_as_far_as_it_goes(tmp_path):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(StorageError, match="too large"), metrics.MetricsLog(tmp_path) as log:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (333, hard))
            for step in range(1, 100):
                log.write(step, loss=1.5)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    with metrics.MetricsLog(tmp_path) as log:
        found = [record["step"] for record in metrics.records(log.path)]
        log.truncate_after(5)
        log.write(6, loss=1.0)
    assert found == list(range(1, len(found) + 1)) and 5 < len(found) < 20 and len(whole) <= 333 + 40
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
