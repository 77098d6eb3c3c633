"""One row: a workload's sides, whether they compute the same, their turns, and what limits zoo's."""

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.find import workload_of
from benchmarks.side import Failed, Side
from benchmarks.turns import interleaved, ratios, spread, steps_a_turn
from benchmarks.turns import rates as turn_rates
from benchmarks.workloads import Embedding, Generation, Stack, Training
from zoo.throughput import PEAK_FLOPS

NOT_A_NUMBER = 1e9  # how far NaN is from anything
A_A = 0.03  # how far zoo may be from itself
APART = {"losses": 1e-3, "tokens": 0.0, "vectors": 1e-4}  # relative to the largest number; others 1e-5
APART_BF16 = {"losses": 2e-2, "tokens": 0.1}


def row(
    name: str,
    sides: dict[str, Side],
    *,
    seconds: float,
    say: Callable[[str], None],
    least: int = 3,
    checked: int = 50,
) -> dict:
    """The record of a workload; a side that fails is told of, and left out. Of first steps at most `checked`
    are compared."""
    work, load = workload_of(name), [os.getloadavg()[0]]
    count = {"count": min(work.checked, checked)} if isinstance(work, Training) else {}
    found: dict = {"workload": name, "about": work.about, "kind": type(work).__name__.lower()}
    found |= {"dtype": work.dtype, "unit": work.unit, "failed": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        opened, started = {}, {}
        for side, process in sides.items():
            try:
                started[side] = process.open(name, folder)
                opened[side] = process
                process.ask("first", **count)
            except Failed as failure:
                opened.pop(side, None)
                found["failed"][side] = str(failure)
                say(f"  {failure}")
                shut(process, side in started)
                if side == "zoo":
                    return found
        try:
            compare(found, work, opened, started, folder)
            take_turns(found, work, opened, seconds=seconds, least=least, say=say)
            limits(found, work, opened)
        except Failed as failure:  # in the middle of things: what was found so far is kept
            found["failed"][str(failure).partition(":")[0]] = str(failure)
            say(f"  {failure}")
        finally:
            for process in opened.values():
                shut(process, True)
    found["load"] = [*load, os.getloadavg()[0]]
    judge(found)
    return found


def shut(process: Side, was_opened: bool) -> None:
    try:
        if was_opened:
            process.shut()
    except Failed:
        pass  # it is gone already, which its row says


# --- the same numbers -----------------------------------------------------------------------------


def compare(found: dict, work, opened, started, folder: Path) -> None:
    """How far each side's first numbers are from zoo's: losses of the first steps, outputs and gradients,
    tokens, or vectors."""
    first = {side: dict(np.load(folder / f"{side}.npz")) for side in opened}
    found |= {name: started["zoo"][name] for name in ("flags", "malloc", "mesh", "device")}
    found["sides"] = {}
    for side in opened:
        apart, agrees = distance(first["zoo"], first[side], work.dtype)
        found["sides"][side] = {"apart": apart, "agrees": agrees, "compile_s": started[side]["compile_s"]}
        if "losses" in first[side]:
            found["sides"][side]["first_losses"] = [round(float(x), 6) for x in first[side]["losses"]]
    found["compile_s"] = {
        "cold": started["zoo"]["compile_s"],
        "warm": started.get("again", {}).get("compile_s"),
    }


def distance(ours: dict, theirs: dict, dtype: str) -> tuple[float, bool]:
    """(the largest relative difference, whether all are within what the dtype allows)."""
    most, agrees = 0.0, True
    for name, x in ours.items():
        y = theirs[name]
        if name == "tokens":
            apart = float((x != y).mean())
        else:
            apart = float(np.abs(x - y).max() / np.abs(y).max())
            apart = apart if np.isfinite(apart) else NOT_A_NUMBER
        limit = APART.get(name, 1e-5)
        if dtype == "bfloat16":
            limit = APART_BF16.get(name, limit)
        most, agrees = max(most, apart), agrees and apart <= limit
    return most, agrees


# --- turns ----------------------------------------------------------------------------------------


def take_turns(found: dict, work, opened, *, seconds: float, least: int, say) -> None:
    """Times, rates and ratios of each side."""
    begin = len(found["sides"]["zoo"].get("first_losses", ()))
    warm = opened["zoo"].ask("turn", step=begin, count=1)["value"]
    warm = opened["zoo"].ask("turn", step=begin + 1, count=1)["value"]
    count = steps_a_turn(warm[-1])
    runs = {
        side: lambda step, n, process=process: process.ask("turn", step=step, count=n)["value"]
        for side, process in opened.items()
    }
    times = interleaved(runs, begin=begin + 2, count=count, seconds=seconds, least=least)
    found |= {"turns": len(times["zoo"]), "steps_a_turn": count, "positions": work.positions}
    rate = {}
    for side, turns in times.items():
        read = work if side in ("zoo", "again") else getattr(work, "beside", work)
        real = [
            statistics.mean(read.real(begin + 2 + (turn + 1) * count + n) for n in range(count))
            for turn in range(len(turns))
        ]
        rate[side] = turn_rates(turns, real)
        every = [step for turn in turns for step in turn]
        mine = found["sides"][side]
        mine["step_ms"] = spread(every, 1e3)
        mine["real_per_s"] = spread(rate[side])["p50"]
        mine["nominal_per_s"] = read.positions / statistics.median(every)
        mine["zoo_over"] = ratios(rate["zoo"], rate[side])
    for side, process in opened.items():
        found["sides"][side] |= process.ask("facts")["value"]


# --- limits ---------------------------------------------------------------------------------------


def limits(found: dict, work, opened) -> None:
    """MFU, the bound of the machine, and where the step's time goes."""
    device = found["device"]["kind"]
    measured = {
        side: opened[side].ask("matmul")["value"]
        for side in ("zoo", "torch", "transformers")
        if side in opened
    }
    best = max(measured.values())
    memory = opened["zoo"].ask("reading")["value"]
    found["matmul_flops_per_s"] = measured | {"best": best}
    found["read_bytes_per_s"] = memory
    peak = PEAK_FLOPS.get(device, best)
    source = f"{device}, vendor's sheet, dense bfloat16" if device in PEAK_FLOPS else "the matmul rate"
    found["mfu_peak"] = {"flops_per_s": peak, "source": source}
    full, causal = work.flops()
    found["model_flops"] = {"A (attention in full)": full, "B (causal half)": causal}
    for mine in found["sides"].values():
        step_s = mine["step_ms"]["p50"] / 1e3
        mine |= {"mfu_a": full / step_s / peak, "mfu_b": causal / step_s / peak}
        mine["percent_of_matmul"] = 100 * full / step_s / best
    ours, step_ms = found["sides"]["zoo"], found["sides"]["zoo"]["step_ms"]["p50"]
    arithmetic_ms, traffic = 1e3 * full / best, bytes_moved(work, ours)
    traffic_ms = 1e3 * traffic / memory
    bound_ms = max(arithmetic_ms, traffic_ms)
    found["bound"] = {
        "ms": bound_ms,
        "by": "arithmetic" if arithmetic_ms >= traffic_ms else "memory",
        "arithmetic_ms": arithmetic_ms,
        "memory_ms": traffic_ms,
        "reached": bound_ms / step_ms,
    }
    parts = opened["zoo"].ask("parts_of", rate=best)["value"]
    if parts and not isinstance(work, (Generation, Stack)):
        rest = step_ms - sum(part["ms"] for part in parts.values())
        parts["rest"] = {"ms": rest, "how": "the step less all of these: elementwise, norms, loss, copies"}
    found["parts"] = parts


def bytes_moved(work, ours: dict) -> float:
    """What a step must read and write at least: weights once, or the arguments and the new state."""
    if isinstance(work, Generation):
        return ours["weight_bytes"]
    if isinstance(work, Embedding):
        return 0.0
    return 2.0 * ours["argument_bytes"]


# --- whether it counts ----------------------------------------------------------------------------


def judge(found: dict) -> None:
    """Why the row's speed does not count, if it does not, and which peer is the fastest of those that do."""
    why, sides = [], found.get("sides", {})
    if "zoo_over" not in sides.get("zoo", {}):
        why.append("it was not measured")
    if "zoo_over" in sides.get("again", {}):
        found["a_a"] = sides["again"]["zoo_over"]
        if abs(found["a_a"]["p50"] - 1) > A_A:
            why.append(f"A/A {found['a_a']['p50']:.3f}, more than {A_A:.0%} from 1: a noisy machine")
    else:
        why.append("zoo was not measured twice")
    timed = {side: mine for side, mine in sides.items() if "zoo_over" in mine}
    peers = {side: mine for side, mine in timed.items() if side not in ("zoo", "again")}
    for side, mine in peers.items():
        if not mine["agrees"]:
            why.append(f"{side} does not compute the same: {mine['apart']:.1e} apart")
    same = {side: mine for side, mine in peers.items() if mine["agrees"]}
    if same:
        fastest = max(same, key=lambda side: same[side]["real_per_s"])
        found["fastest_peer"], found["over_fastest"] = fastest, same[fastest]["zoo_over"]
    found |= {"why_not": why, "counts": not why}
