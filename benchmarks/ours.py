"""zoo's side: the train step that train.py loops over; other kinds of workloads have files of their own."""

import time
from importlib import metadata
from pathlib import Path

import jax
import numpy as np

from benchmarks import parts
from benchmarks.device import Run, device_memory, facts, hand_over, ready, tensors_of
from benchmarks.inference import EmbeddingRun, GenerationRun
from benchmarks.kinds import Embedding, Generation, Stack, Training
from benchmarks.stacks import StackRun
from zoo import host_memory
from zoo.feed import place_rows
from zoo.mesh import MeshConfig, make_mesh


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}


def make(work, folder: Path, how: str):
    """The run of a workload; programs are kept in `folder`, so that the second one finds the first one's."""
    jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return RUNS[type(work)](work, folder)


class TrainingRun(Run):
    """train.py's step on train.py's mesh. On a CPU each step is waited for; elsewhere the last of a turn, as
    train.py reads a step's numbers while the next one runs."""

    def __init__(self, work: Training, folder: Path):
        self.work, self.parts = work, work.parts()
        self.mesh = make_mesh(MeshConfig())
        jax.set_mesh(self.mesh)
        self.state = self.parts.init_on(self.mesh)
        hand_over(folder, tensors_of(work.recipe.model, self.state.params))
        self.step = self.parts.compiled(self.mesh)

    def batch(self, step: int):
        """Examples as the task wants them, on the host."""
        rows = range(self.work.recipe.data.batch_size)
        return self.parts.task.batch(self.work.data.batch(step, rows))

    def place(self, batch):
        def rows_of(rows):
            return jax.tree.map(lambda x: x[rows.start : rows.stop], batch)

        return place_rows(rows_of, self.work.recipe.data.batch_size, self.mesh)

    def start(self) -> dict:
        """Compiles; what the compiler says of it is kept for `facts`."""
        lowered = self.step.lower(self.state, self.place(self.batch(0)))
        start = time.perf_counter()
        self.program = lowered.compile()
        seconds = time.perf_counter() - start
        host_memory.settle("step")
        return ready(seconds, self.mesh)

    def first(self, count: int) -> dict[str, np.ndarray]:
        """The losses of the first steps."""
        losses = []
        for step in range(count):
            self.state, numbers = self.step(self.state, self.place(self.batch(step)))
            losses.append(float(numbers["loss"]))
        return {"losses": np.array(losses)}

    def turn(self, step: int, count: int) -> list[float]:
        """Seconds of `count` steps from `step` on: of each, or where a device runs ahead, their mean."""
        batches = [self.batch(step + n) for n in range(count)]
        start, found = time.perf_counter(), []
        for batch in batches:
            self.state, numbers = self.step(self.state, self.place(batch))
            if jax.default_backend() == "cpu":
                float(numbers["loss"])
                found.append(time.perf_counter() - start)
                start = time.perf_counter()
        if found:
            return found
        float(numbers["loss"])
        return [(time.perf_counter() - start) / count]

    def facts(self) -> dict:
        return facts(self.program) | device_memory()

    def parts_of(self, rate: float) -> dict:
        """Milliseconds of the step's parts, each measured alone or computed at the measured rate."""
        return parts.of_training(self, rate)


RUNS = {Training: TrainingRun, Stack: StackRun, Generation: GenerationRun, Embedding: EmbeddingRun}
