"""Checkpoints: the whole train state with its configuration beside it, written while training goes on.

    checkpoints/1200/state/           every array of the train state (Orbax)
    checkpoints/1200/meta/            JSON: configuration, digest of the data, digest and shapes of the state
    checkpoints/1200/MANIFEST.json    bytes and checksums of all files, written last (zoo/manifest.py)

Orbax writes a step in the background and renames it into place; then the manifest is made, and then what is
old goes (zoo/steps.py). Which steps there are, what a step is worth and when one goes is decided here: Orbax
believes every folder, notices neither a flipped bit nor a changed dtype, and never goes back a step. So

* a step is read only where its files are what its manifest says. Without one it is read too, and believed
  where the sums of its arrays' bits are those recorded beside it; these are compared in any case.
* a step that fails is passed over, loudly, for the one before. A run whose steps all fail is never started
  afresh: that is an error.
* the two newest steps known to be whole stay; so the one that a run goes on from stays until another is.
* a number that is not finite is never stored.

Only the run that owns the folder sweeps and writes; whoever reads it meanwhile changes nothing.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from zoo import cluster, faults, manifest, sharding, steps
from zoo.digest import digest_of, looked_at
from zoo.errors import CheckpointError, NumericsError, StorageError, first_line, storage_errors
from zoo.tree import named_leaves, nested

WHOLE = 2  # of the newest steps known to be whole, how many are never deleted
INTACT = manifest.Finding(sealed=True, wrong="")

logger = logging.getLogger(__name__)


class Misfit(CheckpointError):
    """A checkpoint of another state: a name, a shape or a dtype differs."""


class Checkpoints:
    """The checkpoints of one run. Close it, or use it in a `with`, so that no save stays behind.

    `keep` is how many stay on disk, two at least; without it the folder is only read.
    """

    def __init__(self, folder: Path, keep: int | None = None):
        import orbax.checkpoint as ocp  # takes a second: only who saves or restores pays for it

        self._ocp = ocp
        self.folder = folder.absolute()
        self._keep = keep
        self._whole: set[int] = set()
        """Steps whose files this process has compared with their manifest, or sealed."""
        self._saving: Future | None = None
        self._background = ThreadPoolExecutor(1, "checkpoint")
        options = ocp.AsyncOptions(create_directories_asynchronously=False)
        self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(), async_options=options)
        if keep is not None:
            cluster.from_first(self._take)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.close()
            return
        try:
            self.close()
        except Exception as error:  # the one that is under way is what the run ends with
            logger.warning("the save under way failed too: %s", first_line(error))

    def _take(self) -> None:
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            steps.sweep(self.folder)

    def steps(self) -> list[int]:
        """Steps on disk, oldest first: the folder's content, not a memory of it."""
        return steps.numbered(self.folder)

    # --- saving -----------------------------------------------------------------------------------

    def require_room(self, specs) -> None:
        """StorageError where the disk has too little room for checkpoints of these ParamSpecs."""
        sizes = [math.prod(spec.shape) * jnp.dtype(spec.dtype).itemsize for spec in jax.tree.leaves(specs)]
        cluster.from_first(lambda: steps.require_room(self.folder, sum(sizes)))

    def save(self, state, specs, meta: dict[str, Any]) -> str:
        """Starts writing `state`; returns its digest. A failure of the save before surfaces here at last.

        Raises StorageError where the folder is not as this run has left it, NumericsError where a number of
        the state is not finite; nothing has been written then.
        """
        self.wait()
        step = int(state.step)
        cluster.from_first(lambda: self._check_folder(step))
        sums, odd = looked_at(named_leaves(state), tuple(jax.tree.leaves(specs)))
        if odd:
            raise NumericsError(
                f"step {step} is not saved: {said_of(odd)}; the checkpoints before it are as they were"
            )
        leaves = {
            name: {"shape": list(x.shape), "dtype": str(x.dtype), "sums": sums[name]}
            for name, x in named_leaves(state).items()
        }
        meta = meta | {"state_digest": digest_of(sums), "leaves": leaves}
        items = self._ocp.args.Composite(
            state=self._ocp.args.PyTreeSave(nested(named_leaves(state))), meta=self._ocp.args.JsonSave(meta)
        )
        with storage_errors(self.folder):
            self._orbax.save(self.folder / str(step), args=items)
        self._saving = self._background.submit(self._finish, step, meta)
        return meta["state_digest"]

    def poll(self) -> None:
        """Raises what went wrong in the background, if anything has. To be called at every step."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Until every save is on disk and sealed; raises what went wrong in the background."""
        saving, self._saving = self._saving, None
        if saving is not None:
            with storage_errors(self.folder):
                saving.result()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._background.shutdown()
            self._orbax.close()

    def _check_folder(self, step: int) -> None:
        """That nobody else has had a hand in it since the save before."""
        if not self.folder.is_dir():
            raise StorageError(f"{self.folder} is gone, while the run goes on; who has moved or deleted it?")
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise StorageError(f"{self.folder}: cannot be written; make it writable, and start again")
        there = self.steps()
        if gone := sorted(self._whole - set(there)):
            raise StorageError(
                f"{self.folder / str(gone[0])} is gone, while the run goes on; who has moved or deleted it? "
                "Start again to go on without it"
            )
        if there and there[-1] >= step:
            raise CheckpointError(
                f"{self.folder}: step {step} is not saved, step {there[-1]} is there already"
            )

    def _finish(self, step: int, meta: dict[str, Any]) -> None:
        """Waits for Orbax, seals what it has written, deletes what is too old. In the background."""
        self._orbax.wait_until_finished()
        faults.reach("save", step)
        if cluster.is_first():
            self._seal(step, meta)
            faults.reach("sealed", step)
            self._prune()

    def _seal(self, step: int, meta: dict[str, Any]) -> None:
        settings = {name: value for name, value in meta.items() if name not in ("state_digest", "leaves")}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        manifest.seal(self.folder / str(step), state_digest=meta["state_digest"], settings=digest)
        self._whole.add(step)

    def _prune(self) -> None:
        """Deletes what is too old, once WHOLE newer ones are known to be whole."""
        there = self.steps()
        for step in reversed(there[: -self._keep] and there):
            if len(self._whole) < WHOLE and manifest.look(self.folder / str(step)) == INTACT:
                self._whole.add(step)
        kept = {*there[-self._keep :], *sorted(self._whole)[-WHOLE:]}
        if len(self._whole) >= WHOLE:
            steps.remove(self.folder, [step for step in there if step not in kept])
            self._whole &= kept

    # --- restoring --------------------------------------------------------------------------------

    def meta(self, step: int) -> dict[str, Any]:
        """What was saved beside the state of a step."""
        items = self._ocp.args.Composite(meta=self._ocp.args.JsonRestore())
        return self._orbax.restore(self.folder / str(step), args=items)["meta"]

    def restore(self, specs, mesh, note: Callable[[str], None], places=None):
        """The newest intact state, laid out on `mesh`; None where nothing was ever saved.

        `specs` is the tree of a whole train state, or of a part of it; `places` are shardings where the
        table's are not meant. Steps that are not what was saved are reported through `note` and passed
        over; the owner moves them aside, so that the run can save these steps again, and seals what had no
        manifest. Raises CheckpointError where there are steps and none is intact, and where an intact one is
        of another state, which is no damage.
        """
        self.wait()
        tried, damaged = set(), []
        while (step := cluster.from_first(lambda: max(set(self.steps()) - tried, default=None))) is not None:
            tried.add(step)
            state, wrong = self._state_or_fault(step, specs, mesh, note, places)
            if state is not None:
                if self._keep is not None:
                    self._set_aside(damaged, "damaged")
                    cluster.from_first(self._prune)
                return state
            if cluster.from_first(lambda step=step: step in self.steps()):  # else its owner has deleted it
                note(f"checkpoint {step} is damaged ({wrong}); trying the one before")
                damaged.append(step)
        if damaged:
            raise CheckpointError(
                f"{self.folder}: {len(damaged)} checkpoint(s) found and none is intact; restore one from a "
                "copy, or move the folder away to start afresh"
            )
        return None

    def leave(self, is_left: Callable[[int], bool]) -> None:
        """Moves steps for which that holds to checkpoints-left, newest first: a run goes back from them."""
        self.wait()
        self._set_aside([step for step in reversed(cluster.from_first(self.steps)) if is_left(step)], "left")

    def _set_aside(self, moved: list[int], why: str) -> None:
        def move():
            with storage_errors(self.folder):
                steps.set_aside(self.folder, moved, why)

        cluster.from_first(move)
        self._whole -= set(moved)

    def _state_or_fault(self, step: int, specs, mesh, note, places):
        """(state, "") of an intact step, (None, what is wrong) of another; the same in all processes."""
        folder, share = self.folder / str(step), (jax.process_index(), jax.process_count())
        found = INTACT if step in self._whole else manifest.look(folder, share=share)
        sealed = cluster.everywhere(found.sealed)
        if sealed and not cluster.everywhere(not found.wrong):
            return None, found.wrong or "as another process finds it"
        state, meta, wrong = None, {}, "another process cannot read it"
        try:
            state, meta = self._restore(step, specs, mesh, places)
        except CheckpointError as error:
            wrong = error
        except (
            Exception
        ) as error:  # whatever a damaged file makes a reader raise; intact ones are not to blame
            if sealed and folder.is_dir():
                raise
            wrong = error
        if not cluster.everywhere(state is not None):
            if sealed and isinstance(wrong, Misfit):
                raise CheckpointError(
                    f"{folder}: {wrong}; it is of another configuration: choose another --name"
                )
            return None, first_line(wrong)
        if sealed:
            self._whole.add(step)
        else:
            note(
                f"checkpoint {step}: {found.wrong or 'it has no manifest'}; its arrays are what was recorded"
            )
            if self._keep is not None:
                cluster.from_first(lambda: self._seal(step, meta))
        return state, ""

    def _restore(self, step: int, specs, mesh, places=None):
        meta = self.meta(step)
        leaves = meta["leaves"]
        places = named_leaves(places or sharding.shardings(specs, mesh))
        template = {}
        for name, spec in named_leaves(specs).items():
            if name not in leaves:
                raise Misfit(f"it holds no {name}")
            saved = (tuple(leaves[name]["shape"]), leaves[name]["dtype"])
            if saved != (spec.shape, str(jnp.dtype(spec.dtype))):
                raise Misfit(
                    f"{name} is {saved[1]}{list(saved[0])}, not {jnp.dtype(spec.dtype)}{list(spec.shape)}"
                )
            template[name] = jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=places[name])
        more = sorted(set(leaves) - set(template))
        if more and self._keep is not None:  # a run goes on from all of a state, a reader takes a part
            raise Misfit(f"it holds {more[0]}, which this run has not")
        if digest_of({name: leaf["sums"] for name, leaf in leaves.items()}) != meta["state_digest"]:
            raise CheckpointError("the record of its arrays is not what was saved")
        item, ocp = nested(template), self._ocp
        restore = ocp.args.PyTreeRestore(
            item=item, restore_args=ocp.checkpoint_utils.construct_restore_args(item), partial_restore=True
        )
        arrays = self._orbax.restore(self.folder / str(step), args=ocp.args.Composite(state=restore))["state"]
        arrays = named_leaves(arrays)
        state = jax.tree.unflatten(jax.tree.structure(specs), [arrays[name] for name in template])
        sums, odd = looked_at(named_leaves(state), tuple(jax.tree.leaves(specs)))
        for name in template:
            if sums[name] != leaves[name]["sums"]:
                raise CheckpointError(f"{name} is not what was saved: its sums differ")
        if odd:
            raise CheckpointError(said_of(odd))
        return state, meta


def said_of(odd: dict[str, int]) -> str:
    """Which arrays hold how many numbers that are not finite."""
    name, count = next(iter(odd.items()))
    more = f", and {len(odd) - 1} more arrays hold such" * (len(odd) > 1)
    return f"{name} holds {count:,} number(s) that are not finite{more}"
