"""Adapters as peft publishes them: adapter_config.json and adapter_model.safetensors, for a base elsewhere.

    params = with_adapter(folder, model, params)      # those of the base, with the adapters merged into them

    base_model.model.transformer.h.3.attn.c_attn.lora_A.weight  A [L, D]     of LoRA (zoo/models/lora.py)
    base_model.model.transformer.h.3.attn.c_attn.lora_B.weight  B [3 D, L]
    base_model.model.classifier.weight                          of a layer that was trained whole

    W [out, in] there becomes W + scale B A, where scale is alpha / L, or alpha / sqrt(L)

Layers have the names that Hugging Face gives those of the base, whose tables (places.py) say where they stand
here. A setting that is not known to leave the numbers as they are is refused: a merge that is slightly wrong
shows nowhere. write_adapter.py has the way back.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import CheckpointError
from zoo.pretrained.architectures import family_of
from zoo.pretrained.finite import check_finite
from zoo.pretrained.huggingface import on_devices
from zoo.pretrained.places import Place, Tensors, part_of
from zoo.pretrained.settings import ADAPTER_FILE as FILE
from zoo.pretrained.settings import read_settings, setting
from zoo.pretrained.stored import StoredTensor, open_file
from zoo.pretrained.tensors import check_tensors, named_specs
from zoo.tree import named_leaves, nested

WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"
PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"

READ = {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "base_model_name_or_path"}
READ |= {"ensure_weight_tying"}
# What changes no number: how adapters were trained, and which layers have them, which tensors' names say.
WITHOUT_EFFECT = {"auto_mapping", "inference_mode", "peft_version", "revision", "task_type", "lora_dropout"}
WITHOUT_EFFECT |= {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"}
WITHOUT_EFFECT |= {"modules_to_save", "fan_in_fan_out", "eva_config"}
WITHOUT_EFFECT |= {"megatron_core", "qalora_group_size"}
ONLY: dict[str, tuple[Any, ...]] = {"peft_type": ("LORA",), "bias": ("none",)}
ONLY["init_lora_weights"] = (True, False, None, "gaussian", "eva", "orthogonal")  # others change the base
WORDS = "tokens/table"
REMEDY = "merge it in peft, merge_and_unload(), and give that folder"


# --- settings -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What adapter_config.json says of the numbers."""

    base: str
    """What the adapters were made for, in their maker's words."""
    rank: int
    alpha: float
    of_root: bool
    """Whether alpha is divided by the root of the rank (rsLoRA)."""
    ranks: Mapping[str, int]
    """Of the layers whose names end so, in the place of `rank`."""
    alphas: Mapping[str, float]
    ties_words: bool
    """Whether words that were trained whole are those of the output layer too, where the base ties them."""

    def rank_of(self, layer: str) -> int:
        return of_layer(layer, self.ranks, self.rank)

    def scale_of(self, layer: str) -> float:
        rank = self.rank_of(layer)
        return of_layer(layer, self.alphas, self.alpha) / (math.sqrt(rank) if self.of_root else rank)


def of_layer(layer: str, pattern: Mapping[str, Any], usual):
    """The value of the first key that the layer's name ends with; a key that begins with ^ is all of it."""
    ends = (key for key in pattern if layer == key.removeprefix("^") or layer.endswith(f".{key}"))
    return pattern.get(next(ends, ""), usual)


def described(folder: Path) -> Settings:
    """The settings of an adapter's folder. Raises CheckpointError where they are not LoRA's, or ask for more
    than a product beside a matmul."""
    if not (folder / FILE).is_file():
        raise CheckpointError(f"{folder}: has no {FILE}; give a folder that peft wrote")
    found = {"peft_type": None} | read_settings(folder, FILE)
    for name, value in found.items():
        known = value in ONLY[name] if name in ONLY else name in READ | WITHOUT_EFFECT
        if not known and (name in ONLY or value not in (None, False, "", [], {})):
            raise CheckpointError(f"{folder}: {FILE}: {name}={value!r:.80} is not read here; {REMEDY}")
    try:
        return Settings(
            base=setting(found, "base_model_name_or_path", "", FILE),
            rank=positive(found, "r", 8),
            alpha=positive(found, "lora_alpha", 8.0),
            of_root=setting(found, "use_rslora", False, FILE),
            ranks=by_layer(found, "rank_pattern", 8),
            alphas=by_layer(found, "alpha_pattern", 8.0),
            ties_words=setting(found, "ensure_weight_tying", False, FILE),
        )
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None


def positive(settings: dict[str, Any], name: str, usual):
    """A rank or an alpha."""
    value = setting(settings, name, usual, FILE)
    if not (value > 0 and math.isfinite(value)):
        raise CheckpointError(f"{FILE}: {name}={value} must be above 0; fetch it again")
    return value


def by_layer(settings: dict[str, Any], name: str, usual) -> dict[str, Any]:
    """A value for each of some ends of names; peft also takes regular expressions, which are refused."""
    pattern = settings.get(name) or {}
    plain = isinstance(pattern, dict) and all(re.fullmatch(r"\^?[\w.]+", key) for key in pattern)
    if not plain:
        raise CheckpointError(f"{FILE}: {name}={pattern!r:.80} is no object of layers' names; {REMEDY}")
    return {key: positive(pattern, key, usual) for key in pattern}


# --- tensors --------------------------------------------------------------------------------------


def with_adapter(folder: Path, model, params) -> dict:
    """`params` of `model` with the adapters of a folder merged into them, every array placed as it was.

    Raises CheckpointError, one line, where the folder is none of peft's, is damaged, holds another kind of
    adapters, or adapters of another model.
    """
    settings, places = described(folder), family_of(model.config).places(model.config)
    specs, leaves = named_specs(model.config)[0], named_leaves(params)
    try:
        given = recognised(opened(folder), places)
        if is_tied(model):
            given = with_words(given, places, settings)
        check_tensors(
            given,
            shapes_of(given, places, settings),
            what=type(model.config).__name__,
            remedy=f"give the model that they were made for, {settings.base or 'which they do not name'}",
        )
        for path, changed in changed_rows(given, places).items():
            array = np.array(leaves[path])
            for name, number in changed:
                room = specs[path].visible(array)[places[name].row]
                change(room, given, settings, name, places[name], number)
            leaves[path] = on_devices(array, leaves[path].sharding)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    return nested(leaves)


def opened(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a folder, not read yet; a pickle is refused."""
    if (folder / WEIGHTS).is_file():
        return open_file(folder / WEIGHTS)
    if (folder / PICKLE).is_file():
        raise CheckpointError(
            f"its weights are a pickle ({PICKLE}), which can run code and is never read; write {WEIGHTS} "
            "once: PeftModel.from_pretrained(base, folder).save_pretrained(another)"
        )
    raise CheckpointError(f"has no {WEIGHTS}; fetch it again")


def recognised(tensors: Mapping[str, StoredTensor], places: Mapping[str, Place]) -> dict[str, StoredTensor]:
    """The tensors under the names of `places`, with A or B behind them: those of adapters that were trained
    on a bare ...Model have no prefix. What is not known keeps its own name."""
    prefixed = {name.partition(".")[2]: name for name in places}
    found: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        inner = name.removeprefix(PREFIX)
        layer, kind = taken_apart(inner)
        weight = f"{layer}.weight" if kind else inner
        weight = weight if weight in places else prefixed.get(weight, weight)
        full = weight.removesuffix(".weight") + kind if kind else weight
        found[name if full in found else full] = tensor
    return found


def is_tied(model) -> bool:
    """Whether a model reads one table of words at both ends."""
    output, names = model.module.output, named_leaves(model.base.abstract())
    letters = output.values() if isinstance(output, Mapping) else (output,)
    return "V" in letters and not any(name.endswith("head/table") for name in names)


def with_words(
    given: dict[str, StoredTensor], places: Mapping[str, Place], settings: Settings
) -> dict[str, StoredTensor]:
    """The tensors for a table that is read at both ends: where it was trained, that must have been meant so,
    as peft otherwise puts a table of its own at the lower end alone."""
    words = [name for name in given if name in places and places[name].paths[0].endswith(WORDS)]
    if not words:
        return given
    if not settings.ties_words:
        raise CheckpointError(
            f"{words[0]} was trained at the lower end alone (ensure_weight_tying is not true), and the model "
            f"reads one table at both; {REMEDY}"
        )
    twins = [name for name in given if name not in places and given[name].shape == given[words[0]].shape]
    for name in twins:
        if not np.array_equal(np.asarray(given[name]), np.asarray(given[words[0]])):
            raise CheckpointError(f"{name} and {words[0]} differ, and should be one table; {REMEDY}")
    return {name: tensor for name, tensor in given.items() if name not in twins}


def taken_apart(name: str) -> tuple[str, str]:
    """The layer of an adapter's tensor and which of the two it is; of any other tensor ("", "")."""
    kind = next((kind for kind in (A, B) if name.endswith(kind)), "")
    return (name.removesuffix(kind), kind) if kind else ("", "")


def shapes_of(
    given: Mapping[str, StoredTensor], places: Mapping[str, Place], settings: Settings
) -> dict[str, tuple[int, ...]]:
    """The shapes that tensors of these names must have, and their other halves; of those with a place."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in given.items():
        layer, kind = taken_apart(name)
        place = places.get(f"{layer}.weight" if kind else name)
        if place is None or kind and not place.paths[0].endswith("/w"):  # no matmul
            continue
        if kind:
            out, into = place.shape if place.turned else place.shape[::-1]
            rank = settings.rank_of(taken_apart(tensor.name)[0].removeprefix(PREFIX))
            shapes |= {layer + A: (rank, into), layer + B: (out, rank)}
        else:
            shapes[name] = place.shape
    return shapes


def changed_rows(given: Iterable[str], places: Mapping[str, Place]) -> dict[str, list[tuple[str, int]]]:
    """{our array: the tensors that change it, each with the number of its part}."""
    changed: dict[str, dict[tuple[str, int], None]] = {}
    for name in given:
        layer, kind = taken_apart(name)
        weight = f"{layer}.weight" if kind else name
        for number, path in enumerate(places[weight].paths):
            changed.setdefault(path, {})[weight, number] = None
    return {path: list(rows) for path, rows in changed.items()}


def change(room, given: Tensors, settings: Settings, name: str, place: Place, number: int) -> None:
    """Puts what the tensors say of one row of our arrays into it: other numbers, or a sum."""
    layer = name.removesuffix(".weight")
    if name in given:
        room[...] = part_of(numbers(given[name]), place, number).reshape(room.shape)
    if layer + A in given:
        scale = settings.scale_of(taken_apart(given[layer + A].name)[0].removeprefix(PREFIX))
        product = scale * (numbers(given[layer + B]) @ numbers(given[layer + A]))
        room += part_of(product if place.turned else product.T, place, number).reshape(room.shape)


def numbers(tensor: StoredTensor) -> np.ndarray:
    """A tensor that has been read, and is finite."""
    array = np.asarray(tensor)
    check_finite({tensor.name: array})
    return array
