"""Records from tables, JSON lines, CoNLL columns and parallel files, and the parts that they make."""

import csv
import gzip
import json
import logging
from collections import Counter
from pathlib import Path

import pytest

from zoo.data.examples.record import Record
from zoo.data.examples.records import read_records

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the data sets (../shared/data) are not here")


def write(folder, contents):
    """Files of these texts, line ends as they are, gzip-compressed where the name says so."""
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = text.encode()
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return folder


def fields_of(tmp_path, name, text, kind="classify", columns=None):
    """The fields of the records of a single file, none of which validates."""
    write(tmp_path, {name: text})
    records = read_records(tmp_path / name, kind, columns or {}, 0)["train"]
    return [record.fields for record in records]


CLASSIFIED = [{"label": "1", "text": "good film"}, {"label": "0", "text": "bad film"}]


@pytest.mark.parametrize(
    "header", ["sentence\tlabel", "Text\tLABEL", " text_a \tgold_label", "id\tlabel\treview", "label\ttext"]
)
def test_columns_are_found_by_the_names_in_use(tmp_path, header):
    rows = [header] + [
        "\t".join(
            {"id": "7"}.get(name.strip(), row["label" if "label" in name.lower() else "text"])
            for name in header.split("\t")
        )
        for row in CLASSIFIED
    ]
    assert fields_of(tmp_path, "a.tsv", "\n".join(rows)) == CLASSIFIED


@pytest.mark.parametrize(
    "names, text, pair",
    [
        ("sentence1 sentence2 label", "first", "second"),
        ("label text_a text_b", "second", "third"),
        ("Quality #1_String #2_String", "second", "third"),
        ("question sentence label", "first", "second"),  # QNLI: the sentence answers the question
        ("hypothesis premise label", "second", "first"),
    ],
)
def test_two_texts_are_a_pair_in_the_order_of_their_names(tmp_path, names, text, pair):
    header = names.replace(" ", "\t").replace("_String", " String")
    (record,) = fields_of(tmp_path, "a.tsv", f"{header}\nfirst\tsecond\tthird\n")
    assert (record["text"], record["text_pair"]) == (text, pair)


def test_a_column_that_is_named_goes_before_the_names_in_use(tmp_path):
    table = "sentence1\tsentence2\tlabel\tstars\none\ttwo\t0\t5\n"
    assert fields_of(tmp_path, "a.tsv", table, columns={"text": "Sentence2", "label": "stars"}) == [
        {"text": "two", "label": "5"}
    ]


def test_columns_are_counted_in_a_table_without_header(tmp_path):
    table = "gj04\t1\t\tgood film\ngj04\t0\t*\tbad film\n"
    assert fields_of(tmp_path, "a.tsv", table, columns={"text": "3", "label": "1"}) == CLASSIFIED


def test_numbers_of_columns_do_not_make_a_record_of_a_header(tmp_path):
    table = "label\tsentence\n1\tgood film\n0\tbad film\n"
    assert fields_of(tmp_path, "a.tsv", table, columns={"text": "1", "label": "0"}) == CLASSIFIED


def test_a_label_that_is_called_like_a_column_is_no_header(tmp_path):
    table = "question\twho is it\nstatement\tit is me\n"
    found = fields_of(tmp_path, "a.tsv", table, columns={"text": "1", "label": "0"})
    assert [record["label"] for record in found] == ["question", "statement"]


def test_a_name_and_a_number_may_be_mixed_where_there_is_a_header(tmp_path):
    table = "utterance\tx\ty\ngood film\t-\t1\nbad film\t-\t0\n"
    assert fields_of(tmp_path, "a.tsv", table, columns={"text": "utterance", "label": "2"}) == CLASSIFIED


def test_quotation_marks_are_text_in_tsv_and_quotes_in_csv(tmp_path):
    open_quote = 'label\ttext\n1\t" it opens\n0\tit " closes "\n'
    assert [r["text"] for r in fields_of(tmp_path, "a.tsv", open_quote)] == ['" it opens', 'it " closes "']
    quoted = 'label,text\r\n1,"a ""b"", c\nd\r\n"\r\n\r\n0,e'
    assert [r["text"] for r in fields_of(tmp_path, "a.csv", quoted)] == ['a "b", c\nd\r\n', "e"]


def test_a_csv_field_is_as_long_as_it_is(tmp_path):
    """The library's own limit is 131,072 characters, and stays what it was for everybody else."""
    long, limit = "word " * 40_000, csv.field_size_limit()
    (found,) = fields_of(tmp_path, "a.csv", f'text,label\n"{long}",1\n')
    assert found["text"] == long and csv.field_size_limit() == limit


def test_a_csv_record_stands_where_it_begins(tmp_path):
    write(tmp_path, {"a.csv": 'label,text\n1,"a\nb\nc"\n\n0,d\n'})
    records = read_records(tmp_path / "a.csv", "classify", {}, 0)["train"]
    assert [record.where for record in records] == [f"{tmp_path}/a.csv:2", f"{tmp_path}/a.csv:6"]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.tsv.gz", "A.TSV.GZ"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_byte_order_marks_blank_lines_line_ends_and_a_missing_last_one_change_nothing(
    tmp_path, name, end, last
):
    if "jsonl" in name:
        rows = [json.dumps(row) for row in CLASSIFIED]
    else:
        comma = "\t" if "tsv" in name.lower() else ","
        rows = [comma.join(row) for row in (["label", "text"], *(row.values() for row in CLASSIFIED))]
    text = "\ufeff" + end.join([*rows[:-1], "", rows[-1]]) + end * last
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.lower().endswith(".gz") else text.encode())
    assert [record.fields for record in read_records(path, "classify", {}, 0)["train"]] == CLASSIFIED


def test_odd_white_space_is_text_and_ends_no_line(tmp_path):
    text = "a\u2028b\x0cc\x85d\u00a0\u3000"
    assert fields_of(tmp_path, "a.tsv", f"label\ttext\n1\t{text}\n")[0]["text"] == text


def test_labels_lose_the_blanks_around_them_and_texts_keep_theirs(tmp_path):
    assert fields_of(tmp_path, "a.tsv", "label\ttext\n    0 \t a b \n") == [{"text": " a b ", "label": "0"}]


def test_json_labels_may_be_whole_numbers_or_truth_values(tmp_path):
    lines = [json.dumps({"text": "a", "label": label}) for label in (3, True, "x")]
    assert [record["label"] for record in fields_of(tmp_path, "a.jsonl", "\n".join(lines))] == [
        "3", "true", "x",
    ]  # fmt: skip


def test_json_pairs_join_sentences_and_keep_every_reference(tmp_path):
    line = json.dumps({"title": "t", "source": ["One .", "Two ."], "target": ["first", "second"]})
    assert fields_of(tmp_path, "a.jsonl", f"\n{line}\n\n", "pairs") == [
        {"source": "One . Two .", "target": "first", "references": ("first", "second")}
    ]
    line = json.dumps({"en": "a", "de": "b"})
    assert fields_of(tmp_path, "b.jsonl", line, "pairs", {"source": "de", "target": "en"}) == [
        {"source": "b", "target": "a"}
    ]


def test_json_words_come_with_their_tags(tmp_path):
    line = json.dumps({"tokens": ["New York", "is"], "ner_tags": ["B-location", "O"], "intent": "ask"})
    words = {"words": ("New York", "is"), "tags": ("B-location", "O")}
    assert fields_of(tmp_path, "a.jsonl", line, "tag") == [words]
    assert fields_of(tmp_path, "a.jsonl", line, "slots") == [words | {"label": "ask"}]


CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

\t
# NN B-NP O
#tag NN I-NP O"""


@pytest.mark.parametrize("parted", [" ", "  ", "\t"])
@pytest.mark.parametrize("name", ["a.conll", "a.bmes", "a.txt.gz"])
def test_conll_words_stand_first_and_tags_last(tmp_path, parted, name):
    assert fields_of(tmp_path, name, CONLL.replace(" ", parted), "tag") == [
        {"words": ("EU", "rejects"), "tags": ("B-ORG", "O")},
        {"words": ("#", "#tag"), "tags": ("O", "O")},
    ]


def test_conll_columns_may_be_numbered(tmp_path):
    found = fields_of(tmp_path, "a.conll", CONLL, "tag", {"tags": "1"})
    assert [record["tags"] for record in found] == [("NNP", "VBZ"), ("NN", "NN")]
    assert found == fields_of(tmp_path, "a.conll", CONLL.replace(" ", "  "), "tag", {"tags": "1"})
    assert found == fields_of(tmp_path, "a.conll", CONLL.replace(" ", " \t "), "tag", {"tags": "1"})
    assert found == fields_of(tmp_path, "a.conll", CONLL, "tag", {"tags": "-3", "words": "0"})


def test_conll_sentences_stand_where_they_begin_and_odd_white_space_is_a_word(tmp_path):
    write(tmp_path, {"a.bmes": "\u3000 O\n\u00a0 O\n\nb\u2003c\tO\n"})
    first, second = read_records(tmp_path / "a.bmes", "tag", {}, 0)["train"]
    assert (first.fields["words"], first.where) == (("\u3000", "\u00a0"), f"{tmp_path}/a.bmes:1")
    assert (second.fields["words"], second.where) == (("b\u2003c",), f"{tmp_path}/a.bmes:4")


def test_scan_lines_are_pairs(tmp_path):
    text = "IN: jump twice OUT: I_JUMP I_JUMP\n\nIN: look OUT: I_LOOK"
    assert fields_of(tmp_path, "a.txt.gz", text, "pairs") == [
        {"source": "jump twice", "target": "I_JUMP I_JUMP"},
        {"source": "look", "target": "I_LOOK"},
    ]


def test_slots_come_from_three_files_per_part(tmp_path):
    rows = {
        "seq.in": "play  blues \nstop\u00a0it\n",
        "seq.out": "O B-genre \nO",
        "label": " Play\r\nStop\r\n",
    }
    for part in ("train", "valid"):
        write(tmp_path / part, {f"{name}.gz" if name != "label" else name: t for name, t in rows.items()})
    parts = read_records(tmp_path, "slots", {}, 0.1)
    assert [record.fields for record in parts["train"]] == [
        {"words": ("play", "blues"), "tags": ("O", "B-genre"), "label": "Play"},
        {"words": ("stop\u00a0it",), "tags": ("O",), "label": "Stop"},
    ]
    assert parts["valid"][1].where == f"{tmp_path}/valid/seq.in.gz:2"


def test_parallel_files_are_pairs_line_by_line(tmp_path):
    texts = {"train.en.gz": "a\nb\n", "train.de": "c\r\nd", "val.en": "e\n", "val.de": "f\n"}
    texts |= {f"test2016.{side}": "g\n" for side in ("en", "de")} | {"test.en": "h", "test.de": "i"}
    write(tmp_path, texts | {"bpe.codes": "x", "README.en": "y"})
    parts = read_records(tmp_path, "pairs", {"source": "de", "target": "en"}, 0.1)
    found = {part: [tuple(r.fields.values()) for r in records] for part, records in parts.items()}
    assert found == {
        "train": [("c", "a"), ("d", "b")],
        "valid": [("f", "e")],
        "test": [("i", "h")],
        "test2016": [("g", "g")],
    }
    assert list(found) == ["train", "valid", "test", "test2016"]


def test_one_pair_of_parallel_files_needs_no_part_in_its_name(tmp_path):
    write(tmp_path, {"europarl.de-en.de": "a\nb", "europarl.de-en.en": "c\nd"})
    parts = read_records(tmp_path, "pairs", {"source": "de", "target": "en"}, 0)
    assert [record.fields["target"] for record in parts["train"]] == ["c", "d"]


@pytest.mark.parametrize("valid", ["dev.tsv", "val.csv", "validation.jsonl", "VALID.tsv.gz"])
def test_parts_of_a_folder_may_be_of_different_formats(tmp_path, valid):
    table = "text,label\na,1" if "csv" in valid else "text\tlabel\na\t1"
    text = json.dumps({"text": "a", "label": "1"}) if "json" in valid else table
    write(tmp_path, {"train.tsv": "text\tlabel\nb\t1", valid: text, "README.md": "x", "train.py": "x"})
    parts = read_records(tmp_path, "classify", {}, 0.1)
    assert {part: records[0].fields["text"] for part, records in parts.items()} == {
        "train": "b",
        "valid": "a",
    }


HEADED = "sentence\tlabel\na\t1\nb\t0\n"
UNLABELLED = "index\tsentence\n0\ta\n1\tb\n"


@pytest.mark.parametrize(
    "train, columns, test",
    [
        (HEADED, {}, ("test.tsv", UNLABELLED)),
        (HEADED, {"text": "sentence", "label": "label"}, ("test.tsv", UNLABELLED)),
        (HEADED, {"text": "0", "label": "1"}, ("test.tsv", UNLABELLED)),
        (HEADED, {}, ("test.jsonl", '{"sentence": "a"}')),
        ("x\t1\t\ta\nx\t0\t\tb\n", {"text": "3", "label": "1"}, ("test.tsv", UNLABELLED)),  # as CoLA is
    ],
)
def test_a_test_part_without_labels_is_left_out_and_that_is_said(tmp_path, caplog, train, columns, test):
    write(tmp_path, {"train.tsv": train, "dev.tsv": train, test[0]: test[1]})
    with caplog.at_level(logging.INFO, "zoo.data"):
        parts = read_records(tmp_path, "classify", columns, 0.1)
    assert {part: len(records) for part, records in parts.items()} == {"train": 2, "valid": 2}
    assert "the test part is left out" in caplog.text and f"{tmp_path / test[0]}:1: " in caplog.text


def rows(count, copies=1):
    return "text\tlabel\n" + "".join(f"text {i}\t{i % 2}\n" * copies for i in range(count))


def test_a_split_leaves_no_label_to_validation_alone(tmp_path):
    """A class of one example is trained on: nothing could be right about it otherwise."""
    lines = [f"{i}\tclass {i if i < 40 else i % 2}\n" for i in range(100)] + ["7\tclass 0\n", "8\tclass 0\n"]
    write(tmp_path, {"a.tsv": "text\tlabel\n" + "".join(lines)})
    parts = read_records(tmp_path / "a.tsv", "classify", {}, 0.3)
    train, valid = ([record.fields for record in parts[part]] for part in ("train", "valid"))
    assert {each["label"] for each in valid} == {"class 0", "class 1"}
    texts = [{each["text"] for each in part} for part in (train, valid)]
    assert len(train + valid) == 102 and len(texts[0] | texts[1]) == 100 and not texts[0] & texts[1]


def test_a_single_file_is_split_and_its_copies_stay_together(tmp_path):
    write(tmp_path, {"a.tsv": rows(100, copies=3)})
    parts = read_records(tmp_path / "a.tsv", "classify", {}, 0.2)
    texts = {part: Counter(r.fields["text"] for r in records) for part, records in parts.items()}
    assert texts["train"].total() + texts["valid"].total() == 300 and 5 <= len(texts["valid"]) <= 40
    assert not texts["train"].keys() & texts["valid"].keys()


def test_a_text_with_two_labels_or_targets_lies_in_one_part(tmp_path):
    table = "source\ttarget\n" + "".join(f"s{i}\tt{j}\n" for j in range(3) for i in range(60))
    write(tmp_path, {"a.tsv": table})
    parts = read_records(tmp_path / "a.tsv", "pairs", {}, 0.2)
    train, valid = ({r.fields["source"] for r in parts[part]} for part in ("train", "valid"))
    assert valid and not train & valid


def test_a_record_keeps_its_part_when_others_come_and_go(tmp_path):
    write(tmp_path, {"a.tsv": rows(60), "b.tsv": rows(90)})
    few, many = (
        {r.fields["text"] for r in read_records(tmp_path / name, "classify", {}, 0.2)["valid"]}
        for name in ("a.tsv", "b.tsv")
    )
    assert few == {text for text in many if int(text.split()[1]) < 60}


def test_a_folder_without_valid_part_gives_up_some_of_its_training_part(tmp_path):
    write(tmp_path, {"train.tsv": rows(60), "test.tsv": rows(3)})
    parts = read_records(tmp_path, "classify", {}, 0.2)
    assert list(parts) == ["train", "valid", "test"]
    assert len(parts["train"]) + len(parts["valid"]) == 60 and len(parts["test"]) == 3
    assert read_records(tmp_path, "classify", {}, 0).keys() == {"train", "test"}


def test_records_of_equal_inputs_have_equal_keys_wherever_they_stand():
    first, same, other = (
        Record({"text": text, "label": label}, where)
        for text, label, where in [("a", "1", "x:1"), ("a", "0", "y:9"), ("b", "1", "x:1")]
    )
    assert first.key == same.key != other.key


COUNTS = {
    "glue-sst2": ("classify", {}, {"train": 67_349, "valid": 872}),
    "glue-cola": ("classify", {"text": "3", "label": "1"}, {"train": 8_551, "valid": 1_043}),
    "glue-mrpc": ("classify", {}, {"train": 3_667, "valid": 408}),
    "chnsenticorp": ("classify", {}, {"train": 9_600, "valid": 1_200, "test": 1_200}),
    "wnut17": ("tag", {}, {"train": 3_394, "valid": 1_009, "test": 1_287}),
    "resume-ner-zh": ("tag", {}, {"train": 3_821, "valid": 463, "test": 477}),
    "snips": ("slots", {}, {"train": 13_084, "valid": 700, "test": 700}),
    "multi30k-bpe": (
        "pairs",
        {"source": "de", "target": "en"},
        {"train": 29_000, "valid": 1_014, "test2016": 1_000, "test2017": 1_000, "testcoco": 461},
    ),
    "scan/simple": ("pairs", {}, {"train": 16_728, "test": 4_182}),
    "scan/length": ("pairs", {}, {"train": 16_990, "test": 3_920}),
    "scitldr-a": ("pairs", {}, {"train": 1_992, "valid": 619, "test": 618}),
}


def published(name):
    kind, columns, _ = COUNTS[name]
    return read_records(DATA / name, kind, columns, 0)


@needs_data
@pytest.mark.parametrize("name", COUNTS)
def test_published_data_sets_have_their_published_sizes(name):
    assert {part: len(records) for part, records in published(name).items()} == COUNTS[name][2]


def counted(parts, field, count):
    return {part: sum(count(r.fields[field]) for r in records) for part, records in parts.items()}


@needs_data
@pytest.mark.parametrize(
    "name, words",
    [
        ("wnut17", {"train": 62_730, "valid": 15_733, "test": 23_394}),
        ("resume-ner-zh", {"train": 124_099, "valid": 13_890, "test": 15_100}),
        ("snips", {"train": 117_700, "valid": 6_384, "test": 6_354}),
    ],
)
def test_published_sentences_have_their_published_numbers_of_words(name, words):
    assert counted(published(name), "words", len) == words


@needs_data
@pytest.mark.parametrize(
    "name, positive",
    [
        ("glue-sst2", {"train": 37_569, "valid": 444}),
        ("glue-cola", {"valid": 721}),
        ("glue-mrpc", {"valid": 279}),
        ("chnsenticorp", {"train": 4_798, "valid": 590, "test": 602}),
    ],
)
def test_published_texts_have_their_published_numbers_of_positive_labels(name, positive):
    parts = published(name)
    found = counted(parts, "label", lambda label: label == "1")
    assert found | positive == found
    assert {r.fields["label"] for records in parts.values() for r in records} == {"0", "1"}
    assert all(("text_pair" in r.fields) == (name == "glue-mrpc") for r in parts["valid"])


@needs_data
def test_published_pairs_have_their_published_words_and_references():
    german = {"train": 400_507, "valid": 14_502, "test2016": 13_447, "test2017": 12_426, "testcoco": 5_958}
    english = {"train": 397_793, "valid": 14_139, "test2016": 13_671, "test2017": 12_183, "testcoco": 5_573}
    parts = published("multi30k-bpe")
    assert counted(parts, "source", lambda text: len(text.split())) == german
    assert counted(parts, "target", lambda text: len(text.split())) == english
    references = {"train": 1_992, "valid": 1_453, "test": 1_967}
    assert counted(published("scitldr-a"), "references", len) == references


@needs_data
def test_published_slots_have_their_labels():
    parts = published("snips")
    tags = {tag for records in parts.values() for record in records for tag in record.fields["tags"]}
    assert len(tags) == 72 and len({record.fields["label"] for record in parts["train"]}) == 7
