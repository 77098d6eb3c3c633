"""`python -m benchmarks.host [rates] [overhead]`: what the host does beside the device, and what it costs.

    rates       tokens per second that one core makes batches of, from tokens that lie mapped into memory:
                dataset.batch and task.batch, as train.py calls them; required 2 million for texts
    overhead    processor seconds of a run of 1,000 steps with logging, checkpoints and evaluations on the
                way, over those of the same run without; required less than 2 %. The two take turns.

The rates are of processor time, which others on the machine hardly change. The overhead is small, so it wants
a quiet machine, and the ratio of each pair is shown. The tables are Markdown; the last line is JSON.
"""

import argparse
import dataclasses
import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.startup import environment_in, measured
from zoo import data
from zoo.metrics import print_result
from zoo.recipes import CONFIGS
from zoo.run import versions

REQUIRED_TOKENS_PER_S, REQUIRED_OVERHEAD = 2e6, 0.02
STEPS, LEAST_S = 20, 0.2
PARTS = ("rates", "overhead")

# GPT 4x128, T 64, B 12, characters of Python's library: nanoGPT's model for a CPU, some 60 ms a step.
SMALL = (
    "train.py gpt_stdlib --data.tokenizer byte --data.length 64 --data.batch-size 12 --sample-tokens 0 "
    "--model.num-layers 4 --model.num-heads 4 --model.d-model 128 --model.max-length 64 --eval-batches 20"
).split()
WITH = ("--log-every", "10", "--save-every", "250", "--eval-every", "250")


def pipelines() -> dict:
    """Recipes by what their data are."""
    text = CONFIGS["gpt_stdlib"]
    packed = dataclasses.replace(text, data=dataclasses.replace(text.data, layout="packed"))
    others = {"streams": "lstm_stdlib", "masked": "bert_stdlib", "examples": "classify_stdlib"}
    return {"text": text, "packed": packed} | {kind: CONFIGS[name] for kind, name in others.items()}


def tokens_per_s(recipe) -> float:
    """Positions of batches per processor second, the best of a few spells of LEAST_S."""
    dataset = data.load(recipe.data, recipe.seed)
    rows, steps = range(recipe.data.batch_size), itertools.count()

    def batch() -> int:
        return recipe.task.batch(dataset.batch(next(steps), rows))["inputs"]["tokens"].size

    batch()
    best = 0.0
    for _ in range(5):
        start, positions = time.process_time(), 0
        while (took := time.process_time() - start) < LEAST_S:
            positions += sum(batch() for _ in range(STEPS))
        best = max(best, positions / took)
    return best


def overhead(steps: int, pairs: int) -> list[tuple[float, float]]:
    """(processor seconds with, without) of each pair of runs, which take turns in going first."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        environment = environment_in(folder, cache=True)
        alone = [value for name in WITH[::2] for value in (name, str(2 * steps))]
        took: dict[str, list[float]] = {"with": [], "without": []}
        for number in range(-1, pairs):  # the one before the first fills caches and is not counted
            for which in sorted(took, reverse=bool(number % 2)):
                length = steps if number >= 0 else 4
                own = ("--steps", str(length), "--runs", str(folder), "--name", f"{which}{number}")
                command = (*SMALL, *(WITH if which == "with" else alone), *own)
                _, processor_s = measured(command, "", environment)
                if number >= 0:
                    took[which].append(processor_s)
        return list(zip(took["with"], took["without"], strict=True))


def main() -> int:
    formatting = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(description=__doc__, **formatting)
    parser.add_argument("parts", nargs="*", metavar="PART", help="rates, overhead (both)")
    parser.add_argument("--steps", type=int, default=1000, help="of a run, for the overhead (1000)")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each kind, for the overhead (3)")
    options = parser.parse_args()
    parts, result = options.parts or list(PARTS), {}
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"{', '.join(unknown)}: no such part; there are {', '.join(PARTS)}")
    if "rates" in parts:
        rates = {kind: tokens_per_s(recipe) for kind, recipe in pipelines().items()}
        print("| data | million tokens per second and core |\n|---|---|")
        print("\n".join(f"| {kind} | {rate / 1e6:.1f} |" for kind, rate in rates.items()) + "\n")
        result["tokens_per_s"] = rates
        result["rate_holds"] = rates["text"] >= REQUIRED_TOKENS_PER_S
    if "overhead" in parts:
        found = overhead(options.steps, options.pairs)
        shares = [both / alone - 1 for both, alone in found]
        print("| with, processor s | without | more |\n|---|---|---|")
        rows = (f"| {both:.1f} | {alone:.1f} | {both / alone - 1:.1%} |" for both, alone in found)
        print("\n".join(rows) + "\n")
        result |= {"steps": options.steps, "pairs_s": found, "overhead": statistics.median(shares)}
        result["overhead_holds"] = result["overhead"] < REQUIRED_OVERHEAD
    about = {"cpus": os.cpu_count(), "load_average": os.getloadavg(), "versions": versions()}
    print_result(result | about)
    return 0


if __name__ == "__main__":
    sys.exit(main())
