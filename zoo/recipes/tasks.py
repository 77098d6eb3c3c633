"""Recipes beyond language modelling: classes, tags, intents with slots, word vectors."""

import dataclasses

from zoo.data import CooccurrencesConfig, ExamplesConfig, WordPairsConfig
from zoo.distill import Distill
from zoo.models.classifier import ClassifierConfig
from zoo.models.joint import JointConfig
from zoo.models.rnn import RNNConfig
from zoo.models.scalar_mix import ELMoConfig
from zoo.models.tagger import TaggerConfig
from zoo.models.word_vectors import WordVectorsConfig
from zoo.optim import SGD, AdamW
from zoo.recipes.recipe import Recipe
from zoo.recipes.rnn import BILM
from zoo.schedules import Constant, Cosine, Linear
from zoo.tasks import CBOW, Classify, GloVe, SkipGram, Slots, Tag

# Of which part of the standard library is this function? 20 modules.
_CLASSIFY = Recipe(
    model=ClassifierConfig(
        encoder=RNNConfig(
            vocab_size=0, direction="both", num_layers=1, d_model=128, d_state=128, init_scale=0.0
        ),
        num_classes=0,
        pooling="max",
        d_hidden=0,
        dropout_rate=0.3,
    ),
    task=Classify(),
    data=ExamplesConfig(
        kind="classify", tokenizer="sentencepiece", vocab_size=4096, max_length=128, bucket=32
    ),
    optimizer=AdamW(learning_rate=3e-3, weight_decay=0.01),
    schedule=Cosine(warmup_steps=50),
    steps=800,
    save_every=400,
)

# The same by a student with 18 % of the parameters, whose teacher is a run of classify_stdlib.
_DISTILL = dataclasses.replace(
    _CLASSIFY,
    model=ClassifierConfig(
        encoder=RNNConfig(vocab_size=0, num_layers=1, d_model=32, d_state=32, init_scale=0.0),
        num_classes=0,
        pooling="max",
        d_hidden=0,
        dropout_rate=0.1,
    ),
    distill=Distill(teacher="runs/classify_stdlib", temperature=2.0, hard=0.3, soft=0.7),
)

# The kind of each token of a line of Python, as its own lexer says.
_TAG = Recipe(
    model=TaggerConfig(
        encoder=RNNConfig(
            vocab_size=0,
            direction="both",
            num_layers=1,
            d_model=64,
            d_state=64,
            dropout_rate=0.2,
            init_scale=0.0,
        ),
        num_tags=0,
    ),
    task=Tag(),
    data=ExamplesConfig(kind="tag", min_count=2, max_length=512, bucket=16),
    optimizer=AdamW(learning_rate=5e-3, weight_decay=0.0),
    schedule=Cosine(warmup_steps=20),
    steps=400,
    save_every=200,
)

# The same out of ELMo's vectors: the mix of the layers of a biLM, which reads words by their spelling. Starts
# from a run of bilm_stdlib with --init; the vocabulary may be another, as no array is of words.
_ELMO_TAG = dataclasses.replace(
    _TAG,
    model=TaggerConfig(encoder=ELMoConfig(encoder=BILM, dropout_rate=0.2), num_tags=0),
    data=dataclasses.replace(_TAG.data, characters=True),
)

# google/flax, examples/sst2: dev accuracy 85.21 % after 10 epochs. Reads the folder sst2 (or --data.path).
_SST2 = Recipe(
    model=ClassifierConfig(
        encoder=RNNConfig(
            vocab_size=0,
            direction="both",
            num_layers=1,
            d_model=300,
            d_state=256,
            word_dropout_rate=0.1,
            init_scale=0.1,  # standard deviation 0.058: Flax's 1 / sqrt(300), and for the state 1 / sqrt(256)
            table_scale=0.1732,  # standard deviation 0.1
        ),
        num_classes=0,
    ),
    task=Classify(),
    data=ExamplesConfig(
        kind="classify", path="sst2", min_count=3, wrap="both", max_length=60, batch_size=64, bucket=8
    ),
    optimizer=SGD(learning_rate=0.1, momentum=0.9),
    schedule=Constant(),
    clip_norm=0.0,
    steps=10_520,  # 67,349 sentences in batches of 64, 10 times
    save_every=1052,
    eval_every=1052,
    eval_batches=0,
    log_every=100,
)

# ChnSentiCorp, 9,600 Chinese reviews, good or bad, from scratch. PaddleNLP's text classification example
# publishes a bidirectional LSTM with accuracy 0.9098 on dev and 0.8983 on test; these are its sizes, Adam at
# 5e-4 and 64 reviews a step. That model reads words out of a segmenter, this one characters; pooling by
# attention and dropout are ours. Reads the folder chnsenticorp (or --data.path).
_CHNSENTICORP = Recipe(
    model=ClassifierConfig(
        encoder=RNNConfig(
            vocab_size=0,
            direction="both",
            num_layers=1,
            d_model=128,
            d_state=198,
            dropout_rate=0.0,
            init_scale=0.0,
        ),
        num_classes=0,
        pooling="attention",
        d_attention=96,
        d_hidden=96,
        dropout_rate=0.3,
    ),
    task=Classify(),
    data=ExamplesConfig(
        kind="classify", path="chnsenticorp", tokenizer="char", max_length=512, batch_size=64, bucket=64
    ),
    optimizer=AdamW(learning_rate=5e-4, beta2=0.999, weight_decay=0.0),
    schedule=Constant(),
    clip_norm=5.0,
    steps=1500,  # 9,600 reviews in batches of 64, 10 times
    save_every=150,
    eval_every=150,
    eval_batches=0,
    log_every=25,
)

# The attention BiRNN of Goo et al. 2018, table 3: slot F1 87.8, intent 96.7, both right 74.1. Reads the
# folder snips (or --data.path) with seq.in, seq.out and label in train, valid and test.
_SNIPS = Recipe(
    model=JointConfig(
        encoder=RNNConfig(
            vocab_size=0, direction="both", num_layers=1, d_model=64, d_state=64, init_scale=0.0
        ),
        num_classes=0,
        num_tags=0,
    ),
    task=Slots(),
    data=ExamplesConfig(kind="slots", path="snips", max_length=64, batch_size=16, bucket=8),
    optimizer=AdamW(learning_rate=1e-3, weight_decay=0.0),
    schedule=Constant(),
    clip_norm=5.0,
    steps=16_350,  # 13,084 utterances in batches of 16, 20 times
    save_every=1635,
    eval_every=1635,
    eval_batches=0,
    log_every=100,
)


def _vectors(task, data, learning_rate: float, steps: int, **model) -> Recipe:
    """Word vectors of WikiText-2, one epoch. Reads the folder wikitext-2 (or --data.path)."""
    return Recipe(
        model=WordVectorsConfig(vocab_size=0, d_model=100, **model),
        task=task,
        data=data,
        optimizer=AdamW(learning_rate=learning_rate, weight_decay=0.0),
        schedule=Linear(warmup_steps=7),
        clip_norm=0.0,
        steps=steps,
        save_every=steps,
    )


RECIPES = {
    "classify_stdlib": _CLASSIFY,
    "distill_classify_stdlib": _DISTILL,
    "tag_stdlib": _TAG,
    "elmo_tag_stdlib": _ELMO_TAG,
    "lstm_sst2": _SST2,
    "lstm_chnsenticorp": _CHNSENTICORP,
    "slot_snips": _SNIPS,
    "word2vec_wikitext2": _vectors(SkipGram(), WordPairsConfig(path="wikitext-2"), 0.05, 346),
    "cbow_wikitext2": _vectors(CBOW(), WordPairsConfig(path="wikitext-2"), 0.03, 346),
    "glove_wikitext2": _vectors(GloVe(), CooccurrencesConfig(path="wikitext-2"), 0.03, 2000, bias=True),
}
