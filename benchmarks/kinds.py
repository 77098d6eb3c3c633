"""Kinds of workloads: a train step, recurrent layers alone, generation, embeddings.

Each knows what is counted (`unit`, `positions`, `real`), its FLOPs by conventions A and B, and which sides
have it beside zoo's.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from benchmarks.drawn import Drawn, sentences, stack_arrays
from zoo import assembly
from zoo.data import MaskedConfig
from zoo.models.bert import BERTConfig
from zoo.models.gpt import GPTConfig
from zoo.recipes.recipe import Recipe
from zoo.step import TrainStep
from zoo.tasks import MaskedLM


@dataclass(frozen=True)
class Training:
    """A whole train step: forward, backward, clipping, update."""

    unit: ClassVar[str] = "tokens"

    about: str
    recipe: Recipe
    peers: tuple[str, ...] = ("torch", "torch.compile", "transformers", "flax")
    """The sides that have this model beside zoo's two."""
    checked: int = 10
    """First steps whose losses must agree before a speed counts."""

    @property
    def data(self) -> Drawn:
        return Drawn(self.recipe.data, self.recipe.model.vocab_size)

    @property
    def dtype(self) -> str:
        return self.recipe.model.dtype

    @property
    def beside(self) -> "Training":
        """What a peer reads that does not pack: one text a row, of the same lengths."""
        if not isinstance(self.recipe.data, MaskedConfig):
            return self
        data = dataclasses.replace(self.recipe.data, layout="padded")
        return dataclasses.replace(self, recipe=dataclasses.replace(self.recipe, data=data))

    def parts(self) -> TrainStep:
        return assembly.step_of(self.recipe, self.data)

    @property
    def positions(self) -> int:
        """Of a step, padding among them."""
        return self.recipe.data.batch_size * self.recipe.data.length

    def real(self, step: int) -> int:
        """Tokens of a step, padding left out."""
        return self.data.num_tokens(step)

    def flops(self) -> tuple[float, float]:
        """Of a step, by conventions A and B. Of a masked model the logits of masked positions alone: all
        that has to be computed."""
        config, T = self.recipe.model, self.recipe.data.length
        if isinstance(self.recipe.task, MaskedLM):
            features, whole = config.flops_of_features(T), config.flops_per_token(T)
            share = self.data.batch(0, range(1))["picked"].shape[1] / T
            each = [part + share * (all_ - part) for part, all_ in zip(features, whole, strict=True)]
        else:
            each = list(config.flops_per_token(T))
        return each[0] * self.positions, each[1] * self.positions


@dataclass(frozen=True)
class Stack:
    """Recurrent layers alone, forward and backward, input projections and biases included."""

    unit: ClassVar[str] = "tokens"
    dtype: ClassVar[str] = "float32"
    peers: ClassVar[tuple[str, ...]] = ("torch", "torch.compile")
    GATES: ClassVar[dict[str, int]] = {"lstm": 4, "gru": 3}

    about: str
    cell: str
    layers: int
    width: int
    length: int
    rows: int

    @property
    def positions(self) -> int:
        return self.length * self.rows

    def real(self, step: int) -> int:
        return self.positions

    def arrays(self):
        """(parameters of each layer, inputs, gradient of the outputs)."""
        return stack_arrays(self.cell, self.GATES[self.cell], self.layers, self.width, self.length, self.rows)

    def flops(self) -> tuple[float, float]:
        """Matmuls only: the kernels of input and state, once forward and twice backward."""
        total = 12.0 * self.layers * self.positions * self.width * self.width * self.GATES[self.cell]
        return total, total


@dataclass(frozen=True)
class Generation:
    """Greedy tokens behind random prompts; a step is what each further token takes."""

    unit: ClassVar[str] = "tokens"
    peers: ClassVar[tuple[str, ...]] = ("transformers",)

    about: str
    model: GPTConfig
    rows: int
    prompt: int = 32
    new: int = 128

    @property
    def dtype(self) -> str:
        return self.model.dtype

    @property
    def positions(self) -> int:
        return self.rows

    def real(self, step: int) -> int:
        return self.rows

    def prompts(self) -> list[list[int]]:
        rng = np.random.default_rng(0)
        return rng.integers(0, self.model.vocab_size, (self.rows, self.prompt)).tolist()

    def flops(self) -> tuple[float, float]:
        """Of one token a row: two a parameter, and the keys and values of what stands before."""
        config = self.model
        seen = self.prompt + self.new / 2
        each = 2.0 * config.num_params + 4.0 * config.num_layers * config.d_model * seen
        return each * self.rows, each * self.rows


@dataclass(frozen=True)
class Embedding:
    """Sentences to vectors, from text: tokenising, sorting by length, batches, mean pooling, length 1."""

    unit: ClassVar[str] = "sentences"
    dtype: ClassVar[str] = "float32"
    peers: ClassVar[tuple[str, ...]] = ("transformers",)

    about: str
    model: BERTConfig
    count: int = 2000

    @property
    def vocabulary(self) -> list[str]:
        """BERT's marks and, for the rest, words that are one piece each."""
        marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        return marks + [f"w{number}" for number in range(self.model.vocab_size - len(marks))]

    def texts(self) -> list[str]:
        return sentences(self.count, self.vocabulary[5:])

    @property
    def positions(self) -> int:
        return self.count

    def real(self, step: int) -> int:
        return self.count

    def flops(self) -> tuple[float, float]:
        """Forward alone, a third of training's: of 14 tokens a sentence, marks among them."""
        each = self.model.flops_of_features(14).full / 3 * 14
        return each * self.count, each * self.count


Workload = Training | Stack | Generation | Embedding
