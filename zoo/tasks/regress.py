"""Regression: a number for every row, for a text or for two that are read together.

example    A plane is taking off. </s> An air plane is taking off.   5.0        tokens [T], length, score

With two texts in a row this is how BERT was fine-tuned for STS-B: every position of the one sees the other,
so nothing can be embedded beforehand (similarity.py does that).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from zoo.scores import pearson, spearman
from zoo.tasks.inputs import inputs_of
from zoo.tasks.similarity import present


@dataclass(frozen=True)
class Regress:
    """Predict each row's score by the one logit of a classifier with one class, by squared error."""

    trait: ClassVar[str] = "classify"  # what a model must promise to be trained so
    kind: ClassVar[str] = "score"  # of the examples

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, targets, present} of examples with tokens, lengths, score and present."""
        return {
            "inputs": inputs_of(examples),
            "targets": examples["score"],
            "present": examples["present"],
        }

    def loss(self, x_BD, readout, batch) -> dict:
        """Sums over the rows: "loss", squared errors, and "weight"."""
        error_B, present_B = readout(x_BD)[:, 0] - batch["targets"], batch["present"]
        return {"loss": (error_B**2 * present_B).sum(), "weight": present_B.sum()}

    def predict(self, model, params, x_BD, inputs) -> dict:
        """The "score" of each row."""
        return {"score": model.readout(params, x_BD)[:, 0]}

    def outputs(self, model, params, x_BD, batch) -> dict:
        """What metrics() compares: each row's predicted score and the right one."""
        predicted_B = self.predict(model, params, x_BD, batch["inputs"])["score"]
        return {"predicted": predicted_B, "score": batch["targets"], "present": batch["present"]}

    def metrics(self, sums: dict[str, float], outputs, dataset) -> dict[str, float]:
        """Of a validation set: the mean squared error, and the correlation of predictions with scores."""
        predicted_B, score_B = (present(outputs, name) for name in ("predicted", "score"))
        return {
            "eval_loss": sums["loss"] / sums["weight"],
            "pearson": pearson(predicted_B, score_B),
            "spearman": spearman(predicted_B, score_B),
        }
