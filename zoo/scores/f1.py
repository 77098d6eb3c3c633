"""Precision, recall and their harmonic mean, F1, from three counts (van Rijsbergen 1979, chapter 7).

    precision = correct / predicted        recall = correct / expected
    f1 = 2 correct / (predicted + expected)

A quotient with nothing below the line is 0, as in conlleval, scikit-learn and seqeval.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Counts(NamedTuple):
    """How many were right, how many were predicted, how many there are."""

    correct: int
    predicted: int
    expected: int


@dataclass(frozen=True)
class Score:
    """Three fractions, and the number of targets behind them."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ScoreTable:
    """The score of every class, and three ways to sum them up; `str` is the table to print, in percent."""

    classes: dict[str, Score]
    """In the order in which they were given."""
    micro: Score
    """Of the counts of all classes together: what papers on entities call F1."""
    macro: Score
    """The plain mean over the classes that occur among predictions or targets."""
    weighted: Score
    """The mean over classes, each as often as it occurs among the targets."""

    def __str__(self) -> str:
        rows = self.classes | {"micro": self.micro, "macro": self.macro, "weighted": self.weighted}
        width = max(len(name) for name in rows)
        lines = [f"{'':{width}}  precision  recall      F1  support"]
        for name, row in rows.items():
            percent = f"{100 * row.precision:9.2f}  {100 * row.recall:6.2f}  {100 * row.f1:6.2f}"
            lines.append(f"{name:{width}}  {percent}  {row.support:7,d}")
        return "\n".join(lines)


def score(counts: Counts) -> Score:
    """Precision, recall and F1 of `counts`; the support is the number expected."""
    correct, predicted, expected = counts
    return Score(
        precision=_ratio(correct, predicted),
        recall=_ratio(correct, expected),
        f1=_ratio(2 * correct, predicted + expected),
        support=expected,
    )


def score_table(counts: Mapping[str, Counts]) -> ScoreTable:
    """The table of `counts` by class. Means are those of scikit-learn's report, over classes that occur."""
    scores = {name: score(of) for name, of in counts.items()}
    occurring = [scores[name] for name, of in counts.items() if of.predicted or of.expected]
    sums = Counts(*(sum(of[i] for of in counts.values()) for i in range(3)))
    return ScoreTable(
        classes=scores,
        micro=score(sums),
        macro=_mean(occurring, [1] * len(occurring)),
        weighted=_mean(occurring, [row.support for row in occurring]),
    )


def _mean(scores: list[Score], weights: list[int]) -> Score:
    def mean(values):
        return _ratio(sum(w * value for w, value in zip(weights, values, strict=True)), sum(weights))

    return Score(
        precision=mean([row.precision for row in scores]),
        recall=mean([row.recall for row in scores]),
        f1=mean([row.f1 for row in scores]),
        support=sum(row.support for row in scores),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
