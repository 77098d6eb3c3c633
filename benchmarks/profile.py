"""`python -m benchmarks.profile MODEL`: what each layer of a train step costs, and how long it takes.

MODEL is a training workload of benchmarks/workloads.py, "gpt_6x384"; its step is train.py's. A few warm
steps are traced; an operation's time comes from the trace (benchmarks/trace.py), its layer, the FLOPs of its
matmuls and the bytes it moves from the compiled program (benchmarks/layers.py). Intensity is FLOPs per byte:
a layer with few is slow because of memory. Shares are of the traced steps' time on the clock, dispatch
included; what no operation accounts for is a row of its own. The table is Markdown; the last line is JSON.
"""

import argparse
import collections
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax

from benchmarks.layers import Cost, costs, paths_of
from benchmarks.trace import CPU_OPTIONS, seconds, traced
from benchmarks.workloads import WORKLOADS, Training
from zoo import xla
from zoo.errors import ConfigError, UserError, nearest
from zoo.feed import training_batches
from zoo.mesh import MeshConfig, make_mesh
from zoo.metrics import print_result
from zoo.plan.program import read_program
from zoo.run import versions
from zoo.tree import named_leaves

NOT_ATTRIBUTED = "not attributed"
WARM, STEPS = 3, 5


@dataclass
class Row:
    """A layer's part of one step."""

    layer: str
    flops: float = 0.0
    bytes: float = 0.0
    forward_s: float = 0.0
    backward_s: float = 0.0

    @property
    def seconds(self) -> float:
        return self.forward_s + self.backward_s

    @property
    def intensity(self) -> float:
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass
class Profile:
    """The layers of one step, the most expensive first, and what there was to be shared out among them."""

    rows: list[Row]
    step_s: float
    """Of a traced step, from its call until its results are there."""
    untraced_s: float
    """Of the same without a trace: the median of as many."""

    @property
    def attributed(self) -> float:
        """The part of the step's time that operations account for."""
        return sum(row.seconds for row in self.rows if row.layer != NOT_ATTRIBUTED) / self.step_s


class Step:
    """The compiled train step of `parts` on the mesh in force, its state, and what its instructions cost."""

    def __init__(self, parts, batch):
        mesh = jax.sharding.get_mesh()
        self._state = parts.init_on(mesh)
        options = CPU_OPTIONS if jax.default_backend() == "cpu" else {}
        self._compiled = parts.compiled(mesh).lower(self._state, batch).compile(options)
        paths = paths_of(named_leaves(parts.param_specs()))
        self.costs = list(costs(read_program(self._compiled.as_text()), paths))

    def times(self, batches) -> list[float]:
        """Seconds of one step after the other, each from its call until its results are there."""
        took = []
        for batch in batches:
            start = time.perf_counter()
            self._state, numbers = self._compiled(self._state, batch)
            jax.block_until_ready((self._state, numbers))
            took.append(time.perf_counter() - start)
        return took


def profile(step: Step, batches: list) -> Profile:
    """A step on each of the batches without a trace, and again with one."""
    untraced_s = statistics.median(step.times(batches))
    took: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        spans = traced(Path(folder), lambda: took.extend(step.times(batches)))
    step_s = statistics.mean(took)
    ran = {name: total / len(took) for name, total in seconds(spans).items()}
    return Profile(table(step.costs, ran, step_s), step_s, untraced_s)


def table(found: list[Cost], ran: dict[str, float], step_s: float) -> list[Row]:
    """Costs and times by layer; an instruction that no cost is known of counts as not attributed."""
    rows: dict[str, Row] = collections.defaultdict(lambda: Row(""))
    for cost in found:
        row = rows[cost.layer]
        row.flops += cost.flops
        row.bytes += cost.bytes
        if cost.backward:
            row.backward_s += ran.get(cost.instruction, 0.0)
        else:
            row.forward_s += ran.get(cost.instruction, 0.0)
    for layer, row in rows.items():
        row.layer = layer
    ordered = sorted(rows.values(), key=lambda row: -row.seconds)
    rest = step_s - sum(row.seconds for row in ordered)
    return [*ordered, Row(NOT_ATTRIBUTED, forward_s=rest)]


def markdown(found: Profile) -> str:
    """The table, with a sum below it."""
    lines = [
        "| layer | MFLOP | MB | FLOP/byte | forward ms | backward ms | ms | share |",
        "|---|---|---|---|---|---|---|---|",
    ]
    total = Row("sum")
    for row in found.rows:
        lines.append(line(row, found.step_s))
        total.flops += row.flops
        total.bytes += row.bytes
        total.forward_s += row.forward_s
        total.backward_s += row.backward_s
    return "\n".join([*lines, line(total, found.step_s)])


def line(row: Row, step_s: float) -> str:
    numbers = (1e-6 * row.flops, 1e-6 * row.bytes, row.intensity)
    times = (1e3 * row.forward_s, 1e3 * row.backward_s, 1e3 * row.seconds)
    cells = [row.layer, *(f"{n:,.1f}" for n in numbers), *(f"{ms:,.2f}" for ms in times)]
    return f"| {' | '.join(cells)} | {row.seconds / step_s:.1%} |"


def record(model: str, found: Profile, steps: int) -> dict:
    """The last line."""
    device = jax.devices()[0]
    rows = [
        {"layer": row.layer, "flops": row.flops, "bytes": row.bytes, "intensity": row.intensity}
        | {"forward_s": row.forward_s, "backward_s": row.backward_s, "share": row.seconds / found.step_s}
        for row in found.rows
    ]
    return {
        "model": model,
        "rows": rows,
        "attributed": found.attributed,
        "step_s": found.step_s,
        "untraced_step_s": found.untraced_s,
        "steps": steps,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "load_average": os.getloadavg(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": versions(),
    }


def workload_named(name: str) -> Training:
    """A training workload; ConfigError with the nearest name where there is none."""
    training = [each for each, work in WORKLOADS.items() if isinstance(work, Training)]
    if name not in training:
        known = ", ".join(training)
        raise ConfigError(f"{name!r} is no training workload; there are {known}{nearest(name, training)}")
    work = WORKLOADS[name]
    assert isinstance(work, Training)
    return work


def main() -> int:
    formatting = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(description=__doc__, **formatting)
    parser.add_argument("model", help="a training workload, as gpt_6x384")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"traced steps ({STEPS})")
    options = parser.parse_args()
    try:
        work = workload_named(options.model)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    xla.apply()
    parts, mesh = work.parts(), make_mesh(MeshConfig())
    with jax.set_mesh(mesh):
        batches = list(training_batches(work.data, parts.task, mesh, 0, WARM + options.steps))
        step = Step(parts, batches[0])
        step.times(batches[:WARM])
        found = profile(step, batches[WARM:])
    print(f"{work.about}: {1e3 * found.step_s:.1f} ms a step, {found.attributed:.1%} of it in the rows\n")
    print(markdown(found) + "\n")
    print_result(record(options.model, found, options.steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
