"""What to change where a step does not fit, by the closed form: the smallest change that would make it
fit.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from zoo.assembly import step_of
from zoo.errors import ConfigError
from zoo.fits import check_rows
from zoo.plan import expected
from zoo.plan.abstract import placed_batch, placed_state
from zoo.sharding import RULES


class TooLarge(ConfigError):
    """A program that needs more memory than a chip has."""

    def __init__(self, message: str, asked: float = 0.0):
        super().__init__(message)
        self.asked = asked
        """Bytes."""


def smallest_change(recipe, data, place, mesh, scale: float) -> str:
    """The flags that make a step fit `place`, a Slice or a Cluster, or else the next larger place that holds
    it; `scale` is what the compiler asked for, over the closed form's sum."""
    sizes = dict(mesh.shape)
    for flags, changed, other in changes(recipe, sizes):
        needed = needed_on(changed, data, place, other) * scale
        if needed <= place.chip.hbm_bytes:
            return f"{flags} should ({needed / 2**30:.1f} GiB by the closed form)"
    none = "no recomputation, accumulation or mesh of it would"
    if told := next_larger(recipe, data, place, sizes, scale):
        return f"{none}; {told}"
    return (
        f"{none}, nor would a larger one of its kind with {recipe.data.batch_size} rows: take more rows and "
        "devices, chips with more memory, or a smaller model"
    )


def next_larger(recipe, data, place, sizes: dict[str, int], scale: float) -> str:
    """The next larger place that holds the step, and with which flags; empty where none does."""
    for larger in place.larger():
        times, over = divmod(larger.count, math.prod(sizes.values()))
        if over:
            continue
        wide = sizes | {"fsdp": sizes["fsdp"] * times}
        begun = in_fewer_parts(recipe, wide)
        for flags, changed, other in [("", begun, wide), *changes(begun, wide)]:
            needed = needed_on(changed, data, larger, other) * scale
            if needed > larger.chip.hbm_bytes:
                continue
            if "--mesh.fsdp" not in flags:
                flags = f"--mesh.fsdp {other['fsdp']} {flags}".rstrip()
            if "--accumulate" not in flags and changed.accumulate != recipe.accumulate:
                flags += f" --accumulate {changed.accumulate}"
            return f"{larger.name} should, with {flags} ({needed / 2**30:.1f} GiB by the closed form)"
    return ""


def in_fewer_parts(recipe, sizes: Mapping[str, int]):
    """The recipe in as many parts as its rows have room for on so many devices."""
    ways, rows = math.prod(sizes.get(axis, 1) for axis in RULES["B"]), recipe.data.batch_size
    parts = [a for a in range(1, recipe.accumulate + 1) if rows % (a * ways) == 0]
    return dataclasses.replace(recipe, accumulate=parts[-1]) if parts else recipe


def needed_on(recipe, data, place, sizes: Mapping[str, int]) -> float:
    """Bytes a device by the closed form; infinitely many where rows or sizes do not divide over the mesh."""
    try:
        check_rows(recipe, sizes)
        mesh = place.abstract(sizes)
        parts = step_of(recipe, data)
        state, batch = placed_state(parts, mesh), placed_batch(parts.task, data, mesh)
        known = expected.held(parts, recipe.model, state, batch, mesh, place.numbers)
        return expected.memory(parts, recipe.model, batch, mesh, known).total
    except ConfigError:
        return math.inf


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
