"""The layout of examples: one in a row, padded to the shape of its batch.

    tokens      the film works 0 0 0        int32 [B, T]
    lengths     3                           int32 [B]
    present     1                           float32 [B]

    tokens      [CLS] un ##broken film [SEP] 0      where words are cut into pieces
    word_starts       1           3                 int32 [B, W]: the first piece of each word
    word_counts       2                             int32 [B]

Where a batch has more rows than there are examples, the rest are of number -1: one padding token each (so
that no mean is over nothing), every other number 0, present 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Integer sequences of different lengths, one after another in one array."""

    values: np.ndarray

    starts: np.ndarray
    """Where each sequence begins, and where the last one ends."""

    @classmethod
    def of(cls, sequences: Sequence[np.ndarray]) -> "Ragged":
        starts = np.cumsum([0, *map(len, sequences)])
        return cls(np.concatenate([*sequences, [0]]).astype(np.int32), starts)  # the last is for no one

    @cached_property
    def lengths_N(self) -> np.ndarray:
        return np.diff(self.starts)

    def having(self, value: int) -> np.ndarray:
        """bool [N]: which sequences hold this value."""
        before = np.cumsum(np.concatenate([[0], self.values[: self.starts[-1]] == value]))
        return before[self.starts[1:]] > before[self.starts[:-1]]

    def rows(self, numbers_B: np.ndarray, length: int) -> np.ndarray:
        """int32 [B, length]: the sequences with these numbers, 0 behind their ends and for number -1."""
        lengths_B = np.where(numbers_B >= 0, self.lengths_N[numbers_B], 0)
        positions_T = np.arange(length)
        is_there_BT = positions_T < lengths_B[:, None]
        places_BT = np.where(is_there_BT, self.starts[numbers_B][:, None] + positions_T, len(self.values) - 1)
        return np.where(is_there_BT, self.values[places_BT], 0)


@dataclass(frozen=True)
class Sequences:
    """Texts or tagged sentences: tokens, and numbers that go with each token or with each example."""

    tokens: Ragged
    per_token: Mapping[str, Any]
    """A Ragged each, or what has its `rows` (spelling.py)."""
    per_example: Mapping[str, np.ndarray]

    is_cut_N: np.ndarray
    """Which of them were longer than they may be."""

    per_word: Mapping[str, Ragged] = field(default_factory=dict)
    """Numbers that go with each word, "word_starts" among them, where words are not tokens."""

    @property
    def lengths_NK(self) -> np.ndarray:
        """One column, T, the tokens; where words are counted apart, W before it."""
        words = [self.per_word["word_starts"].lengths_N] if self.per_word else []
        return np.stack([*words, self.tokens.lengths_N], axis=1)

    @property
    def num_tokens_N(self) -> np.ndarray:
        """What training on each of them reads."""
        return self.tokens.lengths_N

    def having(self, token: int) -> np.ndarray:
        """bool [N]: which examples hold this token."""
        return self.tokens.having(token)

    def rows(self, numbers_B: np.ndarray, shape: Sequence[int]) -> dict[str, np.ndarray]:
        """tokens [B, T], lengths [B], present [B], each of `per_token` [B, T] and `per_example` [B], and
        where words are counted apart word_counts [B] and each of `per_word` [B, W]."""
        *words, T = shape
        is_there_B = numbers_B >= 0
        return {
            "tokens": self.tokens.rows(numbers_B, T),
            "lengths": _lengths(self.tokens, numbers_B),
            "present": is_there_B.astype(np.float32),
            **(self._words(numbers_B, *words) if words else {}),
            **{name: each.rows(numbers_B, T) for name, each in self.per_token.items()},
            **{
                name: np.where(is_there_B, each[numbers_B], 0).astype(each.dtype)
                for name, each in self.per_example.items()
            },
        }

    def _words(self, numbers_B: np.ndarray, W: int) -> dict[str, np.ndarray]:
        counts_B = _lengths(self.per_word["word_starts"], numbers_B)
        return {"word_counts": counts_B} | {
            name: each.rows(numbers_B, W) for name, each in self.per_word.items()
        }


@dataclass(frozen=True)
class Pairs:
    """Sources and targets; a target is its beginning mark, its text and, unless it was cut, its end mark."""

    source: Ragged
    target: Ragged

    is_cut_N: np.ndarray
    """Pairs of which either side was longer than it may be."""

    @property
    def lengths_NK(self) -> np.ndarray:
        """Two columns, S and T: T counts what is to be predicted, all of the target but its first token."""
        return np.stack([self.source.lengths_N, self.target.lengths_N - 1], axis=1)

    @property
    def num_tokens_N(self) -> np.ndarray:
        """What training on each of them predicts."""
        return self.target.lengths_N - 1

    def having(self, token: int) -> np.ndarray:
        """bool [N]: which pairs hold this token on either side."""
        return self.source.having(token) | self.target.having(token)

    def rows(self, numbers_B: np.ndarray, shape: Sequence[int]) -> dict[str, np.ndarray]:
        """source [B, S], tokens [B, T + 1], weights [B, T], source_lengths, lengths, present, index [B].

        `weights` is 1 where a token is to be predicted and `lengths` counts these; `index` is the number of
        the record, -1 where there is none.
        """
        S, T = shape
        lengths_B = np.where(numbers_B >= 0, self.target.lengths_N[numbers_B] - 1, 0)
        return {
            "source": self.source.rows(numbers_B, S),
            "source_lengths": _lengths(self.source, numbers_B),
            "tokens": self.target.rows(numbers_B, T + 1),
            "lengths": np.maximum(lengths_B, 1).astype(np.int32),
            "weights": (np.arange(T) < lengths_B[:, None]).astype(np.float32),
            "present": (numbers_B >= 0).astype(np.float32),
            "index": numbers_B.astype(np.int32),
        }


def _lengths(sequences: Ragged, numbers_B: np.ndarray) -> np.ndarray:
    return np.where(numbers_B >= 0, sequences.lengths_N[numbers_B], 1).astype(np.int32)
