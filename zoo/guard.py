"""What happens to a step whose numbers are not finite, or whose loss leaps: it is never just applied.

    stop      the state stays as it is and the run ends (exit 5)
    skip      the state stays as it is, moments and their count too; only the step goes on, and with it
              data and dropout. Decided inside the compiled step, from what all rows give: everywhere alike
    rewind    back to a checkpoint from before a leap, and on from there with other batches (Chowdhery et al.
              2022, arXiv 2204.02311, section 5.1: about 100 steps back, 200 to 500 batches skipped)

A leap is a loss that stands more than `spike` standard deviations above the mean of the last `window`
losses whose updates were applied; Levanter and MaxText take 6 and 128.

    step        1  ...  900 ... 980 | 901 ... 1100      save_every 100, rewind_steps 50, skip_batches 200
    batch       0  ...  899 ... 979 | 1100 ... 1299     step 980 leaps; 900 is the newest checkpoint at least
    offset      0                   | 200               50 older; batches 900 to 1099 are skipped

All that this needs to know is part of the train state, so a run that was killed on the way does the same
again.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from zoo.errors import ConfigError
from zoo.lettered import ParamSpec


@dataclass(frozen=True)
class Guard:
    """What is done about numbers that cannot be right."""

    nonfinite: Literal["stop", "skip"] = "stop"
    """A loss or a gradient that is not finite ends the run, or its batch is skipped."""
    limit: int = 10
    """So many steps in a row without an update end the run."""
    spike: float = 0.0
    """Standard deviations above the mean of earlier losses from which a loss is a leap; 0: none is."""
    window: int = 128
    """How many earlier losses that is; before there are so many, no loss is a leap."""
    action: Literal["skip", "rewind"] = "skip"
    """What is done about a leap."""
    rewind_steps: int = 100
    """A leap goes back to the newest checkpoint at least so old, or to the beginning."""
    skip_batches: int = 200
    """How many batches are skipped from there on."""
    rewinds: int = 3
    """How often at most in a run; the next leap ends it."""
    audit_every: int = 0
    """Every so many steps one is computed twice and all its bits are compared (zoo/audit.py); 0: never. A
    second train state lives while it is."""

    def __post_init__(self):
        least = {"limit": 1, "spike": 0, "window": 2, "rewind_steps": 1, "skip_batches": 1, "rewinds": 1}
        for name, value in (least | {"audit_every": 0}).items():
            if not value <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} must be a number of at least {value}")
        for name, known in {"nonfinite": ("stop", "skip"), "action": ("skip", "rewind")}.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)!r} is none of {', '.join(known)}")
        if self.action == "rewind" and not self.spike:
            raise ConfigError("action=rewind waits for a leap of the loss; set spike, to 6 for example")

    def audits(self, step: int) -> bool:
        """Whether this step is computed twice."""
        return self.audit_every > 0 and step % self.audit_every == 0

    @property
    def may_rewind(self) -> bool:
        """Whether the run may go back."""
        return self.action == "rewind"

    @property
    def watches(self) -> bool:
        """Whether a step may pass without an update; only then is there anything to remember."""
        return self.nonfinite == "skip" or self.spike > 0

    def check(self, *, save_every: int, keep: int) -> None:
        """ConfigError where a run could not go back as far as it is to, or would meet the batch again."""
        if not self.may_rewind or not save_every:
            return
        if (keep - 1) * save_every < self.rewind_steps:
            raise ConfigError(
                f"guard.rewind_steps={self.rewind_steps} goes further back than keep={keep} checkpoints "
                f"each {save_every} steps; set keep to {1 + math.ceil(self.rewind_steps / save_every)}"
            )
        if self.skip_batches < self.rewind_steps + save_every:
            raise ConfigError(
                f"guard.skip_batches={self.skip_batches} may end before the batch that leaped, up to "
                f"rewind_steps + save_every = {self.rewind_steps + save_every} steps on; set it to that"
            )

    # --- its part of the train state -----------------------------------------------------------------

    def first(self) -> "Watch | None":
        """What is known before the first step; None where nothing is watched."""
        return self._made(jnp.zeros)

    def specs(self) -> "Watch | None":
        """The same as ParamSpecs: every device has the whole."""
        return self._made(lambda shape, dtype: ParamSpec("." * len(shape), shape, shape, dtype))

    def _made(self, make):
        if not self.watches:
            return None
        counts = {field.name: make((), jnp.int32) for field in dataclasses.fields(Watch)}
        return Watch(**counts | {"losses": make((self.window,), jnp.float32) if self.spike else None})

    def verdict(self, watch: "Watch | None", loss, finite) -> "Verdict":
        """What becomes of a step, before its update is computed, with what is known of the steps before."""
        if watch is None:
            return Verdict(finite, finite, None, {})
        is_spike = finite & self._leaps(watch, loss)
        is_good = finite & ~is_spike
        in_a_row = jnp.where(is_good, 0, watch.in_a_row + 1)
        losses = watch.losses
        if losses is not None:
            entered = losses.at[watch.applied % self.window].set(loss.astype(jnp.float32))
            losses = jnp.where(is_good, entered, losses)
        watch = dataclasses.replace(
            watch,
            in_a_row=in_a_row,
            skipped=watch.skipped + ~is_good,
            applied=watch.applied + is_good,
            losses=losses,
        )
        told = {"spike": is_spike, "skipped": ~is_good, "in_a_row": in_a_row, "all_skipped": watch.skipped}
        return Verdict(is_good, finite | (self.nonfinite == "skip"), watch, told)

    def _leaps(self, watch, loss):
        if watch.losses is None:
            return jnp.zeros((), bool)
        highest = watch.losses.mean() + self.spike * watch.losses.std()
        return (watch.applied >= self.window) & (loss > highest)


class Verdict(NamedTuple):
    """What becomes of a step; booleans of a compiled program."""

    applies: Any
    """Whether its update is made."""
    goes_on: Any
    """Whether the step counts, so that the next one sees other data."""
    watch: "Watch | None"
    told: dict[str, Any]
    """Whether the loss is a leap; and of updates that were not made whether this is one, and how many they
    are in a row and in all. Empty where nothing is watched."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Watch:
    """What a guard remembers: numbers of int32, and losses of float32."""

    in_a_row: Any
    """Steps without an update up to here, one after the other."""
    skipped: Any
    """Steps without an update, all in all."""
    applied: Any
    """Updates so far."""
    offset: Any
    """How many batches have been skipped by going back: step s + 1 sees batch s + offset."""
    rewound: Any
    """How often that was."""
    losses: Any
    """The last `window` losses whose updates were applied, in a ring; None where none is a leap."""

    def further(self, before: "Watch", batches: int) -> "Watch":
        """This, of a state that is gone back to, with `batches` more skipped than `before` the going back."""
        return dataclasses.replace(self, offset=before.offset + batches, rewound=before.rewound + 1)
