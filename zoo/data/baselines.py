"""What two old programs make of the same bytes: the numbers that a model's bits per byte stand beside.

gzip sees the validation text alone and learns as it goes; the order-3 model sees the training text, as a
language model does, and is then left as it is.

The order-3 model predicts a byte from the three before it, interpolating orders 3, 2, 1, 0 and uniform
by Witten and Bell's method C (1991, IEEE Trans. Information Theory 37(4)): context h was seen n(h) times,
n(hc) of them before byte c, and u(h) times the byte after it was new, so

    p(c | h) = (n(hc) + u(h) * p(c | h without its oldest byte)) / (n(h) + u(h))
"""

import gzip

import numpy as np

ORDER = 3  # 4 bytes with the predicted one: a 32-bit integer


def gzip_bits_per_byte(valid: bytes) -> float:
    """The size that `gzip -9` leaves, in bits per byte of text."""
    return 8 * len(gzip.compress(valid, compresslevel=9)) / len(valid)


def order3_bits_per_byte(train: bytes, valid: bytes) -> float:
    """The mean of -log2 p over the bytes of `valid`, under the counts of `train`."""
    return float(-np.log2(order3_probabilities(train, valid)).mean())


def order3_probabilities(train: bytes, valid: bytes) -> np.ndarray:
    """The probability of each byte of `valid` given the three before it, or as many as there are."""
    probability_T = np.full(len(valid), 1 / 256)
    for order in range(ORDER + 1):
        grams, counts = np.unique(_grams(train, order), return_counts=True)
        # Grams of one context lie together, as its bytes are the high ones.
        contexts, first = np.unique(grams >> 8, return_index=True)
        if not len(contexts):
            break
        seen = np.add.reduceat(counts, first)
        different = np.diff(first, append=len(grams))
        asked_T = _grams(valid, order)
        n_hc_T = _look_up(grams, counts, asked_T)
        n_h_T = _look_up(contexts, seen, asked_T >> 8)
        u_h_T = _look_up(contexts, different, asked_T >> 8)
        lower_T = probability_T[order:]
        mixed_T = (n_hc_T + u_h_T * lower_T) / np.maximum(n_h_T + u_h_T, 1)
        probability_T[order:] = np.where(n_h_T > 0, mixed_T, lower_T)
    return probability_T


def _grams(text: bytes, order: int) -> np.ndarray:
    """Each byte with the `order` bytes before it as one number, the oldest byte highest, order <= 3."""
    bytes_T = np.frombuffer(text, np.uint8).astype(np.uint32)
    grams_T = np.zeros(max(0, len(text) - order), np.uint32)
    for k in range(order + 1):
        grams_T <<= 8
        grams_T |= bytes_T[k : k + len(grams_T)]
    return grams_T


def _look_up(keys: np.ndarray, values: np.ndarray, asked_T: np.ndarray) -> np.ndarray:
    """The value of each asked key among the sorted keys, 0 where it is not there."""
    places_T = np.minimum(np.searchsorted(keys, asked_T), len(keys) - 1)
    return np.where(keys[places_T] == asked_T, values[places_T], 0)
