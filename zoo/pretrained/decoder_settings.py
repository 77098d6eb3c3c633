"""config.json of today's decoders, to DecoderConfig and back.

A family is a model_type: what its models always are, and what a config.json means that leaves a setting out,
which is what transformers takes then.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from zoo.errors import CheckpointError, ConfigError, nearest
from zoo.models.decoder_config import DecoderConfig
from zoo.pretrained.rotary import rotary_from_hf, rotary_to_hf
from zoo.pretrained.settings import setting

NAMES = {  # ours: theirs
    "vocab_size": "vocab_size",
    "max_length": "max_position_embeddings",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "d_model": "hidden_size",
    "d_head": "head_dim",
    "d_ff": "intermediate_size",
    "norm_epsilon": "rms_norm_eps",
    "tied": "tie_word_embeddings",
    "dropout_rate": "attention_dropout",
}
ACTIVATIONS = {  # theirs: ours. The first name of each of ours is the one written.
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}
KINDS = {"full_attention": "G", "sliding_attention": "L"}
# What zoo's Decoder is and cannot be otherwise.
FIXED = {"mlp_bias": False, "use_bidirectional_attention": False}
COMPUTED = ("dtype", "remat", "layer_unroll")  # how, not what: config.json does not say


@dataclass(frozen=True)
class Family:
    """A model_type."""

    always: dict[str, Any] = field(default_factory=dict)
    """Our fields that its models share."""
    usual: dict[str, Any] = field(default_factory=dict)
    """Their settings where a config.json has none."""
    activation: str = "hidden_act"
    """How they call it."""
    bases: tuple[float, float] = (10_000.0, 0.0)
    """Rotary bases where none are said: of layers that see the row, and of others if they have their own."""


GEMMA = {"norms": "both", "norm_offset": 1.0}
GEMMA_USUAL = {"head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True}
GEMMA_USUAL |= {"query_pre_attn_scalar": 256.0, "sliding_window": 4096}
FAMILIES = {
    "llama": Family(),
    "mistral": Family(usual={"sliding_window": 4096, "num_key_value_heads": 8}),
    "qwen2": Family(always={"biases": "qkv"}, usual={"sliding_window": 4096, "max_window_layers": 28}),
    "qwen3": Family(
        always={"qk_norm": "head"},
        usual={"head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
    ),
    "olmo2": Family(always={"norms": "after", "qk_norm": "width"}, usual={"rms_norm_eps": 1e-5}),
    "gemma2": Family(
        always=GEMMA,
        usual=GEMMA_USUAL | {"final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
        activation="hidden_activation",
    ),
    "gemma3_text": Family(
        always=GEMMA | {"qk_norm": "head"},
        usual=GEMMA_USUAL,
        activation="hidden_activation",
        bases=(1_000_000.0, 10_000.0),
    ),
}
CLASSES = {  # how the names of their classes begin
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "olmo2": "Olmo2",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3",
}
USUAL = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False, "attention_dropout": 0.0}
USUAL |= {"vocab_size": 32_000, "max_position_embeddings": 2_048, "num_hidden_layers": 32}
USUAL |= {"num_attention_heads": 32, "hidden_size": 4_096, "intermediate_size": 11_008}
USUAL |= {"sliding_window": 0, "query_pre_attn_scalar": 0.0, "max_window_layers": 0, "head_dim": 0}
USUAL |= {"final_logit_softcapping": 0.0, "attn_logit_softcapping": 0.0}
NONE = ("sliding_window", "final_logit_softcapping", "attn_logit_softcapping")  # what null switches off


def config_from_hf(json: dict) -> DecoderConfig:
    """The configuration that a config.json describes.

    Raises CheckpointError for another architecture, or a setting that zoo's Decoder does not have.
    """
    kind = json.get("model_type", "llama")
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise CheckpointError(f"config.json: model_type={kind!r} is none of {known}{nearest(kind, FAMILIES)}")
    for name, value in FIXED.items():
        if json.get(name, value) not in (value, None):
            raise CheckpointError(f"config.json: {name}={json[name]!r}, but zoo's Decoder has only {value!r}")
    family, usual = FAMILIES[kind], USUAL | FAMILIES[kind].usual

    def said(name):
        return (
            0 * usual[name]
            if name in NONE and json.get(name, 0) is None
            else setting(json, name, usual[name])
        )

    usual.setdefault("num_key_value_heads", said("num_attention_heads"))
    ours = {name: said(theirs) for name, theirs in NAMES.items()}
    if ours["d_head"] * ours["num_heads"] == ours["d_model"]:
        ours["d_head"] = 0  # as is usual
    activation = said(family.activation)
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise CheckpointError(f"config.json: {family.activation}={activation!r} is none of {known}")
    kinds = layer_kinds(kind, json, ours["num_layers"], said)
    base, scaling = rotary_from_hf(json, family.bases[0], "full_attention")
    ours |= {"activation": ACTIVATIONS[activation], "rotary_base": base, "rotary_scaling": scaling}
    if "L" in kinds:
        ours |= {"pattern": shortest(kinds), "window": said("sliding_window")}
        if family.bases[1]:
            ours["local_rotary_base"] = local_base(json, family.bases[1])
    if kind != "qwen2" and setting(json, "attention_bias", False):
        ours["biases"] = "attention"
    if kind.startswith("gemma"):
        ours |= {"query_scalar": said("query_pre_attn_scalar"), "score_cap": said("attn_logit_softcapping")}
        ours |= {"logit_cap": said("final_logit_softcapping"), "embedding_scale": ours["d_model"] ** 0.5}
    return DecoderConfig(**ours | family.always)


def layer_kinds(kind: str, json: dict, num_layers: int, said) -> str:
    """G or L for each layer."""
    window, names = said("sliding_window"), json.get("layer_types")
    if (
        kind in ("llama", "olmo2")
        or kind.startswith("qwen")
        and not setting(json, "use_sliding_window", False)
    ):
        return "G" * num_layers
    if kind == "mistral":
        names = None
    if names is not None:
        if not isinstance(names, list) or len(names) != num_layers or set(names) - KINDS.keys():
            raise CheckpointError(
                f"config.json: layer_types={names!r:.80} must name {num_layers} layers, each "
                f"{' or '.join(KINDS)}"
            )
        return "".join(KINDS[name] for name in names)
    if not window or kind == "mistral":
        return ("L" if window else "G") * num_layers
    if kind.startswith("qwen"):
        full = min(said("max_window_layers"), num_layers)
        return "G" * full + "L" * (num_layers - full)
    every = 2 if kind == "gemma2" else setting(json, "sliding_window_pattern", 6)
    return "".join("G" if n % every == 0 else "L" for n in range(1, num_layers + 1))


def shortest(kinds: str) -> str:
    """The shortest pattern that repeats to these layers."""
    lengths = range(1, len(kinds) + 1)
    return next(kinds[:n] for n in lengths if (kinds[:n] * len(kinds)).startswith(kinds))


def local_base(json: dict, usual: float) -> float:
    """The rotary base of layers that see a window, where they have their own."""
    found = (json.get("rope_parameters") or {}).get("sliding_attention") or {}
    if found.get("rope_type", "default") != "default":
        raise CheckpointError(
            f"config.json: rope_type={found['rope_type']!r:.80} of sliding_attention, which zoo never scales"
        )
    return setting(found, "rope_theta", setting(json, "rope_local_base_freq", usual))


def dialect_of(config: DecoderConfig) -> str:
    """The model_type that computes what a configuration says.

    Raises ConfigError, which names a field that none has.
    """
    norms, qk_norm = config.norms, config.qk_norm
    if norms == "both":
        return "gemma3_text" if qk_norm == "head" else "gemma2"
    if norms == "after":
        return "olmo2"
    if qk_norm == "head":
        return "qwen3"
    if config.biases == "qkv":
        return "qwen2"
    return "mistral" if "L" in config.pattern else "llama"


def config_to_hf(config: DecoderConfig) -> dict:
    """The content of config.json, without the tokens that begin, end and pad a text: a tokenizer knows those.

    Raises ConfigError for a value that its family there has not.
    """
    kind = dialect_of(config)
    family, has_window = FAMILIES[kind], "L" in config.pattern
    written = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    names = [{letter: name for name, letter in KINDS.items()}[letter] for letter in config.kinds]
    json: dict[str, Any] = {theirs: getattr(config, ours) for ours, theirs in NAMES.items()}
    json |= rotary_to_hf(config.rotary_base, config.rotary_scaling)
    json |= {
        "model_type": kind,
        "architectures": [f"{CLASSES[kind]}ForCausalLM"],
        "head_dim": config.dims["K"],
        family.activation: written[config.activation],
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }
    if kind != "qwen2":
        json["attention_bias"] = config.biases == "attention"
    if kind == "llama":
        json["mlp_bias"] = False
    if kind not in ("llama", "olmo2"):
        json["sliding_window"] = config.window or None
    if kind.startswith("qwen"):
        json |= {"use_sliding_window": has_window, "max_window_layers": len(config.kinds.split("L")[0])}
    if kind.startswith(("qwen", "gemma")):
        json["layer_types"] = names
    if kind.startswith("gemma"):
        scalar = config.query_scalar or config.dims["K"]
        json["query_pre_attn_scalar"] = int(scalar) if scalar == int(scalar) else scalar
        json |= {"attn_logit_softcapping": config.score_cap or None}
        json |= {"final_logit_softcapping": config.logit_cap or None}
    if kind == "gemma3_text":
        json["rope_local_base_freq"] = config.local_rotary_base or config.rotary_base
    check_says_the_same(json, config)
    return json


def check_says_the_same(json: dict, config: DecoderConfig) -> None:
    """ConfigError where a config.json cannot say a value of ours."""
    again, plain = config_from_hf(json), as_said(config)
    for each in dataclasses.fields(config):
        ours, theirs = getattr(plain, each.name), getattr(as_said(again), each.name)
        if ours != theirs:
            raise ConfigError(
                f"{each.name}={ours!r}, and a {json['architectures'][0]} of its kind has only {theirs!r}; it "
                "cannot be exported"
            )


def as_said(config: DecoderConfig) -> DecoderConfig:
    """The same function in one way of several to say it."""
    computed = {name: getattr(DecoderConfig, name) for name in COMPUTED}
    width = config.dims["K"]
    return dataclasses.replace(
        config,
        d_head=width,
        pattern=shortest(config.kinds),
        query_scalar=config.query_scalar or float(width),
        **computed,
    )
