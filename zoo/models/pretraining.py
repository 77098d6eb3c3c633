"""BERT as it is trained: its head for masked words, and one for how the two texts of a pair belong together.

"BERT" (Devlin et al. 2018, arXiv 1810.04805), section 3.1: the second head tells whether a text goes on from
another; in ALBERT (Lan et al. 2019, arXiv 1909.11942) whether the two are in order. It is the pooler, a tanh
layer over the position of [CLS], and a softmax over two classes.

    features ─┬─ transform ─ tied table ─ words         BERT's own readout, its parameters under "encoder"
              └─ pooler ─ tanh ─ classes                 of any position; a task reads those of [CLS]

What is unusual: a row may hold several pairs, so there is no one pooled position. Parameters under "encoder"
are those of the BERT that it holds.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from zoo.errors import ConfigError
from zoo.layers import Linear
from zoo.models.bert import BERTConfig
from zoo.models.heads import logits
from zoo.models.pure import FlopsPerToken


@dataclass(frozen=True)
class PretrainingConfig:
    """BERT base, uncased, by default."""

    encoder: Any = BERTConfig()
    """Configuration of the BERT that is trained."""

    def __post_init__(self):
        if not isinstance(self.encoder, BERTConfig):
            raise ConfigError(
                f"encoder={type(self.encoder).__name__} has no head for masked words; give a BERTConfig"
            )

    @property
    def vocab_size(self) -> int:
        return self.encoder.vocab_size

    @property
    def max_length(self) -> int:
        return self.encoder.max_length

    @property
    def dtype(self) -> str:
        return self.encoder.dtype

    @property
    def dims(self) -> dict[str, int]:
        """The size of every letter that the parameters use."""
        return self.encoder.dims | {"C": 2}

    @property
    def num_params(self) -> int:
        """The closed form; a test holds it against the arrays."""
        D, C = self.dims["D"], self.dims["C"]
        return self.encoder.num_params + D * D + D + D * C + C

    def flops_per_token(self, length: int) -> FlopsPerToken:
        """BERT's, as if the words of every position were read; the pairs' head is read once a text and
        counts for nothing."""
        return self.encoder.flops_per_token(length)


class Pretraining(nn.Module):
    """Tokens to BERT's features, and these to the logits of words and of what a pair is."""

    traits = frozenset({"head", "pretraining"})
    output = {"words": "V", "pair": "C"}
    config: PretrainingConfig
    encoder: nn.Module

    def setup(self):
        dims = self.config.dims
        self.pooler = Linear("BD,DHK->BHK", dims)  # width D, in parts over tensor
        self.classes = Linear("BD,DC->BC", dims)

    def features(self, inputs, state):
        return self.encoder.features(inputs, state)

    def readout(self, x):
        """{"words": logits [..., V] as stored, "pair": logits [..., 2]} of features [..., D]."""
        x_BD = x.reshape(-1, x.shape[-1])
        pooled_BD = jnp.tanh(self.pooler(x_BD)).reshape(x.shape)
        return {"words": self.encoder.readout(x), "pair": logits(self.classes, pooled_BD)}
