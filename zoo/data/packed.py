"""The layout "packed": whole documents side by side in a row, each attending to itself alone.

A document of more than length + 1 tokens is cut into pieces that share one token, so every token but
a document's first is a target exactly once. Pieces go first-fit into rows of length + 1 slots, the same
way every time. With length 7 and "|" the end of text:

    tokens      | a b | | c d |     the slot behind the last position holds a target only
    positions   0 1 2 3 0 1 2       restart with each piece
    segments    1 1 1 1 2 2 2       numbered from 1; 0 is padding
    weights     1 1 1 0 1 1 1       0 where the target would be another piece's, or padding

The second and later pieces of a document do not see what came before them. Where the tokens say which of them
are to be predicted (the answers of dialogues), the others have weight 0 as targets.
"""

import numpy as np

from zoo.data.tokens import Tokens

OPEN_ROWS = 256  # unfinished rows that first-fit looks at; with more, time grows and waste hardly shrinks


class Packed:
    """Rows of packed pieces by number."""

    num_phases = 1  # rows are what they are in every epoch; only their order changes

    def __init__(self, tokens: Tokens, length: int):
        self.tokens, self.ids, self.length = tokens, tokens.ids, length
        self.is_target = tokens.is_target
        begins, ends = tokens.starts[:-1], tokens.ends
        starts, sizes = cut(begins, ends, length)
        rows = first_fit(sizes, capacity=length + 1)
        self.num_rows = self.num_eval_rows = int(rows.max(initial=-1)) + 1
        self.num_targets = int((sizes - 1).sum()) if self.is_target is None else int(self.is_target.sum())
        self.never_targets = self.ids[begins[ends > begins]]
        # Pieces in the order of their rows: those of row r are from _first[r] up to _first[r + 1].
        by_row = np.argsort(rows, kind="stable")
        self._starts, self._sizes = starts[by_row], sizes[by_row]
        self._first = np.searchsorted(rows[by_row], np.arange(self.num_rows + 2))
        before = np.cumsum(self._sizes) - self._sizes
        self._columns = before - before[self._first[rows[by_row]]]

    def rows(self, rows_B: np.ndarray, phases_B: np.ndarray) -> dict[str, np.ndarray]:
        """tokens int32 [B, length + 1]; segments, positions (int32), weights (float32) [B, length]."""
        rows_B = np.minimum(rows_B, self.num_rows)  # the row behind the last has no pieces
        first_B = self._first[rows_B]
        counts_B = self._first[rows_B + 1] - first_B
        # For each piece of these rows, in order: which row of the batch it is in, as which piece of it.
        row = np.repeat(np.arange(len(rows_B)), counts_B)
        number = count_up(counts_B)
        piece = first_B[row] + number
        # For each of their tokens: which of those pieces it belongs to, at which place in it.
        owner = np.repeat(np.arange(len(piece)), self._sizes[piece])
        position = count_up(self._sizes[piece])
        slot = row[owner], self._columns[piece][owner] + position

        place = self._starts[piece][owner] + position
        tokens_BT, segments_BT, positions_BT = np.zeros((3, len(rows_B), self.length + 1), np.int32)
        tokens_BT[slot] = self.ids[place]
        segments_BT[slot] = number[owner] + 1
        positions_BT[slot] = position
        is_target_BT = (segments_BT[:, 1:] == segments_BT[:, :-1]) & (segments_BT[:, 1:] > 0)
        if self.is_target is not None:
            counts_BT = np.zeros(tokens_BT.shape, bool)
            counts_BT[slot] = self.is_target[place]
            is_target_BT &= counts_BT[:, 1:]
        return {
            "tokens": tokens_BT,
            "segments": segments_BT[:, :-1],
            "positions": positions_BT[:, :-1],
            "weights": is_target_BT.astype(np.float32),
        }

    def spans(self, row: int, phase: int) -> list[tuple[int, int]]:
        """Which tokens, [begin, end), a row is made of: one run for each of its pieces."""
        pieces = slice(self._first[row], self._first[row + 1])
        begins = self._starts[pieces]
        return list(zip(begins.tolist(), (begins + self._sizes[pieces]).tolist(), strict=True))


def cut(begins: np.ndarray, ends: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the pieces of documents [begin, end) start and how many tokens they have, 2 to length + 1."""
    counts = np.maximum(-(-(ends - begins - 1) // length), 0)
    document = np.repeat(np.arange(len(begins)), counts)
    starts = begins[document] + count_up(counts) * length
    return starts, np.minimum(ends[document] - starts, length + 1)


def first_fit(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """The row of each piece: the first open one with room, else a new one.

    Of more than OPEN_ROWS open rows the fullest is closed.
    """
    rows = np.empty(len(sizes), np.int64)
    open_rows = np.empty(0, np.int64)
    room = np.empty(0, np.int64)  # in each of them
    num_rows = 0
    for piece, size in enumerate(sizes):
        fits = np.flatnonzero(room >= size)
        if len(fits):
            rows[piece] = open_rows[fits[0]]
            room[fits[0]] -= size
            continue
        rows[piece] = num_rows
        if capacity - size >= 2:  # the smallest piece is a token and its target
            open_rows, room = np.append(open_rows, num_rows), np.append(room, capacity - size)
        if len(room) > OPEN_ROWS:
            fullest = np.argmin(room)
            open_rows, room = np.delete(open_rows, fullest), np.delete(room, fullest)
        num_rows += 1
    return rows


def count_up(sizes: np.ndarray) -> np.ndarray:
    """0, 1, ..., size - 1 for each size, one after another."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
