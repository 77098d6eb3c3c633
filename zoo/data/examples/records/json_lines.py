"""A JSON object per line: strings, lists of strings for words, tags, choices, and what published files add.

A text may be a list of sentences (SciTLDR's `source`), which are joined by blanks. A target may be a list of
references. A label may be a whole number or true or false, and is then called that. Scores and answers are
numbers, or strings that spell them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo.data.examples.record import LISTS, Field, Record, make_record
from zoo.data.examples.records.columns import find_columns
from zoo.data.examples.records.lines import read_lines
from zoo.data.files import json_object
from zoo.errors import DataError

NUMBERS = ("score", "answer")


def read_json_lines(path: Path, wanted: Sequence[str], columns: Mapping[str, str]) -> list[Record]:
    """The records of a file of JSON objects; blank lines are passed over. The first names the keys of all."""
    records = []
    keys: dict[str, str] = {}
    for where, value in json_objects(path):
        keys = keys or find_columns(list(value), wanted, columns, where)
        fields: dict[str, Field] = {}
        for field, key in keys.items():
            if key not in value:
                listed = ", ".join(map(repr, list(value)[:5])) or "none"
                raise DataError(f'{where}: no "{key}" among its keys ({listed}), as the first has; add it')
            fields |= _fields(field, value[key], f'{where}: "{key}"')
        records.append(make_record(fields, where))
    return records


def json_objects(path: Path) -> list[tuple[str, dict]]:
    """The object of each line, and where it stands; blank lines are passed over."""
    lines = [(f"{path}:{number}", line) for number, line in enumerate(read_lines(path), start=1)]
    remedy = "each line is an object, {...}"
    return [(where, json_object(line, where, remedy)) for where, line in lines if line.strip()]


def _fields(field: str, value, what: str) -> dict[str, Field]:
    """The field that a value stands for, and the references beside a target that is a list."""
    if field in LISTS:
        return {field: _strings(value, what)}
    if field == "label":
        return {field: label_of(value, what)}
    if field in NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
        return {field: json.dumps(value)}
    if field == "target" and isinstance(value, list):
        references = _strings(value, what)
        return {field: references[0] if references else "", "references": references}
    if field not in NUMBERS and isinstance(value, list):
        return {field: " ".join(_strings(value, what))}
    return {field: string_of(value, what)}


def label_of(value, what: str) -> str:
    """A name, or a whole number, true or false, which are then called that."""
    return json.dumps(value) if isinstance(value, int) else string_of(value, what)


def _strings(value, what: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise DataError(f"{what} is a JSON {type(value).__name__}, not a list; give a list of strings")
    return tuple(string_of(item, f"{what}[{i}]") for i, item in enumerate(value))


def string_of(value, what: str) -> str:
    """A string that is valid Unicode; DataError for anything else."""
    if not isinstance(value, str):
        raise DataError(f"{what} is a JSON {type(value).__name__}, not a string; quote it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{what} has half of a surrogate pair at character {error.start}; replace it"
        ) from None
    return value
