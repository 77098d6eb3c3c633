"""What a training run takes from the folder of --init: parameters, and of a published one the model's sizes
and the vocabulary too.

    recipe                    folder            run
    bert, sizes of its own    bert, 12 x 768    bert, 12 x 768; dropout, dtype and remat of the recipe
    classifier over bert      bert, 12 x 768    classifier over it; a hidden layer as published stays so
    classifier over bert      modernbert        classifier over it
    tokenizer=wordpiece       vocab.txt         the folder's vocabulary

A value that was set by hand and differs from the folder's is an error, not overruled.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax

from zoo import models, sharding
from zoo.data import load_tokenizer
from zoo.data.tokenizers import holds_tokenizer
from zoo.errors import CheckpointError, ConfigError
from zoo.models.bert import BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.models.pretraining import PretrainingConfig
from zoo.pretrained import huggingface, names_of
from zoo.pretrained.bert import shaped_classifier
from zoo.pretrained.class_rows import Names, by_name
from zoo.pretrained.hub import local
from zoo.pretrained.runs import choices, is_run, load_params
from zoo.run import recipe_of
from zoo.tree import named_leaves, nested

KEPT = ("dropout_rate", "dtype", "remat", "layer_unroll")  # of the recipe: how it is trained, not what it is
COUNTED = ("vocab_size", "num_classes", "num_tags")  # 0 in a recipe: as many as the data has
PUBLISHED = ("wordpiece", "bpe", "whole")  # tokenizers that come with a folder


# --- the recipe -----------------------------------------------------------------------------------


def completed(recipe, named):
    """The recipe with what the published folder in its `init` decides; `named` is the recipe before anything
    was set by hand. Other recipes come back as they are. A run that goes on has all of it in its own folder.

    Raises ConfigError where a value set by hand differs, or the recipe's model is of another family.
    """
    if not recipe.init:
        return recipe
    config, vocabulary = begun(recipe)
    if config is None and not is_run(local(recipe.init)):
        found = huggingface.described(local(recipe.init))
        huggingface.check_shapes(found)
        config, vocabulary = found.config, found.folder
    if config is None:
        return recipe
    model = shaped_as(recipe.model, named.model, config, recipe.init)
    data = with_vocabulary(recipe.data, named.data, vocabulary, recipe.init)
    return dataclasses.replace(recipe, model=model, data=data)


def begun(recipe):
    """(model's configuration, folder of the vocabulary) of the recipe's own run, if it has a checkpoint and
    began from the same published folder, which need not be there any more; else (None, None)."""
    own, source = Path(recipe.runs) / recipe.name, Path(recipe.init)
    if not (own / "config.json").is_file() or not any((own / "checkpoints").glob("[0-9]*")):
        return None, None
    there = recipe_of(own)
    if there.init != recipe.init or ((source / "config.json").is_file() and is_run(source)):
        return None, None
    return there.model, own / "tokenizer"


def shaped_as(config, named, theirs, source: str, path: str = "model"):
    """A model's configuration with the sizes of the folder's, or its encoder's."""
    if type(config) is type(theirs):
        refuse_differences(config, named, theirs, source, path)
        kept = kept_of(config) | {
            name: getattr(config, name) for name in COUNTED[1:] if has_field(config, name)
        }
        if hasattr(config, "encoder"):
            inside = (config.encoder, getattr(named, "encoder", None), theirs.encoder)
            kept["encoder"] = shaped_as(*inside, source, f"{path}.encoder")
        return dataclasses.replace(theirs, **kept)
    if not hasattr(config, "encoder"):
        if config == named and path != "model" and both_read_both_ways(config, theirs):
            return dataclasses.replace(theirs, **kept_of(config))  # ModernBERT under a head for BERT
        raise ConfigError(
            f"{path} is a {type(config).__name__}, and {source} holds a {type(theirs).__name__}; choose a "
            "recipe of its family"
        )
    inside = (config.encoder, getattr(named, "encoder", None), getattr(theirs, "encoder", theirs))
    encoder = shaped_as(*inside, source, f"{path}.encoder")
    changes: dict[str, Any] = {"encoder": encoder}
    if getattr(config, "d_hidden", 0) == getattr(config.encoder, "d_model", None):
        changes["d_hidden"] = encoder.d_model
    head = dataclasses.replace(config, **changes)
    # DistilBERT's layer is a ReLU where BERT's is tanh: as published, or it could not be written so again.
    is_berts = is_published_classifier(config) and isinstance(encoder, BERTConfig)
    return shaped_classifier(head) if is_berts else head


def both_read_both_ways(*configs) -> bool:
    return all("bidirectional" in models.module_of(config).traits for config in configs)


def kept_of(config) -> dict[str, Any]:
    """What stays as the recipe has it."""
    return {name: getattr(config, name) for name in KEPT if has_field(config, name)}


def is_published_classifier(config) -> bool:
    """Whether it is what a ...ForSequenceClassification computes over its encoder."""
    is_classifier = isinstance(config, ClassifierConfig) and isinstance(config.encoder, BERTConfig)
    return is_classifier and config == shaped_classifier(config)


def refuse_differences(config, named, theirs, source: str, path: str) -> None:
    """ConfigError for a value that was set by hand and is not the folder's."""
    for field in dataclasses.fields(config):
        ours, there = getattr(config, field.name), getattr(theirs, field.name)
        is_ours = type(named) is not type(config) or getattr(named, field.name) != ours
        if field.name in (*KEPT, "encoder") or not is_ours or ours == there or (field.name in COUNTED):
            continue
        if field.name == "d_ff" and config.dims["F"] == theirs.dims["F"]:
            continue
        raise ConfigError(f"{path}.{field.name}={ours!r}, but {source} has {there!r}; leave it out")


def has_field(config, name: str) -> bool:
    return name in {field.name for field in dataclasses.fields(config)}


def with_vocabulary(data, named, folder: Path, source: str):
    """The data's settings with the folder's vocabulary, unless another was chosen by hand."""
    by_hand = data.vocab_path and data.vocab_path != getattr(named, "vocab_path", "")
    if by_hand:
        return data
    if not holds_tokenizer(folder):
        if data.tokenizer in PUBLISHED and not data.vocab_path:
            raise CheckpointError(
                f"{source} holds no tokenizer, and pieces trained anew would mean other words to it; give "
                "the folder of its vocabulary with data.vocab_path"
            )
        return data
    name = load_tokenizer(folder).name
    if data.tokenizer not in PUBLISHED:
        raise ConfigError(
            f"data.tokenizer={data.tokenizer}, and {source} was trained on {name} tokens; set "
            f"data.tokenizer={name}"
        )
    return dataclasses.replace(data, tokenizer=name, vocab_path=str(folder), vocab_size=0)


# --- the parameters -------------------------------------------------------------------------------


def load_start(
    name: str | os.PathLike, model, params: dict, mesh, tokenizer, names: Names | None = None
) -> dict:
    """`params` with those of a folder, a run's or a published one, in their place: all, where its model is
    the same, and else the largest part that both have: what this model's head reads (a language model under a
    classifier), or what the folder's own reads. Of a published one also the head's own layers that fit.
    `names` are the classes and tags of this model's data: a head's rows go where their names are.

    Raises CheckpointError where it is neither, or was trained with another vocabulary.
    """
    folder = local(name)
    load = load_run if is_run(folder) else load_published
    found = load(folder, model, params, mesh, tokenizer)
    if not names:
        return found
    return by_name(found, params, model.abstract(), theirs=names_of(folder), ours=names)


def load_run(folder: Path, model, params: dict, mesh, tokenizer) -> dict:
    """`params` with what a run's folder has of them."""
    source = models.create(recipe_of(folder).model)
    found = shared_part(model, source)
    if found is None:
        return load_params(folder, model, mesh, tokenizer)  # which says how they differ
    here, there, names = found
    of_words = any("V" in spec.letters for spec in names.values())  # not where they are spelled
    loaded = named_leaves(load_params(folder, source, mesh, tokenizer if of_words else None))
    shared = {here + name: loaded[there + name] for name in names}
    return nested(named_leaves(params) | shared | pooler_of(model, source, loaded, mesh))


def pooler_of(model, source, loaded: dict, mesh) -> dict:
    """The pooler that pre-training has learned as the tanh layer of a classifier over the same BERT, which it
    is in a published folder; nothing where either is no such model."""
    has_pooler = isinstance(source.config, PretrainingConfig) and is_published_classifier(model.config)
    if not has_pooler or model.config.hidden_activation != "tanh":
        return {}
    placed = sharding.shardings(model.abstract()["hidden"], mesh)
    wide = {name: loaded[f"pooler/{name}"] for name in placed}  # [D, H, K] of what is [D, F] here
    return {
        f"hidden/{name}": jax.device_put(x.reshape(model.abstract()["hidden"][name].shape), placed[name])
        for name, x in wide.items()
    }


def shared_part(model, source) -> tuple[str, str, dict] | None:
    """The largest part of `model` that `source` has too: where its parameters are here and there, and their
    ParamSpecs by name; None where there is none."""
    for here, config, specs in parts(model):
        for there, other, whole in parts(source):
            if choices(config) == choices(other) and is_part(specs, whole):
                return here, there, named_leaves(specs)
    return None


def parts(model):
    """(where its parameters are, configuration, ParamSpecs) of a model, of its encoder, of that one's, ..."""
    path, config, specs = "", model.config, model.abstract()
    yield path, config, specs
    while hasattr(config, "encoder"):
        path, config, specs = f"{path}encoder/", config.encoder, specs["encoder"]
        yield path, config, specs


def load_published(folder: Path, model, params: dict, mesh, tokenizer) -> dict:
    """The parameters of `model` with what a published folder has of them; the others are random anew, so that
    `params` are not read."""
    found = huggingface.described(folder)
    theirs = huggingface.tokenizer_of(found)
    if theirs is not None and theirs.digest != tokenizer.digest:
        raise CheckpointError(
            f"{folder} was trained with another vocabulary: its tokens mean other words here; "
            f"--data.vocab-path {folder}"
        )
    ours, there = (getattr(config, "encoder", config) for config in (model.config, found.config))
    if type(ours) is not type(there):
        raise CheckpointError(
            f"{folder} holds a {type(there).__name__}, not the {type(ours).__name__} to start"
        )
    for field in dataclasses.fields(ours):
        one, other = getattr(ours, field.name), getattr(there, field.name)
        if field.name not in KEPT and one != other and ours.dims != there.dims:
            raise CheckpointError(f"{folder} holds another model than the one to start: {there}")
    return huggingface.load_part(found, model, mesh)


def is_part(specs: dict, whole: dict) -> bool:
    """Whether `whole` has every parameter of `specs`, by name, letters and shape, and beside them nothing but
    layers of its own: a layer with a bias is no layer without one."""
    wanted, found = named_leaves(specs), named_leaves(whole)
    beside = found.keys() - wanted.keys()
    return all(found.get(name) == spec for name, spec in wanted.items()) and not any(
        name.split("/")[0] in specs for name in beside
    )
