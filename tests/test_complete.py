"""How texts end, what their tokens' log-probabilities are, and that requests do not see each other."""

import dataclasses
import string

import jax
import numpy as np
import pytest
from families import jit
from test_generate import CONTEXT, MODEL, PARAMS, PROMPTS, full_forward

from zoo.errors import ConfigError
from zoo.inference import generate as generation
from zoo.inference.generate import bucket, complete, generate, padded, row_keys
from zoo.inference.sampling import GREEDY, Sampling, seen_in, settings_of
from zoo.inference.stop import Stop
from zoo.inference.stream import stream

HOT = Sampling(temperature=1.5, top_k=8, min_p=0.02, repetition_penalty=1.3, presence_penalty=0.3)


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled():
    """The programs themselves, compiled for a quick build."""
    read_on, go_on = generation._continue, generation._go_on
    generation._continue = jit(read_on.__wrapped__, static_argnums=(0, 1, 2))
    generation._go_on = jit(go_on.__wrapped__, static_argnums=(0, 1))
    yield
    generation._continue, generation._go_on = read_on, go_on


def log_softmax(logits):
    logits = np.float64(logits)
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


# --- log-probabilities and penalties ------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [GREEDY, HOT], ids=str)
def test_log_probabilities_are_the_models_own_whatever_was_drawn_from(sampling):
    found = complete(MODEL, PARAMS, PROMPTS, max_new_tokens=12, sampling=sampling)
    for prompt, done in zip(PROMPTS, found, strict=True):
        text = list(prompt)
        for token, logp in zip(done.tokens, done.logprobs, strict=True):
            assert logp == pytest.approx(log_softmax(full_forward(text))[token], abs=1e-5)
            text.append(token)


def penalised_by_hand(prompt, count, repetition, presence, frequency):
    """Greedy text from repeated full forwards, counting in Python; the window as generation has it."""
    text, start = list(prompt), 0
    for _ in range(count):
        if len(text) - start == CONTEXT:
            start = len(text) - CONTEXT // 2
        logits = full_forward(text[start:]).astype(np.float64)
        for token in set(text):
            logits[token] = logits[token] / repetition if logits[token] > 0 else logits[token] * repetition
        for token in text[len(prompt) :]:
            logits[token] -= frequency
        for token in set(text[len(prompt) :]):
            logits[token] -= presence
        text.append(int(logits.argmax()))
    return text[len(prompt) :]


def test_penalties_count_what_the_text_has_beyond_the_context_too():
    count, penalties = CONTEXT + 8, (1.15, 0.2, 0.05)
    names = ("repetition_penalty", "presence_penalty", "frequency_penalty")
    sampling = dataclasses.replace(GREEDY, **dict(zip(names, penalties, strict=True)))
    texts = generate(MODEL, PARAMS, PROMPTS, max_new_tokens=count, sampling=sampling)
    assert texts == [penalised_by_hand(prompt, count, *penalties) for prompt in PROMPTS]
    assert texts != generate(MODEL, PARAMS, PROMPTS, max_new_tokens=count)


# --- seeds --------------------------------------------------------------------------------------------


def test_a_seeded_request_is_the_same_alone_in_company_and_in_another_bucket():
    settings = {"max_new_tokens": 14, "sampling": HOT}
    alone = [
        complete(MODEL, PARAMS, [prompt], seed=seed, **settings)[0]
        for prompt, seed in zip(PROMPTS, (7, 3, 7), strict=True)
    ]
    together = complete(MODEL, PARAMS, PROMPTS, seeds=[7, 3, 7], **settings)
    crowd = [[5] * 17, PROMPTS[2], PROMPTS[1], [2], PROMPTS[0]]  # the first needs the next bucket
    crowded = complete(MODEL, PARAMS, crowd, seeds=[1, 7, 3, 2**32 - 1, 7], **settings)
    for one, *others in zip(alone, together, (crowded[4], crowded[2], crowded[1]), strict=True):
        assert all(one.tokens == other.tokens for other in others)


def test_seeds_are_one_a_prompt():
    with pytest.raises(ConfigError, match="2 seeds do not fit 3 prompts; give one to each"):
        complete(MODEL, PARAMS, PROMPTS, max_new_tokens=1, seeds=[1, 2])


# --- the end of a text --------------------------------------------------------------------------------


class Letters:
    """A tokenizer of eleven words: letters, and one of two letters."""

    words = (*string.ascii_lowercase[:10], "xy")

    def decode(self, ids):
        return "".join(self.words[i] for i in ids)


def test_the_program_stops_when_every_row_has_ended():
    free = generate(MODEL, PARAMS, [PROMPTS[0]], max_new_tokens=20)[0]
    eot, V = free[4], MODEL.config.vocab_size
    tokens_BT, lengths_B = padded([PROMPTS[0]], bucket(1))
    _, reader = generation._continue(
        *(MODEL, bucket(20), None, PARAMS, tokens_BT, lengths_B, seen_in([PROMPTS[0]], V)),
        *(np.array([False]), 0, 20, row_keys(0, None, 1), eot, settings_of(GREEDY, V)),
    )
    steps = int(reader.state["length_B"][0]) - len(PROMPTS[0])
    assert steps == free.index(eot) + 1 < 20


def token_of_some(continuations) -> int:
    """One that some texts have and others have not."""
    return next(t for t in range(11) if len({t in each.tokens for each in continuations}) == 2)


def test_a_continuation_says_how_it_ended():
    free = complete(MODEL, PARAMS, PROMPTS, max_new_tokens=20)
    eot = token_of_some(free)
    done = complete(MODEL, PARAMS, PROMPTS, max_new_tokens=20, eot=eot)
    assert [each.ended for each in free] == ["length"] * 3
    for each, whole in zip(done, free, strict=True):
        assert each.ended == ("eot" if eot in whole.tokens else "length")
        assert each.logprobs == whole.logprobs[: len(each.tokens)] and eot not in each.tokens


def test_a_stop_string_is_found_across_tokens_and_cut_off():
    free = generate(MODEL, PARAMS, PROMPTS, max_new_tokens=40)
    text = Letters().decode(free[2])
    stop = Stop((text[2:5], "no such thing"), Letters())
    settings = {"max_new_tokens": 40, "stop": stop}
    done = complete(MODEL, PARAMS, PROMPTS, **settings)
    assert (
        done[2].ended == "stop"
        and stop.cut(Letters().decode(done[2].tokens)) == text[: text.index(text[2:5])]
    )
    for each, tokens in zip(done, free, strict=True):
        assert each.tokens == tokens[: len(each.tokens)] and len(each.logprobs) == len(each.tokens)
        whole = Letters().decode(each.tokens)
        assert stop.is_in(whole) == (each.ended == "stop")
        assert not stop.is_in(Letters().decode(each.tokens[:-1]))
    *_, written = stream(MODEL, PARAMS, PROMPTS[2], **settings)
    assert written.continuation == complete(MODEL, PARAMS, PROMPTS[2:], **settings)[0]


def test_an_early_end_of_one_row_leaves_the_others_as_they_are():
    settings = {"max_new_tokens": 2 * CONTEXT}
    free = complete(MODEL, PARAMS, PROMPTS, **settings)
    eot = token_of_some(free)
    for each, whole in zip(complete(MODEL, PARAMS, PROMPTS, **settings, eot=eot), free, strict=True):
        assert each.tokens == whole.tokens[: len(each.tokens)]
        assert each.ended == "eot" or len(each.tokens) == 2 * CONTEXT
        np.testing.assert_allclose(each.logprobs, whole.logprobs[: len(each.logprobs)], atol=1e-5)


def test_stop_strings_in_text_of_longer_words():
    stop = Stop(("ya", "b"), Letters())
    assert stop.found([3], [2, 10, 0, 1], 0) == 3  # c xy a: "ya" lies in two tokens
    assert stop.found([3], [2, 10, 2], 0) is None
    assert stop.found([1], [2, 3], 0) is None  # a stop string in the prompt stops nothing
    assert stop.cut("cxyab") == "cx" and stop.cut("cd") == "cd"
    assert [stop.settled(text) for text in ("cxy", "cxyc", "cxya", "c")] == ["cx", "cxyc", "cx", "c"]
    with pytest.raises(ConfigError, match="^stop='' would end every text"):
        Stop(("a", ""), Letters())


# --- compilation --------------------------------------------------------------------------------------


def test_other_prompts_of_a_bucket_compile_nothing():
    compiled = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    settings = {"max_new_tokens": 9, "stop": Stop(("no such thing",), Letters())}
    complete(MODEL, PARAMS, [[1] * 5, [2] * 9], **settings, seeds=[3, 4])
    jit(lambda x: 1.25 * x)(2.0)
    assert compiled  # else the listener hears nothing
    compiled.clear()
    complete(MODEL, PARAMS, [[3] * 16, [4]], **settings, seeds=[1, 2], sampling=HOT, eot=3)
    complete(MODEL, PARAMS, [[3], [4] * 2], **settings | {"max_new_tokens": 16}, seeds=[5, 6])
    assert not compiled
