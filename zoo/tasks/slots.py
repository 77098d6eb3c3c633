"""Intents and slots together: a label for the whole utterance and a tag for every word.

example    play some jazz                 label PlayMusic
tags       O    O    B-genre              tags [T]
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError
from zoo.scores import accuracy, entity_scores, scheme_of, sentence_accuracy
from zoo.tasks.inputs import counts_of_words, inputs_of
from zoo.tasks.tag import named, tag_accuracy


@dataclass(frozen=True)
class Slots:
    """Predict the label and the tags of each row: the sum of the two losses (Liu and Lane 2016)."""

    trait: ClassVar[str] = "slots"  # what a model must promise to be trained so
    kind: ClassVar[str] = "slots"  # of the examples

    slot_weight: float = 1.0
    """What the slots' mean loss per word counts beside the intent's."""

    def __post_init__(self):
        if not 0 <= self.slot_weight < math.inf:
            raise ConfigError(f"slot_weight={self.slot_weight} must be a number of at least 0")

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, targets, present} of examples with tokens, lengths, label, tags and present."""
        return {
            "inputs": inputs_of(examples),
            "targets": {"label": examples["label"], "tags": examples["tags"]},
            "present": examples["present"],
        }

    def loss(self, x, readout, batch) -> dict:
        """Sums over the rows: "loss", an utterance's intent in nats and its slots in nats per word (as
        Goo et al. 2018 do it, so that long utterances count no more than short ones), and "weight"."""
        read, targets = readout(x), batch["targets"]
        lengths_B, present_B = counts_of_words(batch["inputs"]), batch["present"]
        logp_BC = jax.nn.log_softmax(read["intent"])
        is_target_BC = jnp.arange(logp_BC.shape[-1]) == targets["label"][:, None]
        intent_B = -jnp.where(is_target_BC, logp_BC, 0).sum(-1)
        slots_B = read["slots"].nats(targets["tags"], lengths_B) / jnp.maximum(lengths_B, 1)
        loss_B = intent_B + self.slot_weight * slots_B
        return {"loss": jnp.where(present_B > 0, loss_B, 0).sum(), "weight": present_B.sum()}

    def predict(self, model, params, x, inputs) -> dict:
        """The most probable intent of each row, "label", its "probability", and the best "tags" [B, T]."""
        read = model.readout(params, x)
        probability_BC = jax.nn.softmax(read["intent"])
        return {
            "label": probability_BC.argmax(-1),
            "probability": probability_BC.max(-1),
            "tags": read["slots"].best(counts_of_words(inputs)),
        }

    def outputs(self, model, params, x, batch) -> dict:
        """What metrics() compares: the most probable intents, the best slots, and the right ones."""
        found = self.predict(model, params, x, batch["inputs"])
        return {
            "intent": found["label"],
            "predicted": found["tags"],
            "lengths": counts_of_words(batch["inputs"]),
            "present": batch["present"],
            **batch["targets"],
        }

    def metrics(self, sums: dict[str, float], outputs, dataset) -> dict[str, float]:
        """Of a validation set: the loss, the share of right intents, of right tags, and of utterances of
        which both are wholly right, and where the tags name slots their F1, conlleval's."""
        intent_B, label_B = (
            np.concatenate([part[name][part["present"] > 0] for part in outputs])
            for name in ("intent", "label")
        )
        predicted = named(outputs, "predicted", dataset.tags)
        expected = named(outputs, "tags", dataset.tags)
        found = {
            "eval_loss": sums["loss"] / sums["weight"],
            "intent_accuracy": accuracy(intent_B, label_B),
            "tag_accuracy": tag_accuracy(outputs),
            "sentence_accuracy": sentence_accuracy(
                predicted_tags=predicted,
                target_tags=expected,
                predicted_labels=intent_B.tolist(),
                target_labels=label_B.tolist(),
            ),
        }
        scheme = scheme_of(dataset.tags)
        return found | (
            {} if scheme is None else {"slot_f1": entity_scores(predicted, expected, scheme).micro.f1}
        )
