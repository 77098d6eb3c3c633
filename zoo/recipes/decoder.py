"""Recipes of today's decoders: the default run with Llama's blocks in the place of GPT-2's."""

import dataclasses

from zoo.models.decoder_config import DecoderConfig
from zoo.recipes import gpt

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
}
