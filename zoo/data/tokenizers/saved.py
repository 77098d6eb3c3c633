"""The note beside a saved tokenizer's files: which tokenizer it is, and its digest."""

import json
from pathlib import Path

from zoo import untrusted
from zoo.errors import DataError

FILE = "tokenizer.zoo.json"  # not tokenizer.json, which is Hugging Face's and something else


def write_note(folder: Path, *, name: str, digest: str, **settings) -> None:
    """Makes the folder and writes the note, with what the tokenizer's own files do not say."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps({"name": name, "digest": digest, **settings}, indent=1) + "\n")


def read_note(folder: Path) -> dict | None:
    """What `write_note` wrote, or None where a folder has no note."""
    try:
        note = untrusted.json_value(untrusted.contents(folder / FILE, untrusted.CONFIG))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        note = None
    if not isinstance(note, dict) or not isinstance(note.get("name"), str):
        raise DataError(f"{folder / FILE}: damaged; save the tokenizer again")
    return note
