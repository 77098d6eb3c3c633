"""BLEU and chrF of translations, counted by sacreBLEU (Post 2018, arXiv 1804.08771).

BLEU (Papineni et al. 2002, P02-1040) depends on how words are cut and cased, so there are two here, and
a number should say which:

    bleu            plain text, cut by sacreBLEU itself     nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp
    tokenized_bleu  text that is cut already, lower-cased   nrefs:1|case:lc|eff:no|tok:none|smooth:exp
    chrf            plain text; chrF2 (Popovic 2015)        nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no

Multi30k's published numbers are `tokenized_bleu` after `join_pieces`. All lie in 0..100. A reference is a
text, or a sequence of alternatives, as many as a line has. Needs the extra `eval`: ConfigError without.
"""

import itertools
from collections.abc import Sequence

from zoo.metrics import require
from zoo.scores.references import Reference, alternatives


def bleu(predictions: Sequence[str], references: Sequence[Reference]) -> float:
    """BLEU of a whole corpus of plain text, as WMT reports it."""
    require("sacrebleu", extra="eval")
    from sacrebleu.metrics import BLEU

    return _corpus_score(BLEU(), predictions, references)


def tokenized_bleu(predictions: Sequence[str], references: Sequence[Reference]) -> float:
    """BLEU of a whole corpus whose tokens stand between blanks; upper and lower case are the same."""
    require("sacrebleu", extra="eval")
    from sacrebleu.metrics import BLEU

    # force: do not warn that the text looks tokenised
    return _corpus_score(BLEU(tokenize="none", lowercase=True, force=True), predictions, references)


def chrf(predictions: Sequence[str], references: Sequence[Reference]) -> float:
    """chrF2 of a whole corpus: F-score of character n-grams up to 6, recall counting twice."""
    require("sacrebleu", extra="eval")
    from sacrebleu.metrics import CHRF

    return _corpus_score(CHRF(), predictions, references)


def join_pieces(line: str) -> str:
    """Words from subword-nmt's pieces: `a pul@@ ley sys@@ tem` is `a pulley system`.

    A piece that waits for the next at the line's end, as unfinished output has, loses its mark.
    """
    return f"{line} ".replace("@@ ", "").removesuffix(" ")


def _corpus_score(metric, predictions: Sequence[str], references: Sequence[Reference]) -> float:
    """The score of all lines together; sacreBLEU itself would cut both sides to the shorter."""
    choices = alternatives(predictions, references)
    if not choices:
        return 0.0
    streams = list(itertools.zip_longest(*choices))  # first references, second ones, ...; None fills up
    return float(metric.corpus_score(list(predictions), streams).score)
