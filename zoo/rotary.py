"""Rotary positions (Su et al. 2021, arXiv 2104.09864), and how they are stretched over longer texts.

A head's width is K / 2 pairs of numbers; a position turns each by its own angle, the first by one radian a
position, the last by nearly 1 / base. A model that was trained on short texts has not seen its slow pairs
turn far. A scaling slows them, so that a longer text turns them no further:

    Unscaled()                         as published
    Linear(factor)                     all pairs alike (position interpolation, arXiv 2306.15595)
    NTK(factor, original_length)       by a larger base, the slower the more (bloc97, 2023)
    YaRN(factor, original_length)      the slow ones alone, and sharper attention (arXiv 2309.00071)
    Llama3(factor, original_length)    the slow ones alone, by where a wave ends (Llama 3.1, arXiv 2407.21783)

They are values of a configuration. `scaled` is given the frequencies, the base that they come from, and the
longest row of the model.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp

from zoo.errors import ConfigError


@dataclass(frozen=True)
class Unscaled:
    """The model's own context."""

    amplitude = 1.0

    def scaled(self, frequencies, base: float, max_length: int):
        return frequencies


@dataclass(frozen=True)
class Linear:
    """Every angle over `factor`: positions lie closer together."""

    factor: float

    amplitude = 1.0

    def __post_init__(self):
        check_at_least_one(self, "factor")

    def scaled(self, frequencies, base: float, max_length: int):
        return frequencies / self.factor


@dataclass(frozen=True)
class NTK:
    """The base that the longest row asks for: nothing changes up to `original_length`, and beyond it the base
    is s^(K / (K - 2)) as large, s being 1 + factor (max_length / original_length - 1).

    Elsewhere known as dynamic, where a base follows each text's length. Ours is that of the longest row from
    the start, since keys in a cache are turned already.
    """

    factor: float
    original_length: int

    amplitude = 1.0

    def __post_init__(self):
        check_at_least_one(self, "factor", "original_length")

    def scaled(self, frequencies, base: float, max_length: int):
        stretch = 1 + self.factor * max(max_length / self.original_length - 1, 0)
        pair = jnp.arange(len(frequencies), dtype=frequencies.dtype)
        return frequencies * stretch ** (-pair / max(len(frequencies) - 1, 1))


@dataclass(frozen=True)
class YaRN:
    """Pairs that turn `fast` times within the original length or more stay, those that turn `slow` times or
    less are slowed by `factor`, those between by a share that grows evenly with their number."""

    factor: float
    original_length: int
    fast: float = 32.0
    slow: float = 1.0
    attention_factor: float = 0.0
    """What queries and keys are multiplied by; 0: ln(factor) / 10 + 1, the paper's."""

    def __post_init__(self):
        check_at_least_one(self, "factor", "original_length")
        if not 0 < self.slow < self.fast:
            raise ConfigError(f"slow={self.slow} must be above 0 and less than fast={self.fast}")
        if self.attention_factor < 0:
            raise ConfigError(f"attention_factor={self.attention_factor} must not be negative")

    @property
    def amplitude(self) -> float:
        return self.attention_factor or 0.1 * math.log(self.factor) + 1

    def scaled(self, frequencies, base: float, max_length: int):
        pairs = len(frequencies)

        def pair_that_turns(times):
            return pairs * math.log(self.original_length / (2 * math.pi * times)) / math.log(base)

        first = max(math.floor(pair_that_turns(self.fast)), 0)
        last = min(math.ceil(pair_that_turns(self.slow)), 2 * pairs - 1)
        places = jnp.arange(pairs, dtype=frequencies.dtype)
        slowed = jnp.clip((places - first) / max(last - first, 0.001), 0, 1)
        return frequencies * (1 - slowed + slowed / self.factor)


@dataclass(frozen=True)
class Llama3:
    """Pairs that turn `high_factor` times within the original length or more stay, those that turn
    `low_factor` times or less are slowed by `factor`, those between by a share that falls evenly with their
    turns."""

    factor: float = 8.0
    original_length: int = 8_192
    low_factor: float = 1.0
    high_factor: float = 4.0

    amplitude = 1.0

    def __post_init__(self):
        check_at_least_one(self, "factor", "original_length")
        if not 0 < self.low_factor < self.high_factor:
            raise ConfigError(
                f"low_factor={self.low_factor} must be above 0 and less than high_factor={self.high_factor}"
            )

    def scaled(self, frequencies, base: float, max_length: int):
        turns = self.original_length * frequencies / (2 * math.pi)
        kept = jnp.clip((turns - self.low_factor) / (self.high_factor - self.low_factor), 0, 1)
        return frequencies * (kept + (1 - kept) / self.factor)


Scaling = Unscaled | Linear | NTK | YaRN | Llama3


def check_at_least_one(scaling, *fields: str) -> None:
    """ConfigError for a value that shortens what is to be stretched."""
    for field in fields:
        if not 1 <= getattr(scaling, field) < math.inf:
            raise ConfigError(f"{field}={getattr(scaling, field)} must be a number of at least 1")


def rotary_frequencies(width: int, base: float, dtype):
    """Radians by which a position turns each of the width / 2 pairs of a head: from 1 down to nearly
    1 / base."""
    return base ** (-jnp.arange(0, width, 2, dtype=dtype) / width)


def rotate(x_BTHK, positions_BT, frequencies, amplitude: float = 1.0):
    """Queries or keys with their positions in them, so that a score depends on how far apart the two are: the
    pair (i, i + n) of a head's first 2 n numbers is turned by position * frequencies[i] and multiplied by
    `amplitude`, with n frequencies; what is behind them stays.

    Computed in at least float32. Pairs are halves apart, as GPT-NeoX and Hugging Face lay them out; the
    paper's are neighbours.
    """
    dtype, n = jnp.promote_types(x_BTHK.dtype, jnp.float32), len(frequencies)
    angles = positions_BT[:, :, None, None].astype(dtype) * frequencies.astype(dtype)  # [B, T, 1, n]
    cos, sin = amplitude * jnp.cos(angles), amplitude * jnp.sin(angles)
    one, other, rest = jnp.split(x_BTHK.astype(dtype), [n, 2 * n], axis=-1)
    turned_BTHK = jnp.concatenate([one * cos - other * sin, one * sin + other * cos, rest], axis=-1)
    return turned_BTHK.astype(x_BTHK.dtype)
