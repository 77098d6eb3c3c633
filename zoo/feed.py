"""Batches on their way to the devices: two of them wait there while a step runs.

host      read 3      read 4      read 5
devices   [1 2] 3     [2 3] 4     [3 4] 5
step        0           1           2
"""

import collections
from collections.abc import Callable, Iterable, Iterator

from zoo import faults
from zoo.sharding import place_rows

AHEAD = 2


def training_batches(dataset, task, mesh, start: int, stop: int) -> Iterator:
    """The batch of every step from `start` on, before `stop`; each a function of its step alone."""

    def place(step):
        faults.reach("data", step + 1)

        def read(rows):
            return faults.poisoned(task.batch(dataset.batch(step, rows)), step + 1)

        return place_rows(read, dataset.cfg.batch_size, mesh)

    return prefetched(place, range(start, stop))


def evaluation_batches(dataset, task, mesh, limit: int = 0) -> Iterator:
    """The validation set in order: all of it, or `limit` batches spread evenly over it; of rows that go
    on from batch to batch, the first ones."""
    count = dataset.num_eval_batches
    chosen = range(count) if not 0 < limit < count else [i * count // limit for i in range(limit)]
    if dataset.carried_rows:
        chosen = range(len(chosen))

    def place(index):
        return place_rows(
            lambda rows: task.batch(dataset.eval_batch(index, rows)), dataset.cfg.batch_size, mesh
        )

    return prefetched(place, chosen)


def prefetched(place: Callable, items: Iterable) -> Iterator:
    """`place` of each item, called two items before it is asked for; placing does not wait for devices."""
    waiting: collections.deque = collections.deque()
    for item in items:
        waiting.append(place(item))
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting
