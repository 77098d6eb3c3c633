"""Names of classes and tags, and their numbers: the names of the training part, in order. A run's folder
keeps them, with the names of the inputs that its examples had.

A label that training lacks is a mistake where examples are classified: nothing could be right about it.
Tags (and the intent of a tagged sentence) do occur that way in published test sets; there each gets a
number behind those of the training part. A model never sees it, so it counts as an error, as it should.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from zoo import untrusted
from zoo.data.examples.record import Parts, Record
from zoo.errors import DataError, nearest

FILE = "labels.json"
SHOWN = 8  # names in an error

log = logging.getLogger("zoo.data")


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: as numbers where all are integers, else by spelling."""
    found = set(names)
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))


def names_of(parts: Parts, source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(labels, tags) of records by part; empty where records have none."""
    fields = parts["train"][0].fields
    tags = _known("tags", parts) if "tags" in fields else ()
    check_scheme(tags, source)
    if "label" not in fields:
        return (), tags
    known = _known("label", parts) if tags else ordered(_each(parts["train"], "label"))
    if len(known) < 2:
        raise DataError(
            f"{source}: all {len(parts['train']):,} training examples have the label {known[0]!r}; "
            "give examples of two classes or more"
        )
    return known, tags


def check_scheme(tags: Sequence[str], source: str) -> None:
    """DataError where tags are no naming of entities that the metrics know, which would end the run at its
    first evaluation."""
    from zoo.scores import scheme_of

    try:
        scheme_of(tags)
    except DataError as error:
        raise DataError(f"{source}: {error}") from None


def _known(field: str, parts: Parts) -> tuple[str, ...]:
    """The names of the training part, then those that other parts alone have, which is logged."""
    known = ordered(_each(parts["train"], field))
    others = {name for part in parts for name in _each(parts[part], field)}.difference(known)
    if others:
        shown = _listed([repr(name) for name in ordered(others)])
        log.warning("%s: not in the training part, so that no model can learn them: %s", field, shown)
    return known + ordered(others)


def _each(records: Sequence[Record], field: str) -> Iterator[str]:
    for record in records:
        value = record.fields[field]
        yield from [value] if isinstance(value, str) else value


def numbers(names: Sequence[str], known: Sequence[str], where: str, field: str = "label") -> np.ndarray:
    """The number of each name, int32; DataError for one that is not known, which `where` locates. Where
    nobody has named what is known, its numbers are names too."""
    place = {name: i for i, name in enumerate(known)}
    if tuple(known) == unnamed(len(known)):
        place |= {str(i): i for i in range(len(known))}
    for name in names:
        if name not in place:
            raise DataError(
                f"{where}: {field} {name!r} is none of the training part's, {_listed(known)}"
                f"{nearest(name, known) or '; mend it, or give training examples of it'}"
            )
    return np.array([place[name] for name in names], np.int32)


def save(folder: Path, names: Mapping[str, Sequence[str]]) -> None:
    """Writes what `read` reads: the names of each kind, in the order of their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(names, indent=1) + "\n")


def read(folder: Path) -> dict[str, tuple[str, ...]]:
    """The names that a run was trained with, {"labels": ..., "tags": ..., "inputs": ...}."""
    try:
        written = untrusted.contents(folder / FILE, untrusted.NOTE)
        found = {"inputs": []} | untrusted.json_object(written)  # older runs have not noted them
        if found.keys() != {"labels", "tags", "inputs"} or not all(
            isinstance(each, list) for each in found.values()
        ):
            raise TypeError
        return {kind: tuple(map(str, names)) for kind, names in found.items()}
    except FileNotFoundError:
        raise DataError(
            f"{folder}: has no {FILE}; give the folder of a run that was trained on examples"
        ) from None
    except (OSError, ValueError, TypeError):
        raise DataError(f"{folder / FILE}: damaged; take it from the run's own folder") from None


def unnamed(count: int) -> tuple[str, ...]:
    """What classes are called in a published folder where nobody has named them."""
    return tuple(f"LABEL_{number}" for number in range(count))


def check_counts(names: Mapping[str, Sequence[str]], model, folder) -> None:
    """DataError where a run's names are not as many as its model has classes and tags."""
    for kind, field in (("labels", "num_classes"), ("tags", "num_tags")):
        count = len(names[kind])
        if (wanted := getattr(model, field, count)) != count:
            raise DataError(
                f"{Path(folder) / FILE}: {count} {kind}, and the model has {wanted}; take the file from the "
                "run's own folder"
            )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
