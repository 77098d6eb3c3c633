"""How the next token is drawn from the logits.

In the order of transformers and vLLM: penalties on what the text has already, temperature, then what is left
to draw from, top-k, top-p of what top-k leaves, and min-p.

    repetition   logit / r where it is positive and logit * r where not, of tokens in prompt or text
    presence     logit - a              of tokens in the text written so far, the prompt not counted
    frequency    logit - a * count      the same, for each time it was written

The first is CTRL's (Keskar et al. 2019, arXiv 1909.05858, section 4.1), as transformers has it; the other
two are OpenAI's. Penalties of 1, 0 and 0 leave the logits as they are to the last bit, so one program, of
which they are arguments, serves all settings. For that it keeps five bytes a row and word of the vocabulary,
about as much as the logits themselves, and passes over them once a token. The sort that top-k, top-p and
min-p need takes three times as long as GPT-2's output layer on a CPU: it runs where one of them is set.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from the logits."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Draw among the k likeliest; 0: among all."""
    top_p: float = 1.0
    """Draw among the fewest likeliest tokens that hold this share of the probability (arXiv 1904.09751)."""
    min_p: float = 0.0
    """Draw among the tokens that are at least this share as likely as the likeliest (arXiv 2407.01082)."""
    repetition_penalty: float = 1.0
    """More than 1 makes tokens of the prompt and of the text so far less likely (arXiv 1909.05858)."""
    presence_penalty: float = 0.0
    """Taken off the logits of tokens that the text so far has, without the prompt."""
    frequency_penalty: float = 0.0
    """Taken off them for each time that the text so far has them."""

    def __post_init__(self):
        if not self.temperature >= 0:
            raise ConfigError(f"temperature={self.temperature} must not be negative; 0 takes the likeliest")
        if self.top_k < 0:
            raise ConfigError(f"top_k={self.top_k} must not be negative; 0 draws among all tokens")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p} must be more than 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise ConfigError(f"min_p={self.min_p} must be between 0 and 1; 0 draws among all tokens")
        if not 0 < self.repetition_penalty < math.inf:
            raise ConfigError(
                f"repetition_penalty={self.repetition_penalty} must be more than 0; 1 changes nothing"
            )
        for field in ("presence_penalty", "frequency_penalty"):
            if not math.isfinite(getattr(self, field)):
                raise ConfigError(f"{field}={getattr(self, field)} must be a number; 0 changes nothing")


GREEDY = Sampling(temperature=0.0)


class Settings(NamedTuple):
    """A Sampling as a program takes it: numbers that may change without another compilation."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float


def settings_of(sampling: Sampling, vocab_size: int) -> Settings:
    """The numbers of `sampling`, each of one type whatever it was written as."""
    numbers = {field: float(getattr(sampling, field)) for field in Settings._fields}
    return Settings(**numbers | {"top_k": min(sampling.top_k, vocab_size)})


class Seen(NamedTuple):
    """The tokens that a row has."""

    in_prompt_BV: jax.Array
    count_BV: jax.Array
    """How often each was written after the prompt."""

    def with_tokens(self, token_B) -> "Seen":
        """After one more token in every row."""
        return self._replace(count_BV=self.count_BV.at[jnp.arange(len(token_B)), token_B].add(1))


def seen_in(prompts: Sequence[Sequence[int]], vocab_size: int) -> Seen:
    """Before anything is written."""
    in_prompt_BV = np.zeros((len(prompts), vocab_size), bool)
    for seen_V, prompt in zip(in_prompt_BV, prompts, strict=True):
        seen_V[list(prompt)] = True
    return Seen(in_prompt_BV, np.zeros(in_prompt_BV.shape, np.int32))


def draw(logits_BV, seen: Seen, keys_B, settings: Settings):
    """One token id a row, each with its own randomness."""
    logits_BV = _penalised(logits_BV, seen, settings)
    return jax.lax.cond(
        settings.temperature == 0,
        lambda: jnp.argmax(logits_BV, axis=-1),
        lambda: jax.vmap(jax.random.categorical)(keys_B, _scaled(logits_BV, settings)),
    ).astype(jnp.int32)


def shaped(logits_BV, seen: Seen, settings: Settings):
    """Logits of the distribution that is drawn from: penalised, scaled, and -inf where nothing is drawn.

    A temperature of 0 leaves one token, the likeliest.
    """
    logits_BV = _penalised(logits_BV, seen, settings)
    is_likeliest_BV = jnp.arange(logits_BV.shape[1]) == jnp.argmax(logits_BV, axis=-1, keepdims=True)
    return jax.lax.cond(
        settings.temperature == 0,
        lambda: jnp.where(is_likeliest_BV, logits_BV, -jnp.inf),
        lambda: _scaled(logits_BV, settings),
    )


def _penalised(logits_BV, seen: Seen, settings: Settings):
    is_written_BV, penalty = seen.count_BV > 0, settings.repetition_penalty
    repeated_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    logits_BV = jnp.where(seen.in_prompt_BV | is_written_BV, repeated_BV, logits_BV)
    return logits_BV - settings.presence_penalty * is_written_BV - settings.frequency_penalty * seen.count_BV


def _scaled(logits_BV, settings: Settings):
    """By the temperature, and without what top-k, top-p and min-p leave out; sorted only where they do."""
    scaled_BV = logits_BV / settings.temperature
    is_whole = (settings.top_k == 0) & (settings.top_p == 1) & (settings.min_p == 0)
    cut = jax.vmap(_truncated, (0, None))
    return jax.lax.cond(is_whole, lambda: scaled_BV, lambda: cut(scaled_BV, settings))


def _truncated(logits_V, settings: Settings):
    order_V = jnp.argsort(-logits_V)
    sorted_V, rank_V = logits_V[order_V], jnp.arange(len(logits_V))
    is_kept_V = (settings.top_k == 0) | (rank_V < settings.top_k)
    probability_V = jax.nn.softmax(jnp.where(is_kept_V, sorted_V, -jnp.inf))
    likelier_V = jnp.cumsum(probability_V) - probability_V  # the share held by the tokens before
    is_kept_V &= (likelier_V < settings.top_p) & (probability_V >= settings.min_p * probability_V[0])
    is_kept_V |= rank_V == 0
    return jnp.full_like(sorted_V, -jnp.inf).at[order_V].set(jnp.where(is_kept_V, sorted_V, -jnp.inf))
