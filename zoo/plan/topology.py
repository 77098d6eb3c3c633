"""Pods that are not there: names such as v5e:2x4, and the mesh over their chips.

The TPU's compiler comes as a library (the package libtpu) and needs no TPU, only three settings before JAX
starts its devices. They are set here, in the process that plans, and nowhere else: beside them an everyday
run would start slowly and loudly. A fourth lets several plans be made at a time, as none of them holds a
device.
"""

import contextlib
import functools
import importlib.util
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
from jax.experimental import mesh_utils, topologies
from jax.sharding import AbstractDevice, AbstractMesh, Mesh

from zoo.errors import ConfigError, nearest
from zoo.mesh import MeshConfig, abstract_mesh, mesh_sizes
from zoo.plan.abstract import tiled_size
from zoo.plan.chips import CHIPS, GPUS, TPU

# Slices as they can be ordered (docs.cloud.google.com/tpu/docs/v5e, v5p, v6e); libtpu 0.0.42.1 knows each.
FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBIC = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x4x12", "4x8x8", "8x8x8", "8x8x16")
TOPOLOGIES = (
    *(f"v5e:{shape}" for shape in FLAT),
    *(f"v5p:{shape}" for shape in CUBIC),
    *(f"v6e:{shape}" for shape in FLAT),
)


def check_topology(name: str) -> None:
    """ConfigError for a name that is no slice."""
    if name in TOPOLOGIES:
        return
    kind, _, shape = name.partition(":")
    of_kind = [known for known in TOPOLOGIES if known.startswith(f"{kind}:")]
    if of_kind and re.fullmatch(r"[\dx]*", shape):
        raise ConfigError(f"--plan {name}: no such slice of {kind}; there are {', '.join(of_kind)}")
    hint = nearest(name, TOPOLOGIES) or (
        f"; chip and shape, such as {TOPOLOGIES[1]}, of {', '.join(CHIPS)}, or GPUs a node and nodes, such "
        f"as h100:8x4, of {', '.join(GPUS)}"
    )
    raise ConfigError(f"--plan {name}: no such topology{hint}")


def shape_of(name: str) -> tuple[int, ...]:
    return tuple(int(size) for size in name.partition(":")[2].split("x"))


def libtpu_path() -> Path:
    """The compiler's library: the environment's, or that of the installed package."""
    if given := os.environ.get("TPU_LIBRARY_PATH"):
        path = Path(given)
    else:
        found = importlib.util.find_spec("libtpu")
        path = (
            Path((found.submodule_search_locations or [""])[0], "libtpu.so") if found else Path("libtpu.so")
        )
    if not path.is_file():
        raise ConfigError(
            '--plan needs the TPU compiler, libtpu, which is not here; pip install -e ".[plan]"'
        )
    return path


def libtpu_version() -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("libtpu")
    return "unknown"


def prepare() -> None:
    """The settings; call it before the first device."""
    os.environ["TPU_LIBRARY_PATH"] = str(libtpu_path())
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    start_on_cpu()


def start_on_cpu() -> None:
    """Leaves a GPU or TPU that is here alone: shapes need none."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what libtpu says of the TPU that it does not find here off stderr; where something fails, it is
    said after all."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        try:
            yield
        except BaseException:
            noise.seek(0)
            os.write(kept, noise.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@dataclass(frozen=True)
class Slice:
    """A slice of a pod, by its name."""

    name: str

    @property
    def chip(self) -> TPU:
        return CHIPS[self.name.partition(":")[0]]

    @property
    def count(self) -> int:
        """Chips."""
        return math.prod(shape_of(self.name))

    numbers = staticmethod(tiled_size)

    def larger(self) -> list["Slice"]:
        """The slices of the same chips that have more of them, the smallest first."""
        kind = self.name.partition(":")[0]
        found = [Slice(name) for name in TOPOLOGIES if name.startswith(f"{kind}:")]
        return [each for each in found if each.count > self.count]

    @functools.cache  # noqa: B019 -- one or two of them in a process
    def devices(self) -> list:
        """The chips, as the compiler describes them."""
        with quiet():
            return list(topologies.get_topology_desc(self.name, platform="tpu").devices)

    def abstract(self, sizes: Mapping[str, int]) -> AbstractMesh:
        """A mesh of sizes alone over such chips; no compiler is asked for it."""
        return abstract_mesh(sizes, AbstractDevice(self.chip.name, 1, "tpu"))

    def mesh(self, config: MeshConfig) -> Mesh:
        """The mesh of a run, laid on the chips' torus; an axis may take a part of a dimension."""
        sizes = mesh_sizes(config, self.count)
        laid = mesh_utils.create_device_mesh(
            tuple(sizes.values()), self.devices(), allow_split_physical_axes=True
        )
        return Mesh(laid, tuple(sizes))

    def bandwidths(self, mesh: Mesh) -> dict[str, float]:
        """Bytes per second that a chip can send along each mesh axis.

        A ring over an axis sends both ways at once on the links of each dimension of the torus that the axis
        runs along: 2 links a dimension where it is closed, and where it is open, or the axis has a part of it
        only, 1.
        """
        places = np.array([device.coords for device in mesh.devices.flat])
        places = places.reshape(*mesh.devices.shape, -1)
        found = {}
        for number, axis in enumerate(mesh.axis_names):
            along = np.moveaxis(places, number, 0)
            along = along.reshape(mesh.devices.shape[number], -1, places.shape[-1])[:, 0]
            links = 0
            for dimension, size in enumerate(shape_of(self.name)):
                seen = len(set(along[:, dimension].tolist()))
                if seen > 1:
                    links += 2 if seen == size and size % self.chip.ring == 0 else 1
            found[axis] = max(links, 1) * self.chip.link_bandwidth
        return found
