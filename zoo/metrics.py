"""The record of a run: metrics.jsonl, TensorBoard, the loss curve, and the last line on stdout.

    runs/NAME/metrics.jsonl    one JSON object per line, on disk as soon as it is written
    runs/NAME/tensorboard/     the same numbers as scalars (extra `tensorboard`)
    runs/NAME/loss.png         training and validation loss over the steps (extra `plot`)

A logged step holds step, loss, learning_rate, grad_norm, tokens_per_s, step_ms and mfu; an evaluation
holds step, eval_loss, perplexity and bits_per_byte, or the task's own metrics, on the same line or on
one of its own. A number that is not finite is null, so that every line is JSON for every reader.
"""

import contextlib
import importlib.util
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo import durable
from zoo.errors import ConfigError, storage_errors


class MetricsLog:
    """Appends to `folder`/metrics.jsonl and, if asked, writes the numbers for TensorBoard too.

    A run that continues at step s calls `truncate_after(s)` first; what a killed process wrote
    about later steps, or wrote half, is forgotten. Of several processes one writes, and the others only make
    their records.
    """

    def __init__(self, folder: str | os.PathLike, *, tensorboard: bool = False, writes: bool = True):
        self.path = Path(folder) / "metrics.jsonl"
        self._board = Path(folder) / "tensorboard" if tensorboard else None
        self._writer: Any = None
        self._purge_step: int | None = None
        if tensorboard:
            require("tensorboardX", extra="tensorboard")
        self._writes = writes
        if not writes:
            return
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        if not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size:
            self._rewrite(records(self.path))

    def write(self, step: int, **numbers: float | None) -> dict[str, Any]:
        """Appends one line, `step` first, and returns what it says."""
        record = finite({"step": step, **numbers})
        if not self._writes:
            return record
        with storage_errors(self.path):
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
            if self._board is not None:
                self._write_scalars(record)
        return record

    def truncate_after(self, step: int) -> None:
        """Drops the lines of steps later than `step` and those that are not whole, atomically."""
        if self._writes:
            self._rewrite([record for record in records(self.path) if record["step"] <= step])
        self._purge_step = step + 1

    def close(self) -> None:
        if not self._writes:
            return
        with storage_errors(self.path):
            self._file.close()
            if self._writer is not None:
                self._writer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _rewrite(self, kept: list[dict[str, Any]]) -> None:
        with storage_errors(self.path):
            self._file.close()
            durable.replace(self.path, "".join(json.dumps(record) + "\n" for record in kept))
            self._file = self.path.open("a", encoding="utf-8")

    def _write_scalars(self, record: Mapping[str, Any]) -> None:
        if self._writer is None:
            from tensorboardX import SummaryWriter

            # TensorBoard hides what an earlier process logged at purge_step and later.
            self._writer = SummaryWriter(str(self._board), purge_step=self._purge_step)
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, record["step"])
        self._writer.flush()


def records(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The whole lines of a metrics.jsonl, in order. A line torn by a kill is left out."""
    found = []
    for line in Path(path).read_bytes().splitlines():
        with contextlib.suppress(ValueError):  # torn: not JSON, or not even UTF-8
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                found.append(record)
    return found


def plot_loss(folder: str | os.PathLike, *, title: str) -> Path:
    """Draws `folder`/metrics.jsonl as `folder`/loss.png and returns its path."""
    path = Path(folder) / "loss.png"
    figure = loss_curve(records(Path(folder) / "metrics.jsonl"), title=title)
    with storage_errors(path):
        figure.savefig(path, dpi=120)
    return path


def loss_curve(logged: list[dict[str, Any]], *, title: str):
    """A matplotlib figure of training and validation loss over the steps, without a window system."""
    require("matplotlib", extra="plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(title=title, xlabel="step", ylabel="loss (nats per token)")
    for name, label, style in (("loss", "training", "-"), ("eval_loss", "validation", "o-")):
        points = [(record["step"], record[name]) for record in logged if record.get(name) is not None]
        if points:  # a line through one point is invisible, so a single one is a dot
            axes.plot(
                *zip(*points, strict=True), "o" if len(points) == 1 else style, label=label, markersize=4
            )
    if axes.lines:
        axes.legend()
    axes.grid(alpha=0.3)
    return figure


def require(module: str, *, extra: str) -> None:
    """Refuses at once what would fail for want of an optional package at the end of a long run."""
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f'{module} is not installed; pip install -e ".[{extra}]"')


def print_result(result: Mapping[str, Any]) -> None:
    """One compact JSON line, the last that a command writes to stdout."""
    print(json.dumps(finite(result), separators=(",", ":"), allow_nan=False), flush=True)


def finite(value: Any) -> Any:
    """`value` for JSON: arrays of one number as that number, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item"):  # a scalar of NumPy or JAX
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
