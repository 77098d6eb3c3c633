"""What word vectors are asked: neighbours, analogies, and how they agree with people's judgements."""

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest

from zoo.__main__ import main
from zoo.errors import DataError, UserError
from zoo.inference.words import (
    analogy,
    evaluate_analogies,
    evaluate_similarity,
    neighbours,
    similarity,
)
from zoo.pretrained.vectors import Vectors
from zoo.pretrained.write_vectors import write_glove

JUDGEMENTS = Path(__file__).parents[2] / "shared" / "data" / "wordvec-eval"

# Countries and capitals: one axis says which, the others say which country.
NAMES = ("paris", "france", "rome", "italy", "oslo", "norway", "Bern")
TABLE = np.array(
    [[1, 3, 0, 0], [-1, 3, 0, 0], [1, 0, 3, 0], [-1, 0, 3, 0], [1, 0, 0, 3], [-1, 0, 0, 3], [5, 0, 0.1, 0]],
    np.float32,
)
WORLD = Vectors(NAMES, TABLE)


def test_an_export_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path, capsys):
    write_glove(tmp_path / "v.txt", WORLD)
    for place, code, said in (
        (tmp_path / "nowhere" / "out.txt", 6, f"error: {tmp_path / 'nowhere'}: no such folder; create it"),
        (tmp_path / "out.xyz", 2, "the name ends in none of .txt"),
    ):
        assert main(["words", str(tmp_path / "v.txt"), "paris", "--export", str(place)]) == code
        out, err = capsys.readouterr()
        assert not out and said in err and err.count("\n") == 1


def test_similarity_is_the_cosine():
    assert similarity(WORLD, "paris", "france") == pytest.approx(8 / 10)
    assert similarity(WORLD, "paris", "rome") == pytest.approx(1 / 10)
    assert similarity(WORLD, "oslo", "oslo") == pytest.approx(1)


def test_neighbours_come_best_first_without_the_word_itself():
    near = neighbours(WORLD, "paris", 3)
    cosines = {other: similarity(WORLD, "paris", other) for other in NAMES if other != "paris"}
    assert [word for word, _ in near] == sorted(cosines, key=lambda word: -cosines[word])[:3]
    assert [cosine for _, cosine in near] == pytest.approx(sorted(cosines.values(), reverse=True)[:3])
    assert len(neighbours(WORLD, "paris", 100)) == len(NAMES) - 1


def test_an_analogy_is_answered_by_the_nearest_word_to_the_sum_of_unit_vectors():
    rng = np.random.default_rng(0)
    vectors = Vectors(tuple(f"w{i}" for i in range(30)), rng.standard_normal((30, 5)).astype(np.float32))
    unit = vectors.table_VD / np.linalg.norm(vectors.table_VD, axis=1, keepdims=True)
    for a, b, c in itertools.islice(itertools.permutations(range(30), 3), 0, 20_000, 997):
        scores = [(unit[d] @ (unit[b] - unit[a] + unit[c]), d) for d in range(30) if d not in (a, b, c)]
        assert analogy(vectors, f"w{a}", f"w{b}", f"w{c}")[0][0] == f"w{max(scores)[1]}"


def test_the_words_of_a_question_are_no_answers():
    answer = analogy(WORLD, "france", "paris", "italy", 7)
    assert answer[0][0] == "rome" and not {"france", "paris", "italy"} & {word for word, _ in answer}


def test_a_word_is_found_as_written_and_else_in_lower_case():
    assert similarity(WORLD, "Paris", "FRANCE") == pytest.approx(8 / 10)
    assert similarity(WORLD, "Bern", "paris") > 0
    with pytest.raises(UserError, match="'bern' is not among the 7 words; did you mean 'Bern'"):
        similarity(WORLD, "bern", "paris")
    with pytest.raises(UserError, match="'pariss' is not among the 7 words; did you mean 'paris'"):
        neighbours(WORLD, "pariss")


def test_a_vector_of_zeros_is_like_nothing():
    vectors = Vectors(("a", "b", "c"), np.array([[0, 0], [1, 0], [1, 1]], np.float32))
    assert similarity(vectors, "a", "b") == 0
    assert [cosine for _, cosine in neighbours(vectors, "a")] == [0, 0]


# --- files of judgements --------------------------------------------------------------------------


def test_similarity_files_are_scored_by_rank_and_coverage(tmp_path):
    path = tmp_path / "pairs.txt"
    # CR LF, blanks instead of tabs, a capital, a pair that is not there; cosines 0.8, 0.1, 0.1, ...
    path.write_bytes(b"paris\tfrance\t9.5\r\nRome\titaly\t9.5\r\n\r\nparis oslo 2\r\nparis\tatlantis\t1\r\n")
    result = evaluate_similarity(WORLD, path)
    assert result == {"spearman": pytest.approx(1.0), "covered": 3, "pairs": 4}
    path.write_text("paris\tfrance\t1\nparis\toslo\t2\n")
    assert evaluate_similarity(WORLD, path)["spearman"] == pytest.approx(-1.0)


def test_analogy_files_are_scored_by_section_and_coverage(tmp_path):
    path = tmp_path / "questions.txt.gz"
    text = (
        ": capitals\r\nfrance paris Italy Rome\r\nnorway oslo italy rome\r\nfrance paris spain madrid\r\n"
        ": nonsense\r\nfrance paris italy oslo\r\n: nothing\r\n"
    )
    path.write_bytes(gzip.compress(text.encode()))
    result = evaluate_analogies(WORLD, path)
    assert result["sections"] == {
        "capitals": {"accuracy": 1.0, "covered": 2, "questions": 3},
        "nonsense": {"accuracy": 0.0, "covered": 1, "questions": 1},
        "nothing": {"accuracy": 0.0, "covered": 0, "questions": 0},
    }
    assert (result["accuracy"], result["covered"], result["questions"]) == (pytest.approx(2 / 3), 3, 4)


def test_many_questions_are_answered_like_single_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.inference.words.BLOCK", 7)
    rng = np.random.default_rng(1)
    vectors = Vectors(tuple(f"w{i}" for i in range(20)), rng.standard_normal((20, 3)).astype(np.float32))
    questions = [[f"w{i}" for i in rng.choice(20, 4, replace=False)] for _ in range(200)]
    path = tmp_path / "q.txt"
    path.write_text("\n".join(map(" ".join, questions)))
    right = sum(analogy(vectors, a, b, c)[0][0] == d for a, b, c, d in questions)
    result = evaluate_analogies(vectors, path)
    assert result["covered"] == 200 and result["accuracy"] == pytest.approx(right / 200) and right > 3


@pytest.mark.parametrize(
    "evaluate, text, message",
    [
        (evaluate_similarity, "a b 1\na b\n", r"pairs.txt:2: 2 fields, but a pair is two words and a score"),
        (evaluate_similarity, "a b c\n", r"pairs.txt:1: the score 'c' is no number"),
        (evaluate_analogies, ": x\na b c\n", r"pairs.txt:2: 3 words, but a question is four"),
    ],
)
def test_a_line_that_is_no_judgement_is_named(tmp_path, evaluate, text, message):
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        evaluate(WORLD, path)


there = pytest.mark.skipif(
    not JUDGEMENTS.is_dir(), reason="the published judgements (../shared/data) are not here"
)


@there
@pytest.mark.parametrize(
    "name, pairs",
    [
        ("ws-353-all", 353),
        ("ws-353-sim", 203),
        ("ws-353-rel", 252),
        ("simlex-999", 999),
        ("men-tr-3k", 3000),
        ("rg-65", 65),
        ("mc-30", 30),
    ],
)
def test_published_similarities_are_read_whole(name, pairs):
    assert evaluate_similarity(WORLD, JUDGEMENTS / f"{name}.txt")["pairs"] == pairs


@there
@pytest.mark.parametrize(
    "name, questions, sections",
    [
        ("questions-words.txt.gz", 19_544, 14),
        ("ca8-morphological.txt", 10_177, 4),
        ("ca8-semantic.txt", 7_636, 4),
        ("ca-translated.txt", 953, 3),
    ],
)
def test_published_analogies_are_read_whole(name, questions, sections):
    result = evaluate_analogies(WORLD, JUDGEMENTS / name)
    assert (result["questions"], len(result["sections"])) == (questions, sections)
    if name == "questions-words.txt.gz":
        assert result["covered"] > 0  # Paris France Oslo Norway and the like, in lower case here
        assert result["accuracy"] == 1.0
