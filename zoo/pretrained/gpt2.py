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

import jax
import numpy as np

from zoo.errors import CheckpointError
from zoo.models.gpt import GPTConfig
from zoo.pretrained.tensors import check_tensors, named_specs

PREFIX = "transformer."  # of GPT2LMHeadModel; OpenAI's own upload ("gpt2" on the hub) is without it
MASKS = (".attn.bias", ".attn.masked_bias")  # the causal mask, which old files carry in every block

# Name there: the letters of its sizes, and its place here. Three of ours make one of theirs side by side.
OUTER = {
    "wte.weight": ("VD", ["tokens/table"]),
    "wpe.weight": ("TD", ["positions/table"]),
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


def table(config: GPTConfig) -> dict[str, tuple]:
    """Every tensor's name, without PREFIX, to (row of our arrays, or ... for all; a part's shape; parts)."""
    rows = [("", ..., OUTER)] + [(f"h.{n}.", n, BLOCK) for n in range(config.num_layers)]
    return {
        before + name: (row, tuple(config.dims[letter] for letter in letters), paths)
        for before, row, names in rows
        for name, (letters, paths) in names.items()
    }


# --- tensors --------------------------------------------------------------------------------------


def from_hf(tensors: dict[str, np.ndarray], config: GPTConfig) -> dict:
    """The parameters that `tensors` hold: a nested dict of NumPy arrays, shaped as the model stores them.

    For `config.bias=False` the biases may be absent or zero. Raises CheckpointError, one line that lists
    the tensors that are missing, unexpected or of another shape.
    """
    specs, treedef = named_specs(config)
    wanted = {name: entry for name, entry in table(config).items() if entry[2][0] in specs}
    tensors = {name.removeprefix(PREFIX): x for name, x in tensors.items() if not name.endswith(MASKS)}
    if not config.bias:
        tensors = {name: x for name, x in tensors.items() if not name.endswith(".bias") or np.any(x)}
    head = tensors.pop("lm_head.weight", None)  # some files repeat the tied table
    _check(tensors, wanted, head)

    dtype = np.float64 if any(x.dtype == np.float64 for x in tensors.values()) else np.float32
    arrays = {path: np.zeros(spec.shape, dtype) for path, spec in specs.items()}
    for name, (row, _, paths) in wanted.items():
        for path, part in zip(paths, np.split(tensors[name], len(paths), axis=-1), strict=True):
            room = specs[path].visible(arrays[path])[row]
            room[...] = part.reshape(room.shape)
    return jax.tree.unflatten(treedef, arrays.values())


def to_hf(params, config: GPTConfig) -> dict[str, np.ndarray]:
    """GPT2LMHeadModel's tensors, without the vocabulary's padding; the tied head is not repeated.

    The format cannot leave biases out, so a model without them gets zeros: the same function.
    """
    specs, treedef = named_specs(config)
    arrays = {
        path: spec.visible(np.asarray(leaf))
        for (path, spec), leaf in zip(specs.items(), treedef.flatten_up_to(params), strict=True)
    }
    dtype = arrays["tokens/table"].dtype

    def part(path, row, shape):
        return arrays[path][row].reshape(shape) if path in arrays else np.zeros(shape, dtype)

    return {
        PREFIX + name: np.concatenate([part(path, row, shape) for path in paths], axis=-1)
        for name, (row, shape, paths) in table(config).items()
    }


def _check(tensors, wanted, head) -> None:
    untied = head is not None and "wte.weight" in tensors and not np.array_equal(head, tensors["wte.weight"])
    check_tensors(
        tensors,
        {name: (*shape[:-1], shape[-1] * len(paths)) for name, (_, shape, paths) in wanted.items()},
        what="GPT-2",
        remedy="take the config.json made with them",
        **{"not_tied_to_wte.weight": ["lm_head.weight"] if untied else []},
    )


# --- config.json ----------------------------------------------------------------------------------

ACTIVATIONS = {  # theirs: ours. The first name of each of ours is the one written.
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
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
    activation = json.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise CheckpointError(f"config.json: activation_function={activation!r} is none of {known}")
    rates = {name: json.get(name, 0.1) for name in DROPOUTS}
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{name}={rate}" for name, rate in rates.items())
        raise CheckpointError(f"config.json: {listed}, but zoo's GPT has one dropout rate; make them equal")
    small = GPTConfig()
    return GPTConfig(
        vocab_size=json.get("vocab_size", small.vocab_size),
        max_length=json.get("n_positions", small.max_length),
        num_layers=json.get("n_layer", small.num_layers),
        num_heads=json.get("n_head", small.num_heads),
        d_model=json.get("n_embd", small.d_model),
        d_ff=json.get("n_inner") or 0,
        dropout_rate=rates["resid_pdrop"],
        bias=json.get("bias", True),  # not a setting of the format: what config_to_hf adds
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
