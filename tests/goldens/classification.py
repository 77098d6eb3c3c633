"""Makes classification.json: what scikit-learn says of drawn classes, and SciPy of drawn numbers.

    pip install scikit-learn scipy            # in an environment of its own; the suite does without them
    python tests/goldens/classification.py    # writes the file beside this one

"classes": targets, predictions, accuracy, Matthews correlation, and [precision, recall, F1, support] of
each class that occurs and of the averages. "numbers": pairs of lists and both correlations.
"""

import json
import random
import warnings
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")
AVERAGES = ("micro", "macro", "weighted")


def class_pairs() -> list[tuple[list[int], list[int]]]:
    """(targets, predictions)"""
    random.seed(1)
    pairs = [
        ([0, 1, 1, 0, 1], [0, 1, 1, 0, 1]),
        ([0, 1, 1, 0, 1], [1, 0, 0, 1, 0]),
        ([0, 0, 0, 0], [0, 0, 0, 0]),
        ([0, 0, 1, 0], [0, 0, 0, 0]),  # never predicted
        ([0, 0, 0, 0], [0, 2, 0, 0]),  # never right, and class 1 does not occur
        ([1, 1, 1], [2, 2, 2]),
        ([3], [3]),
    ]
    for num_classes, size in ((2, 30), (3, 40), (6, 50), (6, 8)):
        targets = random.choices(range(num_classes), weights=range(1, num_classes + 1), k=size)
        guesses = [t if random.random() < 0.6 else random.randrange(num_classes) for t in targets]
        pairs.append((targets, guesses))
    return pairs


def number_pairs() -> list[tuple[list[float], list[float]]]:
    random.seed(2)
    pairs: list[tuple[list[float], list[float]]] = [
        ([1, 2, 3, 4], [2, 4, 6, 8]),
        ([1, 2, 3, 4], [-1, -2, -3, -4]),
        ([1, 2], [5, 3]),
        ([1, 2, 2, 3, 3, 3], [3, 1, 2, 2, 5, 5]),
        ([0, 0, 0, 1], [1, 0, 0, 0]),
        ([1e6 + 0.1, 1e6 + 0.2, 1e6 + 0.4], [1, 2, 3]),  # far from zero
        ([1e-200, 3e-200, 2e-200], [1e200, 2e200, 4e200]),  # squares underflow and overflow
    ]
    for size in (5, 20, 50):
        x = [round(random.gauss(0, 1), 3) for _ in range(size)]
        pairs.append((x, [round(a + random.gauss(0, 1), 3) for a in x]))
        pairs.append(([round(a) for a in x], [float(random.randint(0, 5)) for _ in x]))  # full of ties
    return pairs


def main() -> None:
    import scipy
    import sklearn
    from scipy import stats
    from sklearn import metrics

    warnings.simplefilter("ignore")
    classes = []
    for targets, predictions in class_pairs():

        def support(average, pair=(targets, predictions)):
            return metrics.precision_recall_fscore_support(*pair, average=average, zero_division=0)

        occurring = sorted({*targets, *predictions})
        table = zip(occurring, *(column.tolist() for column in support(None)), strict=True)
        classes.append(
            {
                "targets": targets,
                "predictions": predictions,
                "accuracy": float(metrics.accuracy_score(targets, predictions)),
                "matthews": float(metrics.matthews_corrcoef(targets, predictions)),
                "classes": {str(c): numbers for c, *numbers in table},
                **{average: [float(x) for x in support(average)[:3]] for average in AVERAGES},
            }
        )
    numbers = [
        {
            "x": x,
            "y": y,
            "pearson": float(stats.pearsonr(x, y).statistic),
            "spearman": float(stats.spearmanr(x, y).statistic),
        }
        for x, y in number_pairs()
    ]
    made_with = f"scikit-learn {sklearn.__version__}, SciPy {scipy.__version__}"
    lists = [",\n".join(json.dumps(case) for case in cases) for cases in (classes, numbers)]
    FILE.write_text(
        f'{{"made_with": {json.dumps(made_with)}, '
        f'"classes": [\n{lists[0]}\n], "numbers": [\n{lists[1]}\n]}}\n'
    )


if __name__ == "__main__":
    main()
