"""GPT-2's tensors as Hugging Face names and shapes them, to zoo's parameter tree and back.

    params  = from_hf(tensors, config)      # dict of name -> array, as a .safetensors file holds it
    tensors = to_hf(params, config)
    config  = config_from_hf(json)          # the content of config.json
    json    = config_to_hf(config)

    Hugging Face                                      zoo
    transformer.wte.weight [V, D], also the head      tokens/table [V, D], stored with V padded by zeros
    transformer.h.3.ln_1.weight [D]                   blocks/norm1/scale [N, D], row 3
    transformer.h.3.attn.c_attn.weight [D, 3 D]       blocks/attention/{query,key,value}/w [N, D, H, K], row 3
    transformer.h.3.attn.c_proj.weight [D, D]         blocks/attention/out/w [N, H, K, D], row 3

Kernels are [in, out] on both sides (the format's Conv1D). Numbers are copied, never rounded: half
precision becomes float32, float64 stays.
"""

import numpy as np

from zoo.errors import CheckpointError
from zoo.models.gpt import GPTConfig
from zoo.pretrained.places import Place, Recognised, Tensors, taken_apart, whole
from zoo.pretrained.settings import setting

PREFIX = "transformer."  # of GPT2LMHeadModel; OpenAI's own upload ("gpt2" on the hub) is without it
MASKS = (".attn.bias", ".attn.masked_bias")  # the causal mask, which old files carry in every block

# Name there: the letters of its sizes, and its place here. Three of ours make one of theirs side by side.
OUTER = {
    "wte.weight": ("VD", ["tokens/table"]),
    "wpe.weight": ("MD", ["positions/table"]),
    "ln_f.weight": ("D", ["norm/scale"]),
    "ln_f.bias": ("D", ["norm/bias"]),
}
BLOCK = {  # after "h.0.", "h.1.", ... there; one row of each array here
    "ln_1.weight": ("D", ["blocks/norm1/scale"]),
    "ln_1.bias": ("D", ["blocks/norm1/bias"]),
    "attn.c_attn.weight": ("DD", [f"blocks/attention/{part}/w" for part in ("query", "key", "value")]),
    "attn.c_attn.bias": ("D", [f"blocks/attention/{part}/b" for part in ("query", "key", "value")]),
    "attn.c_proj.weight": ("DD", ["blocks/attention/out/w"]),
    "attn.c_proj.bias": ("D", ["blocks/attention/out/b"]),
    "ln_2.weight": ("D", ["blocks/norm2/scale"]),
    "ln_2.bias": ("D", ["blocks/norm2/bias"]),
    "mlp.c_fc.weight": ("DF", ["blocks/mlp/up/w"]),
    "mlp.c_fc.bias": ("F", ["blocks/mlp/up/b"]),
    "mlp.c_proj.weight": ("FD", ["blocks/mlp/down/w"]),
    "mlp.c_proj.bias": ("D", ["blocks/mlp/down/b"]),
}


def places(config) -> dict[str, Place]:
    """Every tensor's name to its place, of a GPT or of a head over one; biases too where it has none."""
    gpt, inside = getattr(config, "encoder", config), "encoder/" if hasattr(config, "encoder") else ""
    rows = [("", ..., OUTER)] + [(f"h.{n}.", n, BLOCK) for n in range(gpt.num_layers)]
    found = {}
    for before, row, names in rows:
        for name, (letters, paths) in names.items():
            *into, out = (gpt.dims[letter] for letter in letters)
            ours = tuple(inside + path for path in paths)
            found[PREFIX + before + name] = Place(ours, row, (*into, out * len(paths)))
    return found


# --- tensors --------------------------------------------------------------------------------------


def recognised(tensors: Tensors, config) -> Recognised:
    """The tensors of a file under the names of `places`: some files leave PREFIX out, some repeat the tied
    table, and a model without biases may have zeros for them."""
    wanted = places(config)
    found = {PREFIX + name if PREFIX + name in wanted else name: x for name, x in tensors.items()}
    found = {name: x for name, x in found.items() if not name.endswith(MASKS)}
    if not getattr(config, "encoder", config).bias:
        found = {name: x for name, x in found.items() if not name.endswith(".bias") or np.any(x)}
    head, words = found.pop("lm_head.weight", None), found.get(f"{PREFIX}wte.weight")
    untied = head is not None and words is not None and not np.array_equal(head, words)
    return Recognised(found, [], {"not tied to wte.weight": ["lm_head.weight"] if untied else []})


def from_hf(tensors: Tensors, config: GPTConfig) -> dict:
    """The parameters that `tensors` hold: a nested dict of NumPy arrays, shaped as the model stores them.

    For `config.bias=False` the biases may be absent or zero. Raises CheckpointError, one line that lists
    the tensors that are missing, unexpected or of another shape.
    """
    return whole(recognised(tensors, config), places(config), config, what="GPT-2")


def to_hf(params, config: GPTConfig) -> dict[str, np.ndarray]:
    """GPT2LMHeadModel's tensors, without the vocabulary's padding; the tied head is not repeated.

    The format cannot leave biases out, so a model without them gets zeros: the same function.
    """
    return taken_apart(params, places(config), config)


# --- config.json ----------------------------------------------------------------------------------

ACTIVATIONS = {  # theirs: ours. The first name of each of ours is the one written.
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
}
# What zoo's GPT is and cannot be otherwise; a file that does not mention a setting means these too.
FIXED = {
    "model_type": "gpt2",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


def config_from_hf(json: dict) -> GPTConfig:
    """The configuration that a config.json describes; what it leaves out is GPT-2 small's.

    Raises CheckpointError for a setting that zoo's GPT does not have.
    """
    for name, value in FIXED.items():
        if json.get(name, value) != value:
            raise CheckpointError(f"config.json: {name}={json[name]!r}, but zoo's GPT has only {value!r}")
    activation = setting(json, "activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise CheckpointError(f"config.json: activation_function={activation!r} is none of {known}")
    rates = {name: setting(json, name, 0.1) for name in DROPOUTS}
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{name}={rate}" for name, rate in rates.items())
        raise CheckpointError(f"config.json: {listed}, but zoo's GPT has one dropout rate; make them equal")
    small = GPTConfig()
    return GPTConfig(
        vocab_size=setting(json, "vocab_size", small.vocab_size),
        max_length=setting(json, "n_positions", small.max_length),
        num_layers=setting(json, "n_layer", small.num_layers),
        num_heads=setting(json, "n_head", small.num_heads),
        d_model=setting(json, "n_embd", small.d_model),
        d_ff=setting(json, "n_inner", 0),
        dropout_rate=rates["resid_pdrop"],
        bias=setting(json, "bias", True),  # not a setting of the format: what config_to_hf adds
        activation=ACTIVATIONS[activation],
    )


def config_to_hf(config: GPTConfig) -> dict:
    """The content of config.json, without the tokens that begin and end a text: a tokenizer knows those.

    It adds "bias", which transformers ignores and nanoGPT calls so.
    """
    written = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return FIXED | {
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.max_length,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_embd": config.d_model,
        "n_inner": config.d_ff or None,
        "activation_function": written[config.activation],
        "bias": config.bias,
        "bos_token_id": None,  # left out, they would be 50256
        "eos_token_id": None,
        **dict.fromkeys(DROPOUTS, config.dropout_rate),
    }
