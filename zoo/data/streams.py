"""The layout "streams": the text cut into as many parallel streams as a batch has rows.

Row b of a step goes on where row b of the step before stopped, so that a recurrent model can carry its
state from step to step (Zaremba et al. 2014, arXiv 1409.2329). With 2 streams of 5 targets and length 2:

    tokens      a b c d e f g h i j k
    stream 0    a b c d e f                 each stream's last token is the next one's first: every token
    stream 1              f g h i j k       but the first is a target once
    step 0      a b c      f g h            begins 1 1
    step 1      c d e      h i j            begins 0 0
    step 2      e f 0      j k 0            in evaluation only; its weights are 1 0

In training an epoch ends where no whole step is left, and the next begins at the streams' beginnings.
"""

from collections.abc import Iterable

import numpy as np

from zoo.data.tokens import Tokens


class Streams:
    """Rows of a token array by number: row r of step s is number s * num_streams + r."""

    num_phases = 1

    def __init__(self, tokens: Tokens, length: int, num_streams: int):
        self.tokens, self.ids = tokens, tokens.ids
        self.length = length
        self.num_streams = num_streams
        self.num_targets = max(len(self.ids) - 1, 0)
        self.stream_targets = -(-self.num_targets // num_streams)
        whole = self.num_targets // num_streams // length  # steps that every stream fills
        self.num_rows = whole * num_streams
        self.num_eval_rows = -(-self.stream_targets // length) * num_streams
        self.never_targets = self.ids[:1]

    def training_rows(self, numbers: Iterable[int]) -> dict[str, np.ndarray]:
        """The training rows with these numbers, counted from 0 over all steps."""
        return self._rows(self.places(numbers)[0], self.num_targets // self.num_streams)

    def places(self, numbers: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Which row each of these is, and of which epoch."""
        numbers_B = np.array(list(numbers), np.int64)
        return numbers_B % self.num_rows, numbers_B // self.num_rows

    def phase(self, epoch: int) -> int:
        """Streams are cut in one way only."""
        return 0

    def spans(self, row: int, phase: int) -> list[tuple[int, int]]:
        """Which tokens, [begin, end), a training row is made of: one run of them."""
        step, stream = divmod(row, self.num_streams)
        begin = stream * (self.num_targets // self.num_streams) + step * self.length
        return [(begin, begin + self.length + 1)]

    def rows(self, rows_B: np.ndarray, phases_B: np.ndarray) -> dict[str, np.ndarray]:
        """The same in evaluation, where streams are a target longer if need be, so that none is left out."""
        return self._rows(rows_B, self.stream_targets)

    def _rows(self, rows_B, targets: int) -> dict[str, np.ndarray]:
        """tokens int32 [B, length + 1], weights float32 [B, length], 0 behind a stream's end, and begins
        bool [B], true where the row is its stream's first."""
        steps_B, streams_B = np.divmod(rows_B, self.num_streams)
        offsets_BT = (steps_B * self.length)[:, None] + np.arange(self.length + 1)
        places_BT = (streams_B * targets)[:, None] + offsets_BT
        is_there_BT = (offsets_BT <= targets) & (places_BT < len(self.ids))
        tokens_BT = self.ids[np.minimum(places_BT, len(self.ids) - 1)].astype(np.int32)
        return {
            "tokens": tokens_BT * is_there_BT,
            "weights": is_there_BT[:, 1:].astype(np.float32),
            "begins": steps_B == 0,
        }
