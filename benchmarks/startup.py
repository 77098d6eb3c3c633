"""`python -m benchmarks.startup`: how long a user waits for the first of everything.

    import zoo      import train      first batch      first step      resume      first token

Each in fresh processes, from their start to what the user waits for: the end of the import, the line of the
first step, the generated text. Once without and once with a compile cache that an earlier start has filled;
what compiles nothing has no second column. Medians of several rounds, taken in turn so that a change of the
machine's speed meets all. Budgets are in processor seconds, all threads together: others on the machine
lengthen the clock, and these hardly. The table is Markdown; the last line is JSON; 1 is returned where a
budget is exceeded.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from zoo.metrics import print_result
from zoo.run import versions

ROOT = Path(__file__).parents[1]
FIRST_BATCH = (
    "from zoo import data; from zoo.recipes import CONFIGS; recipe = CONFIGS[{recipe!r}]\n"
    "dataset = data.load(recipe.data, recipe.seed)\n"
    "recipe.task.batch(dataset.batch(0, range(recipe.data.batch_size)))"
)


@dataclass(frozen=True)
class Wait:
    """Something that a user waits for."""

    name: str
    command: tuple[str, ...]
    """Arguments of Python."""
    budget_s: float
    """Processor seconds without a compile cache."""
    cached_budget_s: float = 0.0
    """The same with a filled one; 0: it compiles nothing."""
    mark: str = ""
    """A pattern at the beginning of the line that was waited for; empty: the end of the process."""
    empty: bool = False
    """Whether neither tokens nor tokenizers are cached."""


def waits(recipe: str, folder: Path) -> list[Wait]:
    """What is measured; runs lie in `folder`, where `saved` has left a checkpoint."""
    training = ("train.py", recipe, "--runs", str(folder), "--log-every", "1", "--steps", "1000")
    batch = FIRST_BATCH.format(recipe=recipe)
    text = ("-m", "zoo", "generate", str(folder / "saved"), "def ", "--tokens", "1")
    return [
        Wait("import zoo", ("-c", "import zoo"), 3.0),
        Wait("import train", ("-c", "import train"), 3.5),
        Wait("first batch, nothing cached", ("-c", batch), 12.0, empty=True),
        Wait("first batch", ("-c", batch), 3.5),
        Wait("first step", (*training, "--name", "first"), 24.0, 8.0, mark=r"step 1/"),
        Wait("resume", (*training, "--name", "saved"), 22.0, 8.0, mark=r"step \d+/"),
        Wait("first token", text, 12.0, 6.0),
    ]


def saved(recipe: str, folder: Path, environment: dict[str, str]) -> None:
    """A run in `folder` that was killed behind its first checkpoint; all caches are filled by it."""
    (again,) = (wait for wait in waits(recipe, folder) if wait.name == "resume")
    measured((*again.command, "--save-every", "1"), r"step 3/", environment)


def measured(command, mark: str, environment: dict[str, str]) -> tuple[float, float]:
    """(seconds on the clock, processor seconds) of a Python process until it writes a line that begins with
    `mark`, when it is ended, or until its end. RuntimeError where it ends otherwise."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert process.stdout is not None
    lines, found = [], False
    with process.stdout:
        for line in process.stdout:
            lines.append(line)
            if mark and re.match(mark, line):
                process.kill()
                found = True
                break
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if not found and (mark or process.returncode):
        end = "".join(lines[-5:]).strip()
        raise RuntimeError(f"python {' '.join(command)} ended with {process.returncode}: {end}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


@dataclass(frozen=True)
class Row:
    """The medians of one wait."""

    name: str
    cache: bool
    clock_s: float
    processor_s: float
    budget_s: float

    @property
    def holds(self) -> bool:
        return self.processor_s <= self.budget_s


def environment_in(folder: Path, *, cache: bool, empty: bool = False) -> dict[str, str]:
    """Of a process that shares tokens and, with `cache`, compiled programs with others in `folder`."""
    named = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    named |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "ZOO_CACHE": str(folder / "tokens")}
    if empty:
        named["ZOO_CACHE"] = tempfile.mkdtemp(dir=folder)
    if cache:
        named["JAX_COMPILATION_CACHE_DIR"] = str(folder / "programs")
        named["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return named


def measure(recipe: str, rounds: int, wanted: str = "") -> list[Row]:
    """Every wait whose name begins with `wanted`, `rounds` times."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        chosen = [wait for wait in waits(recipe, folder) if wait.name.startswith(wanted)]
        if any(wait.cached_budget_s for wait in chosen):
            saved(recipe, folder, environment_in(folder, cache=True))
        columns = [(wait, False) for wait in chosen]
        columns += [(wait, True) for wait in chosen if wait.cached_budget_s]
        took: dict[tuple[str, bool], list[tuple[float, float]]] = {}
        for number in range(-1, rounds):  # the one before the first fills caches and is not counted
            for wait, cache in columns:
                if number < 0 and not cache and wait.budget_s > 5:
                    continue  # has nothing to fill
                environment = environment_in(folder, cache=cache, empty=wait.empty)
                found = measured(wait.command, wait.mark, environment)
                if number >= 0:
                    took.setdefault((wait.name, cache), []).append(found)
        rows = []
        for wait, cache in columns:
            clock_s, processor_s = map(statistics.median, zip(*took[wait.name, cache], strict=True))
            budget_s = wait.cached_budget_s if cache else wait.budget_s
            rows.append(Row(wait.name, cache, clock_s, processor_s, budget_s))
        return rows


def markdown(rows: list[Row]) -> str:
    lines = [
        "| until | compile cache | seconds | processor seconds | budget | holds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cache, holds = ("filled" if row.cache else "none"), ("yes" if row.holds else "**no**")
        seconds = f"{row.clock_s:.2f} | {row.processor_s:.2f} | {row.budget_s:g}"
        lines.append(f"| {row.name} | {cache} | {seconds} | {holds} |")
    return "\n".join(lines)


def main() -> int:
    formatting = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(description=__doc__, **formatting)
    parser.add_argument("--recipe", default="gpt_stdlib", help="what is trained (gpt_stdlib)")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind (5)")
    parser.add_argument("--only", default="", help="waits whose names begin so, as 'first'")
    options = parser.parse_args()
    rows = measure(options.recipe, options.rounds, options.only)
    print(markdown(rows) + "\n")
    keys = ("name", "cache", "clock_s", "processor_s", "budget_s", "holds")
    print_result(
        {
            "recipe": options.recipe,
            "rounds": options.rounds,
            "rows": [{key: getattr(row, key) for key in keys} for row in rows],
            "cpus": os.cpu_count(),
            "load_average": os.getloadavg(),
            "python": sys.version.split()[0],
            "versions": versions(),
        }
    )
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
