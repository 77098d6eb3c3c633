"""Recipes of encoder-decoders: commands to actions, German to English, functions to what they do."""

import dataclasses

from zoo.data import ExamplesConfig
from zoo.inference.beam import Beam
from zoo.models.seq2seq_config import SIZES, Seq2SeqConfig
from zoo.optim import AdamW
from zoo.recipes.recipe import Recipe
from zoo.schedules import Constant, Cosine
from zoo.tasks import Seq2Seq

# Lake and Baroni 2018 (arXiv 1711.00350): the network that did best over all their tasks, two layers of 200
# without attention, half of the rows reading their own words; 100,000 examples one by one there, 64 at a
# time here. Test exact match 99.8 % of the simple split, 13.8 % of the length split. Reads the folder
# scan/simple (or --data.path).
_SCAN = Recipe(
    model=dataclasses.replace(SIZES["lstm_lake_baroni"], vocab_size=0, init_scale=0.0),
    task=Seq2Seq(max_new_tokens=50),
    data=ExamplesConfig(
        kind="pairs",
        path="scan/simple",
        max_length=16,
        max_target_length=52,
        batch_size=64,
        bucket=8,
        valid_fraction=0.02,
    ),
    optimizer=AdamW(learning_rate=1e-3, weight_decay=0.0),
    schedule=Constant(),
    clip_norm=5.0,
    steps=8000,
    save_every=500,
    eval_every=500,
    eval_batches=0,
    log_every=50,
)

# German to English, 29,000 pairs in pieces of 10,000 merges, Luong's general attention (arXiv 1508.04025).
# Reads the folder multi30k (or --data.path) with train.de and train.en, valid, ...
_MULTI30K = Recipe(
    model=Seq2SeqConfig(
        vocab_size=0,
        d_model=256,
        d_state=512,
        num_encoder_layers=1,
        num_decoder_layers=1,
        direction="both",
        attention="general",
        feeding="none",
        tied=True,
        dropout_rate=0.3,
        init_scale=0.0,
    ),
    task=Seq2Seq(
        label_smoothing=0.1,
        max_new_tokens=64,
        beam=Beam(size=5, length_penalty=1.0, length_offset=0.0),
        scores=("tokenized_bleu",),
    ),
    data=ExamplesConfig(
        kind="pairs",
        path="multi30k",
        columns=("source=de", "target=en"),
        max_length=64,
        max_target_length=64,
        batch_size=128,
        bucket=16,
    ),
    optimizer=AdamW(learning_rate=2e-3, weight_decay=0.01),
    schedule=Cosine(warmup_steps=200, final_fraction=0.05),
    steps=3390,  # 15 epochs
    save_every=1130,
    eval_every=1130,
    eval_batches=2,
)


def _summaries(path: str, vocab_size: int, max_length: int, max_target_length: int, steps: int) -> Recipe:
    """A long text to one line."""
    return Recipe(
        model=Seq2SeqConfig(
            vocab_size=0,
            d_model=128,
            d_state=256,
            num_encoder_layers=1,
            num_decoder_layers=1,
            direction="both",
            attention="general",
            feeding="none",
            dropout_rate=0.3,
            init_scale=0.0,
        ),
        task=Seq2Seq(
            label_smoothing=0.1,
            max_new_tokens=max_target_length,
            beam=Beam(size=4, length_penalty=1.0, length_offset=0.0),
            scores=("rouge",),
        ),
        data=ExamplesConfig(
            kind="pairs",
            path=path,
            tokenizer="sentencepiece",
            vocab_size=vocab_size,
            max_length=max_length,
            max_target_length=max_target_length,
            batch_size=32,
            bucket=64,
        ),
        optimizer=AdamW(learning_rate=2e-3, weight_decay=0.01),
        schedule=Cosine(warmup_steps=100, final_fraction=0.05),
        steps=steps,
        save_every=500,
        eval_every=500,
        eval_batches=2,
    )


RECIPES = {
    "seq2seq_scan": _SCAN,
    "seq2seq_multi30k": _MULTI30K,
    # The body of a function to the first line of its docstring.
    "summarize_stdlib": _summaries("", 4096, 128, 32, steps=1500),
    # An abstract to the one line that says what is new (Cachola et al. 2020, arXiv 2004.15011). Reads the
    # folder scitldr (or --data.path) with train.jsonl, dev.jsonl and test.jsonl.
    "summarize_scitldr": _summaries("scitldr", 4096, 384, 64, steps=1500),
}
