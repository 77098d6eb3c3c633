"""Stretches of running text, each with the window of every word and made-up words to stand against: the
examples of skip-gram and CBOW.

As in word2vec (Mikolov et al. 2013, arXiv 1310.4546 and its tool): frequent words are skipped at random
before windows are laid, the width of a window is drawn for each word from 1 to `window`, and made-up words
come from the counts to the power of 3/4.

    kept text of an epoch     a b c d e f g h i j k l ...
    row 0                     . . a b c d e f                 length 4, window 2: centres a b c d
    row 1                         c d e f g h i j                             centres e f g h

Each kept word is a centre once an epoch; the rows of an epoch come in an order of its own. Everything
is a function of seed, step and row: which words an epoch keeps is drawn by place (zoo/data/draws.py),
at once for the epoch, and remembered for two of them.
"""

import functools
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo.data.corpus import Corpus, read_corpus
from zoo.data.draws import uniform
from zoo.data.limits import check_least, check_valid_fraction
from zoo.data.order import DrawnOrder, draw
from zoo.data.sentences import Sentences, places_of_words, read_sentences
from zoo.data.tokenizers.word import WordTokenizer
from zoo.data.tokens import encode
from zoo.errors import ConfigError

NEGATIVE_POWER = 0.75  # arXiv 1310.4546, section 2.2: "U(w)^3/4 / Z"
BLOCK = 1 << 20  # words that are looked at together while an epoch's are chosen


@dataclass(frozen=True)
class WordPairsConfig:
    """Which text, and what of it stands together. Defaults: the word2vec tool's."""

    kind: ClassVar[str] = "word_pairs"

    path: str = ""
    """As data.path of texts: a text file, a .jsonl, each also .gz, or a folder; empty: Python's library."""
    min_count: int = 5
    """Words seen less often are left out of the text."""
    vocab_size: int = 0
    """At most so many words, the most frequent; 0: all."""
    window: int = 5
    """Words on either side of a centre, at most; how many is drawn for each centre, evenly from 1."""
    subsample: float = 1e-3
    """A word of frequency f is kept with probability sqrt(subsample / f) + subsample / f; 0 keeps all."""
    negatives: int = 64
    """Made-up words drawn for each row, for all of its centres."""
    length: int = 64
    """Centres per row."""
    batch_size: int = 64
    """Rows per step, over all processes."""
    valid_fraction: float = 0.1
    """The part of the text that is kept for validation, where the text does not come divided."""

    def __post_init__(self):
        check_least(self, 1, "min_count", "window", "negatives", "length", "batch_size")
        if self.vocab_size < 0:
            raise ConfigError(f"vocab_size={self.vocab_size} must not be negative; 0 takes every word")
        if not 0 <= self.subsample < math.inf:
            raise ConfigError(f"subsample={self.subsample} must be 0 or above; 1e-3 to 1e-5 are usual")
        check_valid_fraction(self)


class Stretches:
    """The rows of a text, epoch by epoch. `counts_V` are the training text's."""

    def __init__(self, text: Sentences, counts_V: np.ndarray, cfg: WordPairsConfig, seed: int):
        self.text, self.cfg, self.seed = text, cfg, seed
        self.keep_V = keep_probability(counts_V, cfg.subsample)
        weight_V = counts_V.astype(np.float64) ** NEGATIVE_POWER * (counts_V > 0)
        self.negatives_V = np.cumsum(weight_V) / weight_V.sum()
        expected = float((text.counts_V * self.keep_V).sum())
        self.num_rows = max(1, math.ceil(expected / cfg.length))
        self._kept = functools.lru_cache(2)(self._choose)  # two, as a batch may lie across an epoch's end

    def _choose(self, epoch) -> np.ndarray:
        """The places of the words that an epoch keeps."""
        key, words = draw(self.seed, f"subsampling of epoch {epoch}"), self.text.words
        kept = []
        for start in range(0, len(words), BLOCK):
            places = np.arange(start, min(start + BLOCK, len(words)))
            kept.append(places[uniform(key, places) < self.keep_V[words[places]]])
        return np.concatenate(kept).astype(np.int32 if len(words) < 2**31 else np.int64)

    def num_words(self, epoch) -> int:
        """How many words an epoch keeps."""
        return len(self._kept(epoch))

    def rows(self, epoch, rows_B: np.ndarray) -> dict[str, np.ndarray]:
        """The examples with these numbers in an epoch; what lies behind its last word has weight 0.

        tokens, segments int32 [B, length + 2 window]: words, and the sentence of each, 0 where none is;
        windows int32 and weights float32 [B, length]; negatives int32 [B, negatives].
        """
        cfg, kept = self.cfg, self._kept(epoch)
        centre_BT = np.asarray(rows_B, np.int64)[:, None] * cfg.length + np.arange(cfg.length)
        place_BS = centre_BT[:, :1] + np.arange(-cfg.window, cfg.length + cfg.window)
        there_BS = (place_BS >= 0) & (place_BS < len(kept))
        kept_BS = kept[np.clip(place_BS, 0, len(kept) - 1)]
        made_up_BC = np.asarray(rows_B, np.int64)[:, None] * cfg.negatives + np.arange(cfg.negatives)
        return {
            "tokens": self.text.words[kept_BS] * there_BS.astype(np.int32),
            "segments": (self.text.lines[kept_BS] + 1) * there_BS.astype(np.int32),
            "windows": self.windows(epoch, centre_BT),
            "weights": (centre_BT < len(kept)).astype(np.float32),
            "negatives": self.made_up(epoch, made_up_BC),
        }

    def windows(self, epoch, places) -> np.ndarray:
        """The width of the window at each place of an epoch, evenly from 1 to `window`."""
        key = draw(self.seed, f"windows of epoch {epoch}")
        return (1 + uniform(key, places) * self.cfg.window).astype(np.int32)

    def made_up(self, epoch, numbers) -> np.ndarray:
        """Words from the counts to the power of 3/4."""
        key = draw(self.seed, f"negatives of epoch {epoch}")
        return np.searchsorted(self.negatives_V, uniform(key, numbers), side="right").astype(np.int32)


def keep_probability(counts_V: np.ndarray, subsample: float) -> np.ndarray:
    """How likely each word stays in the text.

    The tool's form, to which its 1e-3 belongs; the paper's equation 5 keeps sqrt(subsample / f).
    """
    if not subsample:
        return np.ones(len(counts_V))
    ratio_V = subsample * counts_V.sum() / np.maximum(counts_V, 1)
    return np.minimum(1.0, np.sqrt(ratio_V) + ratio_V)


@dataclass(frozen=True)
class WordPairs:
    """Training rows without end, and the same of a validation text, drawn once for all."""

    cfg: WordPairsConfig
    corpus: Corpus
    tokenizer: WordTokenizer
    train: Stretches
    valid: Stretches

    carried_rows = 0

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        """The examples `rows`, some of range(batch_size), of a step; Stretches.rows says what is in them."""
        epoch_B, row_B = self.places(step, rows).T
        parts = [self.train.rows(epoch, row_B[epoch_B == epoch]) for epoch in np.unique(epoch_B).tolist()]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def places(self, step: int, rows: range) -> np.ndarray:
        """The epoch and the number in it of each of these rows of a step, int64 [B, 2]."""
        return self._order.places(step, rows)

    @functools.cached_property
    def _order(self) -> DrawnOrder:
        return DrawnOrder(self.train.num_rows, self.cfg.batch_size, self.train.seed, "rows")

    @property
    def epoch_size(self) -> int:
        """Rows of an epoch, each in it once."""
        return self.train.num_rows

    def origins(self, epoch: int, number: int) -> list[dict]:
        """The documents that a row's centres stand in; offsets and counts are of the text as tokens."""
        documents = self.corpus.parts["train"]
        tokens = encode(documents, self.tokenizer)
        kept = self.train._kept(epoch)[number * self.cfg.length : (number + 1) * self.cfg.length]
        if not len(kept):
            return []
        begin, end = places_of_words(tokens, self.tokenizer)[kept[[0, -1]]]
        return tokens.origins(int(begin), int(end) + 1, [document.name for document in documents])

    def eval_batch(self, i: int, rows: range) -> dict[str, np.ndarray]:
        """The same of the i-th evaluation batch, in order. Behind the last word weights are 0."""
        return self.valid.rows("valid", i * self.cfg.batch_size + np.array(rows))

    @property
    def num_eval_batches(self) -> int:
        """How many batches hold every centre that validation keeps."""
        return -(-self.valid.num_words("valid") // (self.cfg.length * self.cfg.batch_size))

    @property
    def sizes(self) -> dict[str, int]:
        """What the data decides of a model's configuration."""
        return {"vocab_size": self.tokenizer.vocab_size}

    @property
    def tokens_per_step(self) -> int:
        """Centres of a training batch."""
        return self.cfg.batch_size * self.cfg.length

    @property
    def steps_per_epoch(self) -> float:
        """How many steps see every kept word about once."""
        return self.train.num_rows / self.cfg.batch_size

    @functools.cached_property
    def digest(self) -> str:
        """Names the texts, their division, the vocabulary and the rows; not the seed or the batch size."""
        cfg = self.cfg
        what = f"{cfg.window} {cfg.subsample} {cfg.negatives} {cfg.length}"
        return hashlib.sha256(f"{self.corpus.digest} {self.tokenizer.digest} {what}".encode()).hexdigest()

    def describe(self) -> str:
        """One line: texts, their words, and how long an epoch is."""
        return (
            f"{self.corpus}; {self.tokenizer.vocab_size:,} words, {len(self.train.text):,} of them in a row, "
            f"{self.train.num_rows * self.cfg.length:,} kept an epoch, {self.steps_per_epoch:,.0f} steps"
        )

    def save(self, folder: Path) -> None:
        """What turns text into this run's tokens, into a run's folder."""
        self.tokenizer.save(folder / "tokenizer")

    def baselines(self) -> dict[str, float]:
        """None: the loss depends on how samples are drawn."""
        return {}


def load_word_pairs(cfg: WordPairsConfig, seed: int, evaluate: str = "valid") -> WordPairs:
    """Reads and divides the text; the vocabulary and all counts are the training part's."""
    corpus = read_corpus(cfg.path, cfg.valid_fraction)
    texts = (document.text for document in corpus.parts["train"])
    tokenizer = WordTokenizer.of_lines(texts, min_count=cfg.min_count, vocab_size=cfg.vocab_size)
    train, valid = (read_sentences(corpus, part, tokenizer) for part in ("train", evaluate))
    # What validation draws does not depend on the run's seed: losses of two seeds compare.
    return WordPairs(
        *(cfg, corpus, tokenizer),
        train=Stretches(train, train.counts_V, cfg, seed),
        valid=Stretches(valid, train.counts_V, cfg, seed=0),
    )
