"""Examples of similar length in one batch, and batches in few shapes.

Examples are grouped by the sum of their lengths, rounded up to a multiple of `bucket`, and a group takes
the shape of the longest example in it, so that a batch is padded little and compiled programs are few.
With bucket 8, batches of 4, and a group for each kind of digit:

    in order    0 0 0 0 0 0 1 1 1 2 2 2     sorted by group, the same order as before within one
    cut         0 0 0 0|0 0 1 1|1 2 2 2     every 4: the last of a group go up into the next batch,
    shapes         8       16      24       which has the shape of its longest

Only the last batch can be incomplete, whatever the groups. In training the N mod batch_size examples too
many are left out before this, other ones in each epoch, and the batches are shuffled; evaluation fills
the last batch up with rows of number -1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zoo.data.draws import bits
from zoo.data.order import draw

SHAPES = 16  # about as many programs are compiled at most; one takes seconds
ROUNDING = 8  # of the one shape that all examples share where there are no buckets


@dataclass(frozen=True)
class Batches:
    """The examples of each batch by number, [M, B], and the shape that each is padded to, [M, K]."""

    numbers_MB: np.ndarray
    shapes_MK: np.ndarray


@dataclass(frozen=True)
class Buckets:
    """How examples of these lengths are put together."""

    numbers_N: np.ndarray
    """The examples that there are, by number."""

    lengths_NK: np.ndarray
    """Their lengths: one column, or one for the source and one for the target."""

    limits: Sequence[int]
    """What no column's shape goes beyond, as no length does."""

    bucket: int
    """What lengths are rounded up to; 0: one shape for all."""

    batch_size: int

    @cached_property
    def groups_N(self) -> np.ndarray:
        """The group of each example, from 0, short ones first.

        Groups of few examples, less than a batch or than a share of them all, are joined to the next longer.
        """
        if not self.bucket:
            return np.zeros(len(self.lengths_NK), np.int64)
        sums_N = -(-self.lengths_NK.sum(axis=1) // self.bucket)
        _, kinds_N, counts = np.unique(sums_N, return_inverse=True, return_counts=True)
        few = max(self.batch_size, len(self.lengths_NK) / SHAPES)
        groups, group, size = [], 0, 0
        for count in counts:
            groups.append(group)
            size += count
            if size >= few:
                group, size = group + 1, 0
        return np.array(groups, np.int64)[kinds_N]

    @cached_property
    def shapes_GK(self) -> np.ndarray:
        """The shape of each group: in no column less than that of a group before it."""
        longest_GK = np.zeros((int(self.groups_N.max(initial=-1)) + 1, self.lengths_NK.shape[1]), np.int64)
        np.maximum.at(longest_GK, self.groups_N, self.lengths_NK)
        unit = self.bucket or ROUNDING
        rounded_GK = -(-np.maximum.accumulate(longest_GK, axis=0) // unit) * unit
        return np.minimum(rounded_GK, self.limits)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch, all of them full."""
        return len(self.numbers_N) // self.batch_size

    def epoch(self, seed: int, epoch: int) -> Batches:
        """The batches of a training epoch: a function of the seed and the epoch alone."""
        kept = self.steps_per_epoch * self.batch_size
        batches = self._batches(permutation(len(self.numbers_N), seed, f"examples of epoch {epoch}")[:kept])
        order = permutation(self.steps_per_epoch, seed, f"batches of epoch {epoch}")
        return Batches(batches.numbers_MB[order], batches.shapes_MK[order])

    def once(self) -> Batches:
        """Every example once, short ones first; -1 fills the last batch up."""
        return self._batches(np.arange(len(self.numbers_N)))

    def _batches(self, chosen: np.ndarray) -> Batches:
        chosen = chosen[np.argsort(self.groups_N[chosen], kind="stable")]
        missing = -len(chosen) % self.batch_size
        numbers = np.concatenate([self.numbers_N[chosen], np.full(missing, -1)])
        groups = np.concatenate([self.groups_N[chosen], np.zeros(missing, np.int64)])
        groups_MB = groups.reshape(-1, self.batch_size)
        return Batches(numbers.reshape(groups_MB.shape), self.shapes_GK[groups_MB.max(axis=1)])


def permutation(size: int, seed: int, purpose: str) -> np.ndarray:
    """The numbers below `size` in an order drawn for this purpose, the same under every version of NumPy."""
    return np.argsort(bits(draw(seed, purpose), np.arange(size)), kind="stable")
