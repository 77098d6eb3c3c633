"""Answers cut out of a text: exact match and F1 as SQuAD's script counts them (Rajpurkar et al. 2016, arXiv
1606.05250).

Case, ASCII punctuation, the articles a, an and the, and the width of white space do not count. F1 is that of
the words that two answers share. Of several right answers the best one counts, and no answer is right only
where none is expected (version 2.0, 1806.03822).

Where Chinese is written (XQuAD, CMRC) each of its characters is a word, and no punctuation counts:

    在北京 (2008年)     在 北 京 2008 年
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from zoo.scores.classification import same_length

CHINESE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
ARTICLES = re.compile(r"\b(?:a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_scores(predictions: Sequence[str], targets: Sequence[Sequence[str]]) -> dict[str, float]:
    """The means of exact_match and f1 over questions; where some have no right answer and others have,
    those over either kind too. A prediction that there is none is "", as an empty row of targets is."""
    same_length(predictions, targets, "answers", "questions")
    pairs = list(zip(predictions, targets, strict=True))
    rows = [(bool(right), *best_scores(said, right)) for said, right in pairs]
    scores = {"exact_match": _mean([exact for _, exact, _ in rows]), "f1": _mean([f1 for *_, f1 in rows])}
    kinds = {has_answer for has_answer, *_ in rows}
    if len(kinds) == 2:
        scores["answered_f1"] = _mean([f1 for has_answer, _, f1 in rows if has_answer])
        scores["unanswered_accuracy"] = _mean([exact for has_answer, exact, _ in rows if not has_answer])
    return scores


def best_scores(prediction: str, targets: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1) with the target that each of them is largest with."""
    words = (
        chinese_words
        if any(re.search(f"[{CHINESE}]", each) for each in (prediction, *targets))
        else english_words
    )
    said = words(prediction)
    right = [each for each in map(words, targets) if each] or [[]]
    return max(float(said == each) for each in right), max(shared(said, each) for each in right)


def english_words(text: str) -> list[str]:
    """What counts of an answer in English."""
    return ARTICLES.sub(" ", text.lower().translate(WITHOUT_PUNCTUATION)).split()


def chinese_words(text: str) -> list[str]:
    """What counts of an answer in which Chinese is written."""
    kept = (
        character
        for character in text.lower()
        if character not in string.punctuation and not unicodedata.category(character).startswith("P")
    )
    return re.findall(rf"[{CHINESE}]|[^{CHINESE}\s]+", "".join(kept))


def shared(said: Sequence[str], right: Sequence[str]) -> float:
    """F1 of two bags of words; two empty ones agree."""
    if not said or not right:
        return float(said == right)
    common = sum((Counter(said) & Counter(right)).values())
    return 2 * common / (len(said) + len(right))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
