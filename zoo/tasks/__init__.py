"""The objectives. A task turns examples into a batch, and features into sums to be averaged.

batch(examples) -> {inputs, targets, weights, ...}       NumPy, on the host
loss(x, readout, batch) -> {loss, weight, ...}           sums, inside the compiled step
outputs(model, params, x, batch) -> {name: [B, ...]}     what an evaluation brings back row by row
predict(model, params, x, inputs) -> {name: [B, ...]}    what it says of texts without the right answers
scored(x, readout, batch) -> (logits, weights)           what distillation compares, where it can
metrics(sums, outputs, dataset) -> {eval_loss, ...}      of a whole evaluation
"""

from zoo.tasks.bilm import BidirectionalLM
from zoo.tasks.causal_lm import CausalLM
from zoo.tasks.choice import Choice
from zoo.tasks.classify import Classify
from zoo.tasks.masked_lm import MaskedLM, MaskedPairs
from zoo.tasks.regress import Regress
from zoo.tasks.seq2seq import Seq2Seq
from zoo.tasks.similarity import Contrastive, CosineRegression, Triplet
from zoo.tasks.slots import Slots
from zoo.tasks.span import Span
from zoo.tasks.tag import Tag
from zoo.tasks.word_vectors import CBOW, GloVe, SkipGram

TASKS = {
    "causal_lm": CausalLM,
    "bilm": BidirectionalLM,
    "masked_lm": MaskedLM,
    "masked_pairs": MaskedPairs,
    "seq2seq": Seq2Seq,
    "classify": Classify,
    "regress": Regress,
    "choice": Choice,
    "similarity": CosineRegression,
    "contrastive": Contrastive,
    "triplet": Triplet,
    "tag": Tag,
    "slots": Slots,
    "span": Span,
    "skip_gram": SkipGram,
    "cbow": CBOW,
    "glove": GloVe,
}
