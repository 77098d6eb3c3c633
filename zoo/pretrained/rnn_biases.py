"""The two biases of a recurrent layer, one on the side of the input and one on that of the state, as cuDNN,
torch and Keras train them: when they may be added, and how one is written as two.

Their sum alone matters, but for one. The GRU with the reset after the matmul computes its candidate as

    n = tanh(x W + b_ih + r (h U + b_hh))

so the recurrent bias of that gate, multiplied by r, is part of no sum: zoo's `b_candidate`.
"""

from collections.abc import Mapping

import numpy as np

from zoo.models.rnn import RNNConfig

CANDIDATE = 2  # the last gate of a GRU


def biases_from(b_GZ, recurrent_GZ, config: RNNConfig) -> dict[str, np.ndarray]:
    """zoo's parameters of two biases: both as they are where `config.recurrent_bias`, else summed where
    that is the same function."""
    if config.recurrent_bias:
        return {"b": b_GZ, "b_recurrent": recurrent_GZ}
    if config.cell != "gru":
        return {"b": b_GZ + recurrent_GZ}
    sums_GZ = b_GZ + recurrent_GZ
    sums_GZ[CANDIDATE] = b_GZ[CANDIDATE]
    return {"b": sums_GZ, "b_candidate": recurrent_GZ[CANDIDATE]}


def biases_of(params: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """The two biases of zoo's parameters: a single one is that of the input, and the other zero, but for
    the candidate's of a GRU."""
    b_GZ = np.asarray(params["b"])
    if "b_recurrent" in params:
        return b_GZ, np.asarray(params["b_recurrent"])
    recurrent_GZ = np.zeros_like(b_GZ)
    if "b_candidate" in params:
        recurrent_GZ[CANDIDATE] = np.asarray(params["b_candidate"])
    return b_GZ, recurrent_GZ
