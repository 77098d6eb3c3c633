"""Optimizers: the rule that turns gradients into a change of the parameters.

AdamW, SGD, Lion, Adafactor and Muon, with the papers at each. `transform` gives the whole update as an
Optax transformation: learning rate and weight decay included, clipping not (zoo/step.py clips). What
is unusual:

* A parameter's letters (zoo/sharding.py) say what it is. "NDHK" with one contracted letter is N
  matrices of D x HK, and rules that treat matrices or whole tensors (Muon, Adafactor) see N of them,
  never one tensor of rank four: a model whose layers are stacked trains like one whose are not.
* Weight decay pulls at kernels ("w"), embeddings ("table") and adapters ("lora_a", "lora_b") only. Norms
  and biases are exempt even when stacking has made them two-dimensional.
* The rows that pad a vocabulary hold zeros and get zero gradients; they stay zero, and no statistic
  counts them.
* Optimizer state is scalars and arrays with their parameter's dimensions, some kept at size one, so
  the table that places the parameters places it too (`state_specs`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import optax

from zoo.errors import ConfigError
from zoo.optim.adafactor import scale_by_factored_moment, scale_to_parameters
from zoo.optim.matrices import decay_mask, takes_muon
from zoo.optim.muon import scale_by_orthogonalizing
from zoo.optim.state import state_specs
from zoo.schedules import Schedule

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adafactor",
    "AdamW",
    "Lion",
    "Muon",
    "Optimizer",
    "learning_rate",
    "state_specs",
    "transform",
]

# --- the optimizers -------------------------------------------------------------------------------
# Each is its settings and its rule: `rule(rate, specs)` where `rate(peak)` is the function from a
# step to its learning rate.


@dataclass(frozen=True)
class AdamW:
    """Adam (Kingma and Ba 2014, arXiv 1412.6980) with decoupled decay (arXiv 1711.05101).

    The decay is multiplied by the learning rate, as in PyTorch. Defaults: nanoGPT's GPT-2.
    """

    learning_rate: float = 6e-4
    """The peak of the schedule."""
    beta1: float = 0.9
    """Decay of the running mean of gradients."""
    beta2: float = 0.95
    """Decay of the running mean of squared gradients."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.1
    """Pull towards zero per step, times the learning rate; kernels and embeddings only."""

    def __post_init__(self):
        _positive(self, "learning_rate", "eps")
        _fraction(self, "beta1", "beta2")
        _not_negative(self, "weight_decay")

    def rule(self, rate: Callable, specs) -> optax.GradientTransformation:
        return optax.adamw(
            rate(self.learning_rate),
            b1=self.beta1,
            b2=self.beta2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            mask=decay_mask(specs),
        )


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, with heavy-ball or Nesterov momentum (Sutskever et al. 2013).

    The decay is coupled, an L2 penalty: it joins the gradient before the momentum, as in PyTorch's
    SGD. Defaults: Zaremba's LSTM (arXiv 1409.2329).
    """

    learning_rate: float = 1.0
    """The peak of the schedule."""
    momentum: float = 0.0
    """Part of the last step that is taken again; 0 keeps no state."""
    nesterov: bool = False
    """Look ahead: add the momentum as it will be after this gradient."""
    weight_decay: float = 0.0
    """L2 penalty: this times the weight joins its gradient; kernels and embeddings only."""

    def __post_init__(self):
        _positive(self, "learning_rate")
        _fraction(self, "momentum")
        _not_negative(self, "weight_decay")
        if self.nesterov and not self.momentum:
            raise ConfigError(
                "SGD nesterov=True does nothing with momentum=0.0; set a momentum, 0.9 is usual"
            )

    def rule(self, rate: Callable, specs) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, decay_mask(specs)),
            optax.sgd(rate(self.learning_rate), self.momentum or None, self.nesterov),
        )


@dataclass(frozen=True)
class Lion:
    """The sign of a momentum (Chen et al. 2023, arXiv 2302.06675): half of Adam's state.

    Defaults: the paper's betas for language models, and AdamW's rate here divided by six with its
    decay multiplied by six (the paper advises 3 to 10), which keeps their product.
    """

    learning_rate: float = 1e-4
    """The peak of the schedule, and the change of every weight per step."""
    beta1: float = 0.95
    """Weight of the momentum against the gradient in the step taken."""
    beta2: float = 0.98
    """Decay of the momentum itself."""
    weight_decay: float = 0.6
    """Pull towards zero per step, times the learning rate; kernels and embeddings only."""

    def __post_init__(self):
        _positive(self, "learning_rate")
        _fraction(self, "beta1", "beta2")
        _not_negative(self, "weight_decay")

    def rule(self, rate: Callable, specs) -> optax.GradientTransformation:
        return optax.lion(
            rate(self.learning_rate),
            b1=self.beta1,
            b2=self.beta2,
            weight_decay=self.weight_decay,
            mask=decay_mask(specs),
        )


@dataclass(frozen=True)
class Adafactor:
    """Squared gradients kept as rows and columns (Shazeer and Stern 2018, arXiv 1804.04235).

    The paper's algorithm 5 with its proposed settings, the step size coming from the schedule: rows +
    columns numbers of state for a matrix of rows x columns. The code is ours, not optax.adafactor,
    which factors the two largest dimensions of an array (an attention kernel [12, 768, 12, 64] not at
    all, 128 stacked layers as if they were rows), takes the root mean squares of clipping and of the
    parameter over all layers and padding, and decays weights at a rate that ignores the schedule.
    """

    learning_rate: float = 1e-2
    """The peak of the schedule, relative to each tensor's root mean square (the paper's rho)."""
    decay_exponent: float = 0.8
    """Squared gradients are averaged with decay 1 - t ** -decay_exponent at update t = 1, 2, ..."""
    clipping_threshold: float = 1.0
    """The largest root mean square of a tensor's change, before the rate."""
    weight_decay: float = 0.0
    """Pull towards zero per step, times the learning rate; kernels and embeddings only."""

    def __post_init__(self):
        _positive(self, "learning_rate", "decay_exponent", "clipping_threshold")
        _not_negative(self, "weight_decay")

    def rule(self, rate: Callable, specs) -> optax.GradientTransformation:
        return optax.chain(
            scale_by_factored_moment(specs, self.decay_exponent),
            scale_to_parameters(specs, self.clipping_threshold),
            optax.add_decayed_weights(self.weight_decay, decay_mask(specs)),
            optax.scale_by_learning_rate(rate(self.learning_rate)),
        )


@dataclass(frozen=True)
class Muon:
    """Momentum made orthogonal (Jordan 2024, kellerjordan.github.io/posts/muon), at AdamW's scale.

    Kernels between the embeddings and the head take Muon's step: the Nesterov momentum of each
    layer's matrix (heads side by side) with its singular values brought near 1, times
    0.2 * sqrt(max(rows, columns)). That is the convention of Liu et al. 2025 (arXiv 2502.16982): an
    entry moves about as far as under AdamW, whatever the shape, so one rate and one decay suit both
    groups. (Jordan's own convention is sqrt(max(1, columns / rows)) with a rate near 0.02.)
    Embeddings, the head (tied or not), norms and biases take AdamW's.

    optax.contrib.muon is not used: it runs its Adam group as NAdam without a decay mask and keeps the
    iteration's three coefficients in the state. A test holds its step for matrices against ours.
    """

    learning_rate: float = 6e-4
    """The peak of the schedule for matrices."""
    momentum: float = 0.95
    """Decay of the running sum of gradients."""
    newton_schulz_steps: int = 5
    """Iterations that bring the singular values to between 0.7 and 1.2."""
    weight_decay: float = 0.1
    """Pull towards zero per step, times the group's learning rate; kernels and embeddings only."""
    adam_learning_rate: float = 6e-4
    """The peak of the schedule for embeddings, head, norms and biases."""
    adam_beta1: float = 0.9
    """Decay of their running mean of gradients."""
    adam_beta2: float = 0.95
    """Decay of their running mean of squared gradients."""
    adam_eps: float = 1e-8
    """Added to the root of their second moment."""

    def __post_init__(self):
        _positive(self, "learning_rate", "newton_schulz_steps", "adam_learning_rate", "adam_eps")
        _fraction(self, "momentum", "adam_beta1", "adam_beta2")
        _not_negative(self, "weight_decay")

    def rule(self, rate: Callable, specs) -> optax.GradientTransformation:
        adam = AdamW(
            self.adam_learning_rate, self.adam_beta1, self.adam_beta2, self.adam_eps, self.weight_decay
        )
        muon = optax.chain(
            optax.trace(self.momentum, nesterov=True),
            scale_by_orthogonalizing(specs, self.newton_schulz_steps),
            optax.add_decayed_weights(self.weight_decay),
            optax.scale_by_learning_rate(rate(self.learning_rate)),
        )
        groups = jax.tree.map(lambda spec: "muon" if takes_muon(spec) else "adam", specs)
        return optax.partition({"muon": muon, "adam": adam.rule(rate, specs)}, groups)


OPTIMIZERS = {"adamw": AdamW, "sgd": SGD, "lion": Lion, "adafactor": Adafactor, "muon": Muon}

Optimizer = AdamW | SGD | Lion | Adafactor | Muon


def transform(optimizer: Optimizer, schedule: Schedule, steps: int, specs) -> optax.GradientTransformation:
    """The update of parameters with these ParamSpecs, over a run of `steps` steps.

    Each group of parameters follows the schedule from its own peak.
    """
    return optimizer.rule(lambda peak: schedule.rate(peak, steps), specs)


def learning_rate(optimizer: Optimizer, schedule: Schedule, steps: int) -> Callable:
    """The function from a step to its learning rate, for the log (for Muon, its matrices')."""
    return schedule.rate(optimizer.learning_rate, steps)


# --- checks of the settings -----------------------------------------------------------------------


def _positive(config, *names: str) -> None:
    _require(config, names, lambda value: 0 < value < math.inf, "must be above 0")


def _not_negative(config, *names: str) -> None:
    _require(config, names, lambda value: 0 <= value < math.inf, "must be 0 or above")


def _fraction(config, *names: str) -> None:
    _require(config, names, lambda value: 0 <= value < 1, "must lie in [0, 1)")


def _require(config, names: tuple[str, ...], holds: Callable, what: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not holds(value):
            default = type(config).__dataclass_fields__[name].default
            raise ConfigError(f"{type(config).__name__} {name}={value!r} {what}; the default is {default}")
