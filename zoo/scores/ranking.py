"""Do predicted numbers go up where the true ones do? Pearson and Spearman correlation.

STS-B is scored by both, word similarity (WordSim-353, SimLex-999, ...) by Spearman's.

Where one side is constant, or there are fewer than two pairs, no correlation is defined; it is 0.0
here, the value of a prediction that says nothing about the order, rather than NaN.
"""

import numpy as np

from zoo.errors import DataError


def pearson(predictions, targets) -> float:
    """Linear correlation, in -1..1, in float64. Raises DataError for numbers that are not finite."""
    x, y = _pairs(predictions, targets)
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():  # exact: a mean's rounding is not variation
        return 0.0
    x, y = _centred(x), _centred(y)
    return float(np.clip(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), -1.0, 1.0))


def spearman(predictions, targets) -> float:
    """Rank correlation (Spearman 1904), in -1..1: Pearson's of the ranks, equal numbers sharing a rank."""
    x, y = _pairs(predictions, targets)
    return pearson(ranks(x), ranks(y))


def ranks(values) -> np.ndarray:
    """1 for the smallest, n for the largest; equal values get the mean of the ranks they take up.

    values   0.3  0.1  0.3  0.9
    ranks    2.5  1    2.5  4
    """
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    return (last - (sizes - 1) / 2)[group]


def _centred(values: np.ndarray) -> np.ndarray:
    """Deviations from the mean, in units of the largest: their squares neither overflow nor vanish."""
    values = values / np.abs(values).max()
    deviations = values - values.mean()
    return deviations / np.abs(deviations).max()


def _pairs(predictions, targets) -> tuple[np.ndarray, np.ndarray]:
    """Both as flat arrays of finite float64."""
    x, y = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    if x.shape != y.shape:
        raise DataError(f"predictions have shape {x.shape}, targets {y.shape}; each target needs one")
    for values, what in ((x, "prediction"), (y, "target")):
        if not np.isfinite(values).all():
            at = int(np.flatnonzero(~np.isfinite(values))[0])
            raise DataError(f"{what} {at} is {values.flat[at]}; a correlation needs finite numbers")
    return x.reshape(-1), y.reshape(-1)
