"""Values of a config.json that somebody else wrote: each of the type that it must have, or one line."""

import json
from pathlib import Path
from typing import Any, TypeVar

from zoo import untrusted
from zoo.data.examples.labels import unnamed
from zoo.errors import CheckpointError, first_line

Value = TypeVar("Value", bool, int, float, str)

FILE, ADAPTER_FILE = "config.json", "adapter_config.json"
MOST = 2**31 - 1  # any count of a real model is far below; JAX's own sizes end there
# Of what is made one by one, before any tensor is looked for.
FEWER = dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), untrusted.LAYERS)
FEWER |= dict.fromkeys(("num_local_experts", "num_experts"), untrusted.EXPERTS)
FEWER |= {"num_labels": untrusted.LABELS}


def read_settings(folder: Path, file: str = FILE) -> dict[str, Any]:
    """The object in a folder's config.json, or another such file. CheckpointError where there is none."""
    path = folder / file
    try:
        found = untrusted.json_value(untrusted.contents(path, untrusted.CONFIG))
    except FileNotFoundError:
        remedy = "give a run's folder or a Hugging Face one"
        if (folder / ADAPTER_FILE).is_file():
            remedy = "it holds adapters: give the model that they are for, and this with --adapter"
        raise CheckpointError(f"{folder}: has no {file}; {remedy}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as JSON ({first_line(error)}); fetch it again"
        ) from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds a JSON {type(found).__name__}, not an object; fetch it again")
    return found


def setting(settings: dict[str, Any], name: str, default: Value, file: str = FILE) -> Value:
    """One value, of the type of its default, which stands for an absent one and for null.

    Raises CheckpointError for another type, and for a number that no model has.
    """
    value = settings.get(name)
    if value is None:
        return default
    if type(default) is float and type(value) is int and abs(value) <= MOST:
        value = float(value)
    if type(value) is not type(default):
        expected = {bool: "true or false", int: "an int", float: "a number", str: "text"}[type(default)]
        raise CheckpointError(f"{file}: {name}={json.dumps(value)[:80]}: not {expected}")
    most = FEWER.get(name, MOST)
    if type(value) is int and not 0 <= value <= most:
        raise CheckpointError(f"{file}: {name}={value}: not a size between 0 and {most:,}")
    return value


def object_in(settings: dict[str, Any], name: str, file: str = FILE) -> dict[str, Any]:
    """One value that is an object, empty where it is absent or null."""
    value = settings.get(name) or {}
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: {name}={json.dumps(value)[:80]}: not an object")
    return value


def labels_in(settings: dict[str, Any]) -> tuple[str, ...]:
    """The names of id2label in the order of their numbers; LABEL_0, LABEL_1, ... where it has none."""
    names = settings.get("id2label")
    if names is None:
        return unnamed(setting(settings, "num_labels", 2))
    numbers = [str(n) for n in range(len(names))] if isinstance(names, dict) else []
    if not numbers or set(names) != set(numbers) or not all(isinstance(x, str) for x in names.values()):
        raise CheckpointError(f"{FILE}: id2label is no object of names by the numbers 0, 1, 2, ...; mend it")
    return tuple(names[number] for number in numbers)
