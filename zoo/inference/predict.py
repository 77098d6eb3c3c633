"""What a trained run says of examples that nobody has labelled: classes, tags, intents with slots, targets.

predict("runs/lstm_sst2", [{"text": "a fine film"}])
[{"text": "a fine film", "label": "1", "probability": 0.98}]
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from zoo.data import ExamplesConfig
from zoo.data.examples import labels
from zoo.data.examples.one_pass import OnePass, one_pass
from zoo.data.examples.record import KINDS, Record, make_record
from zoo.errors import ConfigError, DataError
from zoo.inference.translate import translate
from zoo.pretrained import from_pretrained
from zoo.run import recipe_of
from zoo.tasks.inputs import inputs_of


def predict(folder: str | os.PathLike, examples: Sequence[Mapping]) -> list[dict]:
    """What the run in `folder` says of each of the examples, in their order.

    An example has the inputs of the run's kind of data: {"text"} and perhaps {"text_pair"}, {"words": [...]},
    or {"source"}. The answer is the same with "label" and "probability", "tags", both, or "target".
    Raises DataError for an empty text, another field, or a sentence that is longer than the run's rows.
    """
    records = []
    for number, example in enumerate(examples, 1):
        fields = {name: tuple(x) if isinstance(x, list) else x for name, x in example.items()}
        records.append(make_record(fields, f"example {number}"))
    return predict_records(folder, records)


def predict_records(folder: str | os.PathLike, records: Sequence[Record]) -> list[dict]:
    """The same of records, whose places in a file errors name."""
    recipe = recipe_of(folder)
    if not isinstance(recipe.data, ExamplesConfig):
        task = type(recipe.task).__name__
        raise ConfigError(
            f"{folder}: its task, {task}, predicts nothing of a text; `generate` and `score` do"
        )
    needed = KINDS[recipe.data.kind][0]
    for record in records:
        if needed not in record.fields:
            raise DataError(f"{record.where}: has no {needed}, which kind={recipe.data.kind} reads; give it")
    if not records:
        return []
    model, params, tokenizer = from_pretrained(folder)
    if recipe.data.kind == "pairs":
        found = translate(
            *(model, params, tokenizer, [str(record.fields["source"]) for record in records]),
            wrap=recipe.data.wrap,
            beam=recipe.task.beam,
            max_new_tokens=recipe.task.max_new_tokens or recipe.data.max_target_length,
        )
        return [record.fields | {"target": target} for record, target in zip(records, found, strict=True)]
    names = labels.read(Path(folder))
    dataset = one_pass(records, tokenizer, names["labels"], names["tags"], recipe.data)
    return predictions(model, params, recipe.task, dataset)


def predictions(model, params, task, dataset: OnePass) -> list[dict]:
    """What a task predicts of a data set's records, in their order."""

    @jax.jit
    def outputs(params, inputs):
        x, _ = model.features(params, inputs)
        return task.predict(model, params, x, inputs)

    said: list[dict] = [{}] * len(dataset.records)
    for i in range(dataset.num_eval_batches):
        examples = dataset.eval_batch(i, range(dataset.cfg.batch_size))
        found = jax.device_get(outputs(params, inputs_of(examples)))
        for row, number in enumerate(dataset.numbers(i)):
            if number >= 0:
                record = dataset.records[number]
                said[number] = record.fields | named(found, row, record, dataset)
    return said


def named(found: Mapping[str, np.ndarray], row: int, record: Record, dataset: OnePass) -> dict:
    """One row of a task's predictions, with names in place of numbers."""
    answer: dict = {}
    if "label" in found:
        answer["label"] = dataset.labels[found["label"][row]]
        answer["probability"] = round(float(found["probability"][row]), 6)
    if "tags" in found:
        length = len(record.fields["words"])
        answer["tags"] = [dataset.tags[tag] for tag in found["tags"][row, :length]]
    return answer
