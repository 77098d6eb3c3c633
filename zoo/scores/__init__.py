"""What predictions are worth, in plain NumPy and Python.

    f1.py              precision, recall and F1 from counts; tables of them with micro, macro, weighted means
    classification.py  accuracy, exact match, F1 of every class, Matthews correlation
    squad.py           exact match and F1 of answers cut out of a text
    entities.py        entities in IOB1, IOB2, BIOES and BMES tags, their F1, sentences that are wholly right
    ranking.py         Pearson and Spearman correlation
    retrieval.py       recall@k, MRR and nDCG of embeddings
    translation.py     BLEU and chrF, by sacrebleu (extra `eval`)
    rouge.py           ROUGE-1, ROUGE-2 and ROUGE-L
    references.py      what generated text is held against

Predictions come first, targets second, everywhere. What is a fraction lies in 0..1; BLEU and chrF lie in
0..100, as they are printed. Every score of nothing is 0.0, and so is every quotient whose denominator is
0: a number that is not finite would be null in a run's record, and could not choose the best checkpoint.
"""

from zoo.scores.classification import accuracy, class_scores, exact_match, matthews
from zoo.scores.entities import entity_scores, scheme_of, sentence_accuracy, spans
from zoo.scores.f1 import Score, ScoreTable
from zoo.scores.ranking import pearson, spearman
from zoo.scores.retrieval import retrieval_scores
from zoo.scores.rouge import rouge
from zoo.scores.squad import squad_scores
from zoo.scores.translation import bleu, chrf, join_pieces, tokenized_bleu

__all__ = [
    "Score",
    "ScoreTable",
    "accuracy",
    "bleu",
    "chrf",
    "class_scores",
    "entity_scores",
    "exact_match",
    "join_pieces",
    "matthews",
    "pearson",
    "retrieval_scores",
    "rouge",
    "scheme_of",
    "sentence_accuracy",
    "spans",
    "spearman",
    "squad_scores",
    "tokenized_bleu",
]
