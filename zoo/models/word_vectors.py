"""Word vectors: two tables, one of words and one of the contexts they are found in.

word2vec (Mikolov et al. 2013, arXiv 1301.3781 and 1310.4546) scores a word beside a context by the product
of their vectors; GloVe (Pennington et al. 2014, aclanthology.org/D14-1162) adds a bias of each:

    features    x = words[i]                          (with biases: words[i] and word_bias[i] side by side)
    readout     x . contexts[j]    [+ word_bias[i] + context_bias[j]]

Which tells them apart is what they are trained for: zoo/tasks/word_vectors.py. No position sees another.

What is unusual: the readout takes `rows`, and then scores those contexts alone, so that a task that samples
its contexts touches only their vectors. Contexts of a whole batch row are one matrix product:

    x_BTD with rows_BC -> [B, T, C]     every position of row b beside every context of row b
    x_BD  with rows_BC -> [B, C]
"""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from zoo.errors import ConfigError
from zoo.layers import Embed, constant, parameter, uniform
from zoo.models.pure import FlopsPerToken


@dataclass(frozen=True)
class WordVectorsConfig:
    """The vectors that were published with arXiv 1310.4546, by default."""

    vocab_size: int = 3_000_000
    """Words; 0 in a recipe: as many as its tokenizer has."""
    d_model: int = 300
    """Width of a vector."""
    bias: bool = False
    """A number per word and one per context, added to their score, as GloVe has them."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Of features; parameters are float32, scores at least that."""

    def __post_init__(self):
        if self.vocab_size < 0:
            raise ConfigError(f"vocab_size={self.vocab_size} must not be negative")
        if self.d_model < 1:
            raise ConfigError(f"d_model={self.d_model} must be at least 1")
        if self.dtype not in ("float32", "bfloat16", "float64"):
            raise ConfigError(f"dtype={self.dtype!r} is none of float32, bfloat16, float64")

    @property
    def dims(self) -> dict[str, int]:
        """The size of every letter that the parameters use."""
        return {"V": self.vocab_size, "D": self.d_model}

    @property
    def num_params(self) -> int:
        """Two tables, and a bias for each of their rows."""
        return 2 * self.vocab_size * (self.d_model + self.bias)

    def flops_per_token(self, length: int) -> FlopsPerToken:
        """Forward and backward of one word beside one context: D products and D sums, three times.

        The sampled contexts that a task scores beside it are its own choice and not counted.
        """
        return FlopsPerToken(full=6 * self.d_model, causal=6 * self.d_model)


SIZES = {
    "word2vec_news": WordVectorsConfig(),  # code.google.com/archive/p/word2vec: 3 million words and phrases
    "glove_6b": WordVectorsConfig(vocab_size=400_000, bias=True),  # nlp.stanford.edu/projects/glove
}


class WordVectors(nn.Module):
    """Words to vectors, and vectors to scores of contexts."""

    traits = frozenset({"table"})
    output = "V"
    config: WordVectorsConfig

    def setup(self):
        cfg = self.config
        # Both tools begin so: words within half a unit over all of D. Contexts begin at zero as word2vec's;
        # GloVe's spreads them like the words, which its first step does anyway.
        self.words = Embed("V", cfg.dims, uniform(0.5 / cfg.d_model))
        self.contexts = Embed("V", cfg.dims, constant(0.0))
        if cfg.bias:
            self.word_bias = parameter(self, "word_bias", "V", cfg.dims, constant(0.0))
            self.context_bias = parameter(self, "context_bias", "V", cfg.dims, constant(0.0))

    def features(self, inputs, state):
        """Vectors of the tokens [B] or [B, T], with their bias as one more column where there is one."""
        tokens, dtype = inputs["tokens"], self.config.dtype
        tokens_BT = tokens.reshape(len(tokens), -1)
        x = self.words(tokens_BT, dtype).reshape(*tokens.shape, -1)
        if self.config.bias:
            x = jnp.concatenate([x, take(self.word_bias, tokens)[..., None].astype(dtype)], axis=-1)
        return x, state

    def readout(self, x, rows=None):
        """Scores of features, [..., D], with all contexts, [..., V], or of [B, ..., D] with those of
        `rows` [B, C], [B, ..., C]."""
        x, own = (x[..., :-1], x[..., -1:]) if self.config.bias else (x, None)
        bias_V = self.context_bias if self.config.bias else None
        if rows is None:
            scores = self.contexts.attend(x, self.config.vocab_size, bias_V)
        else:
            scores = self._scores_of(x, rows)
        return scores if own is None else scores + own.astype(scores.dtype)

    def _scores_of(self, x, rows_BC):
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        c_BCD = self.contexts(rows_BC, x.dtype)
        x_BTD = x.reshape(len(x), -1, x.shape[-1])
        scores_BTC = jnp.einsum("BTD,BCD->BTC", x_BTD, c_BCD, preferred_element_type=dtype)
        if self.config.bias:
            scores_BTC += take(self.context_bias, rows_BC)[:, None].astype(dtype)
        return scores_BTC.reshape(*x.shape[:-1], -1)


def take(bias_V, ids):
    """The entries of these words."""
    return jnp.take(bias_V, ids, mode="clip")
