"""A side of a comparison, in a process of its own that is asked over a pipe to take its turns.

    side = Side("torch")                    # imports what it needs, once
    side.open("gpt_6x384", folder)          # a fork of that process builds the model: memory starts anew
    side.ask("first", count=10)             # its first losses, written to FOLDER/torch.npz
    side.ask("turn", step=10, count=5)      # seconds of five steps
    side.shut(); side.end()

What a side runs is an object with start(), first(), turn(step, count), facts() and matmul(); zoo's are in
benchmarks/ours.py, the others' in benchmarks/peers. Each is made of (workload, folder); zoo's writes
FOLDER/weights.npz, with which the others begin. Only first() of a training workload takes a count.
"""

import ctypes
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

# {side: (the module that makes its runs, how)}
MODULES = {
    "zoo": ("benchmarks.ours", "zoo"),
    "again": ("benchmarks.ours", "zoo"),
    "torch": ("benchmarks.peers.plain_torch", "eager"),
    "torch.compile": ("benchmarks.peers.plain_torch", "compiled"),
    "transformers": ("benchmarks.peers.huggingface", "eager"),
    "transformers.compile": ("benchmarks.peers.huggingface", "compiled"),
    "flax": ("benchmarks.peers.textbook_flax", "eager"),
}


class Failed(Exception):
    """A side could not do what it was asked: a line that says why."""


class Side:
    """The parent's end of the pipe."""

    def __init__(self, name: str, log: Path):
        self.name = name
        environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
        environment |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        environment |= {"TOKENIZERS_PARALLELISM": "false"}
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.side", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            cwd=Path(__file__).parents[1],
            start_new_session=True,  # Ctrl-C is the parent's, which ends it
        )
        self.versions = self._answer()["versions"]

    def open(self, workload: str, folder: Path) -> dict[str, Any]:
        return self.ask("open", workload=workload, folder=str(folder))

    def ask(self, what: str, **given) -> dict[str, Any]:
        """The answer; raises Failed with the side's own line where it has none."""
        stream: Any = self._process.stdin
        try:
            stream.write(json.dumps({"do": what, **given}).encode() + b"\n")
            stream.flush()
        except BrokenPipeError:
            raise Failed(f"{self.name}: its process is gone") from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        stream: Any = self._process.stdout
        line = stream.readline()
        if not line:
            raise Failed(f"{self.name}: its process ended with {self._process.wait()}; see {self._log.name}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{self.name}: {answer['error']}")
        return answer

    def shut(self) -> None:
        """Ends the fork that has the workload."""
        self.ask("shut")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


# --- the other end --------------------------------------------------------------------------------


def main(name: str) -> None:
    """Imports, then forks for each workload that is opened."""
    die_with_parent()
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(value: dict) -> None:
        answers.write(json.dumps(value).encode() + b"\n")

    module, how = MODULES[name]
    maker = importlib.import_module(module)
    answer({"versions": maker.versions()})
    gc.freeze()
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        if asked["do"] != "open":
            answer({"error": "no workload is open"})
            continue
        child = os.fork()
        if not child:
            os._exit(serve(name, maker, how, asked, answer))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answer({} if code == 0 else {"error": f"its process ended with {code}"})


def serve(name: str, maker, how: str, asked: dict, answer) -> int:
    """One workload, until it is shut; what goes wrong is told in a line, and ends it."""
    from benchmarks.find import workload_of

    die_with_parent()
    try:
        folder = Path(asked["folder"])
        run = maker.make(workload_of(asked["workload"]), folder, how)
        answer(run.start())
        while line := sys.stdin.buffer.readline():
            asked = json.loads(line)
            what = asked.pop("do")
            if what == "shut":
                return 0  # main answers
            if what == "first":
                np.savez(folder / f"{name}.npz", **run.first(**asked))
                answer({})
            else:
                answer({"value": getattr(run, what)(**asked)})
        return 0
    except BaseException as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        answer({"error": f"{type(error).__name__}: {lines[0][:300]}"})
        # The asker has its answer; the next one is main's, to "shut".
        while (line := sys.stdin.buffer.readline()) and json.loads(line)["do"] != "shut":
            answer({"error": "it failed before"})
        return 0


def die_with_parent() -> None:
    """On Linux a side that is busy does not outlive who asked it; elsewhere it ends with its turn."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def peak_bytes() -> int | None:
    """The most memory that this process had at one time; None where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(found[0].split()[1]) * 1024 if found else None


if __name__ == "__main__":
    main(sys.argv[1])
