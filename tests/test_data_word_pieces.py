"""Texts, pairs and tagged words in BERT's pieces: what a row holds, and which piece a word's tag is at."""

import random

import numpy as np
import pytest

from zoo.data.examples.config import ExamplesConfig
from zoo.data.examples.example_set import make_examples
from zoo.data.examples.record import Record
from zoo.data.tokenizers.bpe import BPETokenizer, byte_symbols

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


def test_pairs_and_single_texts_can_stand_together(vocabulary):
    records = (
        Record({"text": "a", "text_pair": "b", "label": "x"}, "1"),
        Record({"text": "a b", "label": "y"}, "2"),
    )
    dataset = make("classify", {"train": records, "valid": records}, vocabulary)
    assert row(dataset, 0)["token_types"].tolist() == [0, 0, 0, 1, 1]
    assert row(dataset, 1)["token_types"].tolist() == [0, 0, 0, 0]


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
