"""Receipts: what every step of a run saw, in at most 20 bytes a step, and the proof that it saw it once.

    runs/NAME/receipts.txt
        849 kq3V0aZ_b1c       the step, and a digest of its batch's examples
        850!c7Yd02mLwQs       the same, but its update was not applied (zoo/guard.py)
        +200                  from here on the batches are 200 further on: those between were skipped
        851 Zu1-9sXk3fA

An example is its epoch and its number in the data set; that is known from seed and step without reading a
token, and is the same on any number of processes. The file is cut at the step that a run continues from,
and a line torn by a kill is no receipt.
"""

import base64
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.errors import DataError, storage_errors

NAME = "receipts.txt"
LINE = re.compile(rb"(\d+)([ !])([\w-]{11})\n|\+(\d+)\n")


def digest_of(places_B2: np.ndarray) -> str:
    """11 letters for the (epoch, number) of a batch's rows, in order."""
    raw = np.ascontiguousarray(places_B2, "<i8").tobytes()
    return base64.urlsafe_b64encode(hashlib.blake2b(raw, digest_size=8).digest())[:11].decode()


class Receipt(NamedTuple):
    """What one step saw."""

    step: int
    digest: str
    offset: int = 0
    """How far its batch's number is from its own, counted from 0."""
    is_applied: bool = True

    @property
    def batch(self) -> int:
        """The number of its batch."""
        return self.step - 1 + self.offset


class Receipts:
    """Appends to `folder`/receipts.txt; of several processes one writes."""

    def __init__(self, folder: str | os.PathLike, *, writes: bool = True):
        self.path, self._writes, self._offset = Path(folder) / NAME, writes, 0
        if writes:
            with storage_errors(self.path):
                self._file = self.path.open("ab")

    def write(self, receipt: Receipt) -> None:
        """Appends what one step saw; it is with the system before the next."""
        if not self._writes:
            return
        line = f"{receipt.step}{' ' if receipt.is_applied else '!'}{receipt.digest}\n"
        if receipt.offset != self._offset:
            line, self._offset = f"+{receipt.offset}\n{line}", receipt.offset
        with storage_errors(self.path):
            self._file.write(line.encode())
            self._file.flush()

    def truncate_after(self, step: int) -> None:
        """Forgets all that was written behind the receipt of `step`, and a torn line."""
        self._offset = 0
        if not self._writes:
            return
        with storage_errors(self.path):
            kept = 0
            for receipt, end in receipts(self.path):
                if receipt.step > step:
                    break
                kept, self._offset = end, receipt.offset
            os.truncate(self.path, kept)

    def close(self) -> None:
        if self._writes:
            with storage_errors(self.path):
                self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def receipts(path: Path) -> Iterator[tuple[Receipt, int]]:
    """The receipts of a file, each with the place where it ends, up to the first line that is none."""
    offset = end = 0
    with path.open("rb") as file:
        for line in file:
            found = LINE.fullmatch(line)
            if found is None:
                return
            end += len(line)
            step, mark, digest, further = found.groups()
            if further:
                offset = int(further)
            else:
                yield Receipt(int(step), digest.decode(), offset, mark == b" "), end


# --- the proof ------------------------------------------------------------------------------------


def check(dataset, path: Path, last: int) -> dict[str, Any]:
    """Goes through a run's receipts up to step `last`: there is one for each step, each is what (seed, step)
    says, and in every epoch each example comes once, or was skipped with its batch once. Returns what was
    counted; raises DataError for the first thing that is otherwise."""
    epochs, before, end, refused = Epochs(dataset.epoch_size, str(path)), Receipt(0, ""), 0, 0
    rows = range(dataset.cfg.batch_size)
    for receipt, place in receipts(path):
        if receipt.step != before.step + 1:
            wrong = "there twice" if receipt.step <= before.step else "missing"
            raise DataError(f"{path}: step {min(receipt.step, before.step + 1)} is {wrong}")
        for skipped in range(before.batch + 1, receipt.batch):
            epochs.add(dataset.places(skipped, rows), is_seen=False)
        places_B2 = dataset.places(receipt.batch, rows)
        if receipt.digest != (expected := digest_of(places_B2)):
            raise DataError(
                f"{path}: step {receipt.step} saw {receipt.digest}, and its seed and step say {expected}"
            )
        epochs.add(places_B2, is_seen=True)
        before, end, refused = receipt, place, refused + (not receipt.is_applied)
    if b"\n" in path.read_bytes()[end:]:
        raise DataError(f"{path}: the line behind step {before.step} is no receipt")
    if before.step < last:
        raise DataError(f"{path}: ends at step {before.step}, and the run is at step {last}")
    epochs.close()
    return {
        "steps": before.step,
        "examples": epochs.num_seen,
        "whole_epochs": epochs.num_whole,
        "skipped_batches": before.offset,
        "updates_not_applied": refused,
    }


class Epochs:
    """Which examples of each epoch came; DataError where one comes again. Epochs follow one another."""

    def __init__(self, size: int, source: str):
        self._size, self._source = size, source
        self._epoch, self._numbers = 0, [np.empty(0, np.int64)]
        self.num_seen = self.num_whole = 0

    def add(self, places_B2: np.ndarray, *, is_seen: bool) -> None:
        """The examples of a batch that a step saw, or that none did."""
        self.num_seen += len(places_B2) * is_seen
        for epoch in np.unique(places_B2[:, 0]).tolist():
            if epoch != self._epoch:
                self.close()
                self._epoch = epoch
            self._numbers.append(places_B2[places_B2[:, 0] == epoch, 1])

    def close(self) -> None:
        """The epoch is over, or the run is."""
        numbers, counts = np.unique(np.concatenate(self._numbers), return_counts=True)
        if (counts > 1).any():
            example = int(numbers[counts > 1][0])
            raise DataError(f"{self._source}: example {example} comes twice in epoch {self._epoch}")
        self.num_whole += len(numbers) == self._size
        self._numbers = [np.empty(0, np.int64)]
