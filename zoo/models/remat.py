"""What a block keeps for its backward pass, and what it computes again (Chen et al. 2016, arXiv 1604.06174).

    remat                      kept of each block, beside the stream that it reads
    none                       all that its backward pass reads
    dots                       every tensor below but attention
    full                       nothing
    save:attention,up          these tensors
    offload:attention,up       these, in the host's memory, from where the backward pass fetches them
    save:up,offload:attention  either

The tensors have the same names in all Transformers here. Each but attention is the result of the Linear of
that name, bias included, before whatever norms, turns or activates it, which is cheap to do again:

    name                numbers a token
    query, key, value   H K, J K, J K     what attention reads
    attention           H K               what the heads mix, which out's gradient reads; scores and softmax
                                          are computed again all the same, for those of query, key and value
    out                 D                 what attention adds to the stream
    gate, up            F, F              the feed-forward layer's two halves; GPT, BERT and NeoX have no gate
    down                D                 what the feed-forward layer adds; read backwards only where a norm
                                          follows it: BERT, ModernBERT, decoders with norms "after" or "both"

Full recomputation costs a second forward pass of the blocks, less the matmuls that nothing reads: of GPT-2 at
1,024 positions 1.18 times the step's FLOPs, of the blocks of a BERT 1.33 times.
"""

from collections.abc import Callable

import jax

from zoo.errors import ConfigError, nearest

POLICIES: dict[str, Callable | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
TENSORS = ("query", "key", "value", "attention", "out", "up", "down")
GATED = (*TENSORS, "gate")
OF_ATTENTION = TENSORS[
    :5
]  # of a block whose feed-forward layer is a mixture of experts: its matmuls have no names
KEEPING = ("save", "offload")


def kept_tensors(remat: str) -> dict[str, tuple[str, ...]]:
    """{"save": names, "offload": names} of a list such as "save:up,out,offload:attention"; none of a word."""
    found: dict[str, list[str]] = {how: [] for how in KEEPING}
    how = ""
    for part in remat.split(",") if remat not in POLICIES else ():
        before, colon, name = part.rpartition(":")
        how = before if colon else how
        if how not in KEEPING:
            hint = nearest(how or part, (*POLICIES, *KEEPING))
            raise ConfigError(
                f"remat={remat!r} is none of {', '.join(POLICIES)}, save:NAME,... and offload:NAME,...{hint}"
            )
        found[how].append(name)
    return {how: tuple(names) for how, names in found.items()}


def check_remat(remat: str, tensors: tuple[str, ...]) -> None:
    """ConfigError for what is no policy, or names a tensor twice or one that a block has not."""
    names = [name for names in kept_tensors(remat).values() for name in names]
    for name in names:
        if name not in tensors:
            raise ConfigError(
                f"remat={remat!r}: {name!r} is none of this block's tensors, {', '.join(tensors)}"
                f"{nearest(name, tensors)}"
            )
        if names.count(name) > 1:
            raise ConfigError(f"remat={remat!r} names {name!r} twice; say it once")


def policy(remat: str) -> Callable | None:
    """What jax.checkpoint asks of each result: whether it is kept, and where. None: nothing is recomputed."""
    if remat in POLICIES:
        return POLICIES[remat]
    kept = kept_tensors(remat)
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=kept["save"],
        names_which_can_be_offloaded=kept["offload"],
        offload_src="device",
        offload_dst="pinned_host",
    )
