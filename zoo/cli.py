"""The command line of a recipe: `train.py RECIPE --steps 30 --mesh.fsdp 4 --optimizer muon`.

A recipe is a frozen dataclass of frozen dataclasses, and every leaf of it is a flag with a dotted
name; `--save-every` and `--save_every` are the same flag. tyro converts the values and prints
`--help` (every field with the text below it). tyro's error boxes are never shown: what a user can
fix is one line with the nearest name, raised as ConfigError before any device starts.
"""

import contextlib
import copy
import dataclasses
import functools
import inspect
import io
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import tyro

from zoo.config import alternatives, annotations, build, expected, is_config, literals
from zoo.errors import ConfigError, nearest

Config = TypeVar("Config")
Choices = Mapping[str, Mapping[str, Any]]  # {field: {option: a config, or what makes one}}

FLAG = re.compile(r"(--?[A-Za-z][\w.-]*)(?:=(.*))?", re.DOTALL)  # -1, -0.5 and "- a prompt" are values


def parse(
    argv: Sequence[str],
    configs: Mapping[str, Config],
    choices: Choices,
    *,
    default: str = "gpt_stdlib",
    prog: str = "train.py",
    beside: Sequence[str] = (),
) -> Config:
    """The recipe that `argv` (without the program's name) describes.

        train.py gpt2 --optimizer muon --optimizer.learning-rate 0.02 --mesh.fsdp 4 --name=a
                 ^     ^                ^
                 |     |                dotted overrides come last, wherever they stand
                 |     an option of choices["optimizer"] takes the field's place, with its defaults
                 the recipe, first or not at all (then `default`)

    Raises ConfigError with one line; `--help` prints the fields of the recipe as it stands after
    the choices, with lines on flags `beside` them, and exits with 0.
    """
    positionals, flags = split(argv)
    if len(positionals) > 1:
        raise ConfigError(f"unexpected argument {positionals[1]!r}; a field is set by --field value")
    name = positionals[0] if positionals else default
    if name not in configs:
        hint = nearest(name, configs) or f"; the recipes are {', '.join(configs)}"
        raise ConfigError(f"{name!r} is not a recipe{hint}")

    recipe = choose(
        configs[name], {path: flags.pop(path) for path in list(flags) if path in choices}, choices
    )
    if "help" in flags:
        show_help(recipe, configs, choices, prog=f"{prog} {name}", beside=beside)
    known = leaves(recipe)
    changes = {}
    for path, (flag, values) in flags.items():
        path, values = positive(path, values, known)
        if path not in known:
            raise ConfigError(f"{flag}: {unknown_field(path, recipe, known, choices)}")
        if path in changes:
            raise ConfigError(f"{flag}: given twice")
        changes[path] = convert(flag, known[path], values)
    return rebuild(recipe, changes)


def split(argv: Sequence[str]) -> tuple[list[str], dict[str, tuple[str, list[str]]]]:
    """Leading positionals, then {path: (flag as typed, its values)}; paths are spelled with `_`."""
    positionals: list[str] = []
    flags: dict[str, tuple[str, list[str]]] = {}
    values = positionals
    for token in argv:
        match = FLAG.fullmatch(token)
        if not match:
            values.append(token)
            continue
        flag, value = match.groups()
        path = "help" if flag == "-h" else flag.lstrip("-").replace("-", "_")
        if path in flags:
            raise ConfigError(f"{flag}: given twice")
        if not flag.startswith("--") and path != "help":
            raise ConfigError(f"{flag}: a field is set with two dashes; write -{flag}")
        values = [] if value is None else [value]
        flags[path] = (flag, values)
    return positionals, flags


def choose(recipe: Config, chosen: Mapping[str, tuple[str, list[str]]], choices: Choices) -> Config:
    """`recipe` with each chosen field replaced by that option, a class standing for its defaults.

    It is not validated yet: a dotted override may be what makes the combination sound.
    """
    recipe = copy.copy(recipe)
    for path, (flag, values) in chosen.items():
        if len(values) != 1 or values[0] not in choices[path]:
            given = f"={' '.join(values)}: not" if values else ": needs"
            hint = nearest(values[0], choices[path]) if values else ""
            raise ConfigError(f"{flag}{given} one of {', '.join(choices[path])}{hint}")
        object.__setattr__(recipe, path, ready(choices[path][values[0]]))
    return recipe


def ready(option: Any) -> Any:
    return option if is_config(option) else option()


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """{dotted path: annotation} of everything below `config` that a flag can set."""
    found: dict[str, Any] = {}
    for name, annotation in annotations(type(config)).items():
        value = getattr(config, name)
        if is_config(value):
            found |= leaves(value, f"{prefix}{name}.")
        elif not any(map(dataclasses.is_dataclass, alternatives(annotation))):
            found[prefix + name] = annotation
    return found


def positive(path: str, values: list[str], known: Mapping[str, Any]) -> tuple[str, list[str]]:
    """A bare switch spelled out: `--data.shuffle` is true, `--data.no-shuffle` is false."""
    group, _, name = path.rpartition(".")
    yes = f"{group}.{name.removeprefix('no_')}".lstrip(".")
    if path not in known and name.startswith("no_") and bool in alternatives(known.get(yes)) and not values:
        return yes, ["false"]
    if bool in alternatives(known.get(path)) and not values:
        return path, ["true"]
    return path, values


def unknown_field(path: str, recipe: Any, known: Mapping[str, Any], choices: Choices) -> str:
    """Why `path` is no field: the choice that would have it, or the nearest name that exists."""
    group, _, name = path.rpartition(".")
    for option, config in choices.get(group, {}).items():
        if name in annotations(type(ready(config))):
            return f"{type(getattr(recipe, group)).__name__} has no such field; --{group} {option} has"
    inside = [f"--{other.replace('_', '-')}" for other in known if other.startswith(f"{path}.")]
    if inside:
        return f"a group of fields; set {', '.join(inside[:3])}{' ...' if inside[3:] else ''}"
    same_end = [other for other in known if other.rpartition(".")[2] == name]
    names = [other.replace("_", "-") for other in same_end or [*known, *choices]]
    if len(same_end) == 1:
        return f"no such field; did you mean '--{names[0]}'?"
    hint = nearest(path.replace("_", "-"), names).replace("'", "'--", 1)
    return f"no such field{hint or '; --help lists them all'}"


def convert(flag: str, annotation: Any, values: list[str]) -> Any:
    """The value of one flag, by tyro's reading of the annotation."""
    kinds = alternatives(annotation)
    many = any(typing.get_origin(kind) in (tuple, list) for kind in kinds)
    if not values and not many:
        raise ConfigError(f"{flag}: needs a value, {expected(annotation)}")
    if len(values) > 1 and not many:
        raise ConfigError(
            f"unexpected argument {values[1]!r} after {flag}; a recipe's name comes first of all"
        )
    if bool in kinds:  # tyro makes a switch of it and would not take a value
        values = [value.capitalize() if value.lower() in ("true", "false") else value for value in values]
    leaf = dataclasses.make_dataclass("Leaf", [("value", annotation)])
    arguments = [f"--value={values[0]}"] if len(values) == 1 else ["--value", *values]
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return tyro.cli(leaf, args=arguments, config=(tyro.conf.FlagConversionOff,)).value
    except SystemExit:
        hint = nearest(values[0], literals(annotation)) if len(values) == 1 else ""
        raise ConfigError(f"{flag}={' '.join(values)}: not {expected(annotation)}{hint}") from None


def rebuild(config: Config, changes: Mapping[str, Any], path: str = "") -> Config:
    """`config` with the dotted `changes`, built and thereby validated from the leaves upwards."""
    here = {}
    for name in annotations(type(config)):
        below = {
            key.removeprefix(f"{name}."): value
            for key, value in changes.items()
            if key.startswith(f"{name}.")
        }
        if below:
            here[name] = rebuild(getattr(config, name), below, f"{path}{name}.")
        elif name in changes:
            here[name] = changes[name]
    return build(functools.partial(dataclasses.replace, cast(Any, config)), here, path)


def show_help(
    recipe: Any, configs: Iterable[str], choices: Choices, prog: str, beside: Iterable[str] = ()
) -> typing.NoReturn:
    """Print every field with its docstring and its value in `recipe`, and exit with 0; `beside` are lines on
    flags that are no fields."""
    lines = [f"Recipes: {', '.join(configs)}."]
    lines += [
        f"--{path} {{{','.join(options)}}} replaces the group {path}." for path, options in choices.items()
    ]
    lines += beside
    with contextlib.suppress(BrokenPipeError):  # `--help | head` has read enough
        tyro.cli(
            type(recipe),
            default=recipe,
            args=["--help"],
            prog=prog,
            description=f"{inspect.getdoc(type(recipe))}\n\n" + "\n".join(lines),
            config=(tyro.conf.AvoidSubcommands,),
        )
    raise SystemExit(0)
