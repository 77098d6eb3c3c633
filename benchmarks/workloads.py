"""What is measured, by name. A training workload is a recipe with random data: its step is the one that
train.py makes of a recipe and loops over (zoo/assembly.py).

    work = WORKLOADS["gpt_6x384"]
    parts, data = work.parts(), work.data          # a zoo.step.TrainStep, and what stands for a data set
    batches = training_batches(data, parts.task, mesh, 0, 10)     # zoo/feed.py, as in train.py
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from benchmarks.drawn import Drawn, sentences, stack_arrays
from zoo import assembly
from zoo.data import DataConfig, MaskedConfig
from zoo.models.bert import SIZES as BERT_SIZES
from zoo.models.bert import BERTConfig
from zoo.models.gpt import SIZES as GPT_SIZES
from zoo.models.gpt import GPTConfig
from zoo.models.rnn import RNNConfig
from zoo.optim import SGD, AdamW
from zoo.recipes.recipe import Recipe
from zoo.schedules import Constant
from zoo.step import TrainStep
from zoo.tasks import CausalLM, MaskedLM


@dataclass(frozen=True)
class Training:
    """A whole train step: forward, backward, clipping, update."""

    unit: ClassVar[str] = "tokens"

    about: str
    recipe: Recipe
    peers: tuple[str, ...] = ("torch", "transformers", "flax")
    """Kinds of peers that have this model."""
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
    peers: ClassVar[tuple[str, ...]] = ("torch",)
    GATES: ClassVar[dict[str, int]] = {"lstm": 4, "gru": 3, "elman": 1}

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


# --- recipes with random data ---------------------------------------------------------------------


def gpt(about: str, config: GPTConfig, rows: int, length: int, **changes) -> Training:
    """nanoGPT's optimizer for small models; no dropout, so that losses can be compared."""
    recipe = Recipe(
        model=dataclasses.replace(config, max_length=max(length, config.max_length), dropout_rate=0.0),
        data=DataConfig(length=length, batch_size=rows),
        optimizer=AdamW(1e-3, 0.9, 0.99, weight_decay=0.1),
        schedule=Constant(),
    )
    return Training(about, recipe, **changes)


def bert(about: str, config: BERTConfig, rows: int, length: int, layout: str, **changes) -> Training:
    """BERT's optimizer; 15 % of the words are hidden, and texts are 5/8 of a row long on average."""
    recipe = Recipe(
        model=dataclasses.replace(config, max_length=max(length, 8), dropout_rate=0.0, layer_unroll=0),
        task=MaskedLM(),
        data=MaskedConfig(layout=layout, length=length, batch_size=rows),
        optimizer=AdamW(1e-4, 0.9, 0.999, weight_decay=0.01),
        schedule=Constant(),
    )
    return Training(about, recipe, peers=("transformers",), **changes)


def recurrent(about: str, config: RNNConfig, rows: int, length: int, **changes) -> Training:
    """torch's word_language_model: clipping, plain SGD, the state carried on from step to step."""
    recipe = Recipe(
        model=dataclasses.replace(config, dropout_rate=0.0),
        task=CausalLM(),
        data=DataConfig(layout="streams", length=length, batch_size=rows),
        optimizer=SGD(1.0),
        schedule=Constant(),
        clip_norm=0.25,
    )
    peers = ("torch", "flax") if config.cell == "lstm" else ("torch",)  # flax's GRU lacks a bias
    return Training(about, recipe, peers=peers, **changes)


def lm(cell: str, layers: int, width: int, vocab_size: int) -> RNNConfig:
    return RNNConfig(
        cell=cell, vocab_size=vocab_size, num_layers=layers, d_model=width, d_state=width, init_scale=0.0
    )


CHARS, WORDS, PIECES = 65, 10_000, 50_304
_GPT2 = dataclasses.replace(GPT_SIZES["gpt2"], max_length=256, layer_unroll=0)
_SHAPES = {"1x256": (128, 32), "2x200": (20, 20), "2x650": (35, 20), "2x1500": (35, 20)}  # T, B


def _small(layers: int, width: int, heads: int, length: int, vocab_size: int) -> GPTConfig:
    return GPTConfig(
        vocab_size=vocab_size,
        max_length=length,
        num_layers=layers,
        num_heads=heads,
        d_model=width,
        layer_unroll=0,
    )


def _stack(cell: str, shape: str) -> Stack:
    layers, width = map(int, shape.split("x"))
    T, B = _SHAPES[shape]
    return Stack(f"{cell.upper()} {shape} alone, T {T}, B {B}", cell, layers, width, T, B)


WORKLOADS: dict[str, Workload] = {
    "gpt_6x384": gpt("GPT 6x384, T 256, B 8, 65 characters", _small(6, 384, 6, 256, CHARS), 8, 256),
    "gpt_4x128": gpt(
        "GPT 4x128, T 64, B 12, 65 characters", _small(4, 128, 4, 64, CHARS), 12, 64, checked=50
    ),
    "gpt_4x256": gpt(
        "GPT 4x256, T 128, B 8, 50,304 words", _small(4, 256, 4, 128, PIECES), 8, 128, checked=5
    ),
    "gpt2": gpt("GPT-2 124M, T 256, B 4", _GPT2, 4, 256, checked=3),
    "bert_mini": bert("BERT mini, T 128, B 16, padded", BERT_SIZES["bert_mini"], 16, 128, "padded"),
    "bert_mini_packed": bert("BERT mini, T 128, B 16, packed", BERT_SIZES["bert_mini"], 16, 128, "packed"),
    "bert_base": bert("BERT base, T 128, B 4, padded", BERT_SIZES["bert_base"], 4, 128, "padded", checked=3),
    "bert_base_packed": bert(
        "BERT base, T 128, B 4, packed", BERT_SIZES["bert_base"], 4, 128, "packed", checked=3
    ),
    "lstm_1x256": recurrent("LSTM 1x256, T 128, B 32, 65 characters", lm("lstm", 1, 256, CHARS), 32, 128),
    "lstm_2x200": recurrent("LSTM 2x200, T 20, B 20, 10,000 words", lm("lstm", 2, 200, WORDS), 20, 20),
    "lstm_2x650": recurrent("LSTM 2x650, T 35, B 20, 10,000 words", lm("lstm", 2, 650, WORDS), 20, 35),
    "lstm_2x1500": recurrent(
        "LSTM 2x1500, T 35, B 20, 10,000 words", lm("lstm", 2, 1500, WORDS), 20, 35, checked=3
    ),
    "gru_2x650": recurrent("GRU 2x650, T 35, B 20, 10,000 words", lm("gru", 2, 650, WORDS), 20, 35),
    **{f"{cell}_{shape}_stack": _stack(cell, shape) for cell in ("lstm", "gru") for shape in _SHAPES},
    "gpt2_decode_1": Generation("GPT-2 124M, 128 greedy tokens behind 32, batch 1", _GPT2, 1),
    "gpt2_decode_8": Generation("GPT-2 124M, 128 greedy tokens behind 32, batch 8", _GPT2, 8),
    "embed_6x384": Embedding(
        "6x384 encoder, 2,000 sentences of 14 tokens",
        BERTConfig(num_layers=6, d_model=384, num_heads=12, layer_unroll=0),
    ),
}
