"""Stopped at every step, the run ends as one that never was: digest, losses, evaluations, batches."""

import signal

import pytest
from chaos import ending
from starts import FAMILIES, Starts, argv_of

from zoo import steps

EVERY = range(1, 13)


@pytest.mark.parametrize(
    ("family", "stops"),
    [
        ("lstm", (1, 6, 12)),
        *[pytest.param(family, EVERY, marks=pytest.mark.chaos) for family in FAMILIES],
    ],
)
def test_a_run_that_is_stopped_at_these_steps_ends_as_if_it_had_not_been(family, stops, tmp_path):
    """By a kill as soon as the step is sealed; the first also before anything is saved, the last when all
    steps are done."""
    with Starts() as starts:
        log = tmp_path / "log"
        assert starts.run(argv_of(family, tmp_path, "whole"), log) == 0, log.read_text()
        for stop in stops:
            argv = argv_of(family, tmp_path, "stopped", "--save-every", str(stop), "--keep", "20")
            assert starts.run(argv, log, ZOO_FAULT=f"kill@{stop}:sealed") == -signal.SIGKILL
            assert steps.numbered(tmp_path / "stopped" / "checkpoints")[-1] == stop
        assert starts.run(argv_of(family, tmp_path, "stopped"), log) == 0
    assert ending(tmp_path / "stopped") == ending(tmp_path / "whole")
