"""BERT's tensors as Hugging Face names and shapes them, to zoo's parameter tree and back.

    params  = from_hf(tensors, config)      # dict of name -> array, as a .safetensors file holds it
    tensors = to_hf(params, config)
    config  = config_from_hf(json)          # the content of config.json
    json    = config_to_hf(config)

Three dialects, each named by its config.json's model_type:

    bert                                              zoo
    bert.embeddings.word_embeddings.weight [V, D]     tokens/table [V, D], stored with V padded by zeros
    bert.encoder.layer.3.attention.self.query.weight  blocks/attention/query/w [N, D, H, K], row 3, turned
    bert.encoder.layer.3.output.dense.weight [D, F]   blocks/mlp/down/w [N, F, D], row 3, turned
    cls.predictions.transform.dense.weight [D, D]     transform/w [D, H, K], turned

    bert.pooler.dense.weight [D, D]                   hidden/w [D, F] of a classifier, turned

Kernels are [out, in] there (torch's Linear) and [in, out] here. Of a language model pooler and next-sentence
head are not read. Numbers are copied, never rounded: half precision becomes float32, float64 stays.
"""

import dataclasses
import math

import numpy as np

from zoo.errors import CheckpointError, nearest
from zoo.models.bert import BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.models.pretraining import PretrainingConfig
from zoo.models.span import SpanConfig
from zoo.models.tagger import TaggerConfig
from zoo.pretrained.places import Place, Recognised, Tensors, taken_apart, whole
from zoo.pretrained.settings import setting
from zoo.pretrained.tensors import named_specs

# {place here: name there}; every one but tables and norms is a Linear with w and b. {n} counts layers.
BERT = {
    "tokens": "bert.embeddings.word_embeddings",
    "positions": "bert.embeddings.position_embeddings",
    "token_types": "bert.embeddings.token_type_embeddings",
    "norm": "bert.embeddings.LayerNorm",
    "blocks/attention/query": "bert.encoder.layer.{n}.attention.self.query",
    "blocks/attention/key": "bert.encoder.layer.{n}.attention.self.key",
    "blocks/attention/value": "bert.encoder.layer.{n}.attention.self.value",
    "blocks/attention/out": "bert.encoder.layer.{n}.attention.output.dense",
    "blocks/norm1": "bert.encoder.layer.{n}.attention.output.LayerNorm",
    "blocks/mlp/up": "bert.encoder.layer.{n}.intermediate.dense",
    "blocks/mlp/down": "bert.encoder.layer.{n}.output.dense",
    "blocks/norm2": "bert.encoder.layer.{n}.output.LayerNorm",
    "transform": "cls.predictions.transform.dense",
    "transform_norm": "cls.predictions.transform.LayerNorm",
    "bias": "cls.predictions.bias",
}
ROBERTA = {place: name.replace("bert.", "roberta.", 1) for place, name in BERT.items()} | {
    "transform": "lm_head.dense",
    "transform_norm": "lm_head.layer_norm",
    "bias": "lm_head.bias",
}
DISTILBERT = {
    "tokens": "distilbert.embeddings.word_embeddings",
    "positions": "distilbert.embeddings.position_embeddings",
    "norm": "distilbert.embeddings.LayerNorm",
    "blocks/attention/query": "distilbert.transformer.layer.{n}.attention.q_lin",
    "blocks/attention/key": "distilbert.transformer.layer.{n}.attention.k_lin",
    "blocks/attention/value": "distilbert.transformer.layer.{n}.attention.v_lin",
    "blocks/attention/out": "distilbert.transformer.layer.{n}.attention.out_lin",
    "blocks/norm1": "distilbert.transformer.layer.{n}.sa_layer_norm",
    "blocks/mlp/up": "distilbert.transformer.layer.{n}.ffn.lin1",
    "blocks/mlp/down": "distilbert.transformer.layer.{n}.ffn.lin2",
    "blocks/norm2": "distilbert.transformer.layer.{n}.output_layer_norm",
    "transform": "vocab_transform",
    "transform_norm": "vocab_layer_norm",
    "bias": "vocab_projector.bias",
}
DIALECTS = {"bert": BERT, "roberta": ROBERTA, "distilbert": DISTILBERT}

# What heads put on top of an encoder; BERT's pooler is a classifier's tanh layer.
HEADS = {
    ClassifierConfig: {
        "bert": {"hidden": "bert.pooler.dense", "classes": "classifier"},
        "roberta": {"hidden": "classifier.dense", "classes": "classifier.out_proj"},
        "distilbert": {"hidden": "pre_classifier", "classes": "classifier"},
    },
    TaggerConfig: dict.fromkeys(DIALECTS, {"tags/emissions": "classifier"}),
    SpanConfig: dict.fromkeys(DIALECTS, {"bounds": "qa_outputs"}),
    PretrainingConfig: {"bert": {"pooler": "bert.pooler.dense", "classes": "cls.seq_relationship"}},
}

PREFIXES = {"bert": "bert.", "roberta": "roberta.", "distilbert": "distilbert."}  # a bare ...Model has none
TIED = ("cls.predictions.decoder.weight", "lm_head.decoder.weight", "vocab_projector.weight")
REPEATED = ("position_ids", "cls.predictions.decoder.bias", "lm_head.decoder.bias")  # or counted
BARE = ("embeddings.", "encoder.", "transformer.", "pooler.")  # how the names of a bare one begin
UNREAD = ("pooler.", "cls.seq_relationship.")  # of pre-training; read where a head of ours wants them


def dialect_of(config: BERTConfig) -> str:
    """The model_type that a configuration is written as."""
    if not config.num_token_types:
        return "distilbert"
    return "roberta" if config.position_offset else "bert"


def places(config) -> dict[str, Place]:
    """Every tensor's name to its place, of a BERT or of a head over one; of the head's own layers only where
    a class there has the same."""
    encoder = getattr(config, "encoder", config)
    kind = dialect_of(encoder)
    names = DIALECTS[kind]
    if encoder is not config:
        names = {f"encoder/{place}": name for place, name in names.items()} | head_names(config)
    found = {}
    for path, spec in named_specs(config)[0].items():
        place, _, leaf = path.rpartition("/")
        if place not in names and path not in names:  # a head's part that no class there has
            continue
        if leaf == "bias" and path in names:  # the words' biases stand alone
            found[names[path]] = place_of(path, ..., spec)
            continue
        suffix = "bias" if leaf in ("b", "bias") else "weight"
        for row in range(encoder.num_layers) if spec.letters[0] == "N" else [...]:
            found[f"{names[place]}.{suffix}".format(n=row)] = place_of(path, row, spec)
    return found


def head_names(config) -> dict[str, str]:
    """The names of a head's own layers, where a class there computes the same."""
    kind = dialect_of(config.encoder)
    if isinstance(config, ClassifierConfig) and config != shaped_classifier(config):
        return {}
    return HEADS.get(type(config), {}).get(kind, {})


def shaped_classifier(config: ClassifierConfig) -> ClassifierConfig:
    """A classifier of the shape that ...ForSequenceClassification has, otherwise like `config`."""
    activation = "relu" if dialect_of(config.encoder) == "distilbert" else "tanh"
    return dataclasses.replace(
        config, pooling="first", d_hidden=config.encoder.d_model, hidden_activation=activation
    )


def place_of(path: str, row, spec) -> Place:
    """An array's tensor there: a kernel's summed letters last, its new ones first, each as one."""
    shape, is_kernel = spec.visible_shape if row is ... else spec.visible_shape[1:], path.endswith("/w")
    if is_kernel:
        into, out = shape[: spec.contracted], shape[spec.contracted :]
        shape = (math.prod(out), math.prod(into))
    elif path.endswith("/b"):
        shape = (math.prod(shape),)
    return Place((path,), row, shape, turned=is_kernel)


# --- tensors --------------------------------------------------------------------------------------


def recognised(tensors: Tensors, config) -> Recognised:
    """The tensors of a file under the names of `places`, whichever release wrote it."""
    kind = dialect_of(getattr(config, "encoder", config))
    wanted, prefix = places(config), PREFIXES[kind]
    found, unread, tied = {}, [], []
    for name, tensor in tensors.items():
        name = name.replace(".gamma", ".weight").replace(".beta", ".bias")  # of the first releases
        if prefix + name in wanted or not name.startswith(prefix) and name.startswith(BARE):
            name = prefix + name
        if name in TIED:
            tied.append((name, tensor))
        elif name in wanted:
            found[name] = tensor
        elif any(part in name for part in UNREAD):
            unread.append(name)
        elif not name.endswith(REPEATED):
            found[name] = tensor
    words = found.get(DIALECTS[kind]["tokens"] + ".weight")
    untied = [name for name, x in tied if words is not None and not np.array_equal(x, words)]
    return Recognised(found, unread, {"not tied to the words": untied})


def from_hf(tensors: Tensors, config) -> dict:
    """The parameters that `tensors` hold: a nested dict of NumPy arrays, shaped as the model stores them.

    Raises CheckpointError, one line that lists the tensors that are missing, unexpected or of another shape.
    """
    return whole(recognised(tensors, config), places(config), config, what="BERT")


def to_hf(params, config) -> dict[str, np.ndarray]:
    """The tensors of a ...ForMaskedLM, or of the head's class, without the vocabulary's padding; the tied
    layer is not repeated."""
    return taken_apart(params, places(config), config)


# --- config.json ----------------------------------------------------------------------------------

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
ACTIVATIONS |= {"relu": "relu", "silu": "silu"}
NAMES = {  # ours: theirs, in two dialects
    "bert": {
        "max_length": "max_position_embeddings",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "d_model": "hidden_size",
        "d_ff": "intermediate_size",
        "activation": "hidden_act",
        "dropout_rate": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
    },
    "distilbert": {
        "max_length": "max_position_embeddings",
        "num_layers": "n_layers",
        "num_heads": "n_heads",
        "d_model": "dim",
        "d_ff": "hidden_dim",
        "activation": "activation",
        "dropout_rate": "dropout",
        "attention_dropout": "attention_dropout",
    },
}
NAMES["roberta"] = NAMES["bert"]
BASE = {"max_length": 512, "num_layers": 12, "num_heads": 12, "d_model": 768, "d_ff": 3072}
BASE |= {"activation": "gelu", "dropout_rate": 0.1, "attention_dropout": 0.1}
FIXED = {"position_embedding_type": "absolute", "is_decoder": False, "tie_word_embeddings": True}


def config_from_hf(json: dict) -> BERTConfig:
    """The configuration that a config.json describes; what it leaves out is BERT base's.

    Raises CheckpointError for another architecture, or a setting that zoo's BERT does not have.
    """
    kind = json.get("model_type", "bert")
    if kind not in DIALECTS:
        known = ", ".join(DIALECTS)
        raise CheckpointError(f"config.json: model_type={kind!r} is none of {known}{nearest(kind, DIALECTS)}")
    for name, value in FIXED.items():
        if json.get(name, value) not in (value, None):
            raise CheckpointError(f"config.json: {name}={json[name]!r}, but zoo's BERT has only {value!r}")
    names = NAMES[kind]
    given = {ours: setting(json, theirs, BASE[ours]) for ours, theirs in names.items()}
    if given.pop("attention_dropout") != given["dropout_rate"]:
        raise CheckpointError(
            f"config.json: {names['attention_dropout']} and {names['dropout_rate']} differ, but zoo's BERT "
            "has one dropout rate; make them equal"
        )
    if given["activation"] not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise CheckpointError(
            f"config.json: {names['activation']}={given['activation']!r} is none of {known}"
        )
    given["activation"] = ACTIVATIONS[given["activation"]]
    offset = setting(json, "pad_token_id", 1) + 1 if kind == "roberta" else 0
    return BERTConfig(
        vocab_size=setting(json, "vocab_size", 30_522),
        num_token_types=0 if kind == "distilbert" else setting(json, "type_vocab_size", 2),
        position_offset=offset,
        norm_epsilon=setting(json, "layer_norm_eps", 1e-12),
        **(given | {"max_length": given["max_length"] - offset}),
    )


def config_to_hf(config: BERTConfig) -> dict:
    """The content of config.json."""
    kind = dialect_of(config)
    architecture = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}[kind]
    ours = {
        "max_length": config.max_length + config.position_offset,
        "d_ff": config.dims["F"],
        "activation": {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation),
        "attention_dropout": config.dropout_rate,
    }
    json = {theirs: ours.get(name, getattr(config, name, None)) for name, theirs in NAMES[kind].items()}
    json |= {
        "model_type": kind,
        "architectures": [f"{architecture}ForMaskedLM"],
        "vocab_size": config.vocab_size,
    }
    if kind != "distilbert":
        json |= {"type_vocab_size": config.num_token_types, "layer_norm_eps": config.norm_epsilon}
    if kind == "roberta":
        json["pad_token_id"] = config.position_offset - 1
    return json
