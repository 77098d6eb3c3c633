"""Recipes of recurrent language models: Python's own text, and the Penn Treebank as Zaremba et al. had it."""

import dataclasses

from zoo.data import DataConfig
from zoo.models.bilm import BiLMConfig
from zoo.models.rnn import SIZES, RNNConfig
from zoo.optim import SGD, AdamW
from zoo.recipes.recipe import Recipe
from zoo.schedules import Cosine, StepDecay
from zoo.tasks import BidirectionalLM

# The text and the budget of gpt_stdlib: a few minutes on two CPU cores.
_LSTM = Recipe(
    model=RNNConfig(
        vocab_size=0,
        num_layers=1,
        d_model=256,
        d_state=512,
        dropout_rate=0.0,
        forget_bias=1.0,
        init_scale=0.0,
    ),
    data=DataConfig(
        tokenizer="sentencepiece",
        vocab_size=4096,
        layout="streams",
        length=64,
        batch_size=32,
        valid_fraction=0.05,
    ),
    optimizer=AdamW(learning_rate=4e-3, weight_decay=0.01),
    schedule=Cosine(warmup_steps=30, final_fraction=0.05),
    steps=600,
    save_every=200,
    sample_prompt="def ",
)


def _other_cell(cell: str) -> Recipe:
    return dataclasses.replace(_LSTM, model=dataclasses.replace(_LSTM.model, cell=cell, forget_bias=0.0))


def _zaremba(size: str, length: int, epochs: int, flat_epochs: int, factor: float, clip: float) -> Recipe:
    """The Penn Treebank, 929,588 targets in 20 streams; reads the folder ptb (or --data.path) with
    train.txt, valid.txt and test.txt.

    The paper adds up the gradient over the positions of a row and takes the mean over the batch; ours is the
    mean over both. So its rate 1 is `length` here, and its clipping norm is divided by `length`.
    """
    epoch = 929_588 // 20 // length
    return Recipe(
        model=dataclasses.replace(SIZES[size], vocab_size=0),
        data=DataConfig(path="ptb", tokenizer="word", layout="streams", length=length, batch_size=20),
        optimizer=SGD(learning_rate=float(length), momentum=0.0, weight_decay=0.0),
        schedule=StepDecay(start=flat_epochs * epoch, every=epoch, factor=factor),
        clip_norm=clip / length,
        steps=epochs * epoch,
        save_every=epoch,
        eval_every=epoch,
        eval_batches=0,
        log_every=100,
        sample_prompt="the company",
        sample_tokens=100,
    )


# A language model of both directions whose layers are word vectors (ELMo, arXiv 1802.05365), over the words
# of the standard library by their spelling. Taggers read it too.
BILM = BiLMConfig(vocab_size=0, d_model=128, d_state=256, num_filters=128, num_highway=1, d_character=16)
_BILM = Recipe(
    model=BILM,
    task=BidirectionalLM(),
    data=DataConfig(
        tokenizer="word", vocab_size=8192, length=32, batch_size=16, valid_fraction=0.05, characters=True
    ),
    optimizer=AdamW(learning_rate=3e-3, weight_decay=0.01),
    schedule=Cosine(warmup_steps=30, final_fraction=0.05),
    steps=600,
    save_every=200,
)

RECIPES = {
    "bilm_stdlib": _BILM,
    "lstm_stdlib": _LSTM,
    "gru_stdlib": _other_cell("gru"),
    "rnn_stdlib": _other_cell("elman_tanh"),
    # Zaremba et al. 2014 (arXiv 1409.2329), sections 4.1 and the authors' code: validation and test
    # perplexities 120.7 / 114.5, 86.2 / 82.7 and 82.2 / 78.4.
    "lstm_ptb_small": _zaremba("lstm_zaremba_small", 20, epochs=13, flat_epochs=4, factor=2.0, clip=5.0),
    "lstm_ptb_medium": _zaremba("lstm_zaremba_medium", 35, epochs=39, flat_epochs=6, factor=1.2, clip=5.0),
    "lstm_ptb_large": _zaremba("lstm_zaremba_large", 35, epochs=55, flat_epochs=14, factor=1.15, clip=10.0),
}
