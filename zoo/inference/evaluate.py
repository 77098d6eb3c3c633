"""What a trained run makes of data: its own validation or test part, or other files of the same kind."""

import dataclasses
import os
from pathlib import Path

import jax
import optax

from zoo import data, models, sharding
from zoo.data import labels, load_tokenizer
from zoo.errors import ConfigError, DataError
from zoo.evaluation import Evaluation
from zoo.metrics import require
from zoo.pretrained import load_params
from zoo.run import recipe_of
from zoo.step import TrainStep


def evaluate(
    folder: str | os.PathLike, *, path: str = "", part: str = "valid", batch_size: int = 0
) -> dict[str, float]:
    """The task's metrics of a run on all of `part` ("train", "valid" or "test") of its data, or of `path`.

    `batch_size` replaces the run's; of parallel streams it is their number, and 1 reads the text as one.
    Raises DataError where the data makes another vocabulary than the run has, or lacks the part.
    """
    recipe = recipe_of(folder)
    if batch_size < 0:
        raise ConfigError(f"batch_size={batch_size} must be at least 1; 0 takes the run's")
    changes = {"path": path or recipe.data.path, "batch_size": batch_size or recipe.data.batch_size}
    dataset = data.load(dataclasses.replace(recipe.data, **changes), recipe.seed, evaluate=part)
    if dataset.tokenizer.digest != load_tokenizer(Path(folder) / "tokenizer").digest:
        raise DataError(
            f"{changes['path'] or 'stdlib'}: its training part makes another vocabulary than {folder} has; "
            "give the data that the run was trained on"
        )
    names = {"labels": getattr(dataset, "labels", ()), "tags": getattr(dataset, "tags", ())}
    known = labels.read(Path(folder)) if any(names.values()) else names
    if known != names:
        raise DataError(
            f"{changes['path'] or 'stdlib'}: has other names of classes or tags than {folder}; "
            "give the data that the run was trained on"
        )
    for module, extra in getattr(recipe.task, "needs", ()):
        require(module, extra=extra)
    model = models.create(recipe.model)
    mesh = sharding.make_mesh(sharding.MeshConfig(data=1), jax.local_devices()[:1])
    parts = TrainStep(model, recipe.task, optax.identity(), carried_rows=dataset.carried_rows)
    with jax.set_mesh(mesh):
        return Evaluation(parts, dataset, mesh)(load_params(folder, model, mesh, dataset.tokenizer))
