"""Multiple choice: which of several texts goes with a question.

example    Who wrote it? </s> Ada       Who wrote it? </s> Bo        tokens [G, T], lengths [G]
logits     1.3                          -0.2                         by the one logit of each row

As BERT does it (Devlin et al. 2018, arXiv 1810.04805, section 4.4): one vector for each choice, read
together with the question, a number for each vector, and a softmax over the choices of a question.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from zoo.scores import accuracy
from zoo.tasks.inputs import inputs_of
from zoo.tasks.similarity import present


@dataclass(frozen=True)
class Choice:
    """Choose by the logits of a classifier with one class, by cross-entropy."""

    trait: ClassVar[str] = "classify"  # what a model must promise to be trained so
    kind: ClassVar[str] = "choice"  # of the examples

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, sizes, targets, present} of examples with tokens, lengths, sizes (how many choices there
        are), answer and present."""
        return {
            "inputs": inputs_of(examples),
            "sizes": examples["sizes"],
            "targets": examples["answer"],
            "present": examples["present"],
        }

    def loss(self, x_BGD, readout, batch) -> dict:
        """Sums over the questions: "loss" in nats, and "weight"."""
        logp_BG = jax.nn.log_softmax(chosen_among(readout(x_BGD), batch["sizes"]))
        is_answer_BG = jnp.arange(logp_BG.shape[1]) == batch["targets"][:, None]
        nats_B = -jnp.where(is_answer_BG, logp_BG, 0).sum(-1)
        return {"loss": (nats_B * batch["present"]).sum(), "weight": batch["present"].sum()}

    def predict(self, model, params, x_BGD, inputs) -> dict:
        """The logits of each question's "choices", also of those that only fill up the group."""
        return {"choices": model.readout(params, x_BGD)[..., 0]}

    def outputs(self, model, params, x_BGD, batch) -> dict:
        """What metrics() compares: the most probable choice of each question and the right one."""
        logits_BG = chosen_among(model.readout(params, x_BGD), batch["sizes"])
        return {"predicted": logits_BG.argmax(-1), "answer": batch["targets"], "present": batch["present"]}

    def metrics(self, sums: dict[str, float], outputs, dataset) -> dict[str, float]:
        """Of a validation set: nats per question, and the share of right choices."""
        predicted_B, answer_B = (present(outputs, name) for name in ("predicted", "answer"))
        return {"eval_loss": sums["loss"] / sums["weight"], "accuracy": accuracy(predicted_B, answer_B)}


def chosen_among(logits_BGC, sizes_B):
    """[B, G]: the logit of each choice, of those that are not there the lowest number there is."""
    logits_BG = logits_BGC[..., 0]
    is_there_BG = jnp.arange(logits_BG.shape[1]) < sizes_B[:, None]
    return jnp.where(is_there_BG, logits_BG, jnp.finfo(logits_BG.dtype).min)
