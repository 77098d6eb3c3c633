"""The teacher of a distillation: a run or a published model whose answers mean the same as the student's."""

import math

from zoo.data.examples.labels import unnamed
from zoo.errors import CheckpointError
from zoo.pretrained import from_pretrained, names_of, recipe_of


def load_teacher(name: str, recipe, mesh, dataset):
    """(model, params) of what a recipe's student learns from, placed on `mesh`.

    Raises CheckpointError where there is no such folder, its task, vocabulary or labels differ, or its rows
    are too short.
    """
    theirs = recipe_of(name)
    if type(theirs.task) is not type(recipe.task):
        raise CheckpointError(
            f"{name} was trained for {type(theirs.task).__name__}, which tells nothing of "
            f"{type(recipe.task).__name__}; choose a teacher of the same task"
        )
    longest = getattr(getattr(theirs.model, "encoder", theirs.model), "max_length", math.inf)
    if recipe.data.length > longest:
        raise CheckpointError(
            f"data.length={recipe.data.length} is longer than the teacher, whose model has "
            f"max_length={longest}; shorten the rows"
        )
    model, params, tokenizer = from_pretrained(name, mesh)
    if tokenizer is None or tokenizer.digest != dataset.tokenizer.digest:
        raise CheckpointError(f"{name} was trained with another vocabulary: its tokens mean other words here")
    ours, known = {kind: tuple(getattr(dataset, kind, ())) for kind in ("labels", "tags")}, names_of(name)
    if any(known[kind] not in (ours[kind], unnamed(len(ours[kind]))) for kind in ours):
        raise CheckpointError(
            f"{name} has other names of classes or tags than this data; give the data that it was trained on"
        )
    return model, params
