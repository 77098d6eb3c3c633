"""Span extraction: where in a text the answer to a question stands.

example    [CLS] who came ? [SEP] ann came [SEP]         tokens [T], length, start, end
outputs    two logits for every token, of which answers.py makes spans of the text
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from zoo.data.examples.answers import Answer, answers_of
from zoo.errors import ConfigError
from zoo.scores import squad_scores
from zoo.tasks.inputs import inputs_of


@dataclass(frozen=True)
class Span:
    """Predict the first and the last token of each answer, each by a softmax over the row."""

    trait: ClassVar[str] = "span"  # what a model must promise to be trained so
    kind: ClassVar[str] = "span"  # of the examples

    max_answer_length: int = 30
    """Most tokens of an answer that is predicted."""
    num_best: int = 20
    """How many answers to a question are listed."""
    no_answer: float = math.inf
    """How far the score of no answer must be above the best span's to be the answer, 0 for SQuAD 2.0; inf:
    every question has an answer, as in SQuAD 1.1."""

    def __post_init__(self):
        for field in ("max_answer_length", "num_best"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)} must be at least 1")
        if math.isnan(self.no_answer):
            raise ConfigError("no_answer=nan must be a number; 0 for SQuAD 2.0, inf for 1.1")

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, targets, present, index} of examples with tokens, lengths, start, end, present, index."""
        return {
            "inputs": inputs_of(examples),
            "targets": {"start": examples["start"], "end": examples["end"]},
            "present": examples["present"],
            "index": examples["index"],
        }

    def loss(self, x_BTD, readout, batch) -> dict:
        """Sums over the rows: "loss", the mean nats of a beginning and an end, and "weight"."""
        bounds_BTC = readout(x_BTD)
        there_BT = jnp.arange(bounds_BTC.shape[1]) < batch["inputs"]["lengths"][:, None]
        low = jnp.finfo(bounds_BTC.dtype).min
        logp_BTC = jax.nn.log_softmax(jnp.where(there_BT[..., None], bounds_BTC, low), axis=1)
        nats_B = sum(
            -jnp.take_along_axis(logp_BTC[..., i], batch["targets"][name][:, None], axis=1)[:, 0]
            for i, name in enumerate(("start", "end"))
        )
        present_B = batch["present"]
        return {"loss": (nats_B / 2 * present_B).sum(), "weight": present_B.sum()}

    def predict(self, model, params, x_BTD, inputs) -> dict:
        """The logits of each token, "bounds" [B, T, 2]."""
        return {"bounds": model.readout(params, x_BTD)}

    def outputs(self, model, params, x_BTD, batch) -> dict:
        """The logits and which windows they are of."""
        return self.predict(model, params, x_BTD, batch["inputs"]) | {"index": batch["index"]}

    def answers(self, outputs, dataset) -> Mapping[int, Answer]:
        """{record: answer} for all of which outputs have a window."""
        return answers_of(
            *(dataset, _windows(outputs)),
            count=self.num_best,
            longest=self.max_answer_length,
            margin=self.no_answer,
        )

    def metrics(self, sums: dict[str, float], outputs, dataset) -> dict[str, float]:
        """Of a validation set: nats per window, and exact match and F1 of the answers, SQuAD's."""
        answers = self.answers(outputs, dataset)
        targets = [dataset.records[record].fields.get("answers", ()) for record in answers]
        scores = squad_scores([answer.text for answer in answers.values()], targets)
        return {"eval_loss": sums["loss"] / sums["weight"]} | scores


def _windows(outputs) -> Iterator[tuple[int, np.ndarray]]:
    """The number of each window and its logits [T, 2]."""
    for part in outputs:
        for number, bounds_T2 in zip(part["index"], part["bounds"], strict=True):
            if number >= 0:
                yield int(number), bounds_T2
