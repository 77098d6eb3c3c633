"""What a trained model says of examples that nobody has labelled: classes, tags, intents with slots, targets,
answers, scores, similarities, choices.

predict("runs/lstm_sst2", [{"text": "a fine film"}])
[{"text": "a fine film", "label": "1", "probability": 0.98}]
"""

import os
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from zoo.data import ExamplesConfig
from zoo.data.examples import labels
from zoo.data.examples.one_pass import OnePass, one_pass
from zoo.data.examples.record import INPUTS, KINDS, LISTS, OPTIONAL, Record, check_inputs, make_record
from zoo.data.examples.records.spans import make_text_record
from zoo.errors import ConfigError, DataError
from zoo.inference.translate import translate
from zoo.pretrained import from_pretrained, names_of, recipe_of
from zoo.scores import scheme_of, spans
from zoo.tasks.inputs import inputs_of


def predict(folder: str | os.PathLike, examples: Sequence[Mapping]) -> list[dict]:
    """What the run in `folder` says of each of the examples, in their order.

    An example has the inputs of the run's kind of data: {"text"} and perhaps {"text_pair"}, {"words": [...]},
    {"source"}, {"first", "second"}, {"question", "choices"}, ... (zoo/data/examples/record.py). The answer is
    the same with "label" and "probability", "tags", both, "target", "score", "similarity" (of a triplet a
    list of two: to its positive and to its negative text), or "answer" and "probability". A {"text"} to be
    tagged is cut into words, and has "spans" instead: start, end and label of each entity. A {"question",
    "context"} has "id", "answer", its "score", and "nbest".
    Raises DataError for an empty text, another field, or a sentence that is longer than the run's rows.
    """
    kind = kind_of(folder)
    return predict_records(
        folder, [record_of(example, kind, f"example {number}") for number, example in enumerate(examples, 1)]
    )


def kind_of(folder: str | os.PathLike) -> str:
    """The kind of examples that the run in `folder` reads; ConfigError where it reads no examples."""
    recipe = recipe_of(folder)
    if isinstance(recipe.data, ExamplesConfig):
        return recipe.data.kind
    uses = {
        "text": "generate and score do",
        "masked": "fill and score do",
        "masked_pairs": "fill and score do",
    }
    verbs = uses.get(recipe.data.kind, "words does")
    task = type(recipe.task).__name__
    raise ConfigError(f"{folder}: its task, {task}, predicts nothing of a text; `python -m zoo` {verbs}")


def record_of(example: Mapping, kind: str, where: str) -> Record:
    """An example of Python objects as a record; DataError for what is no input of `kind`."""
    if kind in ("tag", "slots") and isinstance(example, Mapping) and example.keys() == {"text"}:
        text = example["text"]
        if not isinstance(text, str) or not is_unicode(text):
            raise DataError(f"{where}: text is no valid text; give a str")
        return make_text_record(text, where)
    known = {name: list if name in LISTS else str for name in KINDS[kind] if name in INPUTS}
    shape = "{" + ", ".join(f"{name!r}: {cls.__name__}" for name, cls in known.items()) + "}"
    if not isinstance(example, Mapping):
        raise DataError(f"{where}: a {type(example).__name__}, not a dict; give {shape}")
    called = {"id": str(example["id"])} if kind == "span" and "id" in example else {}
    example = {name: value for name, value in example.items() if name not in called}
    for name, value in example.items():
        if name not in known:
            raise DataError(f"{where}: {name!r} is no input of kind={kind}; give {shape}")
        if not isinstance(value, list | tuple if known[name] is list else str):
            raise DataError(f"{where}: {name} is a {type(value).__name__}; give {shape}")
        texts = [value] if known[name] is str else value
        if not all(isinstance(text, str) and is_unicode(text) for text in texts):
            raise DataError(f"{where}: {name} holds what is no text, or half of a surrogate pair; replace it")
    missing = [name for name in known if name not in example and name not in OPTIONAL]
    if missing:
        raise DataError(f"{where}: has no {missing[0]}; give {shape}")
    return make_record({n: tuple(x) if known[n] is list else x for n, x in example.items()}, where, **called)


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def predict_records(
    folder: str | os.PathLike, records: Sequence[Record], adapter: str | os.PathLike = "", weights: str = ""
) -> list[dict]:
    """The same of records, whose places in a file errors name; with the adapters of a folder of peft's and
    weights as from_pretrained has them."""
    kind, recipe = kind_of(folder), recipe_of(folder)
    if not records:
        return []
    names = names_of(folder)
    check_inputs(records, names["inputs"])
    model, params, tokenizer = from_pretrained(folder, adapter=adapter, weights=weights)
    if kind == "pairs":
        found = translate(
            *(model, params, tokenizer, [str(record.fields["source"]) for record in records]),
            places=[record.where for record in records],
            wrap=recipe.data.wrap,
            beam=recipe.task.beam,
            max_new_tokens=recipe.task.max_new_tokens or recipe.data.max_target_length,
        )
        return [record.fields | {"target": target} for record, target in zip(records, found, strict=True)]
    if kind in ("classify", "tag", "slots"):
        labels.check_counts(names, recipe.model, folder)
    if kind in ("tag", "slots") and all(record.fields["words"][-1] in names["tags"] for record in records):
        raise DataError(
            f"{records[0].where}: every line ends with the name of a tag; call such a file .conll"
        )
    dataset = one_pass(records, tokenizer, names["labels"], names["tags"], recipe.data)
    say = answers if kind == "span" else predictions
    return say(model, params, recipe.task, dataset)


def predicted(model, params, task, dataset: OnePass) -> Iterator[tuple[np.ndarray, dict]]:
    """What a task predicts of each batch of a data set, and the numbers of its rows."""

    @jax.jit
    def outputs(params, inputs):
        x, _ = model.features(params, inputs)
        return task.predict(model, params, x, inputs)

    for i in range(dataset.num_eval_batches):
        examples = dataset.eval_batch(i, range(dataset.cfg.batch_size))
        yield dataset.numbers(i), jax.device_get(outputs(params, inputs_of(examples)))


def answers(model, params, task, dataset: OnePass) -> list[dict]:
    """The answer to each question, its share of all that was considered, and the best others."""
    rows = ({"index": numbers} | found for numbers, found in predicted(model, params, task, dataset))
    found = task.answers(rows, dataset)
    said = []
    for number, record in enumerate(dataset.records):
        answer = found[number]
        named = {"answer": answer.text, "score": answer.score, "nbest": list(answer.best)}
        said.append({"id": record.id, "question": record.fields["question"]} | named)
    return said


def predictions(model, params, task, dataset: OnePass) -> list[dict]:
    """What a task predicts of a data set's records, in their order."""
    said: list[dict] = [{}] * len(dataset.records)
    for numbers, found in predicted(model, params, task, dataset):
        for row, number in enumerate(numbers):
            if number >= 0:
                record = dataset.records[number]
                asked = {"text": record.text} if record.offsets else record.fields
                said[number] = asked | named(found, row, record, dataset)
    return said


def named(found: Mapping[str, np.ndarray], row: int, record: Record, dataset: OnePass) -> dict:
    """One row of a task's predictions, with names in place of numbers."""
    answer: dict = {}
    if "label" in found:
        answer["label"] = dataset.labels[found["label"][row]]
    if "choices" in found:
        logits_G = found["choices"][row, : len(record.fields["choices"])].astype(np.float64)
        weights_G = np.exp(logits_G - logits_G.max())
        answer["answer"] = int(logits_G.argmax())
        answer["probability"] = round(float(weights_G.max() / weights_G.sum()), 6)
    for name in ("probability", "score", "similarity"):
        if name in found:
            answer[name] = np.round(found[name][row].astype(np.float64), 6).tolist()
    if "tags" in found:
        length = len(record.fields["words"])
        tags = [dataset.tags[tag] for tag in found["tags"][row, :length]]
        answer |= {"spans": spans_of(record, tags, dataset.tags)} if record.offsets else {"tags": tags}
    return answer


def spans_of(record: Record, tags: Sequence[str], known: Sequence[str]) -> list[dict]:
    """Where the entities that `tags` name stand in the text of a record; where the known tags name no
    entities, every word that is not O."""
    scheme = scheme_of(known)
    found = spans(tags, scheme) if scheme else {(tag, i, i + 1) for i, tag in enumerate(tags) if tag != "O"}
    said = []
    for kind, first, end in sorted(found, key=lambda span: span[1]):
        start, stop = record.offsets[first][0], record.offsets[end - 1][1]
        said.append({"start": start, "end": stop, "label": kind, "text": record.text[start:stop]})
    return said
