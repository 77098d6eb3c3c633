"""Folders as Hugging Face publishes models: config.json, model.safetensors or shards, a tokenizer's files.

    found  = described(folder)                    # configuration and names; no weights are read
    params = load(found, model, mesh)             # all of them
    params = load_part(found, model, mesh)        # what of them another head can use

Nothing is unpickled and no code of a folder is run. Weights are read one tensor at a time into one of our
arrays at a time, which goes to its devices before the next one is begun.
"""

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from zoo import models, sharding
from zoo.data import load_tokenizer
from zoo.data.examples.labels import unnamed
from zoo.data.tokenizers import holds_tokenizer
from zoo.data.tokenizers.marks import ends_of
from zoo.data.tokenizers.published import write_template
from zoo.errors import CheckpointError, ConfigError, UserError
from zoo.pretrained.architectures import Architecture, architecture_of, config_of, exported, settings_of
from zoo.pretrained.places import Place, Recognised, check_fit, dtype_of, filled, tensor_at, visible_arrays
from zoo.pretrained.settings import labels_in, read_settings, setting
from zoo.pretrained.stored import new_folder, open_tensors, write_shards
from zoo.pretrained.tensors import listed, named_specs
from zoo.tree import named_leaves, nested

SHARD_SIZE = 5 * 10**9  # bytes, as transformers divides
SINGLE_LABEL, REGRESSION = "single_label_classification", "regression"


@dataclass(frozen=True)
class Described:
    """What a folder's config.json says."""

    folder: Path
    architecture: Architecture
    config: Any
    """Of our model."""
    labels: tuple[str, ...]
    """Names of classes or tags; empty for a language model."""
    problem_type: str
    """Of a classifier: what its logits mean."""


def described(folder: Path) -> Described:
    """What is in a Hugging Face folder. Raises CheckpointError where it is nothing that we have."""
    settings = read_settings(folder)
    try:
        architecture = architecture_of(settings)
        config = config_of(settings, architecture)
        if getattr(config, "encoder", config).vocab_size < 1:
            raise CheckpointError("config.json: vocab_size=0: a model without words; fetch it again")
        has_names = architecture.head in ("classes", "tags")
        labels = labels_in(settings) if has_names else ()
        kind = setting(settings, "problem_type", SINGLE_LABEL if len(labels) != 1 else REGRESSION)
    except UserError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    return Described(folder, architecture, config, labels, kind if architecture.head == "classes" else "")


def tokenizer_of(found: Described):
    """The tokenizer of a published folder, None where it holds none.

    Raises CheckpointError where it has more words than the model, or fewer than one that is no decoder: their
    tables are often rounded up.
    """
    if not holds_tokenizer(found.folder):
        print(f"{found.folder}: holds no tokenizer", file=sys.stderr)
        return None
    tokenizer = load_tokenizer(found.folder)
    if not has_a_row_for_each(found.config, tokenizer):
        raise CheckpointError(
            f"{found.folder}: its {tokenizer.name} vocabulary has {tokenizer.vocab_size:,} pieces, and the "
            f"model's table {found.config.vocab_size:,}; take both from one source"
        )
    return tokenizer


def has_a_row_for_each(config, tokenizer) -> bool:
    """Whether a model's table fits a vocabulary."""
    left = config.vocab_size - tokenizer.vocab_size
    return left == 0 or left > 0 and "causal" in models.module_of(config).traits


# --- reading --------------------------------------------------------------------------------------


LANGUAGE_HEAD = ("transform", "transform_norm", "bias", "head")  # what features do not need


def load(found: Described, model, mesh) -> dict:
    """The parameters of a folder's own model, on `mesh`; what is not read or begins at random is said on
    stderr: the head for words, where the folder holds a bare ...Model."""
    return read_params(found, model, mesh, LANGUAGE_HEAD if found.architecture.head == "none" else ())


def load_part(found: Described, model, mesh) -> dict:
    """The parameters of `model`, a head over the folder's encoder or the language model itself, with what the
    folder has of them; the rest begins at random, which is said on stderr."""
    own = [name for name in model.abstract() if name != "encoder"]
    return read_params(found, model, mesh, own if hasattr(model.config, "encoder") else LANGUAGE_HEAD)


def read_params(found: Described, model, mesh, spare: Collection[str]) -> dict:
    """The parameters of `model` on `mesh`. Those of its parts in `spare` that the folder has not, or in
    another shape, begin at random.

    Raises CheckpointError, one line, for all tensors that are missing, unexpected or misshapen otherwise.
    """
    tensors = open_counted(found)
    family, specs = found.architecture.family, named_specs(model.config)[0]
    placed = named_leaves(sharding.shardings(model.abstract(), mesh))
    try:
        given = family.recognised(tensors, model.config)
        places = {name: at for name, at in family.places(model.config).items() if at.paths[0] in specs}
        usable = given.tensors.keys() - of_another_head(found, model.config)
        sound = {
            name for name in usable & places.keys() if np.shape(given.tensors[name]) == places[name].shape
        }
        fresh = sorted(lacking(sound, places, specs).intersection(spare))
        wanted = {name: at for name, at in places.items() if part(at.paths[0]) not in fresh}
        left = family.places(found.config).keys() - wanted.keys()  # of the folder's own model alone
        known = {name: x for name, x in given.tensors.items() if name not in left}
        check_fit(Recognised(known, given.unread, given.faults), wanted, what=type(model.config).__name__)
        dtype = dtype_of(known) if jax.config.read("jax_enable_x64") else np.dtype(np.float32)
        arrays = filled(known, wanted, specs, dtype, lambda path, array: on_devices(array, placed[path]))
    except CheckpointError as error:
        raise CheckpointError(f"{found.folder}: {error}") from None
    new = [path for path in specs if part(path) in fresh]
    arrays |= {path: on_devices(array, placed[path]) for path, array in random_values(model, new).items()}
    tell(found, fresh, unread=[*given.unread, *sorted(left.intersection(given.tensors))])
    return nested({path: arrays[path] for path in specs})


def open_counted(found: Described):
    """A folder's tensors, not read yet. CheckpointError where they are fewer than the model has layers, whose
    names would be so many that no list of them could be made."""
    tensors = open_tensors(found.folder)
    encoder = getattr(found.config, "encoder", found.config)
    num_experts = getattr(getattr(encoder, "experts", None), "num_experts", 0)
    if encoder.num_layers * max(num_experts, 1) > len(tensors):
        experts = f" of {num_experts} experts" * bool(num_experts)
        raise CheckpointError(
            f"{found.folder}: config.json: {encoder.num_layers} layers{experts}, but its files hold "
            f"{len(tensors)} tensors; take the config.json made with them"
        )
    return tensors


def check_shapes(found: Described) -> None:
    """CheckpointError where a tensor has not the shape that config.json gives it: for whoever makes a model
    of these sizes before the tensors are read, which may be more than any memory holds."""
    tensors, family = open_counted(found), found.architecture.family
    try:
        given, places = family.recognised(tensors, found.config), family.places(found.config)
        both = given.tensors.keys() & places.keys()
        known = Recognised({name: given.tensors[name] for name in both}, [], {})
        check_fit(known, {name: places[name] for name in both}, what=type(found.config).__name__)
    except CheckpointError as error:
        raise CheckpointError(f"{found.folder}: {error}") from None


def of_another_head(found: Described, config) -> set[str]:
    """The tensors of the folder's own head, where it is another than the one to be read: their names may be
    the same (classes of a text, tags of its words) and mean another layer."""
    if type(found.config) is type(config) or not hasattr(found.config, "encoder"):
        return set()
    places = found.architecture.family.places(found.config)
    return {name for name, at in places.items() if part(at.paths[0]) != "encoder"}


def lacking(sound: Collection[str], places: Mapping[str, Place], specs: Collection[str]) -> set[str]:
    """The parts of a model that these tensors do not fill."""
    parts = {part(at.paths[0]) for name, at in places.items() if name not in sound}
    return parts | ({part(path) for path in specs} - {part(at.paths[0]) for at in places.values()})


def part(path: str) -> str:
    """encoder/blocks/mlp/up/w -> encoder"""
    return path.partition("/")[0]


def on_devices(array, placement):
    """The array where it is to be, and done with here."""
    return jax.block_until_ready(
        jax.make_array_from_callback(array.shape, placement, lambda index: array[index])
    )


def random_values(model, paths: Sequence[str]) -> dict[str, np.ndarray]:
    """First values of a few parameters; the others are never computed."""

    @jax.jit
    def some(key):
        leaves = named_leaves(model.init(key))
        return {path: leaves[path] for path in paths}

    return jax.device_get(some(jax.random.key(0))) if paths else {}


def tell(found: Described, fresh: Sequence[str], unread: Sequence[str]) -> None:
    """What a reader of logits must know, on stderr."""
    if unread:
        print(f"{found.folder}: not read: {listed(list(unread))}", file=sys.stderr)
    if fresh:
        print(f"{found.folder}: not in it, random at first: {', '.join(fresh)}", file=sys.stderr)


# --- writing --------------------------------------------------------------------------------------


def save(
    folder: Path,
    model,
    params,
    tokenizer,
    *,
    labels: Sequence[str] = (),
    problem_type: str = SINGLE_LABEL,
    chat_template: str = "",
    max_shard_size: int = SHARD_SIZE,
) -> None:
    """Writes a folder that transformers and `described` read, whole or not at all.

    `labels` are the names of classes or tags, LABEL_0, LABEL_1, ... where none are given. Raises ConfigError
    for a model that has no class there or another number of labels, StorageError where the folder is not
    empty or cannot be written.
    """
    architecture, _ = exported(model.config)
    if max_shard_size < 1:
        raise ConfigError(f"max_shard_size={max_shard_size} must be at least 1 byte")
    if tokenizer is not None and not has_a_row_for_each(model.config, tokenizer):
        raise ConfigError(
            f"the model has {model.config.vocab_size:,} words and this {tokenizer.name} tokenizer "
            f"{tokenizer.vocab_size:,}; give the model's own"
        )
    settings = settings_of(model.config, names_for(model.config, labels), problem_type)
    settings |= marks_for(model, tokenizer)
    arrays = visible_arrays(params, model.config)
    places = architecture.family.places(model.config)
    size = next(iter(arrays.values())).dtype.itemsize
    sizes = {name: size * int(np.prod(place.shape)) for name, place in places.items()}
    with new_folder(folder) as partial:
        (partial / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        write_shards(partial, sizes, lambda name: tensor_at(places[name], arrays), max_shard_size)
        if tokenizer is not None:
            publish(tokenizer, partial, model.config)
        if chat_template:
            write_template(partial, chat_template)


def marks_for(model, tokenizer) -> dict[str, Any]:
    """config.json's tokens that begin, end and pad a text, which `generate` of transformers goes by."""
    if tokenizer is None or "causal" not in model.traits:
        return {}
    ends = list(ends_of(tokenizer))
    marks = {"bos_token_id": tokenizer.bos, "pad_token_id": getattr(tokenizer, "pad", None)}
    marks["eos_token_id"] = ends if len(ends) > 1 else tokenizer.eot
    return {name: mark for name, mark in marks.items() if mark is not None}


def names_for(config, labels: Sequence[str]) -> tuple[str, ...]:
    """The names of classes or tags, as many as the model has and no two alike."""
    count = getattr(config, "num_classes", getattr(config, "num_tags", 0))
    names = tuple(labels) or unnamed(count)
    if len(names) != count or len(set(names)) != count:
        raise ConfigError(f"{len(set(names))} different labels for a model of {count}; give as many")
    return names


def publish(tokenizer, folder: Path, config) -> None:
    """A tokenizer's files as its kind is published, else as a run keeps them, for transformers has none."""
    if not hasattr(tokenizer, "publish"):
        print(f"transformers has no tokenizer of the kind {tokenizer.name}; zoo has", file=sys.stderr)
        tokenizer.save(folder)
        return
    encoder = getattr(config, "encoder", config)
    types = ["token_type_ids"] if getattr(encoder, "num_token_types", 0) > 1 else []
    inputs = ["input_ids", *types, "attention_mask"]
    tokenizer.publish(folder, model_max_length=encoder.max_length, model_input_names=inputs)
