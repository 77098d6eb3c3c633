"""Learning rate schedules: how the rate moves from a peak over the steps of a run.

A schedule knows shapes, not sizes: the peak belongs to the optimizer (zoo/optim.py) and the number of
steps to the recipe, so `schedule.rate(peak, steps)` gives the function from a step to its rate. Steps
count from 0 and the last one is `steps - 1`.

    peak     ____                Every schedule warms up alike and reaches the peak at step
            /    \\              `warmup_steps`, where its own shape begins. The rate of step 0 is
           /      \\             peak / (warmup_steps + 1), never 0, as in nanoGPT's train.py: a first
          /        \\            step that moves nothing would be wasted.
      0   W        steps

A run shorter than its warm-up, as one that only tries things out, ends on the climb.

A decay ends at step `steps`, one after the last, as nanoGPT's does with lr_decay_iters = max_iters:
a run that decays to 0 still learns from its last batch. Papers stand at each schedule.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import optax

from zoo.errors import ConfigError


@dataclass(frozen=True)
class Constant:
    """The peak until the end."""

    warmup_steps: int = 0
    """Steps before the peak, climbed in equal strides from peak / (warmup_steps + 1)."""

    depends_on_steps: ClassVar[bool] = False

    def __post_init__(self):
        _require(self, "warmup_steps", self.warmup_steps >= 0, "must not be negative; 0 begins at the peak")

    def rate(self, peak: float, steps: int) -> Callable:
        return _warmed_up(self, peak, optax.constant_schedule(1.0))


@dataclass(frozen=True)
class Linear:
    """A straight line down to the end, as BERT was trained (Devlin et al. 2018, arXiv 1810.04805).

    The line starts at the peak where the warm-up ends. (BERT's own code draws it from step 0, so that
    its rate falls by warmup_steps / steps the moment the warm-up ends.)
    """

    warmup_steps: int = 10_000
    """Steps before the peak, climbed in equal strides from peak / (warmup_steps + 1)."""
    final_fraction: float = 0.0
    """Where the line ends, as a fraction of the peak."""

    depends_on_steps: ClassVar[bool] = True

    def __post_init__(self):
        _require(self, "warmup_steps", self.warmup_steps >= 0, "must not be negative; 0 begins at the peak")
        _require(
            self, "final_fraction", 0 <= self.final_fraction <= 1, "must lie in [0, 1]; 0.0 ends at zero"
        )

    def rate(self, peak: float, steps: int) -> Callable:
        length = max(1, steps - self.warmup_steps)
        return _warmed_up(self, peak, optax.linear_schedule(1.0, self.final_fraction, length))


@dataclass(frozen=True)
class SlantedTriangle:
    """A straight line up for a part of the run, then one down to its end: what fine-tuning papers give.

    BERT's fine-tuning (arXiv 1810.04805, its released code) warms up for a tenth of the steps, RoBERTa's
    (arXiv 1907.11692, table 10) for 6 %; ULMFiT (arXiv 1801.06146, equation 3), which named the shape, for a
    tenth, down to a 32nd. The same lines as Linear's; only the warm-up is counted in parts of the whole.
    """

    warmup_fraction: float = 0.1
    """The part of all steps, rounded, that climbs; 0 begins at the peak."""
    final_fraction: float = 0.0
    """Where the line down ends, as a fraction of the peak."""

    depends_on_steps: ClassVar[bool] = True

    def __post_init__(self):
        _require(self, "warmup_fraction", 0 <= self.warmup_fraction < 1, "must lie in [0, 1); 0.1 is usual")
        _require(
            self, "final_fraction", 0 <= self.final_fraction <= 1, "must lie in [0, 1]; 0.0 ends at zero"
        )

    def rate(self, peak: float, steps: int) -> Callable:
        return Linear(round(self.warmup_fraction * steps), self.final_fraction).rate(peak, steps)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine down to the end (Loshchilov and Hutter 2016, arXiv 1608.03983, without restarts).

    The defaults are nanoGPT's for GPT-2; the curve is its get_lr with lr_decay_iters = steps.
    """

    warmup_steps: int = 2_000
    """Steps before the peak, climbed in equal strides from peak / (warmup_steps + 1)."""
    final_fraction: float = 0.1
    """Where the curve ends, as a fraction of the peak."""

    depends_on_steps: ClassVar[bool] = True

    def __post_init__(self):
        _require(self, "warmup_steps", self.warmup_steps >= 0, "must not be negative; 0 begins at the peak")
        _require(
            self, "final_fraction", 0 <= self.final_fraction <= 1, "must lie in [0, 1]; 0.0 ends at zero"
        )

    def rate(self, peak: float, steps: int) -> Callable:
        length = max(1, steps - self.warmup_steps)
        return _warmed_up(self, peak, optax.cosine_decay_schedule(1.0, length, self.final_fraction))


@dataclass(frozen=True)
class WarmupStableDecay:
    """The peak for most of the run, then a straight line down (Hu et al. 2024, arXiv 2404.06395).

    A straight line rather than the paper's exponential, which needs one more constant: over a fifth of
    the run it ends beside a cosine (Haegele et al. 2024, arXiv 2405.18392).
    """

    warmup_steps: int = 2_000
    """Steps before the peak, climbed in equal strides from peak / (warmup_steps + 1)."""
    decay_fraction: float = 0.2
    """The part of all steps, counted from the end, that decays."""
    final_fraction: float = 0.0
    """Where the decay ends, as a fraction of the peak."""

    depends_on_steps: ClassVar[bool] = True

    def __post_init__(self):
        _require(self, "warmup_steps", self.warmup_steps >= 0, "must not be negative; 0 begins at the peak")
        _require(self, "decay_fraction", 0 < self.decay_fraction <= 1, "must lie in (0, 1]; 0.2 is usual")
        _require(
            self, "final_fraction", 0 <= self.final_fraction <= 1, "must lie in [0, 1]; 0.0 ends at zero"
        )

    def rate(self, peak: float, steps: int) -> Callable:
        after_steps = max(1, steps - self.warmup_steps)
        decay_steps = min(max(1, round(self.decay_fraction * steps)), after_steps)
        stable_steps = after_steps - decay_steps
        decay = optax.linear_schedule(1.0, self.final_fraction, decay_steps, transition_begin=stable_steps)
        return _warmed_up(self, peak, decay)


@dataclass(frozen=True)
class InverseSquareRoot:
    """Falls as one over the square root of the step (Vaswani et al. 2017, arXiv 1706.03762, section 5.3).

    With updates counted from 1 and the peak at update W: peak * min(n / W, sqrt(W / n)). The paper's
    peak is 1 / sqrt(d_model * W); here it is the optimizer's learning rate. It never ends, so more
    steps can be added to a run.
    """

    warmup_steps: int = 4_000
    """Steps before the peak, climbed in equal strides from peak / (warmup_steps + 1)."""

    depends_on_steps: ClassVar[bool] = False

    def __post_init__(self):
        _require(self, "warmup_steps", self.warmup_steps >= 0, "must not be negative; 0 begins at the peak")

    def rate(self, peak: float, steps: int) -> Callable:
        first = self.warmup_steps + 1  # the update at the peak, counted from 1
        return _warmed_up(self, peak, lambda step: jnp.sqrt(first / (step + first)))


@dataclass(frozen=True)
class StepDecay:
    """Divided by a factor every so many steps (Zaremba et al. 2014, arXiv 1409.2329).

    The defaults are the paper's medium LSTM: six epochs at the peak, then divided by 1.2 before each
    further epoch. An epoch of its 929,589 words is 1,327 steps of 20 x 35 words, and 6 x 1,327 = 7,962.
    """

    warmup_steps: int = 0
    """Steps before the peak, climbed in equal strides from peak / (warmup_steps + 1)."""
    start: int = 7_962
    """The first step with a divided rate."""
    every: int = 1_327
    """Steps from one division to the next."""
    factor: float = 1.2
    """What the rate is divided by each time."""

    depends_on_steps: ClassVar[bool] = False

    def __post_init__(self):
        _require(self, "warmup_steps", self.warmup_steps >= 0, "must not be negative; 0 begins at the peak")
        _require(self, "start", self.start >= self.warmup_steps, "lies inside the warm-up; start later")
        _require(self, "every", self.every >= 1, "must be at least 1; it counts steps")
        _require(self, "factor", 1 < self.factor < math.inf, "must be above 1; the rate is divided by it")

    def rate(self, peak: float, steps: int) -> Callable:
        def divided(step):
            divisions = 1 + (step + self.warmup_steps - self.start) // self.every
            return self.factor ** -jnp.maximum(0, divisions).astype(jnp.float32)

        return _warmed_up(self, peak, divided)


SCHEDULES = {
    "constant": Constant,
    "linear": Linear,
    "slanted_triangle": SlantedTriangle,
    "cosine": Cosine,
    "wsd": WarmupStableDecay,
    "inverse_sqrt": InverseSquareRoot,
    "step": StepDecay,
}

Schedule = Constant | Linear | SlantedTriangle | Cosine | WarmupStableDecay | InverseSquareRoot | StepDecay
"""`depends_on_steps` says whether the rate of an earlier step changes with the total number of steps:
where it does not, a finished run may be continued with more."""


def _warmed_up(schedule: Schedule, peak: float, shape: Callable) -> Callable:
    """The rate as a function of the step, float32 and traceable: a climb, then peak * shape(steps since)."""
    warmup_steps = schedule.warmup_steps

    def rate(step):
        step = jnp.asarray(step)
        climb = (step + 1) / (warmup_steps + 1)
        since = jnp.maximum(0, step - warmup_steps)
        return jnp.asarray(peak * jnp.where(step < warmup_steps, climb, shape(since)), jnp.float32)

    return rate


def _require(config, field: str, holds: bool, remedy: str) -> None:
    if not holds:
        raise ConfigError(f"{type(config).__name__} {field}={getattr(config, field)!r} {remedy}")
