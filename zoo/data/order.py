"""Which row of which epoch a training row is: a pure function of (seed, number), asked in any order.

Grain's MapDataset does the shuffling: a permutation per epoch, by random access and without a state.
Rows are numbered across steps, row r of step s being s * batch_size + r, whichever process asks.
"""

import hashlib
from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np

from zoo.data.draws import permuted

REMEMBERED = 1 << 14  # places; a batch is asked for its rows, and again for its receipt


class Layout(Protocol):
    """How a part's tokens become rows."""

    num_rows: int
    """Rows of a training epoch."""
    num_phases: int
    """In how many ways an epoch's rows can be cut."""
    num_eval_rows: int
    """Rows that hold every target exactly once, cut the first way."""
    num_targets: int
    """How many targets that makes."""
    never_targets: np.ndarray
    """The tokens that are context only, as nothing comes before them."""

    def rows(self, rows_B: np.ndarray, phases_B: np.ndarray) -> dict[str, np.ndarray]:
        """Rows by number; a number behind the last gives a row of weight 0."""

    def spans(self, row: int, phase: int) -> list[tuple[int, int]]:
        """Which tokens, [begin, end), a training row is made of."""


class Order:
    """The training rows of a layout, shuffled anew each epoch, without end."""

    def __init__(self, layout: Layout, seed: int):
        self.layout = layout
        self.seed = seed

    def rows(self, numbers: Iterable[int]) -> dict[str, np.ndarray]:
        """The training rows with these numbers, counted from 0 over all steps."""
        rows_B, epochs_B = self.places(numbers)
        epochs = epochs_B.tolist()
        phases = {epoch: self.phase(epoch) for epoch in set(epochs)}
        phases_B = np.array([phases[epoch] for epoch in epochs], np.int64)
        return self.layout.rows(rows_B, phases_B)

    def places(self, numbers: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Which row of the layout each of these is, and of which epoch."""
        numbers = [int(i) for i in numbers]
        rows_B = np.array([self._row(i) for i in numbers], np.int64)
        return rows_B, np.array(numbers, np.int64) // self.num_rows

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        return self.layout.num_rows

    @cached_property
    def _row(self):
        """number -> row; the latest are remembered, as Grain takes 20 microseconds for each."""
        return lru_cache(REMEMBERED)(self._shuffled.__getitem__)

    @cached_property
    def _shuffled(self):
        import grain

        rows = grain.MapDataset.range(self.layout.num_rows).seed(draw(self.seed, "rows") % 2**32)
        return rows.shuffle().repeat(reseed_each_epoch=True)

    def phase(self, epoch: int) -> int:
        """How an epoch's rows are cut."""
        return draw(self.seed, f"phase of epoch {epoch}") % self.layout.num_phases


class DrawnOrder:
    """Examples 0 to `size` - 1, permuted anew each epoch by numbers drawn for `purpose`: for the thousands of
    rows a step that word vectors have, of which Grain would be asked one by one."""

    def __init__(self, size: int, batch_size: int, seed: int, purpose: str):
        self.size, self._batch_size, self._seed, self._purpose = size, batch_size, seed, purpose
        self._of_step = lru_cache(4)(self._drawn)  # a batch asks for them, and again its receipt

    def places(self, step: int, rows: range) -> np.ndarray:
        """The epoch and the number of each of these rows of a step, int64 [B, 2]."""
        return self._of_step(step)[list(rows)]

    def _drawn(self, step: int) -> np.ndarray:
        epoch_B, number_B = np.divmod(step * self._batch_size + np.arange(self._batch_size), self.size)
        for epoch in np.unique(epoch_B).tolist():
            here_B, key = epoch_B == epoch, draw(self._seed, f"{self._purpose} of epoch {epoch}")
            number_B[here_B] = permuted(key, number_B[here_B], self.size)
        return np.stack([epoch_B, number_B], axis=1)


def draw(seed: int, purpose: str) -> int:
    """64 random bits, the same on every machine and under every version of every library."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8], "big")
