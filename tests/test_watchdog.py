"""The watchdog by a clock of its own, and real standstills: in Python, and with the interpreter held."""

import json
import threading

import pytest
from starts import Starts, argv_of

from zoo import events
from zoo.watchdog import LATER_SECONDS, SLOW, STEPS, Watchdog


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_the_first_step_may_take_six_times_as_long(clock):
    watchdog = Watchdog(10, clock=clock)
    clock.now = 10.0 * SLOW
    assert not watchdog.is_stuck()
    watchdog.step(1)
    clock.now += 10.5
    assert watchdog.is_stuck()


def test_thirty_usual_steps_are_no_standstill(clock):
    watchdog = Watchdog(10, clock=clock)
    for step in range(1, 10):
        clock.now += 2.0
        watchdog.step(step)
    clock.now += 2.0 * STEPS
    assert not watchdog.is_stuck()
    clock.now += 0.5
    assert watchdog.is_stuck()


def test_an_evaluation_or_a_save_has_more_time_and_is_no_step(clock):
    watchdog = Watchdog(10, clock=clock)
    watchdog.step(1)
    with watchdog.slow():
        clock.now += 10.0 * SLOW
        assert not watchdog.is_stuck()
        watchdog.beat()
        clock.now += 10.0 * SLOW + 1
        assert watchdog.is_stuck()
    clock.now += 2.0
    watchdog.step(2)
    assert watchdog.limit() == STEPS * 2.0


def test_zero_watches_nothing():
    before = threading.active_count()
    with Watchdog(0):
        assert threading.active_count() == before


@pytest.fixture(scope="module")
def starts():
    with Starts() as starts:
        yield starts


@pytest.mark.parametrize(("kind", "code"), [("sleep", 71), ("gil", 1)])
def test_a_run_that_stands_still_ends_and_shows_where(kind, code, starts, tmp_path):
    """With the interpreter held, by faulthandler, whose code is 1."""
    argv = argv_of("gpt", tmp_path, "stuck", "--stall-seconds", "5")
    start = starts.start(argv, tmp_path / "log", ZOO_FAULT=f"{kind}@6")
    assert start.code() == code
    found = events.read(tmp_path / "stuck" / "events.jsonl")
    assert found[0]["kind"] == kind
    where = {"sleep": "in asleep", "gil": "in holding_the_interpreter"}[kind]
    assert where in start.said() and start.said().count("most recent call first") > 1  # all threads
    if kind == "sleep":
        assert (found[-1]["event"], found[-1]["code"]) == ("watchdog", 71)
        assert "error: no progress for 5 s" in start.said()
    assert start.ended - start.began < 120
    assert starts.run(argv, tmp_path / "log") == 0  # and goes on from where it was
    assert json.loads((tmp_path / "stuck" / "result.json").read_text())["step"] == 12


def test_what_keeps_a_step_from_its_end_for_less_than_the_limit_is_no_standstill(clock):
    watchdog = Watchdog(10, clock=clock)
    watchdog.step(1)
    clock.now += 10.0
    assert not watchdog.is_stuck() and LATER_SECONDS > 1  # the thread looks once a second
