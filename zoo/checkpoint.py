"""Checkpoints: the whole train state with its configuration beside it, written while training goes on.

    checkpoints/1200/state/    every array of the train state (Orbax)
    checkpoints/1200/meta/     JSON: configuration, digest of the data, digest and shapes of the state

Orbax writes asynchronously and renames a finished step into place, so a process may be killed at any
moment. It notices neither a flipped bit nor a changed dtype; therefore shapes and dtypes are compared
before a restore and the sums of every array's bits after it, and a step that fails is passed over, loudly,
for the one before. A run whose steps all fail is never started afresh: that is an error.

Only the run that owns the folder sweeps and writes; whoever reads it meanwhile changes nothing.
"""

import functools
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo import cluster, sharding
from zoo.errors import CheckpointError, first_line, storage_errors
from zoo.lettered import ParamSpec


class Checkpoints:
    """The checkpoints of one run. Close it, or use it in a `with`, so that no save stays behind.

    `keep` is how many stay on disk; without it the folder is only read.
    """

    def __init__(self, folder: Path, keep: int | None = None):
        import orbax.checkpoint as ocp  # takes a second: only who saves or restores pays for it

        self._ocp = ocp
        self.folder = folder.absolute()
        self._owned = keep is not None
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=self._owned,
            cleanup_tmp_directories=self._owned,
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        with storage_errors(self.folder):
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close() if kind is None else self._manager.close()

    def steps(self) -> list[int]:
        """Steps on disk, oldest first: the folder's content, not a memory of it."""
        if not self.folder.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.folder.iterdir() if entry.name.isdigit())

    def save(self, state, specs, meta: dict[str, Any]) -> str:
        """Starts writing `state`; returns its digest. A failure of the save before surfaces here."""
        step, sums = int(state.step), leaf_sums(state, specs)
        leaves = {
            name: {"shape": list(x.shape), "dtype": str(x.dtype), "sums": sums[name]}
            for name, x in named_leaves(state).items()
        }
        meta = meta | {"state_digest": digest_of(sums), "leaves": leaves}
        items = self._ocp.args.Composite(
            state=self._ocp.args.PyTreeSave(nested(named_leaves(state))), meta=self._ocp.args.JsonSave(meta)
        )
        with storage_errors(self.folder):
            if not self._manager.save(step, args=items):
                raise CheckpointError(f"{self.folder}: step {step} was not saved; is a later one in the way?")
        return meta["state_digest"]

    def meta(self, step: int) -> dict[str, Any]:
        """What was saved beside the state of a step."""
        items = self._ocp.args.Composite(meta=self._ocp.args.JsonRestore())
        return self._manager.restore(step, args=items)["meta"]

    def restore(self, specs, mesh, note: Callable[[str], None], places=None):
        """The newest intact state, laid out on `mesh`; None where nothing was ever saved.

        `specs` is the tree of a whole train state, or of a part of it; `places` are shardings where the
        table's are not meant. Steps that cannot be read or
        whose sums differ are reported through `note` and passed over; the owner moves them aside, so
        that the run can save these steps again. Raises CheckpointError where there are steps and none
        is intact.
        """
        found, damaged = cluster.from_first(self.steps), []
        for step in reversed(found):
            state, wrong = None, "another process cannot read it"
            try:
                state = self._restore(step, specs, mesh, places)
            except Exception as error:  # whatever a damaged file makes the reader raise
                wrong = first_line(error)
            if not cluster.everywhere(state is not None):
                note(f"checkpoint {step} is damaged ({wrong}); trying the one before")
                damaged.append(step)
                continue
            if damaged and self._owned:
                self._move_aside(damaged, "damaged")
            return state
        if found:
            raise CheckpointError(
                f"{self.folder}: {len(found)} checkpoint(s) found and none is intact; restore one from a "
                "copy, or move the folder away to start afresh"
            )
        return None

    def leave(self, is_left: Callable[[int], bool]) -> None:
        """Moves steps for which that holds to checkpoints-left, newest first: a run goes back from them."""
        self.wait()
        self._move_aside([step for step in reversed(cluster.from_first(self.steps)) if is_left(step)], "left")

    def _move_aside(self, steps: list[int], why: str) -> None:
        """checkpoints/6 -> checkpoints-damaged/6, where a person may look at it."""
        aside = self.folder.with_name(f"{self.folder.name}-{why}")

        def move():
            with storage_errors(aside):
                aside.mkdir(exist_ok=True)
                for step in steps:
                    shutil.rmtree(aside / str(step), ignore_errors=True)
                    (self.folder / str(step)).rename(aside / str(step))

        cluster.from_first(move)
        self._manager.reload()

    def _restore(self, step: int, specs, mesh, places=None):
        leaves = self.meta(step)["leaves"]
        places = named_leaves(places or sharding.shardings(specs, mesh))
        template = {}
        for name, spec in named_leaves(specs).items():
            if name not in leaves:
                raise CheckpointError(f"it holds no {name}")
            saved = (tuple(leaves[name]["shape"]), leaves[name]["dtype"])
            if saved != (spec.shape, str(jnp.dtype(spec.dtype))):
                raise CheckpointError(
                    f"{name} is {saved[1]}{list(saved[0])}, not {spec.dtype}{list(spec.shape)}"
                )
            template[name] = jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=places[name])
        item, ocp = nested(template), self._ocp
        restore = ocp.args.PyTreeRestore(
            item=item, restore_args=ocp.checkpoint_utils.construct_restore_args(item), partial_restore=True
        )
        arrays = named_leaves(self._manager.restore(step, args=ocp.args.Composite(state=restore))["state"])
        state = jax.tree.unflatten(jax.tree.structure(specs), [arrays[name] for name in template])
        for name, sums in leaf_sums(state, specs).items():
            if sums != leaves[name]["sums"]:
                raise CheckpointError(f"{name} is not what was saved: its sums differ")
        return state

    def wait(self) -> None:
        """Until every save is on disk; raises what went wrong in the background."""
        with storage_errors(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        self.wait()
        self._manager.close()


# --- names and digests ----------------------------------------------------------------------------


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


def state_digest(tree, specs) -> str:
    """16 hexadecimal digits that two equal states share, on any mesh; vocabulary padding is left out."""
    return digest_of(leaf_sums(tree, specs))


def digest_of(sums: dict[str, list[int]]) -> str:
    return hashlib.sha256(repr(sorted(sums.items())).encode()).hexdigest()[:16]


def leaf_sums(tree, specs) -> dict[str, list[int]]:
    """Two 32-bit sums of each array's bits, one plain and one weighted by position.

    Sums of integers do not depend on their order, so no array is gathered, and every mesh agrees.
    """
    leaves = named_leaves(tree)
    sums = _visible_sums(list(leaves.values()), tuple(jax.tree.leaves(specs)))
    return {name: np.asarray(pair).tolist() for name, pair in zip(leaves, sums, strict=True)}


@functools.partial(jax.jit, static_argnums=1)
def _visible_sums(leaves: list[Any], specs: tuple[ParamSpec, ...]):
    leaves = jax.device_put(leaves, jax.memory.Space.Device)  # some may lie in the host's
    return [bit_sums(spec.visible(x)) for x, spec in zip(leaves, specs, strict=True)]


def bit_sums(x):
    """The two sums of one array, uint32 [2]."""
    x = x.astype(jnp.uint8) if x.dtype == bool else x
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, width).astype(jnp.uint32)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(bits.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    weight = ((place * jnp.uint32(2654435761)) ^ (place >> 15)) | 1  # Knuth's multiplicative hash, odd
    return jnp.stack([bits.sum(dtype=jnp.uint32), (bits * weight).sum(dtype=jnp.uint32)])
