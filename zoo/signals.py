"""SIGTERM, SIGINT and SIGHUP: a run saves the step it is at, and leaves with code 75.

    before the first step        nothing to lose: it leaves at once, also out of a compilation
    between steps                the step at hand is finished, saved, verified
    after the last step's save   nothing to lose: it leaves at once, and the same command writes the result
    a second one                 it leaves at once, with 128 + the signal's number

Python calls handlers between two instructions of its main thread, and a compilation or a restore is one
instruction that takes minutes. So a thread reads the signals' numbers from a pipe that the interpreter's own
handler writes to (signal.set_wakeup_fd), and acts.
"""

import os
import signal
import sys
import threading
import time

from zoo import cluster
from zoo.ending import die
from zoo.errors import PREEMPTED

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# A scheduler may send one signal twice, to a process and to its group; a person takes longer.
TOGETHER_SECONDS = 0.5


class StopRequest:
    """Hears signals until it is left. Where one of several processes hears one, all leave at one step."""

    def __init__(self):
        self.unsaved = False
        """Whether steps were made that a signal must not lose; the loop says so."""
        self._requested_at: float | None = None
        self._is_handed_on = False
        self._before: dict[int, object] = {}

    def __enter__(self):
        if threading.current_thread() is not threading.main_thread():
            print("signals  not heard: a program's main thread alone can hear them", file=sys.stderr)
            return self
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._listen()
        threading.Thread(target=self._watch, name="signals", daemon=True).start()
        return self

    def __exit__(self, *_):
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writer)  # which ends the thread

    def _listen(self):
        for number in NUMBERS:
            before = signal.getsignal(number)
            if number == signal.SIGHUP and before == signal.SIG_IGN:  # nohup
                continue
            self._before.setdefault(number, before or signal.SIG_DFL)
            signal.signal(number, lambda *_: None)

    @property
    def requested(self) -> bool:
        """Whether this process has heard one."""
        return self._requested_at is not None

    def is_due(self, step: int) -> bool:
        """Whether to save and leave at this step. To be asked at every step."""
        if not cluster.is_several():
            return self.requested
        if self.requested and not self._is_handed_on:  # the runtime, which tells the others, hears SIGTERM
            self._is_handed_on = True
            os.kill(os.getpid(), signal.SIGTERM)
        from jax.experimental import multihost_utils

        agreed = multihost_utils.reached_preemption_sync_point(step)
        if agreed and self._requested_at is None:
            self._requested_at = time.monotonic()
        if agreed and self._before:
            self._listen()  # in the runtime's place: the next is the second
        return agreed

    def abandons(self) -> bool:
        """Whether to break off what can be made up for later. Of several processes none can by itself."""
        return self.requested and not cluster.is_several()

    def all_saved(self):
        """The last step is on disk: from now on the first signal leaves at once."""
        self.unsaved = False
        if self._before:
            self._listen()  # of several processes the runtime has heard SIGTERM until now

    def _watch(self):
        with os.fdopen(self._reader, "rb", buffering=0) as pipe:
            while byte := pipe.read(1):
                if byte[0] in NUMBERS:
                    self._received(byte[0])

    def _received(self, number: int):
        now = time.monotonic()
        if self._requested_at is not None:
            if now - self._requested_at > TOGETHER_SECONDS:
                os._exit(128 + number)
            return
        self._requested_at = now
        if not self.unsaved:
            die(PREEMPTED, text="\nstopped; there was nothing to save, and the same command goes on")
        print("\nstopping after this step; again to leave at once", file=sys.stderr)
