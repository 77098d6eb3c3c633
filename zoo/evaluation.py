"""What a model makes of a validation set."""

import jax
import numpy as np

from zoo.feed import evaluation_batches


class Evaluation:
    """The task's metrics of given parameters on a dataset's validation part, by one compiled program."""

    def __init__(self, parts, dataset, mesh):
        self._parts, self._dataset, self._mesh = parts, dataset, mesh
        self._step = jax.jit(parts.evaluate)

    def __call__(self, params, batches: int = 0) -> dict[str, float]:
        """Over `batches` batches spread evenly over the set; 0: over all of it.

        Sums are added in float64 on the host, in order, so that they do not depend on the set's size.
        """
        sums: dict[str, float] = {}
        for batch in evaluation_batches(self._dataset, self._parts.task, self._mesh, batches):
            for name, value in jax.device_get(self._step(params, batch)).items():
                sums[name] = sums.get(name, 0.0) + float(np.float64(value))
        return self._parts.task.metrics(sums, self._dataset)
