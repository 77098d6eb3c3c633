"""ROUGE against the package rouge_score, the paper's examples, and scores stored in published data."""

import gzip
import json
from pathlib import Path

import pytest

from zoo.errors import DataError
from zoo.scores import rouge
from zoo.scores.rouge import MEASURES, longest_common, rouge_l, rouge_n

GOLDEN = json.loads((Path(__file__).parent / "goldens" / "rouge.json").read_text())["cases"]
SCITLDR = Path(__file__).parents[2] / "shared" / "data" / "scitldr-a"


@pytest.mark.parametrize("case", GOLDEN)
def test_scores_are_those_of_rouge_score(case):
    for name, measure in MEASURES.items():
        scores = [measure(case["prediction"], reference) for reference in case["references"]]
        best = max(scores, key=lambda score: score.f1)
        assert best.f1 == pytest.approx(case[name][2], abs=1e-12), name
        if len(scores) == 1:  # else references may be equally good, and only rounding chooses
            assert [best.precision, best.recall] == pytest.approx(case[name][:2], abs=1e-12), name
    if any(case[name][2] for name in MEASURES):
        means = rouge([case["prediction"]], [case["references"]])
        assert means == pytest.approx({name: case[name][2] for name in MEASURES}, abs=1e-12)


def test_rouge_l_of_the_papers_sentences():
    # Lin 2004, section 3.1: of "police killed the gunman", S2 keeps three words in order and S3 two
    reference = [["police", "killed", "the", "gunman"]]
    assert rouge_l([["police", "kill", "the", "gunman"]], reference).f1 == 0.75
    assert rouge_l([["the", "gunman", "kill", "police"]], reference).f1 == 0.5


def test_rouge_l_of_the_papers_summary_is_the_union():
    # Lin 2004, section 3.2: subsequences w1 w2 and w1 w3 w5 of five words cover four of them
    reference, summary = ["w1 w2 w3 w4 w5".split()], ["w1 w2 w6 w7 w8".split(), "w1 w3 w8 w9 w5".split()]
    assert rouge_l(summary, reference).recall == 4 / 5


def test_longest_common_gives_positions_in_the_first():
    assert longest_common("a x b y c".split(), "a b c".split()) == {0, 2, 4}
    assert longest_common("a b c".split(), "x".split()) == set()


def test_rouge_n_counts_a_repeated_gram_as_often_as_the_rarer_side():
    score = rouge_n("the the the".split(), "the cat the dog".split(), 1)
    assert (score.precision, score.recall, score.support) == (2 / 3, 2 / 4, 4)


def test_the_corpus_score_is_the_mean_of_its_lines():
    scores = rouge(["a b", "c d"], ["a b", "x y"])
    assert scores == {"rouge_1": 0.5, "rouge_2": 0.5, "rouge_l": 0.5}


def test_each_measure_takes_the_reference_it_likes_best():
    scores = rouge(["a b c d"], [("d c b a", "a b x y")])
    assert scores == {"rouge_1": 1.0, "rouge_2": 1 / 3, "rouge_l": 0.5}


def test_nothing_scores_zero():
    assert rouge([], []) == {"rouge_1": 0.0, "rouge_2": 0.0, "rouge_l": 0.0}
    assert rouge([""], ["a"]) == rouge([], [])


@pytest.mark.parametrize(
    ("predictions", "references", "says"),
    [
        (["a"], ["a", "b"], "1 texts for 2 references"),
        (["a", "b"], ["a", ()], "line 1 has no reference"),
        (["\u6458\u8981"], ["\u6458\u8981"], "no reference has a letter a-z or a digit"),
    ],
)
def test_what_cannot_be_scored_is_one_line(predictions, references, says):
    with pytest.raises(DataError, match=says) as caught:
        rouge(predictions, references)
    assert "\n" not in str(caught.value)


# --- SciTLDR's stored scores ----------------------------------------------------------------------
# `rouge_scores` of its files hold an F-measure of each sentence with the first reference. They are no
# ROUGE-1 of Lin's: upper and lower case differ, words are cut at blanks and full stops, and each word
# counts once however often it occurs: the package rouge 0.3.1 gives the very same, 1e-8 in F included.


def distinct_words(text):
    parts = [" ".join(part.split()) for part in text.split(".") if part]
    return sorted({word for part in parts for word in part.split(" ")})  # blanks after a stop are a word, too


def papers(part):
    """Those with a stored score for every sentence; elsewhere some were left out."""
    with gzip.open(SCITLDR / f"{part}.jsonl.gz", "rt", encoding="utf-8", newline="") as file:
        read = [json.loads(line) for line in file]
    return [paper for paper in read if len(paper["source"]) == len(paper["rouge_scores"])]


@pytest.mark.skipif(not SCITLDR.is_dir(), reason="the data sets (../shared/data) are not here")
@pytest.mark.parametrize(("part", "sentences"), [("train", 13_244), ("dev", 4_156), ("test", 4_073)])
def test_the_scores_stored_in_scitldr_are_rouge_1_of_distinct_words(part, sentences):
    compared = 0
    for paper in papers(part):
        reference = distinct_words(paper["target"][0])
        for sentence, stored in zip(paper["source"], paper["rouge_scores"], strict=True):
            assert rouge_n(distinct_words(sentence), reference, 1).f1 == pytest.approx(stored, abs=1e-8)
            compared += 1
    assert compared == sentences
