"""Heads: what is read out of an encoder's features instead of the next token.

    tokens ─ encoder ─ x_BTD ─┬─ pooling ─ tanh layer ─ classes            classifier.py
                              ├─ pooling ─ an embedding of the text        embedder.py
                              ├─ softmax at every position, or CRF         tagger.py
                              ├─ attention for either ─ classes and tags   joint.py
                              ├─ words, and a tanh layer ─ kinds of pairs  pretraining.py
                              └─ where an answer begins and ends           span.py

The encoder is any other model, held as a field by the head's configuration and handed to its module. An
encoder's configuration says `d_features`, the width of its features, and, where their first half was read
forward and their second half backward, `num_directions`, 2.

What reads one vector a text also takes texts in groups, [B, G, T]: pairs to be compared, choices to be made.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from zoo.errors import ConfigError, nearest
from zoo.models.pure import FlopsPerToken


@dataclass(frozen=True)
class HeadConfig:
    """What the configurations of all heads have."""

    encoder: Any
    """Configuration of the model whose features are read."""
    dropout_rate: float
    """Share dropped of what every layer of the head reads, apart from what the encoder drops itself."""

    def __post_init__(self):
        if not hasattr(self.encoder, "flops_of_features"):
            raise ConfigError(
                f"encoder={type(self.encoder).__name__} is no encoder; a head reads the features of one text"
            )
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
        return getattr(self.encoder, "num_directions", 1)

    @property
    def dims(self) -> dict[str, int]:
        """The size of every letter that has one size in encoder and head."""
        return {"V": self.vocab_size}

    @property
    def num_head_params(self) -> int:
        """Parameters that are not the encoder's."""
        raise NotImplementedError

    @property
    def num_params(self) -> int:
        """The closed form; a test holds it against the arrays. An encoder's output layer is not there."""
        return self.encoder.num_feature_params + self.num_head_params

    def flops_per_token(self, length: int) -> FlopsPerToken:
        """Forward and backward of one token: the encoder's without an output layer, and 6 for each of the
        head's parameters, as if all of them worked at every position."""
        full, causal = self.encoder.flops_of_features(length)
        return FlopsPerToken(full + 6 * self.num_head_params, causal + 6 * self.num_head_params)


def encoded(encoder, inputs, state):
    """(x_BTD, lengths_B) of whole rows. Raises ValueError for packed rows and for pieces of a text."""
    if state is not None:
        raise ValueError("a head reads whole rows; it takes no state")
    if "segments" in inputs:
        raise ValueError("a head reads one text a row; give 'lengths' instead of 'segments'")
    B, T = inputs["tokens"].shape
    x_BTD, _ = encoder.features(inputs, None)
    return x_BTD, inputs.get("lengths", jnp.full(B, T))


def at_words(x_BTD, inputs):
    """The features at the first piece of every word, [B, W, D]; where tokens are words, all of them."""
    if "word_starts" not in inputs:
        return x_BTD
    return jnp.take_along_axis(x_BTD, inputs["word_starts"][..., None], axis=1)


def flattened(inputs) -> dict:
    """Inputs of which every text is a row of its own: [B, G, T] becomes [B G, T]."""
    if inputs["tokens"].ndim == 2:
        return inputs
    return {name: x.reshape(-1, *x.shape[2:]) for name, x in inputs.items()}


def logits(linear, x):
    """A linear layer "BD,DC->BC" of features [..., D], computed in at least float32."""
    x_BD = promoted(x).reshape(-1, x.shape[-1])
    return linear(x_BD).reshape(*x.shape[:-1], -1)


def promoted(x):
    """In float32 what is less precise."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def one_of(name: str, value: str, known) -> None:
    if value not in known:
        raise ConfigError(f"{name}={value!r} is none of {', '.join(known)}{nearest(value, known)}")


def not_negative(config, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 0:
            raise ConfigError(f"{name}={getattr(config, name)} must not be negative")
