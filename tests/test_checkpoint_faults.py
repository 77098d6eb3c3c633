"""Files that rot, vanish and do not fit on the disk: what a run believes, what it says, and what it leaves."""

import numpy as np
import pytest
import stored
from stored import HARM, files_of, flip, restore, save, step_in, undone

from zoo import manifest
from zoo.errors import CheckpointError


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """Steps 1 and 2, for tests that put everything back as it was."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    save(folder, 1, 2)
    return folder


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


def flips(folder, count, seed):
    """(file, bit): half uniform over the bits of a step, half over its files."""
    random, files = np.random.default_rng(seed), files_of(folder)
    sizes = np.array([path.stat().st_size for path in files])
    for shares in (sizes / sizes.sum(), None):
        for index in random.choice(len(files), count // 2, p=shares):
            yield files[index], int(random.integers(8 * sizes[index]))


def test_no_flipped_bit_is_believed(two_steps):
    for path, bit in flips(two_steps / "2", 100, seed=0):
        flip(path, bit)
        assert went_back(two_steps, path), (path, bit)
        flip(path, bit)


def test_what_is_intact_raises_no_alarm(two_steps):
    for _ in range(25):
        notes = []
        assert step_in(two_steps, notes) == 2 and not notes
