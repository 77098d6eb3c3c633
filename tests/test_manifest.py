"""A step's files and what its manifest says of them. No arrays here: bytes in, a verdict out."""

import errno
import json
import os
import shutil
import zlib

import pytest
from stored import HARM, files_of, flip, picture

from zoo import durable, manifest, steps
from zoo.errors import CheckpointError, StorageError

SAID = {"state_digest": "0123", "settings": "4567"}


@pytest.fixture
def step(tmp_path):
    """A step as any writer may have left it: nested, with an empty file."""
    folder = tmp_path / "checkpoints" / "12"
    (folder / "state" / "d").mkdir(parents=True)
    (folder / "state" / "d" / "a").write_bytes(bytes(range(256)) * 40)
    (folder / "state" / "d" / "b").write_bytes(bytes(range(255, -1, -1)) * 40)
    (folder / "state" / "empty").write_bytes(b"")
    (folder / "meta").write_text("{}")
    return folder


def test_a_manifest_says_what_zlib_says_of_every_file(step):
    made = manifest.seal(step, **SAID)
    assert set(made.files) == {"state/d/a", "state/d/b", "state/empty", "meta"}
    for name, (size, *sums) in made.files.items():
        content = (step / name).read_bytes()
        assert size == len(content) and sums == [zlib.crc32(content)] * bool(content)
    assert manifest.read(step) == made and made.bytes == 2 * 10_240 + 2
    assert manifest.look(step) == manifest.Finding(True, "")


def test_a_large_file_is_summed_in_blocks_and_each_is_compared(step, monkeypatch):
    monkeypatch.setattr(manifest, "BLOCK", 1024)
    monkeypatch.setattr(manifest, "READ", 64)
    content = (step / "state" / "d" / "a").read_bytes()
    sums = [zlib.crc32(content[at : at + 1024]) for at in range(0, len(content), 1024)]
    assert manifest.seal(step, **SAID).files["state/d/a"] == [len(content), *sums]
    for place in range(0, len(content), 500):
        flip(step / "state" / "d" / "a", 8 * place + 3)
        assert manifest.look(step).wrong == "state/d/a is not what was written"
        flip(step / "state" / "d" / "a", 8 * place + 3)
    assert not manifest.look(step).wrong
    (step / "state" / "d" / "a").write_bytes(content + b"more")  # in no block of the ten
    assert manifest.look(step).wrong == "state/d/a has 10,244 bytes, not 10,240"


@pytest.mark.parametrize("harm", HARM)
def test_harm_to_any_file_is_named(step, harm):
    names = manifest.seal(step, **SAID).files
    before = picture(step)
    for name in set(names) - {"state/empty"}:
        HARM[harm](step / name)
        found = manifest.look(step)
        assert found.sealed and found.wrong.startswith(name), found
        shutil.rmtree(step)
        for path, content in before.items():
            (step / path).parent.mkdir(parents=True, exist_ok=True)
            (step / path).write_bytes(content)
    assert not manifest.look(step).wrong


def test_files_and_steps_that_have_changed_places_are_noticed(step):
    manifest.seal(step, **SAID)
    a, b = step / "state" / "d" / "a", step / "state" / "d" / "b"
    shutil.copytree(step, step.with_name("13"))
    assert manifest.look(step.with_name("13")).wrong == "MANIFEST.json is of step 12"
    a.rename(a.with_name("c")), b.rename(a), a.with_name("c").rename(b)
    assert manifest.look(step).wrong == "state/d/a is not what was written"


def test_what_is_beside_the_files_of_a_step_does_no_harm(step):
    manifest.seal(step, **SAID)
    (step / "state" / ".nfs0001").write_text("left by a file system")
    assert not manifest.look(step).wrong


def test_no_flipped_bit_of_a_manifest_makes_another_of_it(step):
    made = manifest.seal(step, **SAID)
    path = step / manifest.NAME
    for bit in range(0, 8 * path.stat().st_size, 5):
        flip(path, bit)
        with pytest.raises(CheckpointError, match="is damaged"):
            manifest.read(step)
        flip(path, bit)
    assert manifest.read(step) == made


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "7", '"x"', "{", "[" * 100_000, '{"files": 3}', '{"crc32": 0, "previous": 1}'],
)
def test_a_manifest_that_is_none_is_damage_and_no_crash(step, content):
    manifest.seal(step, **SAID)
    (step / manifest.NAME).write_text(content)
    assert manifest.look(step) == manifest.Finding(False, "MANIFEST.json is damaged")


def test_a_manifest_leads_nowhere_else(step):
    made = manifest.seal(step, **SAID)
    for name in ("../../secret", "/etc/passwd"):
        other = manifest.Manifest(12, "0123", "4567", None, made.files | {name: [0]})
        content = {**vars(other), "crc32": other.crc32}
        (step / manifest.NAME).write_text(json.dumps(content))
        assert manifest.look(step).wrong == "MANIFEST.json is damaged"


def test_without_a_manifest_nothing_is_proved(step):
    assert manifest.look(step) == manifest.Finding(False, "")
    assert manifest.look(step.with_name("99")) == manifest.Finding(False, "")


def test_a_manifest_knows_the_one_before(step):
    first = manifest.seal(step, **SAID)
    shutil.copytree(step, step.with_name("20"), ignore=shutil.ignore_patterns(manifest.NAME))
    shutil.copytree(step, step.with_name("16"), ignore=shutil.ignore_patterns(manifest.NAME))
    assert first.previous is None
    assert manifest.seal(step.with_name("20"), **SAID).previous == (12, first.crc32)  # 16 has none


def test_processes_share_the_files_of_a_step(step):
    manifest.seal(step, **SAID)
    flip(step / "state" / "d" / "b", 5)
    wrong = [manifest.look(step, share=(index, 3)).wrong for index in range(3)]
    assert sorted(wrong) == ["", "", "state/d/b is not what was written"]
    assert not manifest.look(step, only="meta").wrong


def test_every_byte_is_on_the_disk_before_the_manifest_is(step, monkeypatch):
    """A loss of power leaves files that were flushed, and names that were flushed with their folder."""
    flushed, at_rename = [], []
    fsync, rename = os.fsync, os.replace

    def noting(descriptor):
        flushed.append(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def renaming(old, new):
        at_rename.extend(flushed)
        rename(old, new)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(os, "replace", renaming)
    manifest.seal(step, **SAID)
    needed = {*files_of(step), *(path for path in step.rglob("*") if path.is_dir()), step, step.parent}
    needed = {str(path.resolve()) for path in needed if path.name != manifest.NAME}
    assert needed <= set(at_rename)
    partial = str(step.resolve() / f".{manifest.NAME}.partial")
    assert at_rename[-1] == partial and flushed[-1] == str(step.resolve())


def test_a_loss_of_power_before_the_flush_is_noticed(step, monkeypatch):
    """Were a file not flushed, its bytes might be gone while the manifest is there: then it is damage."""
    manifest.seal(step, **SAID)
    for name in ("state/d/a", "meta"):
        content = (step / name).read_bytes()
        (step / name).write_bytes(bytes(len(content)))  # the length is there, the blocks are not
        assert manifest.look(step).wrong == f"{name} is not what was written"
        (step / name).write_bytes(content)


def test_a_sector_that_cannot_be_read_is_damage_and_a_lack_of_descriptors_is_not(step, monkeypatch):
    manifest.seal(step, **SAID)
    for code in (errno.EIO, errno.EMFILE):

        def failing(path, start, code=code):
            raise OSError(code, os.strerror(code), str(path))

        monkeypatch.setattr(manifest, "_checksum", failing)
        if code == errno.EIO:
            assert manifest.look(step).wrong == "meta cannot be read (Input/output error)"
        else:
            with pytest.raises(StorageError, match="cannot be read .*Too many open files"):
                manifest.look(step)


# --- the folder of steps ------------------------------------------------------------------------------


def test_only_a_folder_whose_name_is_a_number_is_a_step(tmp_path):
    for name in ("1", "9", "20", "3.orbax-checkpoint-tmp", "4.removed", "05", "-6", "six", "\u0661", "1e3"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    assert steps.numbered(tmp_path) == [1, 9, 20]
    assert steps.numbered(tmp_path / "nowhere") == []
    steps.sweep(tmp_path)
    assert not (tmp_path / "3.orbax-checkpoint-tmp").exists() and not (tmp_path / "4.removed").exists()
    assert (tmp_path / "six").exists()


def test_a_step_has_lost_its_number_before_it_loses_a_file(step, monkeypatch):
    """Killed at any moment of a deletion, a run leaves whole steps and what is swept at the next start."""
    manifest.seal(step, **SAID)
    shutil.copytree(step, step.with_name("kept"))
    for unlinked in range(5):
        left = [unlinked]

        def killed(path, ignore_errors, left=left):
            for each in files_of(path):
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                each.unlink()

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(shutil, "rmtree", killed)
            steps.remove(step.parent, [12])
        assert steps.numbered(step.parent) == []
        steps.sweep(step.parent)
        assert [path.name for path in step.parent.iterdir()] == ["kept"]
        shutil.copytree(step.with_name("kept"), step)


def test_a_replaced_file_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    durable.replace(path, "old")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
            patched.setattr(os, name, full)
            durable.replace(path, "new")
        assert path.read_text() == "old"
    durable.replace(path, "new")
    assert path.read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
