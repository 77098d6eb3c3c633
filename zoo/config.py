"""What a frozen dataclass says about itself: its fields, its JSON form, and how two forms differ.

The JSON form (`runs/NAME/config.json`) is a closed schema. Every value round trips exactly, an
unknown key is refused with the nearest name, and a missing one takes the field's default, so old
runs stay readable. A nested dataclass names its class ("type"), which a reader looks up among the
classes that the field's annotation allows.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal, TypeVar, cast

from zoo.errors import ConfigError, nearest

Config = TypeVar("Config")


def to_json(config: Any) -> dict[str, Any]:
    """Every field of `config` as plain JSON values; a nested dataclass names its class in "type"."""
    return {name: plain(getattr(config, name)) for name in annotations(type(config))}


def plain(value: Any) -> Any:
    """A field's value as JSON has it."""
    if is_config(value):
        return {"type": type(value).__name__} | to_json(value)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # "inf", "-inf" or "nan": JSON has no such numbers, `read` takes them back
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a recipe holds {value!r}, a {type(value).__name__}, which has no JSON form")


def from_json(data: Any, cls: type[Config], classes: Iterable[type] = ()) -> Config:
    """The `cls` that `to_json` wrote.

    A "type" is looked up among the dataclasses that the field's annotation names, or in
    `classes` where the annotation names none; a file cannot make us build anything else.
    """
    return read_config(data, {cls.__name__: cls}, "", {made.__name__: made for made in classes})


def read_config(data: Any, table: Mapping[str, Any], path: str, classes: Mapping[str, type]) -> Any:
    """One of the classes in `table` from a JSON object; `path` names it in errors."""
    group = path.rstrip(".") or "config"
    if not isinstance(data, dict):
        raise ConfigError(f"{group}={json.dumps(data)}: not an object with named fields")
    name = data.get("type", next(iter(table)) if len(table) == 1 else "")
    if not isinstance(name, str) or name not in table:
        raise ConfigError(f"{path}type={name!r}: not one of {', '.join(table)}{nearest(str(name), table)}")
    cls, fields = table[name], annotations(table[name])
    unknown = sorted(set(data) - set(fields) - {"type"})
    if unknown:
        raise ConfigError(f"{path}{unknown[0]}: {name} has no such field{nearest(unknown[0], fields)}")
    for field in dataclasses.fields(cls):
        if field.name in fields and field.name not in data and is_required(field):
            raise ConfigError(f"{path}{field.name}: missing, and {name} has no default for it")
    values = {key: read(data[key], fields[key], path + key, classes) for key in fields if key in data}
    return build(cls, values, path)


def read(value: Any, annotation: Any, path: str, classes: Mapping[str, type]) -> Any:
    """One JSON value as the annotation wants it; raises ConfigError where it does not fit."""
    kinds = alternatives(annotation)
    named = [cast(type, kind) for kind in kinds if dataclasses.is_dataclass(kind)]
    table = {cls.__name__: cls for cls in named} or {
        name: cls for name, cls in classes.items() if Any in kinds or set(cls.__mro__) & set(kinds)
    }
    if isinstance(value, dict) and table:
        return read_config(value, table, f"{path}.", classes)
    for kind in kinds:
        if typing.get_origin(kind) is tuple and isinstance(value, list):
            inner = typing.get_args(kind)
            inner = inner[:1] * len(value) if inner[1:] == (Ellipsis,) else inner
            if len(inner) == len(value):
                return tuple(
                    read(item, each, f"{path}[{i}]", classes)
                    for i, (item, each) in enumerate(zip(value, inner, strict=True))
                )
        if type(value) is kind or kind is Any or (value is None and kind is types.NoneType):
            return value
        if typing.get_origin(kind) is Literal and any(
            value == each and type(value) is type(each) for each in typing.get_args(kind)
        ):
            return value
    if float in kinds and (type(value) is int or value in ("inf", "-inf", "nan")):
        return float(value)
    raise ConfigError(
        f"{path}={json.dumps(value)}: not {expected(annotation)}{nearest(str(value), literals(annotation))}"
    )


def semantic_differences(
    old: Mapping[str, Any], new: Mapping[str, Any], exempt: Collection[str] = ()
) -> list[str]:
    """'field: old -> new' for every field that differs between two JSON forms.

    `exempt` holds dotted paths; a group's path exempts all that is in it. Groups of two classes
    differ as a whole ("optimizer: AdamW -> Muon").
    """
    found = []
    for name in [*old, *(name for name in new if name not in old)]:
        before, after = old.get(name, ABSENT), new.get(name, ABSENT)
        if name in exempt or before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict) and before.get("type") == after.get("type"):
            below = {path.removeprefix(f"{name}.") for path in exempt if path.startswith(f"{name}.")}
            found += [f"{name}.{line}" for line in semantic_differences(before, after, below)]
        else:
            found.append(f"{name}: {brief(before)} -> {brief(after)}")
    return found


ABSENT = object()


def brief(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    return str(value.get("type", value)) if isinstance(value, dict) else json.dumps(value)


def build(make: Callable[..., Config], values: Mapping[str, Any], path: str) -> Config:
    """`make(**values)`; what its validation refuses becomes one line that begins with the field."""
    try:
        return make(**values)
    except ValueError as error:
        group = path.rstrip(".")
        raise ConfigError(" ".join(f"{group}: {error}".removeprefix(": ").split())) from error


# What an annotation says.


def annotations(cls: Any) -> dict[str, Any]:
    """{name: resolved annotation} of the fields that the constructor takes, in order."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; anything else is its own only member."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def literals(annotation: Any) -> list[str]:
    """The texts that a Literal among the alternatives allows."""
    kinds = [kind for kind in alternatives(annotation) if typing.get_origin(kind) is Literal]
    return [str(each) for kind in kinds for each in typing.get_args(kind)]


def expected(annotation: Any) -> str:
    """What a value must be, to follow 'not': an int; one of a, b; 2 values: a number, a number."""
    words = {int: "an int", float: "a number", str: "text", bool: "true or false", types.NoneType: "None"}
    texts = []
    for kind in alternatives(annotation):
        inner = typing.get_args(kind)
        if typing.get_origin(kind) is Literal:
            texts.append(f"one of {', '.join(map(str, inner))}")
        elif typing.get_origin(kind) is tuple and inner[1:] != (Ellipsis,):
            texts.append(f"{len(inner)} values: {', '.join(map(expected, inner))}")
        elif typing.get_origin(kind) in (tuple, list):
            texts.append(f"values that are each {expected(inner[0])}")
        else:
            texts.append(words.get(kind) or str(getattr(kind, "__name__", kind)))
    return " or ".join(texts)


def is_config(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
