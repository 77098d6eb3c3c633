"""What the tests of checkpoints share: a state that is saved in no time, and ways to damage its files."""

import contextlib
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training import mesh_of

from zoo.checkpoint import Checkpoints
from zoo.lettered import ParamSpec
from zoo.state import TrainState
from zoo.tree import named_leaves

SHAPE = (96, 64)
SPEC = ParamSpec("DF", SHAPE, SHAPE, jnp.float32)
COUNT = ParamSpec("", (), (), jnp.int32)
SPECS = TrainState(step=COUNT, params={"w": SPEC}, opt_state={"mu": SPEC, "count": COUNT}, average=None)
SETTINGS = {"recipe": {"name": "tiny"}, "data_digest": "0123"}


def state_of(step: int) -> TrainState:
    """Random numbers that differ from step to step."""
    random = np.random.default_rng(step)
    w, mu = (jnp.asarray(random.normal(size=SHAPE), jnp.float32) for _ in range(2))
    return TrainState(jnp.int32(step), {"w": w}, {"mu": mu, "count": jnp.int32(step)}, None)


def save(folder: Path, *steps: int, keep: int = 10, specs=SPECS, state=None) -> None:
    """What a run does that takes these steps, from where it is."""
    with owned(folder, keep) as checkpoints:
        for step in steps:
            checkpoints.save(state or state_of(step), specs, SETTINGS)


@contextlib.contextmanager
def owned(folder: Path, keep: int = 10):
    with jax.set_mesh(mesh_of()), Checkpoints(folder, keep) as checkpoints:
        yield checkpoints


def restore(folder: Path, note=pytest.fail, *, keep: int | None = None, specs=SPECS):
    """As a reader does, or with `keep` the owner. Whoever expects something to be noted hands in `note`."""
    with jax.set_mesh(mesh_of()), Checkpoints(folder, keep) as checkpoints:
        return checkpoints.restore(specs, mesh_of(), note)


def step_in(folder: Path, note=pytest.fail, **more) -> int | None:
    """Which step is restored: its number, if every bit of it is what was saved."""
    state = restore(folder, note, **more)
    if state is None:
        return None
    step = int(state.step)
    for name, x in named_leaves(state_of(step)).items():
        assert np.asarray(named_leaves(state)[name]).tobytes() == np.asarray(x).tobytes(), (step, name)
    return step


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def picture(folder: Path) -> dict[str, bytes]:
    """Every file and what it holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_of(folder)}


@contextlib.contextmanager
def undone(step: Path):
    """Whatever happens to the folder of a step inside, it is as it was afterwards."""
    kept = step.parent.with_name("kept")
    shutil.copytree(step, kept)
    try:
        yield
    finally:
        shutil.rmtree(step)
        kept.rename(step)


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


# {what befalls a file: how}
HARM = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "renamed": lambda path: path.rename(path.with_name(path.name + ".old")),
}
