"""BERT's recipes: small ones of BERT and ModernBERT on Python's own text, and the paper's two.

The paper trains nine tenths of the steps in rows of 128 tokens, the rest in rows of 512. That is two runs:
the first ends where the straight line of the rate is at 900,000 of 1,000,000 steps, at 0.101 of the peak, and
the second goes on from its parameters (Adam's moments begin anew).

    python train.py bert_base --data.length 128 --steps 900000 --schedule.final-fraction 0.101 --name first
    python train.py bert_base --init runs/first --steps 100000 --schedule.warmup-steps 0 \\
        --optimizer.learning-rate 1.01e-5
"""

import dataclasses

from zoo.data import MaskedConfig
from zoo.models.bert import SIZES, BERTConfig
from zoo.models.modernbert import ModernBERTConfig
from zoo.models.pretraining import PretrainingConfig
from zoo.optim import AdamW, Muon
from zoo.recipes.recipe import Recipe
from zoo.schedules import Linear
from zoo.tasks import MaskedLM, MaskedPairs

# Minutes on two CPU cores: 18.4 % of the masked words of the validation part are found; 4.0 % of them are the
# most frequent token.
_STDLIB = Recipe(
    model=BERTConfig(
        vocab_size=0,
        max_length=128,
        num_layers=4,
        num_heads=4,
        d_model=128,
        dropout_rate=0.0,
        layer_unroll=0,
    ),
    task=MaskedLM(),
    data=MaskedConfig(vocab_size=4096, length=128, batch_size=16, valid_fraction=0.05),
    optimizer=Muon(learning_rate=6e-3, adam_learning_rate=6e-3),
    schedule=Linear(warmup_steps=30, final_fraction=0.05),
    steps=800,
    save_every=400,
)

# The same with ModernBERT's layers, three of them windows of 16 on either side, and 30 % of the tokens masked
# (Warner et al. 2024, section 2.2.1).
_MODERN_STDLIB = dataclasses.replace(
    _STDLIB,
    model=ModernBERTConfig(
        vocab_size=0,
        max_length=128,
        num_layers=5,
        num_heads=4,
        d_model=128,
        d_ff=192,
        reach=16,
        layer_unroll=0,
    ),
    data=dataclasses.replace(_STDLIB.data, mask_rate=0.3),
)

# Devlin et al. 2018, appendix A.2: 256 rows of 512 tokens, 1,000,000 steps, Adam with rate 1e-4, decay 0.01
# and warm-up over 10,000 steps, dropout 0.1; clipped at norm 1 and with Adam's epsilon 1e-6 as in BERT's own
# code. Next sentences; masks are drawn anew each epoch, where the paper had ten copies.
# Reads folders wikipedia (or --data.path), a document a file or a line of .jsonl, and bert (or
# --data.vocab-path), which holds the vocabulary: vocab.txt.
_BASE = Recipe(
    model=PretrainingConfig(encoder=dataclasses.replace(SIZES["bert_base"], dtype="bfloat16")),
    task=MaskedPairs(),
    data=MaskedConfig(
        path="wikipedia",
        vocab_path="bert",
        vocab_size=0,
        pairs="next_sentence",
        length=512,
        batch_size=256,
        valid_fraction=0.01,
    ),
    optimizer=AdamW(learning_rate=1e-4, beta2=0.999, eps=1e-6, weight_decay=0.01),
    schedule=Linear(warmup_steps=10_000),
    steps=1_000_000,
    save_every=5000,
    eval_every=5000,
    eval_batches=200,
)

RECIPES = {
    "bert_stdlib": _STDLIB,
    "modernbert_stdlib": _MODERN_STDLIB,
    "bert_base": _BASE,
    "bert_large": dataclasses.replace(
        _BASE,
        model=PretrainingConfig(
            encoder=dataclasses.replace(SIZES["bert_large"], dtype="bfloat16", remat="dots")
        ),
    ),
}
