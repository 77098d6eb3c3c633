"""Encoders for the tests of heads: the smallest there is, one that reads both ways, one that attends."""

from dataclasses import dataclass

import flax.linen as nn

from zoo.layers import Embed
from zoo.models import MODELS
from zoo.models.gpt import GPTConfig
from zoo.models.pure import FlopsPerToken, Model
from zoo.models.rnn import RNNConfig


@dataclass(frozen=True)
class WordsConfig:
    """A vector for every word, and no context."""

    vocab_size: int = 11
    d_model: int = 6
    num_directions: int = 1
    """2: as if the second half of a vector had been read backward."""
    dtype: str = "float32"

    @property
    def d_features(self) -> int:
        return self.d_model

    @property
    def dims(self) -> dict[str, int]:
        return {"V": self.vocab_size, "D": self.d_model}

    @property
    def num_params(self) -> int:
        return self.vocab_size * self.d_model

    num_feature_params = num_params

    def flops_per_token(self, length: int) -> FlopsPerToken:
        return FlopsPerToken(6.0 * self.num_params, 6.0 * self.num_params)

    def flops_of_features(self, length: int) -> FlopsPerToken:
        return FlopsPerToken(0.0, 0.0)


class Words(nn.Module):
    config: WordsConfig

    def setup(self):
        self.table = Embed("V", self.config.dims)

    def features(self, inputs, state):
        return self.table(inputs["tokens"], self.config.dtype), state


WORDS = WordsConfig()
LSTM = RNNConfig(
    vocab_size=11, direction="both", num_layers=1, d_model=8, d_state=8, dropout_rate=0.0, init_scale=0.3
)
TRANSFORMER = GPTConfig(vocab_size=11, max_length=8, num_layers=1, num_heads=2, d_model=8, dropout_rate=0.0)


def model_of(config) -> Model:
    """The pure functions of a head's configuration."""
    modules = MODELS | {WordsConfig: Words}
    return Model(config, modules[type(config)](config, modules[type(config.encoder)](config.encoder)))
