"""GPT-NeoX's tensors as Hugging Face names and shapes them, to zoo's parameter tree and back.

    params  = from_hf(tensors, config)      # dict of name -> array, as a .safetensors file holds it
    tensors = to_hf(params, config)
    config  = config_from_hf(json)          # the content of config.json
    json    = config_to_hf(config)

    Hugging Face                                             zoo
    gpt_neox.embed_in.weight [V, D]                          tokens/table [V, D], with V padded by zeros
    gpt_neox.layers.3.attention.query_key_value [H 3 K, D]   blocks/attention/{query,key,value}/w, row 3
    gpt_neox.layers.3.mlp.dense_4h_to_h.weight [D, F]        blocks/mlp/down/w [N, F, D], row 3, turned
    embed_out.weight [V, D]                                  head/table [V, D]

Kernels are [out, in] there (torch's Linear) and [in, out] here. Each head's queries, keys and values follow
one another there. Numbers are copied, never rounded: half precision becomes float32, float64 stays.
"""

import numpy as np

from zoo.errors import CheckpointError
from zoo.models.neox import NeoXConfig
from zoo.pretrained.places import Place, Recognised, Tensors, taken_apart, whole
from zoo.pretrained.rotary import rotary_from_hf
from zoo.pretrained.settings import object_in, setting
from zoo.rotary import Unscaled

PREFIX = "gpt_neox."  # a bare GPTNeoXModel's names are without it
HEAD, WORDS = "embed_out.weight", "gpt_neox.embed_in.weight"
NEWER = {"lm_head.weight": HEAD}  # as transformers 5 calls it, which reads both
MASKS = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")  # which old files carry

# Name there: the letters of its sizes, and its place here. Three of ours make one of theirs, head by head.
OUTER = {
    "gpt_neox.embed_in.weight": ("VD", ["tokens/table"]),
    "gpt_neox.final_layer_norm.weight": ("D", ["norm/scale"]),
    "gpt_neox.final_layer_norm.bias": ("D", ["norm/bias"]),
    "embed_out.weight": ("VD", ["head/table"]),
}
BLOCK = {  # after "gpt_neox.layers.0.", ... there; one row of each array here
    "input_layernorm.weight": ("D", ["blocks/norm1/scale"]),
    "input_layernorm.bias": ("D", ["blocks/norm1/bias"]),
    "post_attention_layernorm.weight": ("D", ["blocks/norm2/scale"]),
    "post_attention_layernorm.bias": ("D", ["blocks/norm2/bias"]),
    "attention.query_key_value.weight": (
        "DD",
        [f"blocks/attention/{p}/w" for p in ("query", "key", "value")],
    ),
    "attention.query_key_value.bias": ("D", [f"blocks/attention/{p}/b" for p in ("query", "key", "value")]),
    "attention.dense.weight": ("DD", ["blocks/attention/out/w"]),
    "attention.dense.bias": ("D", ["blocks/attention/out/b"]),
    "mlp.dense_h_to_4h.weight": ("FD", ["blocks/mlp/up/w"]),
    "mlp.dense_h_to_4h.bias": ("F", ["blocks/mlp/up/b"]),
    "mlp.dense_4h_to_h.weight": ("DF", ["blocks/mlp/down/w"]),
    "mlp.dense_4h_to_h.bias": ("D", ["blocks/mlp/down/b"]),
}


def places(config) -> dict[str, Place]:
    """Every tensor's name to its place, of a NeoX or of a head over one."""
    neox, inside = getattr(config, "encoder", config), "encoder/" if hasattr(config, "encoder") else ""
    named = {name: (..., *entry) for name, entry in OUTER.items()}
    for n in range(neox.num_layers):
        named |= {f"{PREFIX}layers.{n}.{name}": (n, *entry) for name, entry in BLOCK.items()}
    if neox.tied or inside:
        del named[HEAD]
    found = {}
    for name, (row, letters, paths) in named.items():
        out, *into = (neox.dims[letter] for letter in letters)
        ours = tuple(inside + path for path in paths)
        groups = neox.num_heads if len(paths) > 1 else 1
        turned = ours[0].endswith("/w")
        found[name] = Place(ours, row, (out * len(paths), *into), turned=turned, groups=groups)
    return found


# --- tensors --------------------------------------------------------------------------------------


def recognised(tensors: Tensors, config) -> Recognised:
    """The tensors of a file under the names of `places`, whichever release wrote it."""
    wanted = places(config)
    named = {NEWER.get(name, name): x for name, x in tensors.items() if not name.endswith(MASKS)}
    found = {PREFIX + name if PREFIX + name in wanted else name: x for name, x in named.items()}
    untied = False
    if getattr(config, "encoder", config).tied and HEAD in found:
        head = found.pop(HEAD)
        untied = WORDS in found and not np.array_equal(head, found[WORDS])
    return Recognised(found, [], {"not tied to the words": [HEAD] if untied else []})


def from_hf(tensors: Tensors, config: NeoXConfig) -> dict:
    """The parameters that `tensors` hold: a nested dict of NumPy arrays, shaped as the model stores them.

    Raises CheckpointError, one line that lists the tensors that are missing, unexpected or of another shape.
    """
    return whole(recognised(tensors, config), places(config), config, what="GPT-NeoX")


def to_hf(params, config: NeoXConfig) -> dict[str, np.ndarray]:
    """GPTNeoXForCausalLM's tensors without the vocabulary's padding; a tied head is not repeated."""
    return taken_apart(params, places(config), config)


# --- config.json ----------------------------------------------------------------------------------

ACTIVATIONS = {  # theirs: ours. The first name of each of ours is the one written.
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
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
    "norm_epsilon": "layer_norm_eps",
    "tied": "tie_word_embeddings",
}
USUAL = {"vocab_size": 50_432, "max_position_embeddings": 2_048, "num_hidden_layers": 44}
USUAL |= {"num_attention_heads": 64, "hidden_size": 6_144, "intermediate_size": 24_576}
USUAL |= {"layer_norm_eps": 1e-5, "tie_word_embeddings": False}
# What zoo's NeoX is and cannot be otherwise; a file that does not mention a setting means these too.
FIXED = {"model_type": "gpt_neox", "use_parallel_residual": True, "attention_bias": True}
DROPOUTS = ("hidden_dropout", "attention_dropout")


def config_from_hf(json: dict) -> NeoXConfig:
    """The configuration that a config.json describes; what it leaves out is GPT-NeoX 20B's.

    Raises CheckpointError for a setting that zoo's NeoX does not have.
    """
    for name, value in FIXED.items():
        if json.get(name, value) != value:
            raise CheckpointError(f"config.json: {name}={json[name]!r}, but zoo's NeoX has only {value!r}")
    activation = setting(json, "hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise CheckpointError(f"config.json: hidden_act={activation!r} is none of {', '.join(ACTIVATIONS)}")
    rates = {name: setting(json, name, 0.0) for name in DROPOUTS}
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{name}={rate}" for name, rate in rates.items())
        raise CheckpointError(f"config.json: {listed}, but zoo's NeoX has one dropout rate; make them equal")
    rope = dict(object_in(json, "rope_parameters"))
    share = setting(rope, "partial_rotary_factor", setting(json, "rotary_pct", 0.25))
    rope.pop("partial_rotary_factor", None)
    base, scaling = rotary_from_hf(
        json | {"rope_parameters": rope}, setting(json, "rotary_emb_base", 10_000.0)
    )
    if scaling != Unscaled():
        raise CheckpointError("config.json: rope_scaling: zoo's NeoX does not stretch its positions")
    return NeoXConfig(
        **{ours: setting(json, theirs, USUAL[theirs]) for ours, theirs in NAMES.items()},
        rotary_share=share,
        rotary_base=base,
        activation=ACTIVATIONS[activation],
        dropout_rate=rates["hidden_dropout"],
    )


def config_to_hf(config: NeoXConfig) -> dict:
    """The content of config.json, without the tokens that begin and end a text: a tokenizer knows those."""
    written = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return FIXED | {
        "architectures": ["GPTNeoXForCausalLM"],
        **{theirs: getattr(config, ours) for ours, theirs in NAMES.items()},
        "rotary_pct": config.rotary_share,
        "rotary_emb_base": config.rotary_base,
        "hidden_act": written[config.activation],
        **dict.fromkeys(DROPOUTS, config.dropout_rate),
        **dict.fromkeys(("bos_token_id", "eos_token_id")),
    }
