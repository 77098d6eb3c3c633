"""Tagger: a tag for every word, over any encoder.

By default the LSTM-CRF of Lample et al. 2016 ("Neural Architectures for Named Entity Recognition", arXiv
1603.01360) without its model of characters: a bidirectional LSTM, and a CRF that knows which tag follows
which. The decoder `softmax` takes every word on its own.

A word in several pieces is tagged at its first, as in BERT (Devlin et al. 2018, section 5.3):

    tokens  [CLS] un ##broken film [SEP] ─ encoder ─ features ─ at un, film ─ tags
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn

from zoo.crf import Chain, PerToken
from zoo.layers import Linear, constant, dropout, dropout_key, parameter
from zoo.models.heads import HeadConfig, at_words, encoded, logits, not_negative, one_of
from zoo.models.rnn import RNNConfig


@dataclass(frozen=True)
class TaggerConfig(HeadConfig):
    """Lample's LSTM-CRF for English by default."""

    encoder: Any = RNNConfig(direction="both", num_layers=1, d_model=100, d_state=100)
    dropout_rate: float = 0.0
    num_tags: int = 17
    """Tags; 0 in a recipe: as many as its data has. CoNLL 2003's four types have 17 in BIOES."""
    decoder: Literal["softmax", "crf"] = "crf"
    """softmax: each tag on its own; crf: the best row of tags as a whole."""

    def __post_init__(self):
        super().__post_init__()
        one_of("decoder", self.decoder, DECODERS)
        not_negative(self, "num_tags")

    @property
    def dims(self) -> dict[str, int]:
        return super().dims | {"C": self.num_tags}

    @property
    def head_dims(self) -> dict[str, int]:
        """The sizes that the head's parameters have, D being the width of the features."""
        return {"D": self.encoder.d_features, "C": self.num_tags}

    @property
    def num_head_params(self) -> int:
        return num_decoder_params(self.decoder, self.head_dims)


class Tagger(nn.Module):
    """Tokens to features, and those to a PerToken or a Chain of zoo/crf.py."""

    traits = frozenset({"head", "tag"})
    output = ""
    config: TaggerConfig
    encoder: nn.Module

    def setup(self):
        self.tags = DECODERS[self.config.decoder](self.config.head_dims)

    def features(self, inputs, state):
        x_BTD, _ = encoded(self.encoder, inputs, state)
        return dropout(at_words(x_BTD, inputs), self.config.dropout_rate, dropout_key(self)), None

    def readout(self, x_BTD):
        """Features of whole rows to their distribution over tags."""
        return self.tags(x_BTD)


class Softmax(nn.Module):
    """Logits of every position's tag."""

    dims: dict[str, int]

    @nn.compact
    def __call__(self, x_BTD):
        tags = Linear("BD,DC->BC", self.dims, std=self.dims["D"] ** -0.5, name="emissions")
        return PerToken(logits(tags, x_BTD))


class CRF(nn.Module):
    """Logits of every position's tag, and what it says of its neighbours': nothing at first."""

    dims: dict[str, int]

    @nn.compact
    def __call__(self, x_BTD):
        tags = Linear("BD,DC->BC", self.dims, std=self.dims["D"] ** -0.5, name="emissions")
        zeros = functools.partial(parameter, self, dims=self.dims, init=constant(0.0))
        return Chain(
            emissions_BTC=logits(tags, x_BTD),
            transitions_CC=zeros("transitions", "CC"),
            start_C=zeros("start", "C"),
            stop_C=zeros("stop", "C"),
        )


DECODERS = {"softmax": Softmax, "crf": CRF}


def num_decoder_params(decoder: str, dims: dict[str, int]) -> int:
    """The closed form for one of DECODERS."""
    D, C = dims["D"], dims["C"]
    return D * C + C + (C * C + 2 * C if decoder == "crf" else 0)
