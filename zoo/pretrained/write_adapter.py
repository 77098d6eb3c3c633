"""Adapters written as peft reads them; adapter.py has the format.

    export_adapter("runs/lora", "out")
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "out")      # in Python, with peft

Where one layer there is several here (query, key and value of GPT-2's c_attn), their adapters become one, of
the sum of their ranks, which computes the same:

    x (A_q A_v) (B_q  0   0 )  =  (x A_q B_q    0    x A_v B_v)
                ( 0   0  B_v)

Layers that were trained whole are written whole, with the adapters that they had merged into them: a head's,
even where it stayed as it was, for no base has it.
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from zoo import models
from zoo.data.tokenizers.published import read_template, write_template
from zoo.errors import CheckpointError, ConfigError
from zoo.mesh import MeshConfig, make_mesh
from zoo.models.lora import A as ADAPTER_A
from zoo.models.lora import B as ADAPTER_B
from zoo.models.lora import frozen_beside, head_of, is_adapter, with_lora
from zoo.pretrained.adapter import FILE, PREFIX, WEIGHTS, A, B
from zoo.pretrained.architectures import exported
from zoo.pretrained.hub import PREFIX as HUB
from zoo.pretrained.hub import local
from zoo.pretrained.places import Place, tensor_at, visible_arrays
from zoo.pretrained.runs import is_run, stored_params
from zoo.pretrained.stored import new_folder
from zoo.pretrained.tensors import write_tensors
from zoo.run import recipe_of
from zoo.tree import named_leaves

TASKS = {"classes": "SEQ_CLS", "tags": "TOKEN_CLS", "spans": "QUESTION_ANS"}
WORDS = ("tokens/table", "head/table")


def export_adapter(name: str | os.PathLike, folder: str | os.PathLike) -> int:
    """Writes the adapters of a run to a new folder, whole or not at all, and beside them the chat template
    that they were trained by, if there was one; returns how many numbers they are.

    Raises CheckpointError where the run has none, ConfigError for what the format cannot say, StorageError
    where the folder is not empty or cannot be written.
    """
    source = local(name)
    recipe = recipe_of(source) if is_run(source) else None
    if recipe is None or not recipe.lora.rank:
        raise CheckpointError(f"{name} holds no adapters; --format hf writes whole models")
    if recipe.vectors:
        raise ConfigError(
            f"{name}: its words began as vectors={recipe.vectors}, which {recipe.init} has not; --format hf "
            "writes whole models"
        )
    model = with_lora(models.create(recipe.model), recipe.lora)
    mesh = make_mesh(MeshConfig(data=1), jax.local_devices()[:1])
    settings, tensors = as_published(model, stored_params(source, recipe, model, mesh))
    settings["base_model_name_or_path"] = recipe.init.removeprefix(HUB)
    with new_folder(Path(folder)) as partial:
        (partial / FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        write_tensors(partial / WEIGHTS, tensors)
        if template := read_template(source / "tokenizer"):
            write_template(partial, template)
    return sum(tensor.size for tensor in tensors.values())


def as_published(model, params) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The content of adapter_config.json, but for the base's name, and the tensors."""
    architecture, _ = exported(model.config)
    places = architecture.family.places(model.config)
    whole = trained_whole(model, places)
    arrays = visible_arrays(model.merged(params), model.config)
    tensors = {name: tensor_at(place, arrays) for name, place in places.items() if layer_of(name) in whole}
    adapters = {name: spec.visible(np.asarray(x)) for name, x, spec in adapters_of(model, params)}
    ranks = {}
    for name, place in places.items():
        layer = layer_of(name)
        if layer not in whole and (pair := fused(place, adapters)):
            tensors[layer + A], tensors[layer + B] = pair
            ranks[layer] = len(pair[0])
    if not ranks:
        raise ConfigError("every layer with an adapter was trained whole; --format hf writes whole models")
    layers = {layer_of(name) for name in places}
    settings = settings_of(model, architecture, ranks, layers) | {"modules_to_save": grown(whole, layers)}
    return dict(sorted(settings.items())), {PREFIX + name: x for name, x in tensors.items()}


def layer_of(tensor: str) -> str:
    """h.3.attn.c_attn.weight -> h.3.attn.c_attn"""
    return tensor.rpartition(".")[0]


def adapters_of(model, params):
    """(name, array, ParamSpec) of every half of an adapter."""
    leaves, specs = named_leaves(params), named_leaves(model.abstract())
    return [(name, leaves[name], specs[name]) for name in specs if is_adapter(name)]


def trained_whole(model, places: Mapping[str, Place]) -> set[str]:
    """The layers there that hold a parameter which was trained beside the adapters, or belongs to a head."""
    names = [name for name in named_leaves(model.abstract()) if not is_adapter(name)]
    trained = set(names) - frozen_beside(model.lora, names) | set(head_of(names))
    for path in sorted(trained):
        if path == "bias" or path.endswith(WORDS):
            raise ConfigError(
                f"{path} was trained too, which may be read at both ends of a model, and would be two in "
                "peft; --format hf writes whole models"
            )
    return {layer_of(name) for name, place in places.items() if trained.intersection(place.paths)}


def fused(place: Place, adapters: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """A [L, in] and B [out, L] of a tensor's layer; None where none of its arrays has an adapter."""
    bases = [path.removesuffix("w") for path in place.paths if path.removesuffix("w") + ADAPTER_A in adapters]
    if not bases:
        return None
    rank = adapters[bases[0] + ADAPTER_A].shape[-1]
    a = np.concatenate([adapters[base + ADAPTER_A][place.row].reshape(-1, rank).T for base in bases])
    b = {}
    for number, base in enumerate(bases):
        half = adapters[base + ADAPTER_B][place.row].reshape(rank, -1)
        b[f"{base}w"] = np.zeros((len(a), half.shape[1]), half.dtype)
        b[f"{base}w"][number * rank : (number + 1) * rank] = half
    out = place.shape[place.outgoing]
    side_by_side = Place(place.paths, ..., (len(a), out), groups=place.groups)
    return a, tensor_at(side_by_side, b).T


# --- settings -------------------------------------------------------------------------------------


def settings_of(model, architecture, ranks: Mapping[str, int], layers: Collection[str]) -> dict[str, Any]:
    """What adapter_config.json says of layers whose adapters have these ranks; scales are the run's."""
    lora = model.lora
    named = ends_of(ranks, layers)
    others = {end: ranks[layer] for layer, end in named.items() if ranks[layer] != lora.rank}
    power = 1.0 if lora.scaling == "rank" else 0.5
    task = "CAUSAL_LM" if "causal" in model.traits else TASKS.get(architecture.head)
    return {
        "peft_type": "LORA",
        "task_type": task,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "use_rslora": lora.scaling == "root",
        "rank_pattern": others,
        "alpha_pattern": {end: lora.scale * rank**power for end, rank in others.items()},
        "target_modules": sorted(set(named.values())),
        "lora_dropout": lora.dropout_rate,
        "fan_in_fan_out": architecture.model_type == "gpt2",  # its Conv1D are [in, out]
        "bias": "none",
        "inference_mode": True,
    }


def ends_of(adapted: Collection[str], layers: Collection[str]) -> dict[str, str]:
    """The shortest end of each layer's name that is no other layer's, but of adapted ones: q_proj. peft finds
    layers by ends."""
    alike = Counter(end for layer in layers if layer not in adapted for end in ends(layer))
    return {layer: next(end for end in ends(layer) if not alike[end]) for layer in adapted}


def ends(layer: str) -> list[str]:
    """a.b.c -> c, b.c, a.b.c"""
    parts = layer.split(".")
    return [".".join(parts[i:]) for i in reversed(range(len(parts)))]


def grown(whole: Collection[str], layers: Collection[str]) -> list[str] | None:
    """The largest modules that are whole: "classifier", not "classifier.dense" and "classifier.out_proj",
    as peft knows heads by their first names. None where there are none."""
    found = set()
    for layer in whole:
        above = [end for end in parents(layer) if all(x in whole for x in layers if x.startswith(f"{end}."))]
        found.add(above[-1] if above else layer)
    return sorted(found) or None


def parents(layer: str) -> list[str]:
    """a.b.c -> a.b, a"""
    parts = layer.split(".")
    return [".".join(parts[:i]) for i in range(len(parts) - 1, 0, -1)]
