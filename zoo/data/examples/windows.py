"""Questions and the texts that hold their answers, as rows: a long text is several of them.

tokens      [CLS] who came ? [SEP] ann came by train [SEP]      a window of the text behind the question
starts        0    0   0   0   0    0   4    9  12     0        where each token stands in the text
ends          0    0   0   0   0    3   8   11  17     0        0 for what is no part of it
start 5, end 5                                                  the answer's tokens; 0 where it is not here

text        ....................                windows begin `stride` tokens after one another, and the
windows     --------                            last ends with the text: a token stands in several of
                --------                        them, in some with what is before it and in others with
                    --------                    what is behind (Devlin et al. 2018's run_squad.py)
                        --------
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from zoo.data.examples.padded import Ragged, Sequences
from zoo.data.examples.record import Record
from zoo.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Windows(Sequences):
    """The rows of questions, and where their tokens stand in the texts."""

    record_N: np.ndarray
    """The number of the record that each window is of."""

    starts: Ragged
    """Where each token begins in the record's text."""

    ends: Ragged
    """Where it ends; 0 for what is no part of the text."""

    def rows(self, numbers_B: np.ndarray, shape: Sequence[int]) -> dict[str, np.ndarray]:
        """The same as of other texts, and index [B], the number of each window, -1 where there is none."""
        return super().rows(numbers_B, shape) | {"index": numbers_B.astype(np.int32)}

    def places(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(starts, ends) of the tokens of a window."""
        found = (
            each.values[each.starts[number] : each.starts[number + 1]] for each in (self.starts, self.ends)
        )
        return cast(tuple[np.ndarray, np.ndarray], tuple(found))


def encode_questions(
    records: Sequence[Record],
    tokenizer,
    *,
    marks: tuple[list[int], list[int], list[int]],
    typed: bool,
    max_length: int,
    stride: int,
) -> Windows:
    """The windows of records of the kind span; `marks` stand before, between and behind the two texts.

    A question may fill half of the row and is cut beyond that. Windows overlap, or at least touch.
    """
    before, between, behind = marks
    room = max_length - sum(map(len, marks))
    located: dict[str, tuple] = {}
    rows, types, starts, ends, bounds, numbers, is_cut = [], [], [], [], [], [], []
    for number, record in enumerate(records):
        context = cast(str, record.fields["context"])
        if context not in located:
            located[context] = tokenizer.encode_with_offsets(context)
        ids, first, last = located[context]
        if not len(ids):
            raise DataError(f"{record.where}: the context {context[:40]!r} has no token; write one")
        question = tokenizer.encode(cast(str, record.fields["question"]))
        head = [*before, *question[: room // 2], *between]
        size = room - min(len(question), room // 2)
        answer = answer_tokens(record, first, last)
        for begin in window_starts(len(ids), size, stride):
            window = slice(begin, begin + size)
            body = ids[window]
            rows.append(np.array([*head, *body, *behind], np.int32))
            types.append(np.repeat([0, 1], [len(head), len(body) + len(behind)]))
            starts.append(_padded(first[window], len(head), len(behind)))
            ends.append(_padded(last[window], len(head), len(behind)))
            is_there = answer is not None and begin <= answer[0] and answer[1] < begin + len(body)
            bounds.append([len(head) + token - begin for token in answer] if answer and is_there else [0, 0])
            numbers.append(number)
            is_cut.append(len(question) > room // 2)
    start_N, end_N = np.array(bounds, np.int32).T
    return Windows(
        *(
            Ragged.of(rows),
            {"token_types": Ragged.of(types)} if typed else {},
            {"start": start_N, "end": end_N},
        ),
        np.array(is_cut, bool),
        record_N=np.array(numbers),
        starts=Ragged.of(starts),
        ends=Ragged.of(ends),
    )


def window_starts(length: int, size: int, stride: int) -> list[int]:
    """Where windows of `size` begin in a text of `length` tokens: every `stride`, until one reaches its end.

    Where a window is shorter than the stride they follow upon each other, so that no token is left out.
    """
    step = min(stride, size)
    return [0, *range(step, length - size + step, step)]


def answer_tokens(record: Record, starts: np.ndarray, ends: np.ndarray) -> tuple[int, int] | None:
    """The first and the last token of a record's first answer; None where it has none, or no token of it."""
    if not record.offsets:
        return None
    begin, end = record.offsets[0]
    inside = np.flatnonzero((ends > begin) & (starts < end))
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def _padded(places: np.ndarray, before: int, behind: int) -> np.ndarray:
    return np.pad(places, (before, behind))
