"""What tests of published folders share: tiny configurations of every class, and folders of them."""

import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest

import zoo
from zoo.data.tokenizers.word_piece import WordPieceTokenizer
from zoo.errors import CheckpointError
from zoo.models.bert import BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.models.gpt import GPTConfig
from zoo.models.modernbert import ModernBERTConfig
from zoo.models.span import SpanConfig
from zoo.models.tagger import TaggerConfig
from zoo.tree import named_leaves

PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] a film good ##s bad , .".split()
TOKENIZER = WordPieceTokenizer(tuple(PIECES))
SIZES = {
    "vocab_size": len(PIECES),
    "max_length": 12,
    "num_layers": 3,
    "num_heads": 2,
    "d_model": 8,
    "d_ff": 20,
}
SIZES |= {"dropout_rate": 0.0}
ENCODER = BERTConfig(**SIZES)
ROBERTA = dataclasses.replace(ENCODER, num_token_types=1, position_offset=2, norm_epsilon=1e-5)
DISTILBERT = dataclasses.replace(ENCODER, num_token_types=0)


def classifier(encoder, activation="tanh") -> ClassifierConfig:
    head = {"pooling": "first", "d_hidden": 8, "dropout_rate": 0.0, "hidden_activation": activation}
    return ClassifierConfig(encoder, num_classes=3, **head)


CONFIGS = {
    "bert": ENCODER,
    "roberta": ROBERTA,
    "distilbert": DISTILBERT,
    "modernbert": ModernBERTConfig(**SIZES),
    "gpt2": GPTConfig(**SIZES),
    "bert classes": classifier(ENCODER),
    "roberta classes": classifier(ROBERTA),
    "distilbert classes": classifier(DISTILBERT, "relu"),
    "bert tags": TaggerConfig(ENCODER, num_tags=3, decoder="softmax"),
    "distilbert spans": SpanConfig(DISTILBERT),
}
LABELS = ("no", "yes", "perhaps")


def random_params(config) -> dict:
    """Uneven numbers in every parameter, and nothing in the vocabulary's padding."""
    random = np.random.default_rng(3)

    def draw(spec):
        array = np.zeros(spec.shape, np.float32)
        spec.visible(array)[...] = random.normal(size=spec.visible_shape)
        return array

    return jax.tree.map(draw, zoo.create(config).abstract())


def written(folder, config=ENCODER, tokenizer=TOKENIZER, **settings):
    """A folder of random parameters; returns them."""
    params = random_params(config)
    labels = (
        LABELS if {"num_classes", "num_tags"} & {field.name for field in dataclasses.fields(config)} else ()
    )
    zoo.save_pretrained(folder, zoo.create(config), params, tokenizer, labels=labels, **settings)
    return params


def equal(one, other) -> bool:
    one, other = named_leaves(one), named_leaves(other)
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def refusal(call, *args, error=CheckpointError) -> str:
    with pytest.raises(error) as caught:
        call(*args)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1_100  # all classes have room in it
    return str(caught.value)


def digests(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def change(folder, **settings):
    """Settings of a folder's config.json put anew."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
