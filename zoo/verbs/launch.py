"""launch: several processes on this machine that train as one, to rehearse what a cluster's launcher does.

    python -m zoo launch --processes 4 --devices 8 train.py gpt_stdlib --steps 20
    python -m zoo launch --processes 2 --retries 3 train.py gpt_stdlib
    python -m zoo launch --processes 2 -- -m zoo doctor

Each has an equal share of --devices virtual CPU devices. What they write is seen with the process's number
in front, the last line of the first on stdout. Where one fails the others are ended, and the code of the
first to fail is the job's. With --retries the job is started again where that may help: so many times in a
row, and anew whenever a later step was saved.
"""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

from zoo import manifest, steps
from zoo.errors import INTERNAL, LOST, PREEMPTED, ConfigError

GRACE_SECONDS = 4.0  # for the others to end by themselves, once one has failed
PAUSE_SECONDS = 1.0  # before a job that has failed is started again
RETRIED = (INTERNAL, LOST, PREEMPTED)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STUCK = "Timeout ("  # what faulthandler says before it ends a process that is stuck in C, with code 1


def launch(options) -> int:
    """Runs a job to its end, again where it may be; returns its exit code."""
    count, devices = options.processes, options.devices or options.processes
    if count < 1:
        raise ConfigError(f"--processes={count} must be at least 1")
    if options.retries < 0:
        raise ConfigError(f"--retries={options.retries} must be at least 0")
    if devices < 1:
        raise ConfigError(f"--devices={devices} must be at least 1")
    if devices % count:
        raise ConfigError(f"--devices={devices} does not divide over {count} processes; give a multiple")
    command = [word for word in options.command[:1] if word != "--"] + options.command[1:] or ["train.py"]
    if command[0] != "-m" and not os.path.isfile(command[0]):
        raise ConfigError(f"{command[0]}: no such file; give the program first: train.py RECIPE ...")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices // count)}
    folder = checkpoints_of(command) if options.retries and command[0] != "-m" else None
    left, saved = options.retries, newest(folder)
    while True:
        job = Job(command, count, environment)
        code = job.end()
        if code not in RETRIED or job.was_stopped:
            return code
        saved, before = newest(folder), saved
        left = options.retries if saved > before else left - 1
        if left < 0:
            return code
        print(f"launch   code {code}, step {saved} is saved: started again", file=sys.stderr)
        time.sleep(0.0 if code == PREEMPTED else PAUSE_SECONDS)


@dataclass(frozen=True)
class Ended:
    """A process that has ended, and with which code; signals are negative."""

    number: int
    code: int


class Job:
    """The processes of one start."""

    def __init__(self, command: Sequence[str], count: int, environment: dict[str, str]):
        self.was_stopped = False
        """Whether a signal has asked for its end."""
        self._stuck: set[int] = set()
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        coordinator = f"127.0.0.1:{free_port()}"
        self.processes = [
            self._started([*command, "--cluster.coordinator", coordinator], number, count, environment)
            for number in range(count)
        ]
        for number in SIGNALS:
            signal.signal(number, self._stop)

    def _started(self, command: list[str], number: int, count: int, environment) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, *command, "--cluster.processes", str(count), "--cluster.process", str(number)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process alone, which hands it on
        )
        out, prefix = (sys.stderr, f"[{number}] ") if number else (sys.stdout, "")
        self._run(self._copy, process.stderr, sys.stderr, f"[{number}] ", number)
        self._run(self._copy, process.stdout, out, prefix, number)
        self._run(lambda: self._ended.put(Ended(number, process.wait())))
        return process

    def _run(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _copy(self, source: IO[str], target: TextIO, prefix: str, number: int):
        for line in source:
            if line.startswith(STUCK):
                self._stuck.add(number)
            print(f"{prefix}{line}", end="", file=target, flush=True)

    def _stop(self, *_):
        """Hands a signal on: as SIGTERM, and a second one as SIGKILL."""
        send(self.processes, signal.SIGKILL if self.was_stopped else signal.SIGTERM)
        self.was_stopped = True

    def end(self) -> int:
        """Waits until all have ended, and sees to it once one has failed; returns the code of that one."""
        first, until = None, None
        for _ in self.processes:
            while (ended := self._next(until)) is None:
                send(self.processes, signal.SIGKILL)
                until = None
            if first is None and ended.code:
                first, until = ended, time.monotonic() + GRACE_SECONDS
        for thread in self._threads:
            thread.join()
        if first is None:
            return 0
        code = LOST if first.code < 0 or (first.code == 1 and first.number in self._stuck) else first.code
        if code != PREEMPTED:
            how = f"code {first.code}" if first.code > 0 else signal.Signals(-first.code).name
            print(f"launch   process {first.number} was the first to fail: {how}", file=sys.stderr)
        return code

    def _next(self, until: float | None) -> Ended | None:
        """The next process that ends; None where none has by then."""
        try:
            return self._ended.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
        except queue.Empty:
            return None


def checkpoints_of(command: Sequence[str]) -> Path:
    """Where the run that a command starts keeps its checkpoints."""
    from zoo import cli
    from zoo.recipes import CHOICES, CONFIGS

    recipe = cli.parse(list(command[1:]), CONFIGS, CHOICES, default="gpt_stdlib")
    return Path(recipe.runs) / recipe.name / "checkpoints"


def newest(folder: Path | None) -> int:
    """The newest step in a folder of checkpoints that was saved whole; -1 where there is none."""
    saved = steps.numbered(folder) if folder else []
    return max((step for step in saved if (folder / str(step) / manifest.NAME).is_file()), default=-1)


def send(processes: Sequence[subprocess.Popen], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
