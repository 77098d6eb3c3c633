"""Whether a mesh fits a model and its rows: what a run is refused for before it writes anything."""

import math
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from zoo.errors import ConfigError
from zoo.mesh import describe
from zoo.sharding import LETTERS, RULES, shardings


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


def check_axes(model, length: int, mesh: Mesh) -> None:
    """ConfigError for a mesh axis that would have nothing to spread of this model in rows of `length`, and
    for a parameter that does not divide."""
    shardings(model.abstract(), mesh)  # which names what does not divide
    letters = {letter for spec in jax.tree.leaves(model.abstract()) for letter in spec.letters}
    for axis, letter in (("pipeline", "N"), ("context", "N"), ("expert", "X")):
        if mesh.shape[axis] > 1 and letter not in letters:
            parts = "attention" if axis == "context" else LETTERS[letter]
            raise ConfigError(
                f"mesh.{axis}={mesh.shape[axis]}: {type(model.config).__name__} has no {parts} to spread; "
                f"leave mesh.{axis} at 1"
            )
    if mesh.shape["pipeline"] > 1 and "X" in letters:
        raise ConfigError(
            f"mesh.pipeline={mesh.shape['pipeline']}: what routers say is not passed on from stage to stage; "
            "leave mesh.pipeline at 1 for a model with experts"
        )
    if length % mesh.shape["context"]:
        raise ConfigError(
            f"data.length={length} does not divide over mesh context={mesh.shape['context']}; use a multiple"
        )
