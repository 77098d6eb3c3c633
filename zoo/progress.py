"""What a person sees of a run, on stderr: a live bar on a terminal, plain lines anywhere else.

train  ━━━━━━━━━━╸━━━━━━━━━  420/1000  1:23 left  loss 2.3456  31,204 tokens/s  MFU 41.2 % (A)

step 420/1000  1:23 left  loss 2.3456  31,204 tokens/s  MFU 41.2 % (A)
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar


class Progress:
    """Steps `start` to `total`, in a `with`. `advance` after each step, `show` after each logged one."""

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        label: str = "train",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._start, self._label, self._clock = total, start, label, clock
        self._stream = sys.stderr if stream is None else stream
        self._step = start
        self._timed: tuple[float, int] | None = None  # when the first step was complete, and which it was
        self._bar: Bar | None = None
        self._task: Any = None
        self._shown: dict[str, Any] = {}

    def __enter__(self):
        if is_live(self._stream):
            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                console=Console(file=self._stream, force_terminal=True),
                refresh_per_second=4,
                redirect_stdout=False,  # stdout belongs to the last line, which is JSON
            )
            self._task = self._bar.add_task(self._label, total=self._total, completed=self._start, text="")
            self._bar.start()
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def advance(self, step: int) -> None:
        """`step` steps are complete. The first of this process, which compiles, starts the clock."""
        self._step = step
        if self._timed is None:
            self._timed = (self._clock(), step)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=self._line(self._shown))

    def show(self, record: Mapping[str, Any]) -> None:
        """The numbers of a logged step: into the bar. An evaluation, or without a bar anything: a line."""
        if self._bar is None or "loss" not in record:
            self.note(f"step {record.get('step', self._step)}/{self._total}  {self._line(record)}")
        else:
            self._shown = dict(record)
            self._bar.update(self._task, text=self._line(self._shown))

    def note(self, text: str) -> None:
        """One line above the bar."""
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def seconds_left(self) -> float | None:
        """At the pace since the first step, evaluations and checkpoints included; None before the second."""
        if self._timed is None or self._step <= self._timed[1]:
            return None
        since_s, since_step = self._timed
        return (self._clock() - since_s) / (self._step - since_step) * (self._total - self._step)

    def _line(self, record: Mapping[str, Any]) -> str:
        left_s = self.seconds_left()
        left = [f"{duration(left_s)} left"] if left_s else []
        return "  ".join([*left, *numbers(record)])


def numbers(record: Mapping[str, Any]) -> list[str]:
    """The numbers of a record that a person follows; what is unknown is left out."""
    formats = {
        "loss": "loss {:.4f}",
        "eval_loss": "eval loss {:.4f}",
        "perplexity": "perplexity {:.2f}",
        "bits_per_byte": "{:.4f} bits/byte",
        "tokens_per_s": "{:,.0f} tokens/s",
        "mfu": "MFU {:.1%} (A)",
    }
    return [text.format(record[name]) for name, text in formats.items() if record.get(name) is not None]


def duration(seconds: float) -> str:
    """59 -> 0:59, 3600 -> 1:00:00."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"


def is_live(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
