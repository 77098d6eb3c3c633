"""What word vectors know: neighbours, similarity, analogies, and how well they agree with people.

Similarity is the cosine. An analogy, "man is to king as woman is to ...", is answered by 3CosAdd: the word
whose unit vector is nearest to king - man + woman, none of the three themselves (Mikolov et al. 2013,
NAACL, aclanthology.org/N13-1090; the name is of Levy and Goldberg 2014, aclanthology.org/W14-1618).

    vectors = read_vectors(Path("glove.6B.50d.txt"))
    neighbours(vectors, "paris", 5)
    evaluate_similarity(vectors, Path("ws-353-all.txt"))      # Spearman's rank correlation, words covered
    evaluate_analogies(vectors, Path("questions-words.txt"))  # share of right answers, by section

A word is looked up as it is written and, where it is not there, in lower case. Pairs and questions with a
word that is not there are left out and counted: two files of vectors compare on equal coverage only.
"""

from pathlib import Path

import numpy as np

from zoo.data.files import read_text
from zoo.errors import DataError, UserError, nearest
from zoo.pretrained.vectors import Vectors
from zoo.scores.ranking import spearman

BLOCK = 512  # questions that are answered together


def similarity(vectors: Vectors, word: str, other: str) -> float:
    """The cosine of two words. Raises UserError for a word that is not there."""
    one_D, other_D = (vectors.unit_VD[place_of(vectors, each)] for each in (word, other))
    return float(one_D @ other_D)


def neighbours(vectors: Vectors, word: str, count: int = 10) -> list[tuple[str, float]]:
    """The nearest other words and their cosines, best first. Raises UserError for an unknown word."""
    place = place_of(vectors, word)
    return nearest_to(vectors, vectors.unit_VD[place], {place}, count)


def analogy(vectors: Vectors, a: str, b: str, c: str, count: int = 1) -> list[tuple[str, float]]:
    """Words that are to `c` as `b` is to `a`, best first, with their cosine to b - a + c."""
    places = [place_of(vectors, word) for word in (a, b, c)]
    a_D, b_D, c_D = vectors.unit_VD[places]
    return nearest_to(vectors, b_D - a_D + c_D, set(places), count)


def evaluate_similarity(vectors: Vectors, path: Path) -> dict[str, float]:
    """Spearman's correlation of the cosines with a file's scores.

    A line is two words and a number, with tabs or blanks between. Returns "spearman", "covered" (pairs with
    both words) and "pairs".
    """
    cosines, scores, pairs = [], [], 0
    for number, line in lines_of(path):
        fields = line.split()
        if len(fields) != 3:
            raise DataError(
                f"{path}:{number}: {len(fields)} fields, but a pair is two words and a score: tiger cat 7.35"
            )
        try:
            score = float(fields[2])
        except ValueError:
            raise DataError(
                f"{path}:{number}: the score {fields[2]!r} is no number; a pair is two words and a score"
            ) from None
        one, other = (find(vectors, word) for word in fields[:2])
        pairs += 1
        if one is not None and other is not None:
            cosines.append(float(vectors.unit_VD[one] @ vectors.unit_VD[other]))
            scores.append(score)
    return {"spearman": spearman(cosines, scores), "covered": len(scores), "pairs": pairs}


def evaluate_analogies(vectors: Vectors, path: Path) -> dict:
    """The share of questions that 3CosAdd answers right.

    A line is ": section" or four words a b c d, with d to be found. Returns "accuracy" (of the covered),
    "covered" (questions with all four words), "questions", and the same three of each of "sections".
    """
    sections: dict[str, list] = {}
    name = ""
    for number, line in lines_of(path):
        if line.startswith(":"):
            name = line[1:].strip()
            sections.setdefault(name, [])
            continue
        words = line.split()
        if len(words) != 4:
            raise DataError(
                f"{path}:{number}: {len(words)} words, but a question is four: Athens Greece Oslo Norway"
            )
        sections.setdefault(name, []).append([find(vectors, word) for word in words])
    result = {name: answered(vectors, questions) for name, questions in sections.items()}
    covered = sum(part["covered"] for part in result.values())
    right = sum(part["accuracy"] * part["covered"] for part in result.values())
    return {
        "accuracy": right / max(covered, 1),
        "covered": covered,
        "questions": sum(part["questions"] for part in result.values()),
        "sections": result,
    }


def answered(vectors: Vectors, questions: list) -> dict[str, float]:
    """Accuracy, coverage and size of questions given as four places each, None where a word is not there."""
    known = np.array([places for places in questions if None not in places], np.int64).reshape(-1, 4)
    unit_VD, right = vectors.unit_VD, 0
    for start in range(0, len(known), BLOCK):
        a_B, b_B, c_B, d_B = known[start : start + BLOCK].T
        cosine_BV = (unit_VD[b_B] - unit_VD[a_B] + unit_VD[c_B]) @ unit_VD.T
        for asked_B in (a_B, b_B, c_B):
            cosine_BV[np.arange(len(asked_B)), asked_B] = -np.inf
        right += int((cosine_BV.argmax(axis=1) == d_B).sum())
    return {"accuracy": right / max(len(known), 1), "covered": len(known), "questions": len(questions)}


# --- vectors by word ------------------------------------------------------------------------------


def find(vectors: Vectors, word: str) -> int | None:
    """The row of a word, as it is written or in lower case."""
    return vectors.places.get(word, vectors.places.get(word.lower()))


def place_of(vectors: Vectors, word: str) -> int:
    """The row of a word. Raises UserError where there is none."""
    place = find(vectors, word)
    if place is None:
        close = nearest(word, vectors.words[:50_000])  # the frequent ones, as a hint need not be the best
        raise UserError(f"{word!r} is not among the {len(vectors.words):,} words{close}")
    return place


def nearest_to(vectors: Vectors, x_D, without: set[int], count: int) -> list[tuple[str, float]]:
    """The words with the greatest cosine to `x_D`, best first."""
    cosine_V = vectors.unit_VD @ (x_D / max(float(np.linalg.norm(x_D)), 1e-30))
    cosine_V[list(without)] = -np.inf
    best = np.argsort(-cosine_V, kind="stable")[: max(0, min(count, len(cosine_V) - len(without)))]
    return [(vectors.words[place], float(cosine_V[place])) for place in best]


def lines_of(path: Path):
    """(number, line) of the lines that are not blank, whatever their ends; also of a .gz."""
    for number, line in enumerate(read_text(path).removeprefix("\ufeff").split("\n"), start=1):
        if line.strip():
            yield number, line.strip()
