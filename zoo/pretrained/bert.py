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

Kernels are [out, in] there (torch's Linear) and [in, out] here. Pooler and next-sentence head are not read:
a classifier's own layers stand in their place. Numbers are copied, never rounded: half precision becomes
float32, float64 stays.
"""

import jax
import numpy as np

from zoo.errors import CheckpointError, nearest
from zoo.models.bert import BERTConfig
from zoo.pretrained.tensors import check_tensors, named_specs

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

# Tensors of these files that mean nothing here: parts that are not read, repeated ones, counted positions.
UNREAD = (
    "pooler.",
    "cls.seq_relationship.",
    "position_ids",
    "predictions.decoder.bias",
    "lm_head.decoder.bias",
)
TIED = ("cls.predictions.decoder.weight", "lm_head.decoder.weight", "vocab_projector.weight")


def dialect_of(config: BERTConfig) -> str:
    """The model_type that a configuration is written as."""
    if not config.num_token_types:
        return "distilbert"
    return "roberta" if config.position_offset else "bert"


def table(config: BERTConfig) -> dict[str, tuple[str, object]]:
    """Every tensor's name to (path of our array, the row of it that the tensor is, or ... for all)."""
    found = {}
    names = DIALECTS[dialect_of(config)]
    for path in named_specs(config)[0]:
        place, _, leaf = path.rpartition("/")
        if not place:  # the words' biases stand alone
            found[names[leaf]] = (path, ...)
            continue
        suffix = "bias" if leaf in ("b", "bias") else "weight"
        rows = range(config.num_layers) if place.startswith("blocks/") else [...]
        for row in rows:
            found[f"{names[place]}.{suffix}".format(n=row)] = (path, row)
    return found


# --- tensors --------------------------------------------------------------------------------------


def from_hf(tensors: dict[str, np.ndarray], config: BERTConfig) -> dict:
    """The parameters that `tensors` hold: a nested dict of NumPy arrays, shaped as the model stores them.

    Raises CheckpointError, one line that lists the tensors that are missing, unexpected or of another shape.
    """
    specs, treedef = named_specs(config)
    wanted = table(config)
    tied = {name: tensors[name] for name in TIED if name in tensors}
    tensors = {
        name.replace(".gamma", ".weight").replace(".beta", ".bias"): x  # of the first releases
        for name, x in tensors.items()
        if name not in tied and not any(part in name for part in UNREAD)
    }
    words = tensors.get(DIALECTS[dialect_of(config)]["tokens"] + ".weight")
    check_tensors(
        tensors,
        {name: theirs(specs[path], row, path).shape for name, (path, row) in wanted.items()},
        what="BERT",
        remedy="take the config.json made with them",
        not_tied_to_the_words=[
            name for name, x in tied.items() if words is not None and not np.array_equal(x, words)
        ],
    )

    dtype = np.float64 if any(x.dtype == np.float64 for x in tensors.values()) else np.float32
    arrays = {path: np.zeros(spec.shape, dtype) for path, spec in specs.items()}
    for name, (path, row) in wanted.items():
        room = specs[path].visible(arrays[path])[row]
        room[...] = (tensors[name].T if is_kernel(path) else tensors[name]).reshape(room.shape)
    return jax.tree.unflatten(treedef, arrays.values())


def to_hf(params, config: BERTConfig) -> dict[str, np.ndarray]:
    """The tensors of a ...ForMaskedLM without the vocabulary's padding; the tied layer is not repeated."""
    specs, treedef = named_specs(config)
    arrays = {
        path: spec.visible(np.asarray(leaf))
        for (path, spec), leaf in zip(specs.items(), treedef.flatten_up_to(params), strict=True)
    }
    tensors = {}
    for name, (path, row) in table(config).items():
        shape = theirs(specs[path], row, path).shape
        array = arrays[path][row]
        tensors[name] = array.reshape(shape[::-1]).T if is_kernel(path) else array.reshape(shape)
    return tensors


def is_kernel(path: str) -> bool:
    """Whether an array is multiplied with, and so turned."""
    return path.endswith("/w")


def theirs(spec, row, path: str) -> jax.ShapeDtypeStruct:
    """The shape of a tensor there: a kernel's summed letters last, its new ones first, each as one."""
    shape = spec.visible_shape if row is ... else spec.visible_shape[1:]
    if is_kernel(path):
        into, out = shape[: spec.contracted], shape[spec.contracted :]
        shape = (int(np.prod(out)), int(np.prod(into)))
    elif path.endswith("/b"):
        shape = (int(np.prod(shape)),)
    return jax.ShapeDtypeStruct(shape, spec.dtype)


# --- config.json ----------------------------------------------------------------------------------

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
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
    base = {"max_length": 512, "num_layers": 12, "num_heads": 12, "d_model": 768, "d_ff": 3072}
    base |= {"activation": "gelu", "dropout_rate": 0.1, "attention_dropout": 0.1}
    given = {ours: json.get(theirs, base[ours]) for ours, theirs in names.items()}
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
    offset = json.get("pad_token_id", 1) + 1 if kind == "roberta" else 0
    return BERTConfig(
        vocab_size=json.get("vocab_size", 30_522),
        num_token_types=0 if kind == "distilbert" else json.get("type_vocab_size", 2),
        position_offset=offset,
        norm_epsilon=json.get("layer_norm_eps", 1e-12),
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
