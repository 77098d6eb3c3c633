"""The texts that a generated one is held against: one per line, or several alternatives."""

from collections.abc import Sequence

from zoo.errors import DataError

Reference = str | Sequence[str]


def alternatives(predictions: Sequence[str], references: Sequence[Reference]) -> list[tuple[str, ...]]:
    """Each line's references as a tuple. Raises DataError where a side is missing."""
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} texts for {len(references)} references; each line needs both")
    texts = [(one,) if isinstance(one, str) else tuple(one) for one in references]
    if () in texts:
        raise DataError(f"line {texts.index(())} has no reference; leave it out or give it one")
    return texts
