"""predict: what a run says of a file that nobody has labelled."""

import json
from pathlib import Path

from zoo.data.examples.records import read_inputs
from zoo.errors import DataError
from zoo.inference.predict import kind_of, predict_records
from zoo.pretrained import recipe_of


def predict(options) -> dict:
    """Prints a JSON object for each example: its fields, then the label, the tags or the target."""
    kind, cfg = kind_of(options.model), recipe_of(options.model).data
    records = read_inputs(Path(options.file), kind, cfg.named_columns)
    if not records:
        raise DataError(f"{options.file}: has no example; give a file with some")
    found = predict_records(options.model, records)
    for answer in found:
        print(json.dumps(answer, ensure_ascii=False))
    return {"model": options.model, "file": options.file, "examples": len(found)}
