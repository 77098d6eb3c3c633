"""The probability that a causal model gives to texts.

A recurrent model reads a text of any length in chunks, its state carried from one to the next. Of a text
longer than an attention model's context every token is still predicted from at least half a context:

    context 8     a b c d e f g h               predicts b ... h
                          e f g h i j k l       predicts     i ... l
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import UserError
from zoo.inference.generate import bucket, padded

CHUNK = 256  # tokens that a recurrent model reads at once


def log_probabilities(model, params, texts: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """For each text, the log-probability (nats, float32) of every token but the first, given all before it.

    Raises UserError for a model that does not read from left to right, or a text of no tokens.
    """
    if "causal" not in model.traits or "pair" in model.traits:
        kind = type(model.config).__name__
        raise UserError(f"{kind} does not read from left to right; it cannot score texts")
    for index, text in enumerate(texts):
        if len(text) == 0:
            raise UserError(f"text {index} has no tokens; remove it")
    score = _carried if "recurrent" in model.traits else _windowed
    return [score(model, params, np.asarray(text, np.int32)) for text in texts]


def _carried(model, params, tokens_T: np.ndarray) -> np.ndarray:
    state, found = model.initial_state(1, 0), [np.zeros(0, np.float32)]
    for start in range(0, len(tokens_T) - 1, CHUNK):
        piece = tokens_T[start : start + CHUNK + 1]
        logp_T, state = _chunk(model, params, *_rows(piece), state)
        found.append(np.asarray(logp_T)[: len(piece) - 1])
    return np.concatenate(found)


def _windowed(model, params, tokens_T: np.ndarray) -> np.ndarray:
    context, found, done = model.config.max_length, [np.zeros(0, np.float32)], 0
    while done < len(tokens_T) - 1:
        start = 0 if done == 0 else done - context // 2
        piece = tokens_T[start : start + context + 1]
        logp_T, _ = _chunk(model, params, *_rows(piece, context), None)
        found.append(np.asarray(logp_T)[done - start : len(piece) - 1])
        done = start + len(piece) - 1
    return np.concatenate(found)


def _rows(piece: np.ndarray, longest: float = math.inf):
    """(inputs [1, T], targets [1, T], lengths [1]), padded to one of few lengths."""
    length = int(min(bucket(max(len(piece) - 1, 1)), longest))
    inputs_BT, lengths_B = padded([piece[:-1].tolist()], length)
    return inputs_BT, padded([piece[1:].tolist()], length)[0], lengths_B


@functools.partial(jax.jit, static_argnums=0)
def _chunk(model, params, inputs_BT, targets_BT, lengths_B, state):
    """(log-probabilities [T] of the first row's targets, the state behind its last token)."""
    x_BTD, state = model.features(params, {"tokens": inputs_BT, "lengths": lengths_B}, state=state)
    logp_TV = jax.nn.log_softmax(model.readout(params, x_BTD[0]))
    return jnp.take_along_axis(logp_TV, targets_BT[0][:, None], axis=-1)[:, 0], state
