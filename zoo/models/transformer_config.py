"""What Transformers share: what their fields must fulfil, a first spread."""

import math

from zoo.errors import ConfigError, nearest
from zoo.layers import ACTIVATIONS
from zoo.models.remat import TENSORS, check_remat


def check_transformer(cfg, tensors: tuple[str, ...] = TENSORS) -> None:
    """ConfigError for a size, a rate or a choice that no Transformer has; `tensors` are those of its blocks
    that may be kept by name."""
    for field in ("max_length", "num_layers", "num_heads", "d_model"):
        if getattr(cfg, field) < 1:
            raise ConfigError(f"{field}={getattr(cfg, field)} must be at least 1")
    for field in ("vocab_size", "d_ff", "layer_unroll"):
        if getattr(cfg, field) < 0:
            raise ConfigError(f"{field}={getattr(cfg, field)} must not be negative")
    if cfg.d_model % cfg.num_heads and not getattr(cfg, "d_head", 0):
        small = [n for n in range(1, math.isqrt(cfg.d_model) + 1) if cfg.d_model % n == 0]
        fits = [*small, *(cfg.d_model // n for n in small)]
        close = sorted(sorted(set(fits), key=lambda n: (abs(n - cfg.num_heads), n))[:2])
        raise ConfigError(
            f"d_model={cfg.d_model} is not a multiple of num_heads={cfg.num_heads}; "
            f"{' and '.join(map(str, close))} divide it"
        )
    if not 0.0 <= cfg.dropout_rate < 1.0:
        raise ConfigError(f"dropout_rate={cfg.dropout_rate} must be at least 0 and less than 1")
    if cfg.activation not in ACTIVATIONS:
        hint = nearest(cfg.activation, ACTIVATIONS)
        raise ConfigError(f"activation={cfg.activation!r} is none of {', '.join(ACTIVATIONS)}{hint}")
    check_remat(cfg.remat, tensors)
    if cfg.dtype not in ("float32", "bfloat16", "float64"):
        raise ConfigError(f"dtype={cfg.dtype!r} is none of float32, bfloat16, float64")


def branch_std(num_layers: int) -> float:
    """Initial spread of what is added to the stream: 0.02 / sqrt(2 N) keeps the sum's variance
    independent of depth (GPT-2, section 2.3)."""
    return 0.02 / math.sqrt(2 * num_layers)
