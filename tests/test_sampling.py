"""What a token is drawn from: against transformers' processors, OpenAI's formula and a slow loop in NumPy."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit

from zoo.errors import ConfigError
from zoo.inference.sampling import GREEDY, Sampling, Seen, draw, seen_in, settings_of, shaped

GOLDEN = json.loads((Path(__file__).parent / "goldens" / "sampling.json").read_text())
LOGITS, PROMPTS, WRITTEN = np.float32(GOLDEN["logits"]), GOLDEN["prompts"], GOLDEN["written"]
B, V = LOGITS.shape
SHAPED = jit(shaped)
HOT = {"temperature": 1.3, "top_k": 8, "top_p": 0.9, "min_p": 0.05}
HOT |= {"repetition_penalty": 1.2, "presence_penalty": 0.4, "frequency_penalty": 0.3}


def seen() -> Seen:
    """The rows' prompts and what was written after them."""
    found = seen_in(PROMPTS, V)
    for count_V, written in zip(found.count_BV, WRITTEN, strict=True):
        np.add.at(count_V, written, 1)
    return found


def shaped_by(sampling) -> np.ndarray:
    return np.asarray(SHAPED(LOGITS, seen(), settings_of(sampling, V)))


def by_hand(sampling) -> np.ndarray:
    """One token at a time, in the documented order, with Python's floats."""
    rows = []
    for logits, prompt, written in zip(LOGITS.tolist(), PROMPTS, WRITTEN, strict=True):
        for token in set(prompt + written):
            r = sampling.repetition_penalty
            logits[token] = logits[token] / r if logits[token] > 0 else logits[token] * r
        for token in written:
            logits[token] -= sampling.frequency_penalty
        for token in set(written):
            logits[token] -= sampling.presence_penalty
        logits = [logit / sampling.temperature for logit in logits]
        kept = sorted(range(V), key=lambda token: -logits[token])[: sampling.top_k or V]
        total, held, nucleus = sum(math.exp(logits[token]) for token in kept), 0.0, []
        for token in kept:
            if held < sampling.top_p:
                nucleus.append(token)
            held += math.exp(logits[token]) / total
        least = math.log(sampling.min_p) + logits[kept[0]] if sampling.min_p else -math.inf
        kept = {token for token in nucleus if logits[token] >= least}
        rows.append([logits[token] if token in kept else -math.inf for token in range(V)])
    return np.array(rows)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str(case["settings"]))
def test_logits_are_shaped_as_transformers_shapes_them(case):
    want = [[-math.inf if x is None else x for x in row] for row in case["shaped"]]
    np.testing.assert_allclose(shaped_by(Sampling(**case["settings"])), want, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"presence_penalty": 1.5},
        {"frequency_penalty": 0.7},
        {"presence_penalty": -0.5, "frequency_penalty": -0.3},
        HOT,
        HOT | {"top_k": 0, "min_p": 0.3},
    ],
    ids=str,
)
def test_logits_are_shaped_as_a_slow_loop_shapes_them(settings):
    np.testing.assert_allclose(shaped_by(Sampling(**settings)), by_hand(Sampling(**settings)), rtol=1e-5)


def test_presence_and_frequency_leave_tokens_of_the_prompt_alone():
    """OpenAI counts what was sampled; repetition, as CTRL has it, what stands there."""
    off = LOGITS - shaped_by(Sampling(presence_penalty=2.0, frequency_penalty=0.5))
    assert off[0, 3] == 0 and off[0, 1] == 0  # in the prompt only
    np.testing.assert_allclose([off[0, 5], off[0, 2], off[2, 1], off[2, 7]], [3.0, 2.5, 4.0, 2.5], rtol=1e-5)
    assert shaped_by(Sampling(repetition_penalty=2.0))[0, 3] != LOGITS[0, 3]


def test_penalties_of_one_and_nought_change_no_bit():
    np.testing.assert_array_equal(shaped_by(Sampling()), LOGITS)


def test_a_temperature_of_nought_leaves_the_likeliest_after_penalties():
    for sampling in (GREEDY, Sampling(**HOT | {"temperature": 0.0})):
        penalised = Sampling(repetition_penalty=sampling.repetition_penalty, **{
            name: getattr(sampling, name) for name in ("presence_penalty", "frequency_penalty")
        })  # fmt: skip
        found = shaped_by(sampling)
        assert (np.isfinite(found).sum(1) == 1).all()
        np.testing.assert_array_equal(found.argmax(1), by_hand(penalised).argmax(1))


def test_min_p_follows_the_likeliest_where_top_p_follows_the_mass():
    """Of ten equal tokens min-p keeps all, top-p half; of one that holds nearly everything both keep one."""
    flat, steep = np.zeros((1, 10), np.float32), np.full((1, 10), -9, np.float32)
    steep[0, 4] = 0

    def left(logits, **settings):
        settings = settings_of(Sampling(**settings), 10)
        return int(np.isfinite(SHAPED(logits, seen_in([[]], 10), settings)).sum())

    assert (left(flat, min_p=0.5), left(flat, top_p=0.45)) == (10, 5)
    assert (left(steep, min_p=0.5), left(steep, top_p=0.45)) == (1, 1)


def test_a_drawn_token_is_counted():
    before = seen_in([[1], [2]], 4)
    after = jax.tree.map(jnp.asarray, before).with_tokens(jnp.array([3, 0])).with_tokens(jnp.array([3, 1]))
    np.testing.assert_array_equal(after.count_BV, [[0, 0, 0, 2], [1, 1, 0, 0]])
    np.testing.assert_array_equal(after.in_prompt_BV, before.in_prompt_BV)


def test_what_was_excluded_is_never_drawn():
    settings = settings_of(Sampling(temperature=9.0, min_p=0.9), V)
    kept = np.isfinite(np.asarray(SHAPED(LOGITS, seen_in(PROMPTS, V), settings)))
    keys = jax.random.split(jax.random.key(0), 300)
    many = jit(jax.vmap(lambda key: draw(LOGITS, seen_in(PROMPTS, V), jax.random.split(key, B), settings)))
    for row, drawn in zip(kept, np.asarray(many(keys)).T, strict=True):
        assert set(drawn.tolist()) == set(np.flatnonzero(row).tolist())


@pytest.mark.parametrize(
    "bad",
    [
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.inf},
        {"presence_penalty": math.nan},
        {"frequency_penalty": math.inf},
    ],
    ids=str,
)
def test_a_bad_setting_is_one_line_with_its_value(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(ConfigError, match=rf"^{name}={value} must[^\n]*$"):
        Sampling(**bad)
