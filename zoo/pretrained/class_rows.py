"""The rows of a head by the names that they stand for: class 0 of a folder may be class 1 of a run.

    folder    0 positive   1 negative                     its rows 1, 0
    run       0 negative   1 positive   (by spelling)     are the run's 0, 1

Names that nobody gave, LABEL_0, LABEL_1, ..., are numbers and say no more.
"""

import sys
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from zoo.data.examples.labels import unnamed
from zoo.tree import named_leaves, nested

HEADS = {"labels": ("classes", "intent"), "tags": ("tags", "slots")}  # the parts that answer with names

Names = Mapping[str, Sequence[str]]
"""The "labels" and "tags" of a model, in the order of their numbers."""


def by_name(found: dict, first: dict, specs: dict, *, theirs: Names, ours: Names) -> dict:
    """The parameters `found` of a model whose classes and tags are `theirs`, in the order of `ours`; where
    the names are others, what answers with them begins as in `first`, which is said on stderr."""
    leaves, fresh = named_leaves(found), named_leaves(first)
    for kind, heads in HEADS.items():
        there, here = tuple(theirs[kind]), tuple(ours[kind])
        if len(there) != len(here) or there in (here, unnamed(len(here))):
            continue
        rows = {
            name: spec.letters
            for name, spec in named_leaves(specs).items()
            if name.split("/")[0] in heads and "C" in spec.letters
        }
        if set(there) == set(here):
            order = [there.index(name) for name in here]
            leaves |= {name: in_order(leaves[name], letters, order) for name, letters in rows.items()}
        else:
            shown = ", ".join(there[:4]) + ", ..." * (len(there) > 4)
            print(f"other {kind} there ({shown}): random at first: {', '.join(rows)}", file=sys.stderr)
            leaves |= {name: fresh[name] for name in rows}
    return nested(leaves)


def in_order(x, letters: str, order: Sequence[int]):
    """An array with its classes, in every dimension of them, in another order, where it was."""
    placed = x.sharding
    for axis, letter in enumerate(letters):
        x = jnp.take(x, jnp.array(order), axis) if letter == "C" else x
    return jax.device_put(x, placed)
