"""Whether a mesh fits a model and its rows: what a run is refused for before it writes anything."""

import math

import jax
from jax.sharding import Mesh

from zoo.errors import ConfigError
from zoo.mesh import describe
from zoo.sharding import LETTERS, RULES, shardings


def check_rows(rows: int, mesh: Mesh, what: str) -> None:
    """Raises ConfigError unless `rows` divide over the devices that split a batch."""
    ways = math.prod(mesh.shape[axis] for axis in RULES["B"])
    if rows % ways:
        raise ConfigError(
            f"{what}={rows} does not divide over {ways} batch shards "
            f"({describe({axis: mesh.shape[axis] for axis in RULES['B']})}); use a multiple of {ways}"
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
