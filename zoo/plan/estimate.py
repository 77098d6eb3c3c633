"""A whole step in closed form, without a compiler: memory, arithmetic, traffic, wires, and the time of all.

Nobody has measured how these numbers overlap, so the time is two bounds as for a compiled step (roofline.py):
at best everything runs at once, at worst one after the other.
"""

from dataclasses import dataclass

from zoo.plan import expected
from zoo.plan.expected import Held, Memory, innermost
from zoo.plan.roofline import Roofline
from zoo.plan.wires import wire_bytes

# How often a step writes or reads what the layers' forward pass leaves for the backward pass, and the logits:
# between 4 and 6 times in the compiled steps of benchmarks/README.md.
PASSES = 5


@dataclass(frozen=True)
class Estimate:
    """Bytes, FLOPs and seconds are of one chip and step."""

    memory: Memory
    flops: float
    """With what the backward pass computes again."""
    traffic: float
    """Bytes between the chip and its memory."""
    wires: dict[str, float]
    """Bytes that a chip sends along each mesh axis."""
    bandwidths: dict[str, float]
    time: Roofline


def estimate(parts, recipe, batch, mesh, place, known: Held) -> Estimate:
    """Of a recipe's step on a mesh of `place`, a Slice or a Cluster; `known` is what its mesh decides."""
    config, chip = recipe.model, place.chip
    tokens = recipe.data.batch_size * recipe.data.length / mesh.size
    flops = flops_per_token(config, recipe.data.length) * tokens
    traffic = memory_traffic(parts, config, batch, mesh, known)
    wires, bandwidths = wire_bytes(parts, config, batch, mesh), place.bandwidths(mesh)
    on_wires = sum(size / bandwidths[axis] for axis, size in wires.items())
    return Estimate(
        memory=expected.memory(parts, config, batch, mesh, known),
        flops=flops,
        traffic=traffic,
        wires=wires,
        bandwidths=bandwidths,
        time=Roofline(flops / chip.flops, traffic / chip.hbm_bandwidth, 0.0, on_wires),
    )


def memory_traffic(parts, config, batch, mesh, known: Held) -> float:
    """Bytes between a chip and its memory: activations PASSES times; each layer's weights written as gathered
    and read, forward, backward, and where the layers are computed again; state and gradients read and
    written once."""
    remat = getattr(innermost(config), "remat", "none")
    activations = expected.everything(parts, config, batch, mesh) + expected.logits(parts, batch, mesh)
    weights = 2 * (3 if remat == "full" else 2) * known.layer * expected.layers_of(config)
    return PASSES * activations + parts.accumulate * weights + 2 * (known.arguments + known.gradients)


def flops_per_token(config, length: int) -> float:
    """The model's, and those of what is recomputed: of "dots" the scores and their mixing, a third of theirs;
    of "full" the layers' forward pass, a third of theirs, less their last matmul, 4 D D of 12 D D, whose
    product nobody reads."""
    inner, full = innermost(config), config.flops_per_token(length).full
    remat = getattr(inner, "remat", "none")
    if remat == "full":
        return full + inner.flops_of_features(length).full / 3 * 2 / 3
    if remat == "dots":
        return full + (full - config.flops_per_token(1).full) / 3  # of one position there are next to none
    return full
