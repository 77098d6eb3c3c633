"""The punisher: kills a run at random moments, starts it again until it is complete, and compares every bit.

    python tests/chaos.py --family gpt --kills 70

Half the kills wait for a save to begin, and come 0 to 250 ms later; the others come at any time of a start.
What is compared with an unbroken run: the digest of the final state, the loss of every step as it is written
in metrics.jsonl, and the receipt of every batch. The last line is one JSON object.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from starts import FAMILIES, Start, Starts, argv_of

from zoo.metrics import records

SAVING = ".orbax-checkpoint-tmp"
FASTEST_S, SLOWEST_S = 0.0, 0.25


def ending(folder: Path) -> dict:
    """All that two equal runs share."""
    logged = records(folder / "metrics.jsonl")
    return {
        "digest": json.loads((folder / "result.json").read_text())["state_digest"],
        "losses": {each["step"]: each["loss"] for each in logged if "loss" in each},
        "evaluations": {each["step"]: each["eval_loss"] for each in logged if "eval_loss" in each},
        "batches": (folder / "receipts.txt").read_text().splitlines(),
    }


def steps_in(folder: Path) -> set[str]:
    """Names in a run's folder of checkpoints."""
    checkpoints = folder / "checkpoints"
    return {path.name for path in checkpoints.iterdir()} if checkpoints.is_dir() else set()


def newest(folder: Path) -> int:
    """The newest step that is complete."""
    return max((int(name) for name in steps_in(folder) if name.isdecimal()), default=0)


def saving(folder: Path) -> set[str]:
    """Saves that are under way, or that a kill has left."""
    return {name for name in steps_in(folder) if SAVING in name}


def killed(start: Start, folder: Path, random_: random.Random, usual_s: float, in_a_save: bool) -> bool:
    """Kills a start at a random moment; whether a save was under way."""
    if in_a_save:
        before = saving(folder)  # left by a kill, until the owner sweeps
        while start.codes.empty() and not saving(folder) - before:
            time.sleep(0.001)
        time.sleep(random_.uniform(FASTEST_S, SLOWEST_S))
    else:
        until = time.monotonic() + random_.uniform(0.0, usual_s)
        while start.codes.empty() and time.monotonic() < until:
            time.sleep(0.002)
    inside = bool(saving(folder))
    if start.codes.empty():
        try:
            start.send(signal.SIGKILL)
        except ProcessLookupError:
            return False
    return inside


def punish(starts: Starts, family: str, folder: Path, kills: int, seed: int, *more: str) -> dict:
    """Runs of one family, each killed again and again until it ends, until there were so many kills."""
    log, random_ = folder / f"{family}.log", random.Random(seed)
    began = time.monotonic()
    assert starts.run(argv_of(family, folder, "whole", *more), log) == 0, log.read_text()
    usual_s = time.monotonic() - began
    whole = ending(folder / "whole")
    found = {"family": family, "kills": 0, "inside_a_save": 0, "runs": 0, "lost_steps": 0, "failed_starts": 0}
    found["different"] = 0
    while found["kills"] < kills:
        name = f"killed{found['runs']}"
        argv, run = argv_of(family, folder, name, *more), folder / name
        reached, code = 0, None
        while code != 0:
            start = starts.start(argv, log)
            inside = False
            if found["kills"] < kills:
                in_a_save = random_.random() < 0.65
                inside = killed(start, run, random_, usual_s, in_a_save)
            code = start.code()
            found["kills"] += code == -signal.SIGKILL
            found["inside_a_save"] += code == -signal.SIGKILL and inside
            found["failed_starts"] += code not in (0, -signal.SIGKILL)
            found["lost_steps"] += newest(run) < reached
            if code not in (0, -signal.SIGKILL):
                break
            reached = newest(run)
        found["runs"] += 1
        found["different"] += code == 0 and ending(run) != whole
    return found | {"seconds": round(time.monotonic() - began)}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", choices=(*FAMILIES, "all"), default="all")
    parser.add_argument("--kills", type=int, default=70, help="of each family (70)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    families = FAMILIES if options.family == "all" else [options.family]
    with Starts() as starts, tempfile.TemporaryDirectory() as folder:
        found = [punish(starts, each, Path(folder), options.kills, options.seed) for each in families]
    print(json.dumps(found))
    return any(each["different"] or each["lost_steps"] or each["failed_starts"] for each in found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
