"""Where a Transformer's blocks become a stack: one block, scanned over parameters stacked along N.

    parameters     blocks/attention/query/w  "NDHK": all layers' kernels in one array, N in front
    the program    x -> block -> x -> block -> ... -> x, one block compiled, however many there are
    backwards      what a block computed is kept, or computed again, as cfg.remat says (remat.py)

Every family stacks its blocks here and nowhere else. On a mesh with pipeline stages each has consecutive
layers, and micro-batches follow each other through them (GPipe, arXiv 1811.06965):

    stage 0    1 2 3 4 . .        a tick a column, after which a stage hands its rows on;
    stage 1    . 1 2 3 4 .        S stages and M micro-batches take M + S - 1 ticks, of which
    stage 2    . . 1 2 3 4        each stage is idle for S - 1: its bubble
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.micro_batches import joined, pipeline_of, split
from zoo.models.remat import policy
from zoo.sharding import on_stages

SOWN = ("intermediates", "penalties", "gauges")
"""What blocks may say beside their result."""


def stacked(block: type[nn.Module], cfg: Any, in_axes: Any) -> nn.Module:
    """A module that calls `block(cfg)` cfg.num_layers times, each time with its own parameters: those at
    [n] of arrays stacked along a leading N, under the name that the caller gives it ("blocks").

    It is called as a block is, `(carry, *rest) -> (carry, None)`. The carry goes from block to block, and
    `in_axes` has an entry for each of the rest: 0 where block n reads the n-th of an array [N, ...],
    nn.broadcast where all blocks read the same: arrays of rows [B, ...], or [1, ...] and without B of what
    all rows share. What blocks sow is stacked along N too; each draws dropout from a key of its own.
    """
    return Stack(block, cfg, in_axes if isinstance(in_axes, tuple) else (in_axes,))


def scanned(block: type[nn.Module], cfg: Any, in_axes: tuple, length: int, unroll: int, **settings):
    """`length` blocks as one scan, their parameters [length, ...]."""
    if cfg.remat != "none":
        block = nn.remat(block, policy=policy(cfg.remat), prevent_cse=False)
    scan = nn.scan(
        block,
        variable_axes={"params": 0} | dict.fromkeys(SOWN, 0),
        split_rngs={"params": True, "dropout": True},
        in_axes=in_axes,
        length=length,
        unroll=unroll,
        metadata_params={nn.meta.PARTITION_NAME: "N"},
    )
    return scan(cfg, **settings)


class Stack(nn.Module):
    """The stack that `stacked` describes."""

    block: type[nn.Module]
    config: Any
    in_axes: tuple

    def setup(self):
        count = self.config.num_layers
        # Drawing first values, which happens once, all layers share a block: a program of a quarter the size
        # is compiled in a quarter of the time.
        unroll = 1 if self.is_initializing() else self.config.layer_unroll or count
        self.layers = scanned(self.block, self.config, self.in_axes, count, unroll)
        nn.share_scope(self, self.layers)  # parameters are named as if this module were not there

    def __call__(self, carry, *rest):
        """One stack; or on a mesh with stages a pipeline, where whole rows are read and nothing is sown: a
        cache, and what Model.layers shows, have all layers in one array."""
        x_BTD, *others = jax.tree.leaves(carry)
        is_whole = all(x.shape == x_BTD.shape for x in others)
        shows = self.is_mutable_collection("intermediates")
        stages, parts = pipeline_of(len(x_BTD))
        if stages == 1 or not is_whole or shows or self.is_initializing():
            return self.layers(carry, *rest)
        key = self.make_rng("dropout") if self.has_rng("dropout") else None
        count = self.config.num_layers // stages
        # Not unrolled: libtpu 0.0.42.1 dies of two kernels of attention side by side in one stage.
        layers = scanned(self.block, self.config, self.in_axes, count, 1, parent=None)

        def compute(params, part, carry, rest):
            rngs = {} if key is None else {"dropout": jax.random.fold_in(key, part)}
            return layers.apply({"params": params}, carry, *rest, rngs=rngs)[0]

        return pipelined(compute, self.in_axes, stages, parts, self.variables["params"], carry, rest), None


def pipelined(compute, in_axes, stages: int, parts: int, params, carry, rest):
    """What a stack of layers makes of `carry`, in `parts` micro-batches.

    `compute(params, number, carry, rest)` is what one stage's layers make of a micro-batch; `number` is
    another for each stage and micro-batch.
    """
    rows = len(jax.tree.leaves(carry)[0])
    own = [x for x, axis in zip(rest, in_axes, strict=True) if axis == 0]
    same, tree = jax.tree.flatten([x for x, axis in zip(rest, in_axes, strict=True) if axis != 0])
    is_rows = [x.ndim > 0 and len(x) == rows for x in same]
    same = [split(x, parts) if of_rows else x for x, of_rows in zip(same, is_rows, strict=True)]

    def on_stage(layers, carries, same):
        params, own = layers
        stage = jax.lax.axis_index("pipeline")

        def tick(state, time):
            received, done = state
            part = jnp.clip(time - stage, 0, parts - 1)
            of_part = [x[part] if of_rows else x for x, of_rows in zip(same, is_rows, strict=True)]
            ours, others = iter(own), iter(jax.tree.unflatten(tree, of_part))
            rest = [next(ours) if axis == 0 else next(others) for axis in in_axes]
            carry = jax.tree.map(lambda new, old: jnp.where(stage == 0, new[part], old), carries, received)
            carry = compute(params, part * stages + stage, carry, rest)
            following = [(number, number + 1) for number in range(stages - 1)]
            sent = jax.tree.map(lambda x: jax.lax.ppermute(x, "pipeline", following), carry)
            # Before its first micro-batch arrives a stage computes what its first result then overwrites.
            done = jax.tree.map(lambda done, x: done.at[part].set(x), done, carry)
            return (sent, done), None

        nothing = jax.tree.map(lambda x: jnp.zeros_like(x[0]), carries), jax.tree.map(jnp.zeros_like, carries)
        (_, done), _ = jax.lax.scan(tick, nothing, jnp.arange(parts + stages - 1))
        return done

    carries = jax.tree.map(lambda x: split(x, parts), carry)
    return jax.tree.map(joined, on_stages(on_stage, (params, own), carries, same))
