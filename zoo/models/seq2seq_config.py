"""Sizes of a recurrent encoder and decoder; seq2seq.py says what they are."""

from dataclasses import dataclass
from typing import Literal

from zoo.errors import ConfigError
from zoo.models.alignment import ALIGNMENTS
from zoo.models.pure import FlopsPerToken
from zoo.models.rnn import CELLS, RNNConfig

FEEDINGS = ("none", "attentional", "context")


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Luong et al.'s network with global attention and input feeding by default (their table 4)."""

    vocab_size: int = 50_000
    """Words of both languages together; 0 in a recipe: as many as its tokenizer has."""
    cell: Literal["lstm", "gru", "gru_original", "elman_tanh", "elman_relu"] = "lstm"
    """lstm, gru (as cuDNN and torch have it), gru_original (as published), elman_tanh or elman_relu."""
    d_model: int = 1000
    """Width of the word vectors."""
    d_state: int = 1000
    """Width of every layer's state and of the encoder's output; two directions have half of it each."""
    num_encoder_layers: int = 4
    num_decoder_layers: int = 4
    """Decoder layers begin where encoder layers end, the top one where the top one does, and so on down."""
    direction: Literal["forward", "both"] = "forward"
    """Of the encoder."""
    attention: Literal["dot", "general", "concat", "additive", "none"] = "dot"
    """How positions are scored; none: the decoder knows the encoder's last state only."""
    feeding: Literal["none", "attentional", "context"] = "attentional"
    """What the decoder reads beside the last word."""
    tied: bool = False
    """The table of word vectors is the output layer's too."""
    dropout_rate: float = 0.2
    """Share dropped after the table, between layers and before the output."""
    teacher_forcing_rate: float = 1.0
    """Share of rows that read the right words in training; the others read what the model would write."""
    init_scale: float = 0.1
    """Parameters begin evenly spread over -init_scale to init_scale; 0: 1 / sqrt(width of the state)."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Of activations; parameters are float32, an LSTM's cell, scores and logits at least that."""
    unroll: int = 1
    """Positions per trip of the loops."""

    def __post_init__(self):
        for field in ("d_model", "d_state", "num_encoder_layers", "num_decoder_layers", "unroll"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)} must be at least 1")
        for field in ("vocab_size", "init_scale"):
            if getattr(self, field) < 0:
                raise ConfigError(f"{field}={getattr(self, field)} must not be negative")
        if not 0.0 <= self.dropout_rate < 1.0:
            raise ConfigError(f"dropout_rate={self.dropout_rate} must be at least 0 and less than 1")
        if not 0.0 <= self.teacher_forcing_rate <= 1.0:
            raise ConfigError(
                f"teacher_forcing_rate={self.teacher_forcing_rate} must be at least 0 and at most 1"
            )
        if self.cell not in CELLS:
            raise ConfigError(f"cell={self.cell!r} is none of {', '.join(CELLS)}")
        if self.attention not in (*ALIGNMENTS, "none"):
            raise ConfigError(f"attention={self.attention!r} is none of {', '.join(ALIGNMENTS)}, none")
        if self.feeding not in FEEDINGS:
            raise ConfigError(f"feeding={self.feeding!r} is none of {', '.join(FEEDINGS)}")
        if self.direction == "both" and self.d_state % 2:
            raise ConfigError(f"d_state={self.d_state} must be even, where direction=both halves it")
        if self.attention == "none" and self.feeding != "none":
            raise ConfigError(f"feeding={self.feeding} needs an attention; set feeding=none or attention=dot")
        if self.attention == "none" and self.tied and self.d_model != self.d_state:
            raise ConfigError(
                f"d_model={self.d_model} must be d_state={self.d_state}, where tied=True and attention=none "
                "give the table the decoder's state to compare with"
            )

    @property
    def encoder(self) -> RNNConfig:
        """Layers of the encoder, in each direction."""
        return RNNConfig(
            vocab_size=0,
            cell=self.cell,
            direction=self.direction,
            num_layers=self.num_encoder_layers,
            d_model=self.d_model,
            d_state=self.d_state // (2 if self.direction == "both" else 1),
            dropout_rate=self.dropout_rate,
            init_scale=self.init_scale,
            dtype=self.dtype,
            unroll=self.unroll,
        )

    @property
    def decoder(self) -> "Fed":
        """Layers of the decoder. Where attention follows, it is what dropout comes after."""
        return Fed(
            vocab_size=0,
            cell=self.cell,
            num_layers=self.num_decoder_layers,
            d_model=self.d_model,
            d_state=self.d_state,
            d_fed={"none": 0, "attentional": self.d_features, "context": self.d_state}[self.feeding],
            dropout_rate=self.dropout_rate,
            output_dropout_rate=self.dropout_rate if self.attention == "none" else 0.0,
            init_scale=self.init_scale,
            dtype=self.dtype,
            unroll=self.unroll,
        )

    @property
    def d_features(self) -> int:
        """Width of the attentional vector, which the output layer reads."""
        return self.d_model if self.tied else self.d_state

    @property
    def dims(self) -> dict[str, int]:
        """The size of every letter that has one size in all of the model; the layers know the others."""
        return {"V": self.vocab_size, "D": self.d_model, "G": CELLS[self.cell].gates}

    @property
    def num_params(self) -> int:
        """The closed form; a test holds it against the arrays."""
        tables = self.vocab_size * (self.d_model + 1 + (0 if self.tied else self.d_features))
        return tables + self._inner_params()

    def _inner_params(self) -> int:
        """All but the tables and the output's bias."""
        Z = self.d_state
        keys = {"none": 0, "dot": 0, "general": Z * Z, "concat": 2 * Z * Z + Z, "additive": 2 * Z * Z + 2 * Z}
        attentional = 0 if self.attention == "none" else 2 * Z * self.d_features
        return self.encoder.num_params + self.decoder.num_params + keys[self.attention] + attentional

    def flops_per_token(self, length: int) -> FlopsPerToken:
        """Forward and backward of one target token and one source token: 6 a weight, as each is multiplied
        and added once forward and twice backward, and with attention 12 d_state a source position, for the
        score and for the mean. A source is taken to be as long as its target; all of it is looked at."""
        flops = 6.0 * (self._inner_params() + self.vocab_size * self.d_features)
        flops += 0 if self.attention == "none" else 12.0 * length * self.d_state
        return FlopsPerToken(full=flops, causal=flops)


@dataclass(frozen=True)
class Fed(RNNConfig):
    """Layers of which the first reads another vector beside the word's."""

    d_fed: int = 0
    """Its width."""

    def layer_dims(self, layer: int) -> dict[str, int]:
        dims = super().layer_dims(layer)
        return {"E": dims.pop("D") + self.d_fed} | dims if layer == 0 and self.d_fed else dims


SIZES = {
    "seq2seq_tiny": Seq2SeqConfig(
        vocab_size=256,
        d_model=32,
        d_state=48,
        num_encoder_layers=1,
        num_decoder_layers=2,
        attention="general",
        feeding="none",
        dropout_rate=0.1,
    ),
    # The best network over all experiments of Lake and Baroni 2018 (arXiv 1711.00350), with the
    # vocabulary of SCAN: 13 words, 6 actions, 4 marks.
    "lstm_lake_baroni": Seq2SeqConfig(
        vocab_size=23,
        d_model=200,
        d_state=200,
        num_encoder_layers=2,
        num_decoder_layers=2,
        attention="none",
        feeding="none",
        dropout_rate=0.5,
        teacher_forcing_rate=0.5,
    ),
    "lstm_luong": Seq2SeqConfig(),
}
