"""Random numbers in the shapes of real data: rows of tokens, masked texts, sentences.

Never zeros, which a GPU multiplies faster, as they draw less power. Nothing here reads a file or imports JAX.

A batch is a function of its step, as a run's is (zoo/data), so that every side of a comparison sees the same.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.data.masked.config import MaskedConfig
from zoo.data.packed import count_up, first_fit

SHORTEST = 0.25  # of a row, the shortest masked text; texts are 5/8 of a row on average
MASK, FIRST_WORD = 103, 1000  # [MASK] and the first whole words of BERT's uncased vocabulary


@dataclass(frozen=True)
class Drawn:
    """Stands for a data set: `batch(step, rows)` in the shapes that its configuration says."""

    cfg: Any
    vocab_size: int

    @property
    def carried_rows(self) -> int:
        return self.cfg.batch_size if getattr(self.cfg, "layout", "") == "streams" else 0

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        """The examples of these rows of step `step`."""
        whole = self._masked(step) if isinstance(self.cfg, MaskedConfig) else self._text(step)
        return {name: x[rows.start : rows.stop] for name, x in whole.items()}

    def num_tokens(self, step: int) -> int:
        """Positions of a step that hold a token: padding left out."""
        examples = self.batch(step, range(self.cfg.batch_size))
        if "segments" in examples:
            return int((examples["segments"] > 0).sum())
        return examples["tokens"][:, 1:].size

    def _text(self, step):
        B, T = self.cfg.batch_size, self.cfg.length
        tokens = np.random.default_rng(step).integers(0, self.vocab_size, (B, T + 1)).astype(np.int32)
        begins = {"begins": np.full(B, step == 0)} if self.carried_rows else {}
        return {"tokens": tokens, "weights": np.ones((B, T), np.float32), **begins}

    def _masked(self, step):
        """Texts of a quarter of a row to a whole one, one a row or as many as fit, some words hidden."""
        B, T, rate = self.cfg.batch_size, self.cfg.length, self.cfg.mask_rate
        rng = np.random.default_rng(step)
        P = int(np.ceil(rate * T))
        sizes = rng.integers(int(SHORTEST * T), T + 1, 4 * B)
        row_of = first_fit(sizes, T) if self.cfg.layout == "packed" else np.arange(len(sizes))
        tokens_BT, segments_BT, positions_BT = np.zeros((3, B, T), np.int32)
        picked_BP, targets_BP = np.zeros((2, B, P), np.int32)
        weights_BP = np.zeros((B, P), np.float32)
        for row in range(B):
            here = sizes[row_of == row]
            end = here.sum()
            tokens_BT[row, :end] = rng.integers(min(FIRST_WORD, self.vocab_size // 2), self.vocab_size, end)
            segments_BT[row, :end] = np.repeat(np.arange(1, len(here) + 1), here)
            positions_BT[row, :end] = count_up(here)
            count = round(rate * end)
            picked_BP[row, :count] = np.sort(rng.choice(end, count, replace=False))
            targets_BP[row, :count] = tokens_BT[row, picked_BP[row, :count]]
            tokens_BT[row, picked_BP[row, :count]] = min(MASK, self.vocab_size - 1)
            weights_BP[row, :count] = 1
        return {
            "tokens": tokens_BT,
            "segments": segments_BT,
            "positions": positions_BT,
            "picked": picked_BP,
            "targets": targets_BP,
            "weights": weights_BP,
        }


def sentences(count: int, vocabulary: list[str]) -> list[str]:
    """Texts of 3 to 50 words, 12 on average, as STS-B's sentences have, in no order of length."""
    rng = np.random.default_rng(0)
    sizes = np.clip(np.exp(rng.normal(2.4, 0.45, count)).round().astype(int), 3, 50)
    return [" ".join(rng.choice(vocabulary, size)) for size in sizes]


def stack_arrays(cell: str, gates: int, layers: int, width: int, length: int, rows: int):
    """(parameters of each layer, inputs [T, B, D], gradient of the outputs) in torch's initial spread."""
    rng = np.random.default_rng(0)

    def uniform(*sizes):
        return rng.uniform(-(width**-0.5), width**-0.5, sizes).astype(np.float32)

    kernel, bias = (width, gates, width), (gates, width)
    params = [
        {"w_in": uniform(*kernel), "b_in": uniform(*bias), "w": uniform(*kernel)} for _ in range(layers)
    ]
    if cell == "gru":
        for layer in params:
            layer["b"] = uniform(width)
    x_TBD, d_TBZ = (rng.standard_normal((length, rows, width)).astype(np.float32) for _ in range(2))
    return params, x_TBD, d_TBZ
