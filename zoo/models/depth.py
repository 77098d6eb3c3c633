"""How deep a parameter lies: what layer-wise learning rates and gradual unfreezing count.

    0            what a text meets before the first layer: tables, positions, the norm after them
    1 ... L      the layers, from below
    L + 1        what comes after them: a last norm, the output layer, every head

A module with layers one above the other names in `bottom` what lies before the first. The layers themselves
show in the parameters: blocks are stacked along a leading letter N, recurrent layers are numbered in their
names ("stack/layer0_reverse/w"). A head's depths are those of its encoder, with the head on top.
"""

import dataclasses
import re

import jax
import numpy as np

from zoo.errors import ConfigError
from zoo.models.pure import Model
from zoo.tree import named_leaves

NUMBERED = re.compile(r"layers?_?(\d+)")


def innermost(model: Model):
    """(configuration, module, where its parameters lie) with the layers: a head's encoder or itself."""
    config, module, prefix = model.config, model.module, ""
    while any(field.name == "encoder" for field in dataclasses.fields(config)):
        config, module, prefix = config.encoder, module.encoder, f"{prefix}encoder/"
    return config, module, prefix


def depths(model: Model, beside: dict | None = None) -> dict:
    """The tree of the model's parameters with the depth of each, or of its N layers as an array [N, 1, ...].

    `beside` is a tree of parameters that are trained with the model; they count as its head's.
    Raises ConfigError for a model whose layers stand in no single order.
    """
    config, module, prefix = innermost(model)
    if not hasattr(module, "bottom"):
        raise ConfigError(
            f"finetune: the layers of {type(config).__name__} stand in no single order from bottom to top; "
            "set layer_decay=1.0 and unfreeze_every=0"
        )

    def depth(name, spec):
        inside = name.removeprefix(prefix)
        numbered = NUMBERED.search(inside)
        if not name.startswith(prefix):
            return np.array(config.num_layers + 1)
        if inside.split("/")[0] in module.bottom:
            return np.array(0)
        if spec.letters.startswith("N"):
            return 1 + np.arange(spec.shape[0]).reshape(-1, *[1] * (len(spec.shape) - 1))
        return np.array(1 + int(numbered.group(1)) if numbered else config.num_layers + 1)

    specs = model.abstract() | (beside or {})
    found = [depth(name, spec) for name, spec in named_leaves(specs).items()]
    return jax.tree.unflatten(jax.tree.structure(specs), found)
