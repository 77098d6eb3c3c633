"""The linear-chain conditional random field: a distribution over whole rows of tags.

Lafferty et al. 2001 ("Conditional Random Fields", ICML); on top of a neural encoder as in Lample et al.
2016 (arXiv 1603.01360). A row of tags has a score, and its probability is exp(score) over the sum of that
of all C^T rows, the partition function, which the forward algorithm sums in T C^2 steps:

    score   =  start[y1] + e1[y1] + transitions[y1, y2] + e2[y2] + ... + eT[yT] + stop[yT]

    start ── y1 ── y2 ── y3 ── stop        potentials of edges: transitions [from, to]
             │     │     │
             e1    e2    e3                 potentials of nodes: emissions, from the encoder

Everything is exact, in log space and in at least float32. Rows have lengths: what stands behind a row's
length, emissions and tags, changes nothing. An empty row has one row of tags, the empty one, of score 0.

A potential of -inf forbids: its share and its gradient are zero. A row of which every row of tags is
forbidden has the partition function -inf, no marginals and no gradient. A forbidden row of tags as target
costs infinitely many nats and has no gradient either (of tags on their own, a forbidden tag has none).

What a tagger's readout gives is a value that knows its own loss and its best tags: a `Chain`, or, where
tags do not depend on each other, `PerToken`, which equals a chain whose transitions are all zero.
"""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PerToken:
    """Every tag on its own: a softmax per position."""

    emissions_BTC: jax.Array
    """Logits."""

    def nats(self, tags_BT, lengths_B):
        """Negative log-likelihood of each row's tags, [B]."""
        emissions_BTC, present_BT = at_least_float32(self.emissions_BTC), present(tags_BT, lengths_B)
        picked_BT = pick(emissions_BTC, tags_BT)
        return jnp.where(present_BT, surprise(log_sum(emissions_BTC, axis=-1), picked_BT), 0).sum(-1)

    def best(self, lengths_B):
        """The most probable tags [B, T], int32; 0 behind a row's length."""
        tags_BT = self.emissions_BTC.argmax(-1).astype(jnp.int32)
        return jnp.where(present(tags_BT, lengths_B), tags_BT, 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Chain:
    """Tags that depend on their neighbours: the potentials of a CRF."""

    emissions_BTC: jax.Array
    transitions_CC: jax.Array
    """From the tag of a row's index to the tag of a column's."""
    start_C: jax.Array
    """Of the first tag."""
    stop_C: jax.Array
    """Of the last."""

    def nats(self, tags_BT, lengths_B):
        """Negative log-likelihood of each row's tags, [B]."""
        return surprise(log_partition(self, lengths_B), score(self, tags_BT, lengths_B))

    def best(self, lengths_B):
        """The most probable tags [B, T], int32; 0 behind a row's length."""
        return viterbi(self, lengths_B)[0]


def score(chain: Chain, tags_BT, lengths_B):
    """The unnormalised log-probability of each row's tags, [B]."""
    chain, present_BT = jax.tree.map(at_least_float32, chain), present(tags_BT, lengths_B)
    nodes_B = jnp.where(present_BT, pick(chain.emissions_BTC, tags_BT), 0).sum(-1)
    edges_BT = chain.transitions_CC[tags_BT[:, :-1], tags_BT[:, 1:]]
    edges_B = jnp.where(present_BT[:, 1:], edges_BT, 0).sum(-1)
    last_B = jnp.take_along_axis(tags_BT, jnp.maximum(lengths_B - 1, 0)[:, None], axis=1)[:, 0]
    ends_B = chain.start_C[tags_BT[:, 0]] + chain.stop_C[last_B]
    return nodes_B + edges_B + jnp.where(lengths_B > 0, ends_B, 0)


def log_partition(chain: Chain, lengths_B):
    """log of the sum of exp(score) over all rows of tags, [B]: the forward algorithm.

    The backward pass keeps [T, B, C] and computes the [B, C, C] of a position again.
    """
    chain = jax.tree.map(at_least_float32, chain)

    @jax.checkpoint
    def step(alpha_BC, position):
        emission_BC, present_B1 = position
        paths_BCC = alpha_BC[:, :, None] + chain.transitions_CC
        return jnp.where(present_B1, log_sum(paths_BCC, axis=1) + emission_BC, alpha_BC), None

    first_BC, positions = positions_of(chain, lengths_B)
    alpha_BC, _ = jax.lax.scan(step, first_BC, positions)
    return jnp.where(lengths_B > 0, log_sum(alpha_BC + chain.stop_C, axis=-1), 0)


def log_sum(x, axis: int):
    """log of the sum of exp(x). Where all of x is -inf so is the sum, and its gradient zero, where that of
    jax.nn.logsumexp is not a number."""
    top = jax.lax.stop_gradient(x.max(axis, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0)
    total = jnp.exp(x - top).sum(axis)
    is_possible = total > 0
    return jnp.where(is_possible, jnp.log(jnp.where(is_possible, total, 1)) + top.squeeze(axis), -jnp.inf)


def surprise(log_total, log_share):
    """log_total - log_share, the nats of a share; infinite, without a gradient, where that is nothing."""
    return jnp.where(log_share > -jnp.inf, log_total - log_share, jnp.inf)


def marginals(chain: Chain, lengths_B):
    """The probability of each tag at each position, [B, T, C]; 0 behind a row's length.

    They are the gradient of log_partition by the emissions: the backward pass of autodiff is the
    backward algorithm.
    """

    def total(emissions_BTC):
        return log_partition(dataclasses.replace(chain, emissions_BTC=emissions_BTC), lengths_B).sum()

    return jax.grad(total)(at_least_float32(chain.emissions_BTC))


def viterbi(chain: Chain, lengths_B):
    """(tags_BT, score_B): the best row of tags and its score; among equals the lower tag, from the end.

    Behind a row's length the tags are 0, and in a row of which every row of tags is forbidden.
    """
    chain = jax.tree.map(at_least_float32, chain)
    stay_BC = jnp.broadcast_to(jnp.arange(chain.start_C.size), chain.emissions_BTC[:, 0].shape)

    def forward(best_BC, position):
        emission_BC, present_B1 = position
        paths_BCC = best_BC[:, :, None] + chain.transitions_CC
        came_from_BC = jnp.where(present_B1, paths_BCC.argmax(1), stay_BC)
        return jnp.where(present_B1, paths_BCC.max(1) + emission_BC, best_BC), came_from_BC

    first_BC, positions = positions_of(chain, lengths_B)
    best_BC, came_from_TBC = jax.lax.scan(forward, first_BC, positions)
    best_BC = best_BC + chain.stop_C
    last_B = best_BC.argmax(-1)

    def backward(tag_B, came_from_BC):
        before_B = jnp.take_along_axis(came_from_BC, tag_B[:, None], axis=1)[:, 0]
        return before_B, tag_B

    first_B, later_TB = jax.lax.scan(backward, last_B, came_from_TBC, reverse=True)
    tags_BT = jnp.concatenate([first_B[None], later_TB]).T.astype(jnp.int32)
    score_B = jnp.where(lengths_B > 0, best_BC.max(-1), 0)
    is_there_BT = present(tags_BT, lengths_B) & (score_B > -jnp.inf)[:, None]
    return jnp.where(is_there_BT, tags_BT, 0), score_B


def positions_of(chain: Chain, lengths_B):
    """What a scan over a row starts from and what it reads: the first position with its start, then
    (emissions, whether the position is there) of the others, time first."""
    emissions_TBC = chain.emissions_BTC.swapaxes(0, 1)
    present_TB1 = present(chain.emissions_BTC, lengths_B).T[:, :, None]
    return chain.start_C + emissions_TBC[0], (emissions_TBC[1:], present_TB1[1:])


def present(x_BT, lengths_B):
    """Which positions of rows [B, T, ...] are there, [B, T]."""
    return jnp.arange(x_BT.shape[1]) < lengths_B[:, None]


def pick(emissions_BTC, tags_BT):
    """The emission of each position's tag."""
    return jnp.take_along_axis(emissions_BTC, tags_BT[..., None], axis=-1)[..., 0]


def at_least_float32(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
