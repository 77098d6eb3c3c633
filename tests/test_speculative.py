"""Speculative decoding writes what the target alone writes: the same greedy text, the same distribution."""

import dataclasses

import jax
import numpy as np
import pytest
from families import jit, parameters, tiny
from test_generate import CHI_SQUARE, CONTEXT, MODEL, PARAMS, PROMPTS, expected, full_forward

import zoo.models
from zoo.errors import ConfigError, UserError
from zoo.inference import generate as generation
from zoo.inference import speculative
from zoo.inference.generate import complete, generate
from zoo.inference.sampling import GREEDY, Sampling
from zoo.inference.speculative import kept, rule, speculate
from zoo.models.gpt import GPTConfig
from zoo.models.rnn import RNNConfig

SMALL = dataclasses.replace(MODEL.config, num_layers=1)
LSTM = zoo.models.create(dataclasses.replace(tiny(RNNConfig), vocab_size=11, num_layers=1))
DRAFTS = {"gpt": zoo.models.create(SMALL), "lstm": LSTM}
COUNT = 16


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled():
    """The programs themselves, compiled for a quick build."""
    plain, search = generation._continue, speculative._speculate
    generation._continue = jit(plain.__wrapped__, static_argnums=(0, 1, 2))
    speculative._speculate = jit(search.__wrapped__, static_argnums=(0, 1, 2, 3, 4))
    yield
    generation._continue, speculative._speculate = plain, search


def drafting(name="gpt", **settings):
    """MODEL's continuations, drafted by a model that knows nothing of it."""
    draft = DRAFTS[name]
    settings = {"max_new_tokens": COUNT} | settings
    return speculate(MODEL, PARAMS, draft, parameters(draft, seed=5), **settings)


# --- greedy -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAFTS)
def test_greedy_texts_are_the_targets_own(name):
    done, alone = drafting(name, prompts=PROMPTS), complete(MODEL, PARAMS, PROMPTS, max_new_tokens=COUNT)
    assert [each.tokens for each in done.continuations] == [each.tokens for each in alone]
    for one, other in zip(done.continuations, alone, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
    assert 0 < done.acceptance_rate < 1


def test_a_recurrent_target_goes_on_from_the_tokens_that_were_kept():
    params = jax.tree.map(lambda x: 4 * x, parameters(LSTM, seed=2))
    done = speculate(
        LSTM, params, DRAFTS["gpt"], parameters(DRAFTS["gpt"], seed=5), PROMPTS, max_new_tokens=COUNT
    )
    assert [each.tokens for each in done.continuations] == generate(
        LSTM, params, PROMPTS, max_new_tokens=COUNT
    )


def test_greedy_texts_with_penalties_are_the_targets_own():
    sampling = dataclasses.replace(
        GREEDY, repetition_penalty=1.2, presence_penalty=0.2, frequency_penalty=0.1
    )
    settings = {"max_new_tokens": COUNT, "sampling": sampling}
    done = drafting(prompts=PROMPTS, **settings)
    assert [each.tokens for each in done.continuations] == generate(MODEL, PARAMS, PROMPTS, **settings)


def test_a_draft_that_equals_the_target_is_kept_whole():
    done = speculate(MODEL, PARAMS, MODEL, PARAMS, PROMPTS, max_new_tokens=15, lookahead=4)
    assert done.acceptance_rate == 1.0 and done.drafted == 3 * 4 * 3  # 15 = 3 rounds of 4 and one more


def test_texts_end_as_they_do_alone():
    free = generate(MODEL, PARAMS, PROMPTS, max_new_tokens=COUNT)
    eot = next(token for token in range(11) if len({token in text for text in free}) == 2)
    done, alone = drafting(prompts=PROMPTS, eot=eot), complete(
        MODEL, PARAMS, PROMPTS, max_new_tokens=COUNT, eot=eot
    )  # fmt: skip
    assert [(each.tokens, each.ended) for each in done.continuations] == [
        (each.tokens, each.ended) for each in alone
    ]


# --- sampling -----------------------------------------------------------------------------------------


def chi_square(counts, want) -> bool:
    """Whether counts look drawn from `want`; cells of fewer than five expected are taken together."""
    want = want * counts.sum()
    usual = want >= 5
    assert counts[want == 0].sum() == 0
    observed, wanted = counts[usual], want[usual]
    if want[~usual].sum() > 0:
        observed = np.append(observed, counts[~usual].sum())
        wanted = np.append(wanted, want[~usual].sum())
    degrees = len(observed) - 1
    bound = CHI_SQUARE.get(degrees, degrees + 3.1 * np.sqrt(2 * degrees) + 4)  # 1 in 1000
    return ((observed - wanted) ** 2 / wanted).sum() < bound


P = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
Q = np.array([[0.1, 0.6, 0.1, 0.2], [0.4, 0.3, 0.2, 0.1]])


def test_what_the_rule_keeps_and_draws_anew_is_together_exactly_the_target():
    """For an equal and for a disjoint draft too."""
    rng = np.random.default_rng(3)
    p_BTV, q_BTV = rng.dirichlet(np.ones(5), (2, 4, 3)).astype(np.float32)
    q_BTV[0] = p_BTV[0]
    p_BTV[1], q_BTV[1] = [0.5, 0.5, 0, 0, 0], [0, 0, 0.2, 0.2, 0.6]
    stay_BTV, anew_BTV = map(np.asarray, rule(p_BTV, q_BTV))
    stays_BTV = q_BTV * stay_BTV
    drawn_BTV = stays_BTV + (1 - stays_BTV.sum(-1, keepdims=True)) * anew_BTV
    np.testing.assert_allclose(drawn_BTV, p_BTV, atol=1e-6)
    assert (stay_BTV[0] == 1).all() and (stays_BTV[1] == 0).all()


def test_tokens_kept_or_drawn_anew_are_distributed_as_the_target_says():
    """Guesses from Q at two places; what comes out first is P[0]'s, what comes second P[1]'s, and so on."""
    rows = 8000
    rng = np.random.default_rng(0)
    guess_BT = np.stack([rng.choice(4, rows, p=q) for q in Q], axis=1).astype(np.int32)
    keys_BT = jax.vmap(lambda key: jax.random.split(key, 3))(jax.random.split(jax.random.key(1), rows))
    with np.errstate(divide="ignore"):
        p_BTV, q_BTV = (np.float32(np.broadcast_to(np.log(x), (rows, *x.shape))) for x in (P, Q))
    kept_B, anew_B = map(np.asarray, jit(kept)(guess_BT, q_BTV, p_BTV, keys_BT))
    rate = np.minimum(P[:2], Q).sum(1)
    share = np.array([1 - rate[0], rate[0] * (1 - rate[1]), rate[0] * rate[1]])
    assert chi_square(np.bincount(kept_B, minlength=3), share)
    text_BT = np.where(np.arange(3) < kept_B[:, None], np.pad(guess_BT, ((0, 0), (0, 1))), anew_B[:, None])
    for place in range(3):
        reached = kept_B >= place
        assert chi_square(np.bincount(text_BT[reached, place], minlength=4), P[place])


def test_two_tokens_are_drawn_as_the_target_alone_draws_them():
    rows, sampling = 1500, Sampling(temperature=2.0, top_k=6)
    done = drafting(prompts=[PROMPTS[0]] * rows, max_new_tokens=2, sampling=sampling, seed=1)
    first, second = np.array([each.tokens for each in done.continuations]).T
    p_V = expected(full_forward(PROMPTS[0]), sampling)
    p_VV = [expected(full_forward([*PROMPTS[0], token]), sampling) for token in range(11)]
    counts = np.bincount(11 * first + second, minlength=121)
    assert chi_square(counts, (p_V[:, None] * p_VV).ravel())


def test_a_seeded_request_is_the_same_alone_and_in_company():
    settings = {"max_new_tokens": COUNT, "sampling": Sampling(temperature=1.5)}
    together = drafting(prompts=PROMPTS, seeds=[4, 9, 2], **settings).continuations
    for prompt, seed, one in zip(PROMPTS, (4, 9, 2), together, strict=True):
        assert (
            drafting(prompts=[prompt, [6] * 9], seeds=[seed, 1], **settings).continuations[0].tokens
            == one.tokens
        )


# --- what is refused ----------------------------------------------------------------------------------


def test_drafts_that_cannot_be_are_refused_in_one_line():
    other = zoo.models.create(dataclasses.replace(tiny(GPTConfig), vocab_size=12))
    with pytest.raises(UserError, match="a draft model of 12 words cannot draft for one of 11"):
        speculate(MODEL, PARAMS, other, None, PROMPTS, max_new_tokens=2)
    with pytest.raises(ConfigError, match="lookahead=0 must be at least 1"):
        drafting(prompts=PROMPTS, lookahead=0)
    with pytest.raises(
        UserError, match=f"7 tokens of prompt and {CONTEXT} new ones do not fit the context of 32"
    ):
        drafting(prompts=PROMPTS, max_new_tokens=CONTEXT)
    with pytest.raises(UserError, match="a prompt of 0 tokens is empty"):
        drafting(prompts=[[]])
    assert drafting(prompts=[]).continuations == []
