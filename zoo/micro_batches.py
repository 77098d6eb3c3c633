"""A batch in parts: whose gradients a step adds up, or which follow each other through a pipeline."""

import math

import jax

from zoo.sharding import axes_of, constrain, placement


def split(rows, parts: int):
    """[B, ...] -> [A, B/A, ...]: every A-th row, so that each device splits the rows it has."""
    cut = rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1)
    return constrain(cut, "." + "B" + "." * (rows.ndim - 1))


def joined(parts):
    """[A, B/A, ...] -> [B, ...], the inverse of `split`."""
    return parts.swapaxes(0, 1).reshape(-1, *parts.shape[2:])


def pipeline_of(rows: int, mesh=None) -> tuple[int, int]:
    """(stages, micro-batches) of a mesh, or of the mesh in force, for a batch of `rows`.

    Four times as many micro-batches as stages leave a stage idle for less than a fifth of its time; more make
    small matmuls. They are fewer where a device has not so many rows.
    """
    mesh = mesh or jax.sharding.get_abstract_mesh()
    stages = mesh.shape.get("pipeline", 1)
    held = rows // math.prod(mesh.shape[axis] for axis in axes_of(placement("B", (rows,), mesh)))
    return stages, max(parts for parts in range(1, held + 1) if held % parts == 0 and parts <= 4 * stages)
