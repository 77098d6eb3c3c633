"""What every step saw: examples once an epoch, the same on any number of processes, and provable later."""

import json
import random
import time

import numpy as np
import pytest
from test_train import run, terminate_at_step_six, text  # noqa: F401

from zoo import __main__ as zoo_main
from zoo import receipts as module
from zoo.data import (
    CooccurrencesConfig,
    DataConfig,
    DialoguesConfig,
    ExamplesConfig,
    MaskedConfig,
    WordPairsConfig,
    load,
)
from zoo.errors import DataError
from zoo.receipts import Receipt, Receipts, check, digest_of, receipts

WORDS = "the cat sat on a mat and saw how red dogs ran by".split()

KINDS = {
    "stream": lambda path: DataConfig(path=path, layout="stream", length=16, batch_size=8),
    "streams": lambda path: DataConfig(path=path, layout="streams", length=16, batch_size=8),
    "packed": lambda path: DataConfig(path=path, layout="packed", length=16, batch_size=8),
    "masked": lambda path: MaskedConfig(path=path, vocab_size=90, length=32, batch_size=8),
    "masked pairs": lambda path: MaskedConfig(
        path=path, vocab_size=90, length=32, batch_size=8, pairs="next_sentence", duplicates=2
    ),
    "classes": lambda path: ExamplesConfig(path=path, batch_size=8),
    "translations": lambda path: ExamplesConfig(kind="pairs", path=path, batch_size=8, max_length=12),
    "answers": lambda path: ExamplesConfig(
        *("span", path),
        tokenizer="wordpiece",
        vocab_size=90,
        wrap="both",
        max_length=24,
        stride=4,
        batch_size=8,
    ),
    "dialogues": lambda path: DialoguesConfig(path=path, length=64, batch_size=8),
    "word pairs": lambda path: WordPairsConfig(path=path, min_count=1, length=8, batch_size=8),
    "cells": lambda path: CooccurrencesConfig(path=path, min_count=1, window=3, batch_size=16),
}


def write(folder) -> str:
    """A file of 60 texts that is one of labelled texts, of pairs, of questions and of dialogues too."""
    rng, lines = random.Random(5), []
    for i in range(60):
        said = " ".join(rng.choices(WORDS, k=rng.randint(4, 20))) + f" {i}"
        words = said.split()
        lines.append(
            {
                "text": f"{said}. Then {words[0]} {words[1]}. It was {words[2]}.",
                "label": "ab"[i % 2],
                "source": said,
                "target": " ".join(words[:3]),
                "question": "what?",
                "context": said,
                "id": f"q{i}",
                "answers": [{"text": words[1], "answer_start": said.index(words[1])}],
                "messages": [{"role": "user", "content": said}, {"role": "assistant", "content": words[0]}],
            }
        )
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """One file for all, its tokens cached beside it."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(folder / "cache"))
        yield write(folder)


@pytest.fixture(params=KINDS)
def dataset(request, path):
    return load(KINDS[request.param](path), seed=3)


def all_places(dataset, epochs: int) -> np.ndarray:
    """The places of the steps that hold so many epochs whole."""
    size = dataset.cfg.batch_size
    steps = -(-epochs * dataset.epoch_size // size)
    return np.concatenate([dataset.places(step, range(size)) for step in range(steps)])


def test_an_epoch_is_a_permutation_another_one_each_time(dataset):
    places_N2 = all_places(dataset, epochs=2)
    orders = [places_N2[places_N2[:, 0] == epoch, 1] for epoch in (0, 1)]
    for order in orders:
        assert len(order) == len(set(order.tolist())) == dataset.epoch_size
    assert set(orders[0].tolist()) == set(range(dataset.epoch_size)) or hasattr(dataset, "steps_per_epoch")
    if getattr(dataset.cfg, "layout", "") != "streams":
        assert orders[0].tolist() != orders[1].tolist()


def test_every_process_count_and_every_start_sees_the_same(dataset):
    size = dataset.cfg.batch_size
    fresh = load(dataset.cfg, seed=3)
    for step in (0, 7, 5000):
        whole = dataset.places(step, range(size))
        assert digest_of(fresh.places(step, range(size))) == digest_of(whole)
        for count in (2, 4):
            shares = [range(size)[i * size // count : (i + 1) * size // count] for i in range(count)]
            shared = np.concatenate([fresh.places(step, rows) for rows in shares])
            np.testing.assert_array_equal(shared, whole)
    assert any(
        digest_of(load(dataset.cfg, seed=4).places(step, range(size)))
        != digest_of(dataset.places(step, range(size)))
        for step in range(3)
    ) == (getattr(dataset.cfg, "layout", "") != "streams")


@pytest.mark.parametrize("kind", ["stream", "streams", "packed"])
def test_a_row_is_the_text_of_the_documents_that_it_is_said_to_be_from(kind, path):
    dataset = load(KINDS[kind](path), seed=3)
    train = dataset.corpus.parts["train"]
    texts = {document.name: document.text.encode() for document in train}
    eot = dataset.tokenizer.eot
    for step in (0, 3, 40):
        examples = dataset.batch(step, range(8))
        for row, (epoch, number) in enumerate(dataset.places(step, range(8)).tolist()):
            said = []
            for origin in dataset.origins(epoch, number):
                marked = [eot, *texts[origin["document"]], eot]  # its end of text begins the next
                said += marked[origin["offset"] : origin["offset"] + origin["tokens"]]
            tokens = examples["tokens"][row].tolist()
            assert said == tokens[: len(said)] and not any(tokens[len(said) :])


def test_what_an_example_is_from_names_its_document(dataset):
    lines = range(1, 61)
    names = {
        *(f"{name}:{line}" for name in ("texts.jsonl", dataset.cfg.path) for line in lines),
        dataset.cfg.path,
    }
    for epoch, number in dataset.places(2, range(8)).tolist():
        origins = dataset.origins(epoch, number)
        assert origins and all(origin["document"].partition(": ")[0] in names for origin in origins)


# --- the file -------------------------------------------------------------------------------------


def written(folder, dataset, steps, offset=lambda step: 0):
    """The receipts of a run over so many steps."""
    with Receipts(folder) as file:
        for step in range(1, steps + 1):
            places = dataset.places(step - 1 + offset(step), range(dataset.cfg.batch_size))
            file.write(Receipt(step, digest_of(places), offset(step)))
    return folder / module.NAME


def test_whole_epochs_are_proven(dataset, tmp_path):
    steps = -(-2 * dataset.epoch_size // dataset.cfg.batch_size)
    found = check(dataset, written(tmp_path, dataset, steps), steps)
    assert found["steps"] == steps and found["whole_epochs"] == 2


@pytest.fixture
def packed(path):
    return load(KINDS["packed"](path), seed=3)


def test_skipped_batches_count_as_skipped_and_the_rest_of_the_epoch_once(packed, tmp_path):
    steps = packed.epoch_size // 8 + 1
    path = written(tmp_path, packed, steps - 2, offset=lambda step: 0 if step < 4 else 2)
    found = check(packed, path, steps - 2)
    assert found == {
        "steps": steps - 2,
        "examples": 8 * (steps - 2),
        "whole_epochs": 1,
        "skipped_batches": 2,
        "updates_not_applied": 0,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines[:4], *lines[5:]], "step 5 is missing"),
        (lambda lines: [*lines[:5], lines[4], *lines[5:]], "step 5 is there twice"),
        (
            lambda lines: [*lines[:4], b"5 " + lines[5][2:], *lines[5:]],
            "step 5 saw .*, and its seed and step say",
        ),
        (
            lambda lines: [*lines[:4], b"5 not a receipt\n", *lines[5:]],
            "the line behind step 4 is no receipt",
        ),
        (lambda lines: lines[:-1], "ends at step 9, and the run is at step 10"),
        (lambda lines: [*lines[:-1], lines[-1][:7]], "ends at step 9, and the run is at step 10"),
    ],
)
def test_what_is_missing_twice_or_of_another_batch_is_found(change, message, packed, tmp_path):
    path = written(tmp_path, packed, 10)
    assert check(packed, path, 10)["steps"] == 10
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(DataError, match=message):
        check(packed, path, 10)


def test_an_example_that_comes_twice_in_an_epoch_is_found(packed, tmp_path, monkeypatch):
    places = packed.places(0, range(8))
    monkeypatch.setattr(type(packed), "places", lambda *_: places)
    with pytest.raises(DataError, match=r"example \d+ comes twice in epoch 0"):
        check(packed, written(tmp_path, packed, 2), 2)


def test_going_on_at_a_step_forgets_later_ones_with_their_offset_and_a_torn_line(packed, tmp_path):
    path = written(tmp_path, packed, 10, offset=lambda step: 0 if step < 6 else 3)
    with path.open("ab") as file:
        file.write(b"11 kq3V0")
    with Receipts(tmp_path) as file:
        file.truncate_after(8)
        file.write(Receipt(9, "a" * 11, offset=3))
        file.truncate_after(5)
        file.write(Receipt(6, "b" * 11, offset=7, is_applied=False))
    found = [receipt for receipt, _ in receipts(path)]
    assert [receipt.step for receipt in found] == [1, 2, 3, 4, 5, 6]
    assert found[-1] == Receipt(6, "b" * 11, 7, False) and {each.offset for each in found[:-1]} == {0}


def test_a_receipt_has_at_most_20_bytes_and_takes_no_time(packed, tmp_path):
    """Under 0.2 ms a step: the digest of 8 rows, of which the order was asked for already, and its line."""
    with Receipts(tmp_path) as file:
        file.write(Receipt(9_999_999, digest_of(packed.places(0, range(8)))))
        assert file.path.stat().st_size == 20
        took = []
        for step in range(200):
            packed.batch(step, range(8))
            start = time.perf_counter()
            file.write(Receipt(step, digest_of(packed.places(step, range(8)))))
            took.append(time.perf_counter() - start)
    assert np.median(took) < 2e-4, np.median(took)


# --- a run ----------------------------------------------------------------------------------------


def told(capsys, *argv):
    """(exit code, last line of stdout as JSON or None, stdout, stderr) of python -m zoo."""
    code = zoo_main.main(list(argv))
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if code == 0 else None, out, err


def test_a_run_that_was_stopped_and_goes_on_has_a_receipt_for_every_step(text, capsys, monkeypatch):  # noqa: F811
    with monkeypatch.context() as patch:
        terminate_at_step_six(patch)
        assert run(text, capsys)[0] == 75
    folder = text.parent / "runs" / "gpt_stdlib"
    before = (folder / module.NAME).read_bytes()
    *_, (last, _) = receipts(folder / module.NAME)  # step 7, or 8 where the signal is heard late
    with (folder / module.NAME).open("ab") as file:  # what a process that was killed later would leave
        file.write(f"{last.step + 1} abcdefghijk\n{last.step + 2} ab".encode())
    assert run(text, capsys)[0] == 0
    assert (folder / module.NAME).read_bytes().startswith(before)
    code, found, _, _ = told(capsys, "data", "--run", str(folder), "--check")
    assert code == 0 and found["steps"] == 12 and found["examples"] == 96

    code, found, out, _ = told(capsys, "data", "--run", str(folder), "--step", "3", "--rows", "2")
    assert code == 0 and found["digest"] == found["receipt"] and len(found["rows"]) == 2
    assert f"digest {found['digest']}, as its receipt says" in out
    (origin,) = found["rows"][0]["from"]
    shown = text.read_text()[origin["offset"] : origin["offset"] + origin["tokens"]]
    assert found["rows"][0]["text"] == repr(shown)[1:-1] and origin["document"] == "text.txt"

    lines = (folder / module.NAME).read_bytes().splitlines(keepends=True)
    (folder / module.NAME).write_bytes(b"".join([*lines[:6], *lines[7:]]))
    code, _, _, err = told(capsys, "data", "--run", str(folder), "--check")
    assert code == 3 and "step 7 is missing" in err
    text.write_text("other " + text.read_text())
    code, _, _, err = told(capsys, "data", "--run", str(folder), "--check")
    assert code == 3 and "its data has digest" in err
    assert told(capsys, "data", "--run", str(folder))[0] == 2
