"""Joint: the intent of an utterance and its slots, by one encoder.

The attention BiRNN of Liu and Lane 2016 ("Attention-Based Recurrent Neural Network Models for Joint Intent
Detection and Slot Filling", arXiv 1609.01454), in the form and size that Goo et al. 2018 ("Slot-Gated
Modeling for Joint Slot Filling and Intent Prediction", NAACL) compare theirs with:

    intent   from the encoder's last state beside the mean of all that this state attends to
    slots    from each position's state beside the mean of all that it attends to

Unlike in the authors' script padding gets no attention, and the last state is the output alone, without
the LSTM's cell. Their gate, which multiplies the slots' attended mean by one number, is not here.
"""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from zoo.layers import Linear, dropout, dropout_key
from zoo.models.heads import HeadConfig, at_words, encoded, logits, not_negative, one_of
from zoo.models.pooling import AdditiveAttention, last
from zoo.models.rnn import RNNConfig
from zoo.models.tagger import DECODERS, num_decoder_params


@dataclass(frozen=True)
class JointConfig(HeadConfig):
    """The attention BiRNN for SNIPS by default: 7 intents, 72 slot labels."""

    encoder: Any = RNNConfig(vocab_size=11_420, direction="both", num_layers=1, d_model=64, d_state=64)
    dropout_rate: float = 0.0
    num_classes: int = 7
    """Intents; 0 in a recipe: as many as its data has labels."""
    num_tags: int = 72
    """Slot labels; 0 in a recipe: as many as its data has tags."""
    decoder: Literal["softmax", "crf"] = "softmax"
    """Of the slots: each on its own, or the best row of them as a whole."""

    def __post_init__(self):
        super().__post_init__()
        one_of("decoder", self.decoder, DECODERS)
        not_negative(self, "num_classes", "num_tags")

    @property
    def attention_dims(self) -> dict[str, int]:
        """Attention's hidden layer is as wide as the features, as the authors have it."""
        return {"D": self.encoder.d_features, "E": self.encoder.d_features}

    @property
    def intent_dims(self) -> dict[str, int]:
        """What the intent is read from has twice the width: features beside their attended mean."""
        return {"D": 2 * self.encoder.d_features, "C": self.num_classes}

    @property
    def slot_dims(self) -> dict[str, int]:
        return {"D": 2 * self.encoder.d_features, "C": self.num_tags}

    @property
    def num_head_params(self) -> int:
        D, E = self.attention_dims["D"], self.attention_dims["E"]
        attention = (D * E) + (D * E + E) + E
        return (
            2 * attention
            + num_decoder_params("softmax", self.intent_dims)
            + num_decoder_params(self.decoder, self.slot_dims)
        )


class Joint(nn.Module):
    """Tokens to a vector for the intent and one for every slot, and these to logits and tags.

    The features and what is read out of them are dicts with "intent" and "slots".
    """

    traits = frozenset({"head", "slots"})
    output = ""
    config: JointConfig
    encoder: nn.Module

    def setup(self):
        cfg = self.config
        self.intent_attention = AdditiveAttention(cfg.attention_dims)
        self.slot_attention = AdditiveAttention(cfg.attention_dims)
        self.intent = Linear("BD,DC->BC", cfg.intent_dims, std=cfg.intent_dims["D"] ** -0.5)
        self.slots = DECODERS[cfg.decoder](cfg.slot_dims)

    def features(self, inputs, state):
        cfg = self.config
        x_BTD, lengths_B = encoded(self.encoder, inputs, state)
        end_B1D = last(x_BTD, lengths_B, num_directions=cfg.num_directions)[:, None]
        intent_B1D = jnp.concatenate([self.intent_attention(x_BTD, lengths_B, end_B1D), end_B1D], axis=-1)
        words_BTD = at_words(x_BTD, inputs)
        slots_BTD = jnp.concatenate([self.slot_attention(x_BTD, lengths_B, words_BTD), words_BTD], axis=-1)
        return {
            "intent": dropout(intent_B1D[:, 0], cfg.dropout_rate, dropout_key(self)),
            "slots": dropout(slots_BTD, cfg.dropout_rate, dropout_key(self)),
        }, None

    def readout(self, x):
        """{"intent": logits [B, C], "slots": PerToken or Chain} of the features of whole rows."""
        return {"intent": logits(self.intent, x["intent"]), "slots": self.slots(x["slots"])}
