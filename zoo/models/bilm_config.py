"""Sizes of a biLM, and those of ELMo as released (Peters et al. 2018, arXiv 1802.05365)."""

from dataclasses import dataclass
from typing import Literal

from zoo.data.characters import MAX_CHARACTERS
from zoo.errors import ConfigError
from zoo.models.character_cnn import NARROWEST, count_params, count_products
from zoo.models.pure import FlopsPerToken

WORDS, DTYPES = ("characters", "table"), ("float32", "bfloat16", "float64")


@dataclass(frozen=True)
class BiLMConfig:
    """ELMo, as released ("original"), by default."""

    vocab_size: int = 793_471
    """Words that are predicted; 0 in a recipe: as many as its tokenizer has."""
    words: Literal["characters", "table"] = "characters"
    """Where word vectors come from: their characters (inputs "characters"), or a table of tokens."""
    num_layers: int = 2
    d_model: int = 512
    """Width of a word vector and of a direction's output."""
    d_state: int = 4_096
    """Units of an LSTM, in each direction, before they are projected to d_model."""
    num_filters: int = 2_048
    """Filters of the characters' network."""
    num_highway: int = 2
    """Its highway layers."""
    d_character: int = 16
    """Width of a character's vector."""
    max_characters: int = MAX_CHARACTERS
    """Places of a word's characters, the marks around it included."""
    clip: float = 3.0
    """Bound of an LSTM's cells and of its outputs; 0: none."""
    dropout_rate: float = 0.1
    """Share dropped of what each layer reads, and before the output."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Of activations; parameters are float32, cells and logits at least that."""
    unroll: int = 1
    """Positions per trip of the loop."""

    def __post_init__(self):
        for field in ("num_layers", "d_model", "d_state", "num_filters", "d_character", "unroll"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)} must be at least 1")
        for field in ("vocab_size", "num_highway", "clip"):
            if not getattr(self, field) >= 0:
                raise ConfigError(f"{field}={getattr(self, field)} must not be negative")
        if not 0.0 <= self.dropout_rate < 1.0:
            raise ConfigError(f"dropout_rate={self.dropout_rate} must be at least 0 and less than 1")
        if self.num_filters % NARROWEST:
            raise ConfigError(
                f"num_filters={self.num_filters} must be a multiple of {NARROWEST}, shared out by width"
            )
        if self.max_characters < 7:
            raise ConfigError(f"max_characters={self.max_characters} must be at least 7, the widest filter")
        for field, known in (("words", WORDS), ("dtype", DTYPES)):
            if getattr(self, field) not in known:
                raise ConfigError(f"{field}={getattr(self, field)!r} is none of {', '.join(known)}")

    @property
    def num_directions(self) -> int:
        return 2

    @property
    def d_features(self) -> int:
        """Width of the features: both directions side by side."""
        return 2 * self.d_model

    @property
    def dims(self) -> dict[str, int]:
        """The size of every letter that has one size in all of the model."""
        return {"V": self.vocab_size, "D": self.d_model, "R": self.d_model, "Z": self.d_state, "G": 4}

    @property
    def num_feature_params(self) -> int:
        """Parameters without the output layer, as ELMo's are counted: 93.6 million."""
        words = self.vocab_size * self.d_model
        if self.words == "characters":
            words = count_params(self.num_filters, self.d_character, self.num_highway, self.d_model)
        layer = (2 * self.d_model + 1) * 4 * self.d_state + self.d_state * self.d_model
        return words + 2 * self.num_layers * layer

    @property
    def num_params(self) -> int:
        """The closed form; a test holds it against the arrays."""
        return self.num_feature_params + self.vocab_size * (self.d_model + 1)

    def flops_per_token(self, length: int) -> FlopsPerToken:
        """Forward and backward of one token: 6 for every weight that is multiplied, as often as it is: a
        convolution's once for each place in the word, the output layer's twice, once a direction."""
        layer = 8 * self.d_model * self.d_state + self.d_state * self.d_model
        products = 2 * self.num_layers * layer + 2 * self.vocab_size * self.d_model
        if self.words == "characters":
            network = (self.num_filters, self.d_character, self.num_highway, self.d_model)
            products += count_products(*network, self.max_characters)
        return FlopsPerToken(full=6.0 * products, causal=6.0 * products)

    def flops_of_features(self, length: int) -> FlopsPerToken:
        """The same without the output layer."""
        output = 12 * self.vocab_size * self.d_model
        return FlopsPerToken(*(flops - output for flops in self.flops_per_token(length)))


SIZES = {
    "bilm_tiny": BiLMConfig(
        vocab_size=256, d_model=64, d_state=64, num_filters=64, num_highway=1, d_character=4
    ),
    # As released; parameters without the output layer 13.6, 28.0 and 93.6 million.
    "elmo_small": BiLMConfig(d_model=128, d_state=1_024, num_highway=1),
    "elmo_medium": BiLMConfig(d_model=256, d_state=2_048, num_highway=1),
    "elmo": BiLMConfig(),
}
