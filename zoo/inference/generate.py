"""Text from a causal model: one compiled program reads the prompts and writes the continuation.

Prompts of many lengths share a program: lengths are rounded up to powers of two ("buckets"), rows are
padded on the right, and how many tokens to write is an argument. A row's randomness depends on its seed
and the place of the token alone, so its text is the same whatever stands beside it. The program stops where
every row has drawn the end of text; stop strings are looked for between pieces of a few tokens.

A text may grow longer than the model's context. When the context is full, the model re-reads its
latter half and goes on: a window that moves in large steps, so that each token costs one position. A
recurrent model has no such limit.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError, UserError
from zoo.inference.sampling import GREEDY, Sampling, Seen, draw, seen_in, settings_of
from zoo.inference.stop import Stop

PIECE = 16  # tokens between two looks at the device


@dataclass(frozen=True)
class Continuation:
    """What was written after one prompt."""

    tokens: list[int]
    """Without the end of text; where a stop string ended it, up to the token that completed that."""
    logprobs: list[float]
    """Of each token, in nats, by the model itself: before penalties, temperature and truncation."""
    ended: Literal["eot", "stop", "length"]


def generate(model, params, prompts: Sequence[Sequence[int]], **settings) -> list[list[int]]:
    """The tokens after each prompt, ending before `eot` where that is drawn; `settings` as `complete` has."""
    return [continued.tokens for continued in complete(model, params, prompts, **settings)]


def complete(
    model,
    params,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    eot: int | Sequence[int] | None = None,
    stop: Stop | None = None,
    cache_dtype: str | None = None,
) -> list[Continuation]:
    """The continuation of each prompt.

    Rows draw by `seed` and their index, or by `seeds`, one a prompt: what a row writes with seed s is what
    `seed=s` writes for it alone. `eot` is the token that ends a text, or several. `cache_dtype` (float32,
    bfloat16 or int8) is that of attention's keys and values.
    Raises UserError for an empty prompt, one longer than the model's context, or a model that does not
    read from left to right.
    """
    texts = [Text(list(prompt)) for prompt in prompts]
    keys_B = row_keys(seed, seeds, len(texts))
    piece = max_new_tokens if stop is None else PIECE
    settings = {"sampling": sampling, "keys_B": keys_B, "eot": eot, "stop": stop, "cache_dtype": cache_dtype}
    for _ in write_pieces(model, params, texts, max_new_tokens=max_new_tokens, piece=piece, **settings):
        pass
    return [text.continuation for text in texts]


@dataclass
class Text:
    """A row while it is written."""

    prompt: list[int]
    new: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: Literal["eot", "stop", "length"] = "length"

    def take(self, tokens: list[int], logprobs: list[float], ends, stop: Stop | None) -> None:
        """Goes on by a piece, up to where the text ends; after that there is nothing to take."""
        if self.ended != "length":
            return
        before = len(self.new)
        self.new += tokens
        where = next((i for i, token in enumerate(tokens) if token in ends), None)
        if where is not None:
            del self.new[before + where :]
            self.ended = "eot"
        if stop is not None and (count := stop.found(self.prompt, self.new, before)) is not None:
            del self.new[count:]
            self.ended = "stop"
        self.logprobs += logprobs[: len(self.new) - before]

    @property
    def continuation(self) -> Continuation:
        return Continuation(self.new, self.logprobs, self.ended)


def write_pieces(
    model, params, texts: list[Text], *, max_new_tokens, piece, sampling, keys_B, eot, stop, cache_dtype
) -> Iterator[None]:
    """Lets `texts` grow by up to `piece` tokens between two looks at them, until all have ended."""
    prompts = [text.prompt for text in texts]
    check(model, prompts)
    context, vocab_size = context_of(model), model.config.vocab_size
    settings, seen = settings_of(sampling, vocab_size), seen_in(prompts, vocab_size)
    end_E = end_array(eot)
    starts, written = [0] * len(texts), 0  # where each row's window begins; it moves by its own length alone

    def ended_B():
        return np.array([text.ended != "length" for text in texts])

    def taken(new: "New", count: int) -> int:
        rows = zip(texts, np.asarray(new.tokens_BT), np.asarray(new.logp_BT), strict=True)
        for text, token_T, logp_T in rows:
            text.take(token_T[:count].tolist(), logp_T[:count].tolist(), end_E, stop)
        return count

    while written < max_new_tokens and not ended_B().all():
        whole = [text.prompt + text.new for text in texts]
        if written:
            ends, kept = map(len, whole), max(int(context) // 2, 1)
            starts = [s if end - s < context else end - kept for s, end in zip(starts, ends, strict=True)]
        read = [tokens[start:] for start, tokens in zip(starts, whole, strict=True)]
        room = max(context - max(map(len, read)), 1)  # a prompt that fills the context still predicts one
        window = written + int(min(max_new_tokens - written, room))
        tokens_BT, lengths_B = padded(read, int(min(bucket(max(map(len, read))), context)))
        how, count = (keys_B, end_E, settings), min(piece, window - written)
        new, reader = _continue(
            *(model, bucket(window - written), cache_dtype, params, tokens_BT, lengths_B, seen),
            *(ended_B(), written, count, *how),
        )
        written += taken(new, count)
        yield
        while written < window and not ended_B().all():
            count = min(piece, window - written)
            new, reader = _go_on(model, bucket(piece), params, reader, ended_B(), written, count, *how)
            written += taken(new, count)
            yield
        seen = jax.device_get(reader.seen)  # one kind of array, one program


def check(model, prompts: Sequence[Sequence[int]]) -> None:
    """Raises UserError for a model that cannot continue texts, or a prompt that it cannot read."""
    if "causal" not in model.traits or "pair" in model.traits:
        raise UserError(
            f"{type(model.config).__name__} does not write on from left to right; it continues no text"
        )
    context = context_of(model)
    for prompt in prompts:
        if not 0 < len(prompt) <= context:
            what = f"is longer than the model's context of {context}; shorten it" if prompt else "is empty"
            raise UserError(f"a prompt of {len(prompt)} tokens {what}")


def context_of(model) -> float:
    """The most tokens that a model can see at once."""
    return getattr(model.config, "max_length", math.inf)


def row_keys(seed: int, seeds: Sequence[int] | None, rows: int):
    """The randomness of each row: of its own seed, or of `seed` and its index."""
    if seeds is None:
        return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(rows))
    if len(seeds) != rows:
        raise ConfigError(f"{len(seeds)} seeds do not fit {rows} prompts; give one to each")
    keys_B = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
    return jax.vmap(jax.random.fold_in, (0, None))(keys_B, 0)


def end_array(eot: int | Sequence[int] | None) -> np.ndarray:
    """The tokens that end a text, [E]; -1, which no token is, where none does."""
    ends = [] if eot is None else [eot] if isinstance(eot, int | np.integer) else list(eot)
    return np.asarray(ends or [-1], np.int32)


def bucket(length: int) -> int:
    """The next power of two, at least 16."""
    return max(16, 1 << (length - 1).bit_length())


def padded(rows: Sequence[Sequence[int]], length: int):
    """(tokens [B, length], lengths [B]) of rows filled up with zeros on the right."""
    tokens_BT = np.zeros((len(rows), length), np.int32)
    for row, tokens in zip(tokens_BT, rows, strict=True):
        row[: len(tokens)] = tokens
    return tokens_BT, np.asarray([len(row) for row in rows], np.int32)


# --- the program ----------------------------------------------------------------------------------


class Reader(NamedTuple):
    """A model in the middle of its texts."""

    x_BD: jax.Array
    """Features of each row's last token."""
    state: dict
    """What the model remembers, with room for more."""
    seen: Seen


class New(NamedTuple):
    """What was written."""

    tokens_BT: jax.Array
    logp_BT: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _continue(model, room, cache_dtype, params, tokens_BT, lengths_B, seen, *how) -> tuple[New, Reader]:
    """Reads tokens_BT, and writes what `write_tokens` says into the `room` behind them."""
    B, T = tokens_BT.shape
    state = model.initial_state(B, T + room, cache_dtype)
    x_BTD, state = model.features(params, {"tokens": tokens_BT, "lengths": lengths_B}, state=state)
    x_BD = jnp.take_along_axis(x_BTD, lengths_B[:, None, None] - 1, axis=1)[:, 0]
    return write_tokens(model, room, params, Reader(x_BD, state, seen), *how)


def write_tokens(model, room, params, reader, ended_B, written, count, keys_B, end_E, settings):
    """(up to `count` tokens of `room`, the reader that has read them).

    `written` numbers the first of them for its randomness. Stops where every row has drawn one of `end_E`, or
    was `ended_B` before; what a row draws after that means nothing.
    """

    def write(carry):
        index, ended_B, reader, new = carry
        place_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, written + index)
        logits_BV = model.readout(params, reader.x_BD)
        token_B = draw(logits_BV, reader.seen, place_keys_B, settings)
        logp_B = jnp.take_along_axis(jax.nn.log_softmax(logits_BV), token_B[:, None], axis=1)[:, 0]
        new = New(new.tokens_BT.at[:, index].set(token_B), new.logp_BT.at[:, index].set(logp_B))
        x_BTD, state = model.features(params, token_B[:, None], state=reader.state)
        reader = Reader(x_BTD[:, 0], state, reader.seen.with_tokens(token_B))
        return index + 1, ended_B | jnp.isin(token_B, end_E), reader, new

    def goes_on(carry):
        index, ended_B, *_ = carry
        return (index < count) & ~ended_B.all()

    B = len(reader.x_BD)
    dtype = jnp.promote_types(reader.x_BD.dtype, jnp.float32)
    nothing = New(jnp.zeros((B, room), jnp.int32), jnp.zeros((B, room), dtype))
    _, _, reader, new = jax.lax.while_loop(goes_on, write, (0, ended_B, reader, nothing))
    return new, reader


_go_on = functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)(write_tokens)
