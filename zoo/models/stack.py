"""Where a Transformer's blocks become a stack: one block, scanned over parameters stacked along N.

    parameters     blocks/attention/query/w  "NDHK": all layers' kernels in one array, N in front
    the program    x -> block -> x -> block -> ... -> x, one block compiled, however many there are
    backwards      what a block computed is kept, or computed again, as cfg.remat says (remat.py)

Every family stacks its blocks here and nowhere else.
"""

from typing import Any

import flax.linen as nn

from zoo.models.remat import policy


def stacked(block: type[nn.Module], cfg: Any, in_axes: Any) -> nn.Module:
    """A module that calls `block(cfg)` cfg.num_layers times, each time with its own parameters: those at
    [n] of arrays stacked along a leading N, under the name that the caller gives it ("blocks").

    It is called as a block is, `(carry, *rest) -> (carry, None)`. The carry goes from block to block, and
    `in_axes` has an entry for each of the rest: 0 where block n reads the n-th of an array [N, ...],
    nn.broadcast where all blocks read the same. What blocks sow is stacked along N too; each draws dropout
    from a key of its own.
    """
    if cfg.remat != "none":
        block = nn.remat(block, policy=policy(cfg.remat), prevent_cse=False)
    scanned = nn.scan(
        block,
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=in_axes,
        length=cfg.num_layers,
        unroll=cfg.layer_unroll or cfg.num_layers,
        metadata_params={nn.meta.PARTITION_NAME: "N"},
    )
    return scanned(cfg)
