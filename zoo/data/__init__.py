"""Text to batches: `load(cfg, seed)` gives a Dataset whose batch(step, rows) is a pure function.

    corpus.py      texts, divided into train, valid and test; from stdlib.py or files.py
    tokenizers/    text to numbers and back; vocabulary.py says which a corpus gets
    tokens.py      a part's tokens in one array, encoded once per machine (cache.py)
    stream.py      rows that run across documents; packed.py: rows of whole documents
    order.py       which row comes when
    baselines.py   what gzip and an order-3 model make of the same bytes

Nothing here knows of JAX or of models; Grain, SentencePiece and tokenizers are imported where they are used.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zoo.data.corpus import Corpus, read_corpus
from zoo.data.order import Layout, Order
from zoo.data.packed import Packed
from zoo.data.stream import Stream
from zoo.data.tokenizers import TOKENIZERS, Tokenizer, load_tokenizer
from zoo.data.tokens import Tokens, encode
from zoo.data.vocabulary import make_tokenizer
from zoo.errors import ConfigError, DataError, nearest

__all__ = ["DataConfig", "Dataset", "LAYOUTS", "TOKENIZERS", "load", "load_tokenizer"]

LAYOUTS: dict[str, Callable[[Tokens, int], Layout]] = {"stream": Stream, "packed": Packed}


@dataclass(frozen=True)
class DataConfig:
    """Which text, in which tokens, in rows of which shape."""

    path: str = ""
    """A text file (.txt, .md, .py, ...: one document), a .jsonl (a document in "text" per line), each
    also .gz, or a folder of them, with its own train and valid parts or without; empty: Python's library."""

    tokenizer: str = "byte"
    """byte, char, sentencepiece (trained on the text), bpe (GPT-2's files), wordpiece (BERT's vocab.txt)."""

    vocab_path: str = ""
    """The folder of the vocabulary, for bpe and wordpiece; for sentencepiece a .model to use untrained."""

    vocab_size: int = 0
    """How many pieces to train, for sentencepiece without vocab_path."""

    layout: str = "stream"
    """stream: rows run across the ends of documents; packed: each document attends to itself alone."""

    length: int = 256
    """Positions per row."""

    batch_size: int = 8
    """Rows per step, over all processes."""

    valid_fraction: float = 0.1
    """The part of the text that is kept for validation, where the text does not come divided."""

    def __post_init__(self):
        if self.tokenizer not in TOKENIZERS:
            known = ", ".join(TOKENIZERS)
            raise ConfigError(
                f"tokenizer={self.tokenizer!r} is none of {known}{nearest(self.tokenizer, TOKENIZERS)}"
            )
        if self.layout not in LAYOUTS:
            raise ConfigError(
                f"layout={self.layout!r} is none of {', '.join(LAYOUTS)}{nearest(self.layout, LAYOUTS)}"
            )
        for field in ("length", "batch_size"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)} must be at least 1")
        if self.vocab_size < 0:
            raise ConfigError(f"vocab_size={self.vocab_size} must not be negative; 0 where none is trained")
        if not 0 < self.valid_fraction < 1:
            raise ConfigError(
                f"valid_fraction={self.valid_fraction} must lie between 0 and 1, for example 0.1"
            )
        if self.tokenizer in ("bpe", "wordpiece") and not self.vocab_path:
            raise ConfigError(
                f"tokenizer={self.tokenizer} needs vocab_path, the folder that holds its vocabulary"
            )
        if self.tokenizer in ("byte", "char") and self.vocab_path:
            raise ConfigError(
                f"vocab_path={self.vocab_path} is not read by tokenizer={self.tokenizer}; "
                "set tokenizer to bpe, wordpiece or sentencepiece"
            )
        if self.tokenizer == "sentencepiece" and not (self.vocab_path or self.vocab_size):
            raise ConfigError(
                "tokenizer=sentencepiece needs vocab_size, for example 4096, or a .model as vocab_path"
            )


@dataclass(frozen=True)
class Dataset:
    """Training rows without end and one pass over the validation part."""

    cfg: DataConfig
    corpus: Corpus
    tokenizer: Tokenizer
    train: Order
    valid: Layout
    evaluate: str
    """The part that `valid` reads: "valid", or "test" where the corpus has one."""

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        """The examples `rows`, some of range(batch_size), of a step: a function of seed, step and row alone.

        tokens int32 [B, length + 1] and weights float32 [B, length], 0 where a target does not count; the
        layout "packed" adds segments (from 1; 0 is padding) and positions, int32 [B, length].
        """
        return self.train.rows(step * self.cfg.batch_size + row for row in rows)

    def eval_batch(self, i: int, rows: range) -> dict[str, np.ndarray]:
        """The same of the i-th evaluation batch. Behind the last row come rows of weight 0."""
        rows_B = i * self.cfg.batch_size + np.array(rows, np.int64)
        return self.valid.rows(rows_B, np.zeros_like(rows_B))

    @property
    def num_eval_batches(self) -> int:
        """How many batches hold the whole part, every target exactly once."""
        return -(-self.valid.num_eval_rows // self.cfg.batch_size)

    @property
    def num_eval_targets(self) -> int:
        """How many targets those batches hold."""
        return self.valid.num_targets

    @cached_property
    def eval_bytes(self) -> int:
        """The bytes of text that those targets stand for: all but those of tokens that are context only."""
        context = sum(len(self.tokenizer.decode([i]).encode()) for i in self.valid.never_targets)
        return self.corpus.num_bytes[self.evaluate] - context

    @cached_property
    def digest(self) -> str:
        """Names the texts, their division, the tokenizer and the rows; not the seed or the batch size."""
        cfg = self.cfg
        what = f"{self.corpus.digest} {self.tokenizer.digest} {cfg.layout} {cfg.length}"
        return hashlib.sha256(what.encode()).hexdigest()

    def train_bytes(self) -> bytes:
        """The text of the training part, for baselines.py."""
        return self.corpus.text("train")

    def valid_bytes(self) -> bytes:
        """The text that is evaluated, for baselines.py."""
        return self.corpus.text(self.evaluate)


def load(cfg: DataConfig, seed: int, *, evaluate: str = "valid") -> Dataset:
    """Reads, divides and encodes the text; a second call on a machine finds the tokens in the cache."""
    corpus = read_corpus(cfg.path, cfg.valid_fraction)
    if evaluate not in corpus.parts:
        raise DataError(f"{corpus.name}: has no {evaluate} part, only {', '.join(corpus.parts)}")
    tokenizer = make_tokenizer(cfg.tokenizer, corpus, vocab_path=cfg.vocab_path, vocab_size=cfg.vocab_size)
    tokens = encode(corpus.parts["train"], tokenizer)
    train = LAYOUTS[cfg.layout](tokens, cfg.length)
    valid = LAYOUTS[cfg.layout](encode(corpus.parts[evaluate], tokenizer), cfg.length)
    if not train.num_rows:
        raise DataError(
            f"{corpus.name}: the training part has {len(tokens.ids):,} tokens and a row takes length + 1 = "
            f"{cfg.length + 1:,}; give more text or a smaller length"
        )
    if not valid.num_targets:
        raise DataError(f"{corpus.name}: the {evaluate} part is too short to hold a target; give more text")
    return Dataset(cfg, corpus, tokenizer, Order(train, seed), valid, evaluate)
