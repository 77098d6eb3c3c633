"""Embedder: a text as one vector, over any encoder.

Sentence-BERT (Reimers and Gurevych 2019, arXiv 1908.10084): the encoder's features pooled to one vector,
trained so that texts of like meaning lie in like directions (tasks/similarity.py). Two texts that are
compared are two rows of one batch, read by the same encoder, neither seeing the other:

    tokens_BGT ─ B G rows ─ encoder ─ pooling ─ x_BGD ─ [projection] ─ [unit length] ─ embedding_BGE

The default is the shape of all-MiniLM-L6-v2: six layers of 384, the mean, unit length. Its release has a
pooler as well, 384 x 384 + 384 parameters that no embedding reads; they are not here.
"""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn

from zoo.layers import Linear, dropout, dropout_key, unit
from zoo.models.bert import BERTConfig
from zoo.models.heads import HeadConfig, encoded, flattened, logits, not_negative, one_of, promoted
from zoo.models.pooling import first, largest, last, mean

POOLINGS = ("mean", "first", "max", "last")
LENGTHS = ("l2", "none")


@dataclass(frozen=True)
class EmbedderConfig(HeadConfig):
    """The shape of all-MiniLM-L6-v2 by default."""

    encoder: Any = BERTConfig(num_layers=6, num_heads=12, d_model=384)
    dropout_rate: float = 0.0
    pooling: Literal["mean", "first", "max", "last"] = "mean"
    """How a row becomes one vector."""
    d_output: int = 0
    """Width of the embedding; 0: that of the features, without a projection."""
    normalize: Literal["l2", "none"] = "l2"
    """l2: embeddings have length 1, so that their dot product is the cosine; none: as they come."""

    def __post_init__(self):
        super().__post_init__()
        one_of("pooling", self.pooling, POOLINGS)
        one_of("normalize", self.normalize, LENGTHS)
        not_negative(self, "d_output")

    @property
    def head_dims(self) -> dict[str, int]:
        """The sizes that the head's parameters have, D being the width of the features."""
        return {"D": self.encoder.d_features, "E": self.d_output or self.encoder.d_features}

    @property
    def num_head_params(self) -> int:
        D, E = self.head_dims["D"], self.head_dims["E"]
        return D * E + E if self.d_output else 0


SIZES = {
    "minilm_l6_embedder": EmbedderConfig(),
    "minilm_l12_embedder": EmbedderConfig(BERTConfig(num_layers=12, num_heads=12, d_model=384)),
}


class Embedder(nn.Module):
    """Tokens [B, T] or [B, G, T] to a vector for every text, and that to its embedding."""

    traits = frozenset({"head", "embed"})
    output = ""
    config: EmbedderConfig
    encoder: nn.Module

    def setup(self):
        cfg, dims = self.config, self.config.head_dims
        if cfg.d_output:
            self.projection = Linear("BD,DE->BE", dims, std=dims["D"] ** -0.5)

    def features(self, inputs, state):
        x_BTD, lengths_B = encoded(self.encoder, flattened(inputs), state)
        x_BD = dropout(self._pooled(x_BTD, lengths_B), self.config.dropout_rate, dropout_key(self))
        return x_BD.reshape(*inputs["tokens"].shape[:-1], -1), None

    def _pooled(self, x_BTD, lengths_B):
        if self.config.pooling == "last":
            return last(x_BTD, lengths_B, num_directions=self.config.num_directions)
        return {"first": first, "mean": mean, "max": largest}[self.config.pooling](x_BTD, lengths_B)

    def readout(self, x):
        """Vectors [..., D] to embeddings [..., E], in at least float32."""
        x = logits(self.projection, x) if self.config.d_output else promoted(x)
        return unit(x) if self.config.normalize == "l2" else x
