"""config.json of today's decoders, to DecoderConfig and back; decoder_families.py says what each means."""

import dataclasses
from typing import Any

from zoo.errors import CheckpointError, ConfigError, nearest
from zoo.models.decoder_config import DecoderConfig
from zoo.pretrained.decoder_families import (
    ACTIVATIONS,
    ALIKE,
    CLASSES,
    COMPUTED,
    FAMILIES,
    FIXED,
    KINDS,
    NAMES,
    NONE,
    USUAL,
)
from zoo.pretrained.experts import experts_from_hf, experts_to_hf
from zoo.pretrained.rotary import rotary_from_hf, rotary_to_hf
from zoo.pretrained.settings import object_in, setting


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
    ours = {name: said(theirs) for name, theirs in (NAMES | {"d_ff": family.d_ff}).items()}
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
    if kind not in ("qwen2", "mixtral") and setting(json, "attention_bias", False):
        ours["biases"] = "attention"
    if kind.startswith("gemma"):
        ours |= {"query_scalar": said("query_pre_attn_scalar"), "score_cap": said("attn_logit_softcapping")}
        ours |= {"logit_cap": said("final_logit_softcapping"), "embedding_scale": ours["d_model"] ** 0.5}
    return DecoderConfig(**ours | family.always, experts=experts_from_hf(kind, json))


def layer_kinds(kind: str, json: dict, num_layers: int, said) -> str:
    """G or L for each layer."""
    window, names = said("sliding_window"), json.get("layer_types")
    if (
        kind in ("llama", "olmo2", "olmoe")
        or kind.startswith("qwen")
        and not setting(json, "use_sliding_window", False)
    ):
        return "G" * num_layers
    if kind in ALIKE:
        names = None
    if names is not None:
        known = isinstance(names, list) and all(isinstance(name, str) and name in KINDS for name in names)
        if not known or len(names) != num_layers:
            raise CheckpointError(
                f"config.json: layer_types={names!r:.80} must name {num_layers} layers, each "
                f"{' or '.join(KINDS)}"
            )
        return "".join(KINDS[name] for name in names)
    if not window or kind in ALIKE:
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
    found = object_in(object_in(json, "rope_parameters"), "sliding_attention")
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
    if config.experts.num_experts:
        return {"none": "mixtral", "head": "qwen3_moe", "width": "olmoe"}[qk_norm]
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
    json |= {family.d_ff: config.d_ff} | experts_to_hf(kind, config.experts)
    json |= rotary_to_hf(config.rotary_base, config.rotary_scaling)
    json |= {
        "model_type": kind,
        "architectures": [f"{CLASSES[kind]}ForCausalLM"],
        "head_dim": config.dims["K"],
        family.activation: written[config.activation],
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }
    if kind not in ("qwen2", "mixtral"):
        json["attention_bias"] = config.biases == "attention"
    if kind == "llama":
        json["mlp_bias"] = False
    if kind not in ("llama", "olmo2", "olmoe"):
        json["sliding_window"] = config.window or None
    if kind == "qwen3_moe":
        json["use_sliding_window"] = has_window
    elif kind.startswith("qwen"):
        json |= {"use_sliding_window": has_window, "max_window_layers": len(config.kinds.split("L")[0])}
    if kind.startswith(("qwen", "gemma")) and kind not in ALIKE:
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
    width, experts = config.dims["K"], config.experts
    if experts.num_experts:
        experts = dataclasses.replace(experts, balance_loss=0.0, z_loss=0.0)  # how they learn, not what
    return dataclasses.replace(
        config,
        experts=experts,
        d_head=width,
        pattern=shortest(config.kinds),
        query_scalar=config.query_scalar or float(width),
        **computed,
    )
