"""Classifier: one of a few classes for a whole row, over any encoder.

By default the sentence classifier of Flax's SST-2 example (google/flax, examples/sst2): a bidirectional
LSTM whose states are pooled by attention from the keys alone (a simplification of Bahdanau et al. 2014,
arXiv 1409.0473), then a tanh layer. Two classes have two logits here, where the example has one and a
sigmoid: the same function, whose difference of logits learns twice as fast under plain SGD.
"""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from zoo.errors import ConfigError
from zoo.layers import ACTIVATIONS, Linear, dropout, dropout_key
from zoo.models.heads import HeadConfig, encoded, flattened, logits, not_negative, one_of
from zoo.models.pooling import POOLINGS, AdditiveAttention, first, largest, last, mean
from zoo.models.rnn import RNNConfig

HIDDEN_ACTIVATIONS = {"tanh": jnp.tanh, "relu": ACTIVATIONS["relu"], "gelu": ACTIVATIONS["gelu"]}


@dataclass(frozen=True)
class ClassifierConfig(HeadConfig):
    """The text classifier of Flax's SST-2 example by default."""

    encoder: Any = RNNConfig(
        vocab_size=13_523, direction="both", num_layers=1, d_model=300, d_state=256, word_dropout_rate=0.1
    )
    dropout_rate: float = 0.5
    num_classes: int = 2
    """Classes; 0 in a recipe: as many as its data has labels."""
    pooling: Literal["first", "last", "mean", "max", "attention"] = "attention"
    """How a row becomes one vector."""
    d_attention: int = 256
    """Hidden width of the attention; nothing else reads it."""
    d_hidden: int = 256
    """Width of the layer between that vector and the classes; 0: none."""
    hidden_activation: Literal["tanh", "relu", "gelu"] = "tanh"
    """Of that layer: tanh is BERT's pooler and RoBERTa's head, relu DistilBERT's."""

    def __post_init__(self):
        super().__post_init__()
        one_of("pooling", self.pooling, POOLINGS)
        one_of("hidden_activation", self.hidden_activation, HIDDEN_ACTIVATIONS)
        not_negative(self, "num_classes", "d_hidden")
        if self.d_attention < 1:
            raise ConfigError(f"d_attention={self.d_attention} must be at least 1")

    @property
    def dims(self) -> dict[str, int]:
        return super().dims | {"C": self.num_classes}

    @property
    def head_dims(self) -> dict[str, int]:
        """The sizes that the head's parameters have, D being the width of the features."""
        return {
            "D": self.encoder.d_features,
            "E": self.d_attention,
            "F": self.d_hidden,
            "C": self.num_classes,
        }

    @property
    def num_head_params(self) -> int:
        D, E, F, C = (self.head_dims[letter] for letter in "DEFC")
        attention = D * E + E if self.pooling == "attention" else 0
        return attention + (D * F + F + F * C + C if F else D * C + C)


class Classifier(nn.Module):
    """Tokens [B, T] or [B, G, T] to one vector a text, and that to the logits of classes."""

    traits = frozenset({"head", "classify"})
    output = "C"
    config: ClassifierConfig
    encoder: nn.Module

    def setup(self):
        cfg, dims = self.config, self.config.head_dims
        if cfg.pooling == "attention":
            self.attention = AdditiveAttention(dims)
        if cfg.d_hidden:
            self.hidden = Linear("BD,DF->BF", dims, std=dims["D"] ** -0.5)
        width = "F" if cfg.d_hidden else "D"
        self.classes = Linear(f"B{width},{width}C->BC", dims, std=dims[width] ** -0.5)

    def features(self, inputs, state):
        cfg = self.config
        x_BTD, lengths_B = encoded(self.encoder, flattened(inputs), state)
        x_BD = dropout(self._pooled(x_BTD, lengths_B), cfg.dropout_rate, dropout_key(self))
        if cfg.d_hidden:
            x_BD = HIDDEN_ACTIVATIONS[cfg.hidden_activation](self.hidden(x_BD))
            x_BD = dropout(x_BD, cfg.dropout_rate, dropout_key(self))
        return x_BD.reshape(*inputs["tokens"].shape[:-1], -1), None

    def _pooled(self, x_BTD, lengths_B):
        if self.config.pooling == "attention":
            return self.attention(x_BTD, lengths_B)[:, 0]
        if self.config.pooling == "last":
            return last(x_BTD, lengths_B, num_directions=self.config.num_directions)
        return {"first": first, "mean": mean, "max": largest}[self.config.pooling](x_BTD, lengths_B)

    def readout(self, x):
        """Vectors [..., D] to logits [..., C]."""
        return logits(self.classes, x)
