"""Tagging: one tag for every word.

example    Anna  Smith  sleeps        tokens [T], length
tags       B-PER I-PER  O             tags [T], or [W] of words in several pieces

What is read out of the features is a distribution over rows of tags (zoo/crf.py): a softmax for every
word, or a CRF for the row as a whole. It knows its own loss and its best tags.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from zoo.crf import PerToken
from zoo.errors import ConfigError
from zoo.scores import accuracy, entity_scores, scheme_of
from zoo.tasks.inputs import counts_of_words, inputs_of


@dataclass(frozen=True)
class Tag:
    """Predict the tags of each row."""

    trait: ClassVar[str] = "tag"  # what a model must promise to be trained so
    kind: ClassVar[str] = "tag"  # of the examples

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, targets, present} of examples with tokens, lengths, tags and present."""
        return {
            "inputs": inputs_of(examples),
            "targets": examples["tags"],
            "present": examples["present"],
        }

    def loss(self, x_BTD, readout, batch) -> dict:
        """Sums over the batch: "loss" in nats and "weight", the number of words."""
        lengths_B, present_B = counts_of_words(batch["inputs"]), batch["present"]
        nats_B = readout(x_BTD).nats(batch["targets"], lengths_B)
        nats = jnp.where(present_B > 0, nats_B, 0).sum()  # not a product: a tag may cost infinitely much
        return {"loss": nats, "weight": (lengths_B * present_B).sum()}

    def scored(self, x_BTD, readout, batch):
        """The logits of each word's tag, and whether it counts. Raises ConfigError for those of a CRF."""
        tags = readout(x_BTD)
        if not isinstance(tags, PerToken):
            raise ConfigError(
                "distill compares each word's tags, and a CRF has them by rows; set model.decoder=softmax"
            )
        there_BT = jnp.arange(tags.emissions_BTC.shape[1]) < counts_of_words(batch["inputs"])[:, None]
        return tags.emissions_BTC, there_BT * batch["present"][:, None]

    def predict(self, model, params, x_BTD, inputs) -> dict:
        """The best "tags" [B, T] of each row."""
        return {"tags": model.readout(params, x_BTD).best(counts_of_words(inputs))}

    def outputs(self, model, params, x_BTD, batch) -> dict:
        """What metrics() compares: the best tags of each row and the right ones."""
        return {
            "predicted": self.predict(model, params, x_BTD, batch["inputs"])["tags"],
            "tags": batch["targets"],
            "lengths": counts_of_words(batch["inputs"]),
            "present": batch["present"],
        }

    def metrics(self, sums: dict[str, float], outputs, dataset) -> dict[str, float]:
        """Of a validation set: nats per word, the share of right tags, and where the tags name entities
        conlleval's precision, recall and F1 of these."""
        found = {"eval_loss": sums["loss"] / sums["weight"], "tag_accuracy": tag_accuracy(outputs)}
        scheme = scheme_of(dataset.tags)
        if scheme is None:
            return found
        scores = entity_scores(
            named(outputs, "predicted", dataset.tags), named(outputs, "tags", dataset.tags), scheme
        ).micro
        return found | {
            "entity_precision": scores.precision,
            "entity_recall": scores.recall,
            "entity_f1": scores.f1,
        }


def rows(outputs, name: str) -> list[np.ndarray]:
    """The rows of an output [B, T] over all batches, each as long as it is; rows that only fill up a batch
    are left out."""
    return [
        row[:length]
        for part in outputs
        for row, length, present in zip(part[name], part["lengths"], part["present"], strict=True)
        if present
    ]


def tag_accuracy(outputs) -> float:
    """The share of words whose tag is right."""
    return accuracy(np.concatenate(rows(outputs, "predicted")), np.concatenate(rows(outputs, "tags")))


def named(outputs, name: str, tags: Sequence[str]) -> list[list[str]]:
    """rows() with the names of the tags."""
    return [[tags[index] for index in row] for row in rows(outputs, name)]
