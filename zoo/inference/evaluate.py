"""What a trained model makes of data: its own validation or test part, other data of the kind, a file."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import optax

from zoo import data, models
from zoo.data import load_tokenizer
from zoo.data.examples import labels
from zoo.errors import ConfigError, DataError
from zoo.evaluation import Evaluation
from zoo.mesh import MeshConfig, make_mesh
from zoo.metrics import require
from zoo.models.quantised import bits_of, quantised
from zoo.pretrained import from_pretrained, names_of, recipe_of
from zoo.pretrained.adapter import with_adapter
from zoo.pretrained.hub import local
from zoo.pretrained.runs import is_run, load_params
from zoo.step import TrainStep

MOST_ROWS = 1 << 16  # of a batch; more would fill the memory before anything is said


def evaluate(
    folder: str | os.PathLike,
    *,
    file: str | os.PathLike = "",
    part: str = "valid",
    path: str = "",
    batch_size: int = 0,
    columns: Sequence[str] = (),
    adapter: str | os.PathLike = "",
    weights: str = "",
) -> dict[str, float]:
    """The task's metrics of a run on a labelled `file` (for language models, a text), or without one on all
    of `part` ("train", "valid" or "test") of its data, or of the same part of the data in `path`.

    `batch_size` replaces the run's; of parallel streams it is their number, and 1 reads the text as one.
    `columns` replace the run's too, for a file whose columns have other names: text=review label=stars.
    `adapter` is a folder of peft's, merged into the model; `weights` are "int8", "int4" or float32.
    Raises DataError where a file has a label that the run does not know, or where the data makes another
    vocabulary than the run has, or lacks the part.
    """
    recipe = recipe_of(folder)
    if not 0 <= batch_size <= MOST_ROWS:
        raise ConfigError(f"batch_size={batch_size} must be 1 to {MOST_ROWS:,}; 0 takes the run's")
    cfg = data.kept_in(local(folder), with_columns(recipe.data, columns))
    cfg = dataclasses.replace(cfg, batch_size=batch_size or cfg.batch_size)
    mesh = make_mesh(MeshConfig(data=1), jax.local_devices()[:1])
    if file:
        model, params, tokenizer = from_pretrained(folder, mesh, adapter=adapter, weights=weights)
        dataset = data.load_file(cfg, file, tokenizer, names_of(folder))
    elif not is_run(local(folder)):
        raise ConfigError(f"{folder}: a published model has no data of its own; give a labelled file")
    else:
        dataset = data.load(dataclasses.replace(cfg, path=path or cfg.path), recipe.seed, evaluate=part)
        check_names(dataset, Path(folder))
        model = models.create(recipe.model)
        params = load_params(folder, model, mesh, dataset.tokenizer)
        if adapter:
            params = with_adapter(local(adapter), model, params)
        if weights:
            model, params = quantised(model, params, bits_of(weights))
    for module, extra in getattr(recipe.task, "needs", ()):
        require(module, extra=extra)
    parts = TrainStep(model, recipe.task, optax.identity(), carried_rows=dataset.carried_rows)
    with jax.set_mesh(mesh):
        return Evaluation(parts, dataset, mesh)(params)


def with_columns(cfg, columns: Sequence[str]):
    """A run's data with other columns; ConfigError where it has none."""
    if not columns:
        return cfg
    if not isinstance(cfg, data.ExamplesConfig):
        raise ConfigError(f"columns {columns[0]}: only labelled examples have columns, this run reads texts")
    return dataclasses.replace(cfg, columns=tuple(columns))


def check_names(dataset, folder: Path) -> None:
    """DataError where tokens, classes or tags of a data set have other names than in the run's folder."""
    source = dataset.cfg.path or "stdlib"
    if dataset.tokenizer.digest != load_tokenizer(folder / "tokenizer").digest:
        raise DataError(
            f"{source}: its training part makes another vocabulary than {folder} has; give the data that the "
            "run was trained on, or one file of other data"
        )
    names = {"labels": getattr(dataset, "labels", ()), "tags": getattr(dataset, "tags", ())}
    if any(names.values()) and not names.items() <= labels.read(folder).items():
        raise DataError(
            f"{source}: has other names of classes or tags than {folder}; give the data that the run was "
            "trained on, or one file of other data"
        )
