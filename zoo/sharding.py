"""The alphabet of array dimensions, and the one table that places them on a device mesh.

A dimension letter means the same everywhere: at the end of an array's name (`x_BTD`), in an einsum
("BTD,DHK->BTHK"), in a size table (`cfg.dims["D"]`) and in RULES below. Models name letters; this
file turns letters into placements. Data parallelism, fully sharded data parallelism (ZeRO-3, arXiv
1910.02054) and Megatron's tensor parallelism (arXiv 1909.08053) are then only mesh sizes:

    mesh          x_BTD            x_BTF            w_DF (stored)      w_HKD (stored)
    data=8        B over data      B over data      replicated         replicated
    fsdp=8        B over fsdp      B over fsdp      D over fsdp        D over fsdp
    tensor=8      T over tensor    F over tensor    F over tensor      H over tensor
    context=8     T over context   T over context   replicated         replicated

Between the layers of a tensor-parallel model positions are spread over the same devices (arXiv 2205.05198),
so that norms and what is kept for the backward pass are shared out too. The mesh (zoo/mesh.py) always has
automatic axes: the compiler inserts the collectives that the placements imply.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from zoo.errors import ConfigError
from zoo.mesh import describe

LETTERS = {
    "B": "batch",
    "T": "positions",
    "S": "attended positions, or positions of which each device has all",
    "M": "positions that a table knows",
    "W": "words, of several pieces each",
    "P": "picked positions",
    "V": "vocabulary",
    "D": "model width",
    "E": "model width, outgoing",
    "H": "heads",
    "J": "key-value heads",
    "A": "heads, while each device has all positions",
    "K": "head width",
    "F": "feed-forward width",
    "N": "layers",
    "C": "classes",
    "X": "experts",
    "L": "low rank",
    "R": "recurrent state in",
    "Z": "recurrent state out",
    "G": "gates; texts of a group",
    "1": "a kept dimension of size one",
    ".": "kept whole, whatever it counts",
}

# Letter -> the mesh axes it is spread over. Each axis serves once per array and the leftmost letter
# wins, so x_BTD spreads B over both data and fsdp, and w_DF spreads D over fsdp; only T comes last, and
# takes what the others leave.
RULES: dict[str, tuple[str, ...]] = dict.fromkeys(LETTERS, ()) | {
    "B": ("slice", "data", "fsdp", "expert"),
    "T": ("context", "tensor"),
    "N": ("pipeline",),
    "X": ("expert",),
    "V": ("tensor",),
    "H": ("tensor",),
    "J": ("tensor",),
    "A": ("tensor", "context"),
    "F": ("tensor",),
    "Z": ("tensor",),
    "D": ("fsdp",),
    "E": ("fsdp",),
    "R": ("fsdp",),
}

HOST_MEMORY = "pinned_host"

# --- placement ------------------------------------------------------------------------------------


def placement(letters: str, shape: tuple[int, ...], mesh: Any, *, exact: str = "") -> PartitionSpec:
    """The mesh axes of each dimension, by RULES.

    Mesh axes of size one are left out. With `exact` (the name of a parameter) a dimension that its
    axes do not divide is a ConfigError; without it, as for activations, it takes the first of its axes that
    divide it.
    """
    free, found = free_axes(mesh), [()] * len(letters)
    for place, (letter, size) in sorted(enumerate(zip(letters, shape, strict=True)), key=comes_last):
        if letter not in RULES:
            name = exact or f"array {letters}"
            raise ConfigError(f"{name}: dimension {letter!r} has no rule; add it to RULES in zoo/sharding.py")
        axes = tuple(axis for axis in RULES[letter] if free.get(axis, 1) > 1)
        while axes and size % math.prod(free[axis] for axis in axes):
            if exact:
                raise ConfigError(
                    f"{exact}: dimension {letter}={size} ({LETTERS[letter]}) does not divide over "
                    f"{describe({axis: free[axis] for axis in axes})}; choose mesh sizes that divide it"
                )
            axes = axes[:-1]
        for axis in axes:
            del free[axis]
        found[place] = axes
    return PartitionSpec(*(axes if len(axes) > 1 else axes[0] if axes else None for axes in found))


def comes_last(dimension) -> bool:
    _, (letter, _) = dimension
    return letter == "T"


def free_axes(mesh: Any) -> dict[str, int]:
    """The mesh axes that arrays may be placed on: inside a jax.shard_map, those that it leaves automatic."""
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return {axis: size for axis, size in mesh.shape.items() if types[axis] == AxisType.Auto}


def shardings(spec_tree, mesh: Mesh):
    """A NamedSharding for every ParamSpec of a tree (parameters, or a whole train state)."""

    def place(path, spec):
        name = jax.tree_util.keystr(path)
        return NamedSharding(mesh, placement(spec.letters, spec.shape, mesh, exact=name))

    return jax.tree_util.tree_map_with_path(place, spec_tree)


def in_host_memory(placed, spec_tree, mesh):
    """The shardings of `spec_tree`, with all arrays but numbers in memory of the host that devices address.

    Raises ConfigError where the devices of `mesh` address none.
    """
    device = mesh.devices.flat[0] if isinstance(mesh, Mesh) else None
    if device is not None and HOST_MEMORY not in {memory.kind for memory in device.addressable_memories()}:
        raise ConfigError(
            f"offload: this {device.platform} addresses no memory of its host ({HOST_MEMORY}); leave it out"
        )

    def move(place, spec):
        return place.with_memory_kind(HOST_MEMORY) if spec.shape else place

    return jax.tree.map(move, placed, spec_tree)


def shardings_like(x, spec_tree):
    """The same on the mesh that the array `x` lies on; None where it lies on none."""
    mesh = getattr(getattr(x, "sharding", None), "mesh", None)
    return shardings(spec_tree, mesh) if mesh is not None else None


def on_each_device(compute: Callable, arrays: list, mesh: Mesh) -> list:
    """`compute` of what every device holds of each array, stacked in the order of the mesh's devices; whole
    everywhere."""
    held = tuple(getattr(x.sharding, "spec", PartitionSpec()) for x in arrays)
    return _on_each_device(compute, held, mesh)(arrays)


@functools.cache
def _on_each_device(compute, held, mesh):
    def stacked(arrays):
        arrays = jax.device_put(arrays, jax.memory.Space.Device)  # some may lie in the host's
        return [compute(x)[None] for x in arrays]

    stack = PartitionSpec(mesh.axis_names)
    mapped = jax.shard_map(stacked, mesh=mesh, in_specs=(list(held),), out_specs=stack, check_vma=False)
    return jax.jit(mapped, out_shardings=replicated(mesh))


def constrain(x, letters: str):
    """Pins an activation to the table's placement on the mesh in force; nothing without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or math.prod(free_axes(mesh).values()) == 1:
        return x
    return jax.lax.with_sharding_constraint(x, placement(letters, x.shape, mesh))


def spread(letters: str, shape: tuple[int, ...]) -> int:
    """Over how many devices the table spreads an activation on the mesh in force."""
    mesh = jax.sharding.get_abstract_mesh()
    return (
        1
        if mesh.empty
        else math.prod(free_axes(mesh)[axis] for axis in axes_of(placement(letters, shape, mesh)))
    )


def num_devices() -> int:
    """Of the mesh in force; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


def divides(letter: str, size: int) -> bool:
    """Whether all mesh axes of a letter divide a dimension of this size, on the mesh in force."""
    return spread(letter, (size,)) == spread(letter, (0,))


@functools.partial(jax.tree_util.register_dataclass, data_fields=["value"], meta_fields=[])
@dataclass(frozen=True)
class Copies:
    """A parameter as an array [n, ...] with a copy for each of n parts of a batch: what a part adds to its
    gradient stays in its copy, and the copies are summed once."""

    value: Any


def copied(x, letters: str, rows: int) -> Copies:
    """A parameter of these letters, copied for each part that the table makes of `rows` rows."""
    return Copies(_copied(constrain(x, letters), letters, rows))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _copied(x, letters, rows):
    copies = jnp.broadcast_to(x, (spread("B", (rows,)), *x.shape))
    return constrain(copies, "B" + letters.replace("D", ".").replace("E", "."))


def _sum_of_copies(letters, rows, _, gradient):
    """Over the axes that the parameter is spread over, scattered along its first dimension; then over those
    that repeat it; then exchanged for the placement it is stored in. Summed over all axes at once, or
    scattered along its last dimension, a large array's sum is left whole by the TPU's compiler (libtpu
    0.0.42.1): twice the bytes."""
    shape, mesh = gradient.shape[1:], jax.sharding.get_abstract_mesh()
    free, stored = free_axes(mesh), placement(letters, shape, mesh)
    held = axes_of(stored)
    is_even = shape[0] % math.prod(free[axis] for axis in held) == 0
    by_rows = (held or None, *[None] * (len(shape) - 1)) if is_even else tuple(stored)
    parts = [axis for axis in RULES["B"] if free[axis] > 1]
    others = [axis for axis in parts if axis not in held]

    def added(x, places, spec):
        x = jax.lax.reduce(x, x.dtype.type(0), jax.lax.add, list(places))
        return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))

    x = gradient.reshape(*(free[axis] for axis in parts), *shape)
    x = added(x, map(parts.index, held), (*others, *by_rows))
    x = added(x, range(len(others)), by_rows)
    return (constrain(x, letters),)


_copied.defvjp(lambda x, letters, rows: (_copied(x, letters, rows), None), _sum_of_copies)


def is_copies(x) -> bool:
    return isinstance(x, Copies)


def on_each_part(f: Callable, words: int, whole, *rows):
    """`f(whole, *rows)` on the positions that each device holds: (sums, more rows), the sums added up once.

    `rows` are arrays [B, T, ...], placed as logits of `words` words have their positions. Of Copies in
    `whole` each part sees its own, [1, ...]; sums that are Copies are added up for each copy. Inside,
    `constrain` speaks of the other mesh axes alone.
    """
    mesh = jax.sharding.get_abstract_mesh()
    spec = PartitionSpec() if mesh.empty else placement("BTV", (*rows[0].shape[:2], words), mesh)
    part = PartitionSpec(*spec[:2])
    if not axes_of(part):
        return f(whole, *rows)

    def place(x):
        return PartitionSpec(spec[0]) if is_copies(x) else PartitionSpec()

    def on_part(whole, *rows):
        sums, more = f(whole, *rows)
        return jax.tree.map(lambda x: x[None], sums), more

    sums, more = jax.shard_map(
        on_part,
        in_specs=(jax.tree.map(place, whole, is_leaf=is_copies), *[part] * len(rows)),
        out_specs=(PartitionSpec(axes_of(part)), part),
        axis_names=set(axes_of(part)),
        check_vma=False,
    )(whole, *rows)
    count = spread("B", rows[0].shape[:1])

    def added(x):
        if is_copies(x):
            return Copies(x.value.reshape(count, -1, *x.value.shape[2:]).sum(1))
        return x.sum(0)

    return jax.tree.map(added, sums, is_leaf=is_copies), more


def on_stages(f: Callable, layers, rows, whole):
    """`f(layers, rows, whole)` on each pipeline stage, with its own part of arrays [N, ...] and the same
    rows; what the last stage returns. Gradients pass through the layers and the rows."""
    stages = jax.sharding.get_abstract_mesh().shape["pipeline"]
    # A copy a stage, as an array: the gradient is then a sum over it, which every compiler can spread, where
    # that of one array for all stages is a sum in bfloat16 that the CPU's (jaxlib 0.10.2) dies of.
    copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (stages, *x.shape)), rows)

    def on_stage(layers, copies, whole):
        found = f(layers, jax.tree.map(lambda x: x[0], copies), whole)
        return jax.tree.map(lambda x: x[None], found)

    own = PartitionSpec("pipeline")
    last = jax.shard_map(
        on_stage,
        in_specs=(own, own, PartitionSpec()),
        out_specs=own,
        axis_names={"pipeline"},
        check_vma=False,
    )(layers, copies, whole)
    return jax.tree.map(lambda x: x[-1], last)


def axes_of(spec: PartitionSpec) -> tuple[str, ...]:
    """The mesh axes that a placement uses."""
    parts = (part if isinstance(part, tuple) else (part,) for part in spec if part)
    return tuple(axis for part in parts for axis in part)


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Where rows of a batch lie: B by the table, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(RULES["B"]))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())
