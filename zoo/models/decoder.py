"""Decoder: the causal language models of today, from Llama to Gemma.

"Llama 2" (Touvron et al. 2023, arXiv 2307.09288) and what others made of it: rotary positions, root mean
square norms, gated feed-forward layers (SwiGLU, Shazeer 2020, arXiv 2002.05202), and fewer heads of keys than
of queries. decoder_config.py says which release is which.

    tokens ─ [attention +, gated MLP +] ... [...] ─ norm ─ head

What is unusual here: a norm is a place with a name, and which places have one is a value. Blocks are one
block scanned over stacked parameters; whether a layer sees the row or a window of it is a scanned value, and
so is the base by which it turns positions.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from zoo.attention import All, Causal, Choice, Segments, Window, attention
from zoo.layers import ACTIVATIONS, Embed, Linear, RMSNorm, dropout, dropout_key
from zoo.models.cache import empty, moved_on, places, remembered
from zoo.models.decoder_config import NORMS, DecoderConfig
from zoo.models.experts import ExpertsMLP
from zoo.models.pure import present
from zoo.models.stack import stacked
from zoo.models.transformer_config import branch_std
from zoo.rotary import rotary_frequencies, rotate


class Decoder(nn.Module):
    """Tokens to features, and features to logits."""

    traits = frozenset({"causal"})
    output = "V"
    bottom = ("tokens",)
    config: DecoderConfig

    def setup(self):
        cfg = self.config
        self.tokens = Embed("V", cfg.dims)
        self.blocks = stacked(Block, cfg, in_axes=(0, 0, *(nn.broadcast,) * 4))
        self.norm = RMSNorm(cfg.dims, epsilon=cfg.norm_epsilon, offset=cfg.norm_offset)
        self.head = self.tokens if cfg.tied else Embed("V", cfg.dims)

    def features(self, inputs, state):
        cfg, tokens_BT = self.config, inputs["tokens"]
        place_BT = places(cfg, inputs, state)
        sees = Causal()
        if "segments" in inputs:
            sees &= Segments(inputs["segments"])

        is_local_N = jnp.array([kind == "L" for kind in cfg.kinds])
        x_BTD = self.tokens(tokens_BT, cfg.dtype) * cfg.embedding_scale
        x_BTD = dropout(x_BTD, cfg.dropout_rate, dropout_key(self))
        position_BT = inputs.get("positions", place_BT)
        layer_N = jnp.arange(cfg.num_layers)
        there_BT = present(inputs)
        (x_BTD, state), _ = self.blocks(
            (x_BTD, state), layer_N, is_local_N, sees, place_BT, position_BT, there_BT
        )
        return self.norm(x_BTD), moved_on(state, inputs.get("lengths", tokens_BT.shape[1]))

    def readout(self, x):
        """Features [..., D] to logits over the stored vocabulary."""
        return self.head.attend(x, self.config.vocab_size, cap=self.config.logit_cap)

    def initial_state(self, batch_size: int, length: int, cache_dtype: str | None = None) -> dict:
        """An empty cache, of the activations' dtype unless another is asked for, and how many positions
        each row has read."""
        return empty(self.config.dims, batch_size, length, cache_dtype or self.config.dtype)


class Block(nn.Module):
    """Attention, then a gated feed-forward layer or experts, each normed where its configuration says and
    added to the stream."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, carry, layer, is_local, sees, place_BT, position_BT, there_BT):
        cfg, (x_BTD, state) = self.config, carry

        def normed(place, x_BTD):
            if place not in NORMS[cfg.norms]:
                return x_BTD
            norm = RMSNorm(cfg.dims, epsilon=cfg.norm_epsilon, offset=cfg.norm_offset, name=f"{place}_norm")
            return norm(x_BTD)

        attend = Attention(cfg, name="attention")
        normed_BTD = normed("attention_in", x_BTD)
        mixed_BTD, state = attend(normed_BTD, state, layer, is_local, sees, place_BT, position_BT)
        x_BTD += normed("attention_out", mixed_BTD)
        normed_BTD = normed("mlp_in", x_BTD)
        if cfg.experts.num_experts:
            mixed_BTD = ExpertsMLP(cfg, name="experts")(normed_BTD, there_BT)
        else:
            mixed_BTD = GatedMLP(cfg, name="mlp")(normed_BTD)
        x_BTD += normed("mlp_out", mixed_BTD)
        self.sow("intermediates", "x_BTD", x_BTD)  # for Model.layers, and nothing where that is not asked
        return (x_BTD, state), None


class Attention(nn.Module):
    """Grouped-query attention with rotary positions, over the row itself or over a cache with the row written
    into it, where keys are turned already."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BTD, state, layer, is_local, sees, place_BT, position_BT):
        cfg, dims = self.config, self.config.dims
        into = functools.partial(Linear, dims=dims, bias=cfg.biases != "none")
        q_BTHK = into("BTD,DHK->BTHK", name="query")(x_BTD)
        k_BTJK = into("BTD,DJK->BTJK", name="key")(x_BTD)
        v_BTJK = into("BTD,DJK->BTJK", name="value")(x_BTD)
        if cfg.qk_norm != "none":
            norm = functools.partial(RMSNorm, dims, epsilon=cfg.norm_epsilon, offset=cfg.norm_offset)
            q_letters, k_letters = {"head": ("K", "K"), "width": ("HK", "JK")}[cfg.qk_norm]
            q_BTHK = norm(q_letters, name="query_norm")(q_BTHK)
            k_BTJK = norm(k_letters, name="key_norm")(k_BTJK)
        turns = turning(cfg, is_local, jnp.promote_types(x_BTD.dtype, jnp.float32))
        q_BTHK, k_BTJK = (rotate(x, position_BT, *turns) for x in (q_BTHK, k_BTJK))
        self.sow("intermediates", "q_BTHK", q_BTHK)
        shared = dims["H"] // dims["J"]
        self.sow("intermediates", "k_BTHK", jnp.repeat(k_BTJK, shared, axis=2))  # what each query meets
        state, k_BSJK, v_BSJK = remembered(state, layer, place_BT, k_BTJK, v_BTJK)
        y_BTHK = attention(
            *(q_BTHK, k_BSJK, v_BSJK, sees & Choice(is_local, Window(cfg.window), All())),
            query_BT=None if state is None else place_BT,
            scale=(cfg.query_scalar or dims["K"]) ** -0.5,
            cap=cfg.score_cap,
            dropout_rate=cfg.dropout_rate,
            dropout_key=dropout_key(self),
        )
        y_BTHK = checkpoint_name(y_BTHK, "attention")
        std, bias = branch_std(cfg.num_layers), cfg.biases == "attention"
        out = Linear("BTHK,HKD->BTD", dims, std=std, bias=bias, name="out")
        return dropout(out(y_BTHK), cfg.dropout_rate, dropout_key(self)), state


def turning(cfg: DecoderConfig, is_local, dtype):
    """(frequencies, amplitude) of a layer's rotary positions."""
    width, scaling = cfg.dims["K"], cfg.rotary_scaling
    frequencies = rotary_frequencies(width, cfg.rotary_base, dtype)
    frequencies = scaling.scaled(frequencies, cfg.rotary_base, cfg.max_length)
    if not cfg.local_rotary_base:
        return frequencies, scaling.amplitude
    local = rotary_frequencies(width, cfg.local_rotary_base, dtype)
    amplitude = jnp.where(is_local, jnp.ones((), dtype), scaling.amplitude)
    return jnp.where(is_local, local, frequencies), amplitude


class GatedMLP(nn.Module):
    """Up twice, one of them through the activation, their product, down: SwiGLU, or with GELU GeGLU."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BTD):
        cfg = self.config
        gate_BTF, up_BTF = (
            Linear("BTD,DF->BTF", cfg.dims, bias=False, name=name)(x_BTD) for name in ("gate", "up")
        )
        down = Linear("BTF,FD->BTD", cfg.dims, std=branch_std(cfg.num_layers), bias=False, name="down")
        y_BTD = down(ACTIVATIONS[cfg.activation](gate_BTF) * up_BTF)
        return dropout(y_BTD, cfg.dropout_rate, dropout_key(self))
