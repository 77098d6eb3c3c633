"""From scores of beginnings and ends to answers: the best spans of a question, over all windows of its text.

A span's score is that of its first token as a beginning plus that of its last as an end. That of no answer is
the same for [CLS], in the window where it is least (Devlin et al. 2018, section 4.3): a window without the
answer has every reason to say so. A span that several windows hold counts where it scores best.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from zoo.data.examples.one_pass import OnePass
from zoo.data.examples.windows import Windows


@dataclass(frozen=True)
class Candidate:
    """A span of a text and its score, a sum of two logits."""

    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Answer:
    """What is said of one question."""

    text: str
    """Empty where there is no answer."""

    score: float
    """Its share of the softmax over all that is in `best`."""

    best: tuple[dict, ...]
    """Other answers too, the most probable first: {"answer", "start", "end", "score"}."""


def best_spans(bounds_T2: np.ndarray, starts_T, ends_T, *, count: int, longest: int) -> list[Candidate]:
    """The best spans of one window of at most `longest` tokens, best first: of all that there are."""
    (places,) = np.nonzero(ends_T)
    if not len(places):
        return []
    first, size = places[0], len(places)
    begin_S, end_S = bounds_T2[first : first + size].astype(np.float64).T
    gap_SS = np.arange(size)[None] - np.arange(size)[:, None]
    score_SS = np.where((gap_SS >= 0) & (gap_SS < longest), begin_S[:, None] + end_S[None], -np.inf)
    flat = score_SS.reshape(-1)
    kept = np.argpartition(-flat, min(count, flat.size) - 1)[:count]
    kept = kept[np.argsort(-flat[kept], kind="stable")]
    return [
        Candidate(int(starts_T[first + i]), int(ends_T[first + j]), float(flat[k]))
        for k, i, j in zip(kept, kept // size, kept % size, strict=True)
        if np.isfinite(flat[k])
    ]


def answers_of(
    dataset: OnePass,
    bounds: Iterable[tuple[int, np.ndarray]],
    *,
    count: int,
    longest: int,
    margin: float,
) -> Mapping[int, Answer]:
    """{record: answer} for the records of which windows were read: `bounds` has (window, logits [T, 2]).

    Nothing is answered where the score of no answer is above that of the best span by more than `margin`; it
    is among what is said only where that can be.
    """
    windows = dataset.layout
    assert isinstance(windows, Windows)
    spans: dict[int, list[Candidate]] = {}
    nothing: dict[int, float] = {}
    for number, bounds_T2 in bounds:
        starts_T, ends_T = windows.places(number)
        record = int(windows.record_N[number])
        found = best_spans(bounds_T2[: len(starts_T)], starts_T, ends_T, count=count, longest=longest)
        spans.setdefault(record, []).extend(found)
        nothing[record] = min(nothing.get(record, np.inf), float(bounds_T2[0].sum(dtype=np.float64)))
    return {
        record: _answer(
            str(dataset.records[record].fields["context"]), spans[record], nothing[record], count, margin
        )
        for record in spans
    }


def _answer(context: str, spans: list[Candidate], nothing: float, count: int, margin: float) -> Answer:
    by_text: dict[str, Candidate] = {}
    for span in sorted(spans, key=lambda span: (-span.score, span.start, span.end)):
        by_text.setdefault(context[span.start : span.end].strip(), span)
    said = list(by_text.items())[:count]
    if np.isfinite(margin):
        said.append(("", Candidate(0, 0, nothing)))
    scores = np.array([span.score for _, span in said])
    shares = np.exp(scores - scores.max())
    shares = (shares / shares.sum()).tolist()
    best = sorted(
        (
            {"answer": text, "start": span.start, "end": span.end, "score": round(share, 6)}
            for (text, span), share in zip(said, shares, strict=True)
        ),
        key=lambda each: -each["score"],
    )
    is_nothing = np.isfinite(margin) and nothing - said[0][1].score > margin
    chosen = len(said) - 1 if is_nothing else 0
    return Answer(said[chosen][0], round(shares[chosen], 6), tuple(best))
