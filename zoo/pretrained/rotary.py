"""Rotary positions as config.json has them, to zoo's and back.

    rope_theta: 500000.0                                             rotary_base=500_000.0
    rope_scaling: {"rope_type": "llama3", "factor": 8.0, ...}        rotary_scaling=Llama3(factor=8.0, ...)
    rope_parameters: both in one, as transformers 5 writes them

What is written is the older form, which old and new readers know.
"""

import math
from typing import Any

from zoo.errors import CheckpointError, nearest
from zoo.pretrained.settings import object_in, setting
from zoo.rotary import NTK, Linear, Llama3, Scaling, Unscaled, YaRN

KINDS: dict[str, Any] = {
    "default": Unscaled,
    "linear": Linear,
    "dynamic": NTK,
    "yarn": YaRN,
    "llama3": Llama3,
}
ORIGINAL = "original_max_position_embeddings"
NAMES = {  # ours: theirs
    Unscaled: {},
    Linear: {"factor": "factor"},
    NTK: {"factor": "factor"},
    YaRN: {"factor": "factor", "original_length": ORIGINAL, "fast": "beta_fast", "slow": "beta_slow"}
    | {"attention_factor": "attention_factor"},
    Llama3: {"factor": "factor", "original_length": ORIGINAL}
    | {"low_factor": "low_freq_factor", "high_factor": "high_freq_factor"},
}
UNREAD = {"rope_type", "type", "rope_theta", "finetuned"}
FIXED = {"truncate": True, "partial_rotary_factor": 1.0}


def rotary_from_hf(json: dict, usual_base: float, kind: str = "") -> tuple[float, Scaling]:
    """(base, scaling) of the layers of a `kind` ("full_attention"), or of all.

    Raises CheckpointError for a scaling that zoo has not.
    """
    found = object_in(json, "rope_parameters")
    if kind in found:
        found = object_in(found, kind)
    found = object_in(json, "rope_scaling") | found
    nested = [name for name, value in found.items() if isinstance(value, dict)]
    if nested:
        raise CheckpointError(f"config.json: rope_parameters has {nested[0]}, but its layers turn alike here")
    name = found.get("rope_type", found.get("type", "default"))
    if not isinstance(name, str) or name not in KINDS:
        raise CheckpointError(
            f"config.json: rope_type={name!r:.80} is none of {', '.join(KINDS)}{nearest(str(name), KINDS)}"
        )
    base = setting(found, "rope_theta", setting(json, "rope_theta", usual_base))
    return base, scaling_from_hf(found, KINDS[name], setting(json, "max_position_embeddings", 0))


def scaling_from_hf(found: dict, kind: type, max_length: int) -> Scaling:
    """The scaling of a kind that these settings describe."""
    names = NAMES[kind]
    fixed = {name: value for name, value in FIXED.items() if found.get(name, value) not in (value, None)}
    sharpening = {"mscale", "mscale_all_dim"} if kind is YaRN else set()
    for name in [*fixed, *(found.keys() - UNREAD - FIXED.keys() - sharpening - set(names.values()))]:
        raise CheckpointError(
            f"config.json: rope settings have {name}={found[name]!r:.80}, which zoo has not"
        )
    values = {}
    for ours, theirs in names.items():
        usual = {ORIGINAL: max_length, "factor": 0.0}.get(theirs, getattr(kind, ours, 0.0))
        values[ours] = setting(found, theirs, usual)
    if kind is NTK:
        values["original_length"] = max_length
    if sharpening and sharpening <= found.keys() and not values["attention_factor"]:
        stretch = math.log(max(values["factor"], 1.0))
        more, less = (1 + 0.1 * setting(found, name, 1.0) * stretch for name in sorted(sharpening))
        if less <= 0:
            raise CheckpointError(f"config.json: mscale_all_dim={found['mscale_all_dim']} divides by {less}")
        values["attention_factor"] = more / less
    return kind(**values)


def rotary_to_hf(base: float, scaling: Scaling) -> dict:
    """The settings of a config.json that say the same."""
    if isinstance(scaling, Unscaled):
        return {"rope_theta": base, "rope_scaling": None}
    name = next(name for name, kind in KINDS.items() if kind is type(scaling))
    values = {theirs: getattr(scaling, ours) for ours, theirs in NAMES[type(scaling)].items()}
    if isinstance(scaling, YaRN) and not scaling.attention_factor:
        del values["attention_factor"]
    return {"rope_theta": base, "rope_scaling": {"rope_type": name} | values}
