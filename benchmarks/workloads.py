"""What is measured, by name. A training workload is a recipe with random data: its step is the one that
train.py makes of a recipe and loops over (zoo/assembly.py).

    work = WORKLOADS["gpt_6x384"]
    parts, data = work.parts(), work.data          # a zoo.step.TrainStep, and what stands for a data set
    batches = training_batches(data, parts.task, mesh, 0, 10)     # zoo/feed.py, as in train.py
"""

import dataclasses

from benchmarks.kinds import Embedding, Generation, Stack, Training, Workload
from zoo.data import DataConfig, MaskedConfig
from zoo.models.bert import SIZES as BERT_SIZES
from zoo.models.bert import BERTConfig
from zoo.models.gpt import SIZES as GPT_SIZES
from zoo.models.gpt import GPTConfig
from zoo.models.rnn import RNNConfig
from zoo.optim import SGD, AdamW
from zoo.recipes.recipe import Recipe
from zoo.schedules import Constant
from zoo.tasks import CausalLM, MaskedLM

__all__ = [
    "WORKLOADS",
    "Embedding",
    "Generation",
    "Stack",
    "Training",
    "Workload",
    "bert",
    "gpt",
    "lm",
    "recurrent",
]

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
    return Training(about, recipe, peers=("transformers", "transformers.compile"), **changes)


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
    peers = ("torch", "torch.compile", *(["flax"] if config.cell == "lstm" else []))  # its GRU lacks a bias
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
        "GPT 4x128, T 64, B 12, 65 characters, no biases",  # nanoGPT's README, for a CPU
        dataclasses.replace(_small(4, 128, 4, 64, CHARS), bias=False, activation="gelu"),
        *(12, 64),
        peers=("torch", "torch.compile", "flax"),
        checked=50,
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
