"""Span: where in a text the answer to a question begins and where it ends.

BERT for SQuAD (Devlin et al. 2018, arXiv 1810.04805, section 4.2): one linear layer over the features of
every token of "[CLS] question [SEP] text [SEP]" gives two logits, of the beginning and of the end of the
answer. Of a question that the text does not answer both are at [CLS] (version 2.0, section 4.3).
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn

from zoo.layers import Linear, dropout, dropout_key
from zoo.models.bert import BERTConfig
from zoo.models.heads import HeadConfig, encoded, logits


@dataclass(frozen=True)
class SpanConfig(HeadConfig):
    """BERT base for SQuAD by default."""

    encoder: Any = BERTConfig()
    dropout_rate: float = 0.0

    @property
    def dims(self) -> dict[str, int]:
        return super().dims | {"C": 2}

    @property
    def head_dims(self) -> dict[str, int]:
        """The sizes that the head's parameters have, D being the width of the features."""
        return {"D": self.encoder.d_features, "C": 2}

    @property
    def num_head_params(self) -> int:
        return 2 * self.head_dims["D"] + 2


class Span(nn.Module):
    """Tokens to features, and those to two logits at every position."""

    traits = frozenset({"head", "span"})
    output = "C"
    config: SpanConfig
    encoder: nn.Module

    def setup(self):
        self.bounds = Linear("BD,DC->BC", self.config.head_dims, std=0.02)  # as all of BERT begins

    def features(self, inputs, state):
        x_BTD, _ = encoded(self.encoder, inputs, state)
        return dropout(x_BTD, self.config.dropout_rate, dropout_key(self)), None

    def readout(self, x):
        """Features [..., D] to the logits of a beginning and an end, [..., 2]."""
        return logits(self.bounds, x)
