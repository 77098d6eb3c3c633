"""Faults on purpose, for tests and rehearsals: the variable ZOO_FAULT, of which nothing is seen when unset.

    ZOO_FAULT=kind@step[:process][:phase]          several are separated by commas

    kill@6                SIGKILL while step 6 is computed
    sleep@8:1:data        process 1 gets stuck where it reads the batch of step 8
    term@4:save,raise@9   SIGTERM as step 4 is being saved; an exception in step 9

Each happens once in the life of a process. Without a number it is every process's. The phases in order:

    start      before the text is read (step 0)
    restore    before a checkpoint is looked for (step 0)
    data       before the batch of a step is read
    compile    before the first step of this start is compiled
    step       when the device has been given a step
    evaluate   before an evaluation
    save       when a step's files are written, and before they are sealed
    sealed     when they are, and before older steps are deleted
    end        before the result is written (the last step)
"""

import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from zoo import cluster, events
from zoo.errors import ConfigError, nearest

VARIABLE = "ZOO_FAULT"
PHASES = ("start", "restore", "data", "compile", "step", "evaluate", "save", "sealed", "end")


def raised():
    raise RuntimeError(f"a fault on purpose: {VARIABLE}={os.environ.get(VARIABLE)}")


def asleep():
    while True:
        time.sleep(1)


def holding_the_interpreter():
    """Backtracks for longer than anybody waits; no other thread of Python runs meanwhile."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def full():
    """From now on no file grows in this process, as on a full disk or at the end of a quota."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def sent(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


KINDS: dict[str, Callable[[], object]] = {
    "kill": sent(signal.SIGKILL),
    "term": sent(signal.SIGTERM),
    "int": sent(signal.SIGINT),
    "hup": sent(signal.SIGHUP),
    "stop": sent(signal.SIGSTOP),
    "segv": sent(signal.SIGSEGV),
    "raise": raised,
    "exit": lambda: sys.exit(0),  # the code of a success that is none
    "sleep": asleep,
    "gil": holding_the_interpreter,
    "full": full,
    "nan": lambda: None,  # done by `poisoned`
}


@dataclass(frozen=True)
class Fault:
    """One of them; `process` is None for all."""

    kind: str
    step: int
    process: int | None
    phase: str


_armed: list[Fault] = []


def arm(environment: Mapping[str, str] = os.environ) -> None:
    """Reads the variable. Raises ConfigError where it cannot be meant."""
    _armed[:] = [parsed(text) for text in environment.get(VARIABLE, "").split(",") if text]


def parsed(text: str) -> Fault:
    """What `kind@step[:process][:phase]` says; ConfigError where it says nothing."""
    kind, _, rest = text.strip().partition("@")
    step, *more = rest.split(":")
    if kind not in KINDS:
        raise ConfigError(f"{VARIABLE}={text}: there is no fault {kind!r}{nearest(kind, KINDS)}")
    processes = [int(word) for word in more if word.isdecimal()]
    phases = [word for word in more if not word.isdecimal()]
    if not step.isdecimal() or len(processes) > 1 or len(phases) > 1:
        raise ConfigError(f"{VARIABLE}={text} must be kind@step[:process][:phase], for example kill@6:save")
    phase = phases[0] if phases else "data" if kind == "nan" else "step"
    if phase not in PHASES:
        raise ConfigError(f"{VARIABLE}={text}: there is no phase {phase!r}{nearest(phase, PHASES)}")
    if kind == "nan" and more:
        raise ConfigError(f"{VARIABLE}={text}: a batch is poisoned everywhere as it is read: nan@{step}")
    return Fault(kind, int(step), processes[0] if processes else None, phase)


def reach(phase: str, step: int) -> None:
    """A phase of a step begins: what is due happens."""
    if _armed:
        for fault in due(phase, step):
            KINDS[fault.kind]()


def poisoned(batch: dict, step: int) -> dict:
    """The batch of a step, with weights that are no numbers where that is due."""
    if not _armed or not any(fault.kind == "nan" for fault in due("data", step, "nan")):
        return batch
    return batch | {"weights": batch["weights"] * np.float32("nan")}


def due(phase: str, step: int, *kinds: str) -> list[Fault]:
    """The faults of this moment, which will not happen again."""
    found = []
    for fault in list(_armed):
        meant = fault.kind in kinds if kinds else fault.kind != "nan"
        if meant and (fault.phase, fault.step) == (phase, step) and fault.process in (None, cluster.index()):
            _armed.remove(fault)
            events.write("fault", of_all=True, kind=fault.kind, step=step, phase=phase)
            found.append(fault)
    return found
