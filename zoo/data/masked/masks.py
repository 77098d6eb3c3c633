"""Masks: which tokens of a chunk are predicted, and what is read in their places.

    tokens    [CLS] the un ##fold ##ed map shows the un ##known [SEP]
    pieces    . . . x . . . . x .                                          15 %, by number
    whole     . . x x x . . . . . .                                        as many, but words stay whole
    read      [CLS] the un [MASK] ##ed map ...                             80 % the mask
              [CLS] the un ##port ##ed map ...                             10 % any other token
              [CLS] the un ##fold ##ed map ...                             10 % what is there

Every draw is a function of a key, the chunk's number and the place in it: the same in whatever row it lies.
"""

from dataclasses import dataclass

import numpy as np

from zoo.data import draws


@dataclass(frozen=True)
class Masking:
    """How much is masked, and by what."""

    mask_rate: float
    masked_share: float
    random_share: float
    mask: int
    """The token that stands for a masked one."""
    ordinary: np.ndarray
    """The tokens that may be predicted, and that may stand at random in the place of others."""
    is_ordinary_V: np.ndarray
    """The same of every token."""
    goes_on_V: np.ndarray
    """Which tokens belong to the word of the one before them; nowhere true where pieces are chosen alone."""
    stride: int
    """More than the tokens of the longest chunk."""

    def wanted(self, num_tokens: np.ndarray) -> np.ndarray:
        """How many tokens of chunks with so many to predict: the rate of them, but one at least."""
        return np.maximum(np.round(self.mask_rate * num_tokens).astype(np.int64), 1)

    def chosen(self, tokens_EL: np.ndarray, wanted_E: np.ndarray, keys_E, numbers_E) -> np.ndarray:
        """Which tokens of the chunks are predicted, padded with a token that is not ordinary.

        Words in random order, each that still fits the number wanted, as in BERT's own tool.
        """
        is_ordinary_EL = self.is_ordinary_V[tokens_EL]
        follows_EL = np.zeros_like(is_ordinary_EL)
        follows_EL[:, 1:] = self.goes_on_V[tokens_EL[:, 1:]] & is_ordinary_EL[:, :-1]
        word_EL = np.cumsum(is_ordinary_EL & ~follows_EL, axis=1) * is_ordinary_EL  # from 1; 0 is none
        sizes_EW = sizes_of(word_EL)
        drawn_EW = self._drawn(keys_E, numbers_E, 0, np.arange(sizes_EW.shape[1]))
        rows_E1 = np.arange(len(tokens_EL))[:, None]
        order_EW = np.argsort(np.where(sizes_EW > 0, drawn_EW, 2.0), axis=1, kind="stable")
        takes_EW = np.zeros_like(sizes_EW, dtype=bool)
        left_E = wanted_E.copy()
        for sizes_E, word_E in zip(sizes_EW[rows_E1, order_EW].T, order_EW.T, strict=True):
            fits_E = (sizes_E > 0) & (sizes_E <= left_E)
            takes_EW[rows_E1[:, 0], word_E] = fits_E
            left_E -= sizes_E * fits_E
            if not left_E.any():
                break
        return takes_EW[rows_E1, word_EL]

    def read(self, tokens_EL: np.ndarray, chosen_EL: np.ndarray, keys_E, numbers_E) -> np.ndarray:
        """The tokens with something else in the places of those that are predicted."""
        places_L = np.arange(tokens_EL.shape[1])
        which_EL = self._drawn(keys_E, numbers_E, 1, places_L)
        among_EL = self._drawn(keys_E, numbers_E, 2, places_L) * len(self.ordinary)
        random_EL = self.ordinary[among_EL.astype(np.int64)]
        read_EL = np.where(which_EL < self.masked_share + self.random_share, random_EL, tokens_EL)
        read_EL = np.where(which_EL < self.masked_share, self.mask, read_EL)
        return np.where(chosen_EL, read_EL, tokens_EL)

    def _drawn(self, keys_E, numbers_E, purpose: int, places_L) -> np.ndarray:
        """Random numbers of three kinds for every place of the chunks."""
        numbers_EL = (3 * numbers_E[:, None] + purpose) * self.stride + places_L
        return draws.uniform(keys_E[:, None], numbers_EL)


def sizes_of(word_EL: np.ndarray) -> np.ndarray:
    """How many tokens each word of each chunk has. Words count from 1; number 0 is no word and has 0."""
    rows, width = len(word_EL), word_EL.shape[1] + 1
    flat = np.arange(rows)[:, None] * width + word_EL
    sizes_EW = np.bincount(flat.ravel(), minlength=rows * width).reshape(rows, width)
    sizes_EW[:, 0] = 0
    return sizes_EW
