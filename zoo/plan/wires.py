"""What a step should send, in closed form. P parameters that an axis of n devices shares out, b bytes each
(ring; arXiv 1910.02054, 1909.08053):

    data      all-reduce of gradients                                  2 (n - 1) / n  P b
    fsdp      gathered forward and backward, gradients scattered       3 (n - 1) / n  P b
    tensor    activations gathered before and scattered behind each
              of a layer's 2 halves, each way, and gathered once
              more for its weights' gradients (arXiv 2205.05198)      10 (n - 1) / n  N rows T D b

A table of words is gathered once (zoo/models/copies.py): 2 in place of fsdp's 3. data stands for every axis
that splits rows or positions and not the parameter, fsdp for every one that splits both. On a pipeline's
stage a layer is gathered, and its gradient scattered, at every tick. Experts stay where they are. The rows
that stages, experts and attention over spread positions exchange are not in the closed form.
"""

import math

from zoo.micro_batches import pipeline_of
from zoo.models.copies import word_tables
from zoo.plan.expected import innermost, ways, width_of
from zoo.sharding import RULES, placement
from zoo.tree import named_leaves


def wire_bytes(parts, config, batch, mesh) -> dict[str, float]:
    """Bytes that each device sends in a step, by mesh axis."""
    width = width_of(config)
    axes = [axis for axis in (*RULES["B"], *RULES["T"]) if axis != "tensor"]
    splitting = {axis: mesh.shape[axis] for axis in axes if mesh.shape.get(axis, 1) > 1}
    found = dict.fromkeys(splitting, 0.0)
    A, once = parts.accumulate, word_tables(parts.model)
    stages, micro = pipeline_of(len(batch["inputs"]["tokens"]) // A, mesh)
    for name, spec in named_leaves(parts.model.abstract()).items():
        is_trained = name not in parts.frozen
        axes = [axis for part in placement(spec.letters, spec.shape, mesh) if part for axis in as_tuple(part)]
        held = math.prod(spec.shape) / math.prod(mesh.shape[axis] for axis in axes)
        for axis, n in splitting.items():
            if axis in axes and axis != "expert":
                gathers = 1 if name in once else 2
                ticks = micro + stages - 1 if stages > 1 and spec.letters[0] == "N" else 1
                found[axis] += A * ticks * (gathers + is_trained) * (n - 1) * held * width
            elif is_trained and axis not in axes:
                found[axis] += A * 2 * (n - 1) / n * held * width
    n = mesh.shape.get("tensor", 1)
    if n > 1:
        inner = innermost(config)
        x = math.prod(batch["inputs"]["tokens"].shape) / ways(mesh) * inner.dims["D"] * width
        moves = 12 if getattr(inner, "remat", "none") == "full" else 10
        found["tensor"] = moves * inner.num_layers * x * (n - 1) / n
    return found


def as_tuple(part) -> tuple[str, ...]:
    return part if isinstance(part, tuple) else (part,)
