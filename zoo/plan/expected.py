"""What a step should need and move, in closed form: seconds instead of the compiler's minute.

Memory. Arguments are exact: shapes divided by placements. Temporary memory is what the backward pass waits
for (the residuals that JAX's own differentiation names, without any compiling), weights in the
activations' dtype, and the larger of two peaks: the logits with the gathered table, or the insides of one
layer with the gradients. How far that is from the compiler's own sum stands in benchmarks/README.md: within
11 % on most rows, 20 % too little for 175B parameters.

Bytes on the wire, P parameters that an axis of n devices shares out, b bytes each (ring; arXiv 1910.02054,
1909.08053):

    data      all-reduce of gradients                                  2 (n - 1) / n  P b
    fsdp      gathered forward and backward, gradients scattered       3 (n - 1) / n  P b
    tensor    2 all-reduces of activations a layer, each way           8 (n - 1) / n  N rows T D b
"""

import dataclasses
import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from zoo.checkpoint import named_leaves
from zoo.optim.finetune import without
from zoo.plan.abstract import bytes_per_device, offloaded_bytes
from zoo.sharding import RULES, placement

# What the backward pass of one layer holds at a time, over what its forward pass leaves it, by what is
# recomputed. Fitted to the compiled steps of benchmarks/README.md; why "dots" needs more was not found.
INSIDE = {"full": 1.7, "dots": 2.65, "none": 2.65}


@dataclass(frozen=True)
class Memory:
    """Bytes per device."""

    arguments: int
    """State and batch; the new state takes the old one's place."""
    temporary: int
    host: int = 0
    """Of its host's memory, for what is offloaded between steps."""

    @property
    def total(self) -> int:
        return self.arguments + self.temporary


def memory(parts, config, state, batch, mesh) -> Memory:
    """Of one step; `config` is the model's configuration."""
    arguments = bytes_per_device((state, batch))
    width = np.dtype(jnp.dtype(config.dtype)).itemsize
    specs = named_leaves(parts.model.abstract())
    sharded = bytes_per_device(state.params)
    trained = bytes_per_device(without(state.params, parts.frozen))
    wide = 1 if parts.param_dtype == "float32" else 2  # gradients are added up in float32
    gradients = trained * (1 + wide if parts.accumulate > 1 else 1)
    cast = sharded * width / 4 if width < 4 and wide == 1 else 0

    ways = math.prod(mesh.shape[axis] for axis in RULES["B"])
    stack = kept(parts.model, batch, parts, mesh)
    layers = max(getattr(innermost(config), "num_layers", 1), 1)
    plain = remat_none(config)
    inside = stack if plain == config else kept(type_of(parts.model, plain), batch, parts, mesh)
    times = INSIDE.get(getattr(innermost(config), "remat", "none"), INSIDE["full"])
    layer = times * inside / layers + gathered_layer(specs, layers, width, mesh)
    rows = positions_read(batch) / parts.accumulate / ways
    head = 0.0
    for name, spec in specs.items():
        if name.endswith("table") and spec.letters[0] == "V":
            V, D = spec.shape[0] / mesh.shape["tensor"], spec.shape[1]
            head = max(head, rows * V * 4 + V * D * (width + 2 * 4))
    activations = stack + cast + max(head, layer + gradients)
    offloaded = offloaded_bytes(state.opt_state)
    update = gradients + offloaded if offloaded else 0
    return Memory(arguments, int(max(activations, update)), offloaded)


def positions_read(batch) -> int:
    """Positions whose logits are computed: the picked ones, or all."""
    return math.prod(batch["targets"].shape)


def innermost(config):
    while hasattr(config, "encoder"):
        config = config.encoder
    return config


def remat_none(config):
    """The configuration that recomputes nothing."""
    if hasattr(config, "encoder"):
        return dataclasses.replace(config, encoder=remat_none(config.encoder))
    return dataclasses.replace(config, remat="none") if hasattr(config, "remat") else config


def type_of(model, config):
    from zoo import models

    return dataclasses.replace(models.create(config), lora=model.lora)


def kept(model, batch, parts, mesh) -> float:
    """Bytes per device that the forward pass of one micro-batch leaves for the backward pass, without logits
    and without the parameters themselves."""
    specs = model.abstract()
    params = jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), specs)
    rows = lambda x: jax.ShapeDtypeStruct((x.shape[0] // parts.accumulate, *x.shape[1:]), x.dtype)  # noqa: E731
    micro = jax.tree.map(rows, batch)
    carried = parts.carried_rows // parts.accumulate

    def residuals(params, micro):
        def loss(params):
            state = model.initial_state(carried, 0) if carried else None
            key = jax.random.key(0)
            x, _ = model.features(params, micro["inputs"], state=state, train=True, rngs={"dropout": key})
            readout = functools.partial(model.readout_stored, params)
            return parts.task.loss(x, readout, micro)["loss"]

        return jax.vjp(loss, params)[1]

    found = [x for x in jax.make_jaxpr(residuals)(params, micro).out_avals if not in_host_memory(x)]
    weights = {leaf.shape for leaf in jax.tree.leaves(params)}
    vocabularies = {spec.shape[0] for spec in jax.tree.leaves(specs) if spec.letters[:1] == "V"}
    B, T = micro["inputs"]["tokens"].shape
    total = 0.0
    for leaf in found:
        if leaf.shape in weights or vocabularies & set(leaf.shape) or not {B, B * T} & set(leaf.shape):
            continue
        total += (
            math.prod(leaf.shape) * leaf.dtype.itemsize / ways_of(leaf.shape, innermost(model.config), mesh)
        )
    return total


def in_host_memory(aval) -> bool:
    """Whether an array of a traced program lies there, offloaded by name (zoo/models/remat.py)."""
    return getattr(aval, "memory_space", None) == jax.memory.Space.Host


def ways_of(shape, config, mesh) -> int:
    """Over how many devices a residual is spread: by its rows, and by heads or feed-forward width."""
    ways = math.prod(mesh.shape[axis] for axis in RULES["B"])
    split = {config.dims.get(letter) for letter in "HF"} - {None}
    return ways * (mesh.shape["tensor"] if split & set(shape) else 1)


def gathered_layer(specs, layers: int, width: int, mesh) -> float:
    """Bytes of one layer's weights, gathered over fsdp."""
    stacked = (spec for spec in specs.values() if spec.letters[:1] == "N")
    return sum(math.prod(spec.shape) for spec in stacked) / layers * width / mesh.shape["tensor"]


def wire_bytes(parts, config, batch, mesh) -> dict[str, float]:
    """Bytes that each device sends in a step, by mesh axis."""
    width = np.dtype(jnp.dtype(config.dtype)).itemsize
    found = {axis: 0.0 for axis, size in mesh.shape.items() if size > 1}
    A = parts.accumulate
    for name, spec in named_leaves(parts.model.abstract()).items():
        is_trained = name not in parts.frozen
        axes = [axis for part in placement(spec.letters, spec.shape, mesh) if part for axis in as_tuple(part)]
        held = math.prod(spec.shape) / math.prod(mesh.shape[axis] for axis in axes)
        for axis, n in mesh.shape.items():
            if n == 1 or axis == "tensor":
                continue
            if axis in axes:
                found[axis] += A * (2 + is_trained) * (n - 1) * held * width
            elif is_trained:
                found[axis] += A * 2 * (n - 1) / n * held * width
    n = mesh.shape["tensor"]
    if n > 1:
        ways = math.prod(mesh.shape[axis] for axis in RULES["B"])
        inner = innermost(config)
        x = math.prod(batch["inputs"]["tokens"].shape) / ways * inner.dims["D"] * width
        found["tensor"] += (
            (4 if getattr(inner, "remat", "none") != "full" else 6) * inner.num_layers * x * 2 * (n - 1) / n
        )
    return found


def as_tuple(part) -> tuple[str, ...]:
    return part if isinstance(part, tuple) else (part,)
