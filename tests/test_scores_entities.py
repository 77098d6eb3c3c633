"""Entities and their scores: seqeval, conlleval's rules as a pattern, the counts of published data."""

import gzip
import itertools
import json
import re
from pathlib import Path

import pytest

from zoo.errors import DataError
from zoo.scores import entity_scores, scheme_of, sentence_accuracy, spans

GOLDEN = json.loads((Path(__file__).parent / "goldens" / "entities.json").read_text())["cases"]
DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the data sets (../shared/data) are not here")


def numbers(score):
    return [score.precision, score.recall, score.f1]


# --- what is an entity ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB1", "O I-X I-X B-X I-Y O I-X"),
        ("IOB2", "O B-X I-X B-X B-Y O B-X"),
        ("BIOES", "O B-X E-X S-X S-Y O S-X"),
        ("IOBES", "O B-X E-X S-X S-Y O S-X"),
        ("BMES", "O B-X E-X S-X S-Y O S-X"),
    ],
)
def test_the_same_entities_in_every_scheme(scheme, tags):
    assert spans(tags.split(), scheme) == {("X", 1, 3), ("X", 3, 4), ("Y", 4, 5), ("X", 6, 7)}


@pytest.mark.parametrize(
    ("scheme", "tags", "expected"),
    [
        ("IOB2", "O I-X I-X", {("X", 1, 3)}),
        ("IOB2", "B-X I-Y I-X", {("X", 0, 1), ("Y", 1, 2), ("X", 2, 3)}),
        ("BIOES", "B-X O I-X O E-X", {("X", 0, 1), ("X", 2, 3), ("X", 4, 5)}),
        ("BIOES", "I-X E-X E-X", {("X", 0, 2), ("X", 2, 3)}),
        ("BIOES", "B-X S-X I-X", {("X", 0, 1), ("X", 1, 2), ("X", 2, 3)}),
        ("BIOES", "E-X B-X", {("X", 0, 1), ("X", 1, 2)}),
        ("BMES", "M-X M-X B-X", {("X", 0, 2), ("X", 2, 3)}),
        ("BMES", "B M E S O", {("", 0, 3), ("", 3, 4)}),
        ("IOB2", "B-a-b I-a-b I-a", {("a-b", 0, 2), ("a", 2, 3)}),
        ("IOB2", "", set()),
    ],
)
def test_invalid_sequences_are_read_leniently(scheme, tags, expected):
    assert spans(tags.split(), scheme) == expected


def pattern_spans(tags, inside):
    """conlleval's reading as a pattern: a lone S, a lone E, or B or I, then I's and an E of the same type."""
    line, starts = " ".join(tags) + " ", {}
    for i in range(len(tags) + 1):
        starts[len(" ".join(tags[:i])) + (i > 0)] = i
    found = re.finditer(rf"[SE]-(\w) |[B{inside}]-(\w) (?:{inside}-\2 )*(?:E-\2 )?", line)
    return {(m[1] or m[2], starts[m.start()], starts[m.end()]) for m in found}


@pytest.mark.parametrize(("scheme", "letters"), [("IOB2", "BI"), ("BIOES", "BIES"), ("BMES", "BMES")])
def test_every_sequence_of_four_tags_reads_as_the_pattern(scheme, letters):
    names = ["O", *(f"{letter}-{kind}" for letter in letters for kind in "XY")]
    for tags in itertools.product(names, repeat=4):
        assert spans(tags, scheme) == pattern_spans(tags, letters[1]), tags


def test_iob1_and_iob2_read_every_sequence_alike():
    for tags in itertools.product(["O", "B-X", "I-X", "B-Y", "I-Y"], repeat=4):
        assert spans(tags, "IOB1") == spans(tags, "IOB2")


@pytest.mark.parametrize("tag", ["L-X", "M-X", "X", "", "-X", "o", "O-X", "BI-X", "b-X"])
def test_a_tag_of_no_letter_is_refused(tag):
    with pytest.raises(DataError, match=f"^tag {tag!r} is not of BIOES; it has B-TYPE, I-TYPE, E-TYPE"):
        spans(["B-X", tag], "BIOES")


def test_an_unknown_scheme_is_refused():
    with pytest.raises(DataError, match="'BILOU' is not known; there are IOB1, IOB2, BIOES, IOBES, BMES"):
        spans(["O"], "BILOU")


# --- how many were found --------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN)
def test_entities_score_as_in_seqeval(case):
    rows = [[line.split() for line in case[side]] for side in ("predictions", "targets")]
    table = entity_scores(*rows, case["scheme"])
    assert list(table.classes) == list(case["types"])
    for kind, expected in case["types"].items():
        score = table.classes[kind]
        assert [*numbers(score), score.support] == pytest.approx(expected, abs=1e-12)
    for average in ("micro", "macro", "weighted"):
        expected = case[average] or [0, 0, 0]  # seqeval's mean over no types is NaN, ours is 0
        assert numbers(getattr(table, average)) == pytest.approx(expected, abs=1e-12)


def test_half_an_entity_is_not_found():
    table = entity_scores([["B-X", "O", "B-Y"]], [["B-X", "I-X", "B-Y"]], "IOB2")
    assert numbers(table.micro) == [0.5, 0.5, 0.5]
    assert numbers(table.classes["X"]) == [0.0, 0.0, 0.0]
    assert numbers(table.classes["Y"]) == [1.0, 1.0, 1.0]


def test_an_entity_of_another_sentence_is_not_found():
    table = entity_scores([["B-X"], ["O"]], [["O"], ["B-X"]], "IOB2")
    assert table.micro.f1 == 0.0


def test_no_sentences_score_zero():
    assert numbers(entity_scores([], [], "IOB2").micro) == [0.0, 0.0, 0.0]
    assert "micro" in str(entity_scores([], [], "IOB2"))


def test_rows_that_do_not_match_are_refused():
    with pytest.raises(DataError, match="1 tagged sentences for 2 sentences"):
        entity_scores([["O"]], [["O"], ["O"]], "IOB2")
    with pytest.raises(DataError, match="sentence 1 has 1 predicted tags for 2 words"):
        entity_scores([["O"], ["O"]], [["O"], ["O", "O"]], "IOB2")


def test_a_sentence_is_right_when_label_and_all_tags_are():
    tags = [["O", "B-X"], ["O"], ["B-X", "I-X"], ["O"]]
    guesses = [["O", "B-X"], ["O"], ["B-X", "B-X"], ["O"]]
    labels = ["play", "book", "play", "book"]
    arguments = {"predicted_tags": guesses, "target_tags": tags, "target_labels": labels}
    assert sentence_accuracy(predicted_labels=labels, **arguments) == 0.75
    assert sentence_accuracy(predicted_labels=["play", "play", "play", "book"], **arguments) == 0.5
    with pytest.raises(DataError, match="3 predicted labels for 4 labels"):
        sentence_accuracy(predicted_labels=labels[:3], **arguments)
    with pytest.raises(DataError, match="3 labels for 4 sentences"):
        sentence_accuracy(predicted_labels=labels[:3], **arguments | {"target_labels": labels[:3]})


def test_no_sentence_is_right_among_none():
    none = {"predicted_tags": [], "target_tags": [], "predicted_labels": [], "target_labels": []}
    assert sentence_accuracy(**none) == 0.0


# --- which scheme ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O B-X I-X B-Y", "IOB2"),
        ("B-X I-X", "IOB2"),
        ("O B-X", "IOB2"),
        ("O I-X", "IOB1"),
        ("O B-X I-X I-Y", "IOB1"),  # in IOB2, no Y could begin
        ("O B-X I-X E-X S-X", "BIOES"),
        ("O B-X E-X", "BIOES"),  # or BMES, with the same entities
        ("O S-X", "BIOES"),
        ("O B-X M-X E-X S-X", "BMES"),
        ("B M E S", "BMES"),
        ("B I O", "IOB2"),
        ("NN VB DT", None),
        ("keyword name O", None),
        ("M P S", None),  # parts of speech that look like letters
        ("O", None),
        ("", None),
    ],
)
def test_the_scheme_is_read_from_the_tags(tags, scheme):
    assert scheme_of(tags.split()) == scheme


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ("O B-X I-X M-X", "letters B I M; BIOES has I, BMES M, none both"),
        ("O I-X E-X", "letters E I and no B, as in IOE"),
        ("O B-X noun", "tags 'B-X' and 'noun' are not of one scheme"),
        ("O B-X L-X", "tags 'B-X' and 'L-X' are not of one scheme"),
    ],
)
def test_tags_of_no_one_scheme_are_refused(tags, says):
    with pytest.raises(DataError, match=says) as caught:
        scheme_of(tags.split())
    assert "\n" not in str(caught.value)


# --- the data sets' own counts (their README) -----------------------------------------------------


def lines(name):
    path = DATA / name
    path = path if path.is_file() else path.with_name(path.name + ".gz")
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        return file.read().split("\n")


def columns(name, separator):
    """The last column of a CoNLL file, by sentences."""
    tags = [line.split(separator)[-1].strip() for line in lines(name)]
    return [list(group) for full, group in itertools.groupby(tags, key=bool) if full]


@needs_data
@pytest.mark.parametrize(
    ("name", "separator", "scheme", "count"),
    [
        ("wnut17/train.conll", "\t", "IOB2", 1_975),
        ("wnut17/dev.conll", "\t", "IOB2", 836),
        ("wnut17/test.conll", "\t", "IOB2", 1_079),
        ("resume-ner-zh/train.bmes", " ", "BMES", 13_440),
        ("resume-ner-zh/dev.bmes", " ", "BMES", 1_497),
        ("resume-ner-zh/test.bmes", " ", "BMES", 1_630),
        ("snips/train/seq.out", None, "IOB2", 33_958),
        ("snips/valid/seq.out", None, "IOB2", 1_794),
        ("snips/test/seq.out", None, "IOB2", 1_790),
    ],
)
def test_entities_of_published_data_are_as_many_as_its_readme_says(name, separator, scheme, count):
    rows = [line.split() for line in lines(name)] if separator is None else columns(name, separator)
    assert scheme_of({tag for row in rows for tag in row}) == scheme
    table = entity_scores(rows, rows, scheme)
    assert table.micro.support == count
    assert table.micro.f1 == table.macro.f1 == 1.0
