"""Attention against a slow loop in NumPy, one query at a time, for every rule of who sees whom."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit

from zoo.attention import All, Causal, Choice, Lengths, Segments, Window, attention

B, T, H, K = 2, 6, 2, 4


def arrays(queries=T, keys=T, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((B, size, H, K)) for size in (queries, keys, keys)]


def slow_attention(q_BTHK, k_BSHK, v_BSHK, may_see):
    """The mean of the values, weighted by exp(q k / sqrt(K)), over those s for which may_see(b, t, s)."""
    out_BTHK = np.zeros(q_BTHK.shape)
    for b, t, h in np.ndindex(q_BTHK.shape[:3]):
        seen = [s for s in range(k_BSHK.shape[1]) if may_see(b, t, s)]
        weights = [np.exp(q_BTHK[b, t, h] @ k_BSHK[b, s, h] / np.sqrt(K)) for s in seen]
        for weight, s in zip(weights, seen, strict=True):
            out_BTHK[b, t, h] += weight / sum(weights) * v_BSHK[b, s, h]
    return out_BTHK


run = jit(attention)
SEGMENTS = np.asarray([[1, 1, 2, 2, 2, 0], [1, 2, 2, 3, 0, 0]])
LENGTHS = np.asarray([4, 0])


def causal(b, t, s):
    return s <= t


def window(b, t, s):
    return abs(t - s) < 3


def segments(b, t, s):
    return SEGMENTS[b, t] == SEGMENTS[b, s] != 0


def lengths(b, t, s):
    return s < LENGTHS[b]


RULES = {
    "causal": (Causal(), [causal]),
    "window": (Window(3), [window]),
    "segments": (Segments(SEGMENTS), [segments]),
    "lengths": (Lengths(LENGTHS), [lengths]),
    "causal window": (Causal() & Window(3), [causal, window]),
    "causal segments": (Causal() & Segments(SEGMENTS), [causal, segments]),
    "segments causal": (Segments(SEGMENTS) & Causal(), [causal, segments]),
    "window lengths": (Window(3) & Lengths(LENGTHS), [window, lengths]),
    "choice of the first": (Choice(np.asarray(True), Window(3), Causal()), [window]),
    "choice of the second": (
        Choice(np.asarray(False), All(), Window(3)) & Lengths(LENGTHS),
        [window, lengths],
    ),
    "causal window segments lengths": (
        Causal() & Window(3) & Segments(SEGMENTS) & Lengths(LENGTHS),
        [causal, window, segments, lengths],
    ),
}
each_rule = pytest.mark.parametrize("rule", RULES)


@each_rule
def test_attention_equals_the_slow_loop(rule):
    sees, conditions = RULES[rule]
    with jax.enable_x64(True):  # float64 on both sides: only the order of the sums differs
        got = run(*arrays(), sees)
    assert got.dtype == np.float64
    want = slow_attention(*arrays(), lambda *bts: all(may_see(*bts) for may_see in conditions))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_queries_that_share_a_key_head_equal_those_with_a_copy_of_it(key_heads):
    random = np.random.default_rng(0)
    q = random.standard_normal((B, T, 4, K))
    k, v = random.standard_normal((2, B, T, key_heads, K))
    with jax.enable_x64(True):
        got = run(q, k, v, Causal())
    copied = (np.repeat(x, 4 // key_heads, axis=2) for x in (k, v))
    np.testing.assert_allclose(got, slow_attention(q, *copied, causal), rtol=0, atol=1e-12)


def test_a_cap_bounds_the_scores_and_a_scale_takes_the_place_of_the_widths():
    q, k, v = arrays()
    with jax.enable_x64(True):
        got = attention(q, k, v, Causal(), scale=3.0, cap=2.0)
    for b, t, h in np.ndindex(B, T, H):
        weights = np.exp(2 * np.tanh(3 * k[b, : t + 1, h] @ q[b, t, h] / 2))
        want = weights @ v[b, : t + 1, h] / weights.sum()
        np.testing.assert_allclose(got[b, t, h], want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", ["causal", "causal window", "window lengths"])
def test_attention_over_a_cache_goes_by_the_positions_that_are_given(rule):
    sees, conditions = RULES[rule]
    q, k, v = arrays(queries=2)
    query_BT, key_BS = np.asarray([[2, 3], [4, 5]]), np.asarray([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]])
    with jax.enable_x64(True):
        got = run(q, k, v, sees, query_BT=query_BT, key_BS=key_BS)

    def may_see(b, t, s):
        return all(condition(b, query_BT[b, t], key_BS[b, s]) for condition in conditions)

    np.testing.assert_allclose(got, slow_attention(q, k, v, may_see), rtol=0, atol=1e-12)


def test_what_is_not_seen_may_hold_anything():
    q, k, v = (x.astype(np.float32) for x in arrays())
    want = run(q, k, v, Lengths(np.asarray([4, 4])))
    k[:, 4:], v[:, 4:] = 1e30, -1e30
    np.testing.assert_array_equal(run(q, k, v, Lengths(np.asarray([4, 4]))), want)


def test_a_row_that_sees_nothing_gives_zeros():
    out = run(*arrays(), Causal() & Segments(SEGMENTS))
    np.testing.assert_array_equal(np.asarray(out)[SEGMENTS == 0], 0)
    assert np.all(np.asarray(out)[SEGMENTS != 0] != 0)


def test_a_row_that_sees_nothing_gives_finite_gradients_and_zero_ones_to_itself():
    def loss(q, k, v):
        return (attention(q, k, v, Causal() & Segments(SEGMENTS)) ** 2).sum()

    for gradient in map(np.asarray, jit(jax.grad(loss, argnums=(0, 1, 2)))(*arrays())):
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient[SEGMENTS == 0], 0)
        assert np.any(gradient[SEGMENTS != 0])


def test_scores_of_ten_thousand_do_not_overflow():
    q, k, v = (x.astype(np.float32) for x in arrays())
    out = np.asarray(run(1e3 * q, 1e3 * k, v, Causal()))
    assert np.isfinite(out).all()
    scores = np.einsum("BTHK,BSHK->BHTS", q, k)
    best = np.where(np.tri(T, dtype=bool), scores, -np.inf).argmax(-1)  # one score is far above the others
    want = np.take_along_axis(v.swapaxes(1, 2), best[..., None], axis=2).swapaxes(1, 2)
    np.testing.assert_allclose(out, want, rtol=1e-5)


def test_attention_keeps_bfloat16_and_rounds_about_once():
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in arrays())
    out = run(q, k, v, Causal())
    assert out.dtype == jnp.bfloat16
    want = slow_attention(*(np.asarray(x, np.float64) for x in (q, k, v)), causal)
    # Weights and result are rounded to 8 bits, the scaled query once: a few times 2^-9.
    assert np.abs(np.asarray(out, np.float64) - want).max() < 4 * 2**-8 * np.abs(want).max()


# --- dropout --------------------------------------------------------------------------------------


@functools.partial(jit, static_argnums=1)
def dropped(key, rate):
    """Weights [B, H, T, S] that are 1/S before dropout: equal scores, and values that tell them apart."""
    q = jnp.zeros((B, 8, H, 8))
    v = jnp.broadcast_to(jnp.eye(8)[None, :, None], (B, 8, H, 8))
    return attention(q, q, v, Window(99), dropout_rate=rate, dropout_key=key).swapaxes(1, 2)


def test_dropout_zeroes_attention_weights_and_scales_the_rest():
    weights = np.asarray(dropped(jax.random.key(0), 0.25))
    np.testing.assert_allclose(np.unique(weights.round(6)), [0, 1 / 8 / 0.75], atol=1e-6)
    # 512 weights, a quarter dropped: within four standard deviations.
    assert abs((weights == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / weights.size)


def test_dropout_of_attention_is_another_in_every_row_head_and_position():
    zero = np.asarray(dropped(jax.random.key(0), 0.5)) == 0
    patterns = {pattern.tobytes() for pattern in zero.reshape(-1, 8)}
    assert len(patterns) > 24  # of 32 rows with 256 patterns each, about 30 are different


def test_dropout_of_attention_without_a_key_is_none():
    np.testing.assert_allclose(dropped(None, 0.5), 1 / 8, rtol=1e-6)


# --- the rules themselves -------------------------------------------------------------------------


def drawn(sees, size=4):
    positions = np.arange(size)[None]
    mask_TS = np.broadcast_to(sees.mask_BTS(positions, positions)[0], (size, size))
    return ["".join("x" if seen else "." for seen in row) for row in mask_TS]


def test_the_pictures_of_the_docstring_are_true():
    assert drawn(Causal()) == ["x...", "xx..", "xxx.", "xxxx"]
    assert drawn(Causal() & Window(2)) == ["x...", "xx..", ".xx.", "..xx"]
    assert drawn(Segments(jnp.asarray([[1, 1, 2, 2]]))) == ["xx..", "xx..", "..xx", "..xx"]
    assert drawn(Window(2)) == ["xx..", "xxx.", ".xxx", "..xx"]
    assert drawn(Lengths(jnp.asarray([3]))) == ["xxx."] * 4
    assert drawn(Segments(jnp.asarray([[1, 2, 0, 0]]))) == ["x...", ".x..", "....", "...."]


@each_rule
def test_a_rule_passes_through_jit_as_an_argument(rule):
    sees, _ = RULES[rule]
    leaves, structure = jax.tree.flatten(sees)
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
    assert jax.tree.structure(jax.tree.unflatten(structure, leaves)) == structure
    positions = jnp.arange(T)[None]
    inside = jit(lambda sees: sees.mask_BTS(positions, positions))(sees)
    np.testing.assert_array_equal(inside, sees.mask_BTS(positions, positions))


def test_a_rule_with_other_arrays_is_the_same_program():
    mask = jit(lambda sees: sees.mask_BTS(jnp.arange(T)[None], jnp.arange(T)[None]))
    mask(Causal() & Segments(SEGMENTS))
    mask(Causal() & Segments(SEGMENTS[::-1].copy()))
    assert mask._cache_size() == 1
    mask(Causal() & Window(2))  # and the size of a window is part of the program
    mask(Causal() & Window(3))
    assert mask._cache_size() == 3
