"""What a task minimises, as sums over positions: a mean is taken once, over all micro-batches and shards."""

import jax
import jax.numpy as jnp


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
