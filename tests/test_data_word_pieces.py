"""Texts, pairs and tagged words in BERT's pieces: what a row holds, and which piece a word's tag is at."""

import json
import random

import numpy as np
import pytest

from zoo.data.examples.config import ExamplesConfig
from zoo.data.examples.example_set import make_examples
from zoo.data.examples.record import Record
from zoo.data.examples.records import read_file
from zoo.data.examples.records.spans import make_text_record
from zoo.data.tokenizers.bpe import BPETokenizer, byte_symbols
from zoo.errors import DataError
from zoo.inference.predict import spans_of

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PIECES = (*MARKS, "a", "b", "c", "in", "##side", "##s", "un", "##a", "-", "中", "文")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n")
    return str(path)


def make(kind, parts, vocab_path, **settings):
    settings = {"tokenizer": "wordpiece", "wrap": "both", "batch_size": 1} | settings
    return make_examples(parts, ExamplesConfig(kind=kind, vocab_path=vocab_path, **settings), 0)


def row(dataset, number=0):
    """One record's arrays, without padding of its tokens."""
    found = dataset.layout.rows(np.array([number]), dataset.layout.lengths_NK[number])
    return {name: array[0] for name, array in found.items()}


def pieces(dataset, number=0):
    return [dataset.tokenizer.pieces[i] for i in row(dataset, number)["tokens"]]


# Pairs.


def pairs(*texts):
    records = [
        Record({"text": one, "text_pair": other, "label": "xy"[i % 2]}, f"made:{i}")
        for i, (one, other) in enumerate(texts)
    ]
    return {"train": (*records, *records), "valid": tuple(records)}


def test_a_pair_is_marked_and_typed_as_bert_has_it(vocabulary):
    dataset = make("classify", pairs(("insides", "中b"), ("a", "c c")), vocabulary)
    assert pieces(dataset) == ["[CLS]", "in", "##side", "##s", "[SEP]", "中", "b", "[SEP]"]
    assert row(dataset)["token_types"].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert row(dataset)["lengths"] == 8


def test_a_single_text_has_two_marks_and_no_types(vocabulary):
    records = (Record({"text": "a inside", "label": "x"}, "1"), Record({"text": "b", "label": "y"}, "2"))
    dataset = make("classify", {"train": records, "valid": records}, vocabulary)
    assert pieces(dataset) == ["[CLS]", "a", "in", "##side", "[SEP]"]
    assert "token_types" not in row(dataset)


def test_of_a_long_pair_the_longer_text_is_cut_first_and_every_mark_stays(vocabulary):
    dataset = make(
        "classify", pairs(("a a a a a a", "b b"), ("c c c", "c c c c c")), vocabulary, max_length=8
    )
    assert pieces(dataset) == "[CLS] a a a [SEP] b b [SEP]".split()
    assert row(dataset)["token_types"].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert pieces(dataset, 1) == "[CLS] c c [SEP] c c c [SEP]".split()


def test_a_pair_in_robertas_pieces_has_two_marks_between_and_no_types(tmp_path):
    vocab = ["<s>", "<pad>", "</s>", "<unk>", *byte_symbols(), "<mask>"]
    BPETokenizer({piece: i for i, piece in enumerate(vocab)}, ()).save(tmp_path)
    dataset = make("classify", pairs(("ab", "c"), ("b", "a")), str(tmp_path), tokenizer="bpe")
    a, b, c = (vocab.index(letter) for letter in "abc")
    assert row(dataset)["tokens"].tolist() == [0, a, b, 2, 2, c, 2]
    assert "token_types" not in row(dataset)


def test_pairs_equal_transformers(vocabulary):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizer(vocab=vocabulary)
    rng = random.Random(0)
    texts = [
        tuple(" ".join(rng.choices(["a", "insides", "una", "中文", "z"], k=rng.randint(1, 9))) for _ in "12")
        for _ in range(60)
    ]
    for max_length in (9, 10, 16, 40):
        dataset = make("classify", pairs(*texts), vocabulary, max_length=max_length)
        for i, (one, other) in enumerate(texts):
            want = theirs(one, other, truncation="longest_first", max_length=max_length)
            assert row(dataset, i)["tokens"].tolist() == want["input_ids"]
            assert row(dataset, i)["token_types"].tolist() == want["token_type_ids"]


# Tagged words.


def tagged(*sentences):
    """Records of kind tag: a sentence is (words, tags)."""
    records = tuple(
        Record({"words": tuple(words.split()), "tags": tuple(tags.split())}, f"made:{i}")
        for i, (words, tags) in enumerate(sentences)
    )
    return {"train": records, "valid": records[:1]}


SENTENCE = ("insides a una 中", "B-x O B-y I-y")


@pytest.mark.parametrize(("wrap", "begin"), [("both", 1), ("end", 0), ("none", 0)])
def test_a_words_tag_is_at_its_first_piece(vocabulary, wrap, begin):
    dataset = make("tag", tagged(SENTENCE), vocabulary, wrap=wrap)
    found = row(dataset)
    read = [dataset.tokenizer.pieces[found["tokens"][place]] for place in found["word_starts"]]
    assert read == ["in", "a", "un", "中"] and found["word_starts"].tolist() == [
        begin + i for i in (0, 3, 4, 6)
    ]
    assert [dataset.tags[tag] for tag in found["tags"]] == SENTENCE[1].split()
    assert found["word_counts"] == 4 and found["lengths"] == 7 + {"both": 2, "end": 1, "none": 0}[wrap]


def test_a_word_of_which_nothing_is_left_is_unknown(vocabulary):
    parts = tagged(("a b", "O O"))
    hidden = Record({"words": ("a", "\u200b", "b"), "tags": ("O", "B-x", "O")}, "1")
    dataset = make("tag", parts | {"valid": (hidden,), "train": (hidden,)}, vocabulary)
    assert pieces(dataset) == ["[CLS]", "a", "[UNK]", "b", "[SEP]"]
    assert row(dataset)["word_starts"].tolist() == [1, 2, 3]


def test_a_long_sentence_is_cut_before_a_word_in_training(vocabulary):
    parts = tagged(("a", "O"), SENTENCE)
    dataset = make("tag", parts, vocabulary, max_length=8)
    found = dataset.train.rows(np.array([1]), (3, 8))
    names = [dataset.tokenizer.pieces[i] for i in found["tokens"][0]]
    assert names == "[CLS] in ##side ##s a un ##a [SEP]".split()
    assert found["word_counts"].tolist() == [3] and found["tags"].shape == (1, 3)
    shorter = make("tag", parts, vocabulary, max_length=7).train.rows(np.array([1]), (2, 7))
    assert [dataset.tokenizer.pieces[i] for i in shorter["tokens"][0]][:6] == names[:5] + ["[SEP]"]


def test_of_a_first_word_that_is_too_long_a_part_remains(vocabulary):
    parts = tagged(("a", "O"), ("insidesssss b", "B-x O"))
    found = make("tag", parts, vocabulary, max_length=5).train.rows(np.array([1]), (1, 5))
    assert found["lengths"].tolist() == [5] and found["word_starts"].tolist() == [[1]]


def test_a_long_sentence_is_refused_where_it_is_evaluated_and_counted_in_pieces(vocabulary):
    parts = tagged(("a", "O"), SENTENCE)
    with pytest.raises(
        DataError, match="made:1: 9 pieces and marks, more than max_length=8, .* to 9 or more"
    ):
        make("tag", parts | {"valid": parts["train"]}, vocabulary, max_length=8)


def test_words_that_are_tokens_can_stand_between_marks_too():
    dataset = make("tag", tagged(("a b", "O B-x")), "", tokenizer="word")
    words = [dataset.tokenizer.words[i] for i in row(dataset)["tokens"]]
    assert words == ["<s>", "a", "b", "</s>"] and row(dataset)["word_starts"].tolist() == [1, 2]


def test_words_that_are_tokens_are_batched_as_ever():
    dataset = make("tag", tagged(("a b", "O B-x")), "", tokenizer="word", wrap="none")
    assert set(row(dataset)) == {"tokens", "lengths", "present", "tags"}


def test_a_batch_has_a_length_for_words_and_one_for_pieces(vocabulary):
    rng = random.Random(1)
    sentences = []
    for _ in range(40):
        words = rng.choices(["insides", "a", "una"], k=rng.randint(1, 30))
        sentences.append((" ".join(words), " ".join("O" if word == "a" else "B-x" for word in words)))
    parts = tagged(*sentences)
    dataset = make("tag", parts | {"valid": parts["train"]}, vocabulary, batch_size=4, max_length=128)
    seen = 0
    for i in range(dataset.num_eval_batches):
        batch = dataset.eval_batch(i, range(4))
        assert batch["tokens"].shape[1] >= batch["tags"].shape[1] == batch["word_starts"].shape[1]
        for j in np.flatnonzero(batch["present"]):
            first = batch["tokens"][j][batch["word_starts"][j, : batch["word_counts"][j]]]
            is_a = np.array([dataset.tokenizer.pieces[token] == "a" for token in first])
            tags = [dataset.tags[tag] for tag in batch["tags"][j, : batch["word_counts"][j]]]
            assert [tag == "O" for tag in tags] == is_a.tolist()
            seen += 1
    assert seen == 40


def test_the_pieces_of_words_in_bytes_are_those_of_the_text():
    dataset = make("tag", tagged(("ab c", "O B-x")), "", tokenizer="byte")
    assert row(dataset)["tokens"].tolist() == [256, *b" ab c", 256]
    assert row(dataset)["word_starts"].tolist() == [1, 4]


# Texts with spans.


def write(path, *objects):
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects))
    return path


def span(start, end, label="x"):
    return {"start": start, "end": end, "label": label}


def test_spans_become_tags_of_the_words_that_they_cover(tmp_path):
    text = "Anna Lee-Smith: 在北京 e\u0301te\u0301."
    spans = [span(0, 14, "PER"), span(17, 19, "LOC")]
    (record,) = read_file(write(tmp_path / "a.jsonl", {"text": text, "spans": spans}), "tag", {})
    assert record.fields["words"] == (
        "Anna",
        "Lee",
        "-",
        "Smith",
        ":",
        "在",
        "北",
        "京",
        "e\u0301te\u0301",
        ".",
    )
    assert record.fields["tags"] == ("B-PER", *["I-PER"] * 3, "O", "O", "B-LOC", "I-LOC", "O", "O")
    assert [text[start:end] for start, end in record.offsets] == list(record.fields["words"])


def test_texts_with_spans_have_a_label_too_where_slots_are_read(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "go home", "spans": [], "label": "Go"})
    (record,) = read_file(path, "slots", {})
    assert record.fields == {"words": ("go", "home"), "tags": ("O", "O"), "label": "Go"}


@pytest.mark.parametrize(
    "spans, said",
    [
        ([span(0, 3)], "spans[0], 0 to 3, cuts the word 'Anna' in two"),
        ([span(4, 5)], "spans[0], 4 to 5, has no word"),
        ([span(0, 8), span(5, 8)], "spans[1], 5 to 8, overlaps another"),
        ([span(0, 9)], "spans[0]: start 0 and end 9 are no part of 8 characters"),
        ([span(3, 3)], "start 3 and end 3"),
        ([span(0, 4, " ")], "spans[0]: the label ' ' is no name"),
        ([{"start": 0}], "spans[0] is not such as"),
        ("x", '"spans" is a JSON str, not a list'),
    ],
)
def test_a_span_that_cannot_be_meant_is_one_line_with_its_place(tmp_path, spans, said):
    path = write(tmp_path / "a.jsonl", {"text": "a b", "spans": []}, {"text": "Anna Lee", "spans": spans})
    with pytest.raises(DataError) as caught:
        read_file(path, "tag", {})
    assert f"{path}:2: " in str(caught.value) and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_predicted_tags_are_spans_of_the_text():
    record = make_text_record("Anna Lee lives in Rome.", "1")
    tags = ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]
    assert spans_of(record, tags, ["B-PER", "I-PER", "B-LOC", "O"]) == [
        span(0, 8, "PER") | {"text": "Anna Lee"},
        span(18, 22, "LOC") | {"text": "Rome"},
    ]
    assert spans_of(record, ["noun", *["O"] * 5], ["noun", "verb", "O"]) == [
        span(0, 4, "noun") | {"text": "Anna"}
    ]


# What cannot be read.


def test_a_text_of_which_no_piece_is_left_is_refused_with_its_place(vocabulary):
    parts = {
        "train": (Record({"text": "a", "label": "x"}, "1"), Record({"text": "b", "label": "y"}, "2")),
        "valid": (Record({"text": "\u200b", "label": "x"}, "dev.tsv:7"),),
    }
    with pytest.raises(DataError, match="dev.tsv:7: the text .* is empty"):
        make("classify", parts, vocabulary)


def test_a_text_of_100_000_characters_is_cut_to_a_row(vocabulary):
    long = Record({"text": "inside " * 14_300, "label": "x"}, "1")
    parts = {"train": (long, Record({"text": "b", "label": "y"}, "2")), "valid": (long,)}
    dataset = make("classify", parts, vocabulary, max_length=64)
    assert len(row(dataset)["tokens"]) == 64 and pieces(dataset)[-1] == "[SEP]"
    assert "1 of valid too long and cut" in dataset.describe()
