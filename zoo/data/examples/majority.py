"""What guessing scores: the numbers that a model of labelled examples stands beside.

A label is guessed to be training's most frequent one, whatever the text. A word's tag is guessed to be the
one that this word had most often in training, and for an unknown word the most frequent tag of all. Two
texts are as alike as the share of their words that both have. A text that belongs to another is searched for
in an order drawn at random.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import cast

from zoo.data.examples.record import Record

Words = tuple[str, ...]


def guess_scores(train: Sequence[Record], evaluated: Sequence[Record]) -> dict[str, float]:
    """majority_accuracy where records have a label, frequent_tag_accuracy where words have tags.

    Where the tags name entities, frequent_tag_f1 is those guesses' entity F1. Of two texts with a score,
    overlap_spearman; of two without, what is to be expected of chance, were each text the only one that
    belongs to another.
    """
    scores = {}
    if "label" in evaluated[0].fields:
        guess = most_frequent(cast(str, record.fields["label"]) for record in train)
        hits = sum(record.fields["label"] == guess for record in evaluated)
        scores["majority_accuracy"] = hits / len(evaluated)
    if "tags" in evaluated[0].fields:
        scores |= _tag_scores(train, evaluated)
    if {"second", "score"} <= evaluated[0].fields.keys():
        scores["overlap_spearman"] = _overlap_spearman(evaluated)
    elif "second" in evaluated[0].fields:
        count = len({record.fields["second"] for record in evaluated})
        scores |= {f"chance_recall_at_{k}": min(1.0, k / count) for k in (1, 10)}
        scores["chance_mrr"] = sum(1 / rank for rank in range(1, count + 1)) / count
    return scores


def _overlap_spearman(evaluated: Sequence[Record]) -> float:
    from zoo.scores import spearman

    overlaps = []
    for record in evaluated:
        first, second = (set(cast(str, record.fields[n]).lower().split()) for n in ("first", "second"))
        overlaps.append(len(first & second) / len(first | second))
    return spearman(overlaps, [float(cast(str, record.fields["score"])) for record in evaluated])


def _tag_scores(train: Sequence[Record], evaluated: Sequence[Record]) -> dict[str, float]:
    from zoo.scores import entity_scores, scheme_of

    of_word: dict[str, Counter[str]] = defaultdict(Counter)
    for word, tag in (pair for record in train for pair in zip(*_columns(record), strict=True)):
        of_word[word][tag] += 1
    rare = most_frequent(tag for tags in of_word.values() for tag in tags.elements())
    guess = {word: most_frequent(tags.elements()) for word, tags in of_word.items()}
    targets = [_columns(record)[1] for record in evaluated]
    guesses = [[guess.get(word, rare) for word in _columns(record)[0]] for record in evaluated]
    pairs = zip(chain(*guesses), chain(*targets), strict=True)
    hits = sum(guessed == tag for guessed, tag in pairs)
    scores = {"frequent_tag_accuracy": hits / sum(map(len, targets))}
    scheme = scheme_of(chain(*of_word.values(), *targets))  # all of training's, as a few may look like IOE
    if scheme is not None:
        scores["frequent_tag_f1"] = entity_scores(guesses, targets, scheme).micro.f1
    return scores


def most_frequent(names: Iterable[str]) -> str:
    """The name that occurs most often, of several the first by spelling."""
    counts = Counter(names)
    return min(counts, key=lambda name: (-counts[name], name))


def _columns(record: Record) -> tuple[Words, Words]:
    return cast(Words, record.fields["words"]), cast(Words, record.fields["tags"])
