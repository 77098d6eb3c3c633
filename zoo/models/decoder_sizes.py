"""Decoders as they were released: sizes from the config.json of each release on the Hugging Face hub, the
counts of parameters in tests."""

import dataclasses

from zoo.models.decoder_config import DecoderConfig
from zoo.models.experts import Experts
from zoo.rotary import Llama3

LLAMA3 = DecoderConfig()
LLAMA2 = DecoderConfig(  # Touvron et al. 2023, arXiv 2307.09288
    vocab_size=32_000, max_length=4_096, num_kv_heads=32, d_ff=11_008, rotary_base=10_000.0
)
_LLAMA3_70B = dataclasses.replace(LLAMA3, num_layers=80, num_heads=64, d_model=8_192, d_ff=28_672)


def _llama31(base: DecoderConfig, factor: float = 8.0, **changes) -> DecoderConfig:
    """The long context of Llama 3.1 and 3.2 (arXiv 2407.21783)."""
    return dataclasses.replace(base, max_length=131_072, rotary_scaling=Llama3(factor), **changes)


SMOLLM = DecoderConfig(  # Allal et al. 2024
    vocab_size=49_152,
    max_length=2_048,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    d_model=576,
    d_ff=1_536,
    rotary_base=10_000.0,
    tied=True,
)
MISTRAL = DecoderConfig(  # Jiang et al. 2023, arXiv 2310.06825
    vocab_size=32_000, max_length=32_768, rotary_base=10_000.0, pattern="L", window=4_096
)
MIXTRAL = dataclasses.replace(  # Jiang et al. 2024, arXiv 2401.04088
    MISTRAL, rotary_base=1_000_000.0, pattern="G", window=0, experts=Experts()
)
QWEN25 = DecoderConfig(  # Qwen team 2024, arXiv 2412.15115
    vocab_size=151_936,
    max_length=32_768,
    num_layers=24,
    num_heads=14,
    num_kv_heads=2,
    d_model=896,
    d_ff=4_864,
    norm_epsilon=1e-6,
    biases="qkv",
    rotary_base=1_000_000.0,
    tied=True,
)
QWEN3 = dataclasses.replace(  # Qwen team 2025, arXiv 2505.09388
    QWEN25,
    max_length=40_960,
    num_layers=28,
    num_heads=16,
    num_kv_heads=8,
    d_model=1_024,
    d_head=128,
    d_ff=3_072,
    qk_norm="head",
    biases="none",
)
QWEN3_MOE = dataclasses.replace(  # the same
    QWEN3,
    num_layers=48,
    num_heads=32,
    num_kv_heads=4,
    d_model=2_048,
    d_ff=768,
    experts=Experts(128, 8),
    tied=False,
)
OLMO2 = DecoderConfig(  # OLMo team 2024, arXiv 2501.00656
    vocab_size=100_352,
    max_length=4_096,
    num_kv_heads=32,
    d_ff=11_008,
    norms="after",
    norm_epsilon=1e-6,
    qk_norm="width",
)
OLMOE = DecoderConfig(  # Muennighoff et al. 2024, arXiv 2409.02060
    vocab_size=50_304,
    max_length=4_096,
    num_layers=16,
    num_heads=16,
    num_kv_heads=16,
    d_model=2_048,
    d_ff=1_024,
    experts=Experts(64, 8, normalised=False),
    qk_norm="width",
    rotary_base=10_000.0,
)
GEMMA2 = DecoderConfig(  # Gemma team 2024, arXiv 2408.00118
    vocab_size=256_000,
    max_length=8_192,
    num_layers=26,
    num_heads=8,
    num_kv_heads=4,
    d_model=2_304,
    d_head=256,
    d_ff=9_216,
    activation="gelu_tanh",
    norms="both",
    norm_epsilon=1e-6,
    norm_offset=1.0,
    pattern="LG",
    window=4_096,
    rotary_base=10_000.0,
    query_scalar=256.0,
    score_cap=50.0,
    logit_cap=30.0,
    embedding_scale=2_304**0.5,
    tied=True,
)
GEMMA3 = dataclasses.replace(  # Gemma team 2025, arXiv 2503.19786
    GEMMA2,
    vocab_size=262_144,
    max_length=32_768,
    num_heads=4,
    num_kv_heads=1,
    d_model=1_152,
    d_ff=6_912,
    qk_norm="head",
    pattern="LLLLLG",
    window=512,
    rotary_base=1_000_000.0,
    local_rotary_base=10_000.0,
    score_cap=0.0,
    logit_cap=0.0,
    embedding_scale=1_152**0.5,
)

SIZES = {
    "decoder_tiny": DecoderConfig(
        vocab_size=256,
        max_length=128,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        d_model=64,
        d_ff=128,
        pattern="LG",
        window=32,
        rotary_base=100_000.0,
        local_rotary_base=10_000.0,
    ),
    "llama2_7b": LLAMA2,
    "llama3_8b": LLAMA3,
    "llama3_70b": _LLAMA3_70B,
    "llama3.1_8b": _llama31(LLAMA3),
    "llama3.1_405b": _llama31(LLAMA3, num_layers=126, num_heads=128, d_model=16_384, d_ff=53_248),
    "llama3.2_1b": _llama31(LLAMA3, 32.0, num_layers=16, d_model=2_048, d_ff=8_192, tied=True),
    "mistral_7b": MISTRAL,
    "mixtral_8x7b": MIXTRAL,
    "mixtral_8x22b": dataclasses.replace(
        MIXTRAL, max_length=65_536, num_layers=56, num_heads=48, d_model=6_144, d_ff=16_384
    ),
    "qwen2.5_0.5b": QWEN25,
    "qwen2.5_1.5b": dataclasses.replace(QWEN25, num_layers=28, num_heads=12, d_model=1_536, d_ff=8_960),
    "qwen3_0.6b": QWEN3,
    "qwen3_8b": dataclasses.replace(
        QWEN3, num_layers=36, num_heads=32, d_model=4_096, d_ff=12_288, tied=False
    ),
    "qwen3_30b_a3b": QWEN3_MOE,
    "olmo2_7b": OLMO2,
    "olmoe_1b_7b": OLMOE,
    "gemma2_2b": GEMMA2,
    "gemma2_27b": dataclasses.replace(
        GEMMA2,
        num_layers=46,
        num_heads=32,
        num_kv_heads=16,
        d_model=4_608,
        d_head=128,
        d_ff=36_864,
        query_scalar=144.0,
        embedding_scale=4_608**0.5,
    ),
    "gemma3_1b": GEMMA3,
    "smollm_135m": SMOLLM,
    "smollm_360m": dataclasses.replace(
        SMOLLM, num_layers=32, num_heads=15, num_kv_heads=5, d_model=960, d_ff=2_560
    ),
}
