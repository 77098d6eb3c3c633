"""Many starts of train.py, each in a process of its own, without waiting for imports.

A server imports train.py and all that it needs, starts no device, and forks a child for each start: what is
left to a child is tracing its programs, which come compiled from the cache. Run by itself this file is the
server:

    {"argv": [...], "environment": {...}, "output": "log.txt"}     on stdin, one line a start
    {"pid": 4711}, later {"pid": 4711, "code": -9}                 on stdout
"""

import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMON = (
    "--data.batch-size 8 --data.length 16 --steps 12 --eval-every 5 --log-every 1 --save-every 4 "
    "--accumulate 2 --average-decay 0.9 --sample-tokens 0 --eval-batches 2 --schedule constant"
).split()
FAMILIES = {
    "gpt": (
        "gpt_stdlib --data.tokenizer char --model.num-layers 1 --model.num-heads 2 --model.d-model 16 "
        "--model.max-length 16 --model.dropout-rate 0.1"
    ).split(),
    "bert": (
        "bert_stdlib --data.vocab-size 300 --model.num-layers 1 --model.num-heads 2 --model.d-model 16 "
        "--model.d-ff 32 --model.max-length 16"
    ).split(),
    "lstm": (
        "lstm_stdlib --data.tokenizer char --data.vocab-size 0 --model.num-layers 1 --model.d-model 16 "
        "--model.d-state 16 --model.dropout-rate 0.1"
    ).split(),
}


def argv_of(family: str, folder: Path, name: str, *more: str) -> list[str]:
    """A tiny run with dropout, micro-batches, an average, and a carried state (LSTM). `more` wins."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text("".join(f"line {i} says that {i} times {i} is {i * i}.\n" for i in range(150)))
    argv = [*FAMILIES[family], *COMMON, "--data.path", str(text), "--runs", str(folder), "--name", name]
    for flag, value in zip(more[::2], more[1::2], strict=True):
        if flag in argv:
            argv[argv.index(flag) + 1] = value
        else:
            argv += [flag, value]
    return argv


@dataclass
class Start:
    """One process."""

    pid: int
    output: Path
    began: float = field(default_factory=time.monotonic)
    codes: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    ended: float = 0.0
    """When it was known to have ended."""

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def code(self, timeout_s: float = 400) -> int:
        """How it ends: its code, or minus the signal's number."""
        return self.codes.get(timeout=timeout_s)

    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""


class Starts:
    """The server, in a `with`."""

    def __enter__(self):
        cache = str(Path(tempfile.gettempdir()) / f"zoo-test-cache-{os.getuid()}")
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "1",
            "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
        environment.pop("ZOO_FAULT", None)
        if "--xla_backend_optimization_level" not in environment.get("XLA_FLAGS", ""):
            flags = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
            environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flags}"
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._began: queue.SimpleQueue = queue.SimpleQueue()
        self._known: dict[int, Start] = {}
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.stdin.close()
        self._server.wait(200)

    def start(self, argv: list[str], output: Path, **environment: str) -> Start:
        """Starts `train.py` with these arguments; what it says goes to `output`."""
        request = {"argv": argv, "environment": environment, "output": str(output)}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._began.get(timeout=120)

    def run(self, argv: list[str], output: Path, **environment: str) -> int:
        return self.start(argv, output, **environment).code()

    def _listen(self):
        for line in self._server.stdout:
            said = json.loads(line)
            if "code" in said:
                start = self._known.pop(said["pid"])
                start.ended = time.monotonic()
                start.codes.put(said["code"])
            else:
                start = self._known[said["pid"]] = Start(said["pid"], Path(said["output"]))
                self._began.put(start)


def serve() -> None:
    """Forks a child for each line of stdin, until there are no more; kills what is left then."""
    import grain  # noqa: F401
    import orbax.checkpoint  # noqa: F401
    import tyro  # noqa: F401

    import train

    children: set[int] = set()
    is_open = True
    while is_open or children:
        if is_open and select.select([0], [], [], 0.005)[0]:
            line = sys.stdin.readline()
            is_open = bool(line)
            if line:
                request = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    child(train, request)
                children.add(pid)
                print(json.dumps({"pid": pid, "output": request["output"]}), flush=True)
            else:
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
        if not is_open:
            time.sleep(0.01)
        for pid in list(children):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                children.remove(pid)
                print(json.dumps({"pid": pid, "code": os.waitstatus_to_exitcode(status)}), flush=True)


def child(train, request) -> None:
    """What train.py is from the command line."""
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(request["environment"])
    train.program(request["argv"])


if __name__ == "__main__":
    serve()
