"""Generation against repeated full forwards, the softmax it draws from, and itself in other company."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit, logits, parameters, tiny

import zoo.models
from zoo.errors import ConfigError, UserError
from zoo.inference import generate as generation
from zoo.inference.generate import generate
from zoo.inference.sampling import GREEDY, Sampling, draw, seen_in, settings_of
from zoo.models.gpt import GPTConfig

CONTEXT = 32
MODEL = zoo.models.create(
    dataclasses.replace(tiny(GPTConfig), num_layers=2, max_length=CONTEXT, vocab_size=11, d_model=8, d_ff=8)
)
PARAMS = parameters(MODEL, seed=2)
# Positions that matter and decided attention, so that greedy texts do not repeat one word.
for table_or_kernel in (
    PARAMS["positions"]["table"],
    PARAMS["blocks"]["attention"]["query"]["w"],
    PARAMS["blocks"]["attention"]["key"]["w"],
):
    table_or_kernel *= 4
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 3], [8]]


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled():
    """The program itself, compiled for a quick build."""
    plain = generation._continue
    generation._continue = jit(plain.__wrapped__, static_argnums=(0, 1, 2))
    yield
    generation._continue = plain


def full_forward(text):
    """Logits of the next token, of a text up to the context long, with no cache."""
    row = np.zeros((1, CONTEXT), np.int32)
    row[0, : len(text)] = text
    return np.asarray(logits(MODEL, PARAMS, {"tokens": row}))[0, len(text) - 1]


def greedy_by_hand(prompt, count):
    """Of the likeliest tokens by repeated full forwards; a full context goes on from its latter half."""
    text, start = list(prompt), 0
    for _ in range(count):
        if len(text) - start > CONTEXT or (len(text) - start == CONTEXT and len(text) > len(prompt)):
            start = len(text) - CONTEXT // 2
        text.append(int(full_forward(text[start:]).argmax()))
    return text[len(prompt) :]


# --- greedy ---------------------------------------------------------------------------------------


def test_greedy_takes_the_likeliest_token_of_a_full_forward_each_time():
    assert generate(MODEL, PARAMS, PROMPTS, max_new_tokens=20) == [greedy_by_hand(p, 20) for p in PROMPTS]


def test_greedy_texts_here_are_not_trivial():
    for prompt in PROMPTS:  # else the test above would prove little
        assert len(set(greedy_by_hand(prompt, 20))) > 4


def test_a_row_does_not_depend_on_its_batch_mates():
    together = generate(MODEL, PARAMS, PROMPTS, max_new_tokens=20)
    assert together == [generate(MODEL, PARAMS, [prompt], max_new_tokens=20)[0] for prompt in PROMPTS]


def test_a_sampled_row_does_not_depend_on_its_batch_mates():
    hot = Sampling(temperature=1.5)
    one, other = (
        generate(MODEL, PARAMS, [PROMPTS[0], *mates], max_new_tokens=12, sampling=hot, seed=3)[0]
        for mates in ([[8], [2] * 9], [[1] * 20, [5]])
    )
    assert one == other


def test_the_length_asked_for_does_not_change_what_is_written():
    hot = Sampling(temperature=1.5)
    long = generate(MODEL, PARAMS, PROMPTS, max_new_tokens=20, sampling=hot)
    short = generate(MODEL, PARAMS, PROMPTS, max_new_tokens=5, sampling=hot)
    assert [text[:5] for text in long] == short
    assert generate(MODEL, PARAMS, PROMPTS, max_new_tokens=0) == [[], [], []]


# --- the context ----------------------------------------------------------------------------------


def test_a_text_goes_on_beyond_the_context_from_its_latter_half():
    text = generate(MODEL, PARAMS, [PROMPTS[0]], max_new_tokens=2 * CONTEXT)[0]
    assert text == greedy_by_hand(PROMPTS[0], 2 * CONTEXT)


def test_beyond_the_context_too_a_row_does_not_depend_on_its_batch_mates():
    prompts = [PROMPTS[0], [2, 7] * 12, [6] * CONTEXT]
    together = generate(MODEL, PARAMS, prompts, max_new_tokens=2 * CONTEXT)
    for prompt, text in zip(prompts, together, strict=True):
        assert text == greedy_by_hand(prompt, 2 * CONTEXT)


def test_a_prompt_that_fills_the_context_still_predicts():
    prompt = np.random.default_rng(0).integers(0, 11, CONTEXT).tolist()
    assert generate(MODEL, PARAMS, [prompt], max_new_tokens=1) == [[int(full_forward(prompt).argmax())]]


@pytest.mark.parametrize(
    "prompt, words", [([1] * (CONTEXT + 1), ["33 tokens", "context of 32"]), ([], ["is empty"])], ids=len
)
def test_a_prompt_that_cannot_be_read_is_one_line(prompt, words):
    with pytest.raises(UserError) as caught:
        generate(MODEL, PARAMS, [[1], prompt], max_new_tokens=1)
    message = str(caught.value)
    assert "\n" not in message and [word for word in words if word not in message] == []


@pytest.mark.parametrize("bad", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_a_bad_sampling_setting_is_one_line_with_its_value(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(ConfigError, match=rf"^{name}={value} must[^\n]*$"):
        Sampling(**bad)


# --- the end of a text ----------------------------------------------------------------------------


def test_a_text_ends_before_its_first_end_of_text():
    free = generate(MODEL, PARAMS, PROMPTS, max_new_tokens=20)
    eot = free[1][6]
    stopped = generate(MODEL, PARAMS, PROMPTS, max_new_tokens=20, eot=eot)
    assert stopped == [text[: text.index(eot)] if eot in text else text for text in free]
    assert any(len(text) < 20 for text in stopped)


def test_an_end_of_text_within_the_prompt_does_not_stop_its_row():
    free = generate(MODEL, PARAMS, [PROMPTS[1]], max_new_tokens=20)[0]
    absent = next(token for token in range(11) if token not in free)
    prompt = [absent, *PROMPTS[1]]
    free = generate(MODEL, PARAMS, [prompt], max_new_tokens=5)[0]
    stopped = generate(MODEL, PARAMS, [prompt], max_new_tokens=5, eot=absent)[0]
    assert stopped == (free[: free.index(absent)] if absent in free else free)


# --- sampling -------------------------------------------------------------------------------------

ROWS = 2000
# The value that chi-square exceeds once in a thousand times, by degrees of freedom.
CHI_SQUARE = {1: 10.8, 2: 13.8, 3: 16.3, 4: 18.5, 5: 20.5, 6: 22.5, 7: 24.3, 8: 26.1, 9: 27.9, 10: 29.6}


def expected(logits_V, sampling):
    """The distribution that is asked for, in NumPy: temperature, then the k likeliest, then the nucleus."""
    scaled = np.asarray(logits_V, np.float64) / sampling.temperature
    probability = np.exp(scaled - scaled.max())
    order = np.argsort(-probability)
    if sampling.top_k:
        probability[order[sampling.top_k :]] = 0
    probability /= probability.sum()
    held = np.cumsum(probability[order])
    count = int(np.searchsorted(held, sampling.top_p - 1e-9)) + 1
    probability[order[count:]] = 0
    return probability / probability.sum()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=2.0),
        Sampling(temperature=0.7),
        Sampling(temperature=2.0, top_k=4),
        Sampling(temperature=2.0, top_p=0.6),
        Sampling(temperature=3.0, top_k=6, top_p=0.8),
    ],
    ids=str,
)
def test_sampling_follows_the_distribution_that_is_asked_for(sampling):
    drawn = generate(MODEL, PARAMS, [PROMPTS[0]] * ROWS, max_new_tokens=1, sampling=sampling, seed=5)
    counts = np.bincount([text[0] for text in drawn], minlength=11)
    want = expected(full_forward(PROMPTS[0]), sampling)
    assert counts[want == 0].sum() == 0
    usual = want * ROWS >= 5  # rarer tokens are taken together, as the chi-square asks
    observed, wanted = counts[usual], want[usual] * ROWS
    if rare := want[~usual].sum() * ROWS:
        observed, wanted = np.append(observed, counts[~usual].sum()), np.append(wanted, rare)
    assert len(observed) > 2
    assert ((observed - wanted) ** 2 / np.maximum(wanted, 1)).sum() < CHI_SQUARE[len(observed) - 1]


def test_the_second_token_is_drawn_afresh():
    zeros = jax.tree.map(np.zeros_like, PARAMS)  # all 11 tokens equally likely, always
    texts = generate(MODEL, zeros, [PROMPTS[0]] * ROWS, max_new_tokens=2, sampling=Sampling())
    first, second = np.asarray(texts).T
    assert abs((first == second).mean() - 1 / 11) < 4 * np.sqrt(1 / 11 / ROWS)


def test_the_likeliest_one_is_greedy():
    greedy = generate(MODEL, PARAMS, PROMPTS, max_new_tokens=20, sampling=GREEDY)
    for sampling in (Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(temperature=0.0, top_k=3, top_p=0.5)):
        assert generate(MODEL, PARAMS, PROMPTS, max_new_tokens=20, sampling=sampling, seed=7) == greedy


def test_a_seed_repeats_its_texts_and_another_gives_others():
    hot = Sampling(temperature=2.0)
    first, again, other = (
        generate(MODEL, PARAMS, PROMPTS, max_new_tokens=20, sampling=hot, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))


def test_equal_prompts_are_continued_differently():
    texts = generate(MODEL, PARAMS, [[3]] * 3, max_new_tokens=20, sampling=Sampling(temperature=2.0))
    assert len(set(map(tuple, texts))) == 3


def test_equal_logits_and_a_top_k_leave_exactly_k_tokens():
    keys_B, settings = jax.random.split(jax.random.key(0), 500), settings_of(Sampling(top_k=3), 8)
    drawn = jit(draw)(jnp.zeros((500, 8)), seen_in([[]] * 500, 8), keys_B, settings)
    assert len(set(np.asarray(drawn).tolist())) == 3


# --- compilation ----------------------------------------------------------------------------------


def test_fifty_prompts_of_different_lengths_compile_at_most_once_a_bucket():
    generation._continue.clear_cache()
    rng = np.random.default_rng(0)
    for index in range(50):
        prompt = rng.integers(0, 11, 1 + index % CONTEXT).tolist()
        sampling = Sampling(temperature=0.5 + index / 50, top_k=index % 5, top_p=1 - index / 100)
        generate(MODEL, PARAMS, [prompt], max_new_tokens=3, sampling=sampling, seed=index)
    # Prompts of up to 16 and up to 32 tokens. Full contexts go on from their latter half, which is 16.
    assert generation._continue._cache_size() <= 2


def test_whole_numbers_as_settings_are_the_same_program():
    generation._continue.clear_cache()
    for sampling in (Sampling(temperature=1.0), Sampling(temperature=1), Sampling(temperature=0, top_p=1)):
        generate(MODEL, PARAMS, [[3]], max_new_tokens=3, sampling=sampling)
    assert generation._continue._cache_size() == 1
