"""The linear-chain CRF against the sum over all C^T rows of tags, written out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit

from zoo import crf
from zoo.crf import Chain, PerToken

log_partition, marginals, score, viterbi = map(
    jit, (crf.log_partition, crf.marginals, crf.score, crf.viterbi)
)
T, C = 4, 3
LENGTHS = np.asarray([4, 1, 3, 2, 0], np.int32)
B = len(LENGTHS)
THERE = np.arange(T) < LENGTHS[:, None]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def chain_of(seed=0, scale=2.0, dtype=np.float64):
    random = np.random.default_rng(seed)
    shapes = ((B, T, C), (C, C), (C,), (C,))
    return Chain(*((scale * random.standard_normal(shape)).astype(dtype) for shape in shapes))


def tags_of(seed=1):
    return np.random.default_rng(seed).integers(0, C, (B, T)).astype(np.int32)


def with_emissions(value, emissions):
    return (
        PerToken(emissions) if isinstance(value, PerToken) else Chain(emissions, *jax.tree.leaves(value)[1:])
    )


both_kinds = pytest.mark.parametrize("value", [chain_of(), PerToken(chain_of().emissions_BTC)], ids=type)


@jit
def nats_best_gradient(value, tags, lengths):
    def total(value):
        return value.nats(tags, lengths).sum()

    return value.nats(tags, lengths), value.best(lengths), jax.grad(total)(value)


def nats(value, tags=None, lengths=LENGTHS):
    return np.asarray(nats_best_gradient(value, tags_of() if tags is None else tags, lengths)[0])


def assert_close(got, want):
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=0, atol=1e-9), got, want)


# --- the sum written out --------------------------------------------------------------------------


def all_rows(length):
    """Every row of tags, [C^length, length]; row i holds the digits of i in base C."""
    rows = list(itertools.product(range(C), repeat=length))
    return np.asarray(rows, np.int32).reshape(len(rows), length)


def place_of(tags):
    return int("".join(map(str, tags)) or "0", C)


def scores_of_all(chain, row, length):
    """The score of every row of tags for one row of emissions."""
    tags = all_rows(length)
    if length == 0:
        return np.zeros(len(tags))
    nodes = sum(chain.emissions_BTC[row, t, tags[:, t]] for t in range(length))
    edges = sum(chain.transitions_CC[tags[:, t - 1], tags[:, t]] for t in range(1, length))
    return chain.start_C[tags[:, 0]] + nodes + edges + chain.stop_C[tags[:, -1]]


def each_row(function):
    """`function(row, length)` of every row, stacked."""
    return [function(b, n) for b, n in enumerate(LENGTHS.tolist())]


def test_the_partition_function_is_the_sum_over_all_rows_of_tags():
    chain = chain_of()
    want = each_row(lambda b, n: np.logaddexp.reduce(scores_of_all(chain, b, n)))
    assert_close(log_partition(chain, LENGTHS), np.stack(want))


def test_the_score_is_that_of_the_row_among_all():
    chain, tags = chain_of(), tags_of()
    want = each_row(lambda b, n: scores_of_all(chain, b, n)[place_of(tags[b, :n])])
    assert_close(score(chain, tags, LENGTHS), np.stack(want))


def test_gradients_equal_those_of_the_sum_written_out():
    tags, weights = tags_of(), np.arange(1.0, B + 1)

    def fast(chain):
        return (weights * chain.nats(tags, LENGTHS)).sum()

    def slow(chain):
        def nats(b, n):
            scores = jnp.asarray(scores_of_all(chain, b, n))
            return weights[b] * (jax.nn.logsumexp(scores) - scores[place_of(tags[b, :n])])

        return sum(each_row(nats))

    got, want = jit(jax.grad(fast))(chain_of()), jit(jax.grad(slow))(jax.tree.map(jnp.asarray, chain_of()))
    assert_close(got, want)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(got))


def test_marginals_are_the_shares_of_the_rows_that_have_the_tag():
    got = np.asarray(marginals(chain_of(), LENGTHS))
    for b, n in enumerate(LENGTHS.tolist()):
        scores = scores_of_all(chain_of(), b, n)
        shares = np.exp(scores - np.logaddexp.reduce(scores))
        for t, tag in itertools.product(range(n), range(C)):
            assert_close(got[b, t, tag], shares[all_rows(n)[:, t] == tag].sum())
        np.testing.assert_array_equal(got[b, n:], 0)


@pytest.mark.parametrize("seed", range(5))
def test_viterbi_finds_the_best_of_all_rows_of_tags(seed):
    chain = chain_of(seed)
    tags, best = viterbi(chain, LENGTHS)
    assert tags.dtype == jnp.int32 and tags.shape == (B, T)
    for b, n in enumerate(LENGTHS.tolist()):
        scores = scores_of_all(chain, b, n)
        np.testing.assert_array_equal(tags[b, :n], all_rows(n)[scores.argmax()])
        np.testing.assert_array_equal(tags[b, n:], 0)
        assert_close(best[b], scores.max())


# --- what a chain is ------------------------------------------------------------------------------


def two_tags(emissions, transitions, stop=(0.0, 0.0)):
    return Chain(*(np.asarray(x, np.float64) for x in ([emissions], transitions, (0.0, 0.0), stop)))


def test_the_best_tags_of_a_chain_are_not_each_positions_best():
    # At both positions the second tag is likelier, but it hardly ever follows itself.
    chain = two_tags([[0.0, 1.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, -9.0]], stop=(0.0, 0.5))
    np.testing.assert_array_equal(viterbi(chain, np.asarray([2]))[0], [[0, 1]])
    np.testing.assert_array_equal(PerToken(chain.emissions_BTC).best(np.asarray([2])), [[1, 1]])


def test_transitions_lead_from_their_row_to_their_column():
    chain = two_tags([[0.0, 0.0], [0.0, 0.0]], [[0.0, 5.0], [0.0, 0.0]])
    np.testing.assert_array_equal(viterbi(chain, np.asarray([2]))[0], [[0, 1]])


def test_a_forbidden_transition_is_never_taken():
    transitions = np.full((C, C), -1e9)
    transitions[range(C), np.roll(range(C), -1)] = 0.0
    chain = Chain(chain_of().emissions_BTC, transitions, np.zeros(C), np.zeros(C))
    for tags, n in zip(np.asarray(viterbi(chain, LENGTHS)[0]), LENGTHS.tolist(), strict=True):
        np.testing.assert_array_equal(tags[1:n], (tags[: max(n - 1, 0)] + 1) % C)


def forbidding(seed):
    """A chain in which some of everything is forbidden: of row 2 all tags at position 1."""
    chain, random = chain_of(seed), np.random.default_rng(seed)
    chain = jax.tree.map(lambda x: np.where(random.random(x.shape) < 0.3, -np.inf, x), chain)
    chain.emissions_BTC[2, 1] = -np.inf
    return chain


@pytest.mark.parametrize("seed", range(4))
def test_what_is_forbidden_has_no_share_and_no_gradient(seed):
    """Sums and gradients are those of the rows that are left, written out; without any, -inf and zero."""
    chain = forbidding(seed)
    want = jax.tree.map(np.zeros_like, chain)
    total = np.empty(B)
    for b, n in enumerate(LENGTHS.tolist()):
        rows, scores = all_rows(n), scores_of_all(chain, b, n)
        total[b] = np.logaddexp.reduce(scores)
        shares = np.exp(scores - total[b]) if total[b] > -np.inf else np.zeros(len(rows))
        for tags, share in zip(rows, shares, strict=True):
            if n:
                np.add.at(want.emissions_BTC[b], (range(n), tags), share)
                np.add.at(want.transitions_CC, (tags[:-1], tags[1:]), share)
                want.start_C[tags[0]] += share
                want.stop_C[tags[-1]] += share
    assert total[2] == -np.inf and np.isfinite(total).sum() >= 2
    assert_close(log_partition(chain, LENGTHS), total)
    got = jit(jax.grad(lambda chain: crf.log_partition(chain, LENGTHS).sum()))(chain)
    assert_close(got, want)
    assert_close(marginals(chain, LENGTHS), want.emissions_BTC)
    tags, best = viterbi(chain, LENGTHS)
    for b, n in enumerate(LENGTHS.tolist()):
        scores = scores_of_all(chain, b, n)
        assert_close(best[b], scores.max())
        np.testing.assert_array_equal(tags[b, :n], all_rows(n)[scores.argmax()])


@pytest.mark.parametrize("kind", [Chain, PerToken])
def test_forbidden_tags_cost_infinitely_much_and_teach_nothing(kind):
    chain, tags = forbidding(1), tags_of()
    value = chain if kind is Chain else PerToken(chain.emissions_BTC)
    if kind is PerToken:
        chain = Chain(chain.emissions_BTC, *map(np.zeros_like, jax.tree.leaves(chain)[1:]))
    scores = np.stack(each_row(lambda b, n: scores_of_all(chain, b, n)[place_of(tags[b, :n])]))
    is_possible = np.isfinite(scores)
    assert 2 <= is_possible.sum() < B
    got, _, gradient = nats_best_gradient(value, tags, LENGTHS)
    total = np.stack(each_row(lambda b, n: np.logaddexp.reduce(scores_of_all(chain, b, n))))
    assert_close(got[is_possible], total[is_possible] - scores[is_possible])
    assert np.all(np.asarray(got)[~is_possible] == np.inf)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    is_forbidden_BT = np.take_along_axis(chain.emissions_BTC, tags[..., None], -1)[..., 0] == -np.inf
    without = ~is_possible if kind is Chain else is_forbidden_BT  # tags on their own are so in this too
    np.testing.assert_array_equal(gradient.emissions_BTC[without], 0)


def test_a_chain_without_transitions_is_a_softmax_per_token():
    chain, tags = chain_of(), tags_of()
    chain = Chain(chain.emissions_BTC, *map(np.zeros_like, jax.tree.leaves(chain)[1:]))
    logp = chain.emissions_BTC - np.logaddexp.reduce(chain.emissions_BTC, axis=-1, keepdims=True)
    picked = np.where(THERE, np.take_along_axis(logp, tags[..., None], -1)[..., 0], 0)
    best = np.where(THERE, logp.argmax(-1), 0)
    for value in (chain, PerToken(chain.emissions_BTC)):
        assert_close(nats(value), -picked.sum(-1))
        np.testing.assert_array_equal(nats_best_gradient(value, tags, LENGTHS)[1], best)
    assert_close(marginals(chain, LENGTHS), np.where(THERE[..., None], np.exp(logp), 0))


# --- rows and lengths -----------------------------------------------------------------------------


@both_kinds
def test_what_stands_behind_a_rows_length_changes_nothing(value):
    tags, emissions = tags_of(), value.emissions_BTC
    plain = nats_best_gradient(value, tags, LENGTHS)
    loud = with_emissions(value, np.where(THERE[..., None], emissions, 1e4))
    other = nats_best_gradient(loud, np.where(THERE, tags, -100).astype(np.int32), LENGTHS)
    jax.tree.map(np.testing.assert_array_equal, plain, other)


@both_kinds
def test_a_wider_batch_changes_nothing(value):
    tags, emissions = tags_of(), value.emissions_BTC
    plain = nats_best_gradient(value, tags, LENGTHS)
    wide = with_emissions(value, np.pad(emissions, ((0, 0), (0, 3), (0, 0))))
    other = nats_best_gradient(wide, np.pad(tags, ((0, 0), (0, 3))), LENGTHS)
    assert_close(other[0], plain[0])
    np.testing.assert_array_equal(other[1], np.pad(plain[1], ((0, 0), (0, 3))))


@both_kinds
def test_an_empty_row_costs_nothing_and_teaches_nothing(value):
    none = np.zeros(B, np.int32)
    jax.tree.map(
        lambda leaf: np.testing.assert_array_equal(leaf, 0), nats_best_gradient(value, tags_of(), none)
    )
    np.testing.assert_array_equal(viterbi(chain_of(), none)[1], 0)


@both_kinds
def test_rows_do_not_see_each_other(value):
    changed = value.emissions_BTC.copy()
    changed[1] = np.random.default_rng(9).standard_normal((T, C))
    before, after = nats(value), nats(with_emissions(value, changed))
    np.testing.assert_array_equal(before[[0, 2, 3]], after[[0, 2, 3]])
    assert before[1] != after[1]


# --- dtypes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Chain, PerToken])
def test_bfloat16_potentials_are_summed_in_float32(kind):
    chain = chain_of(dtype=jnp.bfloat16)
    value = chain if kind is Chain else PerToken(chain.emissions_BTC)
    got = nats(value)
    assert got.dtype == np.float32
    exact = nats(jax.tree.map(lambda x: x.astype(np.float64), value))
    np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-5)  # bfloat16 would be off by 1 %


def test_huge_potentials_do_not_overflow():
    results = nats_best_gradient(chain_of(scale=3e4, dtype=np.float32), tags_of(), LENGTHS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results))
