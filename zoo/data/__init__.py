"""Files to batches: `load(cfg, seed)` gives a data set whose batch(step, rows) is a pure function.

    text.py        texts as rows of tokens, the data of language models
    corpus.py      texts, divided into train, valid and test; from stdlib.py or files.py
    tokenizers/    text to numbers and back; vocabulary.py says which a corpus gets
    tokens.py      a part's tokens in one array, encoded once per machine (cache.py)
    stream.py      rows that run across documents; streams.py: parallel ones that go on from step to step;
                   packed.py: rows of whole documents
    order.py       which row comes when
    masked/        texts with some of their words masked, alone or as pairs
    examples/      labelled examples as batches: texts to classify, sentences to tag, pairs to translate
    dialogues/     messages and answers, written by a chat template
    word_pairs.py  words and their neighbours; cooccurrences.py: how often they met
    baselines.py   what gzip and an order-3 model make of the same bytes

Nothing here knows of JAX or of models; Grain, SentencePiece and tokenizers are imported where they are used.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

from zoo.data.cooccurrences import CooccurrencesConfig, load_cooccurrences
from zoo.data.dialogues.config import DialoguesConfig
from zoo.data.dialogues.dialogue_set import load_dialogue_file, load_dialogues
from zoo.data.examples.config import ExamplesConfig
from zoo.data.examples.example_set import ExampleSet, load_example_file, load_examples
from zoo.data.masked.config import MaskedConfig
from zoo.data.masked.masked_set import load_masked, load_masked_file
from zoo.data.text import LAYOUTS, DataConfig, TextSet, load_text, load_text_file
from zoo.data.tokenizers import TOKENIZERS, load_tokenizer
from zoo.data.tokenizers.published import TEMPLATE
from zoo.data.word_pairs import WordPairsConfig, load_word_pairs
from zoo.errors import ConfigError

__all__ = [
    "LAYOUTS",
    "LOADERS",
    "SOURCES",
    "TOKENIZERS",
    "CooccurrencesConfig",
    "DataConfig",
    "DialoguesConfig",
    "ExampleSet",
    "ExamplesConfig",
    "MaskedConfig",
    "TextSet",
    "WordPairsConfig",
    "load",
    "load_file",
    "load_tokenizer",
]

SOURCES: dict[str, Any] = {
    "text": DataConfig,
    "masked": MaskedConfig,
    "examples": ExamplesConfig,
    "dialogues": DialoguesConfig,
    "word_pairs": WordPairsConfig,
    "cooccurrences": CooccurrencesConfig,
}
LOADERS: dict[type, Any] = {
    DataConfig: load_text,
    MaskedConfig: load_masked,
    ExamplesConfig: load_examples,
    DialoguesConfig: load_dialogues,
    WordPairsConfig: load_word_pairs,
    CooccurrencesConfig: load_cooccurrences,
}


def load(cfg, seed: int, *, evaluate: str = "valid"):
    """The data set of a configuration; `evaluate` names the part that is evaluated."""
    return LOADERS[type(cfg)](cfg, seed, evaluate)


def kept_in(folder: Path, cfg):
    """A run's settings with what its folder keeps of them, whatever became of the rest: a chat template."""
    path = folder / "tokenizer" / TEMPLATE
    if isinstance(cfg, DialoguesConfig) and path.is_file():
        return dataclasses.replace(cfg, template=str(path))
    return cfg


def load_file(cfg, path: str | os.PathLike, tokenizer, names):
    """One file to be evaluated by a model whose data had this configuration: in its own vocabulary, with its
    own names of classes and tags, {"labels": ..., "tags": ...}."""
    if isinstance(cfg, ExamplesConfig):
        return load_example_file(cfg, Path(path), tokenizer, names)
    if isinstance(cfg, DataConfig):
        return load_text_file(cfg, Path(path), tokenizer)
    if isinstance(cfg, DialoguesConfig):
        return load_dialogue_file(cfg, Path(path), tokenizer)
    if isinstance(cfg, MaskedConfig):
        return load_masked_file(cfg, Path(path), tokenizer)
    raise ConfigError("word vectors are not evaluated on a file of text; see `python -m zoo words`")
