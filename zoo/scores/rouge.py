"""ROUGE-1, ROUGE-2 and ROUGE-L of summaries (Lin 2004, W04-1013), F-measure.

Tokens are as in the package rouge_score without its stemmer: lower case, runs of a-z and 0-9. There is
no Porter stemmer here, so numbers are those of `use_stemmer=False` (ROUGE-1.5.5 without -m), lower than
those of papers that stem. Text in other scripts has no such tokens: write it as words of a-z and 0-9
(the ids of its pieces, say), or use chrF.

ROUGE-L is the summary-level measure of section 3.2: each line of a text is a sentence. For texts of one
line it is the sentence-level measure of section 3.1.
"""

import re
from collections import Counter
from collections.abc import Sequence

from zoo.errors import DataError
from zoo.scores.f1 import Counts, Score, score
from zoo.scores.references import Reference, alternatives


def rouge(predictions: Sequence[str], references: Sequence[Reference]) -> dict[str, float]:
    """Mean F-measures "rouge_1", "rouge_2" and "rouge_l" over a corpus, in 0..1.

    A reference is a text, or a sequence of alternatives, of which each measure takes the one it likes
    best. Raises DataError where a text lacks a reference, and where no reference at all has a token.
    """
    choices = alternatives(predictions, references)
    if choices and not any(tokens(text) for texts in choices for text in texts):
        raise DataError("no reference has a letter a-z or a digit; ROUGE sees no other tokens, use chrF")
    sums = dict.fromkeys(MEASURES, 0.0)
    for prediction, texts in zip(predictions, choices, strict=True):
        for name, measure in MEASURES.items():
            sums[name] += max(measure(prediction, text).f1 for text in texts)
    return {name: total / max(len(choices), 1) for name, total in sums.items()}


def rouge_n(prediction: Sequence[str], reference: Sequence[str], n: int) -> Score:
    """ROUGE-N of two lists of tokens: the n-grams they share, each as often as in the one with fewer."""
    predicted, expected = _ngrams(prediction, n), _ngrams(reference, n)
    shared = (predicted & expected).total()
    return score(Counts(shared, predicted.total(), expected.total()))


def rouge_l(prediction: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> Score:
    """ROUGE-L of two lists of sentences, themselves lists of tokens.

    For each reference sentence, its positions that lie on the longest common subsequence with some
    predicted sentence count. As in ROUGE-1.5.5, and not in the paper's formula, no token is counted
    more often than it occurs in the prediction.
    """
    left = Counter(token for sentence in prediction for token in sentence)
    predicted, expected = left.total(), sum(map(len, reference))
    correct = 0
    for sentence in reference:
        on_a_subsequence: set[int] = set()
        for candidate in prediction:
            on_a_subsequence |= longest_common(sentence, candidate)
        for i in sorted(on_a_subsequence):
            if left[sentence[i]]:
                left[sentence[i]] -= 1
                correct += 1
    return score(Counts(correct, predicted, expected))


def longest_common(sentence: Sequence[str], other: Sequence[str]) -> set[int]:
    """The positions in `sentence` of a longest subsequence that `other` has too.

    Where several are equally long it is the one met when walking back from both ends, giving up a token
    of `sentence` rather than of `other`: the choice of rouge_score, which unions of them depend on.
    """
    # length_TS[t][s]: of the longest subsequence common to the first t tokens and the first s of `other`
    length_TS = [[0] * (len(other) + 1)]
    for token in sentence:
        above, row = length_TS[-1], [0]
        for s, candidate in enumerate(other):
            row.append(above[s] + 1 if token == candidate else max(above[s + 1], row[s]))
        length_TS.append(row)
    positions = set()
    t, s = len(sentence), len(other)
    while t and s:
        if sentence[t - 1] == other[s - 1]:
            t, s = t - 1, s - 1
            positions.add(t)
        elif length_TS[t][s - 1] > length_TS[t - 1][s]:
            s -= 1
        else:
            t -= 1
    return positions


def tokens(text: str) -> list[str]:
    """Lower-case runs of a-z and 0-9."""
    return re.findall("[a-z0-9]+", text.lower())


def _ngrams(sequence: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1))


def _unigrams(prediction: str, reference: str) -> Score:
    return rouge_n(tokens(prediction), tokens(reference), 1)


def _bigrams(prediction: str, reference: str) -> Score:
    return rouge_n(tokens(prediction), tokens(reference), 2)


def _lines(prediction: str, reference: str) -> Score:
    return rouge_l(*([tokens(line) for line in text.split("\n")] for text in (prediction, reference)))


MEASURES = {"rouge_1": _unigrams, "rouge_2": _bigrams, "rouge_l": _lines}
