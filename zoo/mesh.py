"""The mesh of devices: how many of them each kind of parallelism takes, and which of them lie together.

    slice      copies of the model in parts of the machine that a slow network joins
    pipeline   devices that have consecutive layers each, and pass activations on
    data       copies of the model, each with its own rows
    fsdp       devices that share one copy's parameters, and split its rows
    expert     devices that have some of the experts each, and split rows
    context    devices that have a part of each row's positions
    tensor     devices that split each layer's heads, feed-forward width and vocabulary

The order is that of how much is said over an axis: neighbours in the last one are neighbours in the machine.
What an axis spreads is said by the table in zoo/sharding.py, or for `pipeline` by zoo/models/stack.py too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh

from zoo.errors import ConfigError


@dataclass(frozen=True)
class MeshConfig:
    """How many devices each kind of parallelism takes; one size may be -1 for all the rest."""

    data: int = -1
    """Copies of the model, each with its own rows of the batch (what pmap used to do)."""
    fsdp: int = 1
    """Devices that share one copy's parameters and optimizer state, and split its rows (ZeRO-3)."""
    tensor: int = 1
    """Devices that split each layer's heads, feed-forward width and vocabulary (Megatron), and between layers
    each row's positions."""
    context: int = 1
    """Devices that split each row's positions, for rows too long for one (Transformers only)."""
    pipeline: int = 1
    """Stages: devices that have consecutive layers each (GPipe; Transformers only)."""
    expert: int = 1
    """Devices that split the experts of a mixture, and rows everywhere else."""
    slice: int = 1
    """TPU slices, or groups of hosts, that a slower network joins; each has copies of the model."""

    def __post_init__(self):
        sizes = self.sizes
        for axis, size in sizes.items():
            if size < 1 and size != -1:
                raise ConfigError(f"{axis}={size} must be a positive number, or -1 for the rest")
        if list(sizes.values()).count(-1) > 1:
            rest = [axis for axis, size in sizes.items() if size == -1]
            raise ConfigError(
                f"{describe(sizes).removeprefix('mesh ')}: only one size may be -1; give "
                f"{' and '.join(f'{axis}=1' for axis in rest[:-1])} too, or how many it shall be"
            )

    @property
    def sizes(self) -> dict[str, int]:
        """By axis, in the order of the mesh."""
        return {axis: getattr(self, axis) for axis in AXES}


AXES = ("slice", "pipeline", "data", "fsdp", "expert", "context", "tensor")


def describe(sizes: Mapping[str, int]) -> str:
    """ "mesh fsdp=4 tensor=2": the axes that have more than one device; "mesh data=1" where none has."""
    said = {axis: size for axis, size in sizes.items() if size != 1} or {"data": 1}
    return "mesh " + " ".join(f"{axis}={size}" for axis, size in said.items())


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

    Raises ConfigError where the sizes do not multiply to the number of devices, or the slices are others.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = mesh_sizes(config, len(devices))
    types = (AxisType.Auto,) * len(AXES)
    slices = slices_of(devices)
    if slices > 1 and sizes["slice"] != slices:
        found = f"slice={sizes['slice']}: the devices are {slices} slices"
        raise ConfigError(f"{found}; use --mesh.slice {slices}")
    if sizes["slice"] == 1 and devices[0].platform == "tpu":
        return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=types, devices=devices)
    if slices > 1:
        within = tuple((sizes | {"slice": 1}).values())
        across = tuple(size if axis == "slice" else 1 for axis, size in sizes.items())
        laid = mesh_utils.create_hybrid_device_mesh(within, across, devices)
    else:  # hosts in their order, so that neighbours are of one host
        laid = np.array(sorted(devices, key=lambda device: (device.process_index, device.id)))
    return Mesh(laid.reshape(tuple(sizes.values())), AXES, axis_types=types)


def slices_of(devices) -> int:
    """How many TPU slices they are; 1 of other devices, whose hosts JAX calls slices too."""
    indices = {getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"}
    return max(len(indices), 1)


def abstract_mesh(sizes: Mapping[str, int], device=None) -> AbstractMesh:
    """A mesh of sizes alone, to ask what each device would hold; `device` is a jax.sharding.AbstractDevice,
    where it matters what they are."""
    types = (AxisType.Auto,) * len(sizes)
    return AbstractMesh(tuple(sizes.values()), tuple(sizes), axis_types=types, abstract_device=device)
