"""Stop anywhere, go on exactly; restore on any mesh; never trust a damaged file."""

import shutil

import jax
import numpy as np
import pytest
from training import eight_devices, families, mesh_of, parts_of, train, two_families

from zoo.checkpoint import Checkpoints
from zoo.digest import state_digest
from zoo.errors import CheckpointError, StorageError
from zoo.lettered import ParamSpec
from zoo.models import MODELS
from zoo.tree import named_leaves, nested

STEPS = 6


def saved(folder, parts, state, mesh, keep=10):
    with jax.set_mesh(mesh), Checkpoints(folder, keep) as checkpoints:
        checkpoints.save(state, parts.specs(), {"note": "test"})


def restored(folder, parts, mesh, notes=None):
    notes = [] if notes is None else notes
    with jax.set_mesh(mesh), Checkpoints(folder) as checkpoints:
        return checkpoints.restore(parts.specs(), mesh, notes.append)


def bits(state):
    return {name: np.asarray(x).tobytes() for name, x in named_leaves(state).items()}


@two_families
def test_a_run_stopped_at_any_step_ends_as_if_it_had_not_been(kind, tmp_path):
    """Dropout, schedule, accumulation and average on; compared bit by bit."""
    parts, mesh = parts_of(kind, accumulate=2, average_decay=0.9, steps=STEPS), mesh_of()
    whole, losses = train(parts, mesh, stop=STEPS)
    for stop in range(STEPS + 1):
        state, before = train(parts, mesh, stop=stop)
        saved(tmp_path / str(stop), parts, state, mesh)
        state = restored(tmp_path / str(stop), parts, mesh)
        state, after = train(parts, mesh, state, start=stop, stop=STEPS)
        assert before + after == losses
        assert bits(state) == bits(whole)


@two_families
@eight_devices
def test_restoring_on_another_mesh_is_exact(kind, tmp_path):
    parts = parts_of(kind)
    state, _ = train(parts, mesh_of((2, 2, 2)), stop=2)
    saved(tmp_path, parts, state, mesh_of((2, 2, 2)))
    for sizes in [(1, 8, 1), (1, 2, 4), (1, 1, 1), (1, 2, 1)]:  # tests/test_meshes.py has all pairs
        found = restored(tmp_path, parts, mesh_of(sizes))
        assert bits(found) == bits(state)
        assert state_digest(found, parts.specs()) == state_digest(state, parts.specs())


@families
def test_any_flipped_bit_is_noticed_and_the_step_before_is_used(kind, tmp_path):
    parts, mesh = parts_of(kind), mesh_of()
    state, _ = train(parts, mesh, stop=1)
    saved(tmp_path, parts, state, mesh)
    later, _ = train(parts, mesh, state, start=1, stop=2)
    first = bits(restored(tmp_path, parts, mesh))
    saved(tmp_path, parts, later, mesh)
    files = [
        path for path in (tmp_path / "2" / "state").rglob("*") if path.is_file() and path.stat().st_size > 200
    ]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    notes = []
    assert bits(restored(tmp_path, parts, mesh, notes)) == first
    assert len(notes) == 1 and notes[0].startswith("checkpoint 2 is damaged")
    assert (tmp_path / "2").exists()  # a reader changes nothing

    with (
        jax.set_mesh(mesh),
        Checkpoints(tmp_path, 10) as checkpoints,
    ):  # the run itself goes on and saves again
        assert bits(checkpoints.restore(parts.specs(), mesh, notes.append)) == first
        checkpoints.save(later, parts.specs(), {})
    assert bits(restored(tmp_path, parts, mesh, notes)) == bits(later)
    assert len(notes) == 2


@families
def test_only_damaged_checkpoints_are_an_error_and_not_a_fresh_start(kind, tmp_path):
    parts, mesh = parts_of(kind), mesh_of()
    state, _ = train(parts, mesh, stop=1)
    saved(tmp_path, parts, state, mesh)
    for path in (tmp_path / "1" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="1 checkpoint.s. found and none is intact"):
        restored(tmp_path, parts, mesh)


def test_a_reader_does_not_disturb_the_save_in_flight(tmp_path):
    parts, mesh = parts_of(next(iter(MODELS))), mesh_of()
    state, _ = train(parts, mesh, stop=1)
    saved(tmp_path, parts, state, mesh)
    in_flight = tmp_path / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "1", in_flight)
    assert bits(restored(tmp_path, parts, mesh)) == bits(state)
    assert in_flight.exists()
    later, _ = train(parts, mesh, state, start=1, stop=2)
    saved(tmp_path, parts, later, mesh)  # the owner sweeps what a killed run left, and saves that step
    assert not in_flight.exists()
    assert bits(restored(tmp_path, parts, mesh)) == bits(later)


def test_a_step_that_is_not_saved_is_an_error(tmp_path):
    parts, mesh = parts_of(next(iter(MODELS))), mesh_of()
    state, _ = train(parts, mesh, stop=1)
    saved(tmp_path, parts, state, mesh)
    with (
        jax.set_mesh(mesh),
        Checkpoints(tmp_path, 2) as checkpoints,
        pytest.raises(Exception, match="step 1"),
    ):
        checkpoints.save(state, parts.specs(), {})


def test_no_checkpoint_is_none(tmp_path):
    assert restored(tmp_path, parts_of(next(iter(MODELS))), mesh_of()) is None


@families
def test_a_checkpoint_of_another_shape_names_the_array(kind, tmp_path):
    parts, mesh = parts_of(kind), mesh_of()
    state, _ = train(parts, mesh, stop=1)
    saved(tmp_path, parts, state, mesh)
    with pytest.raises(CheckpointError, match="1: it holds no average.*another configuration"):
        restored(tmp_path, parts_of(kind, average_decay=0.5), mesh)


@families
def test_the_parameters_alone_can_be_restored(kind, tmp_path):
    parts, mesh = parts_of(kind), mesh_of()
    state, _ = train(parts, mesh, stop=1)
    saved(tmp_path, parts, state, mesh)
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.restore({"params": parts.model.abstract()}, mesh, pytest.fail)
    assert bits(found["params"]) == bits(state.params)


def test_the_digest_sees_every_bit_and_its_place_but_no_padding():
    specs = {"table": ParamSpec("VD", (128, 4), (100, 4), np.float32), "n": ParamSpec("", (), (), np.int32)}
    table, n = np.zeros((128, 4), np.float32), np.int32(7)
    table[:100] = np.random.default_rng(0).normal(size=(100, 4))
    digest = state_digest({"table": table, "n": n}, specs)

    swapped, low_bit, padded = table.copy(), table.copy(), table.copy()
    swapped[3], swapped[50] = table[50], table[3]
    low_bit.view(np.uint32)[99, 3] ^= 1
    padded[100:] = 1.0
    assert state_digest({"table": table.copy(), "n": n}, specs) == digest
    assert state_digest({"table": swapped, "n": n}, specs) != digest
    assert state_digest({"table": low_bit, "n": n}, specs) != digest
    assert state_digest({"table": table, "n": n + 1}, specs) != digest
    assert state_digest({"table": padded, "n": n}, specs) == digest


def test_names_and_nesting_are_inverse():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert nested(named_leaves(tree)) == tree


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written") as error:
        Checkpoints(tmp_path / "file" / "checkpoints", 2)
    assert "\n" not in str(error.value)
