"""What a published model is good for, said as a recipe: the task whose answers its head gives, and how the
texts are cut and marked that it reads. `python -m zoo predict` and `eval` read it like a run's."""

from typing import Any

from zoo.data import DataConfig, ExamplesConfig, MaskedConfig
from zoo.errors import ConfigError
from zoo.models import module_of
from zoo.pretrained.huggingface import REGRESSION, SINGLE_LABEL, Described, tokenizer_of
from zoo.recipes import Recipe
from zoo.tasks import CausalLM, Classify, MaskedLM, Regress, Span, Tag

LONGEST = 512  # tokens of a row; what is longer is cut, or for answers read in windows


def published_recipe(found: Described) -> Recipe:
    """The recipe for a folder. Raises ConfigError where no task here is what its model does."""
    head, tokenizer = found.architecture.head, tokenizer_of(found)
    if tokenizer is None:
        raise ConfigError(f"{found.folder} holds no tokenizer, so that it reads no text; add its vocabulary")
    text = {"tokenizer": tokenizer.name, "vocab_path": str(found.folder)}
    tasks: dict[Any, Any] = {
        ("classes", SINGLE_LABEL): ("classify", Classify),
        ("tags", ""): ("tag", Tag),
        ("spans", ""): ("span", Span),
    }
    if len(found.labels) == 1:  # a number for each of several labels is no task here
        tasks["classes", REGRESSION] = ("score", Regress)
    if (head, found.problem_type) in tasks:
        kind, task = tasks[head, found.problem_type]
        rows = {"wrap": "both", "max_length": min(found.config.encoder.max_length, LONGEST)}
        rows["stride"] = max(rows["max_length"] // 3, 1)
        return Recipe(model=found.config, task=task(), data=ExamplesConfig(kind=kind, **rows, **text))
    if "causal" in module_of(found.config).traits:
        data = DataConfig(length=found.config.max_length, **text)
        return Recipe(model=found.config, task=CausalLM(), data=data)
    if head == "words":
        data = MaskedConfig(length=found.config.max_length, vocab_size=0, **text)
        return Recipe(model=found.config, task=MaskedLM(), data=data)
    what = f"problem_type={found.problem_type}" if found.problem_type else "no head for a task"
    raise ConfigError(
        f"{found.folder}: its model has {what}; fine-tune it: train.py RECIPE --init {found.folder}"
    )
