"""The families: which module a configuration builds, and the sizes that papers published."""

import dataclasses
import fnmatch
from typing import Any

from zoo.errors import ConfigError, nearest
from zoo.models import (
    bert,
    bilm,
    decoder_sizes,
    embedder,
    gpt,
    modernbert,
    neox,
    rnn,
    seq2seq_config,
    word_vectors,
)
from zoo.models.bert import BERT, BERTConfig
from zoo.models.bilm import BiLM, BiLMConfig
from zoo.models.classifier import Classifier, ClassifierConfig
from zoo.models.decoder import Decoder
from zoo.models.decoder_config import DecoderConfig
from zoo.models.embedder import Embedder, EmbedderConfig
from zoo.models.gpt import GPT, GPTConfig
from zoo.models.joint import Joint, JointConfig
from zoo.models.modernbert import ModernBERT, ModernBERTConfig
from zoo.models.neox import NeoX, NeoXConfig
from zoo.models.pretraining import Pretraining, PretrainingConfig
from zoo.models.pure import Model
from zoo.models.rnn import RNN, RNNConfig
from zoo.models.scalar_mix import ELMo, ELMoConfig
from zoo.models.seq2seq import Seq2Seq, Seq2SeqConfig
from zoo.models.span import Span, SpanConfig
from zoo.models.tagger import Tagger, TaggerConfig
from zoo.models.word_vectors import WordVectors, WordVectorsConfig

MODELS: dict[type, Any] = {
    RNNConfig: RNN,
    GPTConfig: GPT,
    DecoderConfig: Decoder,
    NeoXConfig: NeoX,
    BERTConfig: BERT,
    ModernBERTConfig: ModernBERT,
    BiLMConfig: BiLM,
    ELMoConfig: ELMo,
    Seq2SeqConfig: Seq2Seq,
    WordVectorsConfig: WordVectors,
    ClassifierConfig: Classifier,
    EmbedderConfig: Embedder,
    TaggerConfig: Tagger,
    JointConfig: Joint,
    PretrainingConfig: Pretraining,
    SpanConfig: Span,
}
SIZES: dict[str, Any] = {
    **rnn.SIZES,
    **seq2seq_config.SIZES,
    **bilm.SIZES,
    **word_vectors.SIZES,
    **bert.SIZES,
    **modernbert.SIZES,
    **embedder.SIZES,
    **gpt.SIZES,
    **decoder_sizes.SIZES,
    **neox.SIZES,
}


def create(config) -> Model:
    """The pure functions of a configuration, or of a published size by name ("gpt2").

    Raises ConfigError for an unknown name.
    """
    if isinstance(config, str):
        if config not in SIZES:
            raise ConfigError(
                f"unknown model {config!r}{nearest(config, SIZES)}; `python -m zoo list` shows all"
            )
        config = SIZES[config]
    return Model(config, module_of(config))


def module_of(config):
    """The Linen module of a configuration; a head gets that of its encoder."""
    if type(config) not in MODELS:
        known = ", ".join(kind.__name__ for kind in MODELS)
        raise ConfigError(f"no model has a configuration of type {type(config).__name__}; known: {known}")
    has_encoder = "encoder" in {field.name for field in dataclasses.fields(config)}
    return MODELS[type(config)](config, *([module_of(config.encoder)] if has_encoder else []))


def list_models(pattern: str = "*") -> list[str]:
    """Names of the published sizes that match a shell pattern such as "gpt2*"."""
    return sorted(fnmatch.filter(SIZES, pattern))
