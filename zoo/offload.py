"""Optimizer state in the host's memory: between two updates it takes up none of a device's.

    device   params ─ forward ─ backward ─ gradients ─ update ─ params
    host     moments ─────────────────────────────────┘      └─ moments

ZeRO-Offload (Ren et al. 2021, arXiv 2101.06840), but with the update on the device, so that numbers are the
same to the bit. The state is fetched once the gradients are there, never beside activations, and put back
after the update. The price is its bytes twice over the wire between host and device, each step.

What a step needs at most is the larger of two: activations, or the update with all of the optimizer's state.
So this helps where activations are the larger, and not where the update is.
"""

import dataclasses

import jax

from zoo import sharding

PARTS = ("optimizer",)


def places(specs, mesh, offload: tuple[str, ...]):
    """Where the arrays of a train state with these ParamSpecs lie between steps.

    Raises ConfigError for a device without memory of the host that it can address.
    """
    placed = sharding.shardings(specs, mesh)
    if "optimizer" not in offload:
        return placed
    return dataclasses.replace(
        placed, opt_state=sharding.in_host_memory(placed.opt_state, specs.opt_state, mesh)
    )


def fetched(opt_state, gradients):
    """(optimizer state on the device, gradients): no copy begins before all gradients are computed."""
    opt_state, gradients = jax.lax.optimization_barrier((opt_state, gradients))
    return on_device(opt_state), gradients


def on_device(tree):
    """Arrays of a compiled program, wherever they lay, in the device's memory."""
    return jax.device_put(tree, jax.memory.Space.Device)
