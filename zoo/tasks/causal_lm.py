"""Language modelling from left to right: at every position, the next token.

example    the cat sat on the mat        tokens [T + 1]
inputs     the cat sat on the            tokens [T]
targets        cat sat on the mat        targets [T], weight 0 where none is meant
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from zoo.errors import ConfigError
from zoo.losses import cross_entropy, drift, summed


@dataclass(frozen=True)
class CausalLM:
    """Predict each token from those before it."""

    trait: ClassVar[str] = "causal"  # what a model must promise to be trained so
    kind: ClassVar[str] = "text"  # of the examples

    z_loss: float = 0.0
    """Added to the loss of each target, times the squared logarithm of the softmax's denominator; 1e-4 in
    PaLM (arXiv 2204.02311)."""

    def __post_init__(self):
        if not 0 <= self.z_loss < 1:
            raise ConfigError(f"z_loss={self.z_loss} must be at least 0 and less than 1")

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, targets, weights} of examples with "tokens" [B, T + 1].

        "segments" and "positions" [B, T] of packed rows pass through to the model; "weights" [B, T]
        says which targets count (default: all); "begins" [B] of parallel streams, which of them begin here.
        """
        tokens = examples["tokens"]
        layout = {key: examples[key] for key in ("segments", "positions") if key in examples}
        weights = examples.get("weights")
        streams = {"begins": examples["begins"]} if "begins" in examples else {}
        return {
            "inputs": {"tokens": tokens[:, :-1], **layout},
            "targets": tokens[:, 1:],
            "weights": np.ones(tokens[:, 1:].shape, np.float32) if weights is None else weights,
            **streams,
        }

    def loss(self, x_BTD, readout, batch) -> dict:
        """Sums over the batch: "nats", "weight", the number of targets that count, and "loss", the nats with
        what z_loss adds."""

        def sums(logits, targets, weights):
            nats, weight = cross_entropy(logits, targets, weights)
            loss = nats + self.z_loss * drift(logits, weights) if self.z_loss else nats
            return {"loss": loss, "nats": nats, "weight": weight}

        return summed(sums, readout, x_BTD, batch["targets"], batch["weights"])

    def scored(self, x_BTD, readout, batch):
        """The logits of each position's next token, and how much it counts."""
        return readout(x_BTD), batch["weights"]

    def outputs(self, model, params, x_BTD, batch) -> dict:
        """Nothing: the sums say it all."""
        return {}

    def metrics(self, sums: dict[str, float], outputs: list, dataset) -> dict[str, float | None]:
        """Of a validation set: nats per token, perplexity, and bits per byte of its text.

        Bits per byte compare models with different tokenizers, and with compressors; None where the
        tokens do not spell the text. Where only a part of the set was read, its bytes are taken in
        proportion.
        """
        loss = sums["nats"] / sums["weight"]
        bytes_per_token = dataset.eval_bytes / dataset.num_eval_targets
        return {
            "eval_loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),  # beyond that a float overflows
            "bits_per_byte": loss / math.log(2) / bytes_per_token if dataset.tokenizer.spells_text else None,
        }
