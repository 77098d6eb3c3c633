"""Similarity: embeddings that lie close where texts mean the same.

    CosineRegression   first, second, score              (cosine - score / most)^2
    Contrastive        first, second                     which second text of the batch belongs to this first?
    Triplet            anchor, positive, negative        max(|a - p| - |a - n| + margin, 0)

The first and the last are Sentence-BERT's (Reimers and Gurevych 2019, arXiv 1908.10084). The second takes
the other rows of a batch as wrong answers (Henderson et al. 2017, arXiv 1705.00652): a softmax over the
cosines with all second texts, times `scale`:

    first \\ second    a  b  c  d          b and d are the same text: neither is a wrong answer to the other
        a              +  -  -  -
        b              -  +  -  .          . left out
        c              -  -  +  -
        d              -  .  -  +
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError
from zoo.layers import unit
from zoo.scores import pearson, retrieval_scores, spearman
from zoo.tasks.inputs import inputs_of


@dataclass(frozen=True)
class CosineRegression:
    """Give two texts the cosine that their score asks for."""

    trait: ClassVar[str] = "embed"  # what a model must promise to be trained so
    kind: ClassVar[str] = "similarity"  # of the examples

    most: float = 5.0
    """The score whose cosine is to be 1; 0 is to have the cosine 0. STS-B's scores go up to 5."""

    def __post_init__(self):
        if not 0 < self.most < math.inf:
            raise ConfigError(f"most={self.most} must be a number above 0")

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, targets, present} of pairs with tokens, lengths, score and present."""
        return {
            "inputs": inputs_of(examples),
            "targets": examples["score"],
            "present": examples["present"],
        }

    def loss(self, x_BGD, readout, batch) -> dict:
        """Sums over the pairs: "loss", the squared error of the cosine, and "weight"."""
        error_B = cosine(readout(x_BGD)) - batch["targets"] / self.most
        present_B = batch["present"]
        return {"loss": (error_B**2 * present_B).sum(), "weight": present_B.sum()}

    def predict(self, model, params, x_BGD, inputs) -> dict:
        """The "similarity" of each pair, its cosine."""
        return {"similarity": cosine(model.readout(params, x_BGD))}

    def outputs(self, model, params, x_BGD, batch) -> dict:
        """What metrics() compares: each pair's cosine and its score."""
        predicted_B = cosine(model.readout(params, x_BGD))
        return {"predicted": predicted_B, "score": batch["targets"], "present": batch["present"]}

    def metrics(self, sums: dict[str, float], outputs, dataset) -> dict[str, float]:
        """Of a validation set: the loss, and the correlation of cosines with scores."""
        predicted_B, score_B = (present(outputs, name) for name in ("predicted", "score"))
        return {
            "eval_loss": sums["loss"] / sums["weight"],
            "pearson": pearson(predicted_B, score_B),
            "spearman": spearman(predicted_B, score_B),
        }


@dataclass(frozen=True)
class Contrastive:
    """Find the second text of each pair among those of the whole batch, over all devices.

    With `accumulate` a micro-batch sees its own pairs only, so that there are fewer wrong answers.
    """

    trait: ClassVar[str] = "embed"  # what a model must promise to be trained so
    kind: ClassVar[str] = "matches"  # of the examples

    scale: float = 20.0
    """What cosines are multiplied with, 1 / temperature."""
    backward_weight: float = 0.0
    """How much finding the first text by the second counts beside finding the second by the first, 1."""

    def __post_init__(self):
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"scale={self.scale} must be a number above 0")
        if not 0 <= self.backward_weight < math.inf:
            raise ConfigError(f"backward_weight={self.backward_weight} must be a number of at least 0")

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, texts, present} of pairs with tokens, lengths, texts (their numbers) and present."""
        return {
            "inputs": inputs_of(examples),
            "texts": examples["texts"],
            "present": examples["present"],
        }

    def loss(self, x_BGD, readout, batch) -> dict:
        """Sums over the pairs: "loss", nats of finding one among the batch, and "weight"."""
        first_BE, second_BE = (unit(each) for each in jnp.moveaxis(readout(x_BGD), 1, 0))
        logits_BC = self.scale * first_BE @ second_BE.T  # C counts the second texts, as many as B
        present_B = batch["present"]
        allowed_BC = (present_B > 0) & ~alike(batch["texts"])
        forward_B = nats_of_diagonal(logits_BC, allowed_BC)
        backward_B = nats_of_diagonal(logits_BC.T, allowed_BC.T & (present_B > 0))
        nats_B = (forward_B + self.backward_weight * backward_B) / (1 + self.backward_weight)
        return {"loss": (nats_B * present_B).sum(), "weight": present_B.sum()}

    def predict(self, model, params, x_BGD, inputs) -> dict:
        """The "similarity" of each pair, its cosine."""
        return {"similarity": cosine(model.readout(params, x_BGD))}

    def outputs(self, model, params, x_BGD, batch) -> dict:
        """What metrics() searches: both embeddings of each pair."""
        embeddings_BGE = unit(model.readout(params, x_BGD))
        return {"embeddings": embeddings_BGE, "texts": batch["texts"], "present": batch["present"]}

    def metrics(self, sums: dict[str, float], outputs, dataset) -> dict[str, float]:
        """Of a validation set: the loss, which depends on what shares a batch, and how well each first text
        finds its second texts among all second texts of the set, each counted once."""
        embeddings_BGE, texts_BG = (present(outputs, name) for name in ("embeddings", "texts"))
        _, query_B, queries_M = np.unique(texts_BG[:, 0], return_index=True, return_inverse=True)
        _, document_B, documents_M = np.unique(texts_BG[:, 1], return_index=True, return_inverse=True)
        found = retrieval_scores(
            embeddings_BGE[query_B, 0], embeddings_BGE[document_B, 1], np.stack([queries_M, documents_M], 1)
        )
        return {"eval_loss": sums["loss"] / sums["weight"], **found}


@dataclass(frozen=True)
class Triplet:
    """Keep an anchor nearer to its positive than to its negative text, by a margin."""

    trait: ClassVar[str] = "embed"  # what a model must promise to be trained so
    kind: ClassVar[str] = "triplets"  # of the examples

    margin: float = 1.0
    """How much nearer, in Euclidean distance; embeddings of length 1 are at most 2 apart."""

    def __post_init__(self):
        if not 0 < self.margin < math.inf:
            raise ConfigError(f"margin={self.margin} must be a number above 0")

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, present} of triplets with tokens, lengths and present."""
        return {"inputs": inputs_of(examples), "present": examples["present"]}

    def loss(self, x_BGD, readout, batch) -> dict:
        """Sums over the triplets: "loss", by how much the margin is missed, and "weight"."""
        near_B, far_B = distances(readout(x_BGD))
        present_B = batch["present"]
        missed_B = jnp.maximum(near_B - far_B + self.margin, 0)
        return {"loss": (missed_B * present_B).sum(), "weight": present_B.sum()}

    def predict(self, model, params, x_BGD, inputs) -> dict:
        """The "similarity" [B, 2] of each anchor to its positive and to its negative text, cosines."""
        embeddings_BGE = model.readout(params, x_BGD)
        pairs = (embeddings_BGE[:, [0, place]] for place in (1, 2))
        return {"similarity": jnp.stack([cosine(pair_BGE) for pair_BGE in pairs], axis=1)}

    def outputs(self, model, params, x_BGD, batch) -> dict:
        """What metrics() counts: whether the positive is the nearer one."""
        near_B, far_B = distances(model.readout(params, x_BGD))
        return {"right": near_B < far_B, "present": batch["present"]}

    def metrics(self, sums: dict[str, float], outputs, dataset) -> dict[str, float]:
        """Of a validation set: the loss, and the share of anchors that lie nearer to their positive text."""
        accuracy = float(present(outputs, "right").mean())
        return {"eval_loss": sums["loss"] / sums["weight"], "triplet_accuracy": accuracy}


def cosine(embeddings_BGE):
    """Of the two texts of each pair, [B]."""
    first_BE, second_BE = jnp.moveaxis(unit(embeddings_BGE), 1, 0)
    return (first_BE * second_BE).sum(-1)


def distances(embeddings_BGE):
    """Euclidean, of each anchor to its positive and to its negative text: [B] twice. Equal texts are 1e-6
    apart, where the root has a slope."""
    anchor_BE, positive_BE, negative_BE = jnp.moveaxis(embeddings_BGE, 1, 0)
    return tuple(
        jnp.sqrt(jnp.maximum(((anchor_BE - other_BE) ** 2).sum(-1), 1e-12))
        for other_BE in (positive_BE, negative_BE)
    )


def alike(texts_BG):
    """bool [B, B]: whether the second text of another pair (column) is a right answer to this one's first
    text (row) too, or that text itself: equal second texts, equal first texts, or one equal to the other."""
    first_B, second_B = texts_BG[:, 0], texts_BG[:, 1]
    same_BC = (second_B[:, None] == second_B) | (first_B[:, None] == first_B) | (first_B[:, None] == second_B)
    return same_BC & ~jnp.eye(len(texts_BG), dtype=bool)


def nats_of_diagonal(logits_BC, allowed_BC):
    """Nats of choosing column b in row b among the columns that are allowed, and column b."""
    own_BC = jnp.eye(len(logits_BC), dtype=bool)
    logits_BC = jnp.where(allowed_BC | own_BC, logits_BC, jnp.finfo(logits_BC.dtype).min)
    return -jnp.diagonal(jax.nn.log_softmax(logits_BC))


def present(outputs, name: str) -> np.ndarray:
    """One output of all examples that are there, batch after batch."""
    return np.concatenate([part[name][part["present"] > 0] for part in outputs])
