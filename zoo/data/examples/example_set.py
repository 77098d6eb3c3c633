"""Labelled examples as batches: texts to classify, sentences to tag, pairs to translate or summarise,
questions about a text.

What is longer than max_length: a text to classify is cut. A pair is left out of training, as half a
sentence is no translation of a whole one, and cut where it is evaluated. A tagged sentence is cut in
training; in evaluation it is an error, as the words cut off would be counted neither right nor wrong.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from zoo.data import stdlib
from zoo.data.examples import labels
from zoo.data.examples.buckets import Buckets
from zoo.data.examples.config import ExamplesConfig
from zoo.data.examples.majority import guess_scores
from zoo.data.examples.one_pass import Layout, OnePass, check_whole, encode, one_pass
from zoo.data.examples.padded import Pairs
from zoo.data.examples.record import Parts, check_inputs, inputs_in
from zoo.data.examples.records import read_file, read_records
from zoo.data.examples.stdlib_records import stdlib_records
from zoo.data.examples.windows import Windows
from zoo.data.tokenizers import Tokenizer
from zoo.data.tokenizers.word import WordTokenizer
from zoo.data.vocabulary import make_example_tokenizer
from zoo.errors import DataError

log = logging.getLogger("zoo.data")

Names = Mapping[str, Sequence[str]]
"""The "labels", "tags" and "inputs" of a run."""


@dataclass(frozen=True)
class ExampleSet(OnePass):
    """Training batches without end and one pass over the part that is evaluated."""

    seed: int
    parts: Parts
    """The records of every part."""
    train: Layout
    evaluate: str
    """The part that is evaluated: "valid", "test" or another of `parts`."""

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        """The examples `rows`, some of range(batch_size), of a step: a function of seed, step and row alone.

        padded.py says which arrays these are; their shape is the step's, whichever rows are asked for.
        """
        epoch, step = divmod(step, self.steps_per_epoch)
        return self._rows(self.train, self._epochs(epoch), step, rows)

    def places(self, step: int, rows: range) -> np.ndarray:
        """The epoch and the number of each of these examples of a step, int64 [B, 2]."""
        epoch, step = divmod(step, self.steps_per_epoch)
        numbers_B = self._epochs(epoch).numbers_MB[step][list(rows)]
        return np.stack([np.full_like(numbers_B, epoch), numbers_B], axis=1)

    @property
    def epoch_size(self) -> int:
        """Examples of an epoch, each in it once."""
        return self.steps_per_epoch * self.cfg.batch_size

    def origins(self, epoch: int, number: int) -> list[dict]:
        """The record that an example is, and where it stands."""
        record = int(self.train.record_N[number]) if isinstance(self.train, Windows) else number
        return [{"document": self.parts["train"][record].where, "record": record}]

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every training example is seen once, but for fewer than batch_size of them."""
        return self._training.steps_per_epoch

    @cached_property
    def _training(self) -> Buckets:
        return self._buckets(self.train, trained(self.train))

    @cached_property
    def _epochs(self):
        """epoch -> its batches; two are kept, as batches are read ahead across the end of one."""
        return lru_cache(maxsize=2)(lambda epoch: self._training.epoch(self.seed, epoch))

    @cached_property
    def digest(self) -> str:
        """Names the records, their division, the tokenizer and what becomes of a record as a row.

        Neither the seed nor what is batched with what changes it, nor where the files lie.
        """
        cfg = self.cfg
        own = {"pairs": cfg.max_target_length, "span": cfg.stride}
        rows = [cfg.kind, cfg.wrap, cfg.max_length, own.get(cfg.kind, 0)]
        digest = hashlib.sha256(json.dumps([*rows, self.tokenizer.digest, self.labels, self.tags]).encode())
        for part, records in sorted(self.parts.items()):
            digest.update(json.dumps([part, len(records)]).encode())
            for record in records:
                digest.update(json.dumps(sorted(record.fields.items())).encode() + b"\n")
                digest.update(json.dumps(record.offsets).encode() if cfg.kind == "span" else b"")
        return digest.hexdigest()

    @property
    def sizes(self) -> dict[str, int]:
        """What the data decides of a model's configuration."""
        one = self.cfg.kind in ("score", "choice")  # number for a text, or for a choice
        counts = {"num_classes": 1 if one else len(self.labels), "num_tags": len(self.tags)}
        return {"vocab_size": self.tokenizer.vocab_size} | {name: n for name, n in counts.items() if n}

    @property
    def tokens_per_step(self) -> float:
        """Tokens of a training batch without padding, on average; of pairs those of the targets."""
        return float(self.train.num_tokens_N[self._training.numbers_N].mean() * self.cfg.batch_size)

    def describe(self) -> str:
        """One line: where from, how many of what, and what is cut, left out or unknown."""
        source = self.cfg.path or f"{stdlib.NAME} of {stdlib.version()}"
        facts = [f"{part} {len(records):,}" for part, records in self.parts.items()]
        facts += [
            f"{len(names)} {kind}" for names, kind in ((self.labels, "classes"), (self.tags, "tags")) if names
        ]
        facts += [f"{self.tokenizer.vocab_size:,} tokens ({self.tokenizer.name})", *self._losses()]
        return f"{source}, digest {self.digest[:12]}: {self.cfg.kind}, {', '.join(facts)}"

    def _losses(self) -> list[str]:
        """What does not reach the model as it was written, one phrase each."""
        fate = "left out" if self.cfg.kind == "pairs" else "cut"
        found = [
            f"{layout.is_cut_N.sum():,} of {part} too long and {what}"
            for part, layout, what in (("train", self.train, fate), (self.evaluate, self.layout, "cut"))
            if layout.is_cut_N.any()
        ]
        if isinstance(self.tokenizer, WordTokenizer):
            rows_N = self.layout.having(self.tokenizer.unk)
            if rows_N.any():
                found.append(f"{rows_N.sum():,} of {self.evaluate} with an unknown word")
        return found

    def save(self, folder: Path) -> None:
        """What turns a record into numbers and numbers into names, into a run's folder."""
        self.tokenizer.save(folder / "tokenizer")
        labels.save(folder, {"labels": self.labels, "tags": self.tags, "inputs": self.inputs})

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what an example gives to be read."""
        return inputs_in(self.parts["train"][0])

    def baselines(self) -> dict[str, float]:
        """What a guess scores on the part that is evaluated (majority.py); nothing for pairs and triplets."""
        return guess_scores(self.parts["train"], self.records)


def trained(layout: Layout) -> np.ndarray:
    """The numbers of the examples to train with: all, but of pairs only those that are whole."""
    return np.flatnonzero(~layout.is_cut_N) if isinstance(layout, Pairs) else np.arange(len(layout.is_cut_N))


def load_examples(cfg: ExamplesConfig, seed: int, evaluate: str = "valid") -> ExampleSet:
    """Reads, divides and encodes the records that `cfg` names."""
    if not cfg.path:
        return make_examples(stdlib_records(cfg.kind, cfg.valid_fraction), cfg, seed, evaluate)
    parts = read_records(cfg.path, cfg.kind, cfg.named_columns, cfg.valid_fraction)
    return make_examples(parts, cfg, seed, evaluate)


def make_examples(parts: Parts, cfg: ExamplesConfig, seed: int, evaluate: str = "valid") -> ExampleSet:
    """The data set of these records; all that is counted or named comes from the part "train"."""
    source = cfg.path or stdlib.NAME
    if evaluate not in parts:
        raise DataError(f"{source}: has no {evaluate} part, only {', '.join(parts)}; choose one of these")
    for records in parts.values():
        check_inputs(records, inputs_in(parts["train"][0]))
    tokenizer = make_example_tokenizer(cfg, parts, source)
    classes, tags = labels.names_of(parts, source)
    train, evaluated = (encode(parts[part], tokenizer, classes, tags, cfg) for part in ("train", evaluate))
    for part in sorted(parts.keys() - {"train"}):
        check_whole(parts[part], tokenizer, cfg)
    dataset = ExampleSet(
        *(cfg, tokenizer, classes, tags, parts[evaluate], evaluated), seed, parts, train, evaluate
    )
    if not dataset.steps_per_epoch:
        raise DataError(
            f"{source}: {len(trained(train)):,} training examples do not fill a batch of {cfg.batch_size}; "
            f"give more, or a smaller batch_size{' or a greater max_length' * bool(train.is_cut_N.any())}"
        )
    for loss in dataset._losses():
        log.info("%s: %s", source, loss)
    return dataset


def load_example_file(cfg: ExamplesConfig, path: Path, tokenizer: Tokenizer, names: Names) -> OnePass:
    """One labelled file, to be evaluated by a run with this configuration, tokenizer and names."""
    records = read_file(path, cfg.kind, cfg.named_columns)
    if not records:
        raise DataError(f"{path}: has no record; give a file with some")
    check_inputs(records, names["inputs"])
    return one_pass(records, tokenizer, names["labels"], names["tags"], cfg)
