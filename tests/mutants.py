"""Does the suite notice? Plants the bugs of planted.py one at a time, in a copy of the tree, and runs the
tests that should fail.

    python tests/mutants.py NAME ...      these
    python tests/mutants.py --all         all, after their tests have passed without any

caught: a test failed. survived: none did. stale: the text is not there once any more. broken: the tests
could not be run, or did not end. The last line is JSON; the exit code is 1 unless all are caught.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from planted import PLANTED, Mutant

ROOT = Path(__file__).parents[1]
SECONDS = 900  # for the tests of one mutant
PYTEST = "-m pytest -x -q -n0 -p no:cacheprovider".split()
OUTCOMES = {0: "survived", 1: "caught"}  # by pytest's exit code
LEFT = shutil.ignore_patterns(".git", "__pycache__", "runs", ".*cache")


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """A copy of the tree, beside the same data."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder) / "zoo"
        shutil.copytree(ROOT, tree, ignore=LEFT)
        if (ROOT.parent / "shared").exists():
            (Path(folder) / "shared").symlink_to(ROOT.parent / "shared")
        yield tree


def planted(mutant: Mutant, text: str) -> str | None:
    """The file with the bug; None where its text does not stand there once."""
    return text.replace(mutant.old, mutant.new) if text.count(mutant.old) == 1 else None


def tested(tree: Path, tests: Iterable[str]) -> tuple[int, str]:
    """pytest's exit code, and the last lines of what it said; -1 where it did not end in time."""
    command = [sys.executable, *PYTEST, *(f"tests/{test}" for test in tests)]
    with tempfile.TemporaryDirectory() as cache:  # what sound code has made of a text would hide a bug
        environment = os.environ | {"PYTHONPATH": str(tree), "ZOO_CACHE": cache}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        settings = {"env": environment, "capture_output": True, "text": True, "timeout": SECONDS}
        try:
            done = subprocess.run(command, cwd=tree, **settings)
        except subprocess.TimeoutExpired:
            return -1, f"no end within {SECONDS} s"
    return done.returncode, "\n".join(done.stdout.splitlines()[-5:])


def outcome(mutant: Mutant, tree: Path) -> str:
    """What becomes of one, in a tree that is afterwards as it was."""
    path = tree / mutant.file
    text = path.read_text()
    changed = planted(mutant, text)
    if changed is None:
        return "stale"
    path.write_text(changed)
    try:
        code, said = tested(tree, mutant.tests.split())
    finally:
        path.write_text(text)
    found = OUTCOMES.get(code, "broken")
    if found == "broken":
        print(said, file=sys.stderr)
    return found


def main(argv: list[str]) -> int:
    """Plants what is named, and says what became of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--all", action="store_true", help="plant all of them")
    options = parser.parse_args(argv)
    known = {mutant.name: mutant for mutant in PLANTED}
    if unknown := sorted(set(options.names) - set(known)) or not (options.names or options.all):
        parser.error(f"no mutant {unknown}; there are {', '.join(known)}")
    chosen = PLANTED if options.all else [known[name] for name in options.names]
    found: dict[str, list[str]] = {}
    with copied() as tree:
        if options.all:
            code, said = tested(tree, sorted({test for mutant in chosen for test in mutant.tests.split()}))
            print(f"without any: {said}", flush=True)
            if code:
                return 1
        for mutant in chosen:
            started = time.monotonic()
            result = outcome(mutant, tree)
            found.setdefault(result, []).append(mutant.name)
            print(f"{result:9} {time.monotonic() - started:4.0f} s  {mutant.name}: {mutant.bug}", flush=True)
    caught = len(found.pop("caught", []))
    print(json.dumps({"planted": len(chosen), "caught": caught, **found}))
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
