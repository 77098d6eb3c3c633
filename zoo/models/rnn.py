"""RNN: recurrent language models and encoders, Elman, LSTM and GRU.

Elman's network ("Finding Structure in Time", Cognitive Science 14, 1990), the LSTM (Hochreiter and
Schmidhuber 1997, with the forget gate of Gers et al. 2000, no peepholes) and the GRU (Cho et al. 2014,
arXiv 1406.1078), stacked as in "Recurrent Neural Network Regularization" (Zaremba et al. 2014, arXiv
1409.2329), whose three models of the Penn Treebank are here, and AWD-LSTM (Merity et al. 2017, arXiv
1708.02182). Optional: a projected state (Sak et al. 2014, arXiv 1402.1128), both directions, dropout that
is drawn once a row (Gal and Ghahramani 2015, arXiv 1512.05287), on whole words, and on the recurrent
weights.

What is unusual here: the input projection of all positions is one matmul before the loop, and the loop's
gradient is written by hand (zoo/recurrence). The state is an argument and a result, so a text can be
read piece by piece, in training too.

    tokens ─ table ─ dropout ─ layer 0 ─ dropout ─ layer 1 ─ dropout ─ features ─ output layer ─ logits
                                 ↺ state            ↺ state
"""

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo import recurrence
from zoo.layers import Embed, constant, dropout, dropout_key, parameter, uniform
from zoo.models.rnn_config import CELLS, SIZES, RNNConfig
from zoo.sharding import constrain

__all__ = ["CELLS", "RNN", "SIZES", "Recurrent", "RNNConfig", "Stack"]

UNKNOWN = 1  # the id of <unk> in vocabularies of words


class RNN(nn.Module):
    """Tokens to features, and features to logits."""

    config: RNNConfig
    output = "V"
    bottom = ("tokens",)

    @property
    def traits(self) -> frozenset[str]:
        forward = self.config.direction == "forward"
        return frozenset({"causal", "recurrent"} if forward else {"bidirectional"})

    def setup(self):
        cfg = self.config
        init = starts(cfg)
        self.tokens = Embed("V", cfg.dims, uniform(cfg.table_scale) if cfg.table_scale else init)
        self.stack = Stack(cfg)
        if not cfg.tied:
            self.words = Embed("V", {"V": cfg.vocab_size, "E": cfg.d_features}, init, width="E")

    def features(self, inputs, state):
        cfg, tokens_BT = self.config, inputs["tokens"]
        tokens_BT = self._words_dropped(tokens_BT)
        x_BTD = self.tokens(tokens_BT, cfg.dtype)
        if cfg.embedding_dropout_rate and self.has_rng("dropout"):
            kept_V1 = dropout(jnp.ones((cfg.vocab_size, 1)), cfg.embedding_dropout_rate, dropout_key(self))
            x_BTD *= kept_V1[tokens_BT].astype(x_BTD.dtype)
        return self.stack(x_BTD, state, inputs.get("lengths"), inputs.get("segments"))

    def _words_dropped(self, tokens_BT):
        rate, key = self.config.word_dropout_rate, dropout_key(self)
        if key is None or rate == 0.0:
            return tokens_BT
        return jnp.where(jax.random.bernoulli(key, rate, tokens_BT.shape), UNKNOWN, tokens_BT)

    @nn.compact  # declares the bias where it is read: not under a head
    def readout(self, x):
        """Features [..., E] to logits over the stored vocabulary."""
        cfg = self.config
        bias_V = parameter(self, "bias", "V", cfg.dims, starts(cfg))
        return (self.tokens if cfg.tied else self.words).attend(x, cfg.vocab_size, bias_V)

    def initial_state(self, batch_size: int, length: int) -> dict:
        """Nothing read yet: zeros, the same whatever `length` is to come."""
        return initial_state(self.config, batch_size)


def starts(cfg: RNNConfig):
    """Initial values of every parameter."""
    return uniform(cfg.init_scale or cfg.d_state**-0.5)


def initial_state(cfg: RNNConfig, batch_size: int) -> dict:
    """The zero state of a stack that reads forward. Raises ValueError for one that reads both ways."""
    if cfg.direction == "both":
        raise ValueError("a model that reads both ways reads whole rows; it has no state to go on from")
    state = {}
    for layer in range(cfg.num_layers):
        dims = cfg.layer_dims(layer)
        state[f"layer{layer}"] = zeros(cfg, dims, batch_size)
    return state


def zeros(cfg: RNNConfig, dims: Mapping[str, int], batch_size: int) -> dict:
    """One layer's zero state; an LSTM's cell is kept in at least float32."""
    state = {"h_BR": jnp.zeros((batch_size, dims["R"]), cfg.dtype)}
    if CELLS[cfg.cell].has_cell:
        cell_dtype = jnp.promote_types(cfg.dtype, jnp.float32)
        state["c_BZ"] = jnp.zeros((batch_size, dims["Z"]), cell_dtype)
    return state


class Stack(nn.Module):
    """Recurrent layers one above the other, with dropout around them: vectors [B, T, D] to features
    [B, T, E] and, where a state came in, its successor."""

    config: RNNConfig

    @nn.compact
    def __call__(self, x_BTD, state, lengths_B=None, segments_BT=None):
        cfg = self.config
        B, T, _ = x_BTD.shape
        if state is not None and segments_BT is not None:
            raise ValueError("inputs with 'segments' are whole rows; they cannot be read into a state")
        if state is not None and cfg.direction == "both":
            raise ValueError("a model that reads both ways reads whole rows; it takes no state")
        present_TB = presence(lengths_B, segments_BT, T)
        drop = functools.partial(dropout, shared=0 if cfg.dropout_draws == "once" else None)
        rate = cfg.dropout_rate

        x_TBD = x_BTD.swapaxes(0, 1)
        x_TBD = drop(x_TBD, rate if cfg.input_dropout_rate < 0 else cfg.input_dropout_rate, dropout_key(self))
        successors = {}
        for layer in range(cfg.num_layers):
            dims, name = cfg.layer_dims(layer), f"layer{layer}"
            if layer:
                x_TBD = drop(x_TBD, rate, dropout_key(self))
            before = zeros(cfg, dims, B) if state is None else state[name]
            forward = Recurrent(cfg, dims, name=name)
            fresh_TB = None if segments_BT is None else changes(segments_BT, 1)
            h_TBR, successors[name] = forward(x_TBD, before, present_TB, fresh_TB)
            if cfg.direction == "both":
                backward = Recurrent(cfg, dims, reverse=True, name=f"{name}_reverse")
                fresh_TB = None if segments_BT is None else changes(segments_BT, -1)
                back_TBR, _ = backward(x_TBD, zeros(cfg, dims, B), present_TB, fresh_TB)
                h_TBR = jnp.concatenate([h_TBR, back_TBR], axis=-1)
            x_TBD = h_TBR
        x_TBD = drop(
            x_TBD, rate if cfg.output_dropout_rate < 0 else cfg.output_dropout_rate, dropout_key(self)
        )
        return constrain(x_TBD.swapaxes(0, 1), "BTE"), None if state is None else successors


def presence(lengths_B, segments_BT, T: int):
    """Which positions hold a word, time first; None where all do."""
    if segments_BT is not None:
        return (segments_BT > 0).T
    return None if lengths_B is None else jnp.arange(T)[:, None] < lengths_B


def changes(segments_BT, shift: int):
    """Where another document begins, read forward (shift 1) or backward (-1), time first."""
    edge = jnp.arange(segments_BT.shape[1]) == (0 if shift == 1 else segments_BT.shape[1] - 1)
    return ((segments_BT != jnp.roll(segments_BT, shift, axis=1)) | edge).T


class Recurrent(nn.Module):
    """One layer in one direction: the input projection of all positions, then the recurrence."""

    config: RNNConfig
    dims: Mapping[str, int]
    reverse: bool = False

    @nn.compact
    def __call__(self, x_TBD, state, present_TB=None, fresh_TB=None):
        cfg, dims = self.config, self.dims
        below = "D" if "D" in dims else "E"
        init = starts(cfg)
        w_in = parameter(self, "w_in", below + "GZ", dims, init, contracted=1)
        w_RGZ = parameter(self, "w", "RGZ", dims, init, contracted=1)
        bias_GZ = parameter(self, "b", "GZ", dims, biased(init, cfg))
        w_RGZ = dropout(w_RGZ, cfg.weight_dropout_rate, dropout_key(self))

        settings = {"present_TB": present_TB, "fresh_TB": fresh_TB, "reverse": self.reverse}
        settings |= {"unroll": cfg.unroll}
        candidate_Z = None
        if cfg.recurrent_bias:
            recurrent_GZ = parameter(self, "b_recurrent", "GZ", dims, init)
            if cfg.cell == "gru":  # its candidate's bias is multiplied by the reset gate: no part of the sum
                candidate_Z, recurrent_GZ = recurrent_GZ[2], jnp.asarray(recurrent_GZ).at[2].set(0)
            bias_GZ += recurrent_GZ
        elif cfg.cell == "gru":
            candidate_Z = parameter(self, "b_candidate", "Z", dims, init)
        x_TBGZ = constrain(recurrence.project(x_TBD, w_in, bias_GZ), "TBGZ")

        h_BR = state["h_BR"]
        if cfg.cell == "lstm" and cfg.d_projection:
            p_ZR = parameter(self, "projection", "ZR", dims, init, contracted=1)
            h_TBR, (h_BR, c_BZ) = recurrence.projected_lstm(
                x_TBGZ, w_RGZ, p_ZR, (h_BR, state["c_BZ"]), **settings
            )
            return h_TBR, {"h_BR": h_BR, "c_BZ": c_BZ}
        if cfg.cell == "lstm":
            h_TBR, (h_BR, c_BZ) = recurrence.lstm(x_TBGZ, w_RGZ, (h_BR, state["c_BZ"]), **settings)
            return h_TBR, {"h_BR": h_BR, "c_BZ": c_BZ}
        if cfg.cell == "gru":
            h_TBR, h_BR = recurrence.gru(x_TBGZ, w_RGZ, candidate_Z, h_BR, **settings)
        elif cfg.cell == "gru_original":
            h_TBR, h_BR = recurrence.gru_original(x_TBGZ, w_RGZ, h_BR, **settings)
        else:
            activation = cfg.cell.removeprefix("elman_")
            h_TBR, h_BR = recurrence.elman(
                x_TBGZ[:, :, 0], w_RGZ[:, 0], h_BR, activation=activation, **settings
            )
        return h_TBR, {"h_BR": h_BR}


def biased(init, cfg: RNNConfig):
    """Initial values of the biases: those of `init`, the forget gate's (second of four) raised."""
    if cfg.cell != "lstm" or not cfg.forget_bias:
        return init
    raised = jnp.array([0.0, cfg.forget_bias, 0.0, 0.0], jnp.float32)[:, None]
    return lambda key, shape: init(key, shape) + constant(1.0)(key, shape) * raised
