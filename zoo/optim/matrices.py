"""Which parameters decay, which are matrices, and where rows and columns are: read from the letters."""

import jax

from zoo.lettered import ParamSpec


def decays(path) -> bool:
    """Whether weight decay pulls at the parameter at this path of the tree: kernels, embeddings, adapters."""
    return path[-1].key in ("w", "table", "lora_a", "lora_b")


def decay_mask(specs):
    return jax.tree_util.tree_map_with_path(lambda path, spec: decays(path), specs)


def takes_muon(spec: ParamSpec) -> bool:
    """Whether Muon's own step is for this parameter: a kernel that does not give words (V), classes (C) or
    experts to choose from (X)."""
    return spec.contracted > 0 and not set("VC") & set(spec.letters) and not spec.letters.endswith("X")


def layer_axes(spec: ParamSpec) -> tuple[int, ...]:
    """The dimensions of one layer's tensor, or of one expert's: all but a leading N and an X after it."""
    return tuple(range(len(spec.letters) - len(spec.letters.lstrip("NX")), len(spec.letters)))


def matrix_axes(path, spec: ParamSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which dimensions are one layer's rows, and which its columns.

    A kernel's rows are what it sums over, a table's are its vectors; norms and biases are one column.
    """
    axes = layer_axes(spec)
    cut = (spec.contracted or 1) if decays(path) else len(axes)
    return axes[:cut], axes[cut:]
