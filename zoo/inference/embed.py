"""Texts to vectors: with a model that was trained to embed, or with the features of any encoder.

embed(model, params, tokenizer, ["a fine film", "a film that is fine"], wrap="both")       # [2, E]

Texts are read longest first, in batches of like length, padded to one of few lengths: one compiled program
for each. Neither the padding nor what shares a batch is seen by a text: attention and pooling stop at its
length, and recurrent states are not carried on beyond it. What differs is the order in which a matrix product
of another shape adds up, about 1e-7 of a vector's length in float32.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from zoo import models
from zoo.data.examples.encoding import WRAPS
from zoo.errors import ConfigError, DataError, UserError
from zoo.models.embedder import EmbedderConfig
from zoo.models.pure import Model


def embed(
    model,
    params,
    tokenizer,
    texts: Sequence[str],
    *,
    wrap: str = "none",
    max_length: int = 512,
    pooling: str = "",
    normalize: str = "",
    batch_tokens: int = 0,
) -> np.ndarray:
    """float32 [N, E], a vector for each of `texts`, in their order.

    `wrap` says which marks stand around a text: none, end or both, as in the data that the model was trained
    on. What is longer than `max_length`, or than the model, is cut. `pooling` (mean, first, max, last) and
    `normalize` (l2, none) take the place of an embedder's own; for another encoder they are mean and l2 where
    they are not given. A batch has about `batch_tokens` positions: where 0 is given 2,048 on a CPU, where
    more rows gain nothing and are padded more, and 16,384 elsewhere. Raises DataError for a text without
    tokens, UserError for a model that has no features of a text.
    """
    if wrap not in WRAPS:
        raise ConfigError(f"wrap={wrap!r} is none of {', '.join(WRAPS)}")
    model, params = as_embedder(model, params, pooling=pooling, normalize=normalize)
    longest = min(max_length, getattr(model.config.encoder, "max_length", max_length))
    rows = encoded(tokenizer, texts, wrap=wrap, max_length=longest)
    batch_tokens = batch_tokens or (2048 if jax.default_backend() == "cpu" else 16384)
    found = np.zeros((len(rows), model.config.head_dims["E"]), np.float32)
    waiting: list = []  # the device works on one batch while the next is put together
    for numbers_B, tokens_BT, lengths_B in batches(rows, longest=longest, batch_tokens=batch_tokens):
        waiting.append((numbers_B, _embedded(model, params, tokens_BT, lengths_B)))
        if len(waiting) > 2:
            _store(found, *waiting.pop(0))
    for done in waiting:
        _store(found, *done)
    return found


def as_embedder(model, params, *, pooling: str = "", normalize: str = ""):
    """(model, params) that embed: the model itself, or an embedder over it, or over the encoder of a head."""
    changes = {"pooling": pooling, "normalize": normalize}
    changes = {name: value for name, value in changes.items() if value}
    if "embed" in model.traits:
        return models.create(dataclasses.replace(model.config, **changes)), params
    config = model.config
    if "head" in model.traits and not hasattr(config, "flops_of_features"):
        config, params = config.encoder, params["encoder"]
    if not hasattr(config, "flops_of_features"):
        raise UserError(f"a {type(config).__name__} has no features of a text that could be pooled")
    head = models.create(EmbedderConfig(config, **changes))
    wanted = head.abstract()["encoder"]
    return head, {"encoder": {name: params[name] for name in wanted}}


def encoded(tokenizer, texts: Sequence[str], *, wrap: str, max_length: int) -> list[np.ndarray]:
    """The tokens of each text with its marks, cut to `max_length`; DataError for a text that has none."""
    first, last = WRAPS[wrap]
    if wrap != "none" and (tokenizer.bos is None or tokenizer.eot is None):
        raise ConfigError(f"wrap={wrap} needs a tokenizer with marks, and this {tokenizer.name} one has none")
    before, behind = [tokenizer.bos] * first, [tokenizer.eot] * last
    room = max_length - first - last
    if room < 1:
        raise ConfigError(f"max_length={max_length} has no room for a text between its marks; give more")
    rows = []
    for number, text in enumerate(texts, 1):
        words = tokenizer.encode(text)[:room]
        if not len(words) or not text.strip():
            raise DataError(f"text {number} is empty: {text!r}; write one, or remove it")
        rows.append(np.array([*before, *words, *behind], np.int32))
    return rows


def batches(rows: Sequence[np.ndarray], *, longest: int, batch_tokens: int) -> Iterator[tuple]:
    """(numbers [B] of the texts, -1 where a row only fills the batch up, tokens [B, T], lengths [B]).

    Long texts first: the first of a batch decides its shape, and the next shorter ones fill it.
    """
    order = sorted(range(len(rows)), key=lambda number: -len(rows[number]))
    while order:
        T = shape_of(len(rows[order[0]]), longest)
        B = min(max(1, batch_tokens // T), 1 << (len(order) - 1).bit_length())
        part, order = order[:B], order[B:]
        numbers_B, tokens_BT, lengths_B = np.full(B, -1), np.zeros((B, T), np.int32), np.ones(B, np.int32)
        for row, number in enumerate(part):
            numbers_B[row], lengths_B[row] = number, len(rows[number])
            tokens_BT[row, : lengths_B[row]] = rows[number]
        yield numbers_B, tokens_BT, lengths_B


def shape_of(length: int, longest: int) -> int:
    """The positions of a row for a text of this length: 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, ..., four
    between a power of two and the next, up to the longest."""
    step = max(2, 1 << (length - 1).bit_length() >> 3)
    return min(max(8, -(-length // step) * step), longest)


@functools.partial(jax.jit, static_argnums=0)
def _embedded(model: Model, params, tokens_BT, lengths_B):
    x_BD, _ = model.features(params, {"tokens": tokens_BT, "lengths": lengths_B})
    return model.readout(params, x_BD).astype(jnp.float32)


def _store(found: np.ndarray, numbers_B: np.ndarray, embeddings_BE) -> None:
    is_there_B = numbers_B >= 0
    found[numbers_B[is_there_B]] = np.asarray(embeddings_BE)[is_there_B]
