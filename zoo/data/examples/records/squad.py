"""Questions about a text whose answer stands in it: SQuAD's JSON, or a question per line.

.json     {"data": [{"paragraphs": [{"context": ..., "qas": [{"id", "question", "answers"}]}]}]}
.jsonl    {"id": ..., "question": ..., "context": ..., "answers": [{"text": ..., "answer_start": ...}, ...]}

`answer_start` counts characters of the context. A question without an answer (version 2.0) has an empty list,
or says `is_impossible`; its `plausible_answers` are not read. An id may be left out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from zoo import untrusted
from zoo.data.examples.record import Field, Record, make_record
from zoo.data.examples.records.columns import Unlabelled
from zoo.data.examples.records.json_lines import json_objects, string_of
from zoo.data.files import json_object, read_text
from zoo.errors import DataError

SHAPE = '{"data": [{"paragraphs": [{"context": "...", "qas": [...]}]}]}'


def read_squad(path: Path, wanted: Sequence[str], columns: Mapping[str, str]) -> list[Record]:
    """The questions of a file as SQuAD has it."""
    if columns:
        raise DataError(f"{path}: SQuAD's JSON has names of its own; give columns for .jsonl only")
    text = read_text(path, most=untrusted.TREE)
    whole = json_object(text, str(path), f"a SQuAD file is {SHAPE}")
    records = []
    for article in _listed(whole, "data", str(path)):
        for paragraph in _listed(article, "paragraphs", f"{path}: an article"):
            where = f"{path}: a paragraph"
            context = string_of(_get(paragraph, "context", where), f'{where}: "context"')
            for question in _listed(paragraph, "qas", where):
                records.append(_record({**question, "context": context}, wanted, {}, f"{path}"))
    return records


def read_questions(path: Path, wanted: Sequence[str], columns: Mapping[str, str]) -> list[Record]:
    """The questions of a file of JSON objects."""
    return [_record(value, wanted, columns, where) for where, value in json_objects(path)]


def _record(value: Mapping, wanted: Sequence[str], columns: Mapping[str, str], where: str) -> Record:
    identifier = value.get("id", "")
    identifier = identifier if isinstance(identifier, str) else json.dumps(identifier)
    where = f"{where}: question {identifier}" if identifier else where
    fields: dict[str, Field] = {}
    for field in ("question", "context"):
        name = columns.get(field, field)
        fields[field] = string_of(_get(value, name, where), f'{where}: "{name}"')
    offsets = []
    if "answers" in wanted and not value.get("is_impossible", False):
        found = list(_answers(value, columns.get("answers", "answers"), fields["context"], where))
        offsets = [(start, start + len(text)) for text, start in found]
        fields |= {"answers": tuple(text for text, _ in found)} if found else {}
    return make_record(fields, where, offsets=tuple(offsets), id=identifier)


def _answers(value: Mapping, name: str, context, where: str) -> Iterator[tuple[str, int]]:
    """Each answer and where it begins, which is where it stands."""
    if name not in value:
        raise Unlabelled(f'{where}: has no "{name}"; give them, [] for a question without an answer')
    for answer in _listed(value, name, where):
        text = string_of(_get(answer, "text", where), f"{where}: an answer's text")
        start = _get(answer, "answer_start", where)
        if type(start) is not int:
            raise DataError(f"{where}: answer_start {start!r} is no whole number; give the first character's")
        if not text.strip():
            raise DataError(f"{where}: an answer is empty; give answers: [] where there is none")
        there = context[max(start, 0) : max(start, 0) + len(text)]
        if start < 0 or there != text:
            place = context.find(text)
            remedy = f"it first stands at {place}" if place >= 0 else "it is not in the context"
            raise DataError(
                f"{where}: the answer {text[:40]!r} is not at answer_start {start}, where {there[:40]!r} "
                f"stands; {remedy}"
            )
        yield text, start


def _listed(value, key: str, where: str) -> list[dict]:
    """The objects of a list in an object."""
    items = _get(value, key, where)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(f'{where}: "{key}" is not a list of objects; a SQuAD file is {SHAPE}')
    return items


def _get(value: Mapping, key: str, where: str):
    if key not in value:
        listed = ", ".join(map(repr, list(value)[:5])) or "none"
        raise DataError(f'{where}: no "{key}" among its keys ({listed}); add it')
    return value[key]
