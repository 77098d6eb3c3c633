"""Dialogues out of files: a JSON object on each line, or a JSON list of them, each also gzip-compressed."""

import json
from pathlib import Path

from zoo import untrusted
from zoo.data.corpus import Reader, split_by_hash
from zoo.data.dialogues.messages import REMEDY, dialogue_of, key_of
from zoo.data.files import JSON_LINES, Document, json_object, kind, read_text
from zoo.errors import DataError

JSON = ".json"


def read_dialogues(path: Path, name: str) -> list[Document]:
    """The dialogues of one file, each a document whose text is its JSON (messages.py); blank lines are passed
    over. Raises DataError that names the line or the entry."""
    if kind(path) == JSON_LINES:
        text = read_text(path, line=untrusted.LINE)
        lines = text.removeprefix("\ufeff").split("\n")  # never splitlines: JSON may hold U+2028
        records = [
            (f"{path}:{number}", f"{name}:{number}", json_object(line, f"{path}:{number}", REMEDY))
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]
    elif kind(path) == JSON:
        records = [(f"{path}[{i}]", f"{name}[{i}]", each) for i, each in enumerate(listed(path))]
    else:
        raise DataError(
            f"{path}: its name is not that of a file of dialogues; give .jsonl or .json, also .gz"
        )
    documents = []
    for where, short, record in records:
        text = dialogue_of(record, where)
        documents.append(Document(short, text, key=key_of(text)))
    return documents


def listed(path: Path) -> list[dict]:
    """The objects of a file that is one JSON list."""
    try:
        found = json.loads(read_text(path, most=untrusted.TREE).removeprefix("\ufeff"))
        untrusted.check_depth(found)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not JSON ({str(error)[:100]}); give a list of dialogues, or .jsonl"
        ) from None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise DataError(
            f"{path}: no JSON list of objects; give a list of dialogues, or one on each line (.jsonl)"
        )
    return found


DIALOGUES = Reader(frozenset({JSON_LINES, JSON}), read_dialogues, split_by_hash)
