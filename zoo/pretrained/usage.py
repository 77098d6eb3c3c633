"""What a published model is good for, said as a recipe: the task whose answers its head gives, and how the
texts are cut and marked that it reads. `python -m zoo predict` and `eval` read it like a run's."""

from zoo.data import DataConfig, ExamplesConfig, MaskedConfig
from zoo.errors import ConfigError
from zoo.pretrained.huggingface import SINGLE_LABEL, Described, tokenizer_of
from zoo.recipes import Recipe
from zoo.tasks import CausalLM, Classify, MaskedLM, Tag


def published_recipe(found: Described) -> Recipe:
    """The recipe for a folder. Raises ConfigError where no task here is what its model does."""
    head, tokenizer = found.architecture.head, tokenizer_of(found)
    if tokenizer is None:
        raise ConfigError(f"{found.folder} holds no tokenizer, so that it reads no text; add its vocabulary")
    text = {"tokenizer": tokenizer.name, "vocab_path": str(found.folder)}
    if head == "classes" and found.problem_type == SINGLE_LABEL:
        data = ExamplesConfig(
            kind="classify", wrap="both", max_length=found.config.encoder.max_length, **text
        )
        return Recipe(model=found.config, task=Classify(), data=data)
    if head == "tags":
        data = ExamplesConfig(kind="tag", wrap="both", max_length=found.config.encoder.max_length, **text)
        return Recipe(model=found.config, task=Tag(), data=data)
    if found.architecture.model_type == "gpt2":
        data = DataConfig(length=found.config.max_length, **text)
        return Recipe(model=found.config, task=CausalLM(), data=data)
    if head == "words":
        data = MaskedConfig(length=found.config.max_length, vocab_size=0, **text)
        return Recipe(model=found.config, task=MaskedLM(), data=data)
    what = f"problem_type={found.problem_type}" if found.problem_type else "no head for a task"
    raise ConfigError(
        f"{found.folder}: its model has {what}; fine-tune it: train.py RECIPE --init {found.folder}"
    )
