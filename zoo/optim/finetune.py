"""What fine-tuning changes of an optimizer: slower rates below, layers that stay, layers that join later.

    layer_decay     ELECTRA (Clark et al. 2020, arXiv 2003.10555), BEiT (Bao et al. 2021, arXiv 2106.08254)
    unfreeze_every  ULMFiT (Howard and Ruder 2018, arXiv 1801.06146, section 3.3)

    depth        rate             learns from step
    3  head      1                0
    2  block 1   decay            unfreeze_every
    1  block 0   decay ** 2       2 unfreeze_every
    0  tables    decay ** 3       3 unfreeze_every

The head keeps the whole rate and the block below it is the first to be slowed, as in BEiT; ELECTRA's code
skips one power between the two. The scale multiplies an optimizer's finished change, its weight decay
included, which is what a learning rate of each parameter's own would do. A layer that has still to join has
its averages of gradients kept from step 0 on, so that its first change is as measured as any other's.
"""

import fnmatch
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.errors import ConfigError, nearest
from zoo.tree import named_leaves, nested


@dataclass(frozen=True)
class FineTune:
    """Everything learns at one rate, by default."""

    layer_decay: float = 1.0
    """Each layer's rate in parts of that of the layer above; 1: the same for all. 0.8 to 0.95 is usual."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameters that keep their values: "encoder/*", "*/attention/*", "tokens/table"."""
    unfreeze_every: int = 0
    """Steps after which one more layer learns, from the head down; 0: all of them from the start."""

    def __post_init__(self):
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"layer_decay={self.layer_decay} must be above 0 and at most 1; 1 is none")
        if self.unfreeze_every < 0:
            raise ConfigError(f"unfreeze_every={self.unfreeze_every} must not be negative; 0 unfreezes all")

    @property
    def counts_layers(self) -> bool:
        """Whether the depth of a parameter matters."""
        return self.layer_decay < 1 or self.unfreeze_every > 0


def frozen_names(patterns: tuple[str, ...], specs) -> frozenset[str]:
    """The names of all parameters that a pattern matches; `*` matches slashes too.

    Raises ConfigError for a pattern that matches none, and where nothing is left to be trained.
    """
    names = list(named_leaves(specs))
    frozen = set()
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            folders = {f"{name.rsplit('/', i)[0]}/*" for name in names for i in range(1, name.count("/") + 1)}
            hint = nearest(pattern, [*names, *sorted(folders)]) or f"; the first is {names[0]!r}"
            raise ConfigError(f"finetune.freeze={pattern!r} matches no parameter{hint}")
        frozen.update(found)
    if len(frozen) == len(names):
        raise ConfigError(f"finetune.freeze={' '.join(patterns)!r} leaves no parameter to be trained")
    return frozenset(frozen)


def without(tree, names: frozenset[str]) -> dict:
    """A nested dict of arrays, or of what describes them, without those of some names."""
    return nested({name: leaf for name, leaf in named_leaves(tree).items() if name not in names})


def overlaid(tree, part) -> dict:
    """A nested dict with the leaves of `part` in place of its own."""
    return nested(named_leaves(tree) | named_leaves(part))


def by_depth(cfg: FineTune, depths, frozen: frozenset[str] = frozenset()) -> optax.GradientTransformation:
    """Scales the changes of all but `frozen`; `depths` is the tree of zoo.models.depth."""
    top = max(int(np.max(depth)) for depth in jax.tree.leaves(depths))
    depths = without(depths, frozen)
    scales = jax.tree.map(lambda depth: np.float32(cfg.layer_decay) ** (top - depth), depths)
    slowed = optax.stateless(
        lambda updates, params: jax.tree.map(lambda u, scale: u * scale.astype(u.dtype), updates, scales)
    )
    return optax.chain(slowed, unfreezing(depths, top, cfg.unfreeze_every)) if cfg.unfreeze_every else slowed


class UnfreezingState(NamedTuple):
    """The updates so far."""

    count: Any


def unfreezing(depths, top: int, every: int) -> optax.GradientTransformation:
    """Lets through the changes of the topmost layer, and of one more every so many steps."""

    def init(params):
        return UnfreezingState(jnp.zeros([], jnp.int32))

    def update(updates, state, params=None):
        lowest = top - state.count // every
        updates = jax.tree.map(lambda u, depth: jnp.where(depth >= lowest, u, 0), updates, depths)
        return updates, UnfreezingState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)
