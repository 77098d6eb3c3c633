"""The families of today's decoders as config.json describes them.

A family is a model_type: what its models always are, and what a config.json means that leaves a setting out,
which is what transformers takes then.
"""

from dataclasses import dataclass, field
from typing import Any

NAMES = {  # ours: theirs
    "vocab_size": "vocab_size",
    "max_length": "max_position_embeddings",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "d_model": "hidden_size",
    "d_head": "head_dim",
    "norm_epsilon": "rms_norm_eps",
    "tied": "tie_word_embeddings",
    "dropout_rate": "attention_dropout",
}
ACTIVATIONS = {  # theirs: ours. The first name of each of ours is the one written.
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}
ALIKE = ("mistral", "mixtral", "qwen3_moe")  # whose layers all see a window, or none does
KINDS = {"full_attention": "G", "sliding_attention": "L"}
# What zoo's Decoder is and cannot be otherwise.
FIXED = {"mlp_bias": False, "use_bidirectional_attention": False}
COMPUTED = ("dtype", "remat", "layer_unroll")  # how, not what: config.json does not say


@dataclass(frozen=True)
class Family:
    """A model_type."""

    always: dict[str, Any] = field(default_factory=dict)
    """Our fields that its models share."""
    usual: dict[str, Any] = field(default_factory=dict)
    """Their settings where a config.json has none."""
    activation: str = "hidden_act"
    """How they call it."""
    d_ff: str = "intermediate_size"
    """How they call the width of a feed-forward layer, or of an expert."""
    bases: tuple[float, float] = (10_000.0, 0.0)
    """Rotary bases where none are said: of layers that see the row, and of others if they have their own."""


GEMMA = {"norms": "both", "norm_offset": 1.0}
GEMMA_USUAL = {"head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True}
GEMMA_USUAL |= {"query_pre_attn_scalar": 256.0, "sliding_window": 4096}
FAMILIES = {
    "llama": Family(),
    "mistral": Family(usual={"sliding_window": 4096, "num_key_value_heads": 8}),
    "qwen2": Family(always={"biases": "qkv"}, usual={"sliding_window": 4096, "max_window_layers": 28}),
    "qwen3": Family(
        always={"qk_norm": "head"},
        usual={"head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
    ),
    "mixtral": Family(
        usual={"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "intermediate_size": 14_336}
        | {"max_position_embeddings": 131_072},
        bases=(1_000_000.0, 0.0),
    ),
    "qwen3_moe": Family(
        always={"qk_norm": "head"},
        usual={"sliding_window": 4096, "num_key_value_heads": 4, "moe_intermediate_size": 768}
        | {"vocab_size": 151_936, "hidden_size": 2_048, "num_hidden_layers": 24}
        | {"max_position_embeddings": 32_768},
        d_ff="moe_intermediate_size",
    ),
    "olmoe": Family(
        always={"qk_norm": "width"},
        usual={"rms_norm_eps": 1e-5, "vocab_size": 50_304, "hidden_size": 2_048, "intermediate_size": 2_048}
        | {"num_hidden_layers": 16, "num_attention_heads": 16, "max_position_embeddings": 4_096},
    ),
    "olmo2": Family(always={"norms": "after", "qk_norm": "width"}, usual={"rms_norm_eps": 1e-5}),
    "gemma2": Family(
        always=GEMMA,
        usual=GEMMA_USUAL | {"final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
        activation="hidden_activation",
    ),
    "gemma3_text": Family(
        always=GEMMA | {"qk_norm": "head"},
        usual=GEMMA_USUAL,
        activation="hidden_activation",
        bases=(1_000_000.0, 10_000.0),
    ),
}
CLASSES = {  # how the names of their classes begin
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "mixtral": "Mixtral",
    "qwen3_moe": "Qwen3Moe",
    "olmoe": "Olmoe",
    "olmo2": "Olmo2",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3",
}
USUAL = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False, "attention_dropout": 0.0}
USUAL |= {"vocab_size": 32_000, "max_position_embeddings": 2_048, "num_hidden_layers": 32}
USUAL |= {"num_attention_heads": 32, "hidden_size": 4_096, "intermediate_size": 11_008}
USUAL |= {"sliding_window": 0, "query_pre_attn_scalar": 0.0, "max_window_layers": 0, "head_dim": 0}
USUAL |= {"final_logit_softcapping": 0.0, "attn_logit_softcapping": 0.0}
NONE = ("sliding_window", "final_logit_softcapping", "attn_logit_softcapping")  # what null switches off
