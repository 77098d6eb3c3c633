"""One training step and one evaluation step: what train.py loops over, planners compile, benchmarks time.

Where the rows of a batch go on where those of the batch before stopped (the layout "streams"), the model's
own state is carried from step to step: truncated back-propagation through time (Williams and Peng 1990).

    row 0   a b c d | e f g h | i j k l         step 0, 1, 2: gradients stop at the bars, the state does not
    row 1   m n o p | q r s t | u v w x
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from zoo import offload, sharding
from zoo.best import best_specs, judged, unknown_best, value_of
from zoo.distill import Lesson
from zoo.guard import Guard
from zoo.lettered import ParamSpec
from zoo.micro_batches import joined, split
from zoo.models.copies import with_copies
from zoo.models.pure import Model
from zoo.norms import global_norm
from zoo.optim import precision
from zoo.optim.finetune import overlaid, without
from zoo.state import TrainState

ROUNDING = 2**32 - 1  # folded into a step's key; micro-batches fold in 0, 1, 2, ...


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
    lesson: Lesson | None = None
    """How the model learns from a teacher; None: from the targets alone."""
    frozen: frozenset[str] = frozenset()
    """Names of the parameters that keep their values: no gradient is computed for them, and `tx` knows
    nothing of them."""
    best: str = ""
    """The metric whose best parameters are kept; empty: none are."""
    carried_rows: int = 0
    """Rows that go on from step to step, with the model's state; 0: every batch stands alone."""
    param_dtype: str = "float32"
    """How parameters are stored: float32, or bfloat16 with or without a master (zoo/optim/precision.py)."""
    offload: tuple[str, ...] = ()
    """Parts of the state that lie in the host's memory between steps (zoo/offload.py)."""
    guard: Guard = Guard()
    """What becomes of an update that cannot be right (zoo/guard.py)."""

    def init(self) -> TrainState:
        """State 0."""
        key = jax.random.key(self.seed)
        exact = self.model.init(key) | (self.lesson.init(key) if self.lesson else {})
        params = precision.stored(exact, self.param_dtype)
        average = precision.wide(params) if self.average_decay else None
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=precision.first_state(self.tx, without(exact, self.frozen), self.param_dtype),
            average=average,
            carry=self.no_carry(),
            best=unknown_best(params if average is None else average) if self.best else None,
            guard=self.guard.first(),
        )

    def no_carry(self):
        """The state of rows that have not begun; None where rows do not go on."""
        return self.model.initial_state(self.carried_rows, 0) if self.carried_rows else None

    def param_specs(self) -> dict:
        """What is trained: the model's parameters and those that compare it with a teacher."""
        return self.model.abstract() | (self.lesson.specs() if self.lesson else {})

    def specs(self) -> TrainState:
        """The same tree of ParamSpecs: what the sharding table places."""
        exact = self.param_specs()
        params = precision.stored_specs(exact, self.param_dtype)
        average = exact if self.average_decay else None
        return TrainState(
            step=ParamSpec("", (), (), jnp.int32),
            params=params,
            opt_state=precision.state_specs(self.tx, without(exact, self.frozen), self.param_dtype),
            average=average,
            carry=self.model.state_specs(self.carried_rows, 0) if self.carried_rows else None,
            best=best_specs(average or params) if self.best else None,
            guard=self.guard.specs(),
        )

    def init_on(self, mesh) -> TrainState:
        """State 0, every array made where it lies between steps."""
        return jax.jit(self.init, out_shardings=self.places(mesh))()

    def places(self, mesh) -> TrainState:
        """The sharding of every array of the state: by the table, and what is offloaded beside the device."""
        return offload.places(self.specs(), mesh, self.offload)

    def compiled(self, mesh, teacher_params=None) -> Callable:
        """step(state, batch) -> (state, metrics), compiled once; the state that goes in is given up."""
        compiled = jax.jit(self.step, donate_argnums=0, out_shardings=(self.places(mesh), None))
        if self.lesson is None:
            return compiled
        return lambda state, batch: compiled(state, batch, teacher_params)

    def judge(self, mesh) -> Callable:
        """judge(state, metrics) -> state, which knows then whether its parameters are the best so far."""
        if not self.best:
            return lambda state, metrics: state
        compiled = jax.jit(
            functools.partial(judged, metric=self.best),
            donate_argnums=0,
            out_shardings=sharding.shardings(self.specs().best, mesh),
        )

        def judge(state, metrics):
            value = value_of(self.best, metrics)
            best = compiled(state.best, state.evaluated_params, value, state.step)
            return dataclasses.replace(state, best=best)

        return judge

    def step(self, state: TrainState, batch, teacher_params=None) -> tuple[TrainState, dict]:
        """One update, made only where the loss and the gradient are finite and the guard sees no leap.

        Metrics: loss (mean nats, and what the layers ask for beside), grad_norm (before clipping),
        param_norm, finite (whether the first two are, and what rows remember), what the guard tells, and by
        their names what the layers say of themselves (Model.watched) under "gauges". A param_norm that is
        not finite is an update that overflowed: whoever sees it has to stop.
        """
        gradients, sums, carry = self._gradients(state, batch, teacher_params)
        weight = jnp.where(sums["weight"] > 0, sums["weight"], 1.0)  # a batch without targets changes nothing
        gradients = jax.tree.map(lambda g: g / weight.astype(g.dtype), precision.wide(gradients))
        loss, norm = sums["loss"] / weight, global_norm(gradients)
        # Moments are finite where the squares of the gradient add up to what is; what rows remember is seen
        # by no loss where their last targets do not count.
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & all_finite(carry)
        verdict = self.guard.verdict(state.guard, loss, finite)

        params, opt_state, average = self.updated(state, gradients, norm, verdict.applies)
        state = TrainState(
            step=state.step + verdict.goes_on.astype(jnp.int32),
            params=params,
            opt_state=opt_state,
            average=average,
            carry=jax.tree.map(lambda new, old: jnp.where(verdict.applies, new, old), carry, state.carry),
            best=state.best,
            guard=verdict.watch,
        )
        gauges = {name: total / weight for name, total in sums.get("gauges", {}).items()}
        numbers = {"loss": loss, "grad_norm": norm, "finite": finite}
        numbers |= {"param_norm": global_norm(precision.wide(state.params))}
        return state, numbers | verdict.told | {"gauges": gauges}

    def updated(self, state: TrainState, gradients, norm, applies) -> tuple:
        """(parameters, the optimizer's state, average) after an update by gradients whose global norm is
        `norm`, or as they are where it does not apply."""
        if self.offload:
            opt_state, gradients = offload.fetched(state.opt_state, gradients)
            state = dataclasses.replace(state, opt_state=opt_state)
        old = without(state.params, self.frozen), state.opt_state, without(state.average, self.frozen)
        # A branch, and no choice between the numbers of two states: that would read both, and keep both.
        trained, opt_state, average = jax.lax.cond(
            applies, self._updated, lambda old, *_: old, old, gradients, norm, state.step, self._key(state)
        )
        average = None if state.average is None else overlaid(state.average, average)
        return overlaid(state.params, trained), opt_state, average

    def _updated(self, old, gradients, norm, step, key):
        """The same of what is trained alone, where the update applies."""
        trained, opt_state, average = old
        if self.clip_norm:
            scale = self.clip_norm / jnp.maximum(norm, self.clip_norm)
            gradients = jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients)
        key = jax.random.fold_in(key, ROUNDING)
        trained, exact, opt_state = precision.updated(
            self.tx, gradients, opt_state, trained, param_dtype=self.param_dtype, key=key
        )
        return trained, opt_state, self._averaged(average, exact, step)

    def _key(self, state):
        """Of everything that is random in one step."""
        return jax.random.fold_in(jax.random.key(self.seed), state.step)

    def _gradients(self, state, batch, teacher_params):
        """(summed gradients, sums, the rows' next state) of a batch, one micro-batch after the other."""
        key = self._key(state)
        trained = without(state.params, self.frozen)

        def loss(trained, micro, key):
            params, (batch, carry) = overlaid(state.params, trained), micro
            training = {"train": True, "rngs": {"dropout": key}}
            if self.lesson is not None:
                x, layers = self.lesson.read(self.model, params, batch["inputs"], **training)
                sums = self.lesson.sums(self.task, params, teacher_params, x, layers, batch)
                return sums["loss"], (sums, None)
            params = with_copies(self.model, params, len(batch["inputs"]["tokens"]))
            (x, carry), penalty, gauges = self.model.watched(
                params, batch["inputs"], state=self._begun(carry, batch), **training
            )
            sums = self.task.loss(x, Partial(self.model.readout_stored, params), batch)
            # Means, so they count as much as the weight they are divided by in the end.
            sums |= {"loss": sums["loss"] + penalty * sums["weight"]}
            sums |= {"gauges": {name: gauge * sums["weight"] for name, gauge in gauges.items()}}
            return sums["loss"], (sums, carry)

        gradient = jax.grad(loss, has_aux=True)
        if self.accumulate == 1:
            gradients, (sums, carry) = gradient(trained, (batch, state.carry), key)
            return gradients, sums, carry

        def add(total, part):
            index, micro = part
            gradients, (sums, carry) = gradient(trained, micro, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, total, (gradients, sums)), carry

        rows = jax.tree.map(lambda rows: split(rows, self.accumulate), (batch, state.carry))
        parts = (jnp.arange(self.accumulate), rows)
        first = jax.tree.map(lambda x: x[0], parts[1])
        gradients, (sums, _) = jax.eval_shape(gradient, trained, first, key)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (gradients, sums))
        zeros = precision.wide(zeros[0]), zeros[1]  # bfloat16's would lose the later parts
        (gradients, sums), carries = jax.lax.scan(add, zeros, parts)
        return gradients, sums, jax.tree.map(joined, carries)

    def _begun(self, carry, batch):
        """The state that each row goes on from: nothing where `begins` says that its text begins here."""
        if carry is None:
            return None
        fresh = self.model.initial_state(len(batch["begins"]), 0)

        def choose(old, new):
            return jnp.where(batch["begins"].reshape(-1, *[1] * (old.ndim - 1)), new, old)

        return jax.tree.map(choose, carry, fresh)

    def _averaged(self, average, params, step):
        """The moving average of trained ones; young ones forget faster, min(decay, (1 + n) / (10 + n))."""
        n = step.astype(jnp.float32)
        decay = jnp.minimum(self.average_decay, (1 + n) / (10 + n))
        kept = {name: x for name, x in params.items() if name in average}  # none, where no average is
        return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, kept)

    def evaluate(self, params, batch, carry=None):
        """(sums of the task's loss, outputs that it wants to see, the rows' next state) of one batch,
        without dropout."""
        x, carry = self.model.features(params, batch["inputs"], state=self._begun(carry, batch))
        sums = self.task.loss(x, Partial(self.model.readout_stored, params), batch)
        return sums, self.task.outputs(self.model, params, x, batch), carry


def all_finite(tree):
    """Whether every number in it is finite."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.array([jnp.isfinite(x).all() for x in floats], bool).all()
