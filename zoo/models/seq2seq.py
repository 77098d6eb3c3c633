"""Seq2Seq: one recurrent network reads a text, another writes its translation.

"Sequence to Sequence Learning with Neural Networks" (Sutskever et al. 2014, arXiv 1409.3215), and with
attention Bahdanau et al. 2014 (arXiv 1409.0473) and Luong et al. 2015 (arXiv 1508.04025); alignment.py has
their scores. What the decoder reads beside the last word is `feeding`:

    none          nothing: the loop over the target is the recurrence alone, and attention looks from all
                  positions at once after it
    attentional   the attentional vector of the step before (Luong's input feeding, section 3.3)
    context       the context that the state before looks up (Bahdanau)

    source ─ table ─ encoder ─ memory ─────────── keys ────────┐
                        └ last state                           │
    tokens ─ table ────── decoder ─ h ─ softmax(score) ─ context ─ tanh(W [context; h]) ─ output layer
                             ↺ fed                                    attentional vector

What is unusual here: one vocabulary and one table serve both sides (where no word occurs on both, that is two
tables). An encoder of two directions has half of the width in each, so its last states, side by side, are
the decoder's first with nothing in between. After Bahdanau's context comes Luong's attentional vector,
not a maxout layer. `teacher_forcing_rate` is a part of the model, as dropout is.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.layers import Embed, dropout, dropout_key, matmul, parameter
from zoo.models.alignment import Alignment
from zoo.models.pure import Model, as_inputs
from zoo.models.rnn import Recurrent, RNNConfig, Stack, initial_state, presence, starts, zeros
from zoo.models.seq2seq_config import SIZES, Seq2SeqConfig
from zoo.sharding import constrain

__all__ = ["SIZES", "Seq2Seq", "Seq2SeqConfig", "attention_weights"]


class Seq2Seq(nn.Module):
    """Source and target words to features, and features to logits."""

    config: Seq2SeqConfig
    traits = frozenset({"pair", "causal"})
    reads = ("tokens", "source")
    output = "V"

    def setup(self):
        cfg = self.config
        init, E = starts(cfg), cfg.d_state
        self.tokens = Embed("V", cfg.dims, init)
        self.encoder = Encoder(cfg.encoder)
        self.decoder = Stack(cfg.decoder)
        if cfg.attention != "none":
            self.alignment = Alignment(cfg.attention, {"E": E, "R": E, "Z": E}, init)
            dims = {"E": E, "R": E, "F": cfg.d_features}
            self.context_EF = parameter(self, "context", "EF", dims, init, contracted=1)
            self.state_RF = parameter(self, "state", "RF", dims, init, contracted=1)
        if not cfg.tied:
            self.words = Embed("V", {"V": cfg.vocab_size, "E": cfg.d_features}, init, width="E")
        self.bias_V = parameter(self, "bias", "V", cfg.dims, init)

    def features(self, inputs, state):
        """With "source" the target begins; without, it goes on from `state`."""
        x_BTF, _, after = self._decode(inputs, state)
        return x_BTF, None if state is None else after

    def attention_weights(self, inputs):
        """Where every target position looks, [B, T, S]."""
        return self._decode(inputs, None)[1]

    def readout(self, x):
        """Features [..., F] to logits over the stored vocabulary."""
        table = self.tokens if self.config.tied else self.words
        return table.attend(x, self.config.vocab_size, self.bias_V)

    def initial_state(self, batch_size: int, length: int) -> dict:
        """Nothing read yet, of a source of up to `length` words: the shapes of what follows one."""
        cfg = self.config
        state: dict = {"decoder": initial_state(cfg.decoder, batch_size)}
        if cfg.attention != "none":
            memory_BSE = jnp.zeros((batch_size, length, cfg.d_state), cfg.dtype)
            state["source"] = {"memory_BSE": memory_BSE, "length_B": jnp.zeros(batch_size, jnp.int32)}
            if cfg.attention != "dot":
                state["source"]["keys_BSZ"] = memory_BSE
        if cfg.feeding == "attentional":
            state["fed_BF"] = jnp.zeros((batch_size, cfg.d_features), cfg.dtype)
        return state

    def _decode(self, inputs, state):
        """(features, where they look or None, the state after them)."""
        cfg, tokens_BT, lengths_B = self.config, inputs["tokens"], inputs.get("lengths")
        if "segments" in inputs:
            raise ValueError("a model of pairs reads one pair a row; leave 'segments' out of its inputs")
        if "source" in inputs:
            state = self._encode(inputs["source"], inputs.get("source_lengths"))
        elif state is None:
            raise ValueError("inputs without 'source' need the state of one that was read")
        words_BTD = self.tokens(tokens_BT, cfg.dtype)
        is_forced_B = None
        if self.has_rng("dropout") and cfg.teacher_forcing_rate < 1.0:
            is_forced_B = jax.random.bernoulli(
                dropout_key(self), cfg.teacher_forcing_rate, tokens_BT[:, 0].shape
            )
        elif cfg.feeding == "none":
            return self._step(words_BTD, state, lengths_B)
        return self._loop(words_BTD, state, lengths_B, tokens_BT[:, 0], is_forced_B)

    def _encode(self, source_BS, lengths_B) -> dict:
        """The state in which a target begins."""
        cfg, (B, S) = self.config, source_BS.shape
        lengths_B = jnp.full(B, S, jnp.int32) if lengths_B is None else lengths_B
        memory_BSE, last = self.encoder(self.tokens(source_BS, cfg.dtype), lengths_B)
        state = self.initial_state(B, S)
        for layer in range(cfg.num_decoder_layers):
            below_top = cfg.num_decoder_layers - layer
            state["decoder"][f"layer{layer}"] = last[max(cfg.num_encoder_layers - below_top, 0)]
        if cfg.attention != "none":
            state["source"] |= {"memory_BSE": memory_BSE, "length_B": lengths_B}
        if "keys_BSZ" in state.get("source", ()):
            state["source"]["keys_BSZ"] = self.alignment.keys(memory_BSE)
        return state

    def _step(self, words_BTD, state, lengths_B):
        """What _decode returns, of positions that do not wait for each other: one, or where nothing is fed
        all of them."""
        cfg, layers = self.config, state["decoder"]
        if cfg.attention == "none":
            h_BTR, layers = self.decoder(words_BTD, layers, lengths_B)
            return h_BTR, None, {"decoder": layers}
        if cfg.feeding == "context":
            before_BTR = layers[f"layer{cfg.num_decoder_layers - 1}"]["h_BR"][:, None]
            context_BTE, weights_BTS = self._look(before_BTR, state["source"])
            words_BTD = jnp.concatenate([words_BTD, context_BTE], axis=-1)
        elif cfg.feeding == "attentional":
            words_BTD = jnp.concatenate([words_BTD, state["fed_BF"][:, None]], axis=-1)
        h_BTR, layers = self.decoder(words_BTD, layers, lengths_B)
        if cfg.feeding != "context":
            context_BTE, weights_BTS = self._look(h_BTR, state["source"])
        context_EF, state_RF = (w.astype(h_BTR.dtype) for w in (self.context_EF, self.state_RF))
        x_BTF = jnp.tanh(matmul(context_BTE, context_EF, 1) + matmul(h_BTR, state_RF, 1))
        after = state | {"decoder": layers}
        if cfg.feeding == "attentional":
            fed_BF = x_BTF[:, 0]
            is_there_B1 = True if lengths_B is None else (lengths_B > 0)[:, None]
            after["fed_BF"] = jnp.where(is_there_B1, fed_BF, state["fed_BF"])
        return dropout(x_BTF, cfg.dropout_rate, dropout_key(self)), weights_BTS, after

    def _look(self, h_BTR, source):
        memory_BSE = source["memory_BSE"]
        return self.alignment(h_BTR, memory_BSE, source.get("keys_BSZ", memory_BSE), source["length_B"])

    def _loop(self, words_BTD, state, lengths_B, first_B, is_forced_B):
        """What _decode returns, position by position. Rows that are not forced read `first_B` and then
        the likeliest word of the step before, which no gradient passes."""
        source = {name: state[name] for name in ("source",) if name in state}
        there_TB = presence(lengths_B, None, words_BTD.shape[1])

        def step(self, carry, inputs):
            (state, own_B), (word_BD, there_B) = carry, inputs
            if is_forced_B is not None:
                word_BD = jnp.where(is_forced_B[:, None], word_BD, self.tokens(own_B, word_BD.dtype))
            x_B1F, weights_B1S, after = self._step(word_BD[:, None], state | source, there_B)
            if is_forced_B is not None:
                own_B = self.readout(x_B1F[:, 0]).argmax(-1).astype(own_B.dtype)
            after = {name: after[name] for name in state}
            return (after, own_B), (x_B1F[:, 0], None if weights_B1S is None else weights_B1S[:, 0])

        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            unroll=self.config.unroll,
        )
        carry = {name: state[name] for name in state if name not in source}, first_B
        there_TB = None if there_TB is None else there_TB.astype(jnp.int32)
        (state, _), steps = scan(self, carry, (words_BTD.swapaxes(0, 1), there_TB))
        x_BTF, weights_BTS = jax.tree.map(lambda x: x.swapaxes(0, 1), steps)
        return constrain(x_BTF, "BTF"), weights_BTS, state | source


class Encoder(nn.Module):
    """Recurrent layers that keep their last states: vectors [B, S, D] to outputs [B, S, E], and for every
    layer the state at the row's end, both directions side by side."""

    config: RNNConfig

    @nn.compact
    def __call__(self, x_BSD, lengths_B):
        cfg = self.config
        B, S, _ = x_BSD.shape
        there_SB = presence(lengths_B, None, S)
        x_SBE, last = x_BSD.swapaxes(0, 1), []
        for layer in range(cfg.num_layers):
            dims = cfg.layer_dims(layer)
            x_SBE = dropout(x_SBE, cfg.dropout_rate, dropout_key(self))
            read = []
            for suffix in ("", "_reverse")[: cfg.num_directions]:
                recurrent = Recurrent(cfg, dims, reverse=bool(suffix), name=f"layer{layer}{suffix}")
                read.append(recurrent(x_SBE, zeros(cfg, dims, B), there_SB))
            x_SBE, state = jax.tree.map(lambda *sides: jnp.concatenate(sides, axis=-1), *read)
            last.append(state)
        return constrain(x_SBE.swapaxes(0, 1), "BSE"), last


def attention_weights(model: Model, params, inputs):
    """Where every target position of a pair looks, [B, T, S], for plots; rows sum to 1.

    Raises ValueError for a model that has no attention.
    """
    if getattr(model.config, "attention", "none") == "none":
        raise ValueError("the model has no attention over a source, so there are no weights to show")
    return model.module.apply({"params": params}, as_inputs(inputs), method="attention_weights")
