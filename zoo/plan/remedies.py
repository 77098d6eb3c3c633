"""What to change where a step does not fit, by the closed form: the smallest change that would make it
fit.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from zoo.assembly import step_of
from zoo.errors import ConfigError
from zoo.mesh import describe
from zoo.plan import expected
from zoo.plan.abstract import placed_batch, placed_state
from zoo.sharding import RULES


class TooLarge(ConfigError):
    """A program that needs more memory than a chip has."""

    def __init__(self, message: str, asked: float = 0.0):
        super().__init__(message)
        self.asked = asked
        """Bytes."""


def check_rows(recipe, sizes: Mapping[str, int]) -> None:
    """ConfigError where the rows of a micro-batch do not divide over the mesh, with numbers that do."""
    ways = math.prod(sizes.get(axis, 1) for axis in RULES["B"])
    rows, parts = recipe.data.batch_size, recipe.accumulate
    if rows % parts == 0 and rows // parts % ways == 0:
        return
    batch = -(-rows // ways) * ways
    a_chip, at_a_time = batch // ways, max(rows // parts, 1)  # no more rows at a time than the recipe has
    accumulate = next(a for a in range(1, a_chip + 1) if a_chip % a == 0 and a_chip // a <= at_a_time)
    split = describe({axis: sizes[axis] for axis in RULES["B"] if axis in sizes})
    raise ConfigError(
        f"data.batch_size={rows} in accumulate={parts} parts does not divide over {ways} batch shards "
        f"({split}); give --data.batch-size {batch} --accumulate {accumulate}"
    )


def smallest_change(recipe, data, place, mesh, scale: float) -> str:
    """The flags that make a step fit `place`, a Slice or a Cluster; `scale` is what the compiler asked for,
    over the closed form's sum."""
    for flags, changed, sizes in changes(recipe, dict(mesh.shape)):
        try:
            check_rows(changed, sizes)
            other = place.abstract(sizes)
            parts = step_of(changed, data)
            state, batch = placed_state(parts, other), placed_batch(parts.task, data, other)
            known = expected.held(parts, changed.model, state, batch, other, place.numbers)
            needed = expected.memory(parts, changed.model, batch, other, known).total * scale
        except ConfigError:
            continue
        if needed <= place.chip.hbm_bytes:
            return f"{flags} should ({needed / 2**30:.1f} GiB by the closed form)"
    return "no recomputation, accumulation or mesh of it would; take a larger one"


def changes(recipe, sizes: dict[str, int]) -> Iterator[tuple[str, Any, dict[str, int]]]:
    """(flags, recipe, mesh sizes), from what costs least: more parts, less kept, more shared."""
    ways = math.prod(sizes.get(axis, 1) for axis in RULES["B"])
    most = recipe.data.batch_size // ways
    parts = [a for a in range(recipe.accumulate + 1, most + 1) if recipe.data.batch_size % (a * ways) == 0]
    remats = [(p, remat) for p in [field_path(recipe.model, "remat")] if p for remat in ("dots", "full")]
    meshes = [sizes]
    while meshes[-1]["data"] % 2 == 0:
        last = meshes[-1]
        meshes.append(last | {"data": last["data"] // 2, "fsdp": last["fsdp"] * 2})
    for mesh in meshes:
        spread = "" if mesh is sizes else f"--mesh.data {mesh['data']} --mesh.fsdp {mesh['fsdp']} "
        for path, remat in [("", ""), *remats]:
            saved = f"--{path} {remat} " if path else ""
            with_remat = replaced(recipe, path, remat) if path else recipe
            for accumulate in [recipe.accumulate, *parts]:
                cut = f"--accumulate {accumulate}" if accumulate != recipe.accumulate else ""
                changed = dataclasses.replace(with_remat, accumulate=accumulate)
                if flags := f"{spread}{saved}{cut}".strip():
                    yield flags, changed, mesh


def field_path(config, name: str, path: str = "model") -> str:
    """Where a model's configuration, or that of its encoder, has a field; empty where none has."""
    if hasattr(config, name):
        return f"{path}.{name}"
    return field_path(config.encoder, name, f"{path}.encoder") if hasattr(config, "encoder") else ""


def replaced(config, path: str, value):
    """`config` with the field at a dotted path set."""
    name, _, rest = path.partition(".")
    return dataclasses.replace(
        config, **{name: replaced(getattr(config, name), rest, value) if rest else value}
    )
