"""list and show: what there is, and what it is made of."""

import fnmatch
import json
from pathlib import Path

import zoo
from zoo import config
from zoo.errors import ConfigError, nearest
from zoo.models import SIZES
from zoo.pretrained import config_of, labels_of
from zoo.pretrained.hub import PREFIX, local
from zoo.pretrained.runs import is_run
from zoo.recipes import Recipe
from zoo.run import read_json, recipe_of
from zoo.tree import named_leaves


def show_list(options) -> dict:
    """Every published size with its parameters, then every recipe with its model."""
    models = {name: zoo.create(name).num_params() for name in zoo.list_models(options.pattern)}
    recipes = fnmatch.filter(zoo.CONFIGS, options.pattern)
    for name, count in models.items():
        print(f"{name:28} model   {count:>15,} parameters")
    for name in recipes:
        recipe = zoo.CONFIGS[name]
        print(
            f"{name:28} recipe  {type(recipe.model).__name__}, {recipe.steps:,} steps "
            f"of {recipe.data.batch_size} rows"
        )
    if not models and not recipes:
        raise ConfigError(
            f"nothing is called {options.pattern!r}"
            f"{nearest(options.pattern, [*zoo.list_models(), *zoo.CONFIGS])}"
        )
    return {"models": models, "recipes": recipes}


def show(options) -> dict:
    """One size, recipe, run or published model: the recipe of a name that is both has the model in it."""
    name, settings, kept = options.name, {}, {}
    if name.startswith(PREFIX) or Path(name).is_dir():
        folder = local(name)
        found = recipe_of(folder) if is_run(folder) else config_of(folder)
        if is_run(folder) and found.best:
            result = read_json(folder / "result.json") or {}
            kept = {"best_step": result.get("best_step"), "best": found.best}
        settings = {key: names for key, names in labels_of(folder).items() if names}
    elif name in zoo.CONFIGS:
        found = zoo.CONFIGS[name]
    elif name in SIZES:
        found = SIZES[name]
    else:
        known = [*SIZES, *zoo.CONFIGS]
        raise ConfigError(
            f"{name!r} is no model, recipe or folder of one{nearest(name, known)}; `python -m zoo list`"
        )
    print(json.dumps(config.to_json(found) | settings, indent=2))
    is_recipe = isinstance(found, Recipe)
    model_config = found.model if is_recipe else found
    if not model_config.vocab_size:
        return {"name": name, "parameters": None, "why": "the vocabulary's size comes with the data"}
    length = found.data.length if is_recipe else getattr(encoder_of(model_config), "max_length", 1)
    flops = model_config.flops_per_token(length)
    for path, spec in named_leaves(zoo.create(model_config).abstract()).items():
        print(f"{path:40} {spec.letters:6} {'x'.join(map(str, spec.visible_shape)):>24} {spec.size:>15,}")
    return {
        "name": name,
        "parameters": zoo.create(model_config).num_params(),
        "length": length,
        "flops_per_token_full_attention": flops.full,
        "flops_per_token_causal_half": flops.causal,
        **kept,
    }


def encoder_of(model_config):
    return getattr(model_config, "encoder", model_config)
