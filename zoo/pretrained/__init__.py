"""Models with weights, from a folder.

model, params, tokenizer = zoo.from_pretrained("runs/gpt_stdlib")
"""

import dataclasses
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from zoo import models, sharding
from zoo.checkpoint import Checkpoints, named_leaves, nested
from zoo.data import load_tokenizer
from zoo.errors import CheckpointError
from zoo.run import recipe_of
from zoo.sharding import ParamSpec


def from_pretrained(folder: str | os.PathLike):
    """(model, params, tokenizer) of a run's folder: the newest intact checkpoint, its best or its
    average where the run kept these, on this process's first device.

    Raises CheckpointError where the folder is not a run's, or holds no intact checkpoint.
    """
    recipe = recipe_of(folder)
    model = models.create(recipe.model)
    mesh = sharding.make_mesh(sharding.MeshConfig(data=1), jax.local_devices()[:1])
    return model, load_params(folder, model, mesh), load_tokenizer(Path(folder) / "tokenizer")


def load_start(folder: str | os.PathLike, model, params: dict, mesh, tokenizer) -> dict:
    """`params` with those of a run's folder in their place: all, where its model is the same, and where it is
    what this model's head reads (a language model under a classifier), the encoder's.

    Raises CheckpointError where it is neither, or was trained with another vocabulary.
    """
    source = models.create(recipe_of(folder).model)
    path, specs, config = [], model.abstract(), model.config
    while hasattr(config, "encoder") and specs != source.abstract():
        config = config.encoder
        specs, path = specs["encoder"], [*path, "encoder"]
        if choices(config) == choices(source.config) and is_part(specs, source.abstract()):
            break
    else:
        return load_params(folder, model, mesh, tokenizer)
    of_words = any("V" in spec.letters for spec in named_leaves(specs).values())  # not where they are spelled
    loaded = named_leaves(load_params(folder, source, mesh, tokenizer if of_words else None))
    part = {"/".join([*path, name]): loaded[name] for name in named_leaves(specs)}
    return nested(named_leaves(params) | part)


def choices(config) -> dict:
    """What a configuration chooses by name, its class included: models of equal shapes whose choices differ
    (tanh or ReLU) are different functions. Left out is what changes how, not what."""
    chosen = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    how = ("dtype", "remat", "dropout_draws")
    named = {name: value for name, value in chosen.items() if isinstance(value, str) and name not in how}
    return named | {"class": type(config)}


def is_part(specs: dict, whole: dict) -> bool:
    """Whether `whole` has every parameter of `specs`, by name, letters and shape."""
    found = named_leaves(whole)
    return all(found.get(name) == spec for name, spec in named_leaves(specs).items())


def load_params(folder: str | os.PathLike, model, mesh, tokenizer=None) -> dict:
    """The parameters of a run's folder, placed on `mesh`. Raises CheckpointError where `model`, or the
    `tokenizer` if one is given, is another."""
    recipe = recipe_of(folder)
    if tokenizer is not None and load_tokenizer(Path(folder) / "tokenizer").digest != tokenizer.digest:
        raise CheckpointError(
            f"{folder} was trained with another vocabulary: its tokens mean other words here"
        )
    source = models.create(recipe.model)
    if source.abstract() != model.abstract() or choices(recipe.model) != choices(model.config):
        raise CheckpointError(f"{folder} holds another model than the one to start: {recipe.model}")
    part = "average" if recipe.average_decay else "params"
    with Checkpoints(Path(folder) / "checkpoints") as checkpoints:
        if recipe.best:
            best = {"params": model.abstract(), "step": ParamSpec("", (), (), jnp.int32)}
            found = checkpoints.restore({"best": best}, mesh, note)
            if found is not None and found["best"]["step"]:
                note(f"{folder}: step {int(found['best']['step'])}, the best by {recipe.best}")
                return found["best"]["params"]
        found = checkpoints.restore({part: model.abstract()}, mesh, note)
    if found is None:
        raise CheckpointError(f"{folder} holds no checkpoint yet")
    return found[part]


def note(text: str) -> None:
    print(text, file=sys.stderr)
