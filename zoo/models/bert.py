"""BERT: a Transformer encoder that reads both ways, and predicts masked words.

"BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding" (Devlin et al. 2018, arXiv
1810.04805), with the sizes of its releases (the small ones: Turc et al. 2019, arXiv 1908.08962). Learned
positions, token types, normalisation after each addition, erf GELU. The configuration also covers RoBERTa
(Liu et al. 2019, arXiv 1907.11692: one token type, positions that count from 2) and DistilBERT (Sanh et al.
2019, arXiv 1910.01108: no token types, half the layers).

    tokens + positions + token types ─ norm ─ block ... block ─ features ─ transform ─ tied table ─ logits

The pooler is not here: a dense tanh layer over the first position is what a classifier with pooling="first"
and d_hidden=d_model is (classifier.py). What is unusual: nothing in the mathematics; the blocks are one block
scanned over stacked parameters.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from zoo.attention import All, Lengths, Segments, attention
from zoo.errors import ConfigError
from zoo.layers import ACTIVATIONS, Embed, LayerNorm, Linear, constant, dropout, dropout_key, parameter
from zoo.models.pure import FlopsPerToken
from zoo.models.stack import stacked
from zoo.models.transformer_config import check_transformer


@dataclass(frozen=True)
class BERTConfig:
    """BERT base, uncased, by default."""

    vocab_size: int = 30_522
    """Words of the vocabulary; 0 in a recipe: as many as its tokenizer has."""
    max_length: int = 512
    """Longest row, in tokens."""
    num_layers: int = 12
    num_heads: int = 12
    """Attention heads; they divide d_model."""
    d_model: int = 768
    d_ff: int = 0
    """Width of the feed-forward layer; 0: four times d_model, as published."""
    num_token_types: int = 2
    """Kinds of token that inputs "token_types" tell apart (the first and the second text); 0: none."""
    position_offset: int = 0
    """Rows of the position table before the one of the first token: 2 in RoBERTa."""
    dropout_rate: float = 0.1
    """Share dropped after the embedding, of attention weights, and at the end of each branch."""
    activation: str = "gelu"
    """gelu (the erf form), gelu_tanh or relu."""
    norm_epsilon: float = 1e-12
    """Added to the variance in every norm; 1e-5 in RoBERTa."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Of activations; parameters are float32, norms, softmax and logits at least that."""
    remat: str = "none"
    """What the backward pass recomputes: none, dots (all but matmuls), full (each whole block), or all but
    named tensors, "save:query,up,offload:attention" (zoo/models/remat.py)."""
    layer_unroll: int = 1
    """Blocks per trip of the layer loop; 0 unrolls it whole (faster for few layers, slower to compile)."""

    def __post_init__(self):
        check_transformer(self)
        for field in ("num_token_types", "position_offset"):
            if getattr(self, field) < 0:
                raise ConfigError(f"{field}={getattr(self, field)} must not be negative")
        if not 0.0 < self.norm_epsilon < 1.0:
            raise ConfigError(f"norm_epsilon={self.norm_epsilon} must be above 0 and less than 1")

    @property
    def dims(self) -> dict[str, int]:
        """The size of every letter that the parameters use."""
        return {
            "V": self.vocab_size,
            "M": self.max_length + self.position_offset,
            "N": self.num_layers,
            "D": self.d_model,
            "H": self.num_heads,
            "K": self.d_model // self.num_heads,
            "F": self.d_ff or 4 * self.d_model,
        }

    @property
    def d_features(self) -> int:
        """Width of the features."""
        return self.d_model

    @property
    def num_feature_params(self) -> int:
        """Parameters without what only the masked words' logits need."""
        V, M, N, D, F = (self.dims[letter] for letter in "VMNDF")
        block = (4 * D * D + 4 * D) + (2 * D * F + F + D) + 4 * D  # attention, feed-forward, two norms
        return (V + M + self.num_token_types) * D + 2 * D + N * block

    @property
    def num_params(self) -> int:
        """The closed form; a test holds it against the arrays."""
        V, D = self.vocab_size, self.d_model
        return self.num_feature_params + D * D + D + 2 * D + V  # transform, its norm, the words' biases

    def flops_per_token(self, length: int) -> FlopsPerToken:
        """Forward and backward of one token in rows of `length`, every position's logits counted: 6 a
        parameter (the tied table once, as output) and 12 N D T for scores and mixing, all of it needed."""
        flops = float(6 * self.num_params + 12 * self.num_layers * self.d_model * length)
        return FlopsPerToken(full=flops, causal=flops)

    def flops_of_features(self, length: int) -> FlopsPerToken:
        """The same without the transform and the output layer."""
        head = self.num_params - self.num_feature_params + self.vocab_size * self.d_model
        return FlopsPerToken(*(flops - 6 * head for flops in self.flops_per_token(length)))


def _bert(num_layers, d_model, num_heads, **changes):
    return BERTConfig(num_layers=num_layers, d_model=d_model, num_heads=num_heads, **changes)


_ROBERTA = {"vocab_size": 50_265, "num_token_types": 1, "position_offset": 2, "norm_epsilon": 1e-5}

SIZES = {
    "bert_tiny": _bert(2, 128, 2),
    "bert_mini": _bert(4, 256, 4),
    "bert_small": _bert(4, 512, 8),
    "bert_medium": _bert(8, 512, 8),
    "bert_base": BERTConfig(),
    "bert_base_cased": BERTConfig(vocab_size=28_996),
    "bert_base_chinese": BERTConfig(vocab_size=21_128),
    "bert_large": _bert(24, 1024, 16),
    "roberta_base": _bert(12, 768, 12, **_ROBERTA),
    "roberta_large": _bert(24, 1024, 16, **_ROBERTA),
    "distilbert_base": _bert(6, 768, 12, num_token_types=0),
}


class BERT(nn.Module):
    """Tokens to features, and features to the logits of words."""

    traits = frozenset({"bidirectional"})
    output = "V"
    bottom = ("tokens", "positions", "token_types", "norm")
    config: BERTConfig

    def setup(self):
        cfg = self.config
        self.tokens = Embed("V", cfg.dims)
        self.positions = Embed("M", cfg.dims)
        if cfg.num_token_types:
            self.token_types = Embed(".", {".": cfg.num_token_types, "D": cfg.d_model})
        self.norm = LayerNorm(cfg.dims, epsilon=cfg.norm_epsilon)
        self.blocks = stacked(Block, cfg, in_axes=nn.broadcast)

    def features(self, inputs, state):
        cfg, tokens_BT = self.config, inputs["tokens"]
        _, T = tokens_BT.shape
        if state is not None:
            raise ValueError("a model that reads both ways reads whole rows; it takes no state")
        if T > cfg.max_length:
            raise ValueError(f"a row of {T} tokens is longer than the model, max_length={cfg.max_length}")
        place_BT = inputs.get("positions", jnp.arange(T)[None]) + cfg.position_offset
        x_BTD = self.tokens(tokens_BT, cfg.dtype) + self.positions(place_BT, cfg.dtype)
        if cfg.num_token_types:
            zeros_BT = jnp.zeros_like(tokens_BT)  # one type tells no texts apart
            types_BT = inputs.get("token_types", zeros_BT) if cfg.num_token_types > 1 else zeros_BT
            x_BTD += self.token_types(types_BT, cfg.dtype)
        x_BTD = dropout(self.norm(x_BTD), cfg.dropout_rate, dropout_key(self))
        x_BTD, _ = self.blocks(x_BTD, seen(inputs))
        return x_BTD, None

    @nn.compact  # declares the head's parameters where they are read: not under another head
    def readout(self, x):
        """Features [..., D] to logits over the stored vocabulary, by the head for masked words."""
        cfg = self.config
        x_BD = x.reshape(-1, cfg.d_model)
        h_BHK = Linear("BD,DHK->BHK", cfg.dims, name="transform")(x_BD)  # width D, in parts over tensor
        h_BD = ACTIVATIONS[cfg.activation](h_BHK.reshape(x_BD.shape))
        h_BD = LayerNorm(cfg.dims, epsilon=cfg.norm_epsilon, name="transform_norm")(h_BD)
        bias_V = parameter(self, "bias", "V", cfg.dims, constant(0.0))
        return self.tokens.attend(h_BD.reshape(x.shape), cfg.vocab_size, bias_V)

    def initial_state(self, batch_size: int, length: int):
        """Raises ValueError: there is none."""
        raise ValueError("a model that reads both ways reads whole rows; it has no state to go on from")


def seen(inputs):
    """What a position may look at: its document of a packed row, the words of its row, or everything."""
    if "segments" in inputs:
        return Segments(inputs["segments"])
    return Lengths(inputs["lengths"]) if "lengths" in inputs else All()


class Block(nn.Module):
    """Attention, then a feed-forward layer, each added to the stream and normalised after that."""

    config: BERTConfig

    @nn.compact
    def __call__(self, x_BTD, sees):
        cfg = self.config
        norm = functools.partial(LayerNorm, cfg.dims, epsilon=cfg.norm_epsilon)
        x_BTD = norm(name="norm1")(x_BTD + Attention(cfg, name="attention")(x_BTD, sees))
        x_BTD = norm(name="norm2")(x_BTD + FeedForward(cfg, name="mlp")(x_BTD))
        self.sow("intermediates", "x_BTD", x_BTD)  # for Model.layers, and nothing where that is not asked
        return x_BTD, None


class Attention(nn.Module):
    """Multi-head attention over the row."""

    config: BERTConfig

    @nn.compact
    def __call__(self, x_BTD, sees):
        cfg, dims = self.config, self.config.dims
        q_BTHK, k_BTHK, v_BTHK = (
            Linear("BTD,DHK->BTHK", dims, name=name)(x_BTD) for name in ("query", "key", "value")
        )
        self.sow("intermediates", "q_BTHK", q_BTHK)
        self.sow("intermediates", "k_BTHK", k_BTHK)
        y_BTHK = attention(
            *(q_BTHK, k_BTHK, v_BTHK, sees), dropout_rate=cfg.dropout_rate, dropout_key=dropout_key(self)
        )
        y_BTHK = checkpoint_name(y_BTHK, "attention")
        y_BTD = Linear("BTHK,HKD->BTD", dims, name="out")(y_BTHK)
        return dropout(y_BTD, cfg.dropout_rate, dropout_key(self))


class FeedForward(nn.Module):
    """Up, activation, down."""

    config: BERTConfig

    @nn.compact
    def __call__(self, x_BTD):
        cfg = self.config
        h_BTF = ACTIVATIONS[cfg.activation](Linear("BTD,DF->BTF", cfg.dims, name="up")(x_BTD))
        y_BTD = Linear("BTF,FD->BTD", cfg.dims, name="down")(h_BTF)
        return dropout(y_BTD, cfg.dropout_rate, dropout_key(self))
