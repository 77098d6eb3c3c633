"""How often two words stand near each other in a text: the examples of GloVe.

As in Pennington et al. 2014 (aclanthology.org/D14-1162) and its tool: two words of a line at distance d,
at most `window`, add 1 / d to their cell, in both orders. Counting is exact, done once per machine
(zoo/data/cache.py), in pieces of the text whose sorted counts are merged, so that memory holds the cells
and one piece and never the pairs. Cells are seen in an order of its own each epoch.

    the cat sat on the mat     window 2
    (the, cat) 1   (the, sat) 1/2   (cat, sat) 1   (cat, on) 1/2 ...        (the, the): none, distance 4
"""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo.data.cache import cached
from zoo.data.corpus import Corpus, part_digest, read_corpus
from zoo.data.draws import uniform
from zoo.data.limits import check_least, check_valid_fraction
from zoo.data.order import DrawnOrder, draw
from zoo.data.sentences import Sentences, read_sentences
from zoo.data.tokenizers.word import WordTokenizer
from zoo.errors import ConfigError, DataError

FORMAT = 1  # of what is cached; raise it when the same text comes to mean other counts
PIECE = 1 << 21  # pairs that are sorted together
HELD_OUT = 0.01  # the part of the cells that is evaluated and not trained on


@dataclass(frozen=True)
class CooccurrencesConfig:
    """Which text, and how far apart words still count."""

    kind: ClassVar[str] = "cooccurrences"

    path: str = ""
    """As data.path of texts: a text file, a .jsonl, each also .gz, or a folder; empty: Python's library."""
    min_count: int = 5
    """Words seen less often are left out of the text."""
    vocab_size: int = 0
    """At most so many words, the most frequent; 0: all."""
    window: int = 10
    """The longest distance that counts."""
    batch_size: int = 16_384
    """Cells per step, over all processes."""
    valid_fraction: float = 0.1
    """The part of the text that is left out, where the text does not come divided."""

    length: ClassVar[int] = 1

    def __post_init__(self):
        check_least(self, 1, "min_count", "window", "batch_size")
        if self.vocab_size < 0:
            raise ConfigError(f"vocab_size={self.vocab_size} must not be negative; 0 takes every word")
        check_valid_fraction(self)


# --- counting -------------------------------------------------------------------------------------

Counts = tuple[np.ndarray, np.ndarray]
"""Sorted cells, first * vocab_size + second with first <= second, and how much each has."""


def count_cells(text: Sentences, window: int) -> Counts:
    """Every cell of a text. What is on the diagonal counts for both orders."""
    runs: list[Counts] = []  # each more than twice as long as the one behind it, so few merges per cell
    stride = max(1, PIECE // window)
    for start in range(0, len(text), stride):
        runs.append(_count_piece(text, start, min(start + stride, len(text)), window))
        while len(runs) > 1 and len(runs[-2][0]) <= 2 * len(runs[-1][0]):
            runs[-2:] = [_merged(runs[-2:])]
    return _merged(runs)


def _count_piece(text: Sentences, start: int, stop: int, window: int) -> Counts:
    """The cells of the words from `start` on, before `stop`, with those behind them."""
    parts: list[Counts] = []
    for distance in range(1, window + 1):
        end = min(stop, len(text) - distance)
        here, there = slice(start, max(start, end)), slice(start + distance, max(start, end) + distance)
        near = text.lines[here] == text.lines[there]
        one, other = (text.words[span][near].astype(np.int64) for span in (here, there))
        cells = np.minimum(one, other) * text.vocab_size + np.maximum(one, other)
        parts.append((cells, np.where(one == other, 2.0, 1.0) / distance))
    return _merged(parts)


def _merged(parts: list[Counts]) -> Counts:
    """One sorted run of several, cells that occur again added up."""
    cells, counts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(cells, kind="stable")
    cells = cells[order]
    first = np.flatnonzero(np.diff(cells, prepend=-1))
    return cells[first], np.add.reduceat(counts[order], first) if len(first) else counts


# --- the data set ---------------------------------------------------------------------------------


class Cells:
    """Cells by number in both orders: (i, j) and (j, i) are neighbours, (i, i) is there once."""

    def __init__(self, cells: np.ndarray, counts: np.ndarray, vocab_size: int):
        first, second = np.divmod(cells, vocab_size)
        order = np.argsort(first == second, kind="stable")  # the diagonal comes last
        dtype = np.uint16 if vocab_size <= 2**16 else np.uint32
        self.first, self.second = first[order].astype(dtype), second[order].astype(dtype)
        self.counts = counts[order].astype(np.float32)
        self.num_pairs = int((first != second).sum())

    def __len__(self) -> int:
        return self.num_pairs + len(self.counts)

    def rows(self, numbers_B: np.ndarray) -> dict[str, np.ndarray]:
        """words and contexts int32, counts and present float32, each [B]; present is 0 behind the last."""
        present_B = numbers_B < len(self)
        numbers_B = np.minimum(numbers_B, len(self) - 1)
        place_B = np.where(numbers_B < 2 * self.num_pairs, numbers_B // 2, numbers_B - self.num_pairs)
        turned_B = (numbers_B < 2 * self.num_pairs) & (numbers_B % 2 == 1)
        first_B, second_B = self.first[place_B].astype(np.int32), self.second[place_B].astype(np.int32)
        return {
            "words": np.where(turned_B, second_B, first_B),
            "contexts": np.where(turned_B, first_B, second_B),
            "counts": self.counts[place_B],
            "present": present_B.astype(np.float32),
        }


@dataclass(frozen=True)
class Cooccurrences:
    """Training cells without end, and one pass over those that are held out."""

    cfg: CooccurrencesConfig
    corpus: Corpus
    tokenizer: WordTokenizer
    seed: int
    train: Cells
    valid: Cells

    carried_rows = 0

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        """The cells `rows`, some of range(batch_size), of a step; Cells.rows says what is in them."""
        return self.train.rows(self.places(step, rows)[:, 1])

    def places(self, step: int, rows: range) -> np.ndarray:
        """The epoch and the number of each of these cells of a step, int64 [B, 2]."""
        return self._order.places(step, rows)

    @functools.cached_property
    def _order(self) -> DrawnOrder:
        return DrawnOrder(len(self.train), self.cfg.batch_size, self.seed, "cells")

    @property
    def epoch_size(self) -> int:
        """Cells of an epoch, each in it once."""
        return len(self.train)

    def origins(self, epoch: int, number: int) -> list[dict]:
        """A cell is from no place in particular: it is counted over all of the text."""
        return [{"document": self.corpus.name, "cell": number}]

    def eval_batch(self, i: int, rows: range) -> dict[str, np.ndarray]:
        """The same of the i-th evaluation batch. Behind the last cell "present" is 0."""
        return self.valid.rows(i * self.cfg.batch_size + np.array(rows))

    @property
    def num_eval_batches(self) -> int:
        """How many batches hold every held-out cell once."""
        return -(-len(self.valid) // self.cfg.batch_size)

    @property
    def sizes(self) -> dict[str, int]:
        """What the data decides of a model's configuration."""
        return {"vocab_size": self.tokenizer.vocab_size}

    @property
    def tokens_per_step(self) -> int:
        """Cells of a training batch."""
        return self.cfg.batch_size

    @property
    def steps_per_epoch(self) -> float:
        """How many steps see every cell once."""
        return len(self.train) / self.cfg.batch_size

    @functools.cached_property
    def digest(self) -> str:
        """Names the texts, their division, the vocabulary and the cells; not the seed or the batch size."""
        what = f"{self.corpus.digest} {self.tokenizer.digest} cells {FORMAT} {self.cfg.window}"
        return hashlib.sha256(what.encode()).hexdigest()

    def describe(self) -> str:
        """One line: texts, words and cells."""
        return (
            f"{self.corpus}; {self.tokenizer.vocab_size:,} words, {len(self.train):,} cells "
            f"and {len(self.valid):,} held out, {self.steps_per_epoch:,.0f} steps an epoch"
        )

    def save(self, folder: Path) -> None:
        """What turns text into this run's tokens, into a run's folder."""
        self.tokenizer.save(folder / "tokenizer")

    def baselines(self) -> dict[str, float]:
        """None."""
        return {}


def load_cooccurrences(cfg: CooccurrencesConfig, seed: int, evaluate: str = "valid") -> Cooccurrences:
    """Reads the text and counts its training part; held-out cells of it are what is evaluated."""
    if evaluate != "valid":
        raise DataError(f"{evaluate}: there is no such part of counted words, only valid, cells held out")
    corpus = read_corpus(cfg.path, cfg.valid_fraction)
    texts = (document.text for document in corpus.parts["train"])
    tokenizer = WordTokenizer.of_lines(texts, min_count=cfg.min_count, vocab_size=cfg.vocab_size)
    cells, counts = _counted(cfg, corpus, tokenizer)
    held_out = uniform(draw(0, "cells that are held out"), cells) < HELD_OUT
    if held_out.all() or not held_out.any():
        raise DataError(
            f"{corpus.name}: {len(cells)} pairs of words are too few to hold some out; give more text"
        )
    parts = (Cells(cells[which], counts[which], tokenizer.vocab_size) for which in (~held_out, held_out))
    return Cooccurrences(cfg, corpus, tokenizer, seed, *parts)


def _counted(cfg, corpus, tokenizer) -> Counts:
    """The counts of the training part, from the cache where this text was counted before."""
    what = f"{FORMAT} {part_digest(corpus.parts['train'])} {tokenizer.digest} {cfg.window}"

    def build():
        cells, counts = count_cells(read_sentences(corpus, "train", tokenizer), cfg.window)
        return {"cells": cells, "counts": counts}

    def is_sound(arrays):
        cells, counts = arrays["cells"], arrays["counts"]
        return bool(
            cells.dtype == np.int64
            and counts.dtype == np.float64
            and cells.shape == counts.shape
            and len(cells)
            and 0 <= cells[0] <= cells[-1] < tokenizer.vocab_size**2
        )

    key = f"cells-{hashlib.sha256(what.encode()).hexdigest()[:32]}"
    arrays = cached(key, build=build, is_sound=is_sound, names=("cells", "counts"))
    return arrays["cells"], arrays["counts"]
