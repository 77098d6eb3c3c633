"""Cached tokens: found again, never trusted when damaged, harmless when they cannot be written."""

import logging
import multiprocessing
import os
import stat
import time
from dataclasses import replace

import numpy as np
import pytest

from zoo.data import DataConfig, cache, load, tokens, vocabulary
from zoo.data.tokenizers import sentence_piece

TEXT = "def f(x):\n    return x + 1\n\n" * 40 + "The quick brown fox jumps over the lazy dog. " * 40


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "a" / "cache"))
    return tmp_path / "a" / "cache"


@pytest.fixture
def cfg(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    return DataConfig(path=str(tmp_path / "text.txt"), tokenizer="sentencepiece", vocab_size=300, length=16)


def content(dataset):
    return [dataset.digest, *(dataset.batch(s, range(8))["tokens"].tolist() for s in range(5))]


def refuse(*args, **kwargs):
    raise AssertionError("built again")


def test_a_second_load_finds_everything_and_is_equal(cfg, monkeypatch):
    first = content(load(cfg, seed=0))
    monkeypatch.setattr(vocabulary, "train", refuse)
    monkeypatch.setattr(sentence_piece.SentencePieceTokenizer, "encode", refuse)
    second = load(cfg, seed=0)
    assert content(second) == first
    assert isinstance(second.layout.ids, np.memmap) and second.layout.ids.dtype == np.uint16


def test_the_cache_is_private_and_holds_nothing_unfinished(cfg, folder):
    load(cfg, seed=0)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(path.suffix == ".npy" for path in folder.iterdir())


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-7])


def cut_to_nothing(path):
    path.write_bytes(b"")


def replace_by_text(path):
    path.write_bytes(b"not an array")


def replace_by_other_dtype(path):
    np.save(path, np.load(path).astype(np.float64))


def replace_by_longer(path):
    np.save(path, np.append(np.load(path), np.load(path)[-1:]))


def replace_by_unknown_tokens(path):
    np.save(path, np.full_like(np.load(path), 60_000 if path.name.endswith(".ids.npy") else 7))


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        cut_to_nothing,
        replace_by_text,
        replace_by_other_dtype,
        replace_by_longer,
        replace_by_unknown_tokens,
        os.unlink,
    ],
)
@pytest.mark.parametrize("name", ["ids", "starts", "model"])
def test_a_damaged_file_is_built_again(cfg, folder, name, damage):
    first = content(load(cfg, seed=0))
    damaged = sorted(folder.glob(f"*.{name}.npy"))
    sound = [np.load(path) for path in damaged]
    for path in damaged:
        damage(path)
    assert content(load(cfg, seed=0)) == first
    for path, array in zip(damaged, sound, strict=True):
        np.testing.assert_array_equal(np.load(path), array, strict=True)


def test_a_model_of_another_size_is_trained_again(cfg, folder):
    load(cfg, seed=0)
    (model,) = folder.glob("sentencepiece-*")
    load(replace(cfg, vocab_size=301), seed=0)
    (other,) = set(folder.glob("sentencepiece-*")) - {model}
    model.write_bytes(other.read_bytes())
    assert load(cfg, seed=0).tokenizer.vocab_size == 300


def test_where_nothing_can_be_written_the_arrays_stay_in_memory(cfg, tmp_path, monkeypatch, caplog):
    first = content(load(cfg, seed=0))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING, logger="zoo.data"):
        assert content(load(cfg, seed=0)) == first
    assert "cannot be written" in caplog.text


def test_a_full_disk_leaves_nothing_unfinished(cfg, folder, monkeypatch):
    def full(file, array, **kwargs):
        file.write(b"some of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    load(cfg, seed=0)
    assert not list(folder.iterdir())


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", "/x")
    assert str(cache.folder()) == "/x"
    monkeypatch.delenv("ZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/y")
    assert str(cache.folder()) == "/y/zoo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/z")
    assert str(cache.folder()) == "/z/.cache/zoo"


def test_other_texts_and_other_tokenizers_have_other_files(cfg, folder, tmp_path):
    counts = []
    for text, tokenizer in [(TEXT, "byte"), (TEXT + "x", "byte"), (TEXT, "char"), (TEXT, "byte")]:
        (tmp_path / "text.txt").write_text(text)
        load(DataConfig(path=cfg.path, tokenizer=tokenizer, length=16), seed=0)
        counts.append(len(list(folder.iterdir())))
    assert counts[0] < counts[1] < counts[2] == counts[3]


def write_for_ever(folder):
    os.environ["ZOO_CACHE"] = str(folder)
    arrays = {"a": np.arange(300_000)}
    while True:
        cache.cached("key", build=lambda: arrays, is_sound=lambda found: found is arrays, names=("a",))


def test_writers_killed_at_any_moment_leave_a_whole_file(folder):
    """Two processes write the same file over and over, are read meanwhile and killed."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_for_ever, args=(folder,), daemon=True) for _ in range(2)]
    path = folder / "key.a.npy"
    try:
        for writer in writers:
            writer.start()
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(50):
            np.testing.assert_array_equal(np.load(path, mmap_mode="r"), np.arange(300_000))
    finally:
        for writer in writers:
            writer.kill()
            writer.join()
    np.testing.assert_array_equal(np.load(path), np.arange(300_000))


def test_a_large_vocabulary_takes_four_bytes_a_token(tmp_path):
    class Large:
        vocab_size, eot, digest = 70_000, None, "large"

        def encode(self, text):
            return np.array([69_999] * len(text), np.int32)

    documents = load(_text(tmp_path), seed=0).corpus.parts["valid"]
    encoded = tokens.encode(documents, Large())
    assert encoded.ids.dtype == np.uint32 and set(encoded.ids) == {69_999}


def _text(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    return DataConfig(path=str(tmp_path / "text.txt"), length=16)
