"""The baselines against a slow loop and a closed form."""

import gzip
import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from zoo.data.baselines import gzip_bits_per_byte, order3_bits_per_byte, order3_probabilities


def random_bytes(size, alphabet, seed):
    return bytes(random.Random(seed).choices(alphabet, k=size))


def slow_probability(train, history, byte):
    """Witten-Bell by the book: counts in dictionaries, orders one by one."""
    probability = 1 / 256
    for order in range(min(3, len(history)) + 1):
        counts = defaultdict(Counter)
        for i in range(order, len(train)):
            counts[train[i - order : i]][train[i]] += 1
        seen = counts[history[len(history) - order :]]
        n, u = sum(seen.values()), len(seen)
        if n:
            probability = (seen[byte] + u * probability) / (n + u)
    return probability


@pytest.mark.parametrize("train_size", [0, 1, 2, 3, 4, 300])
def test_order_3_is_what_a_slow_loop_computes(train_size):
    train = random_bytes(train_size, b"abc\x00\xff", seed=0)
    valid = random_bytes(60, b"abcd\x00\xff", seed=1)
    expected = [slow_probability(train, valid[:i], valid[i]) for i in range(len(valid))]
    np.testing.assert_allclose(order3_probabilities(train, valid), expected, rtol=1e-12)
    bits = -sum(map(math.log2, expected)) / len(expected)
    assert order3_bits_per_byte(train, valid) == pytest.approx(bits, rel=1e-12)


@pytest.mark.parametrize("history", [b"", b"a", b"ab", b"abc", b"zzz", b"bcaabc", b"\x00\xff\x00"])
def test_probabilities_sum_to_one(history):
    train = random_bytes(500, b"abc\x00\xff", seed=0)
    total = sum(order3_probabilities(train, history + bytes([byte]))[-1] for byte in range(256))
    assert total == pytest.approx(1, abs=1e-12)


def test_what_was_never_seen_costs_eight_bits_without_training():
    assert order3_bits_per_byte(b"", b"anything") == pytest.approx(8)


def test_a_repetitive_text_costs_almost_nothing():
    assert order3_bits_per_byte(b"abcdefgh" * 1000, b"abcdefgh" * 100) < 0.02


def test_gzip_is_the_size_of_gzip():
    valid = random_bytes(10_000, b"abcd", seed=0)
    assert gzip_bits_per_byte(valid) == 8 * len(gzip.compress(valid, 9)) / 10_000
    assert 2 < gzip_bits_per_byte(valid) < 2.7  # four letters at random are 2 bits each
