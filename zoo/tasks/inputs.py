"""What a model reads of examples that are one text a row."""

from collections.abc import Mapping

import numpy as np

NEEDED = ("tokens", "lengths")
OPTIONAL = ("characters", "token_types", "word_starts", "word_counts")


def inputs_of(examples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """tokens [B, T] and lengths [B]; of words by their spelling characters [B, T, 50]; of pairs token_types
    [B, T]; of words in several pieces word_starts [B, W] and word_counts [B]."""
    return {name: examples[name] for name in (*NEEDED, *OPTIONAL) if name in NEEDED or name in examples}


def counts_of_words(inputs: Mapping):
    """How many words each row has, [B]: its tokens, unless words are cut into pieces."""
    return inputs.get("word_counts", inputs["lengths"])
