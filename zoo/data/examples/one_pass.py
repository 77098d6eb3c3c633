"""Some records in batches, each once: what is evaluated or predicted."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np

from zoo.data.examples.buckets import Batches, Buckets
from zoo.data.examples.config import ExamplesConfig
from zoo.data.examples.encoding import (
    encode_pairs,
    encode_pieces,
    encode_texts,
    encode_words,
    has_types,
    marks_of_pair,
    sizes_of_words,
    words_are_tokens,
)
from zoo.data.examples.groups import Groups, encode_choices, encode_scored, encode_separately
from zoo.data.examples.padded import Pairs, Sequences
from zoo.data.examples.record import Record
from zoo.data.examples.spelling import Spelled, characters_of, every_word, inputs_alone
from zoo.data.examples.windows import encode_questions
from zoo.data.tokenizers import Tokenizer
from zoo.data.tokenizers.word import WordTokenizer
from zoo.errors import DataError

log = logging.getLogger("zoo.data")

Layout = Sequences | Pairs | Groups


@dataclass(frozen=True)
class OnePass:
    """Records as batches, short ones first; every record is in one of them, or where it has several rows
    each of these."""

    cfg: ExamplesConfig
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    """The names of the classes, in the order of their numbers; none where there are no classes."""
    tags: tuple[str, ...]
    """The names of the tags."""
    records: tuple[Record, ...]
    """`index` of a batch of pairs counts them from 0."""
    layout: Layout
    """The same as numbers."""

    def eval_batch(self, i: int, rows: range) -> dict[str, np.ndarray]:
        """The examples `rows`, some of range(batch_size), of the i-th batch; `present` is 0 in rows that only
        fill up the last one."""
        return self._rows(self.layout, self._evaluation, i, rows)

    def numbers(self, i: int) -> np.ndarray:
        """Which records, or rows of records, the rows of the i-th batch are, -1 where none is."""
        return self._evaluation.numbers_MB[i]

    @property
    def num_eval_batches(self) -> int:
        """How many batches hold all records."""
        return len(self._evaluation.numbers_MB)

    @property
    def carried_rows(self) -> int:
        """Rows that go on from step to step: none, every batch stands alone."""
        return 0

    @cached_property
    def _evaluation(self) -> Batches:
        return self._buckets(self.layout, np.arange(len(self.layout.is_cut_N))).once()

    def _rows(self, layout: Layout, batches: Batches, i: int, rows: range) -> dict[str, np.ndarray]:
        return layout.rows(batches.numbers_MB[i][list(rows)], batches.shapes_MK[i])

    def _buckets(self, layout: Layout, numbers_N: np.ndarray) -> Buckets:
        last = self.cfg.max_target_length if isinstance(layout, Pairs) else self.cfg.max_length
        lengths_NK = layout.lengths_NK[numbers_N]
        limits = (self.cfg.max_length, last)[-lengths_NK.shape[1] :]
        return Buckets(numbers_N, lengths_NK, limits, self.cfg.bucket, self.cfg.batch_size)


def encode(
    records: Sequence[Record],
    tokenizer: Tokenizer,
    classes: Sequence[str],
    tags: Sequence[str],
    cfg: ExamplesConfig,
) -> Layout:
    """The layout of records of the configuration's kind."""
    layout = numbered(records, tokenizer, classes, tags, cfg)
    if not cfg.characters:
        return layout
    inputs = [inputs_alone(record) for record in records]
    speller = every_word(inputs, cast(WordTokenizer, tokenizer))
    words = cast(Sequences, numbered(inputs, speller, (), (), cfg)).tokens
    texts = cast(Sequences, layout)
    characters = Spelled(words, characters_of(speller))
    return dataclasses.replace(texts, per_token={**texts.per_token, "characters": characters})


def numbered(
    records: Sequence[Record],
    tokenizer: Tokenizer,
    classes: Sequence[str],
    tags: Sequence[str],
    cfg: ExamplesConfig,
) -> Layout:
    """The same without characters."""
    if cfg.kind == "classify":
        return encode_texts(records, tokenizer, classes, wrap=cfg.wrap, max_length=cfg.max_length)
    if cfg.kind == "span":
        return encode_questions(
            *(records, tokenizer),
            marks=marks_of_pair(tokenizer),
            typed=has_types(tokenizer),
            max_length=cfg.max_length,
            stride=cfg.stride,
        )
    if cfg.kind == "score":
        return encode_scored(records, tokenizer, wrap=cfg.wrap, max_length=cfg.max_length)
    if cfg.kind in ("similarity", "matches", "triplets"):
        return encode_separately(records, tokenizer, wrap=cfg.wrap, max_length=cfg.max_length)
    if cfg.kind == "choice":
        return encode_choices(records, tokenizer, wrap=cfg.wrap, max_length=cfg.max_length)
    if cfg.kind == "pairs":
        return encode_pairs(
            *(records, tokenizer),
            wrap=cfg.wrap,
            max_length=cfg.max_length,
            max_target_length=cfg.max_target_length,
        )
    if words_are_tokens(tokenizer, cfg.wrap):
        words = cast(WordTokenizer, tokenizer)
        return encode_words(records, words, tags, classes, max_length=cfg.max_length)
    return encode_pieces(records, tokenizer, tags, classes, wrap=cfg.wrap, max_length=cfg.max_length)


def one_pass(
    records: Sequence[Record],
    tokenizer: Tokenizer,
    classes: Sequence[str],
    tags: Sequence[str],
    cfg: ExamplesConfig,
) -> OnePass:
    """These records for a run with this configuration, tokenizer and names; DataError for a tagged sentence
    that is longer than a row."""
    check_whole(records, tokenizer, cfg)
    layout = encode(records, tokenizer, classes, tags, cfg)
    if layout.is_cut_N.any():
        log.warning("%s of %s are too long and were cut", f"{layout.is_cut_N.sum():,}", f"{len(records):,}")
    return OnePass(cfg, tokenizer, tuple(classes), tuple(tags), tuple(records), layout)


def check_whole(records: Sequence[Record], tokenizer: Tokenizer, cfg: ExamplesConfig) -> None:
    """DataError where a sentence whose every word gets a tag is longer than a row."""
    if cfg.kind not in ("tag", "slots"):
        return
    sizes = sizes_of_words(records, tokenizer, cfg.wrap)
    if (size := max(sizes)) > cfg.max_length:
        longest = records[sizes.index(size)]
        what = "words" if words_are_tokens(tokenizer, cfg.wrap) else "pieces and marks"
        raise DataError(
            f"{longest.where}: {size} {what}, more than max_length={cfg.max_length}, and every word counts "
            f"here; set max_length to {size} or more"
        )
