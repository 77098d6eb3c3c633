"""The alphabet of array dimensions, and the one table that places them on a device mesh.

A dimension letter means the same everywhere: at the end of an array's name (`x_BTD`), in an einsum
("BTD,DHK->BTHK"), in a size table (`cfg.dims["D"]`) and in RULES below. Models name letters; this
file turns letters into placements. Data parallelism, fully sharded data parallelism (ZeRO-3, arXiv
1910.02054) and Megatron's tensor parallelism (arXiv 1909.08053) are then only mesh sizes:

    mesh          x_BTD                      w_DF (stored)            w_HKD (stored)
    data=8        B over data                replicated               replicated
    fsdp=8        B over fsdp                D over fsdp              D over fsdp
    tensor=8      replicated                 F over tensor            H over tensor

The mesh always has automatic axes: the compiler inserts the collectives that the placements imply.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from zoo.errors import ConfigError

LETTERS = {
    "B": "batch",
    "T": "positions",
    "S": "attended positions",
    "W": "words, of several pieces each",
    "P": "picked positions",
    "V": "vocabulary",
    "D": "model width",
    "E": "model width, outgoing",
    "H": "heads",
    "J": "key-value heads",
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
# wins, so x_BTD spreads B over both data and fsdp, and w_DF spreads D over fsdp.
RULES: dict[str, tuple[str, ...]] = dict.fromkeys(LETTERS, ()) | {
    "B": ("data", "fsdp"),
    "V": ("tensor",),
    "H": ("tensor",),
    "J": ("tensor",),
    "F": ("tensor",),
    "Z": ("tensor",),
    "D": ("fsdp",),
    "E": ("fsdp",),
    "R": ("fsdp",),
}

# A vocabulary is stored rounded up to this multiple so that it divides over any mesh and fills the
# matrix units; 50,257 words are stored as 50,304. Everything shown or exported leaves the rest out.
STORED_MULTIPLE = {"V": 128}


def stored_size(letter: str, size: int) -> int:
    """How many entries an array holds for `size` visible ones."""
    multiple = STORED_MULTIPLE.get(letter, 1)
    return -(-size // multiple) * multiple


# --- parameters and their letters -----------------------------------------------------------------


@dataclass(frozen=True)
class ParamSpec:
    """One parameter without its array. Not a tree node, so a tree of these has them as leaves.

    `shape` is as stored, `visible_shape` without the vocabulary's padding. `contracted` counts the
    letters (after a leading N) that a matmul sums over; 0 says that the array is no matmul kernel.
    """

    letters: str
    shape: tuple[int, ...]
    visible_shape: tuple[int, ...]
    dtype: Any
    contracted: int = 0

    @property
    def size(self) -> int:
        """Visible entries."""
        return math.prod(self.visible_shape)

    def visible(self, array):
        """`array` without the padding of its vocabulary."""
        return array[tuple(slice(0, size) for size in self.visible_shape)]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["value"],
    meta_fields=["letters", "visible_shape", "contracted"],
)
@dataclass(frozen=True)
class Lettered(nn.meta.AxisMetadata):
    """The box in which a Linen module declares a parameter: the array with its letters."""

    value: Any
    letters: str
    visible_shape: tuple[int, ...]
    contracted: int = 0

    def unbox(self):
        return self.value

    def replace_boxed(self, val):
        return dataclasses.replace(self, value=val)

    def add_axis(self, index, params):
        """A scan over layers stacks the parameter: its letter joins in front."""
        shape, size = self.visible_shape, self.value.shape[index]
        return dataclasses.replace(
            self,
            letters=self.letters[:index] + params[nn.meta.PARTITION_NAME] + self.letters[index:],
            visible_shape=shape[:index] + (size,) + shape[index:],
        )

    def remove_axis(self, index, params):
        shape = self.visible_shape
        return dataclasses.replace(
            self,
            letters=self.letters[:index] + self.letters[index + 1 :],
            visible_shape=shape[:index] + shape[index + 1 :],
        )


def specs(boxed) -> Any:
    """The ParamSpec tree of a tree of boxes (of arrays or of ShapeDtypeStructs)."""

    def spec(box: Any) -> ParamSpec:
        return ParamSpec(
            box.letters, tuple(box.value.shape), box.visible_shape, box.value.dtype, box.contracted
        )

    return nn.meta.map_axis_meta(spec, boxed)


# --- the mesh -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeshConfig:
    """How many devices each kind of parallelism takes; one size may be -1 for all the rest."""

    data: int = -1
    """Copies of the model, each with its own rows of the batch (what pmap used to do)."""
    fsdp: int = 1
    """Devices that share one copy's parameters and optimizer state, and split its rows (ZeRO-3)."""
    tensor: int = 1
    """Devices that split each layer's heads, feed-forward width and vocabulary (Megatron)."""

    def __post_init__(self):
        sizes = self.sizes
        for axis, size in sizes.items():
            if size < 1 and size != -1:
                raise ConfigError(f"{axis}={size} must be a positive number, or -1 for the rest")
        if list(sizes.values()).count(-1) > 1:
            raise ConfigError(f"{describe(sizes).removeprefix('mesh ')}: only one size may be -1")

    @property
    def sizes(self) -> dict[str, int]:
        return dataclasses.asdict(self)


AXES = tuple(field.name for field in dataclasses.fields(MeshConfig))


def describe(sizes: Mapping[str, int]) -> str:
    return "mesh " + " ".join(f"{axis}={size}" for axis, size in sizes.items())


def mesh_sizes(config: MeshConfig, count: int) -> dict[str, int]:
    """The size of every axis on `count` devices; ConfigError where they do not multiply to it."""
    sizes = config.sizes
    known = math.prod(size for size in sizes.values() if size != -1)
    if count % known == 0:
        sizes = {axis: count // known if size == -1 else size for axis, size in sizes.items()}
    if math.prod(sizes.values()) != count:
        raise ConfigError(
            f"{describe(config.sizes)} does not fit {count} device{'s' * (count > 1)}; "
            "sizes must multiply to the number of devices, one may be -1"
        )
    return sizes


def make_mesh(config: MeshConfig, devices=None) -> Mesh:
    """A mesh over all `devices` (default: every device there is), with automatic axes.

    Raises ConfigError where the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = mesh_sizes(config, len(devices))
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=types, devices=devices)


def abstract_mesh(sizes: Mapping[str, int]) -> AbstractMesh:
    """A mesh of sizes alone, to ask what each device would hold."""
    return AbstractMesh(tuple(sizes.values()), tuple(sizes))


HOST_MEMORY = "pinned_host"

# --- placement ------------------------------------------------------------------------------------


def placement(letters: str, shape: tuple[int, ...], mesh: Any, *, exact: str = "") -> PartitionSpec:
    """The mesh axes of each dimension, by RULES.

    Mesh axes of size one are left out. With `exact` (the name of a parameter) a dimension that its
    axes do not divide is a ConfigError; without it, as for activations, such a dimension stays whole.
    """
    free, spec = dict(mesh.shape), []
    for letter, size in zip(letters, shape, strict=True):
        if letter not in RULES:
            name = exact or f"array {letters}"
            raise ConfigError(f"{name}: dimension {letter!r} has no rule; add it to RULES in zoo/sharding.py")
        axes = tuple(axis for axis in RULES[letter] if free.get(axis, 1) > 1)
        ways = math.prod(free[axis] for axis in axes)
        if size % ways:
            if exact:
                raise ConfigError(
                    f"{exact}: dimension {letter}={size} ({LETTERS[letter]}) does not divide over "
                    f"{describe({axis: free[axis] for axis in axes})}; choose mesh sizes that divide it"
                )
            axes = ()
        for axis in axes:
            del free[axis]
        spec.append(axes if len(axes) > 1 else axes[0] if axes else None)
    return PartitionSpec(*spec)


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


def constrain(x, letters: str):
    """Pins an activation to the table's placement on the mesh in force; nothing without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, placement(letters, x.shape, mesh))


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Where rows of a batch lie: B by the table, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(RULES["B"]))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_rows(rows: int, mesh: Mesh, what: str) -> None:
    """Raises ConfigError unless `rows` divide over the devices that split a batch."""
    ways = math.prod(mesh.shape[axis] for axis in RULES["B"])
    if rows % ways:
        raise ConfigError(
            f"{what}={rows} does not divide over {ways} batch shards "
            f"({describe({axis: mesh.shape[axis] for axis in RULES['B']})}); use a multiple of {ways}"
        )


def place_rows(read: Callable[[range], Any], rows: int, mesh: Mesh):
    """A tree of arrays of `rows` rows on the mesh; `read` is asked only for the rows this process holds.

    Which rows these are follows from the sharding, never from the process number, so devices that
    repeat the same rows (tensor parallelism) get equal ones on every process.
    """
    sharding = rows_sharding(mesh)
    held = sharding.addressable_devices_indices_map((rows,))
    spans = {device: range(*index[0].indices(rows)) for device, index in held.items() if index}
    parts = {span: read(span) for span in dict.fromkeys(spans.values())}

    def assemble(*pieces):
        on_device = [jax.device_put(piece, device) for piece, device in zip(pieces, spans, strict=True)]
        return jax.make_array_from_single_device_arrays((rows, *pieces[0].shape[1:]), sharding, on_device)

    return jax.tree.map(assemble, *(parts[span] for span in spans.values()))
