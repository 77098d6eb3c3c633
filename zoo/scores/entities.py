"""Entities in sequences of tags, and how many of them were found.

A tag is `O` outside, else a letter, a hyphen and a type: `B-person` (or a letter alone, where there is
but one type). The same five words in each scheme, two entities of type X side by side:

    words   w    w    w    w    w
    IOB1    I-X  I-X  B-X  O    I-X     B only where an entity touches another of its type
    IOB2    B-X  I-X  B-X  O    B-X     B at every beginning (CoNLL-2002, SNIPS, WNUT)
    BIOES   B-X  E-X  S-X  O    S-X     also called IOBES: E ends, S stands alone
    BMES    B-X  E-X  S-X  O    S-X     M instead of I in the middle (Chinese word segmentation)

IOB1 is Ramshaw and Marcus 1995 (cmp-lg/9505040), IOB2 Tjong Kim Sang and Veenstra 1999 (cs.CL/9907006).

Models write sequences that no scheme allows. They are read leniently, as conlleval (the script of the
CoNLL shared tasks) reads them: whatever is not O belongs to an entity, and

    a new entity begins before B and S, after E and S, and where the type changes.

So `O I-X` and `O E-X` begin an entity, `B-X I-Y` is two, and `B-X O` is one that was never ended. On
valid sequences this is the schemes' own meaning, all four. conlleval knows no S and lets B after E
continue; there we do as seqeval in its default mode, which has the same rule for B, I, E and S.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache

from zoo.errors import DataError
from zoo.scores.classification import same_length
from zoo.scores.f1 import Counts, ScoreTable, score_table

SCHEMES = {"IOB1": "BIO", "IOB2": "BIO", "BIOES": "BIOES", "IOBES": "BIOES", "BMES": "BMEOS"}
"""The letters of each scheme. IOBES is another name of BIOES."""


def spans(tags: Sequence[str], scheme: str) -> set[tuple[str, int, int]]:
    """The entities of one sentence: (type, start, end), the words being `words[start:end]`.

    The type is "" where tags are letters only. Raises DataError for a tag that the scheme has not.
    """
    found = set()
    kind, start, last = "", 0, "O"
    for i, tag in enumerate((*tags, "O")):
        letter, new_kind = _split(tag, scheme)
        if last != "O" and (letter in "OBS" or last in "ES" or new_kind != kind):
            found.add((kind, start, i))
            last = "O"
        if last == "O":
            kind, start = new_kind, i
        last = letter
    return found


def entity_scores(
    predictions: Sequence[Sequence[str]], targets: Sequence[Sequence[str]], scheme: str
) -> ScoreTable:
    """Precision, recall and F1 of entities, by type and over all; right is the same type and the same words.

    `micro` is conlleval's overall line, and `classes` its lines by type, sorted by name. One row of tags
    per sentence. Raises DataError where the rows do not match.
    """
    same_length(predictions, targets, "tagged sentences", "sentences")
    correct: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    for row, (guess, truth) in enumerate(zip(predictions, targets, strict=True)):
        _same_words(row, guess, truth)
        guessed, true = spans(guess, scheme), spans(truth, scheme)
        predicted.update(kind for kind, _, _ in guessed)
        expected.update(kind for kind, _, _ in true)
        correct.update(kind for kind, _, _ in guessed & true)
    kinds = sorted(predicted | expected)
    return score_table({kind: Counts(correct[kind], predicted[kind], expected[kind]) for kind in kinds})


def sentence_accuracy(
    *,
    predicted_tags: Sequence[Sequence[str]],
    target_tags: Sequence[Sequence[str]],
    predicted_labels: Sequence[Hashable],
    target_labels: Sequence[Hashable],
) -> float:
    """The fraction of sentences whose label and tags are all right (Goo et al. 2018, N18-2118).

    Tags are compared as they are written, not as the entities that they mean.
    """
    same_length(predicted_tags, target_tags, "tagged sentences", "sentences")
    same_length(predicted_labels, target_labels, "predicted labels", "labels")
    same_length(target_labels, target_tags, "labels", "sentences")
    right = 0
    for row, (guess, truth) in enumerate(zip(predicted_tags, target_tags, strict=True)):
        _same_words(row, guess, truth)
        right += predicted_labels[row] == target_labels[row] and list(guess) == list(truth)
    return right / len(target_tags) if right else 0.0


def scheme_of(tags: Iterable[str]) -> str | None:
    """The scheme of a data set's tags; None where they name no entities, such as parts of speech.

    A set of tags does not tell all schemes apart. Where that changes no entity we choose: IOB1 where some
    type has no B, else IOB2; BIOES where there is neither I nor M. It is a DataError where

    * some tags are of a scheme and others are not (`B-x` beside `noun`),
    * I and M occur together,
    * I or M stand beside E, and no type has a B: such a tag set is IOE, which is none of the four.
    """
    names = sorted(set(tags) - {"O"})
    parts = {name: name.partition("-") for name in names}
    fitting = [name for name, (letter, _, _) in parts.items() if letter in tuple("BIMES")]
    typed = [name for name in fitting if "-" in name]
    if not typed and not (fitting == names and "B" in fitting):  # no types: all of them letters, or none
        return None
    if fitting != names:
        other = next(name for name in names if name not in fitting)
        raise DataError(
            f"tags {typed[0] if typed else fitting[0]!r} and {other!r} are not of one scheme; "
            f"write O for outside and B-, I-, M-, E-, S- before a type"
        )
    letters = {letter for letter, _, _ in parts.values()}
    if letters >= {"I", "M"}:
        raise DataError(f"tags have the letters {' '.join(sorted(letters))}; BIOES has I, BMES M, none both")
    if "E" in letters and letters & {"I", "M"} and "B" not in letters:
        raise DataError(
            f"tags have the letters {' '.join(sorted(letters))} and no B, as in IOE; "
            f"rewrite them as one of {', '.join(SCHEMES)}"
        )
    if "M" in letters:
        return "BMES"
    if letters & {"E", "S"}:
        return "BIOES"
    kinds = {letter: {kind for own, _, kind in parts.values() if own == letter} for letter in "BI"}
    return "IOB2" if kinds["I"] <= kinds["B"] else "IOB1"


@lru_cache(maxsize=4096)
def _split(tag: str, scheme: str) -> tuple[str, str]:
    """("B", "person") of "B-person"; only the first hyphen counts."""
    if scheme not in SCHEMES:
        raise DataError(f"tagging scheme {scheme!r} is not known; there are {', '.join(SCHEMES)}")
    letter, _, kind = tag.partition("-")
    if letter not in tuple(SCHEMES[scheme]) or (letter == "O" and tag != "O"):
        letters = ", ".join(f"{letter}-TYPE" for letter in SCHEMES[scheme] if letter != "O")
        raise DataError(f"tag {tag!r} is not of {scheme}; it has {letters} and O")
    return letter, kind


def _same_words(row: int, guess: Sequence[str], truth: Sequence[str]) -> None:
    if len(guess) != len(truth):
        raise DataError(
            f"sentence {row} has {len(guess)} predicted tags for {len(truth)} words; every word needs one tag"
        )
