"""Faults on purpose: what can be said, when they come, and what each does to a run."""

import numpy as np
import pytest
from starts import Starts, argv_of

from zoo import cluster, events, faults
from zoo.errors import ConfigError, NumericsError


@pytest.fixture(autouse=True)
def disarmed():
    yield
    faults.arm({})


def arm(text):
    faults.arm({faults.VARIABLE: text})


def test_a_fault_is_a_kind_a_step_a_process_and_a_phase():
    assert faults.parsed("kill@6") == faults.Fault("kill", 6, None, "step")
    assert faults.parsed("sleep@8:1:data") == faults.Fault("sleep", 8, 1, "data")
    assert faults.parsed("term@4:save:2") == faults.Fault("term", 4, 2, "save")
    assert faults.parsed("nan@3") == faults.Fault("nan", 3, None, "data")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kil@6", "no fault 'kil'; did you mean 'kill'"),
        ("kill", "must be kind@step"),
        ("kill@x", "must be kind@step"),
        ("kill@-1", "must be kind@step"),
        ("kill@6:1:2", "must be kind@step"),
        ("kill@6:save:data", "must be kind@step"),
        ("kill@6:saved", "no phase 'saved'"),
        ("nan@6:save", "a batch is poisoned everywhere as it is read"),
        ("kill@6,raise", "must be kind@step"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        arm(text)


def test_it_comes_at_its_step_and_phase_and_process_and_once(monkeypatch):
    came = []
    monkeypatch.setitem(faults.KINDS, "raise", lambda: came.append(1))
    arm("raise@6:1:save")
    for index in (0, 1, 1):
        monkeypatch.setattr(cluster, "index", lambda index=index: index)
        for step in (5, 6):
            for phase in faults.PHASES:
                faults.reach(phase, step)
    assert came == [1]


def test_unset_it_is_nothing():
    faults.arm({})
    batch = {"weights": np.ones(3, np.float32)}
    faults.reach("step", 6)
    assert faults.poisoned(batch, 6) is batch


@pytest.fixture(scope="module")
def starts():
    with Starts() as starts:
        yield starts


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("raise@3", 70, "RuntimeError: a fault on purpose"),
        pytest.param("exit@3", 70, "sys.exit(0) in the midst of a run", marks=pytest.mark.long),
        pytest.param("segv@3", -11, "Fatal Python error: Segmentation fault", marks=pytest.mark.long),
        ("nan@3", NumericsError.exit_code, "error: step 3: loss nan"),
        ("oops@3", ConfigError.exit_code, "error: ZOO_FAULT=oops@3"),
    ],
)
def test_each_has_its_end_and_the_run_goes_on_from_it(fault, code, said, starts, tmp_path):
    argv = argv_of("gpt", tmp_path, "run", "--save-every", "2")
    start = starts.start(argv, tmp_path / "log", ZOO_FAULT=fault)
    assert start.code() == code and said in start.said()
    found = events.read(tmp_path / "run" / "events.jsonl")
    assert not found or found[0]["event"] == "fault"
    if code in (70, 5):
        assert found[-1]["event"] == "error" and found[-1]["code"] == code
