"""Speculative decoding: a small model drafts, the large one reads the draft at once and keeps what it may.

Leviathan et al. 2022 (arXiv 2211.17192). A round of a row: the draft model writes g tokens from its
distributions q; the target reads them in one go, which gives its own p at the g places and the one after.
A drafted token x is kept with probability min(1, p(x) / q(x)); the first that is not kept is drawn anew from
max(p - q, 0), and after g kept ones another comes from p for nothing. So every token is distributed as p,
the target's, whatever the draft model is; p and q are what is left after penalties, temperature and
truncation. At temperature 0 both have one token, and the text is the target's greedy text (up to ties that
the rounding of floats decides: reading tokens together and one by one need not agree to the last bit).

    text       the cat sat            target has read: the cat
    draft                  on a hat   target reads:            sat on a hat
    kept                   on a       drawn anew:  mat
    text       the cat sat on a mat   draft model reads next: on a mat

Rows keep different numbers of tokens. What they remember goes on from each row's own length; a recurrent
state, which cannot be cut back, is made again from the tokens that were kept.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError, UserError
from zoo.inference.generate import (
    Continuation,
    Text,
    bucket,
    check,
    context_of,
    end_array,
    padded,
    row_keys,
)
from zoo.inference.sampling import GREEDY, Sampling, Seen, seen_in, settings_of, shaped
from zoo.inference.stop import Stop

DRAFT, KEEP, ANEW = range(3)  # the three draws of a place


@dataclass(frozen=True)
class Speculation:
    """What was written, and how much of it had been drafted well."""

    continuations: list[Continuation]
    drafted: int
    kept: int

    @property
    def acceptance_rate(self) -> float:
        """The share of drafted tokens that the target kept."""
        return self.kept / max(self.drafted, 1)


def speculate(
    model,
    params,
    draft,
    draft_params,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    lookahead: int = 4,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    eot: int | Sequence[int] | None = None,
    stop: Stop | None = None,
    cache_dtype: str | None = None,
) -> Speculation:
    """Continuations of `model`, with `lookahead` tokens drafted a round by `draft`, of the same words.

    The other arguments are those of `complete`; stop strings are looked for when all is written, and
    `cache_dtype` is the target's. What a seed draws is as likely as without a draft model, but not the same
    text.
    Raises UserError as `complete` does, and where prompt and continuation do not fit a context together.
    """
    if draft.config.vocab_size != model.config.vocab_size:
        raise UserError(
            f"a draft model of {draft.config.vocab_size} words cannot draft for one of "
            f"{model.config.vocab_size}; they must share a vocabulary"
        )
    if lookahead < 1:
        raise ConfigError(f"lookahead={lookahead} must be at least 1")
    longest = max(map(len, prompts), default=0)
    for each in (model, draft):
        check(each, prompts)
        if longest + max_new_tokens > context_of(each):
            raise UserError(
                f"{longest} tokens of prompt and {max_new_tokens} new ones do not fit the context of "
                f"{context_of(each)}; ask for fewer, or do not draft"
            )
    texts = [Text(list(prompt)) for prompt in prompts]
    if not texts:
        return Speculation([], 0, 0)
    tokens_BT, lengths_B = padded(prompts, bucket(longest))
    vocab_size, end_E = model.config.vocab_size, end_array(eot)
    done = _speculate(
        *(model, draft, bucket(max_new_tokens), lookahead, cache_dtype, params, draft_params),
        *(tokens_BT, lengths_B, seen_in(prompts, vocab_size), row_keys(seed, seeds, len(texts))),
        *(max_new_tokens, end_E, settings_of(sampling, vocab_size)),
    )
    counts_B = np.minimum(np.asarray(done.written_B), max_new_tokens)
    rows = zip(texts, np.asarray(done.text_BT), np.asarray(done.logp_BT), counts_B, strict=True)
    for text, token_T, logp_T, count in rows:
        text.take(token_T[:count].tolist(), logp_T[:count].tolist(), end_E, stop)
    drafted = lookahead * int(np.sum(done.rounds_B))
    return Speculation([text.continuation for text in texts], drafted, int(np.sum(done.kept_B)))


class Progress(NamedTuple):
    """The texts between two rounds."""

    block_BT: jax.Array
    """The tokens that a row's last round wrote, all that the draft model has yet to read."""
    length_B: jax.Array
    """How many of them there are; none for a row that has ended."""
    state: Any
    """The target's, of all tokens but each row's last."""
    draft_state: Any
    seen: Seen
    text_BT: jax.Array
    logp_BT: jax.Array
    written_B: jax.Array
    ended_B: jax.Array
    rounds_B: jax.Array
    kept_B: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _speculate(
    model, draft, room, lookahead, cache_dtype, params, draft_params, tokens_BT, lengths_B, seen, keys_B,
    count, end_E, settings,
) -> Progress:  # fmt: skip
    (B, T), places = tokens_BT.shape, lookahead + 1
    row_B1 = jnp.arange(B)[:, None]

    def read(model, params, cache_dtype):
        """The state that has read all of the prompts but their last tokens."""
        state = model.initial_state(B, T + room + places, cache_dtype)
        return model.features(params, {"tokens": tokens_BT, "lengths": lengths_B - 1}, state=state)[1]

    def step(progress: Progress) -> Progress:
        """One round of every row that goes on."""
        index_BT = progress.written_B[:, None] + jnp.arange(places)
        keys_BT = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(keys_B, index_BT)
        last_B = jnp.maximum(progress.length_B - 1, 0)
        inputs = {"tokens": progress.block_BT, "lengths": progress.length_B}
        x_BTD, draft_state = draft.features(draft_params, inputs, state=progress.draft_state)
        x_BD = jnp.take_along_axis(x_BTD, last_B[:, None, None], axis=1)[:, 0]
        guess_BT, guess_BTV, seen_T = drafted(
            *(draft, draft_params, x_BD, draft_state, progress.seen, keys_BT[:, :-1], settings)
        )

        token_B1 = jnp.take_along_axis(progress.block_BT, last_B[:, None], axis=1)
        read_BT = jnp.concatenate([token_B1, guess_BT], axis=1)
        x_BTD, state = model.features(params, read_BT, state=progress.state)
        logits_BTV = model.readout(params, x_BTD)
        target_BTV = jax.vmap(shaped, (1, 0, None), 1)(logits_BTV, seen_T, settings)
        kept_B, anew_B = kept(guess_BT, guess_BTV, target_BTV, keys_BT)

        goes_on_B = ~progress.ended_B & (progress.written_B < count)
        length_B = jnp.where(goes_on_B, kept_B + 1, 0)
        is_new_BT = jnp.arange(places) < length_B[:, None]
        block_BT = jnp.concatenate([guess_BT, token_B1], axis=1)
        block_BT = jnp.where(jnp.arange(places) == kept_B[:, None], anew_B[:, None], block_BT)
        logp_BT = jnp.take_along_axis(jax.nn.log_softmax(logits_BTV), block_BT[..., None], axis=-1)[..., 0]
        place_BT = jnp.where(is_new_BT, index_BT, room + places)  # beyond the end: dropped
        return Progress(
            block_BT=block_BT,
            length_B=length_B,
            state=after(model, params, progress.state, state, read_BT, length_B),
            draft_state=draft_state,
            seen=progress.seen._replace(
                count_BV=progress.seen.count_BV.at[row_B1, block_BT].add(is_new_BT.astype(jnp.int32))
            ),
            text_BT=progress.text_BT.at[row_B1, place_BT].set(block_BT, mode="drop"),
            logp_BT=progress.logp_BT.at[row_B1, place_BT].set(logp_BT, mode="drop"),
            written_B=progress.written_B + length_B,
            ended_B=progress.ended_B | (is_new_BT & jnp.isin(block_BT, end_E)).any(1),
            rounds_B=progress.rounds_B + goes_on_B,
            kept_B=progress.kept_B + jnp.where(goes_on_B, kept_B, 0),
        )

    zeros_B, zeros_BT = jnp.zeros(B, jnp.int32), jnp.zeros((B, room + places), jnp.int32)
    last_B1 = jnp.take_along_axis(tokens_BT, lengths_B[:, None] - 1, axis=1)
    begun = Progress(
        block_BT=jnp.pad(last_B1, ((0, 0), (0, lookahead))),
        length_B=jnp.ones(B, jnp.int32),
        state=read(model, params, cache_dtype),
        draft_state=read(draft, draft_params, None),
        seen=seen,
        text_BT=zeros_BT,
        logp_BT=zeros_BT.astype(jnp.float32),
        written_B=zeros_B,
        ended_B=jnp.zeros(B, bool),
        rounds_B=zeros_B,
        kept_B=zeros_B,
    )
    return jax.lax.while_loop(lambda p: (~p.ended_B & (p.written_B < count)).any(), step, begun)


def drafted(draft, params, x_BD, state, seen: Seen, keys_BT, settings):
    """(the tokens guessed from features on, their shaped logits, and of every place, one more than there
    are guesses, the tokens seen before it, places first)."""

    def guess(carry, keys_B):
        x_BD, state, seen = carry
        shaped_BV = shaped(draft.readout(params, x_BD), seen, settings)
        keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, DRAFT)
        token_B = jax.vmap(jax.random.categorical)(keys_B, shaped_BV).astype(jnp.int32)
        x_BTD, state = draft.features(params, token_B[:, None], state=state)
        return (x_BTD[:, 0], state, seen.with_tokens(token_B)), (token_B, shaped_BV, seen)

    (_, _, last), (token_TB, shaped_TBV, seen_T) = jax.lax.scan(
        guess, (x_BD, state, jax.tree.map(jnp.asarray, seen)), keys_BT.swapaxes(0, 1)
    )
    seen_T = jax.tree.map(lambda x_T, x: jnp.concatenate([x_T, x[None]]), seen_T, last)
    return token_TB.swapaxes(0, 1), shaped_TBV.swapaxes(0, 1), seen_T


def kept(guess_BT, guess_BTV, target_BTV, keys_BT):
    """(how many guesses each row keeps, the token it draws after them).

    The logits are shaped, as they are drawn from: the draft model's of each guess, the target's of one place
    more.
    """
    q_BTV = jnp.pad(jax.nn.softmax(guess_BTV), ((0, 0), (0, 1), (0, 0)))  # nothing is guessed at the last
    stay_BTV, anew_BTV = rule(jax.nn.softmax(target_BTV), q_BTV)
    stay_BT = jnp.take_along_axis(stay_BTV[:, :-1], guess_BT[..., None], axis=-1)[..., 0]
    fold = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (0, None))
    chance_BT = jax.vmap(jax.vmap(jax.random.uniform))(fold(keys_BT[:, :-1], KEEP))
    kept_B = jnp.cumprod(chance_BT < stay_BT, axis=1).sum(1)
    anew_BT = jax.vmap(jax.vmap(jax.random.categorical))(fold(keys_BT, ANEW), jnp.log(anew_BTV))
    return kept_B, jnp.take_along_axis(anew_BT, kept_B[:, None], axis=1)[:, 0].astype(jnp.int32)


def rule(p_BTV, q_BTV):
    """(the probability that each token is kept where it is guessed, that of each where one is drawn anew)."""
    rest_BTV = jnp.maximum(p_BTV - q_BTV, 0)
    rest_BT1 = rest_BTV.sum(-1, keepdims=True)
    anew_BTV = jnp.where(rest_BT1 > 0, rest_BTV / rest_BT1, p_BTV)  # nothing is left only where p = q
    return jnp.minimum(p_BTV / jnp.where(q_BTV > 0, q_BTV, 1), 1), anew_BTV


def after(model, params, before, state, tokens_BT, length_B):
    """What a model remembers where of the tokens that led from `before` to `state` only `length_B` count."""
    if "recurrent" in model.traits:
        return model.features(params, {"tokens": tokens_BT, "lengths": length_B}, state=before)[1]
    return state | {"length_B": before["length_B"] + length_B}
