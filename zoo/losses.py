"""What a task minimises, as sums over positions: a mean is taken once, over all micro-batches and shards.

Logits of a whole batch are the largest array of a small model's step: GPT-2's 50,304 words for 8,192
positions are 1.6 GB, and their gradient as much again. `summed` never holds them: positions are read out
chunk by chunk, and each chunk's gradient is taken while its logits are there, so that the backward pass has
nothing to compute again:

    for each chunk of positions:     logits = readout(x)      sums += ...      dx, dtable += gradient
    backward:                        dx, dtable times the gradient of the loss, a number

On a mesh a device reads the positions that it holds, and what it adds up for the table crosses devices once.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from zoo.sharding import Copies, is_copies, on_each_part, spread

CHUNK_BYTES = 256 << 20
"""Logits that a device holds at a time. Below twice the model's width in positions, what is added to the
table's gradient costs more than the logits do."""


def cross_entropy(logits_BTV, targets_BT, weights_BT):
    """(nats, weight): the summed negative log-likelihood of the targets, and how many of them counted.

    Positions of weight 0 (padding, unmasked tokens) do not count, whatever their target says, -100
    included. Computed in at least float32.
    """
    logits_BTV = logits_BTV.astype(jnp.promote_types(logits_BTV.dtype, jnp.float32))
    targets_BT = jnp.where(weights_BT > 0, targets_BT, 0)
    # Comparing with every word keeps the vocabulary sharded, where an index would gather it.
    is_target_BTV = jnp.arange(logits_BTV.shape[-1]) == targets_BT[..., None]
    picked_BT = jnp.where(is_target_BTV, logits_BTV, 0).sum(-1)
    nats_BT = jax.nn.logsumexp(logits_BTV, axis=-1) - picked_BT
    weights_BT = weights_BT.astype(nats_BT.dtype)
    return (nats_BT * weights_BT).sum(), weights_BT.sum()


def drift(logits_BTV, weights_BT):
    """The squared logarithm of the softmax's denominator, summed as `cross_entropy` is: a little of it in the
    loss keeps logits from drifting (z-loss; PaLM, arXiv 2204.02311, section 5)."""
    logits_BTV = logits_BTV.astype(jnp.promote_types(logits_BTV.dtype, jnp.float32))
    return (jnp.square(jax.nn.logsumexp(logits_BTV, axis=-1)) * weights_BT).sum()


def summed(sums, readout, x_BTD, *rows):
    """`sums(readout(x_BTD), *rows)`, without ever holding all of `readout(x_BTD)`.

    `sums` makes a dict of sums over positions, "loss" among them, of logits [..., V] and of what `rows` (each
    [B, T, ...]) says of these positions; it is called with any part of them, and with zeros for `rows` where
    there is no position. `readout` is a jax.tree_util.Partial of a function and its parameters. The gradient
    is that of "loss", by `x_BTD` and by the parameters; the other sums have none.
    """
    B, T = x_BTD.shape[:2]
    position = jax.ShapeDtypeStruct((1, *x_BTD.shape[2:]), x_BTD.dtype)
    logits = jax.tree.leaves(jax.eval_shape(readout, position))
    words = max(logits, key=lambda leaf: leaf.size).shape[-1]
    size = B * T * sum(leaf.size * leaf.dtype.itemsize for leaf in logits)
    chunks = max(1, math.ceil(size / spread("BTV", (B, T, words)) / CHUNK_BYTES))
    if chunks == spread("BTV", (B, T, words)) == 1:
        return sums(readout(x_BTD), *rows)
    if not isinstance(readout, Partial):
        raise TypeError("readout must be a jax.tree_util.Partial of a function and its parameters")
    return _summed(sums, chunks, words, readout, x_BTD, rows)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _summed(sums, chunks, words, readout, x_BTD, rows):
    def part(readout, x_BTD, *rows):
        def add(total, chunk):
            x_RD, *rows = chunk
            return jax.tree.map(jnp.add, total, sums(readout(x_RD), *rows)), None

        given = chunked((x_BTD, *rows), chunks)
        x_RD, *first = jax.tree.map(lambda x: x[0], given)
        total, _ = jax.lax.scan(add, zeros(lambda: sums(readout(x_RD), *first)), given)
        return total, ()

    return on_each_part(part, words, readout, x_BTD, *rows)[0]


def _forward(sums, chunks, words, readout, x_BTD, rows):
    perturbed = [leaf.perturbed for leaf in jax.tree.leaves(readout)]
    readout, x_BTD, rows = jax.tree.map(lambda leaf: leaf.value, (readout, x_BTD, rows))
    values, tree = jax.tree.flatten(readout, is_leaf=is_copies)
    read = is_read(readout, x_BTD)
    learns = [learned and looked_at for learned, looked_at in zip(perturbed, read, strict=True)]
    kept = [value if not learned else None for value, learned in zip(values, learns, strict=True)]
    learned = [value for value, learned in zip(values, learns, strict=True) if learned]

    def part(params, x_BTD, *rows):
        learned, kept = params

        def loss(learned, x_RD, rows):
            more = iter(learned)
            leaves = [next(more) if value is None else value for value in kept]
            total = sums(jax.tree.unflatten(tree, leaves)(x_RD), *rows)
            return total["loss"], total

        gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)

        def add(total, chunk):
            x_RD, *rows = chunk
            (d_learned, dx_RD), found = gradient(learned, x_RD, rows)
            return jax.tree.map(jnp.add, total, (d_learned, found)), dx_RD

        given = chunked((x_BTD, *rows), chunks)
        x_RD, *first = jax.tree.map(lambda x: x[0], given)
        start = zeros(lambda: (jax.tree.map(wide, learned), loss(learned, x_RD, first)[1]))
        total, dx_CRD = jax.lax.scan(add, start, given)
        return total, joined(dx_CRD, x_BTD.shape)

    (d_learned, total), dx_BTD = on_each_part(part, words, (learned, kept), x_BTD, *rows)
    more = iter(jax.tree.map(lambda d, value: d.astype(value.dtype), d_learned, learned))
    d_readout = jax.tree.unflatten(tree, [next(more) if value is None else None for value in kept])
    return total, (d_readout, dx_BTD)


def _backward(sums, chunks, words, gradients, d_total):
    d_loss = d_total["loss"]
    d_readout, dx_BTD = jax.tree.map(lambda d: d * d_loss.astype(d.dtype), gradients)
    return d_readout, dx_BTD, None


_summed.defvjp(_forward, _backward, symbolic_zeros=True)


def is_read(readout, x_BTD) -> list[bool]:
    """Which of the parameters that a readout is given it looks at, on a part of the positions."""
    of_part = jax.tree.map(lambda x: Copies(x.value[:1]) if is_copies(x) else x, readout, is_leaf=is_copies)
    leaves, tree = jax.tree.flatten(of_part)
    x = jnp.zeros((1, *x_BTD.shape[2:]), x_BTD.dtype)
    jaxpr = jax.make_jaxpr(lambda leaves: jax.tree.unflatten(tree, leaves)(x))(leaves).jaxpr
    read = {id(variable) for equation in jaxpr.eqns for variable in equation.invars}
    return [id(variable) in read for variable in jaxpr.invars]


def wide(x):
    """In at least float32: many small numbers are added up."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def zeros(f):
    """Zeros like what `f()` would return."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(f))


def chunked(rows, chunks: int):
    """Arrays [B, T, ...] as equal chunks [C, R, ...] of their positions, with zeros behind the last."""

    def cut(x_BT):
        positions = x_BT.shape[0] * x_BT.shape[1]
        size = math.ceil(positions / chunks)
        x_R = x_BT.reshape(positions, *x_BT.shape[2:])
        x_R = jnp.pad(x_R, [(0, chunks * size - positions)] + [(0, 0)] * (x_R.ndim - 1))
        return x_R.reshape(chunks, size, *x_R.shape[1:])

    return jax.tree.map(cut, rows)


def joined(x_CR, shape):
    """The inverse of `chunked`, for one array of `shape`."""
    return x_CR.reshape(-1, *shape[2:])[: shape[0] * shape[1]].reshape(shape)
