"""Clusters of GPUs that are not there: names such as h100:8x4, and how fast each mesh axis is on them.

h100:8x4 is four nodes of eight. A mesh numbers its devices with the last axis running fastest, so that axis
has neighbours of one node. An axis that stays inside a node goes over NVLink. One that leaves it runs as
rings, each through the network adapters of two of a node's members at a time, and as many rings as it has
members there: all of them together send at the rate of all their adapters.

    h100:8x4, data=4 fsdp=4 tensor=2      tensor   pairs of one node             NVLink
                                          fsdp     4 of one node, 2 apart        NVLink
                                          data     one of each node              its own adapter
    h100:8x4, fsdp=32                     fsdp     8 of each of 4 nodes          8 adapters
"""

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jax.sharding import AbstractMesh

from zoo.errors import ConfigError
from zoo.mesh import MeshConfig, abstract_mesh, mesh_sizes
from zoo.plan.chips import GPU, GPUS


def is_cluster(name: str) -> bool:
    """Whether a name is of GPUs: all that no TPU's name begins."""
    return name.partition(":")[0] in GPUS


@dataclass(frozen=True)
class Cluster:
    """So many GPUs a node, so many nodes."""

    name: str
    chip: GPU
    per_node: int
    nodes: int

    @property
    def count(self) -> int:
        return self.per_node * self.nodes

    numbers = staticmethod(math.prod)  # GPUs lay arrays out as they are

    def larger(self) -> list["Cluster"]:
        """Whole nodes, twice as many each time, up to 1,024 GPUs."""
        names, nodes = [], 1
        while nodes * self.chip.most <= 1024:
            names.append(f"{self.name.partition(':')[0]}:{self.chip.most}x{nodes}")
            nodes *= 2
        return [each for each in map(cluster, names) if each.count > self.count]

    def abstract(self, sizes: Mapping[str, int]) -> AbstractMesh:
        """A mesh of sizes alone; attention is planned in its plain form, as no GPU says what it can."""
        return abstract_mesh(sizes)

    def mesh(self, config: MeshConfig) -> AbstractMesh:
        return self.abstract(mesh_sizes(config, self.count))

    def bandwidths(self, mesh) -> dict[str, float]:
        """Bytes per second that a GPU can send along each axis."""
        chip, found = self.chip, {}
        for axis, members in neighbours(mesh.shape, self.per_node).items():
            rings = chip.network_bandwidth * members
            found[axis] = min(rings, chip.nvlink_bandwidth) if members else chip.nvlink_bandwidth
        return found


def neighbours(sizes: Mapping[str, int], per_node: int) -> dict[str, int]:
    """{axis: 0 where all that differ in it alone are of one node, else how many of them a node has, at
    least}."""
    nodes = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values())) // per_node
    found = {}
    for number, (axis, size) in enumerate(sizes.items()):
        groups = np.moveaxis(nodes, number, -1).reshape(-1, size)
        counts = [np.unique(group, return_counts=True)[1] for group in groups]
        crossing = [each.min() for each in counts if len(each) > 1]
        found[axis] = int(min(crossing, default=0))
    return found


@functools.cache
def cluster(name: str) -> Cluster:
    """The cluster of a name; ConfigError for one that is none."""
    kind, _, shape = name.partition(":")
    chip = GPUS[kind]
    found = re.fullmatch(r"(\d+)x(\d+)", shape)
    per_node, nodes = (int(size) for size in found.groups()) if found else (0, 0)
    if not (1 <= per_node <= chip.most and nodes >= 1):
        raise ConfigError(
            f"--plan {name}: no such cluster; say GPUs a node, at most {chip.most}, and nodes, as in "
            f"{kind}:8x4"
        )
    return Cluster(name, chip, per_node, nodes)
