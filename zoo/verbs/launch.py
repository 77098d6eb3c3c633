"""launch: several processes on this machine that train as one, to rehearse what a cluster's launcher does.

    python -m zoo launch --processes 4 train.py gpt_stdlib --steps 20
    python -m zoo launch --processes 2 -- -m zoo doctor

Each has an equal share of --devices virtual CPU devices. What they write is seen with the process's number in
front, the last line of the first on stdout. Where one fails the others are ended.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO, TextIO

from zoo.errors import LOST, PREEMPTED, ConfigError

GRACE_SECONDS = 20.0  # for the others to end by themselves, once one has failed


def launch(options) -> int:
    """Runs them to their end; returns the exit code of the first that failed, or 0."""
    count, devices = options.processes, options.devices or options.processes
    if count < 1:
        raise ConfigError(f"--processes={count} must be at least 1")
    if devices % count:
        raise ConfigError(f"--devices={devices} does not divide over {count} processes; give a multiple")
    command = [word for word in options.command[:1] if word != "--"] + options.command[1:] or ["train.py"]
    if command[0] != "-m" and not os.path.isfile(command[0]):
        raise ConfigError(f"{command[0]}: no such file; give the program first: train.py RECIPE ...")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices // count)}
    coordinator = f"127.0.0.1:{free_port()}"
    processes = []
    for number in range(count):
        flags = ["--cluster.coordinator", coordinator, "--cluster.processes", str(count)]
        flags += ["--cluster.process", str(number)]
        processes.append(
            subprocess.Popen(
                [sys.executable, *command, *flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process alone, which hands it on
            )
        )
    readers = []
    for number, process in enumerate(processes):
        readers.append(copier(process.stderr, sys.stderr, f"[{number}] "))
        readers.append(
            copier(process.stdout, *((sys.stderr, f"[{number}] ") if number else (sys.stdout, "")))
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: send(processes, signal.SIGTERM))
    code = ended(processes)
    for reader in readers:
        reader.join()
    return code


def ended(processes: Sequence[subprocess.Popen]) -> int:
    """Waits until all have ended, and sees to it once one has failed."""
    failed_at, first_code = None, 0
    while any(process.poll() is None for process in processes):
        codes = [process.poll() for process in processes]
        bad = [code for code in codes if code not in (None, 0, PREEMPTED)]
        if bad and failed_at is None:
            failed_at, first_code = time.monotonic(), bad[0]
        if failed_at is not None and time.monotonic() - failed_at > GRACE_SECONDS:
            send(processes, signal.SIGKILL)
        time.sleep(0.05)
    codes = [process.returncode for process in processes]
    code = first_code or next((code for code in codes if code), 0)
    return LOST if code < 0 else code  # by a signal: somebody's, or the runtime's for one that was lost


def copier(source: IO[str], target: TextIO, prefix: str) -> threading.Thread:
    """A thread that shows what a process writes."""

    def copy():
        for line in source:
            print(f"{prefix}{line}", end="", file=target, flush=True)

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread


def send(processes: Sequence[subprocess.Popen], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
