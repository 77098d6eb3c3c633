"""Texts with masked words as batches: the data of BERT's pre-training."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from zoo.data.corpus import Corpus, read_corpus
from zoo.data.files import Document, read_documents
from zoo.data.masked.chunks import make_chunks
from zoo.data.masked.config import MaskedConfig
from zoo.data.masked.rows import MaskedRows
from zoo.data.masked.sentences import encode_sentences, split
from zoo.data.order import Order, draw
from zoo.data.tokenizers import Tokenizer
from zoo.data.tokens import Tokens
from zoo.data.vocabulary import make_tokenizer
from zoo.errors import ConfigError, DataError


@dataclass(frozen=True)
class MaskedPass:
    """One pass over a text: what is evaluated, with the same masks each time, whatever the seed."""

    cfg: MaskedConfig
    tokenizer: Tokenizer
    layout: MaskedRows
    """The rows of that text."""

    carried_rows = 0

    def eval_batch(self, i: int, rows: range) -> dict[str, np.ndarray]:
        """The examples `rows`, some of range(batch_size), of the i-th batch, as MaskedRows.rows has them.
        Behind the last row come empty ones."""
        rows_B = i * self.cfg.batch_size + np.array(rows, np.int64)
        key = draw(0, "masks of evaluation")
        return self.layout.rows(rows_B, np.full(len(rows_B), key, np.uint64))

    @property
    def num_eval_batches(self) -> int:
        """How many batches hold the whole text."""
        return -(-self.layout.num_rows // self.cfg.batch_size)


@dataclass(frozen=True)
class MaskedSet(MaskedPass):
    """Training rows without end and one pass over the part that is evaluated."""

    corpus: Corpus
    training: MaskedRows
    training_rows: Callable[..., dict[str, np.ndarray]]
    """The training rows with given numbers, counted from 0 over all steps."""
    order: Order

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        """The examples `rows` of a step, as `eval_batch` has them: a function of seed, step and row alone."""
        return self.training_rows(step * self.cfg.batch_size + row for row in rows)

    def places(self, step: int, rows: range) -> np.ndarray:
        """The epoch and the number in it of each of these rows of a step, int64 [B, 2]; reads no token."""
        rows_B, epochs_B = self.order.places(step * self.cfg.batch_size + row for row in rows)
        return np.stack([epochs_B, rows_B], axis=1)

    @property
    def epoch_size(self) -> int:
        """Rows of an epoch, each in it once."""
        return self.order.num_rows

    def origins(self, epoch: int, number: int) -> list[dict]:
        """The documents that a row's chunks are from, and the places in them."""
        tokens, names = self._sources
        spans = self.training.spans(number)
        return [origin for span in spans for origin in tokens.origins(*span, names)]

    @cached_property
    def _sources(self) -> tuple[Tokens, list[str]]:
        """The training part without marks, and the names of those documents that have any token."""
        documents, tokenizer = self.corpus.parts["train"], self.tokenizer
        sentences = encode_sentences(documents, tokenizer)
        names = [each.name for each in documents if any(len(tokenizer.encode(s)) for s in split(each.text))]
        return Tokens(sentences.ids, sentences.starts[sentences.documents], False), names

    @cached_property
    def digest(self) -> str:
        """Names the texts, their division and the tokenizer; not the seed or the batch size."""
        what = f"{self.corpus.digest} {self.tokenizer.digest} masked {self.cfg.length}"
        return hashlib.sha256(what.encode()).hexdigest()

    @property
    def sizes(self) -> dict[str, int]:
        """What the data decides of a model's configuration."""
        return {"vocab_size": self.tokenizer.vocab_size}

    @property
    def tokens_per_step(self) -> float:
        """Positions that a training batch has, padding included."""
        return self.cfg.batch_size * self.cfg.length

    def describe(self) -> str:
        """One line: texts, their parts and sizes, and what became of the training part."""
        rows, chunks = self.training.num_rows, len(self.training.chunks)
        return f"{self.corpus}; an epoch has {chunks:,} chunks in {rows:,} rows"

    def save(self, folder: Path) -> None:
        """What turns text into this run's tokens, into a run's folder."""
        self.tokenizer.save(folder / "tokenizer")

    def baselines(self) -> dict[str, float]:
        """What the frequencies of the training part say of the same masked words: the share of the most
        frequent token, and nats per word, each token counted once more than it was seen; and of pairs the
        share of the more frequent label."""
        counts_V = np.bincount(self.training.ids, minlength=self.tokenizer.vocab_size) + 1.0
        counts_V[list(self.tokenizer.special_ids)] = 0
        nats_V = -np.log(np.maximum(counts_V, 1) / counts_V.sum())
        parts = [self.eval_batch(i, range(self.cfg.batch_size)) for i in range(self.num_eval_batches)]
        targets = np.concatenate([part["targets"][part["weights"] > 0] for part in parts])
        found = {
            "unigram_accuracy": float((targets == counts_V.argmax()).mean()),
            "unigram_loss": float(nats_V[targets].mean()),
        }
        if self.cfg.pairs == "none":
            return found
        share = float(self.layout.chunks.labels.mean())
        return found | {"majority_sentence_accuracy": max(share, 1 - share)}


def load_masked(cfg: MaskedConfig, seed: int, evaluate: str = "valid") -> MaskedSet:
    """Reads, divides and encodes the text; a second call on a machine finds the tokens in the cache."""
    corpus = read_corpus(cfg.path, cfg.valid_fraction)
    if evaluate not in corpus.parts:
        raise DataError(
            f"{corpus.name}: has no {evaluate} part, only {', '.join(corpus.parts)}; choose one of these"
        )
    tokenizer = make_tokenizer(cfg.tokenizer, corpus, vocab_path=cfg.vocab_path, vocab_size=cfg.vocab_size)
    check_marks(tokenizer, cfg)
    keys = [draw(seed, f"chunks of copy {copy}") for copy in range(cfg.duplicates)]
    training = rows_of(corpus.name, "train", corpus.parts["train"], tokenizer, cfg, keys)
    evaluated = rows_of(corpus.name, evaluate, corpus.parts[evaluate], tokenizer, cfg, EVALUATION)
    order = Order(training, seed)

    def training_rows(numbers):
        rows_B, epochs_B = order.places(numbers)
        return training.rows(rows_B, mask_keys(cfg, seed, epochs_B))

    return MaskedSet(cfg, tokenizer, evaluated, corpus, training, training_rows, order)


def load_masked_file(cfg: MaskedConfig, path: Path, tokenizer: Tokenizer) -> MaskedPass:
    """One file, to be evaluated by a run with this configuration and tokenizer."""
    documents = tuple(read_documents(path, path.name))
    return MaskedPass(cfg, tokenizer, rows_of(str(path), "file", documents, tokenizer, cfg, EVALUATION))


EVALUATION = [draw(0, "chunks of evaluation")]


def rows_of(
    source: str, part: str, documents: tuple[Document, ...], tokenizer: Tokenizer, cfg: MaskedConfig, keys
) -> MaskedRows:
    """The rows of documents; DataError where there are none."""
    sentences = encode_sentences(documents, tokenizer)
    layout = MaskedRows(sentences.ids, make_chunks(sentences, cfg, keys), tokenizer, cfg)
    if not layout.num_rows:
        raise DataError(f"{source}: the {part} part has no sentences to mask; give more text")
    return layout


def mask_keys(cfg: MaskedConfig, seed: int, epochs_B: np.ndarray) -> np.ndarray:
    """The key that the masks of training rows in these epochs are drawn with."""
    keys = {
        epoch: draw(seed, "masks" if cfg.masking == "static" else f"masks of epoch {epoch}")
        for epoch in set(epochs_B.tolist())
    }
    return np.array([keys[epoch] for epoch in epochs_B.tolist()], np.uint64)


def check_marks(tokenizer: Tokenizer, cfg: MaskedConfig) -> None:
    """ConfigError where a vocabulary lacks a mark that rows are made with."""
    marks = {"mask": "mask", "bos": "beginning", "eot": "end", "pad": "padding"}
    missing = [name for field, name in marks.items() if getattr(tokenizer, field, None) is None]
    if missing:
        raise ConfigError(
            f"vocab_path={cfg.vocab_path}: this vocabulary has no token for the {' and the '.join(missing)}; "
            "give one with [PAD], [CLS], [SEP] and [MASK], or train one with data.vocab_size"
        )
