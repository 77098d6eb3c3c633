"""Random numbers by name: number n of a stream is a function of the stream's key and n alone.

So any part of a stream can be had at any time, by any process, without what came before it. The mixing is
SplitMix64 (Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators"), whose stream is
a counter put through a hash to begin with. `order.draw(seed, purpose)` makes keys.
"""

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # odd, and 2^64 over the golden ratio: SplitMix64's stride
ROUNDS = 10  # of a Feistel network; four (Luby and Rackoff 1988) are uneven where there are few numbers


def bits(key, numbers) -> np.ndarray:
    """64 random bits, uint64, for each of these numbers of a stream, or of several: an array of keys."""
    with np.errstate(over="ignore"):
        z = np.uint64(key) + (np.asarray(numbers).astype(np.uint64) + np.uint64(1)) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(key, numbers) -> np.ndarray:
    """Evenly in [0, 1), float64, for each of these numbers of a stream."""
    return (bits(key, numbers) >> np.uint64(11)) * 2.0**-53


def permuted(key: int, numbers, size: int) -> np.ndarray:
    """Where a permutation of range(size) puts these of its numbers, without making the rest of it.

    A Feistel network permutes the next power of four; what lands beyond `size` goes in again until it
    does not (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains").
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    places = np.array(numbers, np.uint64).reshape(-1)
    outside = np.arange(len(places))
    while len(outside):
        left, right = places[outside] >> half, places[outside] & mask
        for round in range(ROUNDS):
            left, right = right, left ^ (bits(key, right * np.uint64(ROUNDS) + np.uint64(round)) & mask)
        places[outside] = (left << half) | right
        outside = outside[places[outside] >= size]
    return places.astype(np.int64).reshape(np.shape(numbers))
