"""Recipes of today's decoders: the default run with Llama's blocks in the place of GPT-2's, one that answers
questions about Python, and adapters of a published one, for texts and for dialogues."""

import dataclasses

from zoo.data import DataConfig, DialoguesConfig
from zoo.models.decoder_config import DecoderConfig
from zoo.models.experts import Experts
from zoo.models.lora import LoRA
from zoo.optim import AdamW
from zoo.recipes import gpt
from zoo.recipes.recipe import Recipe
from zoo.schedules import Constant

# Adapters beside every matmul of a published decoder, trained as QLoRA's are for 7 and 13 billion parameters
# (Dettmers et al. 2023, arXiv 2305.14314, appendix B.2) over a base that is not quantized. Reads the folder
# llama (or --init) with its vocabulary, and texts.jsonl (or --data.path); no text sees another.
_LORA = Recipe(
    model=DecoderConfig(dtype="bfloat16", remat="full"),
    init="llama",
    lora=LoRA(rank=64, alpha=16.0, targets=("*attention/*", "*mlp/*"), dropout_rate=0.1),
    data=DataConfig(
        path="texts.jsonl",
        tokenizer="whole",
        vocab_path="llama",
        layout="packed",
        length=1024,
        batch_size=16,
    ),
    optimizer=AdamW(learning_rate=2e-4, beta2=0.999, weight_decay=0.0),
    schedule=Constant(),
    clip_norm=0.3,
    steps=1000,
    save_every=0,
    eval_every=0,
)

# The same on dialogues, of which the answers are learned. Reads the folder llama (or --init) with its
# vocabulary and chat template, and dialogues.jsonl (or --data.path).
_CHAT = dataclasses.replace(
    _LORA,
    data=DialoguesConfig(
        path="dialogues.jsonl", tokenizer="whole", vocab_path="llama", length=1024, batch_size=16
    ),
    sample_prompt="Who are you?",
)

RECIPES = {
    # gpt_stdlib's text, budget, optimizer and width. Half as many heads of keys, and a feed-forward layer of
    # 8/3 times the width, as three matmuls of it weigh what GPT's two of four times do.
    "llama_stdlib": dataclasses.replace(
        gpt.RECIPES["gpt_stdlib"],
        model=DecoderConfig(
            vocab_size=0,
            max_length=256,
            num_layers=4,
            num_heads=4,
            num_kv_heads=2,
            d_model=128,
            d_ff=344,
            rotary_base=10_000.0,
            tied=True,
            layer_unroll=0,
        ),
    ),
    "llama_lora": _LORA,
    "llama_chat": _CHAT,
}
# The same with 8 experts of half the width in the place of each feed-forward layer, of which a token meets
# two: as many multiplications, 2.3 times the parameters. What the router is asked for weighs as in OLMoE.
RECIPES["moe_stdlib"] = dataclasses.replace(
    RECIPES["llama_stdlib"],
    model=dataclasses.replace(
        RECIPES["llama_stdlib"].model, d_ff=172, experts=Experts(8, 2, balance_loss=0.01, z_loss=0.001)
    ),
)
# Answers of a few words about functions of Python's library, which stand in the question: what a small model
# learns to look up.
RECIPES["chat_stdlib"] = dataclasses.replace(
    RECIPES["llama_stdlib"],
    data=DialoguesConfig(
        tokenizer="sentencepiece", vocab_size=2048, length=256, batch_size=16, valid_fraction=0.1
    ),
    sample_prompt="def area(width, height=2):\n    return width * height\nWhat is the default of height?",
    sample_tokens=40,
)
