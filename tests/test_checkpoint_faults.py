"""Files that rot, vanish or do not fit on the disk: what a run believes, what it says, what it leaves."""

import errno
import json
import os
import resource
import shutil
import tarfile
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stored import (
    HARM,
    SETTINGS,
    SPECS,
    files_of,
    flip,
    owned,
    picture,
    restore,
    save,
    state_of,
    step_in,
    undone,
)
from training import mesh_of

from zoo import durable, manifest, steps
from zoo.__main__ import main
from zoo.errors import CheckpointError, NumericsError, StorageError
from zoo.lettered import ParamSpec


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """Steps 1 and 2, for tests that put everything back as it was."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    save(folder, 1, 2)
    return folder


@pytest.fixture
def folder(two_steps, tmp_path):
    """A copy of them, to be harmed."""
    return shutil.copytree(two_steps, tmp_path / "checkpoints")


# --- F: rot and loss ----------------------------------------------------------------------------------


def went_back(folder, path):
    """Whether step 1 is used for 2, with a word on the file; or 2 itself, if only its manifest is damaged."""
    notes = []
    step = step_in(folder, notes)
    if path.name == manifest.NAME:
        return step == 2 and len(notes) <= 1
    name = str(path.relative_to(folder / "2"))
    return step == 1 and len(notes) == 1 and notes[0].startswith(f"checkpoint 2 is damaged ({name}")


@pytest.mark.parametrize("harm", HARM)
def test_no_file_can_be_lost_unnoticed(two_steps, harm):
    for path in files_of(two_steps / "2"):
        with undone(two_steps / "2"):
            HARM[harm](path)
            assert went_back(two_steps, path), path


def places(folder, count, random):
    """(file, byte): half uniform over the bytes of a step, half over its files."""
    files = files_of(folder)
    sizes = np.array([path.stat().st_size for path in files])
    for shares in (sizes / sizes.sum(), None):
        for index in random.choice(len(files), count // 2, p=shares):
            yield files[index], int(random.integers(sizes[index]))


def test_no_flipped_bit_is_believed(two_steps):
    random = np.random.default_rng(0)
    for path, place in places(two_steps / "2", 100, random):
        bit = 8 * place + int(random.integers(8))
        flip(path, bit)
        assert went_back(two_steps, path), (path, bit)
        flip(path, bit)


def test_what_is_intact_raises_no_alarm(two_steps):
    for _ in range(25):
        assert step_in(two_steps, [pytest.fail]) == 2


@pytest.mark.long
def test_two_thousand_faults_are_noticed_and_a_thousand_clean_loads_are_clean(two_steps):
    random, done = np.random.default_rng(1), dict.fromkeys(["bit", "byte", "page", "cut", "swap", *HARM], 0)
    for path, place in places(two_steps / "2", 2100, random):
        kind = str(random.choice(list(done)))
        before = path.read_bytes()
        content = bytearray(before)
        other = files_of(two_steps / "2")[int(random.integers(len(files_of(two_steps / "2"))))]
        with undone(two_steps / "2"):
            if kind in HARM:
                HARM[kind](path)
            elif kind == "swap":
                content = bytearray(other.read_bytes())
                other.write_bytes(before)
            elif kind == "page":
                content[place // 4096 * 4096 :][:4096] = b""
                content[place // 4096 * 4096 : place // 4096 * 4096 + 4096] = bytes(
                    len(before[place // 4096 * 4096 :][:4096])
                )
            elif kind == "cut":
                content = content[:place]
            else:
                content[place] ^= (
                    1 << int(random.integers(8)) if kind == "bit" else 1 + int(random.integers(255))
                )
            if kind not in HARM:
                path.write_bytes(content)
            changed = picture(two_steps / "2") != picture(two_steps.with_name("kept"))
            notes = []
            step = step_in(two_steps, notes)
            only_manifest = path.name == manifest.NAME and (kind != "swap" or other == path)
            if kind == "swap" and manifest.NAME in (path.name, other.name) and other != path:
                assert step == 1 or step == 2, (kind, path, other)  # without a manifest by the arrays' sums
            elif changed:
                assert step == (2 if only_manifest else 1) and notes, (kind, path, place)
            else:
                assert step == 2 and not notes, (kind, path)
            done[kind] += changed
    print(done, sum(done.values()))
    assert sum(done.values()) >= 2000
    for _ in range(1000):
        assert step_in(two_steps, [pytest.fail]) == 2


def test_where_every_step_is_damaged_nothing_begins_anew(folder):
    for path in files_of(folder):
        if path.parent.name == "d":
            flip(path, 99)
    before = picture(folder)
    with pytest.raises(CheckpointError, match=r"2 checkpoint.s. found and none is intact"):
        restore(folder, keep=2)
    assert picture(folder) == before


def test_a_copied_run_is_as_good(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copied")
    with tarfile.open(tmp_path / "run.tar", "w") as tar:
        tar.add(folder, "packed")
    with tarfile.open(tmp_path / "run.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "linked").symlink_to(folder)
    assert [step_in(tmp_path / name) for name in ("copied", "packed", "linked")] == [2, 2, 2]
    folder.rename(tmp_path / "moved")
    save(tmp_path / "moved", 3)
    assert step_in(tmp_path / "moved", [pytest.fail]) == 3


# --- A: killed on the way -----------------------------------------------------------------------------


def test_a_step_without_a_manifest_is_believed_by_its_arrays_and_then_sealed(folder):
    (folder / "2" / manifest.NAME).unlink()
    notes = []
    assert step_in(folder, notes) == 2 and "it has no manifest" in notes[0]
    assert not (folder / "2" / manifest.NAME).exists()  # a reader changes nothing
    assert step_in(folder, notes, keep=2) == 2 and len(notes) == 2
    assert step_in(folder, [pytest.fail]) == 2 and manifest.look(folder / "2").sealed


def test_a_step_without_a_manifest_and_with_other_bits_is_not(folder):
    (folder / "2" / manifest.NAME).unlink()
    largest = max(files_of(folder / "2"), key=lambda path: path.stat().st_size)
    flip(largest, 8 * 1000)
    notes = []
    assert step_in(folder, notes, keep=2) == 1 and notes[0].startswith("checkpoint 2 is damaged")
    assert (folder.with_name("checkpoints-damaged") / "2").is_dir() and steps.numbered(folder) == [1]


def test_a_kill_between_the_step_and_its_manifest_costs_nothing(folder, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(durable, "replace", killed)
        save(folder, 3)
    assert step_in(folder, keep=2) == 3 and manifest.look(folder / "3") == manifest.Finding(True, "")


def test_what_killed_runs_leave_is_swept_by_the_owner_alone(folder):
    for name in ("3.orbax-checkpoint-tmp", "0.removed"):
        shutil.copytree(folder / "1", folder / name)
    (folder / "2" / f".{manifest.NAME}.partial").write_text("{")
    before = picture(folder)
    assert step_in(folder, [pytest.fail]) == 2 and picture(folder) == before
    assert step_in(folder, [pytest.fail], keep=2) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


def test_the_newest_two_that_are_whole_stay_and_others_go(tmp_path):
    folder = tmp_path / "checkpoints"
    save(folder, *range(1, 6), keep=3)
    assert steps.numbered(folder) == [3, 4, 5]
    save(folder, 6, keep=1)
    assert steps.numbered(folder) == [5, 6]


def test_the_step_a_run_went_on_from_stays_until_another_is_whole(folder, monkeypatch):
    with owned(folder, keep=1) as checkpoints:
        assert int(checkpoints.restore(SPECS, mesh_of(), pytest.fail).step) == 2
        with monkeypatch.context() as patched, pytest.raises(StorageError):
            patched.setattr(manifest, "seal", full)
            checkpoints.save(state_of(3), SPECS, SETTINGS)
            checkpoints.wait()
        assert steps.numbered(folder) == [1, 2, 3]
        checkpoints.save(state_of(4), SPECS, SETTINGS)
        checkpoints.wait()
        assert steps.numbered(folder) == [2, 4]
        checkpoints.save(state_of(5), SPECS, SETTINGS)
        checkpoints.wait()
        assert steps.numbered(folder) == [4, 5]


def test_a_save_that_fails_in_the_background_ends_the_run(folder, monkeypatch):
    """Whether the loop asks, or the next save comes, or the run ends right after it."""

    def poll(checkpoints):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            checkpoints.poll()
            time.sleep(0.01)

    ways = (poll, lambda c: c.save(state_of(9), SPECS, SETTINGS), lambda c: c.wait(), lambda c: None)
    monkeypatch.setattr(manifest, "seal", full)
    for number, way in enumerate(ways, 3):
        with pytest.raises(StorageError, match="No space left"), owned(folder) as checkpoints:
            checkpoints.save(state_of(number), SPECS, SETTINGS)
            way(checkpoints)
    assert step_in(folder) == 6  # written, only not sealed


def test_what_is_saved_is_the_state_of_the_call(tmp_path):
    change = jax.jit(lambda x: 0 * x - 1, donate_argnums=0)
    for number in range(1, 6):
        folder = tmp_path / str(number)
        with owned(folder) as checkpoints:
            state = state_of(number)
            checkpoints.save(state, SPECS, SETTINGS)
            jax.block_until_ready(change(state.params["w"]))
        assert step_in(folder) == number


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- E, G: another state, and none ---------------------------------------------------------------------


def specs_with(**changes):
    """SPECS, as another configuration would have them."""
    wide = ParamSpec("DF", (96, 65), (96, 65), jnp.float32)
    half = ParamSpec("DF", (96, 64), (96, 64), jnp.bfloat16)
    parts = {"shape": {"w": wide}, "dtype": {"w": half}, "renamed": {"v": SPECS.params["w"]}, "fewer": {}}
    parts |= {"more": SPECS.params | {"z": wide}}
    return type(SPECS)(SPECS.step, parts[changes["params"]], SPECS.opt_state, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("shape", r"params/w is float32\[96, 64\], not float32\[96, 65\]"),
        ("dtype", r"params/w is float32\[96, 64\], not bfloat16\[96, 64\]"),
        ("renamed", "it holds no params/v"),
        ("more", "it holds no params/z"),
        ("fewer", "it holds params/w, which this run has not"),
    ],
)
def test_a_state_of_another_tree_is_refused_and_the_array_named(folder, change, said):
    before = picture(folder)
    with pytest.raises(CheckpointError, match=f"checkpoints/2: {said}; it is of another configuration"):
        restore(folder, [pytest.fail], keep=2, specs=specs_with(params=change))
    assert picture(folder) == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["params/w", "opt_state/mu"])
def test_a_number_that_is_not_finite_is_never_stored(folder, part, value):
    state, before = state_of(3), picture(folder)
    tree = getattr(state, part.split("/")[0])
    tree[part.split("/")[1]] = tree[part.split("/")[1]].at[95, 63].set(value)
    with pytest.raises(NumericsError, match=rf"step 3 is not saved: {part} holds 1 number"):
        save(folder, 3, state=state)
    assert picture(folder) == before


# --- F4 to F9: the disk -------------------------------------------------------------------------------


def test_a_disk_without_room_for_two_checkpoints_is_refused_with_both_numbers(folder, tmp_path, monkeypatch):
    size = 2 * 96 * 64 * 4 + 2 * 4
    for free, there, is_refused in (
        (2 * size - 1, tmp_path / "new", True),
        (2 * size, tmp_path / "new", False),
        (size, folder, False),
        (size - 1, folder, True),
    ):
        usage = shutil._ntuple_diskusage(10**12, 0, free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        with owned(there) as checkpoints:
            if not is_refused:
                checkpoints.require_room(SPECS)
                continue
            wanted = size if there == folder else 2 * size
            with pytest.raises(StorageError, match=f"{free:,} bytes are free .* need {wanted:,} more"):
                checkpoints.require_room(SPECS)


@pytest.mark.parametrize("limit", [20_000, 400])
def test_files_that_may_not_grow_end_the_run_and_harm_nothing(folder, limit):
    """As a full disk or a quota does: no file may be longer than `limit`, the arrays' or the small ones."""
    before, started = [picture(folder / name) for name in ("1", "2")], time.monotonic()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(StorageError, match="cannot be written .*too large"), owned(folder) as checkpoints:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            checkpoints.save(state_of(3), SPECS, SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert time.monotonic() - started < 30
    assert [picture(folder / name) for name in ("1", "2")] == before
    assert step_in(folder, [pytest.fail], keep=2) == 2
    save(folder, 4)
    assert step_in(folder, [pytest.fail]) == 4


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_disk_that_is_full_when_the_manifest_is_written(folder, monkeypatch, call):
    with monkeypatch.context() as patched, pytest.raises(StorageError, match="No space left"):
        target = (durable, "flush") if call == "open" else (os, call)
        patched.setattr(*target, full)
        with owned(folder) as checkpoints:
            checkpoints.save(state_of(3), SPECS, SETTINGS)
    assert step_in(folder, keep=2) in (2, 3)
    assert manifest.look(folder / "2") == manifest.Finding(True, "")


def test_a_folder_that_changes_under_a_run_is_noticed_at_the_next_save(folder):
    def refused(match):
        with pytest.raises(StorageError, match=match):
            checkpoints.save(state_of(3), SPECS, SETTINGS)
        assert not (folder / "3").exists()

    with owned(folder) as checkpoints:
        checkpoints.restore(SPECS, mesh_of(), pytest.fail)
        (folder / "2").rename(folder.with_name("2"))
        refused("checkpoints/2 is gone")
        assert step_in(folder, [pytest.fail]) == 1
        folder.with_name("2").rename(folder / "2")
        folder.rename(folder.with_name("elsewhere"))
        refused("checkpoints is gone")
        assert step_in(folder.with_name("elsewhere"), [pytest.fail]) == 2


def test_a_folder_that_may_not_be_written_is_noticed_at_once(folder, monkeypatch):
    with owned(folder) as checkpoints, pytest.raises(StorageError, match="cannot be written"):
        monkeypatch.setattr(os, "access", lambda *_: False)
        checkpoints.save(state_of(3), SPECS, SETTINGS)


@pytest.mark.parametrize("kind", ["a file", "a link to nowhere", "too long", "under a file"])
def test_a_place_that_is_none_is_one_line(tmp_path, kind):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    names = {"a file": "file", "a link to nowhere": "link", "too long": "x" * 300, "under a file": "file/x"}
    started = time.monotonic()
    with pytest.raises(StorageError, match="cannot be written") as error, owned(tmp_path / names[kind]):
        pass
    assert "\n" not in str(error.value) and time.monotonic() - started < 15


def test_crashes_do_not_fill_the_disk(tmp_path, monkeypatch):
    """However often a run is killed in the midst of a save, it leaves what it keeps and one step more."""
    folder = tmp_path / "checkpoints"
    save(folder, 1, 2, keep=2)
    for number in range(3, 13):
        with monkeypatch.context() as patched, pytest.raises(StorageError):
            patched.setattr(*((manifest, "seal") if number % 2 else (durable, "replace")), full)
            save(folder, number, keep=2)
        assert step_in(folder, keep=2) == number
        assert len(list(folder.iterdir())) <= 3
    assert not folder.with_name("checkpoints-damaged").exists()


# --- K: others beside the run -------------------------------------------------------------------------


def read_beside(folder, rounds):
    """Restores without a pause, while a run saves and deletes: {step: how often}, and what was said."""
    found, notes, done = {}, [], threading.Event()

    def write():
        with jax.set_mesh(mesh_of()):
            save(folder, *range(3, 3 + rounds), keep=2)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        step = step_in(folder, notes)
        found[step] = found.get(step, 0) + 1
    writer.join()
    return found, [note for note in notes if "damaged" in note]


def test_a_reader_beside_a_run_sees_whole_steps_and_no_damage(folder):
    found, notes = read_beside(folder, rounds=8)
    assert None not in found and not notes


@pytest.mark.long
def test_a_reader_beside_a_run_a_thousand_times(folder):
    count = 0
    while count < 1000:
        found, notes = read_beside(shutil.copytree(folder, folder.with_name(f"run{count}")), rounds=100)
        assert None not in found and not notes
        count += sum(found.values())
    print(count)


def test_the_verb_lists_what_there_is_and_what_is_wrong(folder, capsys):
    (folder.parent / "config.json").write_text("{}")
    command = ["checkpoints", str(folder.parent)]
    assert main(command) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    said = json.loads(last)
    assert [each["state"] for each in said["checkpoints"]] == ["verified"] * 2 and said["continues_at"] == 2
    assert len(lines) == 2 and lines[1].endswith("a restart goes on here")

    before = picture(folder)
    name = next(iter(sorted(manifest.read(folder / "2").files)))
    flip(folder / "2" / name, 3)
    (folder / "1" / manifest.NAME).rename(folder / "manifest")
    assert main(command) == 4
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [each["state"] for each in said["checkpoints"]] == ["not sealed", "damaged"]
    assert said["checkpoints"][1]["wrong"] == f"{name} is not what was written" and said["continues_at"] == 1
    flip(folder / "2" / name, 3)
    (folder / "manifest").rename(folder / "1" / manifest.NAME)
    assert picture(folder) == before
    assert main(["checkpoints", str(folder / "nowhere")]) == 4
    assert "config.json" in capsys.readouterr().err
