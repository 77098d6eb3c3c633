"""SQuAD's exact match and F1: numbers worked out by hand."""

import pytest

from zoo.errors import DataError
from zoo.scores import squad_scores
from zoo.scores.squad import best_scores


@pytest.mark.parametrize(
    "said, right, exact, f1",
    [
        ("The Norman  Conquest!", ["norman conquest"], 1, 1),
        ("in the 10th century", ["10th century", "the 10th"], 0, 4 / 5),  # 2 of 3 and of 2 words
        ("a an the", ["the an"], 1, 1),  # nothing is left of either
        ("theatre", ["the atre"], 0, 0),  # an article is a word
        ("don't", ["dont"], 1, 1),
        ("don\u2019t", ["dont"], 0, 0),  # only ASCII's marks are dropped
        ("to be to be", ["to be"], 0, 2 / 3),  # words count as often as they occur
        ("", [], 1, 1),
        ("something", [], 0, 0),
        ("", ["something"], 0, 0),
        ("of", ["1", "of the"], 1, 1),
        ("x y", ["...", "x z"], 0, 1 / 2),  # a right answer of which nothing is left does not count
    ],
)
def test_english_answers_by_hand(said, right, exact, f1):
    assert best_scores(said, right) == pytest.approx((exact, f1))


@pytest.mark.parametrize(
    "said, right, exact, f1",
    [
        ("北京", ["北京。"], 1, 1),
        ("在北京", ["北京"], 0, 4 / 5),  # 2 of 3 and of 2 characters
        ("《红楼 梦》", ["红楼梦"], 1, 1),  # no blank parts two characters
        ("2008年8月", ["2008年"], 0, 2 * 2 / (4 + 2)),  # a number is one word
        ("The北京", ["北京"], 0, 2 * 2 / (3 + 2)),  # there are no articles in Chinese
        ("Beijing", ["北京"], 0, 0),
    ],
)
def test_chinese_answers_by_hand(said, right, exact, f1):
    assert best_scores(said, right) == pytest.approx((exact, f1))


def test_scores_are_means_over_questions_and_over_each_kind_of_them():
    said = ["a cat", "", "dog", "x"]
    right = [["the cat"], [], ["big dog"], []]
    assert squad_scores(said, right) == pytest.approx(
        {
            "exact_match": 2 / 4,
            "f1": (1 + 1 + 2 / 3 + 0) / 4,
            "answered_f1": (1 + 2 / 3) / 2,
            "unanswered_accuracy": 1 / 2,
        }
    )
    assert squad_scores(said[:1], right[:1]) == {"exact_match": 1.0, "f1": 1.0}
    assert squad_scores([], []) == {"exact_match": 0.0, "f1": 0.0}


def test_a_missing_answer_is_refused():
    with pytest.raises(DataError):
        squad_scores(["a"], [])
