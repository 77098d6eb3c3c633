"""Whether a record still holds: run again, its ratios lie within the noise of both runs."""

from collections.abc import Mapping
from typing import Any

LEAST_NOISE = 0.05


def noise_of(row: Mapping[str, Any]) -> float:
    """How far a row's ratio may be from another run's: half its own spread from turn to turn, how far zoo is
    from itself, and at least 5 %."""
    over, a_a = row["over_fastest"], row.get("a_a")
    half = (over["p95"] - over["p5"]) / 2 / over["p50"]
    return max(half, abs(a_a["p50"] - 1) if a_a else 0.0, LEAST_NOISE)


def held(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[bool | None, str]:
    """(whether a row holds, a line); None where the old one never counted, or had no peer.

    A faster zoo than was recorded holds too. The same peer is compared, whichever is the fastest now.
    """
    name, peer = old["workload"], old.get("fastest_peer")
    if not old["counts"]:
        return None, f"{name}: did not count when it was recorded ({'; '.join(old['why_not'])})"
    if not peer:
        return None, f"{name}: has no peer to compare with"
    mine = new.get("sides", {}).get(peer, {})
    if "zoo_over" not in mine:
        return (
            False,
            f"{name}: {peer} was not measured now ({'; '.join(new['failed'].values()) or 'left out'})",
        )
    if not mine["agrees"]:
        return False, f"{name}: {peer} does not compute the same now, {mine['apart']:.1e} apart"
    before, now = old["over_fastest"]["p50"], mine["zoo_over"]["p50"]
    allowed = noise_of(old) + noise_of(new | {"over_fastest": mine["zoo_over"]})
    holds = now >= before * (1 - allowed)
    says = "holds" if holds else "does not hold"
    return holds, f"{name}: {says}: {now:.2f} of {peer}, recorded {before:.2f}, noise {allowed:.0%}"


def verdict(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """(whether every row that counted holds, a line for each)."""
    rows = {row["workload"]: row for row in new["rows"]}
    found = [held(row, rows[row["workload"]]) for row in old["rows"] if row["workload"] in rows]
    return all(holds is not False for holds, _ in found), [line for _, line in found]
