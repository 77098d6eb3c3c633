"""Names for the arrays of a tree, "params/blocks/mlp/up/w", and back."""

from typing import Any

import jax


def named_leaves(tree) -> dict[str, Any]:
    """{"params/blocks/mlp/up/w": leaf, ...}: names that do not depend on Python classes."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def nested(leaves: dict[str, Any]) -> dict[str, Any]:
    """The nested dict that `named_leaves` names."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *folders, last = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree
