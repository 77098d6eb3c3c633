"""ModernBERT: an encoder for masked words with what decoders have learned since BERT.

"Smarter, Better, Faster, Longer" (Warner et al. 2024, arXiv 2412.13663), with the sizes of its release:
rotary positions instead of a table, GeGLU (Shazeer 2020, arXiv 2002.05202), normalisation before each layer,
no biases but the words'. One layer in three looks at the whole row, the others at 64 positions on either
side, and the two kinds turn by different rotary bases.

    tokens ─ norm ─ [attention +, norm ─ GeGLU +, norm] ... [...] ─ features ─ transform ─ tied table

What is unusual: where a block ends. The first attention has no norm of its own, as the embedding is
normalised already. So a block here ends with the norm that the next attention reads, and the last block's is
the final norm: all blocks are alike, and one is scanned over stacked parameters. Whether it sees the row or a
window is a scanned value. Initial values are not truncated at two deviations, as the release's are.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from zoo.attention import All, Choice, Window, attention
from zoo.errors import ConfigError
from zoo.layers import (
    ACTIVATIONS,
    Embed,
    LayerNorm,
    Linear,
    constant,
    dropout,
    dropout_key,
    parameter,
)
from zoo.models.bert import seen
from zoo.models.pure import FlopsPerToken
from zoo.models.remat import GATED
from zoo.models.stack import stacked
from zoo.models.transformer_config import branch_std, check_transformer
from zoo.rotary import rotary_frequencies, rotate


@dataclass(frozen=True)
class ModernBERTConfig:
    """ModernBERT base by default."""

    vocab_size: int = 50_368
    """Words of the vocabulary; 0 in a recipe: as many as its tokenizer has."""
    max_length: int = 8_192
    """Longest row, in tokens; no parameter depends on it."""
    num_layers: int = 22
    num_heads: int = 12
    """Attention heads; they divide d_model into even widths."""
    d_model: int = 768
    d_ff: int = 1_152
    """Width of the feed-forward layer's two halves, the gated and the gating one."""
    global_every: int = 3
    """One layer in so many, counted from the first, sees the whole row."""
    reach: int = 64
    """How many positions on either side the other layers see; the paper's window of 128 is twice that."""
    global_rotary_base: float = 160_000.0
    """Of the layers that see the row: the slowest pair turns once in about 2 pi times as many positions."""
    local_rotary_base: float = 10_000.0
    dropout_rate: float = 0.0
    """Share dropped after the embedding, of attention weights, after attention, and inside GeGLU."""
    activation: str = "gelu"
    """Of GeGLU and of the masked words' head: gelu (the erf form), gelu_tanh or relu."""
    norm_epsilon: float = 1e-5
    """Added to the variance in every norm."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Of activations; parameters are float32, norms, rotations, softmax and logits at least that."""
    remat: str = "none"
    """What the backward pass recomputes: none, dots (all but matmuls), full (each whole block), or all but
    named tensors, "save:query,up,offload:attention" (zoo/models/remat.py)."""
    layer_unroll: int = 1
    """Blocks per trip of the layer loop; 0 unrolls it whole (faster for few layers, slower to compile)."""

    def __post_init__(self):
        check_transformer(self, GATED)
        for field in ("d_ff", "global_every", "reach"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)} must be at least 1")
        if self.dims["K"] % 2:
            raise ConfigError(
                f"d_model={self.d_model} over num_heads={self.num_heads} is {self.dims['K']}, but rotary "
                "positions turn pairs: the width of a head must be even"
            )
        for field in ("global_rotary_base", "local_rotary_base"):
            if getattr(self, field) <= 1.0:
                raise ConfigError(f"{field}={getattr(self, field)} must be more than 1")
        if not 0.0 < self.norm_epsilon < 1.0:
            raise ConfigError(f"norm_epsilon={self.norm_epsilon} must be above 0 and less than 1")

    @property
    def dims(self) -> dict[str, int]:
        """The size of every letter that the parameters use."""
        return {
            "V": self.vocab_size,
            "N": self.num_layers,
            "D": self.d_model,
            "H": self.num_heads,
            "K": self.d_model // self.num_heads,
            "F": self.d_ff,
        }

    @property
    def d_features(self) -> int:
        """Width of the features."""
        return self.d_model

    @property
    def num_feature_params(self) -> int:
        """Parameters without what only the masked words' logits need."""
        V, N, D, F = (self.dims[letter] for letter in "VNDF")
        return V * D + D + N * (4 * D * D + 3 * D * F + 2 * D)

    @property
    def num_params(self) -> int:
        """The closed form; a test holds it against the arrays."""
        V, D = self.vocab_size, self.d_model
        return self.num_feature_params + D * D + D + V  # transform, its norm, the words' biases

    def flops_per_token(self, length: int) -> FlopsPerToken:
        """Forward and backward of one token in rows of `length`, every position's logits counted: 6 a
        parameter (the tied table once, as output), and for scores and mixing 12 D a position seen.

        A global layer's position sees the row; a local one's sees r on either side, 2 r + 1, less what
        the row's ends cut off: r (r + 1) / 2 at each, over the row's positions. All of it is needed.
        """
        num_global = -(-self.num_layers // self.global_every)
        r = min(self.reach, length - 1)
        near = 2 * r + 1 - r * (r + 1) / length
        num_seen = num_global * length + (self.num_layers - num_global) * near
        flops = 6 * self.num_params + 12 * self.d_model * num_seen
        return FlopsPerToken(full=flops, causal=flops)

    def flops_of_features(self, length: int) -> FlopsPerToken:
        """The same without the transform and the output layer."""
        head = self.num_params - self.num_feature_params + self.vocab_size * self.d_model
        return FlopsPerToken(*(flops - 6 * head for flops in self.flops_per_token(length)))


SIZES = {
    "modernbert_base": ModernBERTConfig(),
    "modernbert_large": ModernBERTConfig(num_layers=28, num_heads=16, d_model=1_024, d_ff=2_624),
}


class ModernBERT(nn.Module):
    """Tokens to features, and features to the logits of words."""

    traits = frozenset({"bidirectional"})
    output = "V"
    bottom = ("tokens", "norm")
    config: ModernBERTConfig

    def setup(self):
        cfg = self.config
        self.tokens = Embed("V", cfg.dims)
        self.norm = LayerNorm(cfg.dims, bias=False, epsilon=cfg.norm_epsilon)
        self.blocks = stacked(Block, cfg, in_axes=(0, nn.broadcast, nn.broadcast))

    def features(self, inputs, state):
        cfg, tokens_BT = self.config, inputs["tokens"]
        _, T = tokens_BT.shape
        if state is not None:
            raise ValueError("a model that reads both ways reads whole rows; it takes no state")
        if T > cfg.max_length:
            raise ValueError(f"a row of {T} tokens is longer than the model, max_length={cfg.max_length}")
        place_BT = inputs.get("positions", jnp.arange(T)[None])
        is_global_N = jnp.arange(cfg.num_layers) % cfg.global_every == 0
        x_BTD = dropout(self.norm(self.tokens(tokens_BT, cfg.dtype)), cfg.dropout_rate, dropout_key(self))
        (_, x_BTD), _ = self.blocks((x_BTD, x_BTD), is_global_N, place_BT, seen(inputs))
        return x_BTD, None

    @nn.compact  # declares the head's parameters where they are read: not under another head
    def readout(self, x):
        """Features [..., D] to logits over the stored vocabulary, by the head for masked words."""
        cfg = self.config
        x_BD, std = x.reshape(-1, cfg.d_model), branch_std(cfg.num_layers)
        h_BHK = Linear("BD,DHK->BHK", cfg.dims, std, bias=False, name="transform")(x_BD)  # D, over tensor
        h_BD = ACTIVATIONS[cfg.activation](h_BHK.reshape(x_BD.shape))
        h_BD = LayerNorm(cfg.dims, bias=False, epsilon=cfg.norm_epsilon, name="transform_norm")(h_BD)
        bias_V = parameter(self, "bias", "V", cfg.dims, constant(0.0))
        return self.tokens.attend(h_BD.reshape(x.shape), cfg.vocab_size, bias_V)

    def initial_state(self, batch_size: int, length: int):
        """Raises ValueError: there is none."""
        raise ValueError("a model that reads both ways reads whole rows; it has no state to go on from")


class Block(nn.Module):
    """Attention and GeGLU, each added to the stream, and the norm that the next block's attention reads."""

    config: ModernBERTConfig

    @nn.compact
    def __call__(self, stream_and_normed, is_global, place_BT, sees):
        cfg = self.config
        x_BTD, normed_BTD = stream_and_normed
        norm = functools.partial(LayerNorm, cfg.dims, bias=False, epsilon=cfg.norm_epsilon)
        x_BTD += Attention(cfg, name="attention")(normed_BTD, is_global, place_BT, sees)
        x_BTD += GeGLU(cfg, name="mlp")(norm(name="norm1")(x_BTD))
        return (x_BTD, norm(name="norm2")(x_BTD)), None


class Attention(nn.Module):
    """Multi-head attention with rotary positions, over the row or over a window of it."""

    config: ModernBERTConfig

    @nn.compact
    def __call__(self, x_BTD, is_global, place_BT, sees):
        cfg, dims = self.config, self.config.dims
        q_BTHK, k_BTHK, v_BTHK = (
            Linear("BTD,DHK->BTHK", dims, bias=False, name=name)(x_BTD) for name in ("query", "key", "value")
        )
        dtype = jnp.promote_types(x_BTD.dtype, jnp.float32)
        frequencies = jnp.where(
            is_global,
            rotary_frequencies(dims["K"], cfg.global_rotary_base, dtype),
            rotary_frequencies(dims["K"], cfg.local_rotary_base, dtype),
        )
        y_BTHK = attention(
            rotate(q_BTHK, place_BT, frequencies),
            rotate(k_BTHK, place_BT, frequencies),
            v_BTHK,
            sees & Choice(is_global, All(), Window(cfg.reach + 1)),
            dropout_rate=cfg.dropout_rate,
            dropout_key=dropout_key(self),
        )
        y_BTHK = checkpoint_name(y_BTHK, "attention")
        out = Linear("BTHK,HKD->BTD", dims, std=branch_std(cfg.num_layers), bias=False, name="out")
        return dropout(out(y_BTHK), cfg.dropout_rate, dropout_key(self))


class GeGLU(nn.Module):
    """Up twice, one of them through the activation, their product, down."""

    config: ModernBERTConfig

    @nn.compact
    def __call__(self, x_BTD):
        cfg = self.config
        gate_BTF, up_BTF = (
            Linear("BTD,DF->BTF", cfg.dims, bias=False, name=name)(x_BTD) for name in ("gate", "up")
        )
        h_BTF = dropout(ACTIVATIONS[cfg.activation](gate_BTF) * up_BTF, cfg.dropout_rate, dropout_key(self))
        return Linear("BTF,FD->BTD", cfg.dims, std=branch_std(cfg.num_layers), bias=False, name="down")(h_BTF)
