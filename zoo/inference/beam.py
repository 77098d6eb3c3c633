"""Beam search: the best continuations that a model with a state knows, not one word at a time.

A beam of K holds the K likeliest unfinished texts. A step extends each by every word and keeps the K
likeliest that go on; an end mark among the K likeliest extensions of all finishes its text (as in fairseq),
which is then ranked by

    score = log p(text, end) / ((c + n) / (c + 1))^a          n words, the end counted

a = 0 ranks by probability. c = 5 is the length penalty of Wu et al. 2016 (arXiv 1609.08144, equation 14);
c = 0 divides by n^a, for a = 1 the mean per word: fairseq's `lenpen`.

The search stops when no text that goes on can still win. log p only falls as a text grows, so what a text
of log p = s grows into scores at most s over the largest divisor that is left to it: that of the longest
text for a >= 0, of the next word for a < 0. A row is done when the worst text it keeps scores at least that
of every open one. Where it is searched further beside other rows, nothing that it finds is better.

A beam of one is greedy decoding, where a = 0. One that holds all extensions of every step is exhaustive
search over the texts of up to `max_new_tokens` words and an end: a text of that length is made to end.

What a model remembers is rearranged by the letter B in the names of its arrays. Arrays that it hands back as
they came (the source that a decoder looks at) are the same for all texts of a row and stay where they are.
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from zoo.errors import ConfigError, UserError


@dataclass(frozen=True)
class Beam:
    """How to search."""

    size: int = 5
    """Texts that are kept while they grow; 1 takes the likeliest word each time."""
    length_penalty: float = 0.0
    """The exponent a above; more than 0 favours long texts."""
    length_offset: float = 5.0
    """The offset c above: 5 is Wu et al.'s, 0 divides by the length."""
    min_new_tokens: int = 0
    """Words that a text has at least before its end, where there is room for them."""

    def __post_init__(self):
        if self.size < 1:
            raise ConfigError(f"size={self.size} must be at least 1")
        for field in ("length_offset", "min_new_tokens"):
            if not 0 <= getattr(self, field) < math.inf:
                raise ConfigError(f"{field}={getattr(self, field)} must be a number of at least 0")
        if not math.isfinite(self.length_penalty):
            raise ConfigError(f"length_penalty={self.length_penalty} must be a number")

    def divisor(self, length):
        """What the log-probability of a text of `length` words, its end counted, is divided by."""
        return ((self.length_offset + length) / (self.length_offset + 1.0)) ** self.length_penalty


class Found(NamedTuple):
    """The best texts of every row, best first; C counts them."""

    tokens_BCT: jax.Array
    """Without the end; what follows it is the end mark again, or without one 0."""
    lengths_BC: jax.Array
    scores_BC: jax.Array
    """-inf where the beam found fewer texts."""


class Search(NamedTuple):
    """A step's texts: K that go on, in `open`, and C that ended. T has room for all words and the end."""

    step: jax.Array
    x_BKD: jax.Array
    """Features after the last word."""
    state: dict
    """What the model remembers of the B*K rows."""
    logp_BK: jax.Array
    open_BKT: jax.Array
    ended: Found


def beam_search(
    model,
    params,
    inputs,
    *,
    max_new_tokens: int,
    end,
    beam: Beam = Beam(),
    count: int = 1,
    cache_dtype: str | None = None,
) -> Found:
    """The `count` best continuations of inputs["tokens"] [B, T], up to `max_new_tokens` words each.

    `inputs` are the model's own: "lengths" [B] of ragged prompts, and of a pair "source" and
    "source_lengths", beside the beginning of its target. `end` is the token that ends a text; None: all
    texts are as long as can be. Scores are log-probabilities in nats over the divisor. `cache_dtype` is
    that of attention's keys and values.
    Raises UserError where a prompt leaves no room in the model's context.
    """
    T, context = inputs["tokens"].shape[1], getattr(model.config, "max_length", None)
    if context is not None and T + max_new_tokens > context:
        raise UserError(
            f"a prompt of {T} tokens and {max_new_tokens} new ones are more than the model's context of "
            f"{context}; ask for {max(context - T, 0)} or shorten the prompt"
        )
    if not 1 <= count <= beam.size:
        raise UserError(f"count={count} texts cannot come from a beam of size={beam.size}; ask for 1 to that")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens={max_new_tokens} must be at least 1")
    ends = end is not None
    how = (model, beam, count, max_new_tokens, ends)
    return _search(*how, params, inputs, end if ends else 0, cache_dtype=cache_dtype)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4), static_argnames="cache_dtype")
def _search(
    model, beam: Beam, count: int, max_new_tokens: int, ends: bool, params, inputs, end, *, cache_dtype=None
) -> Found:
    B, T = inputs["tokens"].shape
    K, steps = beam.size, max_new_tokens + ends  # a text that is full still ends
    state = model.initial_state(B, T + steps, cache_dtype)
    x_BTD, state = model.features(params, inputs, state=state)
    last_B = inputs["lengths"] - 1 if "lengths" in inputs else jnp.full(B, T - 1)
    x_BD = jnp.take_along_axis(x_BTD, last_B[:, None, None], axis=1)[:, 0]
    dtype = jnp.promote_types(x_BD.dtype, jnp.float32)
    state = jax.tree_util.tree_map_with_path(lambda path, x: jnp.repeat(x, K, rows_axis(path)), state)
    is_kept = unchanged(model, params, state, B * K)
    longest = beam.divisor(jnp.asarray(steps, dtype))

    def step(search: Search) -> Search:
        """Every open text extended by one word, or ended."""
        logits = model.readout(params, search.x_BKD)
        logp_BKV = search.logp_BK[..., None] + jax.nn.log_softmax(logits.astype(dtype), axis=-1)
        is_end_V = (jnp.arange(logits.shape[-1]) == end) & ends
        early, full = search.step < beam.min_new_tokens, search.step == max_new_tokens
        barred_V = jnp.where(is_end_V, early & ~full, full & ends)
        logp_BKV = jnp.where(barred_V, -jnp.inf, logp_BKV)

        # The 2K likeliest extensions hold at most K ends, one for each text, and so K that go on.
        V = logits.shape[-1]
        best_BX, extension_BX = jax.lax.top_k(logp_BKV.reshape(B, K * V), min(2 * K, K * V))
        parent_BX, word_BX = extension_BX // V, (extension_BX % V).astype(jnp.int32)
        is_end_BX = (word_BX == end) & ends
        texts_BXT = rows_of(search.open_BKT, parent_BX).at[:, :, search.step].set(word_BX)

        length = search.step + 1
        score_BX = best_BX / beam.divisor(length.astype(dtype))
        finishes_BX = is_end_BX & (jnp.arange(best_BX.shape[1]) < K)
        if not ends:
            finishes_BX = jnp.broadcast_to(length == steps, best_BX.shape)
        score_BX = jnp.where(finishes_BX, score_BX, -jnp.inf)
        words = length - ends
        ended = merged(search.ended, Found(texts_BXT, jnp.full_like(word_BX, words), score_BX), count)

        logp_BK, chosen_BK = jax.lax.top_k(jnp.where(is_end_BX, -jnp.inf, best_BX), K)
        parent_BK, word_BK = (rows_of(x_BX, chosen_BK) for x_BX in (parent_BX, word_BX))
        state = rearranged(search.state, is_kept, parent_BK)
        x_BTD, after = model.features(params, {"tokens": word_BK.reshape(B * K, 1)}, state=state)
        return Search(
            step=length,
            x_BKD=x_BTD.reshape(B, K, -1),
            state=after,
            logp_BK=logp_BK,
            open_BKT=rows_of(texts_BXT, chosen_BK),
            ended=ended,
        )

    def goes_on(search: Search):
        """Whether some row has an open text that may end better than the worst that it keeps."""
        divisor = jnp.maximum(beam.divisor((search.step + 1).astype(dtype)), longest)
        may_win_B = search.logp_BK.max(-1) / divisor > search.ended.scores_BC.min(-1)
        return (search.step < steps) & may_win_B.any()

    no_text = jnp.full((B, K, steps), end, jnp.int32)
    begun = Search(
        step=jnp.zeros((), jnp.int32),
        x_BKD=jnp.repeat(x_BD[:, None], K, axis=1),
        state=state,
        logp_BK=jnp.full((B, K), -jnp.inf, dtype).at[:, 0].set(0.0),  # K copies of one text are one text
        open_BKT=no_text,
        ended=Found(
            no_text[:, :count], jnp.zeros((B, count), jnp.int32), jnp.full((B, count), -jnp.inf, dtype)
        ),
    )
    found = jax.lax.while_loop(goes_on, step, begun).ended
    return found._replace(tokens_BCT=found.tokens_BCT[:, :, :max_new_tokens])


def merged(old: Found, new: Found, count: int) -> Found:
    """The best `count` of two lots of texts; the old ones before new ones that are no better."""
    both = jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=1), old, new)
    _, chosen_BC = jax.lax.top_k(both.scores_BC, count)
    return jax.tree.map(lambda x: rows_of(x, chosen_BC), both)


def rows_of(x_BK, chosen_BC):
    """For every row B the entries of K that were chosen, [B, K, ...] -> [B, C, ...]."""
    index = jnp.expand_dims(chosen_BC, range(2, x_BK.ndim))
    return jnp.take_along_axis(x_BK, index, axis=1, mode="clip")


def rearranged(state, is_kept, parent_BK):
    """The state of B*K rows, each now that of the text it came from."""

    def arrange(path, x, is_kept):
        if is_kept:
            return x
        axis = rows_axis(path)
        x_B = jnp.moveaxis(x, axis, 0)
        x_BK = x_B.reshape(*parent_BK.shape, *x_B.shape[1:])
        return jnp.moveaxis(rows_of(x_BK, parent_BK).reshape(-1, *x_BK.shape[2:]), 0, axis)

    return jax.tree_util.tree_map_with_path(arrange, state, is_kept)


def unchanged(model, params, state, rows: int):
    """Which arrays of a state the model hands back as they came, without computing anything."""
    is_kept = None

    def read_one_word(state):
        nonlocal is_kept
        tokens_B1 = jnp.zeros((rows, 1), jnp.int32)
        _, after = model.features(params, {"tokens": tokens_B1}, state=state)
        is_kept = jax.tree.map(lambda new, old: new is old, after, state)

    jax.eval_shape(read_one_word, state)
    return is_kept


def rows_axis(path) -> int:
    """Which dimension of a state's array counts rows; ValueError for a name without the letter B."""
    name = path[-1].key
    letters = name.rpartition("_")[2]
    if "B" not in letters:
        raise ValueError(f"state {name!r} has no letter B for its rows; name it by its dimensions, as h_BR")
    return letters.index("B")
