"""predict: what a run says of a file that nobody has labelled."""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from zoo.data.examples.record import Record
from zoo.data.examples.records import read_inputs
from zoo.errors import DataError
from zoo.inference.evaluate import with_columns
from zoo.inference.predict import kind_of, predict_records
from zoo.pretrained import recipe_of

STDIN = "standard input"


def predict(options) -> dict:
    """Prints a JSON object for each example: its fields, then the label, tags, target or answer."""
    kind = kind_of(options.model)
    columns = with_columns(recipe_of(options.model).data, options.columns).named_columns
    if options.file == "-":
        records = read_stdin(kind, columns)
    else:
        records = read_inputs(Path(options.file), kind, columns)
    if not records:
        raise DataError(f"{options.file}: has no example; give a file with some")
    found = predict_records(options.model, records, options.adapter, options.weights)
    for answer in found:
        print(json.dumps(answer, ensure_ascii=False))
    return {"model": options.model, "file": options.file, "examples": len(found)}


def read_stdin(kind: str, columns) -> list[Record]:
    """The examples of standard input: JSON objects where it begins with one, else a text on each line."""
    content = sys.stdin.buffer.read()
    with tempfile.TemporaryDirectory() as folder:
        is_json = content.lstrip().startswith(b"{")
        path = Path(folder) / ("lines.jsonl" if is_json else "lines.txt")
        path.write_bytes(content)
        try:
            records = read_inputs(path, kind, columns)
        except DataError as error:
            raise DataError(str(error).replace(str(path), STDIN)) from None
    return [dataclasses.replace(each, where=each.where.replace(str(path), STDIN)) for each in records]
