"""Sides take turns, so that a change of the machine's speed meets all of them: A B C, C B A, A B C, ...

turn      0          1          2
zoo       ==         ==         ==          a few steps each, whose median is the turn's time
again       ==     ==             ==        zoo once more: what noise alone makes of a ratio
torch         == ==                 ==
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping

LEAST, MOST = 3, 60
TURN_S = 0.2  # what a turn should take at least, so that a switch of processes counts little


def steps_a_turn(step_s: float) -> int:
    """How many steps of zoo's make a turn; the others take as many."""
    return max(1, min(20, math.ceil(TURN_S / max(step_s, 1e-6))))


def interleaved(
    run: Mapping[str, Callable[[int, int], list[float]]],
    *,
    begin: int,
    count: int,
    seconds: float,
    least: int = LEAST,
    tell: Callable[[int], None] = lambda turn: None,
) -> dict[str, list[list[float]]]:
    """{side: seconds of each step, of each turn}. `run[side](step, count)` takes a turn; the first, not kept,
    warms up. Turns go on for `seconds`, but at least `least` and at most MOST are taken."""
    found: dict[str, list[list[float]]] = {side: [] for side in run}
    start = time.monotonic()
    for turn in range(-1, MOST):
        for side in list(run)[:: 1 if turn % 2 else -1]:
            times = run[side](begin + (turn + 1) * count, count)
            if turn >= 0:
                found[side].append(times)
        tell(turn)
        if turn < 0:
            start = time.monotonic()
        elif turn + 1 >= least and time.monotonic() - start >= seconds:
            break
    return found


def spread(values, scale: float = 1.0) -> dict[str, float]:
    """p5, p50, p95 and min."""
    ordered = sorted(scale * value for value in values)
    last = len(ordered) - 1
    return {
        "p5": ordered[round(0.05 * last)],
        "p50": statistics.median(ordered),
        "p95": ordered[round(0.95 * last)],
        "min": ordered[0],
    }


def rates(turns: list[list[float]], real: list[float]) -> list[float]:
    """Real tokens per second of each turn: `real` of a step, over the median step."""
    return [tokens / statistics.median(times) for tokens, times in zip(real, turns, strict=True)]


def ratios(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Of rates of the same turn."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])
