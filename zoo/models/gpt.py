"""GPT: a causal Transformer language model.

GPT-2 as published: "Language Models are Unsupervised Multitask Learners" (Radford et al. 2019), with the
sizes of its release, and GPT-3's (Brown et al. 2020, arXiv 2005.14165, table 2.1). Learned positions,
normalisation before each block and at the end, tanh GELU, output tied to the token table.

What is unusual here: nothing in the mathematics. The blocks are one block scanned over stacked
parameters, so that compile time does not grow with depth. GPT-3's layers alternate with a sparse
attention whose pattern is not published; ours are all dense.
"""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from zoo.attention import Causal, Segments, attention
from zoo.layers import ACTIVATIONS, Embed, LayerNorm, Linear, dropout, dropout_key
from zoo.models.cache import empty, moved_on, places, remembered
from zoo.models.pure import FlopsPerToken
from zoo.models.stack import stacked
from zoo.models.transformer_config import branch_std, check_transformer


@dataclass(frozen=True)
class GPTConfig:
    """GPT-2 small by default."""

    vocab_size: int = 50257
    """Words of the vocabulary; 0 in a recipe: as many as its tokenizer has."""
    max_length: int = 1024
    """Longest row, in tokens: the rows of the position table."""
    num_layers: int = 12
    """Blocks."""
    num_heads: int = 12
    """Attention heads; they divide d_model."""
    d_model: int = 768
    """Width of the residual stream."""
    d_ff: int = 0
    """Width of the feed-forward layer; 0: four times d_model, as published."""
    dropout_rate: float = 0.1
    """Share dropped after the embedding, of attention weights, and at the end of each branch."""
    bias: bool = True
    """Biases in matmuls and norms."""
    activation: str = "gelu_tanh"
    """gelu_tanh (GPT-2), gelu (the erf form) or relu."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Of activations; parameters are float32, norms, softmax and logits at least that."""
    remat: str = "none"
    """What the backward pass recomputes: none, dots (all but matmuls), full (each whole block), or all but
    named tensors, "save:query,up,offload:attention" (zoo/models/remat.py)."""
    layer_unroll: int = 1
    """Blocks per trip of the layer loop; 0 unrolls it whole (faster for few layers, slower to compile)."""

    def __post_init__(self):
        check_transformer(self)

    @property
    def dims(self) -> dict[str, int]:
        """The size of every letter that the parameters use."""
        return {
            "V": self.vocab_size,
            "M": self.max_length,
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
    def num_params(self) -> int:
        """The closed form; a test holds it against the arrays."""
        V, M, N, D, F = (self.dims[letter] for letter in "VMNDF")
        kernels = 4 * D * D + 2 * D * F
        biases = (4 * D + F + D) + 2 * D if self.bias else 0  # of the six matmuls, and of the two norms
        norms = 2 * D
        return V * D + M * D + N * (kernels + biases + norms) + D * (1 + self.bias)

    def flops_per_token(self, length: int) -> FlopsPerToken:
        """Forward and backward of one token in rows of `length`.

        Every parameter is multiplied and added once forward and twice backward: 6 a parameter (the
        tied table counts once, as output). Scores and mixing are 2 x 2 x T x D a layer forward, three
        times that with the backward pass: 12 N D T, half of it where the future is not counted.
        """
        N, D = self.num_layers, self.d_model
        return FlopsPerToken(
            full=6 * self.num_params + 12 * N * D * length, causal=6 * self.num_params + 6 * N * D * length
        )

    @property
    def num_feature_params(self) -> int:
        """Parameters without the output layer's own: all of them, as it has none."""
        return self.num_params

    def flops_of_features(self, length: int) -> FlopsPerToken:
        """The same without the output layer."""
        output = 6 * self.vocab_size * self.d_model
        return FlopsPerToken(*(flops - output for flops in self.flops_per_token(length)))


def _gpt3(num_layers, d_model, num_heads):
    return GPTConfig(
        num_layers=num_layers, d_model=d_model, num_heads=num_heads, max_length=2048, dropout_rate=0.0
    )


SIZES = {
    "gpt_tiny": GPTConfig(vocab_size=256, max_length=128, num_layers=2, num_heads=4, d_model=64),
    "gpt2": GPTConfig(),
    "gpt2_medium": GPTConfig(num_layers=24, num_heads=16, d_model=1024),
    "gpt2_large": GPTConfig(num_layers=36, num_heads=20, d_model=1280),
    "gpt2_xl": GPTConfig(num_layers=48, num_heads=25, d_model=1600),
    # GPT-3, table 2.1. Two rows of it do not multiply out and are read as everybody reads them: XL's 24
    # heads of 128 are 16 in a model of 2,048; the 13B model is 5,120 wide, not 5,140.
    "gpt3_small": _gpt3(12, 768, 12),
    "gpt3_medium": _gpt3(24, 1024, 16),
    "gpt3_large": _gpt3(24, 1536, 16),
    "gpt3_xl": _gpt3(24, 2048, 16),
    "gpt3_2.7b": _gpt3(32, 2560, 32),
    "gpt3_6.7b": _gpt3(32, 4096, 32),
    "gpt3_13b": _gpt3(40, 5120, 40),
    "gpt3_175b": _gpt3(96, 12288, 96),
}


class GPT(nn.Module):
    """Tokens to features, and features to logits."""

    traits = frozenset({"causal"})  # the contract tests that apply; tests/families.py lists them all
    output = "V"
    bottom = ("tokens", "positions")  # what lies before the first layer (depth.py)
    config: GPTConfig

    def setup(self):
        cfg = self.config
        self.tokens = Embed("V", cfg.dims)
        self.positions = Embed("M", cfg.dims)
        self.blocks = stacked(Block, cfg, in_axes=(0, nn.broadcast, nn.broadcast))
        self.norm = LayerNorm(cfg.dims, cfg.bias)

    def features(self, inputs, state):
        cfg, tokens_BT = self.config, inputs["tokens"]
        place_BT = places(cfg, inputs, state)
        sees = Causal()
        if "segments" in inputs:
            sees &= Segments(inputs["segments"])

        x_BTD = self.tokens(tokens_BT, cfg.dtype) + self.positions(
            inputs.get("positions", place_BT), cfg.dtype
        )
        x_BTD = dropout(x_BTD, cfg.dropout_rate, dropout_key(self))
        layer_N = jnp.arange(cfg.num_layers)
        (x_BTD, state), _ = self.blocks((x_BTD, state), layer_N, sees, place_BT)
        return self.norm(x_BTD), moved_on(state, inputs.get("lengths", tokens_BT.shape[1]))

    def readout(self, x):
        """Features [..., D] to logits over the stored vocabulary."""
        return self.tokens.attend(x, self.config.vocab_size)

    def initial_state(self, batch_size: int, length: int, cache_dtype: str | None = None) -> dict:
        """An empty cache, of the activations' dtype unless another is asked for, and how many positions
        each row has read."""
        return empty(self.config.dims, batch_size, length, cache_dtype or self.config.dtype)


class Block(nn.Module):
    """Attention, then a feed-forward layer, each normalised before and added to the stream."""

    config: GPTConfig

    @nn.compact
    def __call__(self, carry, layer, sees, place_BT):
        cfg, (x_BTD, state) = self.config, carry
        norm1 = LayerNorm(cfg.dims, cfg.bias, name="norm1")
        norm2 = LayerNorm(cfg.dims, cfg.bias, name="norm2")
        mixed_BTD, state = Attention(cfg, name="attention")(norm1(x_BTD), state, layer, sees, place_BT)
        x_BTD += mixed_BTD
        x_BTD += FeedForward(cfg, name="mlp")(norm2(x_BTD))
        self.sow("intermediates", "x_BTD", x_BTD)  # for Model.layers, and nothing where that is not asked
        return (x_BTD, state), None


class Attention(nn.Module):
    """Multi-head attention, over the row itself or over a cache with the row written into it."""

    config: GPTConfig

    @nn.compact
    def __call__(self, x_BTD, state, layer, sees, place_BT):
        cfg, dims = self.config, self.config.dims
        q_BTHK = Linear("BTD,DHK->BTHK", dims, bias=cfg.bias, name="query")(x_BTD)
        k_BTHK = Linear("BTD,DHK->BTHK", dims, bias=cfg.bias, name="key")(x_BTD)
        v_BTHK = Linear("BTD,DHK->BTHK", dims, bias=cfg.bias, name="value")(x_BTD)
        self.sow("intermediates", "q_BTHK", q_BTHK)
        self.sow("intermediates", "k_BTHK", k_BTHK)
        state, k_BSJK, v_BSJK = remembered(state, layer, place_BT, k_BTHK, v_BTHK)
        y_BTHK = attention(
            *(q_BTHK, k_BSJK, v_BSJK, sees),
            query_BT=None if state is None else place_BT,
            dropout_rate=cfg.dropout_rate,
            dropout_key=dropout_key(self),
        )
        y_BTHK = checkpoint_name(y_BTHK, "attention")
        out = Linear("BTHK,HKD->BTD", dims, std=branch_std(cfg.num_layers), bias=cfg.bias, name="out")
        return dropout(out(y_BTHK), cfg.dropout_rate, dropout_key(self)), state


class FeedForward(nn.Module):
    """Up, activation, down."""

    config: GPTConfig

    @nn.compact
    def __call__(self, x_BTD):
        cfg = self.config
        h_BTF = ACTIVATIONS[cfg.activation](Linear("BTD,DF->BTF", cfg.dims, bias=cfg.bias, name="up")(x_BTD))
        down = Linear("BTF,FD->BTD", cfg.dims, std=branch_std(cfg.num_layers), bias=cfg.bias, name="down")
        return dropout(down(h_BTF), cfg.dropout_rate, dropout_key(self))
