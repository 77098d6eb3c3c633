"""Classification: one of a few labels for every row.

example    the cat sat on the mat   statement        tokens [T], length, label
outputs    the most probable label, beside the right one
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError
from zoo.scores import accuracy, class_scores, matthews
from zoo.tasks.inputs import inputs_of


@dataclass(frozen=True)
class Classify:
    """Predict each row's label, by cross-entropy."""

    trait: ClassVar[str] = "classify"  # what a model must promise to be trained so
    kind: ClassVar[str] = "classify"  # of the examples

    label_smoothing: float = 0.0
    """Probability that the learned target spreads evenly over all labels (arXiv 1512.00567, section 7)."""
    class_weights: tuple[float, ...] = ()
    """How much a row of each label counts, in the labels' order; empty: all the same."""

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing={self.label_smoothing} must be at least 0 and less than 1")
        for weight in self.class_weights:
            if not 0 <= weight < math.inf:
                raise ConfigError(f"class_weights: {weight} must be a number of at least 0")

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, targets, present} of examples with tokens, lengths, label and present."""
        return {
            "inputs": inputs_of(examples),
            "targets": examples["label"],
            "present": examples["present"],
        }

    def loss(self, x_BD, readout, batch) -> dict:
        """Sums over the rows: "loss" and "weight", smoothed and weighted; "nats" and "count", neither."""
        logits_BC, targets_B, present_B = readout(x_BD), batch["targets"], batch["present"]
        C = logits_BC.shape[-1]
        if len(self.class_weights) not in (0, C):
            raise ConfigError(f"class_weights has {len(self.class_weights)} values for {C} labels")
        weights_C = jnp.array(self.class_weights or (1.0,) * C)
        is_target_BC = jnp.arange(C) == targets_B[:, None]
        learned_BC = (1 - self.label_smoothing) * is_target_BC + self.label_smoothing / C
        logp_BC = jax.nn.log_softmax(logits_BC)
        weights_B = present_B * weights_C[targets_B]
        return {
            "loss": -((learned_BC * logp_BC).sum(-1) * weights_B).sum(),
            "weight": weights_B.sum(),
            "nats": -(jnp.where(is_target_BC, logp_BC, 0).sum(-1) * present_B).sum(),
            "count": present_B.sum(),
        }

    def scored(self, x_BD, readout, batch):
        """The logits of each row's labels, and how much the row counts."""
        logits_BC = readout(x_BD)
        weights_C = jnp.array(self.class_weights or (1.0,) * logits_BC.shape[-1])
        return logits_BC, batch["present"] * weights_C[batch["targets"]]

    def predict(self, model, params, x_BD, inputs) -> dict:
        """The most probable "label" of each row, and its "probability"."""
        probability_BC = jax.nn.softmax(model.readout(params, x_BD))
        return {"label": probability_BC.argmax(-1), "probability": probability_BC.max(-1)}

    def outputs(self, model, params, x_BD, batch) -> dict:
        """What metrics() compares: the most probable label of each row and the right one."""
        predicted_B = self.predict(model, params, x_BD, batch["inputs"])["label"]
        return {"predicted": predicted_B, "label": batch["targets"], "present": batch["present"]}

    def metrics(self, sums: dict[str, float], outputs, dataset) -> dict[str, float]:
        """Of a validation set: nats per row, accuracy, the mean F1 of the labels, and of two labels
        Matthews correlation."""
        predicted_B, label_B = (
            np.concatenate([part[name][part["present"] > 0] for part in outputs])
            for name in ("predicted", "label")
        )
        found = {
            "eval_loss": sums["nats"] / sums["count"],
            "accuracy": accuracy(predicted_B, label_B),
            "macro_f1": class_scores(predicted_B, label_B, dataset.labels).macro.f1,
        }
        return found | ({"matthews": matthews(predicted_B, label_B)} if len(dataset.labels) == 2 else {})
