"""Tagged texts: a text and the spans in it, counted in characters, for words and tags.

{"text": "Anna Smith met Bo.", "spans": [{"start": 0, "end": 10, "label": "PER"}, ...]}
words  Anna  Smith  met  Bo     .          runs of letters and digits, any other mark alone,
tags   B-PER I-PER  O    B-PER  O          every Chinese character alone

Where each word stands is kept, so that what is predicted can be said of the text again.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo.data.examples.record import Field, Record, make_record
from zoo.data.examples.records.json_lines import json_objects, label_of, read_json_lines, string_of
from zoo.errors import DataError

# The blocks that BERT calls Chinese; a combining accent belongs to the letter before it.
CHINESE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ceaf\U0002f800-\U0002fa1f"
WORD = re.compile(rf"[{CHINESE}]|(?:(?![{CHINESE}])[\w\u0300-\u036f])+|[^\w\s]")

SPAN = '{"start": 0, "end": 4, "label": "PER"}'


def read_tagged_lines(path: Path, wanted: Sequence[str], columns: Mapping[str, str]) -> list[Record]:
    """The records of a file of JSON objects with words and tags, or with a text and its spans."""
    objects = json_objects(path)
    if not objects or "words" in columns or not is_text(objects[0][1]):
        return read_json_lines(path, wanted, columns)
    return [_record(value, wanted, columns, where) for where, value in objects]


def is_text(value: Mapping) -> bool:
    """Whether an object has a text instead of words."""
    return "text" in value and not {"words", "tokens"} & value.keys()


def words_of_text(text: str) -> list[tuple[int, int]]:
    """Where each word of a text begins and ends."""
    return [match.span() for match in WORD.finditer(text)]


def make_text_record(text: str, where: str, **fields: Field) -> Record:
    """A record of a text's words that remembers where they stand."""
    offsets = words_of_text(text)
    words = tuple(text[start:end] for start, end in offsets)
    if not words:
        raise DataError(f"{where}: the text {text[:40]!r} has no word; write one, or remove the record")
    return make_record({"words": words, **fields}, where, text=text, offsets=tuple(offsets))


def _record(value: Mapping, wanted: Sequence[str], columns: Mapping[str, str], where: str) -> Record:
    text = string_of(_get(value, "text", where), f'{where}: "text"')
    fields: dict[str, Field] = {}
    if "label" in wanted:
        name = columns.get("label", "label")
        fields["label"] = label_of(_get(value, name, where), f'{where}: "{name}"')
    if "tags" in wanted:
        fields["tags"] = _tags(text, _get(value, "spans", where), where)
    return make_text_record(text, where, **fields)


def _get(value: Mapping, key: str, where: str):
    if key not in value:
        raise DataError(f'{where}: no "{key}" beside the text; an object has "text" and "spans": [{SPAN}]')
    return value[key]


def _tags(text: str, spans, where: str) -> tuple[str, ...]:
    """B- at the first word of each span, I- at its others, O elsewhere."""
    if not isinstance(spans, list):
        raise DataError(f'{where}: "spans" is a JSON {type(spans).__name__}, not a list; give [{SPAN}, ...]')
    offsets = words_of_text(text)
    tags = ["O"] * len(offsets)
    for i, span in enumerate(spans):
        start, end, label = _checked(span, text, f"{where}: spans[{i}]")
        inside = [n for n, (begin, stop) in enumerate(offsets) if begin < end and stop > start]
        cut = [n for n in inside if offsets[n][0] < start or offsets[n][1] > end]
        if cut or not inside:
            word = text[slice(*offsets[cut[0]])] if cut else text[start:end]
            fault = f"cuts the word {word[:40]!r} in two" if cut else f"has no word ({word[:40]!r})"
            raise DataError(f"{where}: spans[{i}], {start} to {end}, {fault}; move its ends")
        if any(tags[n] != "O" for n in inside):
            raise DataError(f"{where}: spans[{i}], {start} to {end}, overlaps another; keep one of them")
        for n in inside:
            tags[n] = f"{'B' if n == inside[0] else 'I'}-{label}"
    return tuple(tags)


def _checked(span, text: str, what: str) -> tuple[int, int, str]:
    if not isinstance(span, dict) or not {"start", "end", "label"} <= span.keys():
        raise DataError(f"{what} is not such as {SPAN}")
    start, end, label = (span[key] for key in ("start", "end", "label"))
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise DataError(f"{what}: start {start!r} and end {end!r} are no part of {len(text)} characters")
    if not isinstance(label, str) or not label.strip():
        raise DataError(f"{what}: the label {label!r} is no name; give one such as PER")
    return start, end, label.strip()
