"""Models with weights, from a folder and to one.

model, params, tokenizer = zoo.from_pretrained("runs/gpt_stdlib")       a run's
model, params, tokenizer = zoo.from_pretrained("bert-base-uncased/")    as Hugging Face publishes them
model, params, tokenizer = zoo.from_pretrained("hf:google-bert/bert-base-uncased")

zoo.save_pretrained("out", model, params, tokenizer)

stored.py         tensors in files: lazily read, in shards
places.py         which tensor is which part of which array
bert.py, gpt2.py  the names of a family
architectures.py  the table of classes
huggingface.py    whole folders; hub.py: hf:ID
runs.py           folders of runs
adapter.py        adapters as peft publishes them; write_adapter.py
start.py          what a training run takes from a folder; class_rows.py: a head's rows by their names
usage.py          what a published model is good for; teacher.py: that of a distillation
torch_rnn.py, keras_rnn.py, vectors.py    other formats
"""

import os
import sys
from pathlib import Path

import jax

from zoo import models
from zoo.data import load_tokenizer
from zoo.data.examples import labels as names
from zoo.data.tokenizers.published import read_template
from zoo.errors import CheckpointError, ConfigError, nearest
from zoo.mesh import MeshConfig, make_mesh
from zoo.models.quantised import bits_of, quantised, refuse
from zoo.pretrained import huggingface
from zoo.pretrained.adapter import FILE as ADAPTER_FILE
from zoo.pretrained.adapter import described as described_adapter
from zoo.pretrained.adapter import with_adapter
from zoo.pretrained.hub import local
from zoo.pretrained.runs import is_run, load_params
from zoo.pretrained.usage import published_recipe
from zoo.recipes import Recipe
from zoo.run import recipe_of as run_recipe

FORMATS = ("hf",)


def from_pretrained(
    name: str | os.PathLike, mesh=None, *, adapter: str | os.PathLike = "", weights: str = ""
):
    """(model, params, tokenizer) of a run's folder, of one as Hugging Face publishes them, or of `hf:ID` on
    the hub; on `mesh`, or without one on this process's first device. `adapter` is a folder of peft's, or
    `hf:ID` too, whose adapters are merged into the parameters. `weights` are those of inference, "int8" or
    "int4" (zoo/models/quantised.py); float32 unless they are given.

    Of a run, the newest intact checkpoint, its average where the run kept one. The tokenizer is None where a
    published folder holds none. Raises CheckpointError where the folder is neither, or is damaged.
    """
    if weights:
        bits = bits_of(weights)
        model, params, tokenizer = from_pretrained(name, mesh, adapter=adapter)
        return *quantised(model, params, bits), tokenizer
    if adapter:
        model, params, tokenizer = from_pretrained(name, mesh)
        if differing := other_base(local(adapter), name):
            print(differing, file=sys.stderr)
        return model, with_adapter(local(adapter), model, params), tokenizer
    folder = local(name)
    mesh = mesh or make_mesh(MeshConfig(data=1), jax.local_devices()[:1])
    if is_run(folder):
        model = models.create(run_recipe(folder).model)
        return model, load_params(folder, model, mesh), load_tokenizer(folder / "tokenizer")
    found = huggingface.described(folder)
    model, tokenizer = models.create(found.config), huggingface.tokenizer_of(found)
    return model, huggingface.load(found, model, mesh), tokenizer


def other_base(adapter: Path, name: str | os.PathLike) -> str:
    """A line where adapters say that they are for a model of another name, or are given beside a run's own;
    their shapes may fit all the same."""
    base, folder = described_adapter(adapter).base, local(name)
    if is_run(folder) and run_recipe(folder).lora.rank:
        return f"{adapter}: added to {name}, whose own adapters are merged already"
    ours, theirs = (Path(str(each).rstrip("/")).name for each in (name, base))
    return f"{adapter}: made for {base}, by its {ADAPTER_FILE}; {name} has another name" * (
        bool(base) and ours != theirs
    )


def save_pretrained(
    folder: str | os.PathLike,
    model,
    params,
    tokenizer=None,
    *,
    format: str = "hf",
    labels=(),
    problem_type: str = huggingface.SINGLE_LABEL,
    chat_template: str = "",
    max_shard_size: int = huggingface.SHARD_SIZE,
) -> None:
    """Writes a folder that transformers and `from_pretrained` read, whole or not at all.

    `labels` are the names of a classifier's classes or a tagger's tags, in order; `chat_template` is how the
    model wants dialogues written, where its tokenizer does not say so; a shard has at most `max_shard_size`
    bytes. Raises ConfigError for a model that the format has no class for, or of quantised weights,
    StorageError where the folder is there already and not empty.
    """
    refuse(model, "written")
    if format not in FORMATS:
        raise ConfigError(f"format={format!r} is none of {', '.join(FORMATS)}{nearest(format, FORMATS)}")
    settings = {"labels": labels, "problem_type": problem_type, "max_shard_size": max_shard_size}
    settings["chat_template"] = chat_template
    huggingface.save(Path(folder), model, params, tokenizer, **settings)


def labels_of(name: str | os.PathLike) -> dict[str, tuple[str, ...]]:
    """{"labels": names of classes, "tags": names of tags} that a model was trained with, each in the order of
    its numbers; of a run's folder or a published one. Empty where it has none."""
    found = names_of(name)
    return {"labels": found["labels"], "tags": found["tags"]}


def names_of(name: str | os.PathLike) -> dict[str, tuple[str, ...]]:
    """The same with "inputs", those that a run's examples had; empty where that is not known."""
    folder, found = local(name), {"labels": (), "tags": (), "inputs": ()}
    if is_run(folder):
        return names.read(folder) if (folder / names.FILE).is_file() else found
    published = huggingface.described(folder)
    kind = {"classes": "labels", "tags": "tags"}.get(published.architecture.head)
    return found | ({kind: published.labels} if kind else {})


def chat_template_of(name: str | os.PathLike) -> str:
    """How a model, or a folder of adapters, wants dialogues written, in the language of jinja2; empty where
    that is not known."""
    folder = local(name)
    holds_adapters = (folder / ADAPTER_FILE).is_file()
    return read_template(folder if holds_adapters or not is_run(folder) else folder / "tokenizer")


def described_problem(name: str | os.PathLike) -> str:
    """What a classifier's logits mean, in Hugging Face's words: one label of several, or a number."""
    folder = local(name)
    if is_run(folder):
        one = getattr(run_recipe(folder).model, "num_classes", 0) == 1
        return huggingface.REGRESSION if one else huggingface.SINGLE_LABEL
    return huggingface.described(folder).problem_type or huggingface.SINGLE_LABEL


def config_of(folder: Path):
    """The configuration of the model in a run's folder or a published one."""
    return run_recipe(folder).model if is_run(folder) else huggingface.described(folder).config


def with_tokenizer(name: str | os.PathLike, adapter: str | os.PathLike = "", weights: str = ""):
    """`from_pretrained` for whoever reads or writes text: CheckpointError where there is no tokenizer."""
    model, params, tokenizer = from_pretrained(name, adapter=adapter, weights=weights)
    if tokenizer is None:
        raise CheckpointError(f"{name} holds no tokenizer, so that it reads no text; add its vocabulary")
    return model, params, tokenizer


def recipe_of(name: str | os.PathLike) -> Recipe:
    """The recipe of a run's folder; of a published one, a recipe that would train such a model, as to what it
    predicts and how its texts are read. Raises ConfigError where no task here is what its model does."""
    folder = local(name)
    return run_recipe(folder) if is_run(folder) else published_recipe(huggingface.described(folder))
