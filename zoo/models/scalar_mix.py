"""ELMo: the layers of a biLM as word vectors, by a learned sum.

Peters et al. 2018 (arXiv 1802.05365), equation 1:  gamma * sum over j of softmax(s)_j x_j

    biLM ─ x_0, ..., x_L ─ mix ─ [B, T, 2 D] ─ any head

An encoder like any other: heads hold an ELMoConfig as their encoder. The paper keeps the biLM's weights as
they came; here they learn with the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.errors import ConfigError
from zoo.layers import constant, dropout, dropout_key, parameter
from zoo.models.bilm_config import BiLMConfig
from zoo.models.pure import FlopsPerToken


@dataclass(frozen=True)
class ELMoConfig:
    """The released biLM and the dropout of the paper's section A.2."""

    encoder: BiLMConfig = field(default_factory=BiLMConfig)
    dropout_rate: float = 0.5
    """Share dropped of the mixed vectors."""

    def __post_init__(self):
        if not 0.0 <= self.dropout_rate < 1.0:
            raise ConfigError(f"dropout_rate={self.dropout_rate} must be at least 0 and less than 1")

    @property
    def vocab_size(self) -> int:
        return self.encoder.vocab_size

    @property
    def dtype(self) -> str:
        return self.encoder.dtype

    @property
    def num_directions(self) -> int:
        return 2

    @property
    def d_features(self) -> int:
        return self.encoder.d_features

    @property
    def dims(self) -> dict[str, int]:
        """The size of every letter that has one size in all of the model."""
        return self.encoder.dims

    @property
    def num_feature_params(self) -> int:
        """Parameters: the biLM's without its output layer, a weight a layer, and gamma."""
        return self.encoder.num_feature_params + self.encoder.num_layers + 2

    num_params = num_feature_params

    def flops_per_token(self, length: int) -> FlopsPerToken:
        """Those of the biLM without its output layer; the sum costs next to nothing."""
        return self.encoder.flops_of_features(length)

    flops_of_features = flops_per_token


class ELMo(nn.Module):
    """Words to mixed vectors; there is nothing to read out."""

    config: ELMoConfig
    encoder: nn.Module
    traits = frozenset({"directions"})
    output = ""

    @property
    def reads(self) -> tuple[str, ...]:
        return self.encoder.reads

    def setup(self):
        self.mix = ScalarMix(self.config.encoder.num_layers + 1)

    def features(self, inputs, state):
        """The mixed layers [B, T, 2 D]."""
        mixed_BTE = self.mix(self.encoder.layers(inputs, state))
        return dropout(mixed_BTE, self.config.dropout_rate, dropout_key(self)), None

    def readout(self, x):
        """The features themselves."""
        return x

    def initial_state(self, batch_size: int, length: int):
        """Raises ValueError: there is none."""
        return self.encoder.initial_state(batch_size, length)


class ScalarMix(nn.Module):
    """The learned sum of some layers of equal shape. At first their mean."""

    num_layers: int

    @nn.compact
    def __call__(self, layers: Sequence):
        weights = parameter(self, "weights", ".", {".": self.num_layers}, constant(0.0))
        gamma = parameter(self, "gamma", "1", {"1": 1}, constant(1.0))
        return mixed(layers, weights, gamma)


def mixed(layers: Sequence, weights, gamma):
    """gamma times the sum of the layers, weighted by the softmax of `weights`."""
    shares = gamma * jax.nn.softmax(weights)
    total = sum(share * layer for share, layer in zip(shares, layers, strict=True))
    return jnp.asarray(total).astype(layers[0].dtype)
