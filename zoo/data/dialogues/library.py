"""Dialogues that every Python carries: about the functions of its own library.

    user         def open_url(name, timeout=30):
                     ...
                 What does open_url raise?
    assistant    ValueError
    user         What is the default of timeout?
    assistant    30

The questions and their answers are those of examples/questions.py, which the syntax tree knows; all that are
asked of one function are one dialogue.
"""

import json
from collections.abc import Iterator, Sequence

from zoo.data.dialogues.messages import key_of
from zoo.data.examples.record import Record
from zoo.data.examples.stdlib_records import stdlib_records
from zoo.data.files import Document


def library_dialogues(valid_fraction: float) -> dict[str, tuple[Document, ...]]:
    """The dialogues of each part, "train" and "valid", as documents whose text is their JSON."""
    parts = stdlib_records("span", valid_fraction)
    return {part: tuple(dialogues(records)) for part, records in parts.items()}


def dialogues(records: Sequence[Record]) -> Iterator[Document]:
    """One dialogue for each function, in the order of the records."""
    asked: dict[str, list[Record]] = {}
    for record in records:
        asked.setdefault(str(record.fields["context"]), []).append(record)
    for source, about in asked.items():
        messages = []
        for record in about:
            question = str(record.fields["question"])
            content = question if messages else f"{source}\n{question}"
            messages += [
                {"role": "user", "content": content},
                {"role": "assistant", "content": record.fields["answers"][0]},
            ]
        text = json.dumps({"messages": messages}, ensure_ascii=False)
        yield Document(about[0].where, text, key=key_of(text))
