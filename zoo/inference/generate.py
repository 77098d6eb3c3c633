"""Text from a causal model: one compiled program reads the prompts and writes the continuation.

Prompts of many lengths share a program: lengths are rounded up to powers of two ("buckets"), rows are
padded on the right, and how many tokens to write is an argument. A row's randomness depends on the seed,
its index and the place of the token alone.

A text may grow longer than the model's context. When the context is full, the model re-reads its
latter half and goes on: a window that moves in large steps, so that each token costs one position. A
recurrent model has no such limit.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError, UserError


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from the logits."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Draw among the k likeliest; 0: among all."""
    top_p: float = 1.0
    """Draw among the fewest likeliest tokens that hold this share of the probability (arXiv 1904.09751)."""

    def __post_init__(self):
        if not self.temperature >= 0:
            raise ConfigError(f"temperature={self.temperature} must not be negative; 0 takes the likeliest")
        if self.top_k < 0:
            raise ConfigError(f"top_k={self.top_k} must not be negative; 0 draws among all tokens")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p} must be more than 0 and at most 1")


GREEDY = Sampling(temperature=0.0)


def generate(
    model,
    params,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    eot: int | None = None,
) -> list[list[int]]:
    """The continuation of each prompt, without the prompt, ending before `eot` where that is drawn.

    Raises UserError for an empty prompt, one longer than the model's context, or a model that does not
    read from left to right.
    """
    if not prompts:
        return []
    context = getattr(model.config, "max_length", math.inf)
    check(model, prompts)
    keys = row_keys(seed, len(prompts))
    texts, written = [list(prompt) for prompt in prompts], 0
    starts = [0] * len(texts)  # where each row's window begins; it moves by the row's own length alone
    while written < max_new_tokens:
        if written:
            ends, kept = map(len, texts), max(int(context) // 2, 1)
            starts = [s if end - s < context else end - kept for s, end in zip(starts, ends, strict=True)]
        read = [text[start:] for start, text in zip(starts, texts, strict=True)]
        room = max(context - max(map(len, read)), 1)  # a prompt that fills the context still predicts one
        count = int(min(max_new_tokens - written, room))
        tokens_BT, lengths_B = padded(read, int(min(bucket(max(map(len, read))), context)))
        new_BT = _continue(
            *(model, bucket(count), params, tokens_BT, lengths_B, keys, written, count),
            *numbers(sampling, model),
        )
        for text, new in zip(texts, np.asarray(new_BT)[:, :count].tolist(), strict=True):
            text.extend(new)
        written += count
        if eot is not None and all(eot in text[len(p) :] for text, p in zip(texts, prompts, strict=True)):
            break
    continuations = [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]
    return [new[: new.index(eot)] if eot in new else new for new in continuations]


def check(model, prompts: Sequence[Sequence[int]]) -> None:
    """Raises UserError for a model that cannot continue texts, or a prompt that it cannot read."""
    if "causal" not in model.traits or "pair" in model.traits:
        raise UserError(
            f"{type(model.config).__name__} does not write on from left to right; it continues no text"
        )
    context = getattr(model.config, "max_length", math.inf)
    for prompt in prompts:
        if not 0 < len(prompt) <= context:
            what = f"is longer than the model's context of {context}; shorten it" if prompt else "is empty"
            raise UserError(f"a prompt of {len(prompt)} tokens {what}")


def row_keys(seed: int, rows: int):
    """The randomness of each row, by its index."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(rows))


def numbers(sampling: Sampling, model) -> tuple[float, int, float]:
    """The sampling as a program takes it."""
    top_k = min(sampling.top_k, model.config.vocab_size)
    return float(sampling.temperature), top_k, float(sampling.top_p)


def bucket(length: int) -> int:
    """The next power of two, at least 16."""
    return max(16, 1 << (length - 1).bit_length())


def padded(rows: Sequence[Sequence[int]], length: int):
    """(tokens [B, length], lengths [B]) of rows filled up with zeros on the right."""
    tokens_BT = np.zeros((len(rows), length), np.int32)
    for row, tokens in zip(tokens_BT, rows, strict=True):
        row[: len(tokens)] = tokens
    return tokens_BT, np.asarray([len(row) for row in rows], np.int32)


def continuation(tokenizer, prompt: Sequence[int], new: Sequence[int]) -> str:
    """What `new` adds to the text of the prompt, the blank between two words included."""
    return tokenizer.decode([*prompt, *new]).removeprefix(tokenizer.decode(prompt))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _continue(model, room, params, tokens_BT, lengths_B, keys_B, written, count, *how):
    """`count` new tokens [B, room] after tokens_BT; `written` numbers the first for its randomness."""
    read = read_prompts(model, room, params, tokens_BT, lengths_B)
    return write_tokens(model, room, params, *read, keys_B, written, count, *how)[0]


def read_prompts(model, room, params, tokens_BT, lengths_B):
    """(features of each row's last token, the state that holds them all, with `room` for more)."""
    B, T = tokens_BT.shape
    state = model.initial_state(B, T + room)
    x_BTD, state = model.features(params, {"tokens": tokens_BT, "lengths": lengths_B}, state=state)
    return jnp.take_along_axis(x_BTD, lengths_B[:, None, None] - 1, axis=1)[:, 0], state


def write_tokens(model, room, params, x_BD, state, keys_B, written, count, temperature, top_k, top_p):
    """(`count` tokens [B, room], features of the last, the state with them all)."""

    def write(carry):
        index, x_BD, state, new_BT = carry
        place_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, written + index)
        logits_BV = model.readout(params, x_BD)
        token_B = jax.vmap(draw, (0, 0, None, None, None))(logits_BV, place_keys_B, temperature, top_k, top_p)
        x_BTD, state = model.features(params, token_B[:, None], state=state)
        return index + 1, x_BTD[:, 0], state, new_BT.at[:, index].set(token_B)

    start = (0, x_BD, state, jnp.zeros((len(x_BD), room), jnp.int32))
    _, x_BD, state, new_BT = jax.lax.while_loop(lambda carry: carry[0] < count, write, start)
    return new_BT, x_BD, state


def draw(logits_V, key, temperature, top_k, top_p):
    """One token id. top_k applies first and top_p to what it leaves, as in transformers."""
    order_V = jnp.argsort(-logits_V)
    scaled_V = logits_V[order_V] / jnp.where(temperature > 0, temperature, 1.0)
    rank_V = jnp.arange(len(logits_V))
    scaled_V = jnp.where((top_k == 0) | (rank_V < top_k), scaled_V, -jnp.inf)
    probability_V = jax.nn.softmax(scaled_V)
    likelier_V = jnp.cumsum(probability_V) - probability_V  # the share held by the tokens before
    scaled_V = jnp.where((likelier_V < top_p) | (rank_V == 0), scaled_V, -jnp.inf)
    choice = jnp.where(temperature > 0, jax.random.categorical(key, scaled_V), 0)
    return order_V[choice].astype(jnp.int32)
