"""Scores are the sum of what the model says of each token; streams are what generation writes."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from families import assert_close, logits, parameters, tiny

import zoo.models
from zoo.errors import UserError
from zoo.inference.generate import generate
from zoo.inference.sampling import Sampling
from zoo.inference.score import log_probabilities
from zoo.inference.stream import stream
from zoo.models.gpt import GPTConfig
from zoo.models.rnn import RNNConfig

CONTEXT = 32
GPT = zoo.models.create(dataclasses.replace(tiny(GPTConfig), max_length=CONTEXT, vocab_size=11))
LSTM = zoo.models.create(dataclasses.replace(tiny(RNNConfig), vocab_size=11))
each_model = pytest.mark.parametrize("model", [GPT, LSTM], ids=["gpt", "lstm"])


def text(length, seed=0):
    return np.random.default_rng(seed).integers(0, 11, length).tolist()


def by_hand(model, params, tokens):
    """Log-probabilities of the tokens after the first, from one full forward."""
    out = np.asarray(logits(model, params, {"tokens": np.asarray([tokens[:-1]], np.int32)}))[0]
    return [out[i, t] - np.log(np.exp(out[i].astype(np.float64)).sum()) for i, t in enumerate(tokens[1:])]


@each_model
@pytest.mark.parametrize("length", [2, 17, CONTEXT + 1])
def test_a_text_within_the_context_scores_what_one_forward_says(model, length):
    params = parameters(model)
    assert_close(log_probabilities(model, params, [text(length)])[0], by_hand(model, params, text(length)))


def test_a_recurrent_model_scores_a_text_of_any_length():
    params = parameters(LSTM)
    assert_close(log_probabilities(LSTM, params, [text(700)])[0], by_hand(LSTM, params, text(700)))


@pytest.mark.parametrize("length", [CONTEXT + 2, 3 * CONTEXT, 3 * CONTEXT + 5])
def test_beyond_the_context_every_token_is_predicted_from_half_of_it_or_more(length):
    params, tokens = parameters(GPT), text(length)
    got, half = log_probabilities(GPT, params, [tokens])[0], CONTEXT // 2
    assert len(got) == length - 1
    for place in range(1, length):
        window = 0 if place <= CONTEXT else (place - CONTEXT - 1) // half * half + half
        assert place - window >= half or window == 0
        want = by_hand(GPT, params, tokens[window : place + 1])[-1]
        assert math.isclose(got[place - 1], want, rel_tol=1e-4)


@each_model
def test_texts_are_scored_each_on_its_own_and_a_single_token_is_nothing(model):
    params = parameters(model)
    one, two = log_probabilities(model, params, [text(9), text(20, seed=1)])
    np.testing.assert_array_equal(log_probabilities(model, params, [text(20, seed=1)])[0], two)
    assert len(one) == 8 and len(log_probabilities(model, params, [[3]])[0]) == 0


def test_what_cannot_be_scored_is_one_line():
    both = zoo.models.create(dataclasses.replace(LSTM.config, direction="both"))
    with pytest.raises(UserError, match="does not read from left to right"):
        log_probabilities(both, parameters(both), [[1, 2]])
    with pytest.raises(UserError, match="text 1 has no tokens"):
        log_probabilities(LSTM, parameters(LSTM), [[1, 2], []])


@each_model
@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), Sampling(temperature=1.5)], ids=str)
def test_a_stream_is_the_text_that_generation_writes(model, sampling):
    params = jax.tree.map(lambda x: 3 * x, parameters(model))
    for count in (1, 16, 40):
        settings = {"max_new_tokens": count, "sampling": sampling, "seed": 5}
        lengths = [0]
        for written in stream(model, params, text(7), **settings):
            lengths.append(len(written.new))
        assert written.new == generate(model, params, [text(7)], **settings)[0]
        assert max(np.diff(lengths)) <= 16


def test_a_stream_ends_before_the_end_of_text():
    params = jax.tree.map(lambda x: 3 * x, parameters(LSTM))
    settings = {"max_new_tokens": 40, "sampling": Sampling(temperature=1.5)}
    free = generate(LSTM, params, [text(7)], **settings)[0]
    eot = free[20]
    *_, written = stream(LSTM, params, text(7), **settings, eot=eot)
    assert written.new == free[: free.index(eot)] and written.ended == "eot"
