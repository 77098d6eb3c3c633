"""The parameters in a run's folder: those of its newest intact checkpoint, the best or the average of it
where the run kept these."""

import dataclasses
import os
import sys
from pathlib import Path

import jax.numpy as jnp

from zoo import models
from zoo.checkpoint import Checkpoints
from zoo.data import load_tokenizer
from zoo.errors import CheckpointError
from zoo.lettered import ParamSpec
from zoo.models.lora import with_lora
from zoo.optim.precision import stored_specs, wide
from zoo.pretrained.settings import read_settings
from zoo.run import recipe_of


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's: its config.json holds a recipe."""
    return "recipe" in read_settings(folder)


def load_params(folder: str | os.PathLike, model, mesh, tokenizer=None) -> dict:
    """The parameters of a run's folder, placed on `mesh`, any adapters merged into them. Raises
    CheckpointError where `model`, or the `tokenizer` if one is given, is another."""
    recipe = recipe_of(folder)
    if tokenizer is not None and load_tokenizer(Path(folder) / "tokenizer").digest != tokenizer.digest:
        raise CheckpointError(
            f"{folder} was trained with another vocabulary: its tokens mean other words here"
        )
    source = models.create(recipe.model)
    if source.abstract() != model.abstract() or choices(recipe.model) != choices(model.config):
        raise CheckpointError(f"{folder} holds another model than the one to start: {recipe.model}")
    adapted = with_lora(source, recipe.lora)
    return adapted.merged(stored_params(folder, recipe, adapted, mesh))


def stored_params(folder: str | os.PathLike, recipe, model, mesh) -> dict:
    """The parameters that the run keeps, its adapters beside them, in float32 whatever it stores them in."""
    part = "average" if recipe.average_decay else "params"
    specs = model.abstract() if recipe.average_decay else stored_specs(model.abstract(), recipe.param_dtype)
    with Checkpoints(Path(folder) / "checkpoints") as checkpoints:
        if recipe.best:
            best = {"params": specs, "step": ParamSpec("", (), (), jnp.int32)}
            found = checkpoints.restore({"best": best}, mesh, note)
            if found is not None and found["best"]["step"]:
                note(f"{folder}: step {int(found['best']['step'])}, the best by {recipe.best}")
                return wide(found["best"]["params"])
        found = checkpoints.restore({part: specs}, mesh, note)
    if found is None:
        raise CheckpointError(f"{folder} holds no checkpoint yet")
    return wide(found[part])


def note(text: str) -> None:
    print(text, file=sys.stderr)


def choices(config) -> dict:
    """What a configuration chooses by name, its class included: models of equal shapes whose choices differ
    (tanh or ReLU) are different functions. Left out is what changes how, not what."""
    chosen = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    how = ("dtype", "remat", "dropout_draws")
    named = {name: value for name, value in chosen.items() if isinstance(value, str) and name not in how}
    return named | {"class": type(config)}
