"""Bad input: one line that names the file, the place and the remedy."""

import gzip
import os

import pytest

from zoo import untrusted
from zoo.data import DataConfig, files, load
from zoo.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def refusal(path, **settings):
    """The one line with which a text is refused; every one names the path that was given."""
    with pytest.raises(DataError) as caught:
        load(DataConfig(path=str(path), **{"length": 4, **settings}), seed=0)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and caught.value.exit_code == 3
    return message


BAD_FILES = {
    "empty.txt": (b"", "no text in it"),
    "empty.txt.gz": (gzip.compress(b""), "no text in it"),
    "short.txt": (b"a", "the train part is empty"),
    "latin1.txt": ("abc é".encode("latin-1"), "byte 4 (0xe9) is not UTF-8"),
    "utf16.txt": ("abc".encode("utf-16"), "byte 0 (0xff) is not UTF-8"),
    "cut.txt.gz": (gzip.compress(b"abc" * 1000)[:-9], "not a whole gzip file"),
    "no.txt.gz": (b"plain", "not a whole gzip file"),
    "bad.txt.gz": (gzip.compress(b"abc" * 1000)[:12] + b"xxxxxxxxxxxx", "not a whole gzip file"),
    "a.parquet": (b"abc", "not that of a text file"),
    "a": (b"abc", "not that of a text file"),
    "a.csv.gz": (b"abc", "not that of a text file"),
    "none.jsonl": (b"\n\n", "no text in it"),
    "bad.jsonl": (b'{"text": "a"}\n\n{"text": \n', "bad.jsonl:3: not JSON (Expecting value at column 10)"),
    "list.jsonl": (b'{"text": "a"}\n["a"]', "list.jsonl:2: a JSON list, not an object"),
    "key.jsonl": (b'{"content": "a", "id": 1}', "key.jsonl:1: no \"text\" among its keys ('content', 'id')"),
    "number.jsonl": (b'{"text": 1}', 'number.jsonl:1: "text" is a JSON int, not a string'),
    "null.jsonl": (b'{"text": null}', 'null.jsonl:1: "text" is a JSON NoneType, not a string'),
    "half.jsonl": (
        b'{"text": "ab\\ud83d"}',
        'half.jsonl:1: "text" has half of a surrogate pair at character 2',
    ),
    "deep.jsonl": (b"[" * 100_000, "deep.jsonl:1: JSON nested deeper than 64 levels"),
    "long.jsonl": (b'{"text": ' + b"1" * 5000 + b"}", "long.jsonl:1: JSON that cannot be read (ValueError)"),
    "copies.jsonl": (b'{"text": "a"}\n' * 9, "the valid part is empty"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(tmp_path, name):
    content, complaint = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    assert complaint in refusal(tmp_path / name)


def test_a_missing_path_is_refused(tmp_path):
    assert "no such file or folder" in refusal(tmp_path / "absent.txt")


def test_what_is_neither_file_nor_folder_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    assert "neither a file nor a folder" in refusal(tmp_path / "pipe.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "folder"])
def test_a_file_without_permission_is_refused(tmp_path, name):
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_text("abc")
    path.chmod(0)
    message = refusal(path)
    path.chmod(0o700)
    assert "cannot be read (Permission denied)" in message


def test_a_file_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "a.txt").write_text("abc")
    monkeypatch.setattr(untrusted, "opened", denied)
    assert "cannot be read (Permission denied)" in refusal(tmp_path / "a.txt")
    with pytest.raises(DataError, match="a.txt: cannot be read"):
        files.read_text(tmp_path / "a.txt")


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "a.txt").write_text("abc")
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("inner"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert "inner: cannot be read (Permission denied)" in refusal(tmp_path / "data")


def test_a_gzip_file_that_unfolds_beyond_bounds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(untrusted, "RATIO", 20), monkeypatch.setattr(untrusted, "FREE", 5_000)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"abc\n" * 1250))
    load(DataConfig(path=str(tmp_path / "a.txt.gz"), length=4), seed=0)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"abc\n" * 1251))
    assert "unzips to more than 20 times its size" in refusal(tmp_path / "b.txt.gz")


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_text_of_more_bytes_than_the_limit_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"abc\n" * 9) if name.endswith(".gz") else b"abc\n" * 9)
    assert files.read_bytes(tmp_path / name, most=36) == b"abc\n" * 9
    with pytest.raises(DataError, match=f"{name}: more than 35 bytes; split it into several files"):
        files.read_bytes(tmp_path / name, most=35)


def test_a_folder_without_text_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    assert "no text file in this folder" in refusal(tmp_path / "data")
    (tmp_path / "data" / "a.png").write_bytes(b"x")
    assert "no text file in this folder" in refusal(tmp_path / "data")


def test_parts_that_do_not_make_a_division_are_refused(tmp_path):
    (tmp_path / "train.txt").write_text("abc" * 9)
    (tmp_path / "test.txt").write_text("abc" * 9)
    assert "has train.txt but no valid" in refusal(tmp_path)
    (tmp_path / "dev.txt").write_text("")
    assert "the valid part is empty" in refusal(tmp_path)
    (tmp_path / "val.txt").write_text("abc" * 9)
    assert "dev.txt and val.txt both name the valid part" in refusal(tmp_path)


@pytest.mark.parametrize("layout", ["stream", "packed"])
def test_a_text_shorter_than_a_row_or_a_target_is_refused(tmp_path, layout):
    (tmp_path / "a.txt").write_text("abcdefghij")
    message = refusal(tmp_path / "a.txt", tokenizer="char", length=9, layout=layout)
    expected = {
        "stream": "has 9 tokens and a row takes length + 1 = 10",
        "packed": "too short to hold a target",
    }
    assert expected[layout] in message
    assert "too short to hold a target" in refusal(
        tmp_path / "a.txt", tokenizer="char", length=8, layout=layout
    )


def test_a_part_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("abc" * 50)
    with pytest.raises(DataError, match="has no test part, only train, valid"):
        load(DataConfig(path=str(tmp_path / "a.txt"), length=4), seed=0, evaluate="test")


def test_a_character_that_only_the_test_part_has_is_named(tmp_path):
    for part, text in {"train": "abc" * 9, "valid": "cba", "test": "abq"}.items():
        (tmp_path / f"{part}.txt").write_text(text)
    with pytest.raises(DataError, match="character 'q'"):
        load(DataConfig(path=str(tmp_path), tokenizer="char", length=4), seed=0, evaluate="test")


def test_a_vocabulary_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("abc" * 50)
    for tokenizer in ("bpe", "wordpiece", "sentencepiece"):
        cfg = DataConfig(
            path=str(tmp_path / "a.txt"), tokenizer=tokenizer, vocab_path=str(tmp_path / "absent")
        )
        with pytest.raises(DataError, match="absent: (has no|holds 0)"):
            load(cfg, seed=0)


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"tokenizer": "sentencpiece"}, "did you mean 'sentencepiece'?"),
        ({"tokenizer": "sentencepiece"}, "needs vocab_size"),
        ({"tokenizer": "bpe"}, "needs vocab_path"),
        ({"tokenizer": "wordpiece"}, "needs vocab_path"),
        ({"tokenizer": "byte", "vocab_path": "x"}, "vocab_path=x is not read by tokenizer=byte"),
        ({"layout": "paked"}, "did you mean 'packed'?"),
        ({"length": 0}, "length=0"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"vocab_size": -1}, "vocab_size=-1"),
        ({"valid_fraction": 0.0}, "valid_fraction=0.0"),
        ({"valid_fraction": 1.0}, "valid_fraction=1.0"),
        ({"valid_fraction": float("nan")}, "valid_fraction=nan"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(settings, complaint):
    with pytest.raises(ConfigError) as caught:
        DataConfig(**settings)
    assert complaint in str(caught.value) and "\n" not in str(caught.value)
