"""A thread that ends a run which has come to a standstill, after it has shown where.

Heartbeats come from a process as long as it lives, also when it is stuck. What counts here are steps whose
numbers have arrived from the device, batches of an evaluation, saves.

Python's threads stand still as well where one of them, in C, does not give the interpreter back. For that
case faulthandler, whose thread needs none, has been told to end the process a little later, unless this
thread tells it anew. Its code is 1, which is its own choice.
"""

import contextlib
import faulthandler
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from zoo.ending import die
from zoo.errors import LOST

STEPS = 30  # as many times the usual step is no standstill
SLOW = 6  # times the limit for what may take long: the first step, which is compiled, evaluations, saves
LATER_SECONDS = 2.0  # by which faulthandler waits longer


class Watchdog:
    """Watches while it is in a `with`: `limit_s` seconds without progress end the process with code 71.
    0 watches nothing."""

    def __init__(self, limit_s: float, *, clock: Callable[[], float] = time.monotonic):
        self._limit_s, self._clock = limit_s, clock
        self._durations_s: deque[float] = deque(maxlen=32)
        self._step, self._last, self._slow = 0, clock(), 1
        self._over, self._lock = threading.Event(), threading.Lock()
        self._over.set()  # until it is entered
        self._is_first = True

    def __enter__(self):
        if self._limit_s:
            self._over.clear()
            self.beat()
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_):
        with self._lock:  # the thread must not arm it once more behind this
            self._over.set()
            if self._limit_s:
                faulthandler.cancel_dump_traceback_later()

    def step(self, step: int) -> None:
        """The numbers of the step before this one have arrived."""
        if self._is_first:
            self._is_first, self._slow = False, self._slow - 1
            self._arm()
        else:
            self._durations_s.append(self._clock() - self._last)
        self._step = step
        self.beat()

    def beat(self) -> None:
        """Something has been achieved."""
        self._last = self._clock()

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """What happens inside may take longer."""
        self._slow += 1
        self.beat()
        self._arm()
        try:
            yield
        finally:
            self._slow -= 1
            self.beat()
            self._arm()

    def limit(self) -> float:
        """Seconds without progress that are too many now."""
        usual = statistics.median(self._durations_s) if self._durations_s else 0.0
        return max(self._limit_s, STEPS * usual) * (SLOW if self._slow else 1)

    def is_stuck(self) -> bool:
        return self._clock() - self._last > self.limit()

    def _arm(self):
        with self._lock:
            if sys.__stderr__ is not None and not self._over.is_set():
                late = self.limit() + LATER_SECONDS
                faulthandler.dump_traceback_later(late, exit=True, file=sys.__stderr__)

    def _watch(self):
        while not self._over.wait(min(1.0, self._limit_s / 4)):
            self._arm()
            if self.is_stuck():
                limit_s = round(self.limit())
                text = f"\nerror: no progress for {limit_s} s at step {self._step}; where it stands:"
                die(LOST, "watchdog", text, stacks=True, step=self._step, seconds=limit_s)
