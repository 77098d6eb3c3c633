"""`python -m benchmarks.scaling [AXIS ...]`: what a train step costs as a model or a machine grows.

    depth width length batch vocabulary     a small GPT's, one of them at a time
    devices                                 virtual ones: their program's, never their speed
    files bytes                             of a text: processor seconds until it is a data set

Of each point the program is compiled and read: FLOPs of its matmuls, bytes it moves, bytes it needs at once,
bytes sent between devices, its length, seconds to compile it; with --time a step's seconds too. Theory says
of each which polynomial it is: FLOPs are straight lines in depth, batch and vocabulary and parabolas in width
and length, and layers that are scanned cost the compiler the same however many. The polynomial is fitted, and
where a point lies further than the tolerance from it, theory and measurement part there. Times have a wide
tolerance, and on a machine that others use they say little.

The tables are Markdown; --plot FILE draws them (extra `plot`); the last line is JSON.
"""

import argparse
import dataclasses
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from benchmarks.growth import files_of, sizes_of
from benchmarks.workloads import gpt
from zoo import xla
from zoo.errors import UserError
from zoo.feed import training_batches
from zoo.mesh import MeshConfig, make_mesh
from zoo.metrics import print_result, require
from zoo.models.gpt import GPTConfig
from zoo.plan.collectives import collectives_of
from zoo.plan.matmuls import matmul_flops
from zoo.plan.program import read_program
from zoo.plan.traffic import memory_bytes
from zoo.run import versions

BASE = {"depth": 4, "width": 128, "length": 64, "batch": 8, "vocabulary": 512, "devices": 1}
POINTS = {
    "depth": (2, 4, 6, 8),
    "width": (64, 128, 192, 256),
    "length": (64, 128, 192, 256),
    "batch": (4, 8, 12, 16),
    "vocabulary": (512, 1024, 1536, 2048),
    "devices": (1, 2, 4, 8),
    "files": (64, 128, 192, 256),
    "bytes": (1 << 20, 2 << 20, 3 << 20, 4 << 20),
}
# The degree of the polynomial that theory gives; of what is not named, the degree is not known.
DEGREES = {
    "flops": {"depth": 1, "width": 2, "length": 2, "batch": 1, "vocabulary": 1, "devices": 0},
    "moved_bytes": {"depth": 1, "width": 2, "length": 2, "batch": 1, "vocabulary": 1},
    "peak_bytes": {"depth": 1, "width": 2, "length": 2, "batch": 1, "vocabulary": 1},
    "instructions": dict.fromkeys(("depth", "width", "length", "batch", "vocabulary"), 0),
    "compile_s": dict.fromkeys(("depth", "width", "length", "batch", "vocabulary"), 0),
    "step_s": {"depth": 1, "width": 2, "length": 2, "batch": 1, "vocabulary": 1},
    "cold_s": {"files": 1, "bytes": 1},
    "warm_s": {"files": 1, "bytes": 1},
}
TOLERANCES = {"flops": 0.001, "moved_bytes": 0.05, "peak_bytes": 0.05, "instructions": 0.05}
LOOSE = 0.3  # of what is measured in seconds


def workload(values: dict[str, int]):
    """The small GPT of these sizes, its layers scanned."""
    config = GPTConfig(
        vocab_size=values["vocabulary"],
        max_length=values["length"],
        num_layers=values["depth"],
        num_heads=4,
        d_model=values["width"],
        layer_unroll=1,
    )
    return gpt("", config, rows=values["batch"], length=values["length"])


def costs_of(values: dict[str, int], timed: bool = False) -> dict[str, float]:
    """What the train step of these sizes costs; FLOPs are those of all devices together."""
    work, count = workload(values), values["devices"]
    parts, mesh = work.parts(), make_mesh(MeshConfig(), jax.devices()[:count])
    with jax.set_mesh(mesh):
        batches = training_batches(work.data, parts.task, mesh, 0, 8)
        batch = next(batches)
        lowered = parts.compiled(mesh).lower(jax.eval_shape(parts.init), batch)
        start = time.process_time()
        compiled = lowered.compile()
        compile_s = time.process_time() - start
        program, memory = read_program(compiled.as_text()), compiled.memory_analysis()
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        found = {
            "flops": count * matmul_flops(program),
            "moved_bytes": memory_bytes(program),
            "peak_bytes": held + memory.temp_size_in_bytes,
            "instructions": sum(len(part.instructions) for part in program.computations.values()),
            "compile_s": compile_s,
            "sent_bytes": sum(each.wire_bytes for each in collectives_of(program, dict(mesh.shape))),
        }
        return found | ({"step_s": step_s(compiled, parts.init_on(mesh), [batch, *batches])} if timed else {})


def step_s(compiled: Callable, state, batches: list) -> float:
    """The median of a few steps behind the first."""
    took = []
    for batch in batches:
        start = time.perf_counter()
        state, numbers = compiled(state, batch)
        jax.block_until_ready((state, numbers))
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:])


@dataclass(frozen=True)
class Line:
    """One cost along one axis, and the polynomial that theory gives."""

    axis: str
    cost: str
    points: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def degree(self) -> int | None:
        return DEGREES.get(self.cost, {}).get(self.axis)

    @property
    def apart(self) -> float | None:
        """How far the point lies from the fitted polynomial that lies furthest, in parts of the largest."""
        largest = max(self.values)
        if self.degree is None or not largest:
            return None
        scaled = np.array(self.points) / self.points[-1]
        fitted = np.polyval(np.polyfit(scaled, self.values, self.degree), scaled)
        return float(np.abs(fitted - self.values).max() / largest)

    @property
    def holds(self) -> bool:
        return self.apart is None or self.apart <= TOLERANCES.get(self.cost, LOOSE)

    @property
    def row(self) -> str:
        theory = {None: "", 0: "flat", 1: "line", 2: "parabola"}[self.degree]
        apart = "" if self.apart is None else f"{self.apart:.1%}"
        verdict = "" if self.apart is None else "yes" if self.holds else "**no**"
        cells = [f"{value:,.3f}" if self.cost.endswith("_s") else f"{value:,.0f}" for value in self.values]
        return f"| {' | '.join([self.cost, *cells, theory, apart, verdict])} |"


def measured(axis: str, points, timed: bool = False, base: dict[str, int] = BASE) -> list[Line]:
    """The lines of one axis."""
    if axis in ("files", "bytes"):
        found = [files_of(n) if axis == "files" else sizes_of(n) for n in points]
    else:
        found = [costs_of(base | {axis: n}, timed) for n in points]
    lines = {cost: tuple(point[cost] for point in found) for cost in found[0]}
    return [Line(axis, cost, tuple(points), values) for cost, values in lines.items() if any(values)]


def markdown(lines: list[Line]) -> str:
    """A table for each axis."""
    tables = []
    for axis, group in itertools.groupby(lines, key=lambda line: line.axis):
        rows = list(group)
        head = f"| {axis} | {' | '.join(f'{n:,}' for n in rows[0].points)} | theory | apart | holds |"
        tables.append(
            "\n".join([head, "|---" * (len(rows[0].points) + 4) + "|", *(line.row for line in rows)])
        )
    return "\n\n".join(tables)


def draw(lines: list[Line], path: str) -> None:
    """Every cost beside its largest value, a panel an axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(line.axis for line in lines))
    figure = Figure(figsize=(4 * len(axes), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, axis in zip(figure.subplots(1, len(axes), squeeze=False)[0], axes, strict=True):
        for line in (line for line in lines if line.axis == axis):
            panel.plot(line.points, np.array(line.values) / max(line.values), "o-", label=line.cost)
        panel.set(xlabel=axis, ylim=(0, 1.05))
        panel.legend(fontsize=6)
    figure.savefig(path, dpi=120)


def main() -> int:
    formatting = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(description=__doc__, **formatting)
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=f"any of {', '.join(POINTS)} (all)")
    parser.add_argument("--time", action="store_true", help="run steps too, not of virtual devices")
    parser.add_argument("--plot", metavar="FILE", help="where to draw the lines, a .png")
    options = parser.parse_args()
    chosen = options.axes or list(POINTS)
    if unknown := sorted(set(chosen) - set(POINTS)):
        parser.error(f"{', '.join(unknown)}: no such axis; there are {', '.join(POINTS)}")
    try:
        if options.plot:
            require("matplotlib", extra="plot")
    except UserError as error:
        parser.error(str(error))
    xla.apply()
    if "devices" in chosen and xla.likely_platform() == "cpu":
        jax.config.update("jax_num_cpu_devices", max(POINTS["devices"]))
    lines = []
    for axis in chosen:
        lines += measured(axis, POINTS[axis], options.time and axis != "devices")
        print(markdown([line for line in lines if line.axis == axis]) + "\n", flush=True)
    if options.plot:
        draw(lines, options.plot)
    rows = [
        dataclasses.asdict(line) | {"degree": line.degree, "apart": line.apart, "holds": line.holds}
        for line in lines
    ]
    about = {"cpus": os.cpu_count(), "load_average": os.getloadavg(), "versions": versions()}
    print_result({"base": BASE, "lines": rows, **about})
    return 0


if __name__ == "__main__":
    sys.exit(main())
