"""Which of our models a config.json describes: the table of Hugging Face's classes, both ways.

    BertForMaskedLM, ...ForPreTraining, ...Model     BERTConfig; a PretrainingConfig is written as the second
    ...ForSequenceClassification                     ClassifierConfig over it: first position, a layer as wide
    ...ForTokenClassification                        TaggerConfig over it, softmax
    ...ForQuestionAnswering                          SpanConfig over it
    ModernBertForMaskedLM, ModernBertModel           ModernBERTConfig
    GPT2LMHeadModel, GPT2Model                       GPTConfig
    Llama-, Mistral-, Qwen2-, Qwen3-, Olmo2-, Gemma2-, Gemma3ForCausalLM, ...Model    DecoderConfig
    Mixtral-, Qwen3Moe-, OlmoeForCausalLM, ...Model  the same with experts
    GPTNeoXForCausalLM, GPTNeoXModel                 NeoXConfig

A family is a module with config_from_hf, config_to_hf, places and recognised: bert, modernbert, gpt2,
decoder, neox.
"""

import dataclasses
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from zoo.errors import CheckpointError, ConfigError, nearest
from zoo.models.bert import BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.models.decoder_config import DecoderConfig
from zoo.models.gpt import GPTConfig
from zoo.models.modernbert import ModernBERTConfig
from zoo.models.neox import NeoXConfig
from zoo.models.pretraining import PretrainingConfig
from zoo.models.span import SpanConfig
from zoo.models.tagger import TaggerConfig
from zoo.pretrained import bert, decoder, gpt2, modernbert, neox
from zoo.pretrained.decoder_families import CLASSES as DECODERS
from zoo.pretrained.settings import labels_in, setting


@dataclass(frozen=True)
class Architecture:
    """One class of Hugging Face's."""

    family: ModuleType
    model_type: str
    head: str
    """words: the language model; none: its features alone; classes, tags, spans."""


HEADS = {
    "ForMaskedLM": "words",
    "Model": "none",
    "ForSequenceClassification": "classes",
    "ForTokenClassification": "tags",
    "ForQuestionAnswering": "spans",
}
ARCHITECTURES = {
    f"{name}{suffix}": Architecture(bert, kind, head)
    for name, kind in (("Bert", "bert"), ("Roberta", "roberta"), ("DistilBert", "distilbert"))
    for suffix, head in HEADS.items()
}
ARCHITECTURES |= {
    "BertForPreTraining": Architecture(bert, "bert", "words"),
    "ModernBertForMaskedLM": Architecture(modernbert, "modernbert", "words"),
    "ModernBertModel": Architecture(modernbert, "modernbert", "none"),
    "GPT2LMHeadModel": Architecture(gpt2, "gpt2", "words"),
    "GPT2Model": Architecture(gpt2, "gpt2", "none"),
    "GPTNeoXForCausalLM": Architecture(neox, "gpt_neox", "words"),
    "GPTNeoXModel": Architecture(neox, "gpt_neox", "none"),
}
for kind, name in DECODERS.items():
    ARCHITECTURES[f"{name}ForCausalLM"] = Architecture(decoder, kind, "words")
    ARCHITECTURES[f"{name}{'Text' * kind.endswith('_text')}Model"] = Architecture(decoder, kind, "none")
FAMILIES = {
    BERTConfig: bert,
    ModernBERTConfig: modernbert,
    GPTConfig: gpt2,
    DecoderConfig: decoder,
    NeoXConfig: neox,
}
BARE = {each.model_type: name for name, each in ARCHITECTURES.items() if each.head == "none"}
CLASSES = {(each.model_type, each.head): name for name, each in reversed(ARCHITECTURES.items())}

# Where a config.json says how much of a head's input is dropped; null there: as much as elsewhere.
HEAD_DROPOUT = {"bert": "classifier_dropout", "roberta": "classifier_dropout"}
HEAD_DROPOUT["distilbert"] = "seq_classif_dropout"


def architecture_of(settings: dict[str, Any]) -> Architecture:
    """The class that a config.json names, or else the bare model of its model_type.

    Raises CheckpointError where it is not in the table, with what is.
    """
    named, kind = settings.get("architectures") or [], setting(settings, "model_type", "")
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise CheckpointError(f"config.json: architectures={named!r:.80} is no list of names; mend it")
    if not named and kind not in BARE:
        raise CheckpointError(
            f"config.json: model_type={kind!r:.80} is none of {', '.join(BARE)}{nearest(kind, BARE)}"
        )
    name = named[0] if named else BARE[kind]
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"config.json: architectures={name!r:.80} is none of {', '.join(ARCHITECTURES)}"
            f"{nearest(name, ARCHITECTURES)}"
        )
    found = ARCHITECTURES[name]
    if kind not in ("", found.model_type):
        raise CheckpointError(f"config.json: {name} is no model_type={kind!r:.80}; mend the one or the other")
    return found


def config_of(settings: dict[str, Any], architecture: Architecture):
    """Our configuration of the model that a config.json describes.

    Raises CheckpointError for a setting that our models do not have.
    """
    encoder = architecture.family.config_from_hf(settings | {"model_type": architecture.model_type})
    if architecture.head in ("words", "none"):
        return encoder
    rate = setting(settings, HEAD_DROPOUT[architecture.model_type], encoder.dropout_rate)
    if architecture.head == "spans":
        return SpanConfig(encoder, dropout_rate=rate)
    count = len(labels_in(settings))
    if architecture.head == "tags":
        return TaggerConfig(encoder, dropout_rate=rate, num_tags=count, decoder="softmax")
    head = ClassifierConfig(encoder, dropout_rate=rate, num_classes=count)
    return architecture.family.shaped_classifier(head)


def family_of(config) -> ModuleType:
    """The module that knows the tensors of a model of this configuration. ConfigError where there is none."""
    encoder = type(getattr(config, "encoder", config))
    if encoder not in FAMILIES:
        known = ", ".join(each.__name__ for each in FAMILIES)
        raise ConfigError(f"{encoder.__name__} has no class in Hugging Face's format; {known} have")
    return FAMILIES[encoder]


def exported(config) -> tuple[Architecture, str]:
    """The class that computes what a model of this configuration does, and its name.

    Raises ConfigError where there is none.
    """
    encoder = getattr(config, "encoder", config)
    kinds = {modernbert: "modernbert", gpt2: "gpt2", neox: "gpt_neox"}
    family = family_of(config)
    kind = kinds[family] if family in kinds else family.dialect_of(encoder)
    heads = {type(encoder): "words", ClassifierConfig: "classes", TaggerConfig: "tags", SpanConfig: "spans"}
    name = CLASSES.get((kind, heads.get(type(config), "")))
    if isinstance(config, PretrainingConfig) and kind == "bert":
        name = "BertForPreTraining"
    if name is None:
        raise ConfigError(
            f"{type(config).__name__} over {type(encoder).__name__} has no class in Hugging Face's format; "
            f"known here: {', '.join(ARCHITECTURES)}"
        )
    wanted = config
    if isinstance(config, ClassifierConfig):
        wanted = ARCHITECTURES[name].family.shaped_classifier(config)
    elif isinstance(config, TaggerConfig):
        wanted = dataclasses.replace(config, decoder="softmax")
    for field in dataclasses.fields(config):
        ours, theirs = getattr(config, field.name), getattr(wanted, field.name)
        if ours != theirs:
            raise ConfigError(
                f"{field.name}={ours!r}, and a {name} has only {theirs!r}; it cannot be exported"
            )
    return ARCHITECTURES[name], name


def settings_of(config, labels: tuple[str, ...], problem_type: str) -> dict[str, Any]:
    """The content of config.json; `labels` are the names of classes or tags, in order."""
    architecture, name = exported(config)
    encoder = getattr(config, "encoder", config)
    settings = architecture.family.config_to_hf(encoder) | {"architectures": [name], "dtype": "float32"}
    if hasattr(config, "dropout_rate") and config is not encoder:
        settings[HEAD_DROPOUT[architecture.model_type]] = config.dropout_rate
    if architecture.head in ("classes", "tags"):
        settings["id2label"] = {str(number): label for number, label in enumerate(labels)}
        settings["label2id"] = {label: number for number, label in enumerate(labels)}
        if architecture.head == "classes":
            settings["problem_type"] = problem_type
    return dict(sorted(settings.items()))
