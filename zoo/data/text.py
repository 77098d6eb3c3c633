"""Texts as rows of tokens: the data of language models."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zoo.data.baselines import gzip_bits_per_byte, order3_bits_per_byte
from zoo.data.characters import spelling_of
from zoo.data.corpus import Corpus, read_corpus
from zoo.data.files import read_documents
from zoo.data.limits import check_least, check_valid_fraction
from zoo.data.order import Order
from zoo.data.packed import Packed
from zoo.data.stream import Stream
from zoo.data.streams import Streams
from zoo.data.tokenizers import TOKENIZERS, Tokenizer, check_settings
from zoo.data.tokenizers.marks import prompt_of
from zoo.data.tokens import Tokens, encode
from zoo.data.vocabulary import make_tokenizer
from zoo.errors import ConfigError, DataError, nearest

LAYOUTS: dict[str, Callable[[Tokens, "DataConfig"], Any]] = {
    "stream": lambda tokens, cfg: Stream(tokens, cfg.length),
    "streams": lambda tokens, cfg: Streams(tokens, cfg.length, cfg.batch_size),
    "packed": lambda tokens, cfg: Packed(tokens, cfg.length),
}


@dataclass(frozen=True)
class DataConfig:
    """Which text, in which tokens, in rows of which shape."""

    kind: ClassVar[str] = "text"

    path: str = ""
    """A text file (.txt, .md, .py, ...: one document), a .jsonl (a document in "text" per line), each
    also .gz, or a folder of them, with its own train and valid parts or without; empty: Python's library."""

    tokenizer: str = "byte"
    """byte, char, sentencepiece and wordpiece (trained on the text), bpe (GPT-2's files), word (what blanks
    divide; a line's end is a word)."""

    vocab_path: str = ""
    """The folder of the vocabulary, for bpe; for wordpiece and sentencepiece a vocab.txt or a .model to use
    untrained."""

    vocab_size: int = 0
    """How many pieces to train, for sentencepiece and wordpiece without vocab_path; for word the most entries
    to have, 0: every word."""

    min_count: int = 1
    """How often a word must be seen in training to be known, for word."""

    characters: bool = False
    """Give the characters of each token too, for models that read words by their spelling (ELMo)."""

    layout: str = "stream"
    """stream: rows run across the ends of documents; packed: each document attends to itself alone;
    streams: as many parallel streams as a batch has rows, for recurrent models that carry their state."""

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
        check_least(self, 1, "length", "batch_size", "min_count")
        if self.vocab_size < 0:
            raise ConfigError(f"vocab_size={self.vocab_size} must not be negative; 0 where none is trained")
        check_valid_fraction(self)
        check_settings(self)


@dataclass(frozen=True)
class TextPass:
    """One pass over a text: what is evaluated."""

    cfg: DataConfig
    corpus: Corpus
    tokenizer: Tokenizer
    evaluate: str
    """The part of the corpus that is read."""
    layout: Any
    """The rows of that part."""

    def eval_batch(self, i: int, rows: range) -> dict[str, np.ndarray]:
        """The examples `rows`, some of range(batch_size), of the i-th batch. Behind the last row come rows of
        weight 0.

        tokens int32 [B, length + 1] and weights float32 [B, length], 0 where a target does not count; the
        layout "packed" adds segments (from 1; 0 is padding) and positions, int32 [B, length], and "streams"
        begins, bool [B]. With `characters` each token's, int32 [B, length + 1, 50].
        """
        rows_B = i * self.cfg.batch_size + np.array(rows, np.int64)
        return self._spelled(self.layout.rows(rows_B, np.zeros_like(rows_B)))

    def _spelled(self, examples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not self.cfg.characters:
            return examples
        return examples | {"characters": self._spelling[examples["tokens"]]}

    @cached_property
    def _spelling(self) -> np.ndarray:
        """The characters of every token."""
        return spelling_of(self.tokenizer)

    @property
    def num_eval_batches(self) -> int:
        """How many batches hold the whole part, every target exactly once."""
        return -(-self.layout.num_eval_rows // self.cfg.batch_size)

    @property
    def num_eval_targets(self) -> int:
        """How many targets those batches hold."""
        return self.layout.num_targets

    @cached_property
    def eval_bytes(self) -> int:
        """The bytes of text that those targets stand for: all but those of tokens that are context only."""
        context = sum(len(self.tokenizer.decode([i]).encode()) for i in self.layout.never_targets)
        return self.corpus.num_bytes[self.evaluate] - context

    @property
    def carried_rows(self) -> int:
        """Rows that go on from step to step; 0 where every batch stands alone."""
        return self.cfg.batch_size if self.cfg.layout == "streams" else 0


@dataclass(frozen=True)
class TextSet(TextPass):
    """Training rows without end and one pass over the part that is evaluated."""

    training_rows: Callable[..., dict[str, np.ndarray]]
    """The training rows with given numbers, counted from 0 over all steps."""
    order: Any
    """Which row of which epoch each number is: an Order, or Streams."""
    train: Any
    """The rows of the training part."""

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        """The examples `rows` of a step, as `eval_batch` has them: a function of seed, step and row alone."""
        return self._spelled(self.training_rows(step * self.cfg.batch_size + row for row in rows))

    def places(self, step: int, rows: range) -> np.ndarray:
        """The epoch and the number in it of each of these rows of a step, int64 [B, 2]; reads no token."""
        rows_B, epochs_B = self.order.places(step * self.cfg.batch_size + row for row in rows)
        return np.stack([epochs_B, rows_B], axis=1)

    @property
    def epoch_size(self) -> int:
        """Rows of an epoch, each in it once."""
        return self.order.num_rows

    def origins(self, epoch: int, number: int) -> list[dict]:
        """The documents that a row is made of, and the places in them."""
        names = [document.name for document in self.corpus.parts["train"]]
        spans = self.train.spans(number, self.order.phase(epoch))
        return [origin for span in spans for origin in self.train.tokens.origins(*span, names)]

    @cached_property
    def digest(self) -> str:
        """Names the texts, their division, the tokenizer and the rows; not the seed or the batch size."""
        cfg = self.cfg
        what = f"{self.corpus.digest} {self.tokenizer.digest} {cfg.layout} {cfg.length}"
        return hashlib.sha256(what.encode()).hexdigest()

    @property
    def sizes(self) -> dict[str, int]:
        """What the data decides of a model's configuration."""
        return {"vocab_size": self.tokenizer.vocab_size}

    @property
    def tokens_per_step(self) -> float:
        """Targets of a training batch."""
        return self.cfg.batch_size * self.cfg.length

    def describe(self) -> str:
        """One line: texts, their parts and sizes."""
        return str(self.corpus)

    def save(self, folder: Path) -> None:
        """What turns text into this run's tokens, into a run's folder."""
        self.tokenizer.save(folder / "tokenizer")

    between: ClassVar[str] = ""
    """What stands between a text and what the model writes after it."""

    def prompt(self, text: str) -> list[int]:
        """The tokens that the model goes on from where `text` is to go on."""
        return prompt_of(self.tokenizer, text)

    def baselines(self) -> dict[str, float]:
        """Bits per byte that a compressor and an order-3 model need for the same validation text."""
        train, valid = self.corpus.text("train"), self.corpus.text(self.evaluate)
        if len(train) + len(valid) > 1 << 28:  # 256 MiB: counting would take minutes
            return {}
        return {
            "gzip_bits_per_byte": gzip_bits_per_byte(valid),
            "order3_bits_per_byte": order3_bits_per_byte(train, valid),
        }


def load_text(cfg: DataConfig, seed: int, evaluate: str = "valid") -> TextSet:
    """Reads, divides and encodes the text; a second call on a machine finds the tokens in the cache."""
    corpus = read_corpus(cfg.path, cfg.valid_fraction)
    if evaluate not in corpus.parts:
        raise DataError(
            f"{corpus.name}: has no {evaluate} part, only {', '.join(corpus.parts)}; choose one of these"
        )
    tokenizer = make_tokenizer(
        *(cfg.tokenizer, corpus),
        vocab_path=cfg.vocab_path,
        vocab_size=cfg.vocab_size,
        min_count=cfg.min_count,
    )
    tokens = encode(corpus.parts["train"], tokenizer)
    train = LAYOUTS[cfg.layout](tokens, cfg)
    if not train.num_rows:
        streams = cfg.batch_size if cfg.layout == "streams" else 0
        what = f"{streams} streams take" if streams else "a row takes length + 1 ="
        raise DataError(
            f"{corpus.name}: the training part has {len(tokens.ids):,} tokens and {what} "
            f"{max(streams, 1) * cfg.length + 1:,}; give more text or a smaller length"
        )
    order = train if isinstance(train, Streams) else Order(train, seed)
    training_rows = train.training_rows if isinstance(train, Streams) else order.rows
    evaluated = pass_over(corpus, evaluate, tokenizer, cfg)
    return TextSet(cfg, corpus, tokenizer, evaluate, evaluated.layout, training_rows, order, train)


def load_text_file(cfg: DataConfig, path: Path, tokenizer: Tokenizer) -> TextPass:
    """One file, to be evaluated by a run with this configuration and tokenizer."""
    documents = tuple(read_documents(path, path.name))
    return pass_over(Corpus(str(path), "", {"file": documents}), "file", tokenizer, cfg)


def pass_over(corpus: Corpus, part: str, tokenizer: Tokenizer, cfg: DataConfig) -> TextPass:
    """One pass over a part of a corpus."""
    layout = LAYOUTS[cfg.layout](encode(corpus.parts[part], tokenizer), cfg)
    if not layout.num_targets:
        raise DataError(f"{corpus.name}: the {part} part is too short to hold a target; give more text")
    return TextPass(cfg, corpus, tokenizer, part, layout)
