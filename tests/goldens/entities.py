"""Makes entities.json: what seqeval counts in made-up and in drawn sequences of tags.

    pip install seqeval==1.2.2            # in an environment of its own; the suite does without it
    python tests/goldens/entities.py      # writes the file beside this one

Per case: sentences of target and predicted tags, [precision, recall, F1, support] by type, and the first
three by kind of average (null where seqeval says NaN), in seqeval's default mode, conlleval's. Where all
sequences are valid, seqeval's strict mode, which knows the scheme, has to say the same, or no file is
written. seqeval has no M: it is shown I.
"""

import functools
import json
import math
import random
import warnings
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")

AVERAGES = ("micro", "macro", "weighted")
LETTERS = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIES", "BMES": "BMES"}

WRITTEN = [  # (scheme, targets, predictions)
    ("IOB2", ["B-X I-X O"], ["B-X I-X O"]),
    ("IOB2", ["B-X I-X O"], ["O O O"]),
    ("IOB2", ["O O O"], ["B-X I-X O"]),
    ("IOB2", ["O O O"], ["O O O"]),
    ("IOB2", ["B-X"], ["I-X"]),
    ("IOB2", ["B-X I-X I-X"], ["B-X I-Y I-X"]),
    ("IOB2", ["B-X I-X B-X", "O"], ["I-X I-X B-X", "I-Y"]),
    ("IOB2", ["O B-X", "I-X O"], ["O B-X", "I-X O"]),  # an entity ends with its sentence
    ("IOB2", ["B-a-b I-a-b B-a"], ["B-a-b I-a-b I-a"]),
    ("IOB1", ["I-X I-X B-X O I-Y B-X"], ["I-X I-X I-X O B-Y I-X"]),
    ("BIOES", ["B-X E-X S-Y O"], ["B-X I-X S-Y O"]),
    ("BIOES", ["B-X I-X E-X S-X"], ["I-X I-X I-X I-X"]),
    ("BIOES", ["S-X E-X I-X B-X O"], ["E-X E-X S-X I-X E-X"]),
    ("BIOES", ["B-X E-X B-X E-X"], ["B-X B-X E-X E-X"]),
    ("BMES", ["B-X M-X E-X S-Y O"], ["B-X E-X M-X S-Y O"]),
    ("BMES", ["M-X M-Y E-Y S-Y"], ["M-X E-X E-Y S-Y"]),
]


def any_tags(scheme: str, length: int) -> list[str]:
    """Tags in any order, most of them inside something."""
    tags = ["O"] + [f"{letter}-{kind}" for letter in LETTERS[scheme] for kind in ("X", "Y", "Z")]
    return random.choices(tags, k=length)


def valid_tags(scheme: str, length: int) -> list[str]:
    """Entities and words outside, written as the scheme has it; at least `length` words."""
    tags: list[str] = []
    while len(tags) < length:
        kind, size = random.choice(("", "X", "Y")), random.randint(1, 4)
        if not kind:
            tags.append("O")
            continue
        if scheme in ("BIOES", "BMES"):
            inside = "I" if scheme == "BIOES" else "M"
            letters = "S" if size == 1 else "B" + inside * (size - 2) + "E"
        else:
            touches = bool(tags) and tags[-1].endswith(f"-{kind}")
            letters = ("B" if scheme == "IOB2" or touches else "I") + "I" * (size - 1)
        tags += [f"{letter}-{kind}" for letter in letters]
    return tags


def nearly(scheme: str, tags: list[str]) -> list[str]:
    """What a model might say: every seventh tag is another."""
    return [random.choice(any_tags(scheme, 1)) if random.random() < 1 / 7 else tag for tag in tags]


def drawn() -> list[tuple[str, list[str], list[str]]]:
    random.seed(1)
    cases = []
    for scheme in LETTERS:
        for make in (any_tags, valid_tags) * 4:
            targets = [make(scheme, random.randint(1, 12)) for _ in range(5)]
            cases.append((scheme, targets, [nearly(scheme, tags) for tags in targets]))
        for _ in range(4):
            targets = [padded(valid_tags(scheme, 8)) for _ in range(6)]
            guesses = [tags if random.random() < 0.3 else padded(valid_tags(scheme, 8)) for tags in targets]
            cases.append((scheme, targets, guesses))
    return [(scheme, [" ".join(x) for x in a], [" ".join(x) for x in b]) for scheme, a, b in cases]


def padded(tags: list[str]) -> list[str]:
    return tags + ["O"] * (11 - len(tags))


def scores(targets: list[str], predictions: list[str], support) -> dict:
    """What is stored; `support` is seqeval's precision_recall_fscore_support in either mode."""
    rows = [[line.replace("M-", "I-").split() for line in side] for side in (targets, predictions)]
    kinds = sorted({tag[2:] for side in rows for row in side for tag in row if tag != "O"})
    columns = [column.tolist() for column in support(*rows, average=None, zero_division=0)]
    found = {kind: numbers for kind, *numbers in zip(kinds, *columns, strict=True)}
    averages = {
        name: [float(x) for x in support(*rows, average=name, zero_division=0)[:3]] for name in AVERAGES
    }
    nan = {name: None for name, numbers in averages.items() if math.isnan(numbers[0])}
    return {"types": found} | averages | nan


def is_valid(scheme: str, line: str) -> bool:
    """Whether the scheme allows a sentence, read from its definition."""
    inside = "M" if scheme == "BMES" else "I"
    last, last_kind = "O", ""
    for tag in [*line.split(), "O"]:
        letter, _, kind = tag.partition("-")
        goes_on = letter in (inside, "E") and last in "B" + inside and kind == last_kind
        if scheme == "IOB2" and letter == "I" and not goes_on:
            return False
        if scheme == "IOB1" and letter == "B" and not (last in "BI" and kind == last_kind):
            return False
        if scheme in ("BIOES", "BMES") and (last in "B" + inside) != goes_on:
            return False
        if scheme in ("BIOES", "BMES") and letter in (inside, "E") and not goes_on:
            return False
        last, last_kind = letter, kind
    return True


def main() -> None:
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support as support
    from seqeval.metrics.v1 import precision_recall_fscore_support as strict_support
    from seqeval.scheme import IOB1, IOB2, IOBES

    warnings.simplefilter("ignore")
    schemes = {"IOB1": IOB1, "IOB2": IOB2, "BIOES": IOBES, "BMES": IOBES}
    cases, valid = [], 0
    for scheme, targets, predictions in WRITTEN + drawn():
        found = scores(targets, predictions, support)
        if all(is_valid(scheme, line) for line in targets + predictions) and found["types"]:
            strict = functools.partial(strict_support, scheme=schemes[scheme])
            assert found == scores(targets, predictions, strict), (scheme, targets, predictions)
            valid += 1
        cases.append({"scheme": scheme, "targets": targets, "predictions": predictions, **found})
    made_with = f"seqeval 1.2.2; {valid} of {len(cases)} cases are valid and the same in strict mode"
    lines = ",\n".join(json.dumps(case) for case in cases)
    FILE.write_text(f'{{"made_with": {json.dumps(made_with)}, "cases": [\n{lines}\n]}}\n')
    print(made_with)


if __name__ == "__main__":
    main()
