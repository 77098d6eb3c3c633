"""ModernBERT's tensors as Hugging Face names and shapes them, to zoo's parameter tree and back.

    params  = from_hf(tensors, config)      # dict of name -> array, as a .safetensors file holds it
    tensors = to_hf(params, config)
    config  = config_from_hf(json)          # the content of config.json
    json    = config_to_hf(config)

    Hugging Face                                   zoo
    model.embeddings.tok_embeddings.weight [V, D]  tokens/table [V, D], stored with V padded by zeros
    model.layers.3.attn.Wqkv.weight [3 D, D]       blocks/attention/{query,key,value}/w [N, D, H, K], row 3
    model.layers.3.mlp.Wi.weight [2 F, D]          blocks/mlp/{gate,up}/w [N, D, F], row 3
    model.layers.3.attn_norm.weight [D]            blocks/norm2/scale [N, D], row 2, which block 2 ends with
    model.final_norm.weight [D]                    blocks/norm2/scale, the last row
    head.dense.weight [D, D]                       transform/w [D, H, K]

Kernels are [out, in] there (torch's Linear) and [in, out] here. Numbers are copied, never rounded: half
precision becomes float32, float64 stays.
"""

import numpy as np

from zoo.errors import CheckpointError
from zoo.models.modernbert import ModernBERTConfig
from zoo.pretrained.places import Place, Recognised, Tensors, taken_apart, whole
from zoo.pretrained.settings import object_in, setting

PREFIX = "model."  # a bare ModernBertModel's names are without it

# Name there: the letters of its sizes, and its place here. Several of ours make one of theirs, stacked.
OUTER = {
    "model.embeddings.tok_embeddings.weight": ("VD", ["tokens/table"]),
    "model.embeddings.norm.weight": ("D", ["norm/scale"]),
    "head.dense.weight": ("DD", ["transform/w"]),
    "head.norm.weight": ("D", ["transform_norm/scale"]),
    "decoder.bias": ("V", ["bias"]),
}
BLOCK = {  # after "model.layers.0.", "model.layers.1.", ... there; one row of each array here
    "attn.Wqkv.weight": ("DD", [f"blocks/attention/{part}/w" for part in ("query", "key", "value")]),
    "attn.Wo.weight": ("DD", ["blocks/attention/out/w"]),
    "mlp_norm.weight": ("D", ["blocks/norm1/scale"]),
    "mlp.Wi.weight": ("FD", ["blocks/mlp/gate/w", "blocks/mlp/up/w"]),
    "mlp.Wo.weight": ("DF", ["blocks/mlp/down/w"]),
}
WORDS, TIED = "model.embeddings.tok_embeddings.weight", "decoder.weight"


def places(config) -> dict[str, Place]:
    """Every tensor's name to its place, of a ModernBERT or of a head over one."""
    encoder, inside = getattr(config, "encoder", config), "encoder/" if hasattr(config, "encoder") else ""
    layers = range(encoder.num_layers)
    named = {name: (..., *entry) for name, entry in OUTER.items()}
    named |= {f"{PREFIX}layers.{n}.{name}": (n, *entry) for n in layers for name, entry in BLOCK.items()}
    for n in layers:
        is_last = n + 1 == encoder.num_layers
        norm = f"{PREFIX}final_norm.weight" if is_last else f"{PREFIX}layers.{n + 1}.attn_norm.weight"
        named[norm] = (n, "D", ["blocks/norm2/scale"])
    found = {}
    for name, (row, letters, paths) in named.items():
        if inside and not name.startswith(PREFIX):  # the head for words is not under another head
            continue
        out, *into = (encoder.dims[letter] for letter in letters)
        ours = tuple(inside + path for path in paths)
        found[name] = Place(ours, row, (out * len(paths), *into), turned=ours[0].endswith("/w"))
    return found


# --- tensors --------------------------------------------------------------------------------------


def recognised(tensors: Tensors, config) -> Recognised:
    """The tensors of a file under the names of `places`: a bare ModernBertModel's have no PREFIX, and some
    files repeat the words' table."""
    wanted = places(config)
    found = {PREFIX + name if PREFIX + name in wanted else name: x for name, x in tensors.items()}
    tied = found.pop(TIED, None)
    untied = tied is not None and WORDS in found and not np.array_equal(tied, found[WORDS])
    return Recognised(found, [], {"not tied to the words": [TIED] if untied else []})


def from_hf(tensors: Tensors, config: ModernBERTConfig) -> dict:
    """The parameters that `tensors` hold: a nested dict of NumPy arrays, shaped as the model stores them.

    Raises CheckpointError, one line that lists the tensors that are missing, unexpected or of another shape.
    """
    return whole(recognised(tensors, config), places(config), config, what="ModernBERT")


def to_hf(params, config: ModernBERTConfig) -> dict[str, np.ndarray]:
    """ModernBertForMaskedLM's tensors without the vocabulary's padding; the tied layer is not repeated."""
    return taken_apart(params, places(config), config)


# --- config.json ----------------------------------------------------------------------------------

ACTIVATIONS = {  # theirs: ours. The first name of each of ours is the one written.
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}
NAMES = {  # ours: theirs
    "vocab_size": "vocab_size",
    "max_length": "max_position_embeddings",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "d_model": "hidden_size",
    "d_ff": "intermediate_size",
    "global_every": "global_attn_every_n_layers",
    "global_rotary_base": "global_rope_theta",
    "local_rotary_base": "local_rope_theta",
    "norm_epsilon": "norm_eps",
}
# What zoo's ModernBERT is and cannot be otherwise; a file that does not mention a setting means these too.
FIXED = {
    "model_type": "modernbert",
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "classifier_bias": False,  # of the masked words' dense layer
    "decoder_bias": True,
    "tie_word_embeddings": True,
}
DROPOUTS = ("embedding_dropout", "attention_dropout", "mlp_dropout")
ALIKE = ("hidden_activation", "classifier_activation")  # of the blocks, and of the head


def config_from_hf(json: dict) -> ModernBERTConfig:
    """The configuration that a config.json describes, of the releases' form or of transformers 5 (which
    lists every layer's kind and rotation); what it leaves out is ModernBERT base's.

    Raises CheckpointError for another architecture, or a setting that zoo's ModernBERT does not have.
    """
    for name, value in FIXED.items():
        if json.get(name, value) != value:
            raise CheckpointError(
                f"config.json: {name}={json[name]!r}, but zoo's ModernBERT has only {value!r}"
            )
    json = json | named_as_released(json)
    rate = one_for_all(json, DROPOUTS, 0.0)
    activation = one_for_all(json, ALIKE, "gelu")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise CheckpointError(f"config.json: hidden_activation={activation!r} is none of {known}")
    base = ModernBERTConfig()
    return ModernBERTConfig(
        **{ours: setting(json, theirs, getattr(base, ours)) for ours, theirs in NAMES.items()},
        reach=setting(json, "local_attention", 2 * base.reach) // 2,
        dropout_rate=rate,
        activation=ACTIVATIONS[activation],
    )


def named_as_released(json: dict) -> dict:
    """The settings that transformers 5 says layer by layer, under the names of the releases."""
    found = {}
    kinds = json.get("layer_types")
    if kinds:
        if not isinstance(kinds, list):
            raise CheckpointError(f"config.json: layer_types={kinds!r:.80} is no list of names; mend it")
        found["global_attn_every_n_layers"] = every = spacing(kinds)
        want = ["sliding_attention" if n % every else "full_attention" for n in range(len(kinds))]
        if kinds != want or len(kinds) != json.get("num_hidden_layers", len(kinds)):
            raise CheckpointError(
                f"config.json: layer_types={kinds}, but in zoo's ModernBERT every n-th of its layers is "
                "full_attention, from the first, and the others are sliding_attention"
            )
    for kind, name in (("full_attention", "global_rope_theta"), ("sliding_attention", "local_rope_theta")):
        rope = object_in(object_in(json, "rope_parameters"), kind)
        if rope.get("rope_type", "default") != "default":
            raise CheckpointError(
                f"config.json: rope_type={rope['rope_type']!r} of {kind}, "
                "but zoo's ModernBERT has only 'default'"
            )
        if "rope_theta" in rope:
            found[name] = rope["rope_theta"]
    return found


def spacing(kinds: list[str]) -> int:
    """How far the second full layer is from the first; all the way where there is one only."""
    later = [n for n, kind in enumerate(kinds) if n and kind == "full_attention"]
    return later[0] if later else len(kinds)


def one_for_all(json: dict, names: tuple[str, ...], usual):
    """The value of settings that are one here. Raises CheckpointError where they differ."""
    values = {name: setting(json, name, usual) for name in names}
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{name}={value}" for name, value in values.items())
        raise CheckpointError(f"config.json: {listed}, but zoo's ModernBERT has one for all; make them equal")
    return values[names[0]]


def config_to_hf(config: ModernBERTConfig) -> dict:
    """The content of config.json, as the releases have it (transformers 4.48 and newer read it), without the
    tokens that begin, end and pad a text: a tokenizer knows those."""
    written = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return FIXED | {
        "architectures": ["ModernBertForMaskedLM"],
        **{theirs: getattr(config, ours) for ours, theirs in NAMES.items()},
        "local_attention": 2 * config.reach,
        **dict.fromkeys(DROPOUTS, config.dropout_rate),
        **dict.fromkeys(ALIKE, written[config.activation]),
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "pad_token_id")),
    }
