"""The state of a training run: all that a checkpoint holds.

"State n" is the state after n steps. Everything that the next update depends on is in it, except the
batch, which is a pure function of (seed, step), and the keys of dropout and rounding, which are the seed's
folded with it. A step is an update, unless a guard keeps it from being applied (zoo/guard.py).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from zoo.optim import precision


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that a checkpoint holds."""

    step: Any
    """Steps taken so far, int32."""
    params: Any
    opt_state: Any
    average: Any
    """Exponential moving average of the parameters; None where the recipe keeps none."""
    carry: Any = None
    """What the model remembers of the rows so far; None where rows do not go on."""
    best: Any = None
    """The best parameters by a metric (zoo/best.py); None where the recipe names none."""
    guard: Any = None
    """What is known of updates that were not applied (zoo/guard.py); None where the first ends the run."""

    @property
    def offset(self) -> int:
        """How many batches have been skipped by going back: the next step sees batch step + offset."""
        return 0 if self.guard is None else int(self.guard.offset)

    @property
    def evaluated_params(self):
        """What an evaluation on the way reads: the average where there is one."""
        return self.params if self.average is None else self.average

    @property
    def final_params(self):
        """What a run is for: the best parameters where it keeps them, else those of the last evaluation."""
        return self.best.params if self.best is not None and self.best.step else self.evaluated_params

    def started_from(self, params) -> "TrainState":
        """State 0 with other parameters, of which the average, the best and a master are copies."""

        def copied(place):
            return jax.tree.map(lambda new, old: jnp.array(new, old.dtype), params, place)

        average = None if self.average is None else copied(self.average)
        best = self.best and dataclasses.replace(self.best, params=copied(self.best.params))
        opt_state = precision.started_from(self.opt_state, params)
        params = jax.tree.map(lambda new, old: new.astype(old.dtype), params, self.params)
        return dataclasses.replace(self, params=params, opt_state=opt_state, average=average, best=best)
