"""A step computed twice: processors that now and then compute something else give themselves away by it.

    state ─┬─ copy ── step ── sums ─┐
           └───────── step ── sums ─┴─ equal? and on every device that holds the same part, equal?

Silent data corruption: six of 466 interruptions of Llama 3's training were put down to it, and none of them
raises anything by itself. One and the same program from the same state and batch gives the same bits, on CPUs
and TPUs and, with `deterministic`, on GPUs. Sums stand for the bits (zoo/digest.py): any one flipped bit
changes them. What they cannot see is a part that lies on one device alone and was wrong before the step.

The copy is the price: a second train state lives for that step, and it takes twice as long.
"""

from collections.abc import Callable, Iterator

import jax
import numpy as np

from zoo.digest import bit_sums
from zoo.errors import NumericsError
from zoo.sharding import on_each_device
from zoo.tree import named_leaves

Sums = dict[str, np.ndarray]
"""{leaf: the two sums of what each device of the mesh holds of it, [devices, 2]}."""


def audited(step: Callable, mesh, event: Callable) -> Callable:
    """`step`, which is computed twice and must give the same twice, and the same on all devices that hold the
    same. Else an event (Reporter.event) and NumericsError, both with the leaf and the device."""

    def twice(state, batch):
        copy = jax.tree.map(lambda x: jax.device_put(x.copy(), x.sharding), state)
        once = step(copy, batch)
        places, before = places_of(once, mesh), sums_of(once, mesh)
        del once
        again = step(state, batch)
        for leaf, device, how in (*differences(before, sums_of(again, mesh)), *unlike(before, places)):
            number, name = int(again[0].step), str(mesh.devices.flat[device])
            what = f"{leaf} on {name} is not {how}"
            event("corrupt", number, what, leaf=leaf, device=name)
            raise NumericsError(
                f"step {number}: {what}: a processor that computes wrongly and says nothing; take that "
                "machine out and start again, from the last checkpoint"
            )
        return again

    return twice


def sums_of(tree, mesh) -> Sums:
    """The sums of every array of a tree, device by device."""
    leaves = named_leaves(tree)
    sums = on_each_device(bit_sums, list(leaves.values()), mesh)
    return dict(zip(leaves, jax.device_get(sums), strict=True))


def places_of(tree, mesh) -> dict[str, list[str]]:
    """{leaf: which part of the array each device holds}."""
    found = {}
    for name, x in named_leaves(tree).items():
        parts = x.sharding.devices_indices_map(x.shape)
        found[name] = [str(parts[device]) for device in mesh.devices.flat]
    return found


def differences(before: Sums, after: Sums) -> Iterator[tuple[str, int, str]]:
    """(leaf, which device of the mesh, what it should be) where two runs of a step differ."""
    for name, sums in before.items():
        for device in np.flatnonzero((sums != after[name]).any(axis=1)).tolist():
            yield name, device, "the same when it is computed again"


def unlike(sums: Sums, places: dict[str, list[str]]) -> Iterator[tuple[str, int, str]]:
    """The same where devices that hold the same part of an array hold other bits. Of three or more the odd
    one is named."""
    for name, found in places.items():
        for part in dict.fromkeys(found):
            devices = [device for device, each in enumerate(found) if each == part]
            kinds, which, counts = np.unique(
                sums[name][devices], axis=0, return_inverse=True, return_counts=True
            )
            if len(kinds) > 1:
                odd = devices[int(np.flatnonzero(which.reshape(-1) == counts.argmin())[0])]
                yield name, odd, "what the other devices hold"
