"""`python -m benchmarks.gpu`: what one GPU shows in eight minutes; needs jax, flax, optax, orbax and numpy.

    python -m benchmarks.gpu                      the workloads of benchmarks/gpu_workloads.py, by value
    python -m benchmarks.gpu --minutes 15
    python -m benchmarks.gpu --rehearse           tiny ones on a CPU: that it runs from end to end

torch and transformers are measured beside it where they are installed. The record is written after every row,
so it may be stopped at any moment. Where cuDNN's attention can be had, the compiled program must have it: a
row without it does not count, and the exit code is 1. The last line on stdout is one JSON object.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from benchmarks import record, table
from benchmarks.find import PEERS, checked, workload_of
from benchmarks.gpu_workloads import ASSERTED, GPU, REHEARSAL
from benchmarks.measure import judge, row
from benchmarks.side import Side
from benchmarks.throughput import say, sides_of, started, summary
from zoo import xla
from zoo.errors import UserError

MINUTES, SECONDS = 8.0, 8.0


class TimeIsUp(Exception):
    """In the middle of a row."""


def main(argv: list[str]) -> int:
    """The exit code: 0, 1 where an asserted kernel is missing, 2 for what a person can mend."""
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
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME", help=f"of {', '.join(GPU)}")
    parser.add_argument("--peers", default="torch,transformers,flax", help="with commas; none: zoo alone")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"in all ({MINUTES:g})")
    parser.add_argument("--rehearse", action="store_true", help="tiny workloads on whatever is there")
    parser.add_argument("--out", type=Path, default=None, help="FILE.json to write; benchmarks/results/...")
    return parser.parse_args(argv)


def measured(options: argparse.Namespace) -> int:
    """Row by row, until all are there or time is up."""
    end = time.monotonic() + 60 * options.minutes
    names = [part for name in options.models for part in name.split(",") if part]
    names = names or list(REHEARSAL if options.rehearse else GPU)
    for name in names:
        checked(name, REHEARSAL if options.rehearse else GPU, "workload")
    given = [] if options.peers == "none" else [kind for kind in options.peers.split(",") if kind]
    wanted = [checked(kind, PEERS, "peer") for kind in given]
    if not options.rehearse and xla.likely_platform() == "cpu":
        raise UserError("JAX has no GPU here; --rehearse shows on a CPU that all of it runs")
    path = options.out or record.RESULTS / f"gpu-{time.strftime('%Y%m%d-%H%M%S')}.json"
    sides = started(sides_of(wanted, names), path.with_suffix(".log"))
    versions = {name: version for side in sides.values() for name, version in side.versions.items()}
    settings = {"seconds": SECONDS, "minutes": options.minutes, "quick": options.rehearse}
    found = record.begun(" ".join(["python -m benchmarks.gpu", *sys.argv[1:]]), versions, settings)
    missing = []
    signal.signal(signal.SIGALRM, late)
    name = names[0]
    try:
        for name in names:
            left = end - time.monotonic()
            if left <= 0:
                say(f"{name}: not reached in {options.minutes:g} minutes")
                continue
            signal.setitimer(signal.ITIMER_REAL, left)
            seconds = 0.5 if options.rehearse else SECONDS
            made = one(name, sides, seconds, rehearsed=options.rehearse)
            signal.setitimer(signal.ITIMER_REAL, 0)
            missing += assert_kernel(name, made)
            found["rows"].append(made)
            record.write(path, found)
            path.with_suffix(".md").write_text(table.markdown(found), encoding="utf-8")
    except TimeIsUp:
        say(f"{name}: {options.minutes:g} minutes are up; the rows before it are written")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for side in sides.values():
            side.end()
    print(table.markdown(found))
    print(json.dumps(summary(found, path) | {"missing_kernels": missing}))
    return 1 if missing else 0


def late(signum, frame) -> None:
    raise TimeIsUp


def one(name: str, sides: dict[str, Side], seconds: float, *, rehearsed: bool) -> dict:
    """A row."""
    say(f"{name}: {workload_of(name).about}")
    mine = {side: sides[side] for side in ("zoo", "again", *workload_of(name).peers) if side in sides}
    made = row(
        name, mine, seconds=seconds, least=2 if rehearsed else 3, checked=3 if rehearsed else 50, say=say
    )
    if "sides" in made and "step_ms" in made["sides"].get("zoo", {}):
        zoo = made["sides"]["zoo"]
        over = made.get("over_fastest")
        beside = f", {over['p50']:.2f} times {made['fastest_peer']}" if over else ""
        say(f"  {zoo['step_ms']['p50']:.2f} ms, {zoo['real_per_s']:,.0f} a second{beside}")
    return made


def assert_kernel(name: str, made: dict) -> list[str]:
    """The workload, where its compiled program lacks the kernel that it must have; its row then says so."""
    wanted, zoo = ASSERTED.get(name), made.get("sides", {}).get("zoo", {})
    if wanted is None or zoo.get("attention", wanted) == wanted:
        return []
    judge(made)
    made["why_not"].append(f"attention is {zoo['attention']} in the compiled program, not {wanted}")
    made["counts"] = False
    say(f"  {made['why_not'][-1]}")
    return [name]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
