"""Caches of fewer bits: what they hold, how many bytes they take, and what becomes of the text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import assert_close, jit, parameters, step, tiny
from families import tokens as random_tokens
from test_generate import MODEL, PARAMS, PROMPTS

import zoo.models
from zoo import sharding
from zoo.errors import ConfigError
from zoo.inference import beam as beams
from zoo.inference import generate as generation
from zoo.inference.beam import Beam, beam_search
from zoo.inference.generate import generate
from zoo.models import cache
from zoo.models.rnn import RNNConfig
from zoo.models.seq2seq import Seq2SeqConfig

# Relative to the largest logit. A bfloat16 is off by up to 2^-9 = 0.2 %, an int8 by up to 1 / 254 = 0.4 % of
# the largest entry of its vector; five times that leaves room for two layers and decided softmaxes.
TOLERANCE = {"float32": 0.0, "bfloat16": 0.01, "int8": 0.02}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled():
    """The programs themselves, compiled for a quick build."""
    plain, search = generation._continue, beams._search
    generation._continue = jit(plain.__wrapped__, static_argnums=(0, 1, 2))
    static = {"static_argnums": (0, 1, 2, 3, 4), "static_argnames": "cache_dtype"}
    beams._search = jit(search.__wrapped__, **static)
    yield
    generation._continue, beams._search = plain, search


def read(dtype, pieces):
    """(logits of random rows, the state at last), read in pieces of these lengths."""
    x, state, parts = random_tokens(MODEL, 3, sum(pieces)), MODEL.initial_state(3, 16, dtype), []
    for piece in np.split(x, np.cumsum(pieces)[:-1], axis=1):
        part, state = step(MODEL, PARAMS, {"tokens": piece}, state)
        parts.append(part)
    return np.concatenate(parts, axis=1), state


@each_dtype
def test_logits_are_as_near_as_the_cache_is_precise(dtype):
    want, (got, state) = read(None, [8, 4])[0], read(dtype, [8, 4])
    assert state["k_NBJSK"].dtype == dtype
    off = np.abs(got - want).max() / np.abs(want).max()
    assert off <= TOLERANCE[dtype]
    assert dtype == "float32" or off > 1e-5  # else the cache was not what was read


@each_dtype
def test_reading_in_pieces_equals_reading_at_once(dtype):
    """A piece sees itself as the cache holds it. One whole number of an int8 may be rounded the other way."""
    assert_close(read(dtype, [8, 4])[0], read(dtype, [4, 8])[0], 2e-5 if dtype == "float32" else 2e-3)


@each_dtype
def test_greedy_texts_are_the_same(dtype):
    want = generate(MODEL, PARAMS, PROMPTS, max_new_tokens=20)
    assert generate(MODEL, PARAMS, PROMPTS, max_new_tokens=20, cache_dtype=dtype) == want


def test_a_beam_moves_scales_with_their_keys():
    prompts = {"tokens": np.array([[3, 1, 4], [1, 5, 9]], np.int32)}
    settings = {"max_new_tokens": 8, "end": 10, "beam": Beam(size=3)}
    want, got = (beam_search(MODEL, PARAMS, prompts, **settings, cache_dtype=d) for d in (None, "int8"))
    np.testing.assert_array_equal(got.tokens_BCT, want.tokens_BCT)
    np.testing.assert_allclose(got.scores_BC, want.scores_BC, rtol=0.02)


def test_a_whole_number_is_off_by_half_a_scale_at_most():
    x_BTHK = np.random.default_rng(0).standard_normal((2, 3, 2, 8)).astype(np.float32)
    x_BTHK *= 10.0 ** np.arange(-3, 3).reshape(1, 3, 2, 1)  # each position and head has its own scale
    x_BTHK[0, 0, 0] = 0
    packed = cache.packed("k", x_BTHK, jnp.dtype("int8"))
    stored = {name: x.swapaxes(1, 2)[None] for name, x in packed.items()}  # one layer, heads before positions
    off = np.abs(np.asarray(cache.unpacked("k", stored, 0, jnp.float32)) - x_BTHK)
    largest = np.abs(x_BTHK).max(-1, keepdims=True)
    assert (off <= largest / 254 * 1.0001).all() and (off[0, 0, 0] == 0).all()
    assert np.abs(np.asarray(packed["k_NBJSK"])).max(-1).ravel()[1:].min() == 127


@pytest.mark.parametrize(
    ("dtype", "bytes_a_vector"), [(None, 4 * 64), ("float32", 4 * 64), ("bfloat16", 2 * 64), ("int8", 64 + 4)]
)
def test_the_bytes_of_a_cache_are_those_of_its_vectors(dtype, bytes_a_vector):
    """GPT-2 small: keys and values of 12 layers and 12 heads, 64 wide, and a length of each row."""
    model = zoo.models.create("gpt2")
    state = jax.eval_shape(lambda: model.initial_state(3, 1024, dtype))
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert held == 2 * 12 * 3 * 1024 * 12 * bytes_a_vector + 3 * 4


def test_arrays_of_a_cache_are_named_by_letters_that_have_a_place():
    for name, x in MODEL.initial_state(2, 4, "int8").items():
        letters = name.rpartition("_")[2]
        assert set(letters) <= set(sharding.LETTERS) and len(letters) == x.ndim
        assert x.shape[letters.index("B")] == 2


def test_caches_that_cannot_be_are_refused_in_one_line():
    with pytest.raises(ConfigError, match="^cache_dtype='int7' is none of .*; did you mean 'int8'"):
        MODEL.initial_state(1, 4, "int7")
    for kind in (RNNConfig, Seq2SeqConfig):
        with pytest.raises(
            ConfigError, match=f"^cache_dtype=int8: {kind.__name__} remembers a state of fixed"
        ):
            zoo.models.create(tiny(kind)).initial_state(1, 4, "int8")


def test_a_recurrent_model_is_not_given_a_cache_to_generate_with():
    model = zoo.models.create(tiny(RNNConfig))
    with pytest.raises(ConfigError, match="leave it out"):
        generate(model, parameters(model), [[1]], max_new_tokens=1, cache_dtype="bfloat16")
