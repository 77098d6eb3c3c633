"""What a recipe and its data make together: the recipe with every size filled in, and the step it trains by.

train.py begins here, and whoever compiles or measures the same step.
"""

import dataclasses

import optax

from zoo import models, optim
from zoo.distill import Lesson
from zoo.errors import ConfigError
from zoo.models.depth import depths
from zoo.models.lora import frozen_beside, with_lora
from zoo.optim.finetune import by_depth, frozen_names, without
from zoo.step import TrainStep
from zoo.tree import named_leaves


def complete(recipe, dataset):
    """The recipe with what the data decides: the vocabulary's size, the number of classes, the end mark; and
    with what a quarter of the steps is, where it asks for that."""
    task = recipe.task
    if getattr(task, "end", 0) < 0:
        task = dataclasses.replace(task, end=dataset.tokenizer.eot)
    model = sized(recipe.model, dataset.sizes, dataset.tokenizer.name)
    quarter = max(1, recipe.steps // 4)
    every = {name: getattr(recipe, name) or quarter for name in ("save_every", "eval_every")}
    return dataclasses.replace(recipe, model=model, task=task, **every)


def sized(config, sizes, tokenizer: str, path: str = "model"):
    """A model's configuration with every size that is 0 filled in, that of its encoder too."""
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in sizes:
            if value not in (0, sizes[field.name]):
                raise ConfigError(
                    f"{path}.{field.name}={value}, but the data has {sizes[field.name]} (tokenizer "
                    f"{tokenizer}); give what the model knows, or {path}.{field.name}=0 to follow the data"
                )
            changes[field.name] = sizes[field.name]
        elif dataclasses.is_dataclass(value):
            changes[field.name] = sized(value, sizes, tokenizer, f"{path}.{field.name}")
    return dataclasses.replace(config, **changes)


def step_of(recipe, dataset, teacher=None) -> TrainStep:
    """The training step of a recipe: what the loop repeats, and what --plan compiles."""
    model = with_lora(models.create(recipe.model), recipe.lora)
    lesson = Lesson(model, teacher, recipe.distill) if teacher else None
    frozen = frozen_names(recipe.finetune.freeze, model.abstract())
    frozen |= frozen_beside(recipe.lora, named_leaves(model.abstract()))
    return TrainStep(
        *(model, recipe.task, change_of(recipe, model, lesson.specs() if lesson else {}, frozen)),
        *(recipe.seed, recipe.accumulate, recipe.clip_norm, recipe.average_decay),
        lesson=lesson,
        frozen=frozen,
        best=recipe.best,
        carried_rows=dataset.carried_rows,
        param_dtype=recipe.param_dtype,
        offload=recipe.offload,
        guard=recipe.guard,
    )


def change_of(recipe, model, beside, frozen):
    """What the optimizer makes of gradients, each layer at the rate that the recipe gives it; `beside` are
    parameters that are trained with the model's."""
    specs = without(model.abstract() | beside, frozen)
    tx = optim.transform(recipe.optimizer, recipe.schedule, recipe.steps, specs)
    if not recipe.finetune.counts_layers:
        return tx
    return optax.chain(tx, by_depth(recipe.finetune, depths(model, beside), frozen))
