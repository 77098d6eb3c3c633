"""Hostile files of every kind (tests/hostile): each comes to the error that it should, in one line, quickly,
in little memory, and nothing is run, fetched, written or read beside it."""

import functools
import os
import time
from pathlib import Path

import pytest
from hostile import CANARY, cases
from hostile.gate import gate

from zoo import cli, errors, run
from zoo.data import DataConfig, load, load_tokenizer
from zoo.data.corpus import read_corpus
from zoo.data.dialogues.files import DIALOGUES
from zoo.data.examples import labels
from zoo.data.examples.records import read_records
from zoo.errors import UserError
from zoo.pretrained import adapter, huggingface
from zoo.pretrained.hub import local
from zoo.pretrained.stored import open_tensors
from zoo.pretrained.vectors import read_vectors
from zoo.recipes import CHOICES, CONFIGS

CASES = cases()
READERS = {
    "weights": lambda folder: [each.shape for each in open_tensors(local(folder)).values()],
    "adapter": adapter.described,
    "vectors": lambda folder, file: read_vectors(folder / file),
    "config": lambda folder: huggingface.described(local(folder)),
    "run": run.recipe_of,
    "labels": labels.read,
    "command": lambda folder, argv: cli.parse(argv, CONFIGS, CHOICES),
    "tokenizer": lambda folder: load_tokenizer(folder).encode("the cat"),
    "text": lambda folder, file="": load(DataConfig(path=str(folder / file), length=4), seed=0),
    "records": lambda folder, file, kind: read_records(folder / file, kind, {}, 0.0),
    "dialogues": lambda folder, file: read_corpus(str(folder / file), 0.5, DIALOGUES),
}
"""What is read of a folder, by whom."""
CANARIES = [Path("/tmp", CANARY), Path(CANARY)]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield os.environ["ZOO_CACHE"]
    assert not any(path.exists() for path in CANARIES)


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def measured(call, folder, cache):
    """What a call raises, if it does, what it does beside (gate.py), its seconds of computing, and the MB by
    which the process grew."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, started, error = resident("VmRSS"), time.process_time(), None
    with gate(folder, cache) as events:
        try:
            call()
        except Exception as raised:
            error = raised
    return error, events, time.process_time() - started, (resident("VmHWM") - before) / 1024


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.reader}: {case.name}")
def test_a_hostile_file_comes_to_its_end(case, tmp_path, cache):
    case.write(tmp_path / "a")
    read = READERS[case.reader]
    for _ in range(2):  # a first import, or a busy machine, has a second try
        call = functools.partial(read, tmp_path / "a", **case.arguments)
        error, events, seconds, megabytes = measured(call, tmp_path, cache)
        if seconds <= case.seconds:
            break
    assert not events
    if case.error:
        assert isinstance(error, UserError) and type(error) is getattr(errors, case.error), repr(error)
        assert str(error).isprintable() and len(str(error)) < 2_200
    else:
        assert error is None
    assert seconds <= case.seconds and megabytes <= case.megabytes
    assert not any(path.exists() for path in CANARIES)


def test_there_are_enough_of_them():
    assert len(CASES) >= 200 and {case.reader for case in CASES} == READERS.keys()
