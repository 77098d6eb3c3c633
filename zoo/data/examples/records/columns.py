"""Where the fields stand: by the names of a table's header or of a JSON object's keys.

Names that are in use are known (below, any case); whatever is called otherwise is named by the user.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile

from zoo.data.examples.record import INPUTS, OPTIONAL
from zoo.errors import DataError, nearest

# Fields that are named together, and what they are called. The first row that a file has whole counts, else
# the first of which it has the beginning: a `question` with a `sentence` (GLUE's QNLI) is a pair of texts, a
# `sentence` without is one text.
NAMES: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {
    ("text", "text_pair"): (
        ("text", "text_pair"),
        ("text_a", "text_b"),
        ("sentence1", "sentence2"),
        ("sentence_a", "sentence_b"),
        ("#1 string", "#2 string"),
        ("question1", "question2"),
        ("premise", "hypothesis"),
        ("question", "sentence"),
        ("sentence",),
        ("review",),
        ("content",),
    ),
    ("label",): (
        ("label",),
        ("gold_label",),
        ("quality",),
        ("is_duplicate",),
        ("class",),
        ("category",),
        ("sentiment",),
        ("intent",),
    ),
    ("first", "second"): (
        ("first", "second"),
        ("text", "text_pair"),
        ("sentence1", "sentence2"),
        ("sentence_a", "sentence_b"),
        ("question1", "question2"),
        ("query", "document"),
        ("query", "passage"),
        ("anchor", "positive"),
        ("question", "answer"),
        ("premise", "hypothesis"),
        ("source", "target"),
    ),
    ("score",): (("score",), ("similarity",), ("relatedness_score",), ("rating",)),
    ("anchor", "positive", "negative"): (
        ("anchor", "positive", "negative"),
        ("query", "positive", "negative"),
        ("sent0", "sent1", "hard_neg"),
    ),
    ("question", "choices"): (
        ("question", "choices"),
        ("context", "choices"),
        ("ctx", "endings"),
        ("question", "options"),
        ("premise", "choices"),
        ("text", "choices"),
    ),
    ("answer",): (("answer",), ("label",), ("gold",), ("correct",)),
    ("words", "tags"): (("words", "tags"), ("tokens", "tags"), ("tokens", "ner_tags"), ("tokens", "labels")),
    ("source", "target"): (
        ("source", "target"),
        ("src", "tgt"),
        ("src", "trg"),
        ("input", "output"),
        ("document", "summary"),
        ("article", "highlights"),
        ("text", "summary"),
        ("question", "answer"),
    ),
}


class Unlabelled(DataError):
    """A file that has the input and not what is to be predicted, as a published test part often does."""


def find_columns(
    names: Sequence[str], wanted: Sequence[str], columns: Mapping[str, str], where: str
) -> dict[str, str]:
    """{field: name} for the fields that are wanted: as `columns` says, else by the names in use.

    Fields that belong together are named together: who names `text` alone means a single text. Raises
    DataError where `columns` is mistaken or a field is not found, Unlabelled where all but the answer is.
    """
    known = {name.strip().lower(): name for name in reversed(names)}
    found = {}
    for field, name in columns.items():
        if name.strip().lower() not in known:
            kind_of_error = DataError if field in INPUTS else Unlabelled
            raise kind_of_error(
                f"{where}: columns {field}={name} is none of {_listed(names)}{nearest(name, names)}"
            )
        found[field] = known[name.strip().lower()]
    for fields, conventions in NAMES.items():
        if not set(fields) & set(wanted) or columns.keys() & set(fields):
            continue
        whole = [row for row in conventions if known.keys() >= set(row)]
        begun = [tuple(takewhile(known.__contains__, row)) for row in conventions if row[0] in known]
        for row in (whole + begun)[:1]:
            named = zip(fields, row, strict=False)
            found |= {field: known[name] for field, name in named if field in wanted}
    missing = [field for field in wanted if field not in found and field not in OPTIONAL]
    if missing:
        kind_of_error = DataError if set(missing) & INPUTS else Unlabelled
        raise kind_of_error(
            f"{where}: no {missing[0]} among {_listed(names)}; say which in columns, as {missing[0]}=NAME, "
            f"or as its number from 0 where there is no header"
        )
    return found


def is_input_name(name: str, wanted: Sequence[str]) -> bool:
    """Whether a text, a source, ... goes by this name."""
    return any(
        name.strip().lower() == row[i]
        for fields, conventions in NAMES.items()
        if set(fields) & set(wanted)
        for row in conventions
        for i, field in enumerate(fields[: len(row)])
        if field in INPUTS
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:30]) for name in names[:12]) or "nothing"
    return shown + (", ..." if len(names) > 12 else "")
