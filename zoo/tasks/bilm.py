"""Language modelling in both directions (ELMo, arXiv 1802.05365): the next token from the left, the token
before from the right.

example          the cat sat on      tokens [T + 1]
forward read     the cat sat         and predict      cat sat on
backward read        cat sat on      and predict  the cat sat

Between two neighbours, each is predicted from the other's side: T targets a direction.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from zoo.losses import cross_entropy, summed


@dataclass(frozen=True)
class BidirectionalLM:
    """Predict each token from those before it, and from those behind it."""

    trait: ClassVar[str] = "directions"  # what a model must promise to be trained so
    kind: ClassVar[str] = "text"  # of the examples

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, targets, weights} of examples with "tokens" [B, T + 1].

        "characters" [B, T + 1, 50] pass through to the model; "weights" [B, T] says between which
        neighbours is predicted (default: all); "segments" [B, T] are the documents of packed rows.
        """
        tokens = examples["tokens"]
        weights = examples.get("weights", np.ones(tokens[:, 1:].shape, np.float32))
        inputs = {"tokens": tokens}
        if "characters" in examples:
            inputs["characters"] = examples["characters"]
        if "segments" in examples:  # the last token belongs to the document that predicts it, or to none
            segments = examples["segments"]
            last = np.where(weights[:, -1:] > 0, segments[:, -1:], 0)
            inputs["segments"] = np.concatenate([segments, last], axis=1)
        return {
            "inputs": inputs,
            "targets": np.stack([tokens[:, 1:], tokens[:, :-1]], axis=-1),
            "weights": weights,
        }

    def loss(self, x_BTE, readout, batch) -> dict:
        """Sums over the batch: "loss", the mean of both directions' nats, and "weight", the neighbours that
        count; "forward" and "backward", the nats of each."""
        forward, backward = jnp.split(x_BTE, 2, axis=-1)
        x = jnp.concatenate([forward[:, :-1], backward[:, 1:]], axis=-1)

        def sums(logits, targets, weights):
            nats = {}
            for side, name in enumerate(("forward", "backward")):
                nats[name], weight = cross_entropy(logits[..., side, :], targets[..., side], weights)
            return {"loss": (nats["forward"] + nats["backward"]) / 2, "weight": weight, **nats}

        return summed(sums, readout, x, batch["targets"], batch["weights"])

    def outputs(self, model, params, x_BTE, batch) -> dict:
        """Nothing: the sums say it all."""
        return {}

    def metrics(self, sums: dict[str, float], outputs: list, dataset) -> dict[str, float]:
        """Of a validation set: nats per token, and the perplexity of each direction and of their mean."""
        nats = {
            "perplexity": sums["loss"],
            "forward_perplexity": sums["forward"],
            "backward_perplexity": sums["backward"],
        }
        # Beyond 700 nats a float overflows.
        found = {name: math.exp(min(total / sums["weight"], 700.0)) for name, total in nats.items()}
        return {"eval_loss": sums["loss"] / sums["weight"]} | found
