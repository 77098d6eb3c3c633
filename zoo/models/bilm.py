"""biLM: a language model of two directions, whose layers are ELMo's word vectors.

"Deep contextualized word representations" (Peters et al. 2018, arXiv 1802.05365). Two stacks of projected
LSTMs (Sak et al. 2014, arXiv 1402.1128) read a row, one from its beginning and one from its end, over the
same word vectors and under the same output layer. Neither sees what the other reads: the forward stack at
position t has seen tokens 0 to t and predicts t + 1, the backward stack t to the end, and predicts t - 1.

    words ─ characters' network or table ─ x_0 ─┬─ LSTM ─ (+) LSTM ─ forward half ──┐
                                                └─ LSTM ─ (+) LSTM ─ backward half ─┴─ output layer (one)

`features` are the top layer's halves side by side, [B, T, 2 D]; `readout` gives logits [..., 2, V], one row
a direction (zoo/tasks/bilm.py); `layers` gives all L + 1 layers, and scalar_mix.py their learned sum.

What is unusual: rows are read whole, from a state of zero; the published training carried the states of
both directions on from batch to batch. Every word of the vocabulary is in the softmax, where theirs sampled.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from zoo import recurrence
from zoo.layers import Embed, constant, dropout, dropout_key, normal, parameter, uniform
from zoo.models.bilm_config import SIZES, BiLMConfig
from zoo.models.character_cnn import CharacterCNN
from zoo.models.pure import Model, as_inputs
from zoo.models.rnn import changes, presence
from zoo.sharding import constrain

__all__ = ["SIZES", "BiLM", "BiLMConfig", "layers"]


class BiLM(nn.Module):
    """Words to the features of two directions, and features to the logits of both."""

    config: BiLMConfig
    traits = frozenset({"directions"})
    output = "V"
    bottom = ("tokens", "characters")

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs that it cannot do without."""
        return ("tokens", "characters") if self.config.words == "characters" else ("tokens",)

    def setup(self):
        cfg = self.config
        if cfg.words == "table":
            self.tokens = Embed("V", cfg.dims, glorot(cfg.vocab_size, cfg.d_model))
        else:
            dims = cfg.dims | {"F": cfg.num_filters}
            self.characters = CharacterCNN(dims, cfg.d_character, cfg.num_highway)
        self.forward_layers = [ProjectedLSTM(cfg) for _ in range(cfg.num_layers)]
        self.backward_layers = [ProjectedLSTM(cfg, reverse=True) for _ in range(cfg.num_layers)]
        self.words = Embed("V", cfg.dims, normal(cfg.d_model**-0.5))

    def features(self, inputs, state):
        """The top layer of both directions, side by side."""
        top_BTE = self.layers(inputs, state)[-1]
        return dropout(top_BTE, self.config.dropout_rate, dropout_key(self)), None

    def layers(self, inputs, state=None):
        """[x_0, ..., x_L], each [B, T, 2 D]: word vectors twice, then each layer's two halves."""
        if state is not None:
            raise ValueError("a biLM reads whole rows; it takes no state")
        T = inputs["tokens"].shape[1]
        segments_BT = inputs.get("segments")
        present_TB = presence(inputs.get("lengths"), segments_BT, T)
        x_TBD = self._vectors(inputs).swapaxes(0, 1)
        if present_TB is not None:
            x_TBD = jnp.where(present_TB[..., None], x_TBD, 0)
        halves = []
        for stack, shift in ((self.forward_layers, 1), (self.backward_layers, -1)):
            fresh_TB = None if segments_BT is None else changes(segments_BT, shift)
            halves.append(self._direction(stack, x_TBD, present_TB, fresh_TB))
        return [
            constrain(jnp.concatenate(both, axis=-1).swapaxes(0, 1), "BTE")
            for both in zip(*halves, strict=True)
        ]

    def _vectors(self, inputs):
        """x_0 of each word [B, T, D]."""
        cfg, shape = self.config, inputs["tokens"].shape
        if cfg.words == "table":
            return self.tokens(inputs["tokens"], cfg.dtype)
        characters = inputs.get("characters")
        if self.is_initializing():
            characters = jnp.zeros((*shape, cfg.max_characters), jnp.int32)
        if characters is None or characters.shape != (*shape, cfg.max_characters):
            given = "none" if characters is None else list(characters.shape)
            raise ValueError(
                f"inputs 'characters' {given} must be {[*shape, cfg.max_characters]}, "
                "as zoo.data.characters spells words"
            )
        return self.characters(characters, cfg.dtype)

    def _direction(self, stack, x_TBD, present_TB, fresh_TB):
        """x_0 and every layer's output; from the second on a layer adds what it read to what it says."""
        outputs = [x_TBD]
        for index, layer in enumerate(stack):
            x_TBD = dropout(outputs[-1], self.config.dropout_rate, dropout_key(self))
            y_TBD = layer(x_TBD, present_TB, fresh_TB)
            outputs.append(x_TBD + y_TBD if index else y_TBD)
        return outputs

    @nn.compact  # declares the bias where it is read: not under a head
    def readout(self, x):
        """Features [..., 2 D] to logits over the stored vocabulary, [..., 2, V]: forward, backward."""
        cfg = self.config
        bias_V = parameter(self, "bias", "V", cfg.dims, constant(0.0))
        return self.words.attend(x.reshape(*x.shape[:-1], 2, cfg.d_model), cfg.vocab_size, bias_V)

    def initial_state(self, batch_size: int, length: int):
        """Raises ValueError: there is none."""
        raise ValueError("a biLM reads whole rows; it has no state to go on from")


class ProjectedLSTM(nn.Module):
    """One layer of one direction, from a state of zero."""

    config: BiLMConfig
    reverse: bool = False

    @nn.compact
    def __call__(self, x_TBD, present_TB=None, fresh_TB=None):
        cfg, dims, B = self.config, self.config.dims, x_TBD.shape[1]
        D, Z, dtype = cfg.d_model, cfg.d_state, x_TBD.dtype
        init = glorot(2 * D, 4 * Z)
        w_DGZ = parameter(self, "w_in", "DGZ", dims, init, contracted=1)
        w_RGZ = parameter(self, "w", "RGZ", dims, init, contracted=1)
        p_ZR = parameter(self, "projection", "ZR", dims, glorot(Z, D), contracted=1)
        b_GZ = parameter(self, "b", "GZ", dims, forget_one)
        state = (jnp.zeros((B, D), dtype), jnp.zeros((B, Z), jnp.promote_types(dtype, jnp.float32)))
        h_TBD, _ = recurrence.projected_lstm(
            constrain(recurrence.project(x_TBD, w_DGZ, b_GZ), "TBGZ"),
            w_RGZ,
            p_ZR,
            state,
            cell_clip=cfg.clip or None,
            projection_clip=cfg.clip or None,
            present_TB=present_TB,
            fresh_TB=fresh_TB,
            reverse=self.reverse,
            unroll=cfg.unroll,
        )
        return h_TBD


def glorot(inputs: int, outputs: int):
    """Initial values of a matmul, evenly spread (Glorot and Bengio 2010)."""
    return uniform(math.sqrt(6 / (inputs + outputs)))


def forget_one(key, shape):
    """A bias of 1 on the forget gate, the second of four, which TensorFlow's cell added in its formula."""
    return jnp.zeros(shape, jnp.float32).at[1].set(1.0)


def layers(model: Model, params, inputs: Mapping) -> list:
    """[x_0, ..., x_L] of a biLM, each [B, T, 2 D], without dropout: what ELMo mixes.

    x_0 holds the word vectors twice, and the others a layer's forward and backward half. Zero where a row
    has no word.
    """
    found: Any = model.module.apply({"params": params}, as_inputs(inputs), method="layers")
    return found
