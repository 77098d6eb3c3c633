"""Bad records: one line that names the file, the line, the value and the remedy."""

import gzip
import os

import pytest

from zoo.data.examples.records import KINDS, read_records
from zoo.errors import DataError

LANGUAGES = {"source": "en", "target": "de"}


def write(folder, contents):
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def refusal(path, kind, columns=None, valid_fraction=0.1):
    """The one line with which a source is refused."""
    with pytest.raises(DataError) as caught:
        read_records(path, kind, columns or {}, valid_fraction)
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 3
    return message


TABLE = "sentence\tlabel\na b\t1\n"

# by kind: a file, its content and the complaint that follows the file's path
BAD_FILES = {
    "classify": [
        ("label.tsv", TABLE + "c\t  \n", ":3: the label is empty; write one, or remove the record"),
        ("text.tsv", TABLE + "\t1\n", ":3: the text is empty; write one, or remove the record"),
        ("few.tsv", TABLE + "c\n", ":3: a row of 1, the header has 2 columns; mend the row 'c'"),
        (
            "many.tsv",
            TABLE + "c\t1\td\n",
            ":3: a row of 3, the header has 2 columns; mend the row 'c | 1 | d'",
        ),
        ("names.tsv", "x\ty\na\t1\n", ":1: no text among 'x', 'y'; say which in columns, as text=NAME"),
        ("answer.tsv", "text\ty\na\t1\n", ":1: no label among 'text', 'y'; say which in columns"),
        ("quote.csv", 'text,label\na,1\n"b,1\n', ":3: not CSV (unexpected end of data); mend the quotation"),
        (
            "semicolons.csv",
            "text;label\na;1\n",
            ":1: the header 'text;label' is one column; part columns by commas",
        ),
        ("tabs.csv", "text\tlabel\na\t1\n", ":1: the header 'text\\tlabel' is one column; part columns by"),
        (
            "commas.tsv",
            "text,label\na,1\n",
            ":1: the header 'text,label' is one column; part columns by commas in",
        ),
        (
            "twice.csv",
            "text,Text,label\na,b,1\n",
            ":1: several columns are called 'text'; say which in columns by",
        ),
        (
            "utf16.csv",
            "text,label\na,1\n".encode("utf-16"),
            ": byte 0 (0xff) is not UTF-8; convert it, for example: iconv -f utf-16",
        ),
        ("empty.tsv", "", ": the train part has no record; add some"),
        ("empty.jsonl.gz", gzip.compress(b""), ": the train part has no record"),
        ("header.csv", "text,label\n", ": the train part has no record"),
        ("one.tsv", TABLE, ": the valid part has no record; add some, or change valid_fraction"),
        (
            "bad.jsonl",
            '{"text": "a", "label": 1}\n\n{"text": \n',
            ":3: not JSON (Expecting value at column 10)",
        ),
        ("deep.jsonl", "[" * 100_000, ":1: JSON nested deeper than 64 levels; each line"),
        ("list.jsonl", '["a"]', ":1: a JSON list, not an object; each line is an object"),
        ("keys.jsonl", '{"a": 1}', ":1: no text among 'a'; say which in columns"),
        (
            "gone.jsonl",
            '{"text": "a", "label": 1}\n{"text": "b"}',
            ":2: no \"label\" among its keys ('text'), as the first has; add it",
        ),
        ("int.jsonl", '{"text": 1, "label": 1}', ':1: "text" is a JSON int, not a string; quote it'),
        ("float.jsonl", '{"text": "a", "label": 0.5}', ':1: "label" is a JSON float, not a string'),
        ("listed.jsonl", '{"text": "a", "label": ["b"]}', ':1: "label" is a JSON list, not a string'),
        ("half.jsonl", '{"text": "ab\\ud83d", "label": 1}', ':1: "text" has half of a surrogate pair at'),
        ("latin1.tsv", TABLE.encode() + b"\xe9\t1\n", ": byte 21 (0xe9) is not UTF-8; convert it"),
        ("cut.tsv.gz", gzip.compress(TABLE.encode() * 99)[:-9], ": not a whole gzip file"),
        (
            "a.parquet",
            "x",
            ": not a file of kind=classify; give .tsv .csv .jsonl, each also .gz",
        ),
    ],
    "tag": [
        ("one.conll", "a O\n\nb\n", ":3: a row of 1 ('b'), 2 columns are needed; write a word and its tag"),
        ("tag.conll", "a\tO\nb\t\n", ":2: column -1 of tags is empty; write one"),
        ("empty.conll.gz", gzip.compress(b"\n \n"), ": the train part has no record"),
        ("text.jsonl", '{"words": "a b", "tags": []}', ':1: "words" is a JSON str, not a list; give a list'),
        ("int.jsonl", '{"words": ["a"], "tags": [0]}', ':1: "tags"[0] is a JSON int, not a string'),
        ("none.jsonl", '{"words": [], "tags": []}', ":1: there are no words; write them, or remove"),
        ("word.jsonl", '{"words": ["a", ""], "tags": ["O", "O"]}', ":1: one of the words is empty; write it"),
        ("count.jsonl", '{"words": ["a", "b"], "tags": ["O"]}', ":1: 2 words and 1 tags; give each word one"),
        ("a.csv", "words,tags\n", ": not a file of kind=tag; give .conll .bmes"),
    ],
    "slots": [
        ("seq.in", "play blues", ": not a file of kind=slots; give .jsonl, each also .gz"),
    ],
    "pairs": [
        (
            "side.tsv",
            "source\ttarget\na\tb\nc\n",
            ":3: a row of 1, the header has 2 columns; mend the row 'c'",
        ),
        ("source.csv", "source,target\n ,b\n", ":2: the source is empty; write one, or remove the record"),
        ("target.tsv", "source\ttarget\na\t\n", ":2: the target is empty; write one, or remove the record"),
        ("command.txt", "IN: a OUT: b\nIN: OUT: b\n", ":2: the source is empty"),
        ("actions.txt", "IN: a OUT:", ":1: the target is empty"),
        (
            "plain.txt",
            "IN: a OUT: b\na b\n",
            ":2: not a line such as 'IN: jump OUT: I_JUMP' ('a b'); write that",
        ),
        ("null.jsonl", '{"source": "a", "target": null}', ':1: "target" is a JSON NoneType, not a string'),
        ("none.jsonl", '{"source": "a", "target": []}', ":1: the target is empty; write one"),
        ("empty.jsonl", '{"source": "a", "target": ["b", ""]}', ":1: one of the references is empty"),
    ],
}


@pytest.mark.parametrize(
    "kind, name, content, complaint",
    [
        pytest.param(kind, *case, id=f"{kind}-{case[0]}")
        for kind, cases in BAD_FILES.items()
        for case in cases
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, kind, name, content, complaint):
    write(tmp_path, {name: content})
    assert refusal(tmp_path / name, kind).startswith(f"{tmp_path / name}{complaint}")


@pytest.mark.parametrize(
    "kind, name, content, columns, complaint",
    [
        (
            "classify",
            "a.tsv",
            TABLE,
            "text=sentance",
            ":1: columns text=sentance is none of 'sentence', 'label'; did you mean 'sentence'?",
        ),
        (
            "classify",
            "a.tsv",
            TABLE,
            "text=sentence label=2",
            ":1: columns label=2, and the last of the header is 1",
        ),
        (
            "classify",
            "a.tsv",
            "a\t1\n",
            "text=0",
            ":1: columns has a number for text and none for label; add label=",
        ),
        (
            "classify",
            "a.jsonl",
            '{"sentence": "a", "stars": 1}',
            "label=star",
            ":1: columns label=star is none of",
        ),
        (
            "pairs",
            "a.tsv",
            "a\tb\nc\n",
            "source=0 target=1",
            ":2: a row of 1, 2 columns are needed; mend the row 'c'",
        ),
        ("tag", "a.conll", "a X O\nb O\n", "tags=2", ":2: a row of 2 ('b O'), 3 columns are needed; write"),
    ],
)
def test_columns_that_a_file_lacks_are_refused(tmp_path, kind, name, content, columns, complaint):
    write(tmp_path, {name: content})
    message = refusal(tmp_path / name, kind, dict(column.split("=") for column in columns.split()))
    assert message.startswith(f"{tmp_path / name}{complaint}")


def test_an_unknown_kind_is_refused_with_the_nearest(tmp_path):
    write(tmp_path, {"a.tsv": TABLE})
    message = refusal(tmp_path / "a.tsv", "clasify")
    assert message == f"kind='clasify' is none of {', '.join(KINDS)}; did you mean 'classify'?"


def test_columns_of_a_field_that_the_kind_lacks_are_refused(tmp_path):
    write(tmp_path, {"a.tsv": TABLE})
    message = refusal(tmp_path / "a.tsv", "classify", {"txt": "sentence"})
    assert "kind=classify has the fields text, text_pair, label; did you mean 'text'?" in message


def test_conll_columns_that_are_no_numbers_are_refused(tmp_path):
    write(tmp_path, {"a.conll": "a O\n"})
    assert "columns tags=ner is no number of a column; 0 is" in refusal(
        tmp_path / "a.conll", "tag", {"tags": "ner"}
    )


def test_a_missing_path_is_refused(tmp_path):
    assert "absent.tsv: no such file or folder" in refusal(tmp_path / "absent.tsv", "classify")


@pytest.mark.parametrize(
    "kind, remedy",
    [("classify", "train.tsv, train.csv, train.jsonl"), ("slots", "train/seq.in"), ("pairs", "train.txt")],
)
def test_a_folder_without_train_part_is_refused(tmp_path, kind, remedy):
    write(tmp_path, {"test.jsonl": "{}", "a.tsv": TABLE})
    message = refusal(tmp_path, kind)
    assert message.startswith(f"{tmp_path}: has no train part for kind={kind}; give ") and remedy in message


def test_parallel_files_without_columns_are_refused_with_the_way_to_name_them(tmp_path):
    write(tmp_path, {"train.en": "a", "train.de": "b"})
    assert "for parallel files give columns source=de target=en, or the reverse" in refusal(tmp_path, "pairs")


def test_a_parallel_file_alone_is_refused(tmp_path):
    write(tmp_path, {"train.en": "a", "train.de": "b", "valid.en": "a"})
    message = refusal(tmp_path, "pairs", LANGUAGES)
    assert message == f"{tmp_path}/valid.en: has no valid.de beside it; add the targets"
    (tmp_path / "valid.en").rename(tmp_path / "valid.de")
    assert "valid.de: has no valid.en beside it; add the sources" in refusal(tmp_path, "pairs", LANGUAGES)


def test_parallel_files_of_another_part_are_no_train_part(tmp_path):
    write(tmp_path, {"valid.en": "a", "valid.de": "b"})
    assert "has no train part for kind=pairs" in refusal(tmp_path, "pairs", LANGUAGES)


def test_parallel_files_of_different_lengths_are_refused(tmp_path):
    write(tmp_path, {"train.en": "a\nb\nc\n", "train.de": "a\nb\n"})
    message = refusal(tmp_path, "pairs", LANGUAGES)
    assert message.startswith(f"{tmp_path}/train.en:3: train.en has 3 lines and train.de 2; line n of each")


@pytest.mark.parametrize("side, name", [("source", "train.en"), ("target", "train.de")])
def test_an_empty_line_of_a_parallel_file_is_refused(tmp_path, side, name):
    write(tmp_path, {"train.en": "a\nb\n", "train.de": "a\nb\n"} | {name: "a\n \n"})
    assert f"{tmp_path}/train.en:2: the {side} is empty; write one" in refusal(tmp_path, "pairs", LANGUAGES)


SLOTS = {
    "train/seq.in": "play blues\nstop\n",
    "train/seq.out": "O B-genre\nO\n",
    "train/label": "Play\nStop\n",
}


@pytest.mark.parametrize(
    "name, content, complaint",
    [
        ("seq.out", "O B-genre\nO O\n", "train/seq.in:2: 1 words and 2 tags; give each word one tag"),
        ("seq.out", "O B-genre\n", "train/seq.in:2: seq.in has 2 lines and seq.out 1; line n of each"),
        ("seq.in", "play blues\n\n", "train/seq.in:2: there are no words; write them"),
        ("seq.out", "O B-genre\n \n", "train/seq.in:2: there are no tags; write them"),
        ("label", "Play\n \n", "train/seq.in:2: the label is empty; write one"),
        ("label", b"Play\n\xff\n", "train/label: byte 5 (0xff) is not UTF-8"),
    ],
)
def test_a_bad_line_of_slots_is_refused(tmp_path, name, content, complaint):
    write(tmp_path, SLOTS | {f"train/{name}": content})
    assert f"{tmp_path}/{complaint}" in refusal(tmp_path, "slots")


def test_slots_without_one_of_their_files_are_refused(tmp_path):
    write(tmp_path, SLOTS)
    (tmp_path / "train/label").unlink()
    assert f"{tmp_path}/train: has no label, plain or .gz" in refusal(tmp_path, "slots")


def test_two_files_for_one_part_are_refused(tmp_path):
    write(tmp_path, {"train.tsv": TABLE, "dev.tsv": TABLE, "val.csv": "text,label\na,1"})
    assert "dev.tsv and val.csv both name the valid part; keep one" in refusal(tmp_path, "classify")


def test_an_empty_part_of_a_folder_is_refused(tmp_path):
    write(tmp_path, {"train.tsv": TABLE, "dev.tsv": ""})
    assert f"{tmp_path}: the valid part has no record" in refusal(tmp_path, "classify")


@pytest.mark.parametrize("part", ["train", "dev"])
def test_only_a_test_part_may_lack_its_labels(tmp_path, part):
    write(tmp_path, {"train.tsv": TABLE, "dev.tsv": TABLE} | {f"{part}.tsv": "index\tsentence\n0\ta\n"})
    assert f"{part}.tsv:1: no label among 'index', 'sentence'" in refusal(tmp_path, "classify")


@pytest.mark.parametrize(
    "table, complaint",
    [(TABLE + "c\n", ":3: a row of 1"), ("x\tlabel\na\t1\n", ":1: no text among 'x', 'label'")],
)
def test_a_test_part_with_another_fault_is_refused(tmp_path, table, complaint):
    write(tmp_path, {"train.tsv": TABLE, "dev.tsv": TABLE, "test.tsv": table})
    assert f"{tmp_path}/test.tsv{complaint}" in refusal(tmp_path, "classify")


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    def denied(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.iterdir", denied)
    assert f"{tmp_path}: cannot be read (Permission denied)" in refusal(tmp_path, "classify")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    write(tmp_path, {"a.tsv": TABLE})
    (tmp_path / "a.tsv").chmod(0)
    assert "cannot be read (Permission denied)" in refusal(tmp_path / "a.tsv", "classify")
