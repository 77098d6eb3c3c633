"""The best parameters of a run by one metric, and how long nothing has been better.

They are part of the train state. So a checkpoint of step s holds what was best up to s, no later than s and
no earlier; whatever a kill comes between, an evaluation that no checkpoint knows of is made again with the
same result; and deleting old checkpoints deletes no best. The price is one more copy of the parameters.

    evaluation    1      2      3      4      5
    accuracy    0.71   0.80   0.79   0.80   0.78
    step          1      2      2      2      2       equal is not better
    waited        0      0      1      2      3       patience=3 ends the run here
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from zoo.errors import ConfigError, nearest
from zoo.lettered import ParamSpec

SMALLER_IS_BETTER = ("loss", "perplexity", "bits_per_byte", "error", "distance")  # in a metric's name


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Best:
    """What the evaluations so far have found."""

    params: Any
    """Of the best evaluation; what the run started from until there is one."""
    step: Any
    """Whose parameters these are, int32; 0: nothing was evaluated yet."""
    value: Any
    """The metric there, float32."""
    evaluated: Any
    """The step of the latest evaluation that has been looked at, int32."""
    waited: Any
    """Evaluations since the best one, int32."""


def unknown_best(params) -> Best:
    """Before the first evaluation."""
    zero = jnp.zeros((), jnp.int32)
    return Best(jax.tree.map(jnp.copy, params), zero, jnp.zeros((), jnp.float32), zero, zero)


def best_specs(params) -> Best:
    """The same tree of ParamSpecs."""
    number = ParamSpec("", (), (), jnp.int32)
    return Best(params, number, ParamSpec("", (), (), jnp.float32), number, number)


def judged(best: Best, params, value, step, metric: str) -> Best:
    """What is best after an evaluation of `params` at `step`; a value that is no number never is."""
    value = jnp.asarray(value, jnp.float32)
    gain = best.value - value if smaller_is_better(metric) else value - best.value
    better = jnp.isfinite(value) & ((best.step == 0) | (gain > 0))
    choose = jax.tree.map(lambda new, old: jnp.where(better, new, old), (params, step, value), chosen(best))
    return Best(*choose, evaluated=step, waited=jnp.where(better, 0, best.waited + 1))


def chosen(best: Best) -> tuple:
    return best.params, best.step, best.value


def smaller_is_better(metric: str) -> bool:
    """The direction of a metric, by its name: losses, perplexities and errors fall, all others rise."""
    return any(word in metric for word in SMALLER_IS_BETTER)


def value_of(metric: str, metrics: dict[str, float | None]) -> float:
    """One of an evaluation's metrics; ConfigError where it has none of this name."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    if metric not in numbers:
        hint = nearest(metric, numbers) or f"; it has {', '.join(numbers)}"
        raise ConfigError(f"best={metric!r} is no metric of this run{hint}")
    return float(numbers[metric]) if math.isfinite(numbers[metric]) else math.nan


def out_of_patience(recipe, state) -> bool:
    """Whether as many evaluations as the recipe waits for have brought nothing better."""
    return recipe.patience > 0 and int(state.best.waited) >= recipe.patience


def kept(recipe, state, reporter) -> dict:
    """Which parameters the run ends with, for its result and its log."""
    step, waited = int(state.best.step), int(state.best.waited)
    value = f"{recipe.best} {float(state.best.value):.4g}"
    after = f", the {waited} evaluations after it brought nothing better" if waited else ""
    reporter.bar.note(f"best     step {step}, {value}{after}")
    return {"best_step": step, "evaluations_since_best": waited}
