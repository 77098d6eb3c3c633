"""Named arrays: read from a .safetensors file, written to one, and held against the names and shapes that
a model expects. What the foreign formats share. Nothing here unpickles.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np

from zoo import models
from zoo.errors import CheckpointError, first_line, storage_errors
from zoo.pretrained.header import read_header


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file. Raises CheckpointError where it is not one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    read_header(Path(path))
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as safetensors ({first_line(error)}); "
            "write it anew with safetensors.torch.save_file(model.state_dict(), path)"
        ) from None


def write_tensors(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a .safetensors file that torch, Hugging Face and `read_tensors` read."""
    from safetensors.numpy import save

    whole = save({name: np.ascontiguousarray(x) for name, x in tensors.items()}, metadata={"format": "pt"})
    with storage_errors(path):
        Path(path).write_bytes(whole)


def as_floats(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Half precision becomes float32; where any tensor is float64, so do all."""
    arrays = {name: np.asarray(x) for name, x in tensors.items()}
    dtype = np.float64 if any(x.dtype == np.float64 for x in arrays.values()) else np.float32
    return {name: x.astype(dtype) for name, x in arrays.items()}


def check_tensors(
    tensors: Mapping[str, np.ndarray],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    what: str,
    remedy: str,
    **more: Iterable[str],
) -> None:
    """Raises CheckpointError, one line that lists every tensor that is missing, unexpected or of another
    shape, and those of `more`, by their fault: not_tied=["decoder.weight"]."""
    misshapen = [
        f"{name} {list(np.shape(tensors[name]))}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in tensors and np.shape(tensors[name]) != shape
    ]
    faults = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in tensors if name not in wanted],
        "of another shape": misshapen,
        **{fault.replace("_", " "): list(names) for fault, names in more.items()},
    }
    if any(faults.values()):
        lists = "; ".join(f"{fault}: {listed(names)}" for fault, names in faults.items() if names)
        raise CheckpointError(f"tensors do not fit this {what} ({lists}); {remedy}")


def listed(names: list[str]) -> str:
    """The first of them, and how many more: files of another model have hundreds."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def named_specs(config) -> tuple[dict, jax.tree_util.PyTreeDef]:
    """Path -> ParamSpec of every parameter ("blocks/norm1/scale"), and the tree they make in this order."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(models.create(config).abstract())
    return {jax.tree_util.keystr(path, simple=True, separator="/"): spec for path, spec in leaves}, treedef
