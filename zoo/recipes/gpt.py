"""GPT's recipes: the default run, nanoGPT's character models, GPT-2 as nanoGPT trains and fine-tunes it."""

import dataclasses

from zoo.data import DataConfig
from zoo.models.gpt import SIZES, GPTConfig
from zoo.optim import AdamW, Muon
from zoo.recipes.recipe import Recipe
from zoo.schedules import Constant, Cosine

# The default: a small GPT on the text that every Python carries, sized for five minutes on two CPU cores.
# Under this budget Muon beat AdamW by 0.3 bits per byte, width 128 beat 256, and 8 rows beat 4; the rows
# are in benchmarks/README.md.
_STDLIB = Recipe(
    model=GPTConfig(
        vocab_size=0,
        max_length=256,
        num_layers=4,
        num_heads=4,
        d_model=128,
        dropout_rate=0.0,
        layer_unroll=0,
    ),
    data=DataConfig(
        tokenizer="sentencepiece", vocab_size=4096, length=256, batch_size=8, valid_fraction=0.05
    ),
    optimizer=Muon(learning_rate=6e-3, adam_learning_rate=6e-3),
    schedule=Cosine(warmup_steps=30, final_fraction=0.05),
    steps=600,
    save_every=200,
    sample_prompt="def ",
)

# nanoGPT's character models of Shakespeare (config/train_shakespeare_char.py, and the README's settings
# for a CPU). The text is nanoGPT's input.txt, or --data.path; published validation losses 1.88 and 1.4697.
_SHAKESPEARE = Recipe(
    model=GPTConfig(
        vocab_size=0,
        max_length=64,
        num_layers=4,
        num_heads=4,
        d_model=128,
        dropout_rate=0.0,
        bias=False,
        activation="gelu",
        layer_unroll=0,
    ),
    data=DataConfig(path="input.txt", tokenizer="char", length=64, batch_size=12),
    optimizer=AdamW(learning_rate=1e-3, beta2=0.99, weight_decay=0.1),
    schedule=Cosine(warmup_steps=100, final_fraction=0.1),
    steps=2000,
    eval_every=250,
    sample_tokens=500,
)

# GPT-2's sizes with nanoGPT's training run (config/train_gpt2.py): 480 x 1,024 = 491,520 tokens a step,
# 600,000 steps. Reads folders openwebtext (or --data.path) and gpt2 (or --data.vocab-path), which holds the
# vocabulary: encoder.json and vocab.bpe.
_GPT2 = Recipe(
    model=dataclasses.replace(SIZES["gpt2"], dropout_rate=0.0, dtype="bfloat16"),
    data=DataConfig(path="openwebtext", tokenizer="bpe", vocab_path="gpt2", length=1024, batch_size=480),
    optimizer=AdamW(learning_rate=6e-4, beta2=0.95, weight_decay=0.1),
    schedule=Cosine(warmup_steps=2000, final_fraction=0.1),
    steps=600_000,
    accumulate=5,
    save_every=2000,
    eval_every=1000,
    eval_batches=200,
)


# nanoGPT's fine-tuning (config/finetune_shakespeare.py): all parameters of a published GPT-2, 32 rows of
# 1,024 tokens a step, 20 steps at a constant rate. Reads the folder gpt2 (or --init) with its vocabulary, and
# input.txt (or --data.path: a text, or a .jsonl with a "text" in each line).
_FINETUNE = Recipe(
    model=GPTConfig(dropout_rate=0.0, dtype="bfloat16"),
    init="gpt2",
    data=DataConfig(path="input.txt", tokenizer="bpe", vocab_path="gpt2", length=1024, batch_size=32),
    optimizer=AdamW(learning_rate=3e-5, beta2=0.95, weight_decay=0.1),
    schedule=Constant(),
    steps=20,
    accumulate=32,
    save_every=0,
    eval_every=0,
    eval_batches=40,
)


def _gpt2(size: str, learning_rate: float, accumulate: int) -> Recipe:
    """The run with another size; learning rates of GPT-3's models of that size (its table 2.1)."""
    shape = {key: getattr(SIZES[size], key) for key in ("num_layers", "num_heads", "d_model")}
    return dataclasses.replace(
        _GPT2,
        model=dataclasses.replace(_GPT2.model, **shape, remat="dots"),
        optimizer=dataclasses.replace(_GPT2.optimizer, learning_rate=learning_rate),
        accumulate=accumulate,
    )


RECIPES = {
    "gpt_stdlib": _STDLIB,
    "gpt_shakespeare_char": _SHAKESPEARE,
    "gpt_shakespeare_char_gpu": dataclasses.replace(
        _SHAKESPEARE,
        model=dataclasses.replace(
            _SHAKESPEARE.model, max_length=256, num_layers=6, num_heads=6, d_model=384, dropout_rate=0.2
        ),
        data=dataclasses.replace(_SHAKESPEARE.data, length=256, batch_size=64),
        steps=5000,
    ),
    "gpt2": _GPT2,
    "gpt2_medium": _gpt2("gpt2_medium", 3e-4, 10),
    "gpt2_large": _gpt2("gpt2_large", 2.5e-4, 20),
    "gpt2_xl": _gpt2("gpt2_xl", 2e-4, 40),
    "gpt2_finetune": _FINETUNE,
}
