"""What a model makes of a validation set."""

from collections.abc import Callable

import jax
import numpy as np

from zoo import sharding
from zoo.feed import evaluation_batches, prefetched


class Abandoned(Exception):
    """An evaluation that was broken off, and is to be made up for."""


class Evaluation:
    """The task's metrics of given parameters on a dataset's validation part, by one compiled program
    for each shape of batch."""

    def __init__(self, parts, dataset, mesh, goes_on: Callable[[], bool] = lambda: True):
        self._parts, self._dataset, self._mesh, self._goes_on = parts, dataset, mesh, goes_on
        whole = sharding.replicated(mesh)
        # Sums and outputs come whole to every process; what the rows remember stays where they are.
        self._step = jax.jit(parts.evaluate, out_shardings=(whole, whole, None))

    def __call__(self, params, batches: int = 0) -> dict[str, float]:
        """Over `batches` batches spread evenly over the set; 0: over all of it. Raises Abandoned where
        `goes_on`, which is asked before each, says no.

        Sums are added in float64 on the host, in order, so that they do not depend on the set's size.
        """
        sums: dict[str, float] = {}
        rows, carry = [], self._parts.no_carry()
        task = self._parts.task

        def begun(batch):
            nonlocal carry
            if not self._goes_on():
                raise Abandoned
            totals, outputs, carry = self._step(params, batch, carry)
            return totals, outputs

        given = evaluation_batches(self._dataset, task, self._mesh, batches)
        for totals, outputs in prefetched(begun, given):  # the device works on while sums are read
            for name, value in jax.device_get(totals).items():
                sums[name] = sums.get(name, 0.0) + float(np.float64(value))
            if outputs:
                rows.append(jax.device_get(outputs))
        return task.metrics(sums, rows, self._dataset)
