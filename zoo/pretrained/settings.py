"""Values of a config.json that somebody else wrote: each of the type that it must have, or one line."""

import json
from pathlib import Path
from typing import Any, TypeVar

from zoo.data.examples.labels import unnamed
from zoo.errors import CheckpointError, first_line

Value = TypeVar("Value", bool, int, float, str)

FILE, ADAPTER_FILE = "config.json", "adapter_config.json"
MOST = 2**31 - 1  # any count of a real model is far below; JAX's own sizes end there


def read_settings(folder: Path, file: str = FILE) -> dict[str, Any]:
    """The object in a folder's config.json, or another such file. CheckpointError where there is none."""
    path = folder / file
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        remedy = "give a run's folder or a Hugging Face one"
        if (folder / ADAPTER_FILE).is_file():
            remedy = "it holds adapters: give the model that they are for, and this with --adapter"
        raise CheckpointError(f"{folder}: has no {file}; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
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
    if type(default) is float and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        expected = {bool: "true or false", int: "an int", float: "a number", str: "text"}[type(default)]
        raise CheckpointError(f"{file}: {name}={json.dumps(value)[:80]}: not {expected}")
    if type(value) is int and not 0 <= value <= MOST:
        raise CheckpointError(f"{file}: {name}={value}: not a size between 0 and {MOST:,}")
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
