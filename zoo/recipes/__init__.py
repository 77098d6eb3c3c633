"""CONFIGS: complete training runs, in plain Python. `python train.py NAME` runs one."""

import dataclasses

from zoo.recipes import bert, decoder, finetune, gpt, pairs, rnn, similarity, tasks
from zoo.recipes.recipe import CHOICES, EXEMPT, JUDGING, PARTS, Recipe

__all__ = ["CHOICES", "CONFIGS", "EXEMPT", "JUDGING", "PARTS", "Recipe"]

CONFIGS: dict[str, Recipe] = {
    name: dataclasses.replace(recipe, name=name)
    for name, recipe in {
        **gpt.RECIPES,
        **decoder.RECIPES,
        **bert.RECIPES,
        **rnn.RECIPES,
        **pairs.RECIPES,
        **tasks.RECIPES,
        **finetune.RECIPES,
        **similarity.RECIPES,
    }.items()
}
