"""GPT-NeoX: a causal Transformer whose attention and feed-forward layer read the stream side by side.

"GPT-NeoX-20B" (Black et al. 2022, arXiv 2204.06745), and Pythia (Biderman et al. 2023, arXiv 2304.01373),
sixteen models trained alike. Layer norms, biases and GELU as in GPT-2; rotary positions in the first quarter
of each head; an output layer of its own. What a block adds is one sum,

    x + attention(norm1(x)) + mlp(norm2(x))

so that both can be computed at once.

What is unusual here: nothing in the mathematics. Blocks are one block scanned over stacked parameters. A
head's vector is q, k and v in turn there; here the three are apart (zoo/pretrained/neox.py).
"""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from zoo.attention import Causal, Segments, attention
from zoo.errors import ConfigError
from zoo.layers import ACTIVATIONS, Embed, LayerNorm, Linear, dropout, dropout_key
from zoo.models.cache import empty, moved_on, places, remembered
from zoo.models.pure import FlopsPerToken
from zoo.models.stack import stacked
from zoo.models.transformer_config import branch_std, check_transformer
from zoo.rotary import rotary_frequencies, rotate


@dataclass(frozen=True)
class NeoXConfig:
    """Pythia 160M by default."""

    vocab_size: int = 50_304
    """Words of the vocabulary; 0 in a recipe: as many as its tokenizer has."""
    max_length: int = 2_048
    """Longest row, in tokens; no parameter depends on it."""
    num_layers: int = 12
    num_heads: int = 12
    """Attention heads; they divide d_model."""
    d_model: int = 768
    d_ff: int = 3_072
    rotary_share: float = 0.25
    """Of a head's numbers that its position turns, the first ones."""
    rotary_base: float = 10_000.0
    """The slowest pair turns once in about 2 pi times as many positions."""
    norm_epsilon: float = 1e-5
    """Added to the variance in every norm."""
    activation: str = "gelu"
    """gelu (the erf form), gelu_tanh, relu or silu."""
    tied: bool = False
    """Whether the output layer is the table of words."""
    dropout_rate: float = 0.0
    """Share dropped after the embedding, of attention weights, and at the end of each branch."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Of activations; parameters are float32, norms, rotations, softmax and logits at least that."""
    remat: str = "none"
    """What the backward pass recomputes: none, dots (all but matmuls), full (each whole block), or all but
    named tensors, "save:query,up,offload:attention" (zoo/models/remat.py)."""
    layer_unroll: int = 1
    """Blocks per trip of the layer loop; 0 unrolls it whole (faster for few layers, slower to compile)."""

    def __post_init__(self):
        check_transformer(self)
        if self.d_ff < 1:
            raise ConfigError(f"d_ff={self.d_ff} must be at least 1")
        if not 0 < self.rotary_share <= 1 or self.num_turned < 2 or self.num_turned % 2:
            raise ConfigError(
                f"rotary_share={self.rotary_share} of a head of {self.dims['K']} is {self.num_turned}, but "
                "rotary positions turn pairs of numbers"
            )
        if self.rotary_base <= 1:
            raise ConfigError(f"rotary_base={self.rotary_base} must be more than 1")
        if not 0.0 < self.norm_epsilon < 1.0:
            raise ConfigError(f"norm_epsilon={self.norm_epsilon} must be above 0 and less than 1")

    @property
    def num_turned(self) -> int:
        """The numbers of a head that its position turns."""
        return int(self.dims["K"] * self.rotary_share)

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
        """Parameters without the output layer's own."""
        V, N, D, F = (self.dims[letter] for letter in "VNDF")
        block = 4 * D * D + 2 * D * F + (4 * D + F + D) + 4 * D  # kernels, their biases, two norms
        return V * D + N * block + 2 * D

    @property
    def num_params(self) -> int:
        """The closed form; a test holds it against the arrays."""
        return self.num_feature_params + (0 if self.tied else self.vocab_size * self.d_model)

    def flops_per_token(self, length: int) -> FlopsPerToken:
        """Forward and backward of one token in rows of `length`, as for GPT: 6 a parameter (the words' table
        once, as output), and 12 N D T for scores and mixing, half of it where the future is not counted."""
        matmuls, pairs = 6 * self.num_feature_params, 12 * self.num_layers * self.d_model * length
        return FlopsPerToken(full=matmuls + pairs, causal=matmuls + pairs / 2)

    def flops_of_features(self, length: int) -> FlopsPerToken:
        """The same without the output layer."""
        output = 6 * self.vocab_size * self.d_model
        return FlopsPerToken(*(flops - output for flops in self.flops_per_token(length)))


def _pythia(num_layers, d_model, num_heads, **changes):
    return NeoXConfig(
        num_layers=num_layers, d_model=d_model, num_heads=num_heads, d_ff=4 * d_model, **changes
    )


SIZES = {  # table 1 of Pythia's paper; the largest two store more rows of padding
    "pythia_70m": _pythia(6, 512, 8),
    "pythia_160m": NeoXConfig(),
    "pythia_410m": _pythia(24, 1_024, 16),
    "pythia_1b": _pythia(16, 2_048, 8),
    "pythia_2.8b": _pythia(32, 2_560, 32),
    "pythia_6.9b": _pythia(32, 4_096, 32, vocab_size=50_432),
    "pythia_12b": _pythia(36, 5_120, 40, vocab_size=50_688),
}


class NeoX(nn.Module):
    """Tokens to features, and features to logits."""

    traits = frozenset({"causal"})
    output = "V"
    bottom = ("tokens",)
    config: NeoXConfig

    def setup(self):
        cfg = self.config
        self.tokens = Embed("V", cfg.dims)
        self.blocks = stacked(Block, cfg, in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast))
        self.norm = LayerNorm(cfg.dims, epsilon=cfg.norm_epsilon)
        self.head = self.tokens if cfg.tied else Embed("V", cfg.dims)

    def features(self, inputs, state):
        cfg, tokens_BT = self.config, inputs["tokens"]
        place_BT = places(cfg, inputs, state)
        sees = Causal()
        if "segments" in inputs:
            sees &= Segments(inputs["segments"])
        x_BTD = dropout(self.tokens(tokens_BT, cfg.dtype), cfg.dropout_rate, dropout_key(self))
        position_BT = inputs.get("positions", place_BT)
        layer_N = jnp.arange(cfg.num_layers)
        (x_BTD, state), _ = self.blocks((x_BTD, state), layer_N, sees, place_BT, position_BT)
        return self.norm(x_BTD), moved_on(state, inputs.get("lengths", tokens_BT.shape[1]))

    def readout(self, x):
        """Features [..., D] to logits over the stored vocabulary."""
        return self.head.attend(x, self.config.vocab_size)

    def initial_state(self, batch_size: int, length: int, cache_dtype: str | None = None) -> dict:
        """An empty cache, of the activations' dtype unless another is asked for, and how many positions
        each row has read."""
        return empty(self.config.dims, batch_size, length, cache_dtype or self.config.dtype)


class Block(nn.Module):
    """Attention and a feed-forward layer, side by side, each normed before."""

    config: NeoXConfig

    @nn.compact
    def __call__(self, carry, layer, sees, place_BT, position_BT):
        cfg, (x_BTD, state) = self.config, carry
        norm1 = LayerNorm(cfg.dims, epsilon=cfg.norm_epsilon, name="norm1")
        norm2 = LayerNorm(cfg.dims, epsilon=cfg.norm_epsilon, name="norm2")
        attend = Attention(cfg, name="attention")
        mixed_BTD, state = attend(norm1(x_BTD), state, layer, sees, place_BT, position_BT)
        x_BTD += mixed_BTD + FeedForward(cfg, name="mlp")(norm2(x_BTD))
        self.sow("intermediates", "x_BTD", x_BTD)  # for Model.layers, and nothing where that is not asked
        return (x_BTD, state), None


class Attention(nn.Module):
    """Multi-head attention with rotary positions in a part of each head, over the row itself or over a cache
    with the row written into it."""

    config: NeoXConfig

    @nn.compact
    def __call__(self, x_BTD, state, layer, sees, place_BT, position_BT):
        cfg, dims = self.config, self.config.dims
        q_BTHK, k_BTHK, v_BTHK = (
            Linear("BTD,DHK->BTHK", dims, name=name)(x_BTD) for name in ("query", "key", "value")
        )
        dtype = jnp.promote_types(x_BTD.dtype, jnp.float32)
        frequencies = rotary_frequencies(cfg.num_turned, cfg.rotary_base, dtype)
        q_BTHK, k_BTHK = (rotate(x, position_BT, frequencies) for x in (q_BTHK, k_BTHK))
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
        out = Linear("BTHK,HKD->BTD", dims, std=branch_std(cfg.num_layers), name="out")
        return dropout(out(y_BTHK), cfg.dropout_rate, dropout_key(self)), state


class FeedForward(nn.Module):
    """Up, activation, down."""

    config: NeoXConfig

    @nn.compact
    def __call__(self, x_BTD):
        cfg = self.config
        h_BTF = ACTIVATIONS[cfg.activation](Linear("BTD,DF->BTF", cfg.dims, name="up")(x_BTD))
        down = Linear("BTF,FD->BTD", cfg.dims, std=branch_std(cfg.num_layers), name="down")
        return dropout(down(h_BTF), cfg.dropout_rate, dropout_key(self))
