"""Scores of predictions that are classes: accuracy, F1 of every class, Matthews correlation, exact match.

Classes are whole numbers from 0, in arrays of any one shape; positions that do not count are left out by
the caller. GLUE's measures: accuracy (SST-2), `class_scores(...).classes["1"].f1` (MRPC), `matthews` (CoLA).
"""

import math
from collections.abc import Sequence

import numpy as np

from zoo.errors import DataError
from zoo.scores.f1 import Counts, ScoreTable, score_table


def accuracy(predictions, targets) -> float:
    """The fraction of predictions that are the target."""
    predicted, expected = _classes(predictions, targets)
    return float((predicted == expected).mean()) if expected.size else 0.0


def exact_match(predictions: Sequence, targets: Sequence) -> float:
    """The fraction of outputs that equal their target as a whole: a text, or every item of a sequence."""
    same_length(predictions, targets, "outputs", "targets")
    matches = [_whole(a) == _whole(b) for a, b in zip(predictions, targets, strict=True)]
    return sum(matches) / len(matches) if matches else 0.0


def class_scores(predictions, targets, names: Sequence[str]) -> ScoreTable:
    """Precision, recall and F1 of every class, by its name, and their means.

    With one class per example the micro average is the accuracy. Raises DataError for a class that has
    no name.
    """
    counts_CC = confusion(predictions, targets, num_classes=len(names))
    return score_table(
        {
            name: Counts(int(counts_CC[c, c]), int(counts_CC[:, c].sum()), int(counts_CC[c].sum()))
            for c, name in enumerate(names)
        }
    )


def matthews(predictions, targets) -> float:
    """Matthews correlation in -1..1, for two classes or more (Gorodkin 2004, the R_K statistic).

    It is the correlation of the two assignments as indicator vectors, and 0 for a guess that knows
    nothing. It is 0, too, where predictions or targets are all of one class, as in scikit-learn.
    """
    predicted, expected = _classes(predictions, targets)
    if not expected.size:
        return 0.0
    num_classes = 1 + max(int(predicted.max()), int(expected.max()))
    counts_CC = confusion(predicted, expected, num_classes=num_classes)
    total, correct = int(counts_CC.sum()), int(np.trace(counts_CC))
    rows, columns = counts_CC.sum(1).tolist(), counts_CC.sum(0).tolist()  # Python's integers: no overflow
    covariance = correct * total - sum(r * c for r, c in zip(rows, columns, strict=True))
    variances = [total**2 - sum(count**2 for count in counts) for counts in (rows, columns)]
    return covariance / math.sqrt(variances[0] * variances[1]) if all(variances) else 0.0


def confusion(predictions, targets, *, num_classes: int) -> np.ndarray:
    """counts_CC: how often the class of the row was taken for the class of the column."""
    predicted, expected = _classes(predictions, targets)
    for found, what in ((predicted, "predictions"), (expected, "targets")):
        if found.size and not 0 <= found.min() <= found.max() < num_classes:
            outside = found.max() if found.max() >= num_classes else found.min()
            raise DataError(f"class {outside} among the {what}; there are {num_classes}, counted from 0")
    pairs = expected.astype(np.int64) * num_classes + predicted
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def same_length(predictions: Sequence, targets: Sequence, these: str, those: str) -> None:
    """Refuses two lists of which one lost something."""
    if len(predictions) != len(targets):
        raise DataError(f"{len(predictions)} {these} for {len(targets)} {those}; each {those[:-1]} needs one")


def _classes(predictions, targets) -> tuple[np.ndarray, np.ndarray]:
    """Both as flat arrays of whole numbers."""
    predicted, expected = np.asarray(predictions), np.asarray(targets)
    if predicted.shape != expected.shape:
        raise DataError(
            f"predictions have shape {predicted.shape}, targets {expected.shape}; each target needs one class"
        )
    for found, what in ((predicted, "predictions"), (expected, "targets")):
        if found.size and found.dtype.kind not in "iub":
            raise DataError(f"{what} are {found.dtype}; classes are whole numbers, the argmax of logits")
    return predicted.reshape(-1).astype(np.int64), expected.reshape(-1).astype(np.int64)


def _whole(output):
    return output if isinstance(output, str) else tuple(output)
