"""Scores of classes, numbers and generated text, against scikit-learn, SciPy, sacreBLEU and by hand."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import ConfigError, DataError
from zoo.scores import (
    accuracy,
    bleu,
    chrf,
    class_scores,
    exact_match,
    join_pieces,
    matthews,
    pearson,
    spearman,
    tokenized_bleu,
)
from zoo.scores.classification import confusion
from zoo.scores.ranking import ranks

GOLDEN = json.loads((Path(__file__).parent / "goldens" / "classification.json").read_text())
MULTI30K = Path(__file__).parents[2] / "shared" / "data" / "multi30k-bpe"


def numbers(score):
    return [score.precision, score.recall, score.f1]


# --- classes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["classes"])
def test_classes_score_as_in_scikit_learn(case):
    targets, predictions = case["targets"], case["predictions"]
    names = [str(c) for c in range(8)]  # more than occur: those others change nothing
    table = class_scores(predictions, targets, names)
    assert accuracy(predictions, targets) == pytest.approx(case["accuracy"], abs=1e-12)
    assert matthews(predictions, targets) == pytest.approx(case["matthews"], abs=1e-12)
    for name in names:
        score = table.classes[name]
        expected = case["classes"].get(name, [0, 0, 0, 0])
        assert [*numbers(score), score.support] == pytest.approx(expected, abs=1e-12)
    for average in ("micro", "macro", "weighted"):
        assert numbers(getattr(table, average)) == pytest.approx(case[average], abs=1e-12)


def test_confusion_has_a_row_per_target_and_a_column_per_prediction():
    assert confusion([1, 1, 0], [0, 0, 2], num_classes=3).tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]


def test_matthews_of_two_classes_is_the_phi_coefficient():
    tp, fp, fn, tn = 6, 1, 2, 3
    targets = [1] * tp + [0] * fp + [1] * fn + [0] * tn
    predictions = [1] * tp + [1] * fp + [0] * fn + [0] * tn
    phi = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert matthews(predictions, targets) == pytest.approx(phi, abs=1e-12)


def test_matthews_does_not_overflow():
    targets = np.arange(300_000) % 2  # the product of both variances is beyond 2^63
    assert matthews(targets, targets) == 1.0
    assert matthews(1 - targets, targets) == -1.0


def test_scores_of_nothing_are_zero():
    assert accuracy([], []) == matthews([], []) == exact_match([], []) == pearson([], []) == 0.0
    assert numbers(class_scores([], [], ["a", "b"]).macro) == [0.0, 0.0, 0.0]
    assert numbers(class_scores([], [], ["a", "b"]).weighted) == [0.0, 0.0, 0.0]


def test_one_class_has_no_correlation_but_full_accuracy():
    assert accuracy([1, 1], [1, 1]) == 1.0
    assert matthews([1, 1], [1, 1]) == 0.0


def test_classes_of_any_shape_are_flattened():
    assert accuracy(np.array([[0, 1], [2, 2]]), np.array([[0, 1], [2, 0]])) == 0.75


def test_the_table_prints_percent_under_its_headings():
    lines = str(class_scores([0, 0, 1], [0, 1, 1], ["ham", "spam"])).splitlines()
    assert lines[0].split() == ["precision", "recall", "F1", "support"]
    assert lines[1].split() == ["ham", "50.00", "100.00", "66.67", "1"]
    assert [line.split()[0] for line in lines[2:]] == ["spam", "micro", "macro", "weighted"]
    assert {len(line) for line in lines} == {len(lines[0])}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: accuracy([1, 2], [1]), r"shape \(2,\), targets \(1,\)"),
        (lambda: accuracy([[0.1, 0.9]], [[0, 1]]), "predictions are float64"),
        (lambda: class_scores([0, 5], [0, 1], ["a", "b"]), "class 5 among the predictions; there are 2"),
        (lambda: class_scores([0, 1], [0, -1], ["a", "b"]), "class -1 among the targets"),
        (lambda: exact_match(["a"], ["a", "b"]), "1 outputs for 2 targets"),
        (lambda: pearson([1, 2], [1, 2, 3]), r"shape \(2,\), targets \(3,\)"),
        (lambda: spearman([1, math.nan], [1, 2]), "prediction 1 is nan"),
        (lambda: pearson([1, 2], [math.inf, 2]), "target 0 is inf"),
    ],
)
def test_what_cannot_be_scored_is_one_line(call, says):
    with pytest.raises(DataError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_exact_match_wants_every_item_of_an_output():
    assert exact_match(["I_WALK", "I_RUN I_RUN"], ["I_WALK", "I_RUN"]) == 0.5
    assert exact_match([[1, 2], (3,), np.array([4, 5])], [[1, 2], [3], [4, 6]]) == pytest.approx(2 / 3)
    assert exact_match([[1, 2], [2, 1]], [[1, 2, 3], [1, 2]]) == 0.0


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["numbers"])
def test_correlations_are_those_of_scipy(case):
    assert pearson(case["x"], case["y"]) == pytest.approx(case["pearson"], abs=1e-9)
    assert spearman(case["x"], case["y"]) == pytest.approx(case["spearman"], abs=1e-12)


def test_equal_numbers_share_the_mean_of_their_ranks():
    assert ranks([0.3, 0.1, 0.3, 0.9, 0.3]).tolist() == [3, 1, 3, 5, 3]


def test_a_constant_correlates_with_nothing():
    for constant in ([0.1] * 3, [0.0] * 3, [1e300] * 3):  # the mean of three 0.1 is not 0.1
        assert pearson(constant, [1, 2, 3]) == spearman([1, 2, 3], constant) == 0.0
    assert pearson([5.0], [3.0]) == 0.0


def test_spearman_sees_only_the_order():
    x = np.linspace(-3, 3, 20)
    assert spearman(np.exp(5 * x), x) == 1.0
    assert pearson(np.exp(5 * x), x) < 0.6


# --- generated text -------------------------------------------------------------------------------


def test_pieces_are_joined():
    assert join_pieces("a pul@@ ley sys@@ te@@ m .") == "a pulley system ."
    assert join_pieces("an unfinished wo@@") == "an unfinished wo"
    assert join_pieces("mail @ home @@a") == "mail @ home @@a"
    assert join_pieces("") == ""
    assert join_pieces(" a@@ b ") == " ab "


def test_bleu_without_sacrebleu_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for measure in (bleu, tokenized_bleu, chrf):
        with pytest.raises(ConfigError, match=r'^sacrebleu is not installed; pip install -e "\.\[eval\]"$'):
            measure(["a"], ["a"])


@pytest.fixture
def sacrebleu():
    return pytest.importorskip("sacrebleu", reason="the extra `eval` is not installed")


PREDICTIONS = ["The cat sat on the mat, today.", "A dog runs very fast !"]
REFERENCES = ["The cat is on the mat, today.", "the Dog runs very fast !"]


def test_bleu_of_tokens_is_the_formula_of_the_paper(sacrebleu):
    # shared: the cat on the mat; the cat, on the, the mat; on the mat
    predictions, references = ["the cat sat on the mat"], ["the CAT is on the mat"]
    precisions = [5 / 6, 3 / 5, 1 / 4, 1 / (2 * 3)]  # no 4-gram: smoothed to half a match ("exp")
    expected = 100 * math.exp(sum(map(math.log, precisions)) / 4)
    assert tokenized_bleu(predictions, references) == pytest.approx(expected, rel=1e-9)


def test_a_short_translation_pays_the_brevity_penalty(sacrebleu):
    assert tokenized_bleu(["a b c d e"], ["a b c d e f g"]) == pytest.approx(100 * math.exp(1 - 7 / 5))


def test_only_tokenized_bleu_ignores_case_and_keeps_tokens(sacrebleu):
    assert tokenized_bleu(["a B c d."], ["A b C d."]) == pytest.approx(100)
    assert bleu(["a B c d."], ["A b C d."]) < 50
    assert bleu(["a b c d ."], ["a b c d."]) == pytest.approx(100)  # 13a parts the full stop
    assert tokenized_bleu(["a b c d ."], ["a b c d."]) < 70


def test_scores_are_sacrebleus_corpus_scores(sacrebleu):
    assert bleu(PREDICTIONS, REFERENCES) == sacrebleu.corpus_bleu(PREDICTIONS, [REFERENCES]).score
    assert chrf(PREDICTIONS, REFERENCES) == sacrebleu.corpus_chrf(PREDICTIONS, [REFERENCES]).score
    lower = sacrebleu.corpus_bleu(PREDICTIONS, [REFERENCES], lowercase=True, tokenize="none", force=True)
    assert tokenized_bleu(PREDICTIONS, REFERENCES) == lower.score


@pytest.mark.parametrize("measure", [bleu, tokenized_bleu, chrf])
def test_lines_may_have_different_numbers_of_references(sacrebleu, measure):
    alone = measure(PREDICTIONS, REFERENCES)
    assert measure(PREDICTIONS, [(text,) for text in REFERENCES]) == alone
    assert measure(PREDICTIONS, [(REFERENCES[0], PREDICTIONS[0]), (REFERENCES[1],)]) > alone
    assert measure(PREDICTIONS, [(REFERENCES[0],), ("other", REFERENCES[1])]) == pytest.approx(alone)


@pytest.mark.parametrize("measure", [bleu, tokenized_bleu, chrf])
def test_translations_and_references_are_counted(sacrebleu, measure):
    assert measure([], []) == 0.0
    assert measure(["", ""], REFERENCES) == 0.0
    with pytest.raises(DataError, match="1 texts for 2 references"):
        measure(["a"], ["a", "b"])
    with pytest.raises(DataError, match="line 1 has no reference"):
        measure(["a", "b"], ["a", ()])


@pytest.mark.skipif(not MULTI30K.is_dir(), reason="the data sets (../shared/data) are not here")
def test_joined_multi30k_has_as_many_words_as_published():
    lines = (MULTI30K / "test2016.de").read_text(encoding="utf-8").split("\n")
    assert sum(len(join_pieces(line).split()) for line in lines) == 12_103
