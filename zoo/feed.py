"""Batches on their way to the devices: two of them wait there while a step runs.

host      read 3      read 4      read 5
devices   [1 2] 3     [2 3] 4     [3 4] 5
step        0           1           2
"""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from zoo import cluster, faults
from zoo.receipts import digest_of
from zoo.sharding import rows_sharding

AHEAD = 2


class Fed(NamedTuple):
    """What one step is given."""

    step: int
    """The step that this leads to, from 1."""
    batch: Any
    digest: str
    """Of what the batch is made of, for the step's receipt; empty in all processes but the first."""


class Feed:
    """What every step from `start` + 1 to `stop` is given, each a function of its step alone.

    The batch that leads to step s is the one with number s - 1 + `offset`: a run that has gone back from a
    spike goes on `offset` batches further on (zoo/guard.py).
    """

    def __init__(self, dataset, task, mesh, start: int, stop: int, offset: int = 0):
        self._dataset, self._task, self._mesh, self._stop = dataset, task, mesh, stop
        self.move(start, offset)

    def move(self, start: int, offset: int) -> None:
        """Goes on from step `start`, with other batches ahead."""
        self.offset = offset
        self._waiting = prefetched(self._given, range(start + 1, self._stop + 1))

    def __iter__(self) -> Iterator[Fed]:
        return self

    def __next__(self) -> Fed:
        return next(self._waiting)

    def _given(self, step: int) -> Fed:
        faults.reach("data", step)
        dataset, number = self._dataset, step - 1 + self.offset
        places_B2 = dataset.places(number, range(dataset.cfg.batch_size)) if cluster.is_first() else None
        batch = faults.poisoned(placed_batch(dataset, self._task, self._mesh, number), step)
        return Fed(step, batch, "" if places_B2 is None else digest_of(places_B2))


def training_batches(dataset, task, mesh, start: int, stop: int) -> Iterator:
    """The batches with these numbers alone, for who trains without receipts."""
    return prefetched(functools.partial(placed_batch, dataset, task, mesh), range(start, stop))


def placed_batch(dataset, task, mesh, number: int):
    """A training batch on the devices; a function of its number alone."""
    return place_rows(lambda rows: task.batch(dataset.batch(number, rows)), dataset.cfg.batch_size, mesh)


def place_rows(read: Callable[[range], Any], rows: int, mesh: Mesh):
    """A tree of arrays of `rows` rows on the mesh; `read` is asked only for the rows this process holds.

    Which rows these are follows from the sharding, never from the process number, so devices that
    repeat the same rows (tensor parallelism) get equal ones on every process.
    """
    sharding = rows_sharding(mesh)
    held = sharding.addressable_devices_indices_map((rows,))
    spans = {device: range(*index[0].indices(rows)) for device, index in held.items() if index}
    parts = {span: read(span) for span in dict.fromkeys(spans.values())}

    def assemble(*pieces):
        on_device = [jax.device_put(piece, device) for piece, device in zip(pieces, spans, strict=True)]
        return jax.make_array_from_single_device_arrays((rows, *pieces[0].shape[1:]), sharding, on_device)

    return jax.tree.map(assemble, *(parts[span] for span in spans.values()))


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
