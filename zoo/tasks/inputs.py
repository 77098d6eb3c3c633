"""What a model reads of examples that are one text a row."""

from collections.abc import Mapping

import numpy as np


def inputs_of(examples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """tokens [B, T] and lengths [B]."""
    return {"tokens": examples["tokens"], "lengths": examples["lengths"]}
