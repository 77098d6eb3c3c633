"""Masked language modelling (BERT, arXiv 1810.04805): the words that are hidden, from both sides.

inputs     the [MASK] sat on the mat       tokens [T]
picked         1                           positions [P], weight 0 where a row has fewer
targets        cat                         words [P]

Logits are computed at the picked positions only: P is about 15 % of T. MaskedPairs also learns from pairs of
texts, by the [CLS] with which each begins, what the second is to the first.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from zoo.losses import cross_entropy, summed
from zoo.sharding import constrain


@dataclass(frozen=True)
class MaskedLM:
    """Predict the masked words of a text."""

    trait: ClassVar[str] = "bidirectional"  # what a model must promise to be trained so
    kind: ClassVar[str] = "masked"  # of the examples

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, picked, targets, weights} of examples with tokens, segments, positions [B, T] and picked,
        targets, weights [B, P]."""
        read = ("tokens", "segments", "positions", "token_types")
        return {
            "inputs": {name: examples[name] for name in read if name in examples},
            "picked": examples["picked"],
            "targets": examples["targets"],
            "weights": examples["weights"],
        }

    def loss(self, x_BTD, readout, batch) -> dict:
        """Sums over the masked words: "loss" in nats, "weight", how many, and "right", how many of them are
        the most probable word."""
        x_BPD = at(x_BTD, batch["picked"])
        return summed(word_sums, readout, x_BPD, batch["targets"], batch["weights"])

    def scored(self, x_BTD, readout, batch):
        """The logits of each masked word, and whether it counts."""
        return readout(at(x_BTD, batch["picked"])), batch["weights"]

    def outputs(self, model, params, x_BTD, batch) -> dict:
        """Nothing: the sums say it all."""
        return {}

    def metrics(self, sums: dict[str, float], outputs: list, dataset) -> dict[str, float]:
        """Of a validation set: nats per masked word, their exponential, and the share of words found."""
        return word_metrics(sums["loss"], sums)


@dataclass(frozen=True)
class MaskedPairs:
    """Predict the masked words of pairs of texts, and what each pair is (next sentence, or order)."""

    trait: ClassVar[str] = "pretraining"  # what a model must promise to be trained so
    kind: ClassVar[str] = "masked_pairs"  # of the examples

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """MaskedLM's, and "pairs": the firsts, labels and label_weights [B, S] of the pairs in each row."""
        names = ("firsts", "labels", "label_weights")
        return MaskedLM().batch(examples) | {"pairs": {name: examples[name] for name in names}}

    def loss(self, x_BTD, readout, batch) -> dict:
        """Sums: "nats", "weight" and "right" of the masked words, "pair_nats", "pair_weight" and "pair_right"
        of the pairs, and "loss", the nats of both.

        A pair weighs as many words as a pair has masked ones on average, so that the loss is, as in BERT, the
        mean over words and the mean over pairs, added.
        """

        def sums(logits, targets, weights):
            return word_sums(logits["words"], targets, weights)

        x_BPD, pairs = at(x_BTD, batch["picked"]), batch["pairs"]
        words = summed(sums, readout, x_BPD, batch["targets"], batch["weights"])
        logits_BSC, labels_BS = readout(at(x_BTD, pairs["firsts"]))["pair"], pairs["labels"]
        weighed, pair_weight = cross_entropy(logits_BSC, labels_BS, pairs["label_weights"])
        is_pair_BS = pairs["label_weights"] > 0
        right_BS = (logits_BSC.argmax(-1) == labels_BS) & is_pair_BS
        return {
            "loss": words["loss"] + weighed,
            "nats": words["loss"],
            "weight": words["weight"],
            "right": words["right"],
            "pair_nats": weighed,
            "pair_weight": pair_weight,
            "pair_right": right_BS.sum().astype(jnp.float32),
            "pairs": is_pair_BS.sum().astype(jnp.float32),
        }

    def outputs(self, model, params, x_BTD, batch) -> dict:
        """Nothing: the sums say it all."""
        return {}

    def metrics(self, sums: dict[str, float], outputs: list, dataset) -> dict[str, float]:
        """Of a validation set: MaskedLM's, and of the pairs nats and the share of right ones."""
        return word_metrics(sums["nats"], sums) | {
            "sentence_loss": sums["pair_nats"] / max(sums["pair_weight"], 1),
            "sentence_accuracy": sums["pair_right"] / max(sums["pairs"], 1),
        }


def at(x_BTD, places_BP):
    """The features of each row at these positions, [B, P, D]; rows stay where they are."""
    return constrain(jnp.take_along_axis(x_BTD, places_BP[..., None], axis=1), "BPD")


def word_sums(logits_BPV, targets_BP, weights_BP) -> dict:
    nats, weight = cross_entropy(logits_BPV, targets_BP, weights_BP)
    right_BP = (logits_BPV.argmax(-1) == targets_BP) * weights_BP
    return {"loss": nats, "weight": weight, "right": right_BP.sum()}


def word_metrics(nats: float, sums: dict[str, float]) -> dict[str, float]:
    loss = nats / max(sums["weight"], 1)
    return {
        "eval_loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),  # beyond that a float overflows
        "masked_accuracy": sums["right"] / max(sums["weight"], 1),
    }
