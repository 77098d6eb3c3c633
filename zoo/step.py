"""One training step and one evaluation step: what train.py loops over, planners compile, benchmarks time.

"State n" is the state after n updates. Everything that the next update depends on is in it, except the
batch, which is a pure function of (seed, step), and the dropout key, which is the seed's folded with it.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo import sharding
from zoo.models.pure import Model
from zoo.optim import state_specs as optimizer_specs
from zoo.sharding import ParamSpec


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that a checkpoint holds."""

    step: Any
    """Updates applied so far, int32."""
    params: Any
    opt_state: Any
    average: Any
    """Exponential moving average of the parameters; None where the recipe keeps none."""

    @property
    def best_params(self):
        """What evaluation and generation read: the average where there is one."""
        return self.params if self.average is None else self.average

    def started_from(self, params) -> "TrainState":
        """State 0 with other parameters, of which the average is a copy."""
        average = None if self.average is None else jax.tree.map(jnp.copy, params)
        return dataclasses.replace(self, params=params, average=average)


@dataclass(frozen=True)
class TrainStep:
    """The parts that a step is made of. No arrays, no state."""

    model: Model
    task: Any
    tx: optax.GradientTransformation
    seed: int = 0
    accumulate: int = 1
    """Micro-batches that one batch is computed in."""
    clip_norm: float = 0.0
    """Largest global norm of a gradient; 0: any."""
    average_decay: float = 0.0
    """Of the parameter average; 0: none is kept."""

    def init(self) -> TrainState:
        """State 0."""
        params = self.model.init(jax.random.key(self.seed))
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=self.tx.init(params),
            average=jax.tree.map(jnp.copy, params) if self.average_decay else None,
        )

    def specs(self) -> TrainState:
        """The same tree of ParamSpecs: what the sharding table places."""
        params = self.model.abstract()
        return TrainState(
            step=ParamSpec("", (), (), jnp.int32),
            params=params,
            opt_state=optimizer_specs(self.tx, params),
            average=params if self.average_decay else None,
        )

    def init_on(self, mesh) -> TrainState:
        """State 0, every array made where the table places it."""
        return jax.jit(self.init, out_shardings=sharding.shardings(self.specs(), mesh))()

    def compiled(self, mesh) -> Callable:
        """step(state, batch) -> (state, metrics), compiled once; the state that goes in is given up."""
        out = (sharding.shardings(self.specs(), mesh), None)
        return jax.jit(self.step, donate_argnums=0, out_shardings=out)

    def step(self, state: TrainState, batch) -> tuple[TrainState, dict]:
        """One update, applied only where the loss, the gradient and what would be stored are finite.

        Metrics: loss (mean nats), grad_norm (before clipping), param_norm, finite (whether the update
        was applied).
        """
        gradients, sums = self._gradients(state, batch)
        weight = jnp.maximum(sums["weight"], 1.0)
        gradients = jax.tree.map(lambda g: g / weight.astype(g.dtype), gradients)
        loss, norm = sums["loss"] / weight, optax.tree.norm(gradients)
        if self.clip_norm:
            scale = self.clip_norm / jnp.maximum(norm, self.clip_norm)
            gradients = jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients)

        updates, opt_state = self.tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = TrainState(state.step + 1, params, opt_state, self._averaged(state, params))
        param_norm = optax.tree.norm(params)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.isfinite(param_norm)
        state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
        return state, {"loss": loss, "grad_norm": norm, "param_norm": param_norm, "finite": finite}

    def _gradients(self, state, batch):
        """Summed gradients and sums of a batch, one micro-batch after the other."""
        key = jax.random.fold_in(jax.random.key(self.seed), state.step)

        def loss(params, micro, key):
            x_BTD, _ = self.model.features(params, micro["inputs"], train=True, rngs={"dropout": key})
            sums = self.task.loss(x_BTD, functools.partial(self.model.readout_stored, params), micro)
            return sums["loss"], sums

        gradient = jax.grad(loss, has_aux=True)
        if self.accumulate == 1:
            return gradient(state.params, batch, key)

        def add(total, part):
            index, micro = part
            new = gradient(state.params, micro, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, total, new), None

        parts = (jnp.arange(self.accumulate), jax.tree.map(self._split, batch))
        first = jax.tree.map(lambda x: x[0], parts[1])
        shapes = jax.eval_shape(gradient, state.params, first, key)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.scan(add, zeros, parts)[0]

    def _split(self, rows):
        """[B, ...] -> [A, B/A, ...]: every A-th row, so that each device splits the rows it has."""
        split = rows.reshape(-1, self.accumulate, *rows.shape[1:]).swapaxes(0, 1)
        return sharding.constrain(split, "." + "B" + "." * (rows.ndim - 1))

    def _averaged(self, state, params):
        """The moving average; young ones forget faster, min(decay, (1 + n) / (10 + n))."""
        if state.average is None:
            return None
        n = state.step.astype(jnp.float32)
        decay = jnp.minimum(self.average_decay, (1 + n) / (10 + n))
        return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.average, params)

    def evaluate(self, params, batch) -> dict:
        """Sums of the task's loss over one batch, without dropout."""
        x_BTD, _ = self.model.features(params, batch["inputs"])
        return self.task.loss(x_BTD, functools.partial(self.model.readout_stored, params), batch)
