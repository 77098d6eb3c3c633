"""Rotary positions against complex numbers, and their scalings against NumPy, one pair at a time."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from zoo.errors import ConfigError
from zoo.rotary import NTK, Linear, Llama3, Unscaled, YaRN, rotary_frequencies, rotate

K, BASE, MAX_LENGTH = 16, 500.0, 96
SCALINGS = [Unscaled(), Linear(3.0), NTK(2.0, 32), YaRN(4.0, 32), Llama3(8.0, 64)]


def by_hand(scaling, i: int) -> float:
    """The frequency of pair i, by the paper's or the release's own formula."""
    plain = BASE ** (-2 * i / K)
    match scaling:
        case Unscaled():
            return plain
        case Linear(factor):
            return plain / factor
        case NTK(factor, original):  # the base that dynamic scaling has at a length of MAX_LENGTH
            base = BASE * (factor * MAX_LENGTH / original - (factor - 1)) ** (K / (K - 2))
            return base ** (-2 * i / K)
        case YaRN(factor, original, fast, slow):
            low, high = (
                K * math.log(original / (times * 2 * math.pi)) / (2 * math.log(BASE))
                for times in (fast, slow)
            )
            low, high = max(math.floor(low), 0), min(math.ceil(high), K - 1)
            ramp = min(max((i - low) / (high - low), 0), 1)
            return plain / factor * ramp + plain * (1 - ramp)
        case Llama3(factor, original, low, high):
            wavelength = 2 * math.pi / plain
            if wavelength < original / high:
                return plain
            if wavelength > original / low:
                return plain / factor
            smooth = (original / wavelength - low) / (high - low)
            return (1 - smooth) * plain / factor + smooth * plain


VARIED = [
    NTK(4.0, 48),
    NTK(2.0, 96),
    YaRN(4.0, 64),
    YaRN(4.0, 32, fast=3.0, slow=0.2),
    Llama3(8.0, 32, low_factor=0.5, high_factor=2.0),
]


@pytest.mark.parametrize("scaling", [*SCALINGS, *VARIED], ids=str)
def test_every_frequency_is_what_the_formula_says(scaling):
    with jax.enable_x64(True):
        got = scaling.scaled(rotary_frequencies(K, BASE, np.float64), BASE, MAX_LENGTH)
        want = [by_hand(scaling, i) for i in range(K // 2)]
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_scalings_slow_the_slow_pairs_and_leave_the_fastest_but_for_the_linear_one():
    plain = np.asarray(rotary_frequencies(K, BASE, np.float32))
    for scaling in SCALINGS[1:]:
        slowed = plain / np.asarray(scaling.scaled(plain, BASE, MAX_LENGTH))
        assert np.all(np.diff(slowed) >= -1e-6) and slowed[-1] > 2
        assert slowed[0] == pytest.approx(3.0 if isinstance(scaling, Linear) else 1.0)


def test_ntk_changes_nothing_up_to_the_original_length():
    plain = np.asarray(rotary_frequencies(K, BASE, np.float32))
    np.testing.assert_array_equal(NTK(4.0, 96).scaled(plain, BASE, 96), plain)
    np.testing.assert_array_equal(NTK(4.0, 96).scaled(plain, BASE, 50), plain)


def test_yarn_sharpens_attention_by_its_factor():
    assert YaRN(1.0, 32).amplitude == 1.0
    assert YaRN(4.0, 32).amplitude == pytest.approx(0.1 * math.log(4) + 1)
    assert YaRN(4.0, 32, attention_factor=1.5).amplitude == 1.5
    assert {scaling.amplitude for scaling in SCALINGS if not isinstance(scaling, YaRN)} == {1.0}


def test_rotation_turns_the_first_numbers_alone_and_multiplies_them():
    with jax.enable_x64(True):
        x, positions = (
            np.random.default_rng(0).standard_normal((2, 3, 2, 7)),
            np.array([[0, 5, 2], [7, 1, 80]]),
        )
        got = np.asarray(rotate(x, positions, np.array([1.0, 0.1]), 1.5))
    turned = 1.5 * (x[..., :2] + 1j * x[..., 2:4]) * np.exp(1j * positions[..., None, None] * [1.0, 0.1])
    np.testing.assert_allclose(got[..., :4], np.concatenate([turned.real, turned.imag], -1), atol=1e-12)
    np.testing.assert_array_equal(got[..., 4:], x[..., 4:])


@pytest.mark.parametrize(
    ("scaling", "changes", "said"),
    [
        (Linear(2.0), {"factor": 0.5}, "factor=0.5 must be a number of at least 1"),
        (NTK(2.0, 8), {"original_length": 0}, "original_length=0 must be a number of at least 1"),
        (YaRN(2.0, 8), {"slow": 40.0}, "slow=40.0 must be above 0 and less than fast=32.0"),
        (YaRN(2.0, 8), {"attention_factor": -1.0}, "attention_factor=-1.0"),
        (Llama3(), {"low_factor": 4.0}, "low_factor=4.0 must be above 0 and less than high_factor=4.0"),
        (Llama3(), {"factor": math.nan}, "factor=nan"),
    ],
)
def test_a_scaling_that_cannot_be_is_refused(scaling, changes, said):
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(scaling, **changes)
