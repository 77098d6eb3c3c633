"""zoo's recurrent layers alone, forward and backward, as a side of a comparison."""

import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import rates
from benchmarks.device import Run, device_memory, facts, ready
from benchmarks.kinds import Stack
from zoo import recurrence


class StackRun(Run):
    """Forward and backward of the layers in zoo/recurrence, with the inputs' projections."""

    def __init__(self, work: Stack, folder: Path):
        self.work, self.arrays = work, jax.device_put(work.arrays())

    def start(self) -> dict:
        lowered = jax.jit(functools.partial(forward_backward, self.work.cell)).lower(*self.arrays)
        start = time.perf_counter()
        self.program = lowered.compile()
        return ready(time.perf_counter() - start)

    def first(self) -> dict[str, np.ndarray]:
        """Outputs and all gradients, matrices as [outputs, inputs]."""
        y_TBZ, (d_params, d_x_TBD) = self.program(*self.arrays)
        found, width = {"y": y_TBZ, "d_x": d_x_TBD}, self.work.width
        for n, layer in enumerate(d_params):
            found |= {f"{name}_l{n}": layer[name].reshape(width, -1).T for name in ("w_in", "w")}
            found |= {f"{name}_l{n}": layer[name].ravel() for name in ("b_in", "b") if name in layer}
        return {name: np.asarray(x) for name, x in found.items()}

    def turn(self, step: int, count: int) -> list[float]:
        return [
            rates.seconds(lambda: jax.block_until_ready(self.program(*self.arrays))) for _ in range(count)
        ]

    def facts(self) -> dict:
        return facts(self.program) | device_memory()

    def parts_of(self, rate: float) -> dict:
        return {}


def forward_backward(cell: str, params, x_TBD, d_TBZ):
    y_TBZ, back = jax.vjp(lambda *inputs: stack(cell, *inputs), params, x_TBD)
    return y_TBZ, back(d_TBZ)


def stack(cell: str, params, x_TBD):
    """The outputs of the last layer, all layers starting from zeros."""
    for layer in params:
        x = recurrence.project(x_TBD, layer["w_in"], layer["b_in"])
        zeros_BZ = jnp.zeros((x.shape[1], x.shape[-1]), x.dtype)
        if cell == "lstm":
            x_TBD, _ = recurrence.lstm(x, layer["w"], (zeros_BZ, zeros_BZ))
        else:
            x_TBD, _ = recurrence.gru(x, layer["w"], layer["b"], zeros_BZ)
    return x_TBD
