"""What a model that reads both ways says of hidden words: the likeliest for a blank, how likely each word is.

fill                        the [MASK] sat on the mat        cat 0.31, dog 0.22, ...
pseudo_log_probabilities    [MASK] cat sat / the [MASK] sat / the cat [MASK]

The second is the pseudo-log-likelihood of "Masked Language Model Scoring" (Salazar et al. 2020, arXiv
1910.14659): each word given all the others. It is no probability of the text and compares with its like.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import UserError
from zoo.inference.generate import bucket, padded

ROWS = 32  # hidden words at once
MASK = "[MASK]"  # how a text to be filled writes a blank


class Word(NamedTuple):
    """A word for a blank."""

    piece: str
    probability: float


def fill(model, params, tokenizer, text: str, *, count: int = 5) -> list[list[Word]]:
    """For each [MASK] in the text, the `count` likeliest pieces of the vocabulary, the likeliest first.

    Several blanks are filled each by itself, with the others hidden. Raises UserError for a text without a
    blank or one that is too long, and for a model or a vocabulary that knows no masks.
    """
    check_masks(model, tokenizer)
    first, *others = [tokenizer.encode(part).tolist() for part in text.split(MASK)]
    if not others:
        raise UserError(f"{text!r} has no blank; write {MASK} where a word is missing")
    tokens = [tokenizer.bos, *first]
    blanks = []
    for part in others:
        blanks.append(len(tokens))
        tokens += [tokenizer.mask, *part]
    whole = check_length(model, [*tokens, tokenizer.eot], text)
    logp_BV = _log_probabilities(model, params, [whole] * len(blanks), blanks)
    best_BC = np.argsort(-logp_BV, axis=-1, kind="stable")[:, :count]
    return [
        [Word(tokenizer.decode([i]), float(np.exp(logp_V[i]))) for i in best_C]
        for logp_V, best_C in zip(logp_BV, best_BC, strict=True)
    ]


def pseudo_log_probabilities(model, params, tokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """For each text, the log-probability (nats, float32) of every token given all other tokens.

    Raises UserError for a text that is too long, and for a model or a vocabulary that knows no masks.
    """
    check_masks(model, tokenizer)
    found = []
    for text in texts:
        tokens = tokenizer.encode(text).tolist()
        whole = check_length(model, [tokenizer.bos, *tokens, tokenizer.eot], text)
        logp_T = np.zeros(len(tokens), np.float32)
        for start in range(0, len(tokens), ROWS):
            places = list(range(start, min(start + ROWS, len(tokens))))
            hidden = [
                [*whole[: place + 1], tokenizer.mask, *whole[place + 2 :]] for place in places
            ]  # [CLS] stands before the text
            logp_BV = _log_probabilities(model, params, hidden, [place + 1 for place in places])
            logp_T[places] = logp_BV[np.arange(len(places)), [tokens[place] for place in places]]
        found.append(logp_T)
    return found


def check_masks(model, tokenizer) -> None:
    """UserError where a model or a vocabulary knows no masked words."""
    if not model.traits & {"bidirectional", "pretraining"}:
        raise UserError(
            f"{type(model.config).__name__} does not read both ways; it has not learned to fill blanks"
        )
    if getattr(tokenizer, "mask", None) is None:
        raise UserError("the vocabulary has no token for a masked word, which blanks need")


def check_length(model, tokens: list[int], text: str) -> list[int]:
    """The tokens, where they fit the model."""
    longest = getattr(model.config, "max_length", len(tokens))
    if len(tokens) > longest:
        raise UserError(
            f"{text[:40]!r}: {len(tokens)} tokens with its marks are more than the model's {longest}; shorten"
        )
    return tokens


def _log_probabilities(model, params, rows: list[list[int]], places: list[int]) -> np.ndarray:
    """[B, V]: of every word at one place of each of these rows."""
    length = min(bucket(len(rows[0])), getattr(model.config, "max_length", bucket(len(rows[0]))))
    tokens_BT, lengths_B = padded(rows + [[]] * (-len(rows) % ROWS), length)
    places_B = np.asarray(places + [0] * (len(lengths_B) - len(places)), np.int32)
    return np.asarray(_at_places(model, params, tokens_BT, lengths_B, places_B))[: len(rows)]


@functools.partial(jax.jit, static_argnums=0)
def _at_places(model, params, tokens_BT, lengths_B, places_B):
    x_BTD, _ = model.features(params, {"tokens": tokens_BT, "lengths": lengths_B})
    read = model.readout(params, x_BTD[jnp.arange(len(places_B)), places_B])
    return jax.nn.log_softmax(read["words"] if "pretraining" in model.traits else read)
