"""Tensors that stay on disk until they are asked for: one .safetensors file, or shards with an index.

    tensors = open_tensors(folder)      # {name: StoredTensor}; reads headers only
    tensors["wte.weight"].shape         # costs nothing
    np.asarray(tensors["wte.weight"])   # reads this one; half precision becomes float32

header.py checks every header; the numbers are read by their place, as the library's NumPy side has no
bfloat16. Shards are written one after the other, so that no
more than one of them is held besides the model.
"""

import contextlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from zoo import untrusted
from zoo.errors import CheckpointError, StorageError, first_line, nearest, storage_errors
from zoo.pretrained.header import FETCH, read_header
from zoo.pretrained.tensors import listed, write_tensors

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
DTYPES["BF16"] = np.dtype(jnp.bfloat16)
SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,240}\.safetensors")


@dataclass(frozen=True)
class StoredTensor:
    """The place of one tensor in a file; `np.asarray` of it reads it."""

    path: Path
    name: str
    kind: str
    """F32, BF16, ... as the file calls it."""
    shape: tuple[int, ...]
    offset: int

    @property
    def dtype(self) -> np.dtype:
        """What it is read as: float64 stays, any other number becomes float32."""
        return np.dtype(np.float64 if self.kind == "F64" else np.float32)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if self.kind not in DTYPES:
            known = ", ".join(DTYPES)
            raise CheckpointError(f"{self.path}: {self.name} is {self.kind}, and weights here are {known}")
        with untrusted.opened(self.path) as file:
            file.seek(self.offset)
            raw = np.fromfile(file, DTYPES[self.kind], math.prod(self.shape))
        if raw.size != math.prod(self.shape):
            raise CheckpointError(f"{self.path}: ends within {self.name}; {FETCH}")
        return raw.reshape(self.shape).astype(dtype or self.dtype, copy=False)


def open_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a folder's model.safetensors, or of the shards that its index names.

    Raises CheckpointError, one line, where there are none, a file is damaged, an index does not fit its
    shards or names a file that is not in the folder, or the weights are a pickle.
    """
    if (folder / FILE).is_file():
        return open_file(folder / FILE)
    if not (folder / INDEX).is_file():
        raise CheckpointError(f"{folder}: {_without_weights(folder)}")
    index = read_index(folder / INDEX)
    shards = {name: open_file(folder / name) for name in sorted(set(index.values()))}
    lost = [name for name, shard in index.items() if name not in shards[shard]]
    if lost:
        raise CheckpointError(
            f"{folder / INDEX}: its shards do not hold {listed(lost)}; fetch all files again"
        )
    return {name: tensor for shard in shards.values() for name, tensor in shard.items() if name in index}


def _without_weights(folder: Path) -> str:
    pickles = sorted(path.name for path in folder.glob("*.bin") if path.name.startswith("pytorch_model"))
    if pickles:
        return (
            f"its weights are a pickle ({pickles[0]}), which can run code and is never read; write "
            "model.safetensors once: transformers' from_pretrained(folder).save_pretrained(another)"
        )
    return f"has neither {FILE} nor {INDEX}"


def open_file(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file. Raises CheckpointError where it is no .safetensors file, or not all of one."""
    return {
        name: StoredTensor(path, name, at.kind, at.shape, at.offset) for name, at in read_header(path).items()
    }


def read_index(path: Path) -> dict[str, str]:
    """{tensor: shard}; every shard a file beside the index. Raises CheckpointError for anything else."""
    try:
        raw = untrusted.contents(path, untrusted.INDEX)
        if raw.count(b",") > untrusted.TENSORS:
            raise ValueError(f"more than {untrusted.TENSORS:,} tensors")
        found = untrusted.json_value(raw)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not JSON ({first_line(error)}); {FETCH}") from None
    index = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(index, dict) or not all(isinstance(shard, str) for shard in index.values()):
        raise CheckpointError(f'{path}: has no "weight_map" from tensors to files; {FETCH}')
    if not index:
        raise CheckpointError(f"{path}: names no tensors; {FETCH}")
    for shard in sorted(set(index.values())):
        if not SHARD.fullmatch(shard):
            raise CheckpointError(
                f"{path}: names {shard!r:.300}, which is no .safetensors file beside it; refused"
            )
        if not (path.parent / shard).is_file():
            there = [each.name for each in path.parent.glob("*.safetensors")]
            raise CheckpointError(f"{path}: names {shard}, which is not there{nearest(shard, there)}")
    return index


# --- writing --------------------------------------------------------------------------------------


def write_shards(
    folder: Path, sizes: Mapping[str, int], read: Callable[[str], np.ndarray], max_shard_size: int
) -> None:
    """Writes the tensors that `read` gives by name, `sizes` in bytes: one file, or shards of at most
    `max_shard_size` bytes (a greater tensor has one to itself) and their index."""
    shards = divided(sizes, max_shard_size)
    names = [FILE]
    if len(shards) > 1:
        count = len(shards)
        names = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
        index = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        content = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(index.items()))}
        (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name, shard in zip(names, shards, strict=True):
        write_tensors(folder / name, {tensor: read(tensor) for tensor in shard})


def divided(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """The names in their order, cut wherever one more would make a shard larger than `most`."""
    shards: list[list[str]] = [[]]
    total = 0
    for name, size in sizes.items():
        if shards[-1] and total + size > most:
            shards.append([])
            total = 0
        shards[-1].append(name)
        total += size
    return shards


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A place to write the files of `folder`, which appears whole or not at all.

    Raises StorageError where it is there already and not empty, or cannot be written.
    """
    with storage_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(f"{folder}: is there already and not empty; choose another name")
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            yield partial
            partial.chmod(0o755)
            synced([*partial.iterdir(), partial])
            partial.rename(folder)
            synced([folder.parent])
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def synced(paths: Iterable[Path]) -> None:
    """Waits until these files are on the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
