"""SIGKILL at random moments, half of them inside a save: nothing is lost, and the end is the same."""

import pytest
from chaos import punish
from starts import FAMILIES, Starts


@pytest.mark.parametrize(
    ("family", "kills"),
    [
        ("gpt", 4),
        *[pytest.param(family, 70, marks=pytest.mark.chaos) for family in FAMILIES],
    ],
)
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(family, kills, tmp_path):
    with Starts() as starts:
        found = punish(starts, family, tmp_path, kills, seed=kills)
    assert found["kills"] == kills and found["inside_a_save"] > 0
    assert (found["lost_steps"], found["failed_starts"], found["different"]) == (0, 0, 0), found
