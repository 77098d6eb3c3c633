"""Generation with a carried state: the same text as full forwards give, without end and for every cell."""

import dataclasses

import jax
import numpy as np
import pytest
from families import assert_close, jit, logits, parameters, step, tiny

import zoo.models
from zoo.errors import UserError
from zoo.inference import generate as generation
from zoo.inference.generate import generate
from zoo.inference.sampling import Sampling
from zoo.models.rnn import CELLS, RNNConfig

PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 3] * 4, [8]]

each_cell = pytest.mark.parametrize("cell", CELLS)


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled():
    """The program itself, compiled for a quick build."""
    plain = generation._continue
    generation._continue = jit(plain.__wrapped__, static_argnums=(0, 1, 2))
    yield
    generation._continue = plain


def model_of(cell):
    return zoo.models.create(dataclasses.replace(tiny(RNNConfig), cell=cell, vocab_size=11, num_layers=2))


def loud(model):
    """Parameters with opinions, so that greedy texts do not repeat one word; a recurrence of relu's that
    does not explode."""
    params = jax.tree.map(lambda x: 4 * x, parameters(model, seed=2))
    if model.config.cell == "elman_relu":
        for layer in params["stack"].values():
            layer["w"] /= 3.5
    return params


def greedy_by_hand(model, params, prompt, count):
    text = list(prompt)
    for _ in range(count):
        row = np.zeros((1, 64), np.int32)
        row[0, : len(text)] = text
        text.append(int(np.asarray(logits(model, params, {"tokens": row}))[0, len(text) - 1].argmax()))
    return text[len(prompt) :]


@each_cell
def test_greedy_takes_the_likeliest_token_of_a_full_forward_each_time(cell):
    model = model_of(cell)
    params = loud(model)
    want = [greedy_by_hand(model, params, prompt, 20) for prompt in PROMPTS]
    assert generate(model, params, PROMPTS, max_new_tokens=20) == want
    assert any(len(set(text)) > 2 for text in want)  # else this would prove little


@each_cell
def test_a_text_may_be_longer_than_any_model(cell):
    """Read back at once, 300 written tokens are each the likeliest after those before it."""
    model = model_of(cell)
    params = loud(model)
    new = generate(model, params, [PROMPTS[0]], max_new_tokens=300)[0]
    whole = np.asarray([PROMPTS[0] + new])
    seen, _ = step(model, params, {"tokens": whole[:, :-1]}, model.initial_state(1, 0))
    assert new == np.asarray(seen)[0, len(PROMPTS[0]) - 1 :].argmax(-1).tolist()


@each_cell
def test_a_row_does_not_depend_on_its_batch_mates(cell):
    model = model_of(cell)
    params = loud(model)
    settings = {"max_new_tokens": 12, "sampling": Sampling(temperature=1.5), "seed": 3}
    one, other = (
        generate(model, params, [PROMPTS[0], *mates], **settings)[0] for mates in ([[8]], [[2] * 40, [5]])
    )
    assert one == other


def test_a_prompt_of_any_length_is_read_and_an_empty_one_refused():
    model = model_of("lstm")
    params = loud(model)
    assert len(generate(model, params, [[1, 2] * 300], max_new_tokens=2)[0]) == 2
    with pytest.raises(UserError, match="a prompt of 0 tokens is empty"):
        generate(model, params, [[]], max_new_tokens=2)


def test_a_model_that_reads_both_ways_writes_nothing():
    model = zoo.models.create(dataclasses.replace(tiny(RNNConfig), direction="both"))
    with pytest.raises(UserError, match="continues no text"):
        generate(model, parameters(model), [[1]], max_new_tokens=2)


@each_cell
def test_a_state_that_was_carried_is_the_state_of_the_whole_text(cell):
    model = model_of(cell)
    params, tokens = loud(model), np.random.default_rng(0).integers(0, 11, (3, 48)).astype(np.int32)
    _, whole = step(model, params, {"tokens": tokens}, model.initial_state(3, 0))
    state = model.initial_state(3, 0)
    for chunk in np.split(tokens, 6, axis=1):
        _, state = step(model, params, {"tokens": chunk}, state)
    for name in whole:
        for leaf in whole[name]:
            assert_close(state[name][leaf], whole[name][leaf])
