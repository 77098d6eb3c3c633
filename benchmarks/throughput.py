"""`python -m benchmarks.throughput`: zoo beside its peers, training and inference, with receipts.

    python -m benchmarks.throughput                              every workload on this machine
    python -m benchmarks.throughput --models gpt2 lstm_2x650 --peers torch
    python -m benchmarks.throughput --quick                      seconds a row: that it works, not how fast
    python -m benchmarks.throughput --verify benchmarks/results/FILE.json

Each side runs in a process of its own, and they take turns (benchmarks/turns.py). First the losses of the
first steps must be the same, from the same weights; zoo runs twice, which shows the noise. A row that fails
either is shown and does not count. Peers that are not installed are left out with a line. Written are
FILE.json, FILE.md and FILE.png; the last line on stdout is one JSON object.
"""

import argparse
import importlib.util
import json
import os
import shutil
import sys
import time
from pathlib import Path

from benchmarks import record, table, verify
from benchmarks.find import PACKAGES, PEERS, checked, workload_of
from benchmarks.measure import row
from benchmarks.side import Failed, Side
from benchmarks.workloads import WORKLOADS
from zoo.errors import UserError

SECONDS, QUICK_SECONDS = 20.0, 1.0


def main(argv: list[str]) -> int:
    """The exit code: 0, 1 where a record does not hold, 2 for what a person can mend."""
    try:
        return measured(options_of(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; the rows so far are written", file=sys.stderr)
        return 130


def options_of(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ", ".join(WORKLOADS)
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME", help=f"workloads: {known}")
    parser.add_argument("--peers", default="", help=f"of {','.join(PEERS)} (all), or none")
    parser.add_argument("--quick", action="store_true", help="a second of turns a row, three first losses")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of turns a row ({SECONDS:g})")
    parser.add_argument("--verify", type=Path, metavar="FILE", help="run a record's workloads again")
    parser.add_argument("--out", type=Path, default=None, help="FILE.json to write; benchmarks/results/...")
    return parser.parse_args(argv)


def measured(options: argparse.Namespace) -> int:
    """Runs what is asked for, row by row."""
    old = record.read(options.verify) if options.verify else None
    names = [part for name in options.models for part in name.split(",") if part]
    if old:
        names = names or [row["workload"] for row in old["rows"]]
    names = names or list(WORKLOADS)
    for name in names:
        workload_of(name)
    given = [] if options.peers == "none" else options.peers.split(",") if options.peers else PEERS
    wanted = [checked(kind, PEERS, "peer") for kind in given]
    path = options.out or record.RESULTS / f"throughput-{time.strftime('%Y%m%d-%H%M%S')}.json"
    say(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores" + busy())
    sides = started(sides_of(wanted, names), path.with_suffix(".log"))
    versions = {name: version for side in sides.values() for name, version in side.versions.items()}
    settings = {"seconds": QUICK_SECONDS if options.quick else options.seconds, "quick": options.quick}
    found = record.begun(" ".join(["python -m benchmarks.throughput", *sys.argv[1:]]), versions, settings)
    try:
        measure_all(found, names, sides, path, options.quick)
    finally:
        for side in sides.values():
            side.end()
    say(table.chart(found, path.with_suffix(".png")))
    print(table.markdown(found))
    holds, lines = verify.verdict(old, found) if old else (True, [])
    print("\n".join(lines))
    print(json.dumps(summary(found, path) | ({"holds": holds} if old else {})))
    return 0 if holds else 1


def measure_all(found: dict, names: list[str], sides: dict[str, Side], path: Path, quick: bool) -> None:
    """The rows, each written as soon as it is there."""
    for number, name in enumerate(names, 1):
        say(f"{number}/{len(names)}  {name}: {workload_of(name).about}")
        mine = {side: sides[side] for side in ("zoo", "again", *workload_of(name).peers) if side in sides}
        seconds, least = found["settings"]["seconds"], 2 if quick else 3
        made = row(name, mine, seconds=seconds, least=least, checked=3 if quick else 50, say=say)
        found["rows"].append(made)
        found["flags"] |= {"added": made.get("flags", [])}
        record.write(path, found)
        path.with_suffix(".md").write_text(table.markdown(found), encoding="utf-8")
        if "over_fastest" in made:
            counted = "" if made["counts"] else f"; does not count: {'; '.join(made['why_not'])}"
            say(f"  {made['over_fastest']['p50']:.2f} times {made['fastest_peer']}{counted}")


def sides_of(wanted: list[str], names: list[str]) -> list[str]:
    """zoo's two, and those of the peers that are installed and have one of the workloads; a line for a kind
    that is not or has none."""
    used = dict.fromkeys(side for name in names for side in workload_of(name).peers)
    found = ["zoo", "again"]
    for kind in wanted:
        mine = [side for side in PEERS[kind] if side in used]
        if importlib.util.find_spec(PACKAGES[kind]) is None:
            say(f"{kind} is not installed, and is left out")
        elif not mine:
            say(f"{kind} has none of these models, and is left out")
        else:
            found += mine
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        say("no C++ compiler, which torch.compile needs: it is left out")
        found = [side for side in found if not side.endswith(".compile")]
    return found


def started(names: list[str], log: Path) -> dict[str, Side]:
    """A process for each side; a line for one that does not start."""
    log.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Side] = {}
    for name in names:
        try:
            found[name] = Side(name, log)
        except Failed as failure:
            say(f"{failure}; it is left out")
            if name == "zoo":
                raise UserError(f"zoo's own side does not start; see {log}") from None
    return found


def busy() -> str:
    return (
        ": others compute here, so no speed of this run counts for much" if os.getloadavg()[0] > 0.5 else ""
    )


def summary(found: dict, path: Path) -> dict:
    """The last line."""
    rows = {
        row["workload"]: {
            "over": round(row["over_fastest"]["p50"], 3) if "over_fastest" in row else None,
            "peer": row.get("fastest_peer"),
            "counts": row["counts"],
        }
        for row in found["rows"]
    }
    return {"record": str(path), "rows": rows, "load": found["machine"]["load"][0]}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
