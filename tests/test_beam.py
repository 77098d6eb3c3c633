"""Beam search against exhaustive search, greedy decoding, and itself in other company."""

import itertools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit, parameters
from families import logits as full_logits

import zoo.models
from zoo.errors import ConfigError, UserError
from zoo.inference import beam as beams
from zoo.inference.beam import Beam, beam_search
from zoo.models.gpt import GPTConfig
from zoo.models.pure import Model
from zoo.models.rnn import RNNConfig
from zoo.models.seq2seq import Seq2Seq, Seq2SeqConfig

V, END = 5, 3
SIZES = {"vocab_size": V, "d_model": 8, "dropout_rate": 0.0}
PAIR = {**SIZES, "d_state": 6, "num_encoder_layers": 1, "num_decoder_layers": 2}
PAIR["cell"] = "gru"
MODELS = {
    "gpt": zoo.models.create(GPTConfig(**SIZES, max_length=16, num_layers=1, num_heads=2, d_ff=8)),
    "lstm": zoo.models.create(RNNConfig(**SIZES, d_state=6)),
    "attention": Model(config := Seq2SeqConfig(**PAIR, attention="concat"), Seq2Seq(config)),
    "no attention": Model(config := Seq2SeqConfig(**PAIR, attention="none", feeding="none"), Seq2Seq(config)),
}
SEARCH = beams._search.__wrapped__
each_model = pytest.mark.parametrize("name", MODELS)
FOUR = {"tokens": np.array([[1], [1], [2], [4]], np.int32)}
SOURCE = {
    "source": np.array([[1, 2, 4, 0], [4, 4, 2, 1], [2, 0, 0, 0], [1, 2, 4, 0]], np.int32),
    "source_lengths": np.array([3, 4, 1, 4], np.int32),
}


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled():
    """The program itself, compiled for a quick build."""
    plain = beams._search
    beams._search = jit(plain.__wrapped__, static_argnums=(0, 1, 2, 3, 4))
    yield
    beams._search = plain


def inputs_of(name) -> dict:
    return FOUR | SOURCE if "source" in getattr(MODELS[name].module, "reads", ()) else FOUR


def sharp(name, seed=0, scale=3.0):
    """Parameters whose model has opinions."""
    return jax.tree.map(lambda x: scale * x, parameters(MODELS[name], seed=seed))


def log_probabilities(name, params, inputs, texts) -> np.ndarray:
    """log p of every word of every text after the prompt, by full forwards: [B, texts, N, V]."""
    model, B = MODELS[name], len(inputs["tokens"])
    texts = np.asarray(texts, np.int32)
    rows = {
        key: np.repeat(x, len(texts), axis=0) for key, x in inputs.items() if key not in ("tokens", "lengths")
    }
    prompt = np.repeat(inputs["tokens"], len(texts), axis=0)
    rows["tokens"] = np.concatenate([prompt, np.tile(texts, (B, 1))], axis=1)
    logits = full_logits(model, params, rows)[:, prompt.shape[1] - 1 :]
    return np.asarray(jax.nn.log_softmax(logits), np.float64).reshape(B, len(texts), -1, V)


def exhaustive(name, params, inputs, longest, beam) -> list[list[tuple[float, tuple]]]:
    """Every text of at most `longest` words with its score, best first, for each row."""
    texts = list(itertools.product([word for word in range(V) if word != END], repeat=longest))
    logp = log_probabilities(name, params, inputs, texts)
    rows = []
    for row in logp:
        scores = {}
        for text, logp_NV in zip(texts, row, strict=True):
            for n in range(beam.min_new_tokens, longest + 1):
                total = sum(logp_NV[i, text[i]] for i in range(n)) + logp_NV[n, END]
                c, a = beam.length_offset, beam.length_penalty
                scores[text[:n]] = total / ((c + n + 1) / (c + 1)) ** a
        rows.append(sorted(((score, text) for text, score in scores.items()), reverse=True))
    return rows


def texts_of(found) -> list[list[tuple]]:
    """The words of every text of every row."""
    tokens_BCT, lengths_BC = np.asarray(found.tokens_BCT), np.asarray(found.lengths_BC)
    return [
        [tuple(words[:length].tolist()) for words, length in zip(*row, strict=True)]
        for row in zip(tokens_BCT, lengths_BC, strict=True)
    ]


# --- what is found --------------------------------------------------------------------------------


@each_model
@pytest.mark.parametrize("longest, size", [(1, V), (3, V**3)], ids=["1", "3"])
def test_a_beam_that_holds_everything_is_exhaustive_search(name, longest, size):
    beam, inputs = Beam(size=size), inputs_of(name)
    for seed in range(3):
        params = sharp(name, seed)
        found = beam_search(MODELS[name], params, inputs, max_new_tokens=longest, end=END, beam=beam, count=4)
        want = exhaustive(name, params, inputs, longest, beam)
        assert texts_of(found) == [[text for _, text in row[:4]] for row in want]
        np.testing.assert_allclose(found.scores_BC, [[score for score, _ in row[:4]] for row in want], 1e-4)


@pytest.mark.parametrize("alpha, offset", [(1.0, 0.0), (0.6, 5.0), (2.5, 0.0), (-1.0, 1.0)])
def test_length_penalties_rank_as_their_formula_says(alpha, offset):
    name = "attention"
    beam = Beam(size=V**3, length_penalty=alpha, length_offset=offset)
    for seed in range(6):
        params, inputs = sharp(name, seed, scale=1.5), inputs_of(name)
        found = beam_search(MODELS[name], params, inputs, max_new_tokens=3, end=END, beam=beam, count=3)
        want = exhaustive(name, params, inputs, 3, beam)
        assert texts_of(found) == [[text for _, text in row[:3]] for row in want]
        np.testing.assert_allclose(found.scores_BC, [[score for score, _ in row[:3]] for row in want], 1e-4)


def test_the_divisors_are_those_of_the_papers():
    for n in (1, 4, 17):
        assert math.isclose(Beam(length_penalty=0.7).divisor(n), ((5 + n) / 6) ** 0.7)
        assert math.isclose(Beam(length_penalty=1.0, length_offset=0.0).divisor(n), n)
        assert Beam().divisor(n) == 1


def greedy_by_hand(name, params, inputs, longest) -> list[tuple]:
    """Of the likeliest words by repeated full forwards, each row alone."""
    texts = []
    for b in range(len(inputs["tokens"])):
        row, text = {key: x[b : b + 1] for key, x in inputs.items()}, []
        length = int(row.pop("lengths")[0]) if "lengths" in row else row["tokens"].shape[1]
        row["tokens"] = row["tokens"][:, :length]
        while len(text) < longest:
            padded = [*text, *[0] * (longest - len(text))]  # one shape for all
            word = int(log_probabilities(name, params, row, [padded])[0, 0, len(text)].argmax())
            if word == END:
                break
            text.append(word)
        texts.append(tuple(text))
    return texts


@each_model
def test_a_beam_of_one_is_greedy(name):
    lengths = set()
    for seed in range(8):
        params, inputs = sharp(name, seed, scale=1.5), inputs_of(name)
        if "bias" in params:
            params["bias"] += np.where(np.arange(len(params["bias"])) == END, seed / 8, 0)
        found = beam_search(MODELS[name], params, inputs, max_new_tokens=6, end=END, beam=Beam(size=1))
        texts = [row[0] for row in texts_of(found)]
        assert texts == greedy_by_hand(name, params, inputs, 6)
        lengths |= set(map(len, texts))
    assert len(lengths) > 1  # else it would prove little


@each_model
def test_scores_are_the_probabilities_of_the_texts(name):
    params, inputs = sharp(name), inputs_of(name)
    beam = Beam(size=4, length_penalty=1.0, length_offset=0.0)
    found = beam_search(MODELS[name], params, inputs, max_new_tokens=5, end=END, beam=beam, count=2)
    for b, row in enumerate(texts_of(found)):
        one = {key: x[b : b + 1] for key, x in inputs.items()}
        for text, score in zip(row, found.scores_BC[b], strict=True):
            padded = [*text, *[END] * (6 - len(text))]
            logp_NV = log_probabilities(name, params, one, [padded])[0, 0]
            total = sum(logp_NV[i, word] for i, word in enumerate([*text, END]))
            np.testing.assert_allclose(score, total / (len(text) + 1), rtol=1e-4)


def test_a_wider_beam_finds_what_greedy_misses():
    better = 0
    for seed in range(4):
        params, inputs = sharp("attention", seed, scale=1.5), inputs_of("attention")
        one, ten = (
            beam_search(
                MODELS["attention"], params, inputs, max_new_tokens=5, end=END, beam=Beam(size=size)
            ).scores_BC
            for size in (1, 10)
        )
        better += int((ten > one + 1e-4).sum())
    assert better > 0


def searched_with(loop, monkeypatch, seed, alpha):
    """A search whose loop is `loop`."""
    monkeypatch.setattr(jax.lax, "while_loop", loop)
    beam, params = Beam(size=3, length_penalty=alpha), sharp("attention", seed, scale=1.5)
    program = jit(SEARCH, static_argnums=(0, 1, 2, 3, 4))
    return program(MODELS["attention"], beam, 2, 5, True, params, inputs_of("attention"), END)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_stopping_early_loses_nothing(alpha, monkeypatch):
    def to_the_end(goes_on, step, begun):
        return jax.lax.fori_loop(0, 6, lambda _, search: step(search), begun)

    for seed in range(3):
        with monkeypatch.context() as patch:
            found = searched_with(jax.lax.while_loop, patch, seed, alpha)
        with monkeypatch.context() as patch:
            patch.setattr(jax.lax, "fori_loop", unrolled)
            whole = searched_with(to_the_end, patch, seed, alpha)
        for early, late in zip(found, whole, strict=True):
            np.testing.assert_array_equal(early, late)


def unrolled(start, stop, step, value):
    for i in range(start, stop):
        value = step(i, value)
    return value


def test_the_search_stops_when_nothing_open_can_win():
    params = sharp("attention")
    params["bias"] = params["bias"] * 0
    params["bias"][END] = 60.0  # every text ends at once
    seen = []

    def counting(goes_on, step, begun):
        while goes_on(begun):
            begun = step(begun)
            seen.append(int(begun.step))
        return begun

    plain, jax.lax.while_loop = jax.lax.while_loop, counting
    try:
        SEARCH(MODELS["attention"], Beam(size=2), 1, 50, True, params, inputs_of("attention"), END)
    finally:
        jax.lax.while_loop = plain
    assert seen == [1]


@dataclass(frozen=True)
class Clock:
    """A model that looks at the place alone: `ends` are the probabilities of an end at each, the rest is
    word 0's."""

    ends: tuple[float, ...]
    config = None

    def initial_state(self, batch_size, length, cache_dtype):
        return {"place_B": jnp.zeros(batch_size, jnp.int32)}

    def features(self, params, inputs, *, state):
        place_BT = state["place_B"][:, None] + jnp.arange(inputs["tokens"].shape[1])
        return place_BT[..., None].astype(jnp.float32), {"place_B": place_BT[:, -1] + 1}

    def readout(self, params, x):
        p = jnp.array(self.ends)[x[..., 0].astype(int)]
        return jnp.log(jnp.stack([1 - p, p], axis=-1))


def test_a_long_text_that_wins_late_is_waited_for():
    """To end at once scores log 0.74 = -0.30; the other text has -1.35 / 2 by then, and at last -1.35 / 6."""
    model, mean = Clock((0.74, 0, 0, 0, 0, 1)), Beam(size=1, length_penalty=1.0, length_offset=0.0)
    found = beam_search(model, {}, {"tokens": np.zeros((1, 1), np.int32)}, max_new_tokens=5, end=1, beam=mean)
    assert texts_of(found) == [[(0,) * 5]]
    np.testing.assert_allclose(found.scores_BC, [[math.log(0.26) / 6]], rtol=1e-5)


# --- who shares a batch, how texts begin and end --------------------------------------------------


@each_model
def test_a_row_does_not_depend_on_its_batch_mates(name):
    params, inputs = sharp(name), inputs_of(name)
    beam = Beam(size=3, length_penalty=1.0)
    together = beam_search(MODELS[name], params, inputs, max_new_tokens=6, end=END, beam=beam, count=2)
    for b in range(4):
        row = {key: x[b : b + 1] for key, x in inputs.items()}
        alone = beam_search(MODELS[name], params, row, max_new_tokens=6, end=END, beam=beam, count=2)
        assert texts_of(alone)[0] == texts_of(together)[b]
        np.testing.assert_allclose(alone.scores_BC[0], together.scores_BC[b], 1e-5)


@pytest.mark.parametrize("name", ["gpt", "lstm"])
def test_ragged_prompts_go_on_each_from_its_own_end(name):
    params = sharp(name)
    ragged = {"tokens": np.array([[1, 2, 4], [4, 0, 0]], np.int32), "lengths": np.array([3, 1], np.int32)}
    found = beam_search(MODELS[name], params, ragged, max_new_tokens=5, end=END, beam=Beam(size=4))
    for b, length in enumerate(ragged["lengths"]):
        row = {"tokens": ragged["tokens"][b : b + 1, :length]}
        alone = beam_search(MODELS[name], params, row, max_new_tokens=5, end=END, beam=Beam(size=4))
        assert texts_of(found)[b] == texts_of(alone)[0]


def test_without_an_end_every_text_is_as_long_as_can_be():
    params = sharp("gpt")
    found = beam_search(MODELS["gpt"], params, FOUR, max_new_tokens=2, end=None, beam=Beam(size=25))
    np.testing.assert_array_equal(found.lengths_BC, 2)
    every = list(itertools.product(range(V), repeat=2))
    logp = log_probabilities("gpt", params, FOUR, every)
    total = [[row[i][0, text[0]] + row[i][1, text[1]] for i, text in enumerate(every)] for row in logp]
    assert texts_of(found) == [[every[int(np.argmax(row))]] for row in total]
    np.testing.assert_allclose(found.scores_BC[:, 0], np.max(total, axis=1), 1e-4)


def test_a_text_has_the_fewest_words_that_are_asked_for():
    params = sharp("attention")
    params["bias"][END] += 30.0  # every text would end at once
    for fewest in (0, 2, 4, 9):
        beam, inputs = Beam(size=3, min_new_tokens=fewest), inputs_of("attention")
        found = beam_search(MODELS["attention"], params, inputs, max_new_tokens=4, end=END, beam=beam)
        np.testing.assert_array_equal(found.lengths_BC, min(fewest, 4))


def test_a_beam_wider_than_there_are_texts_says_so_by_its_scores():
    params, beam = sharp("lstm"), Beam(size=8)
    found = beam_search(MODELS["lstm"], params, FOUR, max_new_tokens=1, end=END, beam=beam, count=8)
    np.testing.assert_array_equal(np.isfinite(found.scores_BC).sum(1), V)  # four words, or none
    assert all(len(set(row[:V])) == V for row in texts_of(found))


# --- the state ------------------------------------------------------------------------------------


def test_what_all_texts_of_a_row_share_is_not_moved():
    model, params = MODELS["attention"], sharp("attention")
    state = jax.eval_shape(lambda: model.initial_state(6, 4))
    kept = beams.unchanged(model, params, state, 6)
    assert kept["source"] == {"memory_BSE": True, "keys_BSZ": True, "length_B": True}
    assert not any(jax.tree.leaves((kept["decoder"], kept["fed_BF"])))


@each_model
def test_states_are_rearranged_along_the_letter_b(name):
    state = jax.tree.map(jnp.asarray, MODELS[name].initial_state(6, 4))
    state = jax.tree.map(lambda x: x + np.arange(x.size).reshape(x.shape).astype(x.dtype), state)
    parent = np.array([[2, 0, 0], [1, 1, 0]])
    moved = beams.rearranged(state, jax.tree.map(lambda _: False, state), parent)
    order = [2, 0, 0, 4, 4, 3]
    pairs = zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(moved), strict=True)
    for (path, x), y in pairs:
        np.testing.assert_array_equal(np.take(x, order, axis=path[-1].key.split("_")[1].index("B")), y)


def test_a_state_without_rows_is_refused_by_name():
    with pytest.raises(ValueError, match="'k_NSHK' has no letter B"):
        beams.rows_axis((jax.tree_util.DictKey("k_NSHK"),))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"size": 0}, "size=0"),
        ({"length_offset": -1.0}, "length_offset"),
        ({"min_new_tokens": -1}, "min_new"),
    ],
)
def test_a_beam_that_cannot_be_is_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        Beam(**fields)


def test_searches_that_cannot_be_are_refused_in_one_line():
    model, params = MODELS["gpt"], parameters(MODELS["gpt"])
    for settings, words in (
        ({"max_new_tokens": 16}, "a prompt of 1 tokens and 16 new ones .* context of 16; ask for 15"),
        ({"max_new_tokens": 3, "count": 2}, "count=2 texts cannot come from a beam of size=1"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ):
        with pytest.raises(UserError, match=words):
            beam_search(model, params, FOUR, end=END, beam=Beam(size=1), **settings)


def test_a_full_context_is_searched_to_its_last_place():
    name = "gpt"
    params, beam = sharp(name), Beam(size=1)
    found = beam_search(MODELS[name], params, FOUR, max_new_tokens=15, end=END, beam=beam)
    assert [row[0] for row in texts_of(found)] == greedy_by_hand(name, params, FOUR, 15)
