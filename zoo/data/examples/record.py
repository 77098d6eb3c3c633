"""A record: one labelled example as it was written down, before any tokenizer.

    kind        fields
    classify    text, [text_pair], label
    tag         words, tags
    slots       words, tags, label        joint slots and intents (Goo et al. 2018, NAACL)
    pairs       source, target, [references]
    span        question, context, [answers]        answers are parts of the context
    score       text, [text_pair], score              a number for a text, or for two that are read together
    similarity  first, second, score                  two texts that are read apart, and how alike they are
    matches     first, second                         two texts that belong together
    triplets    anchor, positive, negative            which of two texts is nearer to a third
    choice      question, choices, answer             the number of the right one of several texts, from 0

Words and tags are tuples of equal length; references, where a source has several targets, is the tuple of
all of them and target is its first. Choices are a tuple; scores and answers are kept as they are written.
No field is empty. A record that is to be predicted has its inputs alone.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from zoo.data.corpus import split_by_hash
from zoo.data.files import Document
from zoo.errors import DataError, nearest

Field = str | tuple[str, ...]
Parts = dict[str, tuple["Record", ...]]

KINDS = {
    "classify": ("text", "text_pair", "label"),
    "tag": ("words", "tags"),
    "slots": ("words", "tags", "label"),
    "pairs": ("source", "target"),
    "span": ("question", "context", "answers"),
    "score": ("text", "text_pair", "score"),
    "similarity": ("first", "second", "score"),
    "matches": ("first", "second"),
    "triplets": ("anchor", "positive", "negative"),
    "choice": ("question", "choices", "answer"),
}
"""The fields that are looked for in a file, by kind."""

OPTIONAL = frozenset({"text_pair"})
TEXTS = (
    *("text", "text_pair", "source", "target", "first", "second"),
    *("anchor", "positive", "negative", "question", "context"),
)
LISTS = frozenset({"words", "tags", "choices"})
INPUTS = frozenset(TEXTS) - {"target"} | {"words", "choices"}  # what a model sees; the rest it predicts
LARGEST_SCORE = 1e18  # its square is a float32
BLANKS = " \t\r\n"  # other white space may be a word: a tagged Chinese text has its U+3000


@dataclass(frozen=True)
class Record:
    """One example and the place where it stands."""

    fields: dict[str, Field]

    where: str
    """File and line, for a message about it: "data/train.tsv:12"."""

    text: str = ""
    """The text that words were found in, where they did not come as words."""

    offsets: tuple[tuple[int, int], ...] = ()
    """Where each of these words begins and ends in the text, or each answer in the context, in characters."""

    id: str = ""
    """What a question is called."""

    @property
    def key(self) -> str:
        """A digest of the input: copies have one key."""
        return _digest(self.fields, INPUTS)

    @property
    def group(self) -> str:
        """What a split by hash goes by: copies of a text stay together, and all questions about one."""
        return _digest(self.fields, INPUTS - {"question"})


def _digest(fields: dict[str, Field], names: frozenset) -> str:
    inputs = {name: value for name, value in fields.items() if name in names}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def make_record(fields: dict[str, Field], where: str, **places) -> Record:
    """A record of which every field holds something; blanks around a label are not part of it.

    `places` are the fields of a Record that say where its text and words stand.
    """
    if isinstance(label := fields.get("label"), str):
        fields = fields | {"label": label.strip()}
    for name, value in fields.items():
        if isinstance(value, str) and not value.strip():
            raise DataError(f"{where}: the {name} is empty; write one, or remove the record")
        if not value:
            raise DataError(f"{where}: there are no {name}; write them, or remove the record")
        if not all(item.strip(BLANKS) for item in value if isinstance(value, tuple)):
            raise DataError(f"{where}: one of the {name} is empty; write it, or remove the record")
    if "score" in fields:
        _check_score(fields["score"], where)
    if "choices" in fields and len(fields["choices"]) < 2:
        raise DataError(f"{where}: a single choice is none; give two or more, or remove the record")
    if "answer" in fields:
        _check_answer(fields["answer"], len(fields["choices"]), where)
    if "tags" in fields and len(fields["words"]) != len(fields["tags"]):
        raise DataError(
            f"{where}: {len(fields['words'])} words and {len(fields['tags'])} tags; give each word one tag"
        )
    return Record(fields, where, **places)


def inputs_in(record: Record) -> tuple[str, ...]:
    """The names of its inputs: ("text",) or ("text", "text_pair"), ..."""
    return tuple(name for name in sorted(INPUTS) if name in record.fields)


def check_inputs(records: Sequence[Record], known: Sequence[str]) -> None:
    """DataError for a record that has more inputs than the training examples, `known`, or fewer: a second
    text that no one has learned to read, or one where two were compared. Where nothing is known nothing is
    checked."""
    for record in records:
        if (given := inputs_in(record)) != tuple(known or given):
            raise DataError(
                f"{record.where}: has {' and '.join(given)}, and training examples have "
                f"{' and '.join(known)}; give the same, or say in columns which text to read"
            )


def _check_score(score: Field, where: str) -> None:
    try:
        number = float(cast(str, score))
    except ValueError:
        number = math.nan
    if not abs(number) < LARGEST_SCORE:
        raise DataError(f"{where}: the score {score!r} is no finite number; mend it, or remove the record")


def _check_answer(answer: Field, choices: int, where: str) -> None:
    text = cast(str, answer).strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < choices):
        raise DataError(f"{where}: the answer {answer!r} is none of the choices, 0 to {choices - 1}; mend it")


def check_kind(kind: str) -> None:
    """Refuses what is no kind of record."""
    if kind not in KINDS:
        raise DataError(f"kind={kind!r} is none of {', '.join(KINDS)}{nearest(kind, KINDS)}")


def split(records: Sequence[Record], valid_fraction: float) -> Parts:
    """About `valid_fraction` of the records validate, always the same ones, whatever else comes or goes."""
    numbered = [Document(str(i), "", record.group) for i, record in enumerate(records)]
    return {
        part: tuple(records[int(document.name)] for document in documents)
        for part, documents in split_by_hash(numbered, valid_fraction).items()
    }
