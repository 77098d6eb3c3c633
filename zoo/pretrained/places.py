"""Where a tensor of a foreign format stands among our arrays, and both ways between the two.

    there                                         here
    bert.encoder.layer.3.output.dense.weight  ->  Place(("blocks/mlp/down/w",), row=3, shape, turned=True)
    h.3.attn.c_attn.weight                    ->  Place((query, key, value), row=3, shape)

Arrays are filled one parameter at a time, from one tensor at a time, and handed on: on the host there is
never more than one of them besides what was handed on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np

from zoo.lettered import ParamSpec
from zoo.pretrained.finite import check_finite
from zoo.pretrained.tensors import check_tensors, named_specs
from zoo.tree import named_leaves, nested

Tensors = Mapping[str, Any]
"""Names to arrays, or to what `np.asarray` makes one of (stored.py)."""


@dataclass(frozen=True)
class Place:
    """One row of some of our arrays, or all of them, is a tensor there."""

    paths: tuple[str, ...]
    """Our arrays; where they are several, they lie side by side along the tensor's outgoing dimension."""
    row: int | tuple[int, ...] | EllipsisType
    """Of arrays stacked over layers (and experts); ... of others, which are meant whole."""
    shape: tuple[int, ...]
    """The tensor's."""
    turned: bool = False
    """Whether a kernel is [out, in] there; ours are [in, out]."""
    groups: int = 1
    """Of what a kernel gives: in each our arrays lie side by side anew, as GPT-NeoX has them head by head."""

    @property
    def outgoing(self) -> int:
        """The dimension of what a kernel gives."""
        return 0 if self.turned else -1


def filled(
    tensors: Tensors,
    places: Mapping[str, Place],
    specs: Mapping[str, ParamSpec],
    dtype: np.dtype,
    put: Callable[[str, np.ndarray], Any],
) -> dict[str, Any]:
    """{path: put(path, array)} of every array that `places` name, shaped as the model stores it.

    Raises CheckpointError for a number that is not finite.
    """
    parts: dict[str, list[tuple[str, int]]] = {}
    for name, place in places.items():
        for number, path in enumerate(place.paths):
            parts.setdefault(path, []).append((name, number))
    arrays = {}
    for path, found in parts.items():
        array = np.zeros(specs[path].shape, dtype)
        for name, number in found:
            room, tensor = specs[path].visible(array)[places[name].row], np.asarray(tensors[name])
            check_finite({name: tensor})
            room[...] = part_of(tensor, places[name], number).reshape(room.shape)
        arrays[path] = put(path, array)
        del array, room, tensor
    return arrays


def part_of(tensor: np.ndarray, place: Place, number: int) -> np.ndarray:
    """What a tensor says of one of its arrays, the way round that we hold it."""
    pieces = np.split(tensor, place.groups * len(place.paths), axis=place.outgoing)[
        number :: len(place.paths)
    ]
    part = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=place.outgoing)
    return part.T if place.turned else part


def tensor_at(place: Place, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The tensor that our arrays (without padding, by their paths) make; zeros for one that is not there."""
    dtype, shape = next(iter(arrays.values())).dtype, list(place.shape)
    shape[place.outgoing] //= len(place.paths)

    def part(path):
        if path not in arrays:
            return np.zeros(shape, dtype)
        array = arrays[path][place.row]
        return array.reshape(shape[::-1]).T if place.turned else array.reshape(shape)

    parts = [part(path) for path in place.paths]
    if len(parts) == 1:
        return parts[0]
    grouped = zip(*(np.split(each, place.groups, axis=place.outgoing) for each in parts), strict=True)
    return np.concatenate([piece for group in grouped for piece in group], axis=place.outgoing)


# --- what every format does with them -------------------------------------------------------------


@dataclass(frozen=True)
class Recognised:
    """The tensors of a file, under the names that a format's `places` has now."""

    tensors: Tensors
    unread: list[str]
    """Parts of the model there that have no place here and are left out on purpose."""
    faults: Mapping[str, list[str]]
    """What else is wrong, by its name: tensors that should be equal and are not."""


def check_fit(found: Recognised, places: Mapping[str, Place], *, what: str) -> None:
    """Raises CheckpointError, one line, where tensors are missing, unexpected, misshapen or at fault."""
    shapes = {name: place.shape for name, place in places.items()}
    check_tensors(
        found.tensors, shapes, what=what, remedy="take the config.json made with them", **found.faults
    )


def dtype_of(tensors: Tensors) -> np.dtype:
    """float64 where any tensor is, else float32."""
    return np.dtype(np.float64 if any(x.dtype == np.float64 for x in tensors.values()) else np.float32)


def whole(found: Recognised, places: Mapping[str, Place], config, *, what: str) -> dict:
    """All parameters as NumPy arrays, in a nested dict. Raises CheckpointError where tensors do not fit."""
    specs = named_specs(config)[0]
    places = {name: place for name, place in places.items() if place.paths[0] in specs}
    check_fit(found, places, what=what)
    dtype = dtype_of(found.tensors)
    return nested(filled(found.tensors, places, specs, dtype, put=lambda path, array: array))


def taken_apart(params, places: Mapping[str, Place], config) -> dict[str, np.ndarray]:
    """{name: tensor} of every place."""
    arrays = visible_arrays(params, config)
    return {name: tensor_at(place, arrays) for name, place in places.items()}


def visible_arrays(params, config) -> dict[str, np.ndarray]:
    """{path: array on the host, without the vocabulary's padding}."""
    leaves = named_leaves(params)
    return {path: spec.visible(np.asarray(leaves[path])) for path, spec in named_specs(config)[0].items()}
