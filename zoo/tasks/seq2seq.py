"""Sequence to sequence: the target's words, given the source and the words before; in evaluation, texts.

example    ein hund rennt | <s> a dog runs </s>       source [S], tokens [T + 1]
inputs     source, <s> a dog runs                     source [S], tokens [T]
targets    a dog runs </s>                            targets [T], weight 0 where there are none
outputs    the text that beam search finds            hypothesis [N], its words in front

Teacher forcing is the model's (`teacher_forcing_rate`), as dropout is.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError
from zoo.inference.beam import Beam, beam_search
from zoo.losses import cross_entropy, summed
from zoo.scores import bleu, chrf, join_pieces, rouge, tokenized_bleu


@dataclass(frozen=True)
class Seq2Seq:
    """Predict each word of the target; write targets of its own to evaluate."""

    trait: ClassVar[str] = "pair"  # what a model must promise to be trained so
    kind: ClassVar[str] = "pairs"  # of the examples

    end: int = -1
    """Token that ends a target; -1 in a recipe: its tokenizer's."""
    label_smoothing: float = 0.0
    """Probability spread evenly over all words in what is learned (Szegedy et al. 2015, arXiv 1512.00567)."""
    max_new_tokens: int = 64
    """Longest text that is written in evaluation."""
    beam: Beam = field(default_factory=lambda: Beam(size=1))
    """How it is searched for; a size of 1 takes the likeliest word each time."""
    scores: tuple[Literal["bleu", "tokenized_bleu", "chrf", "rouge"], ...] = ()
    """Beside exact match; bleu and chrf need the extra `eval`."""

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing={self.label_smoothing} must be at least 0 and less than 1")
        if self.max_new_tokens < 0:
            raise ConfigError(f"max_new_tokens={self.max_new_tokens} must be at least 0; 0 writes no texts")
        for name in self.scores:
            if name not in SCORES:
                raise ConfigError(f"scores: {name!r} is none of {', '.join(SCORES)}")
        if self.scores and not self.max_new_tokens:
            raise ConfigError(
                f"scores={','.join(self.scores)} are of texts; set max_new_tokens to more than 0"
            )

    @property
    def needs(self) -> tuple[tuple[str, str], ...]:
        """The libraries, each with the extra that installs it, that the scores are counted with."""
        return (("sacrebleu", "eval"),) if set(self.scores) - {"rouge"} else ()

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, targets, weights, present, index} of examples with source, source_lengths, tokens
        [B, T + 1], weights [B, T], present and index.

        Padding behind a target is read too: nothing before it can see it, and nothing of it counts.
        """
        tokens = examples["tokens"]
        inputs = {name: examples[name] for name in ("source", "source_lengths")}
        return {
            "inputs": inputs | {"tokens": tokens[:, :-1]},
            "targets": tokens[:, 1:],
            "weights": examples["weights"],
            "present": examples["present"],
            "index": examples["index"],
        }

    def loss(self, x_BTD, readout, batch) -> dict:
        """Sums over the targets: "loss", smoothed, "nats", not, and "weight", how many count."""

        def sums(logits, targets, weights):
            nats, weight = cross_entropy(logits, targets, weights)
            if not self.label_smoothing:
                return {"loss": nats, "nats": nats, "weight": weight}
            spread = nats_of_all_words(logits, weights)
            loss = (1 - self.label_smoothing) * nats + self.label_smoothing * spread
            return {"loss": loss, "nats": nats, "weight": weight}

        return summed(sums, readout, x_BTD, batch["targets"], batch["weights"])

    def outputs(self, model, params, x_BTD, batch) -> dict:
        """The best text that the search finds for each row's source: "hypothesis" [B, N] and its "length",
        beside "index", the number of its record, and "present"."""
        if not self.max_new_tokens:
            return {}
        if self.end < 0:
            raise ConfigError(f"end={self.end} is no token; set it to the one that ends a target")
        begun = batch["inputs"] | {"tokens": batch["inputs"]["tokens"][:, :1]}
        found = beam_search(
            *(model, params, begun), max_new_tokens=self.max_new_tokens, end=self.end, beam=self.beam
        )
        return {
            "hypothesis": found.tokens_BCT[:, 0],
            "length": found.lengths_BC[:, 0],
            "index": batch["index"],
            "present": batch["present"],
        }

    def metrics(self, sums: dict[str, float], outputs, dataset) -> dict[str, float]:
        """Of a validation set: nats per target (not smoothed) and perplexity; of the texts written, the share
        that equals a reference, blanks aside, and `scores`."""
        nats = sums["nats"] / sums["weight"]
        found = {"eval_loss": nats, "perplexity": math.exp(min(nats, 700.0))}  # beyond, a float overflows
        if not outputs:
            return found
        texts, references = written(outputs, dataset)
        matches = [text in alternatives for text, alternatives in zip(texts, references, strict=True)]
        found["exact_match"] = sum(matches) / max(len(matches), 1)
        for name in self.scores:
            found |= SCORES[name](texts, references)
        return found


def nats_of_all_words(logits_BTV, weights_BT):
    """The mean over all words of their negative log-likelihood, summed over positions; the rows that pad a
    stored vocabulary, at the lowest float, are no words."""
    logits_BTV = logits_BTV.astype(jnp.promote_types(logits_BTV.dtype, jnp.float32))
    is_word_BTV = logits_BTV > jnp.finfo(logits_BTV.dtype).min
    mean_BT = jnp.where(is_word_BTV, logits_BTV, 0).sum(-1) / is_word_BTV.sum(-1)
    return ((jax.nn.logsumexp(logits_BTV, axis=-1) - mean_BT) * weights_BT).sum()


def written(outputs, dataset) -> tuple[list[str], list[tuple[str, ...]]]:
    """(texts, references) of all rows that are present, with single blanks."""
    texts, references = [], []
    for part in outputs:
        for b in np.flatnonzero(part["present"]):
            fields = dataset.records[part["index"][b]].fields
            text = dataset.tokenizer.decode(part["hypothesis"][b, : part["length"][b]])
            texts.append(single_spaced(text))
            alternatives = fields.get("references", (fields["target"],))
            references.append(tuple(map(single_spaced, alternatives)))
    return texts, references


def single_spaced(text: str) -> str:
    return " ".join(text.split())


def joined_bleu(texts, references) -> float:
    """tokenized_bleu of words; pieces that end in @@ are joined with the next on both sides."""
    whole = [tuple(map(join_pieces, alternatives)) for alternatives in references]
    return tokenized_bleu(list(map(join_pieces, texts)), whole)


SCORES = {
    "bleu": lambda texts, references: {"bleu": bleu(texts, references)},
    "tokenized_bleu": lambda texts, references: {"tokenized_bleu": joined_bleu(texts, references)},
    "chrf": lambda texts, references: {"chrf": chrf(texts, references)},
    "rouge": rouge,
}
