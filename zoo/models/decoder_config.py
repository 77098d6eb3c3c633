"""The decoders of today as values: what a DecoderConfig says, and the sizes that were released.

One configuration describes them all; what differs is where the norms stand, how queries and keys are
normed, which layers see a window only, and how positions turn:

    Llama 2, 3, SmolLM   the defaults; SmolLM and the small Llamas have one table for input and output
    Mistral              every layer sees a window
    Qwen 2, 2.5          biases in queries, keys and values
    Qwen 3               queries and keys normed head by head
    OLMo 2               norms after the branches, queries and keys normed over all heads at once
    Gemma 2              norms on both sides, every other layer a window, soft-capped scores and logits
    Gemma 3              norms on both sides and of heads, five windows to one whole row, two rotary bases
    Mixtral              experts, whose weights sum to one
    Qwen 3 MoE, OLMoE    many small experts; queries and keys normed by head, or over all heads at once
"""

from dataclasses import dataclass, field
from typing import Literal

from zoo.errors import ConfigError
from zoo.models.experts import Experts, NoExperts
from zoo.models.pure import FlopsPerToken
from zoo.models.remat import GATED, OF_ATTENTION
from zoo.models.transformer_config import check_transformer
from zoo.rotary import Scaling, Unscaled

NORMS = {  # which of a block's four places have one: before and after attention, before and after the MLP
    "before": ("attention_in", "mlp_in"),
    "after": ("attention_out", "mlp_out"),
    "both": ("attention_in", "attention_out", "mlp_in", "mlp_out"),
}


@dataclass(frozen=True)
class DecoderConfig:
    """Llama 3 8B by default."""

    vocab_size: int = 128_256
    """Words of the vocabulary; 0 in a recipe: as many as its tokenizer has."""
    max_length: int = 8_192
    """Longest row, in tokens; no parameter depends on it."""
    num_layers: int = 32
    num_heads: int = 32
    """Heads of queries."""
    num_kv_heads: int = 8
    """Heads of keys and values; each serves as many heads of queries, so they divide those."""
    d_model: int = 4_096
    d_head: int = 0
    """Width of a head; 0: d_model over num_heads."""
    d_ff: int = 14_336
    """Width of the feed-forward layer's two halves, the gated and the gating one; of each expert's."""
    experts: NoExperts | Experts = field(default_factory=NoExperts)
    """Whether tokens go to a few of several feed-forward layers each; see zoo/models/experts.py."""
    activation: str = "silu"
    """Of the gate: silu, gelu_tanh (Gemma), gelu or relu."""
    norms: Literal["before", "after", "both"] = "before"
    """Where a branch is normed: what it reads, what it adds to the stream, or both."""
    norm_epsilon: float = 1e-5
    """Added to the mean square in every norm."""
    norm_offset: float = 0.0
    """What is added to every stored scale of a norm; Gemma's are stored as their distance from 1."""
    qk_norm: Literal["none", "head", "width"] = "none"
    """Queries and keys are normed not at all, head by head, or over all heads at once."""
    biases: Literal["none", "qkv", "attention"] = "none"
    """Which matmuls have them: none, those of queries, keys and values, or attention's output too."""
    pattern: str = "G"
    """The kinds of layers from below, over and over: G sees all that came before, L the last `window`."""
    window: int = 0
    """Positions that a layer L sees, itself among them; 0 where there is none."""
    rotary_base: float = 500_000.0
    """The slowest pair turns once in about 2 pi times as many positions."""
    rotary_scaling: Scaling = field(default_factory=Unscaled)
    """How positions are stretched over longer texts than the first ones; see zoo/rotary.py."""
    local_rotary_base: float = 0.0
    """Of layers L, which are not stretched then; 0: they turn as the others do."""
    query_scalar: float = 0.0
    """Scores are divided by its square root; 0: the width of a head."""
    score_cap: float = 0.0
    """Bound of attention's scores, softly; 0: none."""
    logit_cap: float = 0.0
    """Bound of the logits, softly; 0: none."""
    embedding_scale: float = 1.0
    """What a word's vector is multiplied by on the way in; Gemma's is the square root of d_model."""
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
        check_transformer(self, OF_ATTENTION if self.experts.num_experts else GATED)
        for name in ("d_ff", "num_kv_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("window", "d_head", "query_scalar", "score_cap", "logit_cap"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must not be negative")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.dims["K"] % 2:
            raise ConfigError(
                f"a head is {self.dims['K']} wide, but rotary positions turn pairs; set d_head to an even one"
            )
        if not self.pattern or set(self.pattern) - set("GL") or len(self.pattern) > self.num_layers:
            raise ConfigError(
                f"pattern={self.pattern!r} must be letters G and L, up to num_layers={self.num_layers}"
            )
        if ("L" in self.pattern) != (self.window > 0):
            raise ConfigError(
                f"pattern={self.pattern!r} and window={self.window} do not fit: layers L need a window"
            )
        if self.local_rotary_base and "L" not in self.pattern:
            raise ConfigError(f"local_rotary_base={self.local_rotary_base} needs layers L in the pattern")
        if self.rotary_base <= 1 or 0 != self.local_rotary_base <= 1:
            raise ConfigError(
                f"rotary_base={self.rotary_base} and local_rotary_base={self.local_rotary_base} must be more "
                "than 1"
            )
        if not 0.0 < self.norm_epsilon < 1.0:
            raise ConfigError(f"norm_epsilon={self.norm_epsilon} must be above 0 and less than 1")

    @property
    def kinds(self) -> str:
        """A letter for each layer."""
        return (self.pattern * self.num_layers)[: self.num_layers]

    @property
    def dims(self) -> dict[str, int]:
        """The size of every letter that the parameters use."""
        return {
            "V": self.vocab_size,
            "N": self.num_layers,
            "D": self.d_model,
            "H": self.num_heads,
            "J": self.num_kv_heads,
            "K": self.d_head or self.d_model // self.num_heads,
            "F": self.d_ff,
        } | ({"X": self.experts.num_experts} if self.experts.num_experts else {})

    @property
    def d_features(self) -> int:
        """Width of the features."""
        return self.d_model

    def _params(self, experts: int) -> int:
        """Parameters without the output layer's own, of the experts so many."""
        V, N, D, H, J, K, F = (self.dims[letter] for letter in "VNDHJKF")
        kernels = 2 * D * (H + J) * K + 3 * D * F * max(experts, 1) + D * self.experts.num_experts
        biases = {"none": 0, "qkv": (H + 2 * J) * K, "attention": (H + 2 * J) * K + D}[self.biases]
        norms = len(NORMS[self.norms]) * D + {"none": 0, "head": 2 * K, "width": (H + J) * K}[self.qk_norm]
        return V * D + N * (kernels + biases + norms) + D

    @property
    def num_feature_params(self) -> int:
        """Parameters without the output layer's own."""
        return self._params(self.experts.num_experts)

    @property
    def num_params(self) -> int:
        """The closed form; a test holds it against the arrays."""
        return self.num_feature_params + (0 if self.tied else self.vocab_size * self.d_model)

    @property
    def num_active_params(self) -> int:
        """Those that a token meets: of the experts only the picked ones."""
        return self.num_params - self.num_feature_params + self._params(self.experts.experts_per_token)

    def flops_per_token(self, length: int) -> FlopsPerToken:
        """Forward and backward of one token in rows of `length`: 6 a parameter that is multiplied (the table
        of words once, as output; of the experts the picked ones), and for scores and mixing 12 H K a position
        seen.

        Counted in full a layer sees r positions, its window or the row; of those the causal ones are
        r - r^2 / (2 T) on average, half the row without a window.
        """
        reaches = [min(self.window, length) if kind == "L" else length for kind in self.kinds]
        causal = sum(reach - reach**2 / (2 * length) for reach in reaches)
        matmuls = self._params(self.experts.experts_per_token) * 6
        per_position = 12 * self.num_heads * self.dims["K"]
        return FlopsPerToken(
            full=matmuls + per_position * sum(reaches), causal=matmuls + per_position * causal
        )

    def flops_of_features(self, length: int) -> FlopsPerToken:
        """The same without the output layer."""
        output = 6 * self.vocab_size * self.d_model
        return FlopsPerToken(*(flops - output for flops in self.flops_per_token(length)))
