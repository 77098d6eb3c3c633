"""From a row's features to one vector: first, last, mean, largest, or attention. Padding takes no part.

x_BTD      a b c . .      lengths_B 3
first      a              last of two directions: forward half of c, backward half of a, which are
last           c          the ends that either direction has reached
mean       (a + b + c) / 3
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.layers import Linear, normal, parameter

POOLINGS = ("first", "last", "mean", "max", "attention")


def first(x_BTD, lengths_B):
    """The first position, BERT's [CLS]; 0 of an empty row, as in all of these."""
    return jnp.where(lengths_B[:, None] > 0, x_BTD[:, 0], 0)


def last(x_BTD, lengths_B, *, num_directions: int):
    """What each direction knows at its end: the last position, and of a half that was read backward the
    first."""
    last_BD = jnp.take_along_axis(x_BTD, jnp.maximum(lengths_B - 1, 0)[:, None, None], axis=1)[:, 0]
    is_forward_D = jnp.arange(x_BTD.shape[-1]) < x_BTD.shape[-1] // num_directions
    return jnp.where(lengths_B[:, None] > 0, jnp.where(is_forward_D, last_BD, x_BTD[:, 0]), 0)


def mean(x_BTD, lengths_B):
    """The mean over a row's positions, summed in at least float32."""
    dtype = jnp.promote_types(x_BTD.dtype, jnp.float32)
    sum_BD = jnp.where(is_there(x_BTD, lengths_B)[..., None], x_BTD, 0).sum(1, dtype=dtype)
    return (sum_BD / jnp.maximum(lengths_B, 1)[:, None].astype(dtype)).astype(x_BTD.dtype)


def largest(x_BTD, lengths_B):
    """The largest value of every feature."""
    low = jnp.finfo(x_BTD.dtype).min
    max_BD = jnp.where(is_there(x_BTD, lengths_B)[..., None], x_BTD, low).max(1)
    return jnp.where(lengths_B[:, None] > 0, max_BD, 0)


class AdditiveAttention(nn.Module):
    """Weighted means of a row, one for every query (Bahdanau et al. 2014, arXiv 1409.0473):

        weights_BTS = softmax over s of  v . tanh(W x_s + U query_t + b)

    Without a query, the keys-only attention of Flax's SST-2 example, one mean for the row: T is 1. In `dims`,
    D is the width of x and of the queries, E that of the hidden layer.
    """

    dims: Mapping[str, int]

    @nn.compact
    def __call__(self, x_BSD, lengths_B, query_BTD=None):
        E = self.dims["E"]
        std = self.dims["D"] ** -0.5
        hidden_BTSE = Linear("BSD,DE->BSE", self.dims, std=std, bias=False, name="keys")(x_BSD)[:, None]
        if query_BTD is not None:
            hidden_BTSE += Linear("BTD,DE->BTE", self.dims, std=std, name="query")(query_BTD)[:, :, None]
        v_E = parameter(self, "v", "E", self.dims, normal(E**-0.5)).astype(x_BSD.dtype)
        dtype = jnp.promote_types(x_BSD.dtype, jnp.float32)
        scores_BTS = (jnp.tanh(hidden_BTSE) @ v_E).astype(dtype)
        there_B1S = is_there(x_BSD, lengths_B)[:, None]
        weights_BTS = jax.nn.softmax(jnp.where(there_B1S, scores_BTS, jnp.finfo(dtype).min), axis=-1)
        weights_BTS = jnp.where(there_B1S, weights_BTS, 0).astype(x_BSD.dtype)  # an empty row has none
        return jnp.einsum("BTS,BSD->BTD", weights_BTS, x_BSD)


def is_there(x_BTD, lengths_B):
    """Which positions are within their row's length, [B, T]."""
    return jnp.arange(x_BTD.shape[1]) < lengths_B[:, None]
