"""The tensors of today's decoders as Hugging Face names and shapes them, to zoo's parameter tree and back.

    params  = from_hf(tensors, config)      # dict of name -> array, as a .safetensors file holds it
    tensors = to_hf(params, config)
    config  = config_from_hf(json)          # the content of config.json
    json    = config_to_hf(config)

    Hugging Face                                        zoo
    model.embed_tokens.weight [V, D]                    tokens/table [V, D], stored with V padded by zeros
    model.layers.3.self_attn.k_proj.weight [J K, D]     blocks/attention/key/w [N, D, J, K], row 3, turned
    model.layers.3.mlp.down_proj.weight [D, F]          blocks/mlp/down/w [N, F, D], row 3, turned
    lm_head.weight [V, D]                               head/table [V, D], where it is not the words' table

Kernels are [out, in] there (torch's Linear) and [in, out] here. Numbers are copied, never rounded: half
precision becomes float32, float64 stays. decoder_settings.py reads and writes config.json, experts.py names
experts.
"""

import itertools
import math

import numpy as np

from zoo.models.decoder_config import DecoderConfig
from zoo.pretrained import experts
from zoo.pretrained.decoder_settings import config_from_hf, config_to_hf, dialect_of
from zoo.pretrained.places import Place, Recognised, Tensors, taken_apart, whole
from zoo.pretrained.tensors import named_specs

__all__ = ["config_from_hf", "config_to_hf", "dialect_of", "from_hf", "places", "recognised", "to_hf"]

PREFIX = "model."  # a bare ...Model's names are without it
HEAD, WORDS = "lm_head.weight", "model.embed_tokens.weight"
BUFFERS = ("rotary_emb.inv_freq",)  # which old files carry

# {place here: name there}; {n} counts layers. Feed-forward layers are in experts.py.
OUTER = {"tokens": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
ATTENTION |= {"query_norm": "q_norm", "key_norm": "k_norm"}
BLOCK = {f"attention/{place}": f"self_attn.{name}" for place, name in ATTENTION.items()}
NORMS = {  # by where they stand; a name may mean two places
    "before": {"attention_in": "input_layernorm", "mlp_in": "post_attention_layernorm"},
    "after": {"attention_out": "post_attention_layernorm", "mlp_out": "post_feedforward_layernorm"},
    "both": {"attention_in": "input_layernorm", "attention_out": "post_attention_layernorm"}
    | {"mlp_in": "pre_feedforward_layernorm", "mlp_out": "post_feedforward_layernorm"},
}


def places(config) -> dict[str, Place]:
    """Every tensor's name to its place, of a Decoder or of a head over one."""
    decoder, inside = getattr(config, "encoder", config), "encoder/" if hasattr(config, "encoder") else ""
    norms = {f"{place}_norm": name for place, name in NORMS[decoder.norms].items()}
    block = BLOCK | norms | experts.names(dialect_of(decoder))
    names = OUTER | {f"blocks/{place}": f"model.layers.{{n}}.{name}" for place, name in block.items()}
    found = {}
    for path, spec in named_specs(config)[0].items():
        place, _, leaf = path.removeprefix(inside).rpartition("/")
        if not path.startswith(inside) or place not in names:  # another head
            continue
        suffix = "bias" if leaf == "b" else "weight"
        for row in rows_of(spec):
            n, x = row if isinstance(row, tuple) else (row, None)
            found[f"{names[place]}.{suffix}".format(n=n, x=x)] = place_of(path, row, spec)
    return found


def rows_of(spec) -> list:
    """The parts of an array that are tensors there: layers, experts (layer, expert), or all of it."""
    if spec.letters.startswith("NX"):
        return list(itertools.product(*map(range, spec.visible_shape[:2])))
    return list(range(spec.visible_shape[0])) if spec.letters.startswith("N") else [...]


def place_of(path: str, row, spec) -> Place:
    """An array's tensor there: a kernel's summed letters last, its new ones first, each as one."""
    stacked = len(spec.letters) - len(spec.letters.lstrip("NX"))
    shape = spec.visible_shape[stacked:]
    if path.endswith("/table"):
        return Place((path,), row, shape)
    into, out = shape[: spec.contracted], shape[spec.contracted :]
    if not into:
        return Place((path,), row, (math.prod(out),))
    return Place((path,), row, (math.prod(out), math.prod(into)), turned=True)


def recognised(tensors: Tensors, config) -> Recognised:
    """The tensors of a file under the names of `places`: a bare ...Model's have no PREFIX, some files repeat
    a tied table."""
    wanted = places(config)
    found = {PREFIX + name if PREFIX + name in wanted else name: x for name, x in tensors.items()}
    found = {name: x for name, x in found.items() if not name.endswith(BUFFERS)}
    untied = False
    if getattr(config, "encoder", config).tied and HEAD in found:
        head = found.pop(HEAD)
        untied = WORDS in found and not np.array_equal(head, found[WORDS])
    return Recognised(found, [], {"not tied to the words": [HEAD] if untied else []})


def from_hf(tensors: Tensors, config: DecoderConfig) -> dict:
    """The parameters that `tensors` hold: a nested dict of NumPy arrays, shaped as the model stores them.

    Raises CheckpointError, one line that lists the tensors that are missing, unexpected or of another shape.
    """
    return whole(recognised(tensors, config), places(config), config, what="decoder")


def to_hf(params, config: DecoderConfig) -> dict[str, np.ndarray]:
    """The tensors of a ...ForCausalLM without the vocabulary's padding; a tied head is not repeated."""
    return taken_apart(params, places(config), config)
