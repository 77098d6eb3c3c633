"""Recipes of texts that are compared: docstrings with function bodies, sentences by their likeness."""

import dataclasses

from zoo.data import ExamplesConfig
from zoo.models.bert import SIZES, BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.models.embedder import EmbedderConfig
from zoo.optim import AdamW
from zoo.recipes.recipe import Recipe
from zoo.schedules import Cosine, Linear
from zoo.tasks import Contrastive, CosineRegression, Regress

# Which function does this docstring describe? Its first line and the body below it.
_STDLIB = Recipe(
    model=EmbedderConfig(
        encoder=BERTConfig(
            vocab_size=0, max_length=64, num_layers=1, num_heads=4, d_model=128, d_ff=256, layer_unroll=0
        ),
    ),
    task=Contrastive(backward_weight=1.0),
    data=ExamplesConfig(
        kind="matches", tokenizer="sentencepiece", vocab_size=4096, max_length=64, batch_size=64, bucket=32
    ),
    optimizer=AdamW(learning_rate=3e-3, weight_decay=0.01),
    schedule=Cosine(warmup_steps=50),
    steps=600,
    save_every=300,
    eval_every=200,
    eval_batches=0,
)

# STS-B: 5,749 pairs of sentences in batches of 32, three times, at 2e-5 (Devlin et al. 2018, section 4.1 of
# arXiv 1810.04805), a tenth of the steps to warm up as in their run_classifier.py. Reads the folders
# glue-stsb (or --data.path) and bert-base-uncased (or --data.vocab-path). These are settings of fine-tuning:
# --init gives the encoder that a language model's run has trained.
_STSB = Recipe(
    model=ClassifierConfig(
        encoder=dataclasses.replace(SIZES["bert_small"], vocab_size=0),
        dropout_rate=0.1,
        num_classes=0,
        pooling="first",
        d_hidden=512,
    ),
    task=Regress(),
    data=ExamplesConfig(
        kind="score",
        path="glue-stsb",
        tokenizer="wordpiece",
        vocab_path="bert-base-uncased",
        wrap="both",
        max_length=128,
        batch_size=32,
        bucket=16,
    ),
    optimizer=AdamW(learning_rate=2e-5, beta2=0.999, eps=1e-6, weight_decay=0.01),
    schedule=Linear(warmup_steps=53),
    steps=537,
    save_every=179,
    eval_every=179,
    eval_batches=0,
)

RECIPES = {
    "similarity_stdlib": _STDLIB,
    "bert_stsb": _STSB,
    # The same sentences read apart, in batches of 16, four times, which is what the authors' own script for
    # STS-B does (Reimers and Gurevych 2019, arXiv 1908.10084).
    "bert_stsb_embed": dataclasses.replace(
        _STSB,
        model=EmbedderConfig(encoder=dataclasses.replace(SIZES["bert_small"], vocab_size=0)),
        task=CosineRegression(),
        data=dataclasses.replace(_STSB.data, kind="similarity", batch_size=16),
        schedule=Linear(warmup_steps=144),
        steps=1436,
        save_every=359,
        eval_every=359,
    ),
}
