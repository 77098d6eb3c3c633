"""Sizes of recurrent networks: Zaremba et al. 2014 (arXiv 1409.2329), AWD-LSTM (arXiv 1708.02182)."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from zoo.errors import ConfigError
from zoo.models.pure import FlopsPerToken


class Cell(NamedTuple):
    """What distinguishes one kind of recurrence for the layer around it."""

    gates: int
    """Pre-activations per unit of state."""
    has_cell: bool = False
    """Whether a second array is carried beside the output."""


CELLS = {
    "lstm": Cell(gates=4, has_cell=True),  # gates in the order input, forget, candidate, output
    "gru": Cell(gates=3),  # reset, update, candidate; the reset after the matmul, as cuDNN and torch do
    "gru_original": Cell(gates=3),  # the reset before the matmul, as published
    "elman_tanh": Cell(gates=1),
    "elman_relu": Cell(gates=1),
}


CHOICES = {
    "cell": tuple(CELLS),
    "direction": ("forward", "both"),
    "dropout_draws": ("each", "once"),
    "dtype": ("float32", "bfloat16", "float64"),
}


@dataclass(frozen=True)
class RNNConfig:
    """Zaremba's medium LSTM by default."""

    vocab_size: int = 10_000
    """Words of the vocabulary; 0 in a recipe: as many as its tokenizer has."""
    cell: Literal["lstm", "gru", "gru_original", "elman_tanh", "elman_relu"] = "lstm"
    """lstm, gru (as cuDNN and torch have it), gru_original (as published), elman_tanh or elman_relu."""
    direction: Literal["forward", "both"] = "forward"
    """both: an encoder that reads every layer from either end; it has no state to go on from."""
    num_layers: int = 2
    d_model: int = 650
    """Width of the word vectors."""
    d_state: int = 650
    """Width of a layer's state, in each direction; of the last layer d_model, where tied."""
    d_projection: int = 0
    """Width that an LSTM's output is projected to before it goes up and on; 0: none."""
    tied: bool = False
    """The table of word vectors is the output layer's too."""
    recurrent_bias: bool = False
    """A second bias on the side of the state, as cuDNN and torch train it: the same function."""
    forget_bias: float = 0.0
    """Added to the LSTM's first forget-gate bias (Jozefowicz et al. 2015 advise 1)."""
    dropout_rate: float = 0.5
    """Share dropped after the table, between layers and before the output."""
    input_dropout_rate: float = -1.0
    """After the table; -1: dropout_rate."""
    output_dropout_rate: float = -1.0
    """Before the output; -1: dropout_rate."""
    word_dropout_rate: float = 0.0
    """Share of words that are read as <unk>, token 1."""
    embedding_dropout_rate: float = 0.0
    """Share of the vocabulary whose vectors are dropped wherever the word stands."""
    weight_dropout_rate: float = 0.0
    """Share of the recurrent weights that are dropped, the same for all positions (DropConnect)."""
    dropout_draws: Literal["each", "once"] = "each"
    """each: every position has its own draw; once: all positions of a row share one (variational)."""
    init_scale: float = 0.05
    """Parameters begin evenly spread over -init_scale to init_scale; 0: 1 / sqrt(d_state), as torch."""
    table_scale: float = 0.0
    """The same of the table of word vectors (larger in Flax's SST-2 example); 0: as all others."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Of activations; parameters are float32, an LSTM's cell and logits at least that."""
    unroll: int = 1
    """Positions per trip of the loop."""

    def __post_init__(self):
        for field in ("num_layers", "d_model", "d_state", "unroll"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)} must be at least 1")
        for field in ("vocab_size", "d_projection", "init_scale", "table_scale"):
            if not 0 <= getattr(self, field) < math.inf:
                raise ConfigError(f"{field}={getattr(self, field)} must not be negative or infinite")
        for field in ("dropout_rate", "word_dropout_rate", "embedding_dropout_rate", "weight_dropout_rate"):
            if not 0.0 <= getattr(self, field) < 1.0:
                raise ConfigError(f"{field}={getattr(self, field)} must be at least 0 and less than 1")
        for field in ("input_dropout_rate", "output_dropout_rate"):
            rate = getattr(self, field)
            if rate != -1 and not 0.0 <= rate < 1.0:
                raise ConfigError(
                    f"{field}={rate} must be at least 0 and less than 1, or -1 for dropout_rate"
                )
        if self.forget_bias and self.cell != "lstm":
            raise ConfigError(
                f"forget_bias={self.forget_bias} is for cell=lstm; {self.cell} has no such gate; set it to 0"
            )
        if not math.isfinite(self.forget_bias):
            raise ConfigError(f"forget_bias={self.forget_bias} must be a number, for example 1")
        for field, known in CHOICES.items():
            if getattr(self, field) not in known:
                raise ConfigError(f"{field}={getattr(self, field)!r} is none of {', '.join(known)}")
        if self.d_projection and self.cell != "lstm":
            raise ConfigError(
                f"d_projection={self.d_projection} is for cell=lstm, not {self.cell}; set it to 0"
            )
        if self.tied and self.direction == "both" and self.d_model % 2:
            raise ConfigError(
                f"d_model={self.d_model} must be even, where tied=True and direction=both halve it"
            )
        share = self.d_model // self.num_directions
        if self.tied and self.d_projection not in (0, share):
            raise ConfigError(
                f"d_projection={self.d_projection} must be {share}, the table's width per direction, where "
                "tied=True"
            )

    @property
    def num_directions(self) -> int:
        return 2 if self.direction == "both" else 1

    @property
    def widths(self) -> tuple[int, ...]:
        """What each layer puts out, in each direction."""
        widths = [self.d_projection or self.d_state] * self.num_layers
        if self.tied and not self.d_projection:
            widths[-1] = self.d_model // self.num_directions
        return tuple(widths)

    @property
    def d_features(self) -> int:
        """Width of the features: both directions side by side."""
        return self.num_directions * self.widths[-1]

    @property
    def dims(self) -> dict[str, int]:
        """The size of every letter that has one size in all of the model; the layers know the others."""
        return {"V": self.vocab_size, "D": self.d_model, "G": CELLS[self.cell].gates}

    def layer_dims(self, layer: int) -> dict[str, int]:
        """The sizes of one layer: D or E wide input, R the state that is read, Z the units it has."""
        width = self.widths[layer]
        units = self.d_state if self.d_projection else width
        below = {"D": self.d_model} if layer == 0 else {"E": self.num_directions * self.widths[layer - 1]}
        return below | {"R": width, "Z": units, "G": CELLS[self.cell].gates}

    @property
    def num_params(self) -> int:
        """The closed form; a test holds it against the arrays."""
        output = self.vocab_size * (1 if self.tied else 1 + self.d_features)
        return self.num_feature_params + output

    @property
    def num_feature_params(self) -> int:
        """Parameters without the output layer's own."""
        return self.vocab_size * self.d_model + self._recurrent_params()

    def _recurrent_params(self) -> int:
        total = 0
        for layer in range(self.num_layers):
            dims = self.layer_dims(layer)
            R, Z, G = dims["R"], dims["Z"], dims["G"]
            biases = 1 + self.recurrent_bias
            one = (dims.get("D", 0) + dims.get("E", 0) + R + biases) * G * Z
            one += Z * R if self.d_projection else 0
            one += Z if self.cell == "gru" and not self.recurrent_bias else 0  # its own bias of the candidate
            total += self.num_directions * one
        return total

    def flops_per_token(self, length: int) -> FlopsPerToken:
        """Forward and backward of one token: every weight of the layers and of the output is multiplied
        and added once forward and twice backward, 6 a weight. A table that is only looked up costs
        nothing, and so does the length."""
        flops = 6.0 * (self._recurrent_params() + self.vocab_size * self.d_features)
        return FlopsPerToken(full=flops, causal=flops)

    def flops_of_features(self, length: int) -> FlopsPerToken:
        """The same without the output layer."""
        flops = 6.0 * self._recurrent_params()
        return FlopsPerToken(full=flops, causal=flops)


def _zaremba(width, dropout_rate, init_scale):
    return RNNConfig(
        d_model=width, d_state=width, dropout_rate=dropout_rate, init_scale=init_scale, forget_bias=0.0
    )


SIZES = {
    "rnn_tiny": RNNConfig(vocab_size=256, d_model=32, d_state=64, dropout_rate=0.1),
    "lstm_zaremba_small": _zaremba(200, 0.0, 0.1),
    "lstm_zaremba_medium": _zaremba(650, 0.5, 0.05),
    "lstm_zaremba_large": _zaremba(1500, 0.65, 0.04),
    # The Penn Treebank model of arXiv 1708.02182, section 5: 24 million parameters.
    "awd_lstm": RNNConfig(
        num_layers=3,
        d_model=400,
        d_state=1150,
        tied=True,
        recurrent_bias=True,
        dropout_rate=0.25,
        input_dropout_rate=0.4,
        output_dropout_rate=0.4,
        embedding_dropout_rate=0.1,
        weight_dropout_rate=0.5,
        dropout_draws="once",
        init_scale=0.0,
    ),
}
