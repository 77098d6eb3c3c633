"""The settings that a plan may choose: how a run is computed, never what it learns.

Mesh sizes, what the backward pass recomputes, and in how many parts a batch is computed are free; model,
optimizer and the rows of a step are the recipe's. A mesh size that is not the default (--mesh.fsdp 4) is
kept.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from zoo.mesh import MeshConfig, mesh_sizes
from zoo.plan.remedies import field_path, replaced
from zoo.sharding import RULES

SEARCHED = ("data", "fsdp", "tensor")
REMATS = ("none", "dots", "full")


def meshes(config: MeshConfig, chips: int) -> list[dict[str, int]]:
    """Sizes of every axis: the searched ones in every way that multiplies to the chips, the others as they
    are."""
    default = MeshConfig().sizes
    free = [axis for axis in SEARCHED if config.sizes[axis] == default[axis]]
    kept = {axis: size for axis, size in config.sizes.items() if axis not in free}
    if -1 in kept.values():  # --mesh.fsdp -1: what the others leave
        return [mesh_sizes(config, chips)]
    rest, over = divmod(chips, math.prod(kept.values()))
    if over or not free:
        return [mesh_sizes(config, chips)]  # which refuses what does not multiply to the chips
    return [config.sizes | dict(zip(free, sizes, strict=True)) for sizes in factored(rest, len(free))]


def factored(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Every way to write a number as a product of so many: of 4 in two parts (1, 4), (2, 2), (4, 1)."""
    if parts == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            for others in factored(number // first, parts - 1):
                yield first, *others


def remats(model) -> list[tuple[str, str]]:
    """(field, value) of everything that the backward pass may recompute; ("", "") of a model without."""
    path = field_path(model, "remat")
    return [(path, value) for value in REMATS] if path else [("", "")]


def parts_of_a_batch(rows: int, sizes: dict[str, int]) -> list[int]:
    """In how many parts the rows of a step can be computed on a mesh, the fewest first."""
    ways = math.prod(sizes.get(axis, 1) for axis in RULES["B"])
    return [a for a in range(1, rows // ways + 1) if rows % (a * ways) == 0]


def with_setting(recipe, sizes: dict[str, int], path: str, remat: str, accumulate: int) -> Any:
    """The recipe computed so."""
    recipe = replaced(recipe, path, remat) if path else recipe
    return dataclasses.replace(recipe, mesh=MeshConfig(**sizes), accumulate=accumulate)


def flags(recipe, chosen) -> str:
    """What to type for `chosen` behind the command line that gave `recipe`; empty where they are the same."""
    found = []
    for axis, size in chosen.mesh.sizes.items():
        if recipe.mesh.sizes[axis] not in (size, -1):
            found.append(f"--mesh.{axis} {size}")
    path = field_path(recipe.model, "remat")
    if path and value(recipe, path) != value(chosen, path):
        found.append(f"--{path} {value(chosen, path)}")
    if recipe.accumulate != chosen.accumulate:
        found.append(f"--accumulate {chosen.accumulate}")
    return " ".join(found)


def value(config, path: str):
    """The field at a dotted path."""
    for name in path.split("."):
        config = getattr(config, name)
    return config
