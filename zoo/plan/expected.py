"""The memory that a step should need, in closed form: seconds instead of the compiler's minute.

Arguments are exact: shapes divided by placements. Temporary memory is what lives at one time at the fullest
of three moments. Two are beside what waits for the backward pass (the residuals that JAX's own
differentiation names, without any compiling), the weights in the activations' dtype, and the sums of earlier
micro-batches:

    readout    the logits, the table gathered in the activations' dtype, and its gradient before it is shared
               out
    layer      one layer's weights, gathered; what its backward pass holds; all gradients; the logits, where
               they outlive the layers
    update     the weights in the activations' dtype; all gradients; what was offloaded; and, as the compiler
               lays arrays whose last dimension is no multiple of 128 otherwise in a branch, the largest such
               parameter and its gradient once more

How far this is from what compiled steps hold stands in benchmarks/README.md: within 8 %.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from zoo.losses import CHUNK_BYTES
from zoo.mesh import AXES, abstract_mesh
from zoo.models.copies import word_tables
from zoo.optim.finetune import without
from zoo.plan.abstract import bytes_per_device, offloaded_bytes
from zoo.sharding import RULES
from zoo.tree import named_leaves

# Rows that shapes are asked for with: a prime that no dimension of a model is, so what has it counts rows.
ROWS = 10_007

LANES = 128

# Of what JAX lists as left for one layer's backward pass, the part that lives at a time, as the compiler
# computes elementwise functions again: 0.63 to 0.91 in the three steps of benchmarks/README.md whose fullest
# moment that is.
LIVE = 0.75


@dataclass(frozen=True)
class Memory:
    """Bytes per device."""

    arguments: int
    """State and batch; the new state takes the old one's place."""
    temporary: int
    """What lives at one time beside them."""
    host: int = 0
    """Of its host's memory, for what is offloaded between steps."""

    @property
    def total(self) -> int:
        return self.arguments + self.temporary


@dataclass(frozen=True)
class Held:
    """Bytes per device that the mesh decides alone, whatever is recomputed and in however many parts."""

    arguments: int
    cast: float
    """All weights in the activations' dtype."""
    gradients: int
    summed: int
    """Of gradients that micro-batches add up: in float32, whatever the parameters are stored in."""
    layer: float
    """One layer's weights, gathered."""
    offloaded: int = 0
    """Of the optimizer's state, in the host's memory between steps."""
    laid_anew: int = 0
    """The largest trained parameter that the update's branch lays out for itself."""


def held(parts, config, state, batch, mesh, numbers: Callable | None = None) -> Held:
    """Of one step; `config` is the model's configuration, `numbers` counts those that a shape takes up."""
    trained = without(state.params, parts.frozen)
    gradients, width = bytes_per_device(trained, numbers), width_of(config)
    is_wide = parts.param_dtype == "float32"
    return Held(
        arguments=bytes_per_device((state, batch), numbers),
        cast=bytes_per_device(state.params, numbers) * width / 4 if width < 4 and is_wide else 0.0,
        gradients=gradients,
        summed=gradients * (1 if is_wide else 2),
        layer=gathered_layer(parts.model, layers_of(config), width, mesh),
        offloaded=offloaded_bytes(state.opt_state),
        laid_anew=max(
            (bytes_per_device(x, numbers) for x in jax.tree.leaves(trained) if is_ragged(x)), default=0
        ),
    )


def is_ragged(x) -> bool:
    """Whether rows of an array on a device do not fill a TPU's tiles of 128 numbers."""
    return x.ndim > 1 and x.sharding.shard_shape(x.shape)[-1] % LANES > 0


def memory(parts, config, batch, mesh, known: Held) -> Memory:
    """Of one step on the mesh that `known` is of."""
    summed = known.summed if parts.accumulate > 1 else 0  # of the parts before
    waiting = known.cast + summed + kept(parts.model, parts, config, batch, mesh) / parts.accumulate
    inside = LIVE * everything(parts, config, batch, mesh) / parts.accumulate / layers_of(config)
    scores = logits(parts, batch, mesh) / parts.accumulate
    moments = (
        waiting + scores + table(parts, config, mesh),
        waiting + known.layer + inside + known.gradients,
        known.cast + known.gradients + known.offloaded + 2 * known.laid_anew,
    )
    return Memory(known.arguments, int(max(moments)), known.offloaded)


def logits(parts, batch, mesh) -> float:
    """Bytes of the logits of a batch that are there at a time: of all that are read, or of a chunk."""
    positions = math.prod(batch["targets"].shape) / ways(mesh)
    rows = max((V for V, _ in tables(parts.model, mesh)), default=0.0)
    return min(positions * rows * 4, CHUNK_BYTES * parts.accumulate)


def table(parts, config, mesh) -> float:
    """Bytes of the largest table, gathered, with its gradient in float32."""
    return max((V * D for V, D in tables(parts.model, mesh)), default=0.0) * (width_of(config) + 4)


def tables(model, mesh) -> list[tuple[float, int]]:
    """(rows on a device, width) of every table of a vocabulary."""
    found = word_tables(model).values()
    return [(spec.shape[0] / mesh.shape.get("tensor", 1), spec.shape[1]) for spec in found]


def ways(mesh) -> int:
    """Over how many devices positions are spread, by rows and within a row."""
    axes = [axis for axis in (*RULES["B"], *RULES["T"]) if axis != "tensor"]  # that one splits words too
    return math.prod(mesh.shape.get(axis, 1) for axis in axes)


def width_of(config) -> int:
    """Bytes of an activation's number."""
    return np.dtype(jnp.dtype(config.dtype)).itemsize


def layers_of(config) -> int:
    return max(getattr(innermost(config), "num_layers", 1), 1)


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


def everything(parts, config, batch, mesh) -> float:
    """What would be kept if nothing were computed again."""
    plain = remat_none(config)
    model = parts.model if plain == config else type_of(parts.model, plain)
    return kept(model, parts, plain, batch, mesh)


def kept(model, parts, config, batch, mesh) -> float:
    """Bytes per device that the forward pass of a batch, in one part, leaves for the backward pass, without
    logits and without the parameters themselves."""
    leaves, tree = jax.tree.flatten(batch)
    shapes = tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves)
    device = getattr(mesh, "abstract_mesh", mesh).abstract_device
    found = residuals(model, parts.task, tree, shapes, bool(parts.carried_rows), device)
    rows = leaves[0].shape[0] / ways(mesh)
    rows /= mesh.shape.get("tensor", 1)  # which splits heads, widths or positions
    return rows * sum(size for _, size in found)


@functools.cache
def residuals(model, task, tree, shapes, carries: bool, device) -> list[tuple[tuple[int, ...], float]]:
    """(shape, bytes a row) of each array that the forward pass of ROWS rows leaves; `tree` and `shapes` are
    of a batch, without its rows. The device decides which kernels attention has (zoo/kernels)."""
    batch = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct((ROWS, *s), dtype) for s, dtype in shapes])
    specs = model.abstract()
    params = jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), specs)

    def pulled_back(params, batch):
        def loss(params):
            state = model.initial_state(ROWS, 0) if carries else None
            key = jax.random.key(0)
            x, _ = model.features(params, batch["inputs"], state=state, train=True, rngs={"dropout": key})
            return task.loss(x, Partial(model.readout_stored, params), batch)["loss"]

        return jax.vjp(loss, params)[1]

    length = batch["inputs"]["tokens"].shape[1]
    counting = {ROWS, ROWS * length}
    vocabularies = {spec.shape[0] for spec in jax.tree.leaves(specs) if spec.letters[:1] == "V"}
    layers = layers_of(model.config)
    with jax.sharding.use_abstract_mesh(abstract_mesh(dict.fromkeys(AXES, 1), device)):
        found = jax.make_jaxpr(pulled_back)(params, batch).out_avals
    return [
        (leaf.shape, math.prod(leaf.shape) * leaf.dtype.itemsize / ROWS)
        for leaf in found
        if counting & set(leaf.shape)
        and not vocabularies & set(leaf.shape)
        and not in_host_memory(leaf)
        # Scores that are the same in all layers are what fills a mask: made where they are read.
        and (leaf.shape.count(length) < 2 or leaf.shape[0] == layers)
    ]


def in_host_memory(aval) -> bool:
    """Whether an array of a traced program lies there, offloaded by name (zoo/models/remat.py)."""
    return getattr(aval, "memory_space", None) == jax.memory.Space.Host


def gathered_layer(model, layers: int, width: int, mesh) -> float:
    """Bytes of one layer's weights, gathered over every axis but tensor."""
    stacked = (spec for spec in named_leaves(model.abstract()).values() if spec.letters[:1] == "N")
    return sum(math.prod(spec.shape) for spec in stacked) / layers * width / mesh.shape.get("tensor", 1)
