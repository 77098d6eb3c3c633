"""The layout "stream": documents one after another, cut into rows without regard to where they end.

A row is length + 1 tokens and its targets are the last `length`. Neighbours share one token, so every
token but the first is a target exactly once:

    tokens      a b c d e f g h i j k
    row 0       a b c d e                   length 4, phase 0
    row 1               e f g h i
    row 2                       i j k 0 0   in evaluation only; its weights are 1 1 0 0

In training the rows of an epoch begin at one of `num_phases` places, so that their borders move from
epoch to epoch, and only whole rows count: fewer than 2 * length tokens, at the two ends, sit an epoch out.
"""

import numpy as np

from zoo.data.tokens import Tokens


class Stream:
    """Rows of a token array by number."""

    def __init__(self, tokens: Tokens, length: int):
        self.tokens, self.ids = tokens, tokens.ids
        self.length = length
        size = len(self.ids)
        # phase + num_rows * length + 1 <= size must hold for phases up to length - 1; where the text is
        # too short for that, one row with fewer phases.
        self.num_rows = max((size - length) // length, int(size > length))
        self.num_phases = min(length, size - self.num_rows * length)
        self.num_targets = max(size - 1, 0)
        self.num_eval_rows = -(-self.num_targets // length)
        self.never_targets = self.ids[:1]

    def rows(self, rows_B: np.ndarray, phases_B: np.ndarray) -> dict[str, np.ndarray]:
        """tokens int32 [B, length + 1] and weights float32 [B, length]; behind the end both are 0."""
        places_BT = (phases_B + rows_B * self.length)[:, None] + np.arange(self.length + 1)
        is_there_BT = places_BT < len(self.ids)
        tokens_BT = self.ids[np.minimum(places_BT, len(self.ids) - 1)].astype(np.int32)
        return {"tokens": tokens_BT * is_there_BT, "weights": is_there_BT[:, 1:].astype(np.float32)}

    def spans(self, row: int, phase: int) -> list[tuple[int, int]]:
        """Which tokens, [begin, end), a training row is made of: one run of them."""
        begin = phase + row * self.length
        return [(begin, begin + self.length + 1)]
