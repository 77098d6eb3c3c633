"""Experts as Hugging Face names and sets them: Mixtral's way, and that of Qwen 3 and OLMoE.

    Hugging Face                                                      zoo
    model.layers.3.block_sparse_moe.gate.weight [X, D]                blocks/experts/router/w [N, D, X], row 3
    model.layers.3.block_sparse_moe.experts.5.w2.weight [D, F]        blocks/experts/down/w [N, X, F, D], 3, 5
    model.layers.3.mlp.experts.5.down_proj.weight [D, F]              the same of Qwen 3 and OLMoE

How a router was trained (router_aux_loss_coef, output_router_logits) is read by nobody and not written:
what transformers adds to a loss pools all layers, ours does not.
"""

from zoo.errors import CheckpointError
from zoo.models.experts import Experts, NoExperts
from zoo.pretrained.settings import setting

DENSE = {f"mlp/{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")}
COUNTS = {"mixtral": "num_local_experts", "qwen3_moe": "num_experts", "olmoe": "num_experts"}
USUAL = {"mixtral": (8, 2), "qwen3_moe": (128, 8), "olmoe": (64, 8)}  # where a config.json says nothing
# What the layer there may be and zoo's is not.
FIXED = {"router_jitter_noise": 0.0, "decoder_sparse_step": 1, "mlp_only_layers": [], "clip_qkv": None}


def names(kind: str) -> dict[str, str]:
    """{place of a block here: name there} of the feed-forward layer; {x} counts experts."""
    if kind not in COUNTS:
        return DENSE
    if kind == "mixtral":
        block, parts = "block_sparse_moe", {"gate": "w1", "up": "w3", "down": "w2"}
    else:
        block, parts = "mlp", {part: f"{part}_proj" for part in ("gate", "up", "down")}
    found = {f"experts/{part}": f"{block}.experts.{{x}}.{name}" for part, name in parts.items()}
    return found | {"experts/router": f"{block}.gate"}


def experts_from_hf(kind: str, json: dict) -> NoExperts | Experts:
    """What a config.json says of experts. CheckpointError for a layer that zoo's Decoder does not have."""
    if kind not in COUNTS:
        return NoExperts()
    for name, value in FIXED.items():
        if json.get(name, value) not in (value, None):
            raise CheckpointError(
                f"config.json: {name}={json[name]!r}, but zoo's experts have only {value!r}"
            )
    count, picked = USUAL[kind]
    for name in COUNTS.values():  # transformers reads either, and writes not always what was published
        count = setting(json, name, count)
    return Experts(
        count,
        setting(json, "num_experts_per_tok", picked),
        normalised=kind == "mixtral" or setting(json, "norm_topk_prob", False),
    )


def experts_to_hf(kind: str, experts: NoExperts | Experts) -> dict:
    """The settings of config.json that say the same."""
    if kind not in COUNTS:
        return {}
    json = {COUNTS[kind]: experts.num_experts, "num_experts_per_tok": experts.experts_per_token}
    if kind != "mixtral":
        json["norm_topk_prob"] = experts.normalised
    if kind == "qwen3_moe":
        json |= {"decoder_sparse_step": 1, "mlp_only_layers": []}
    return json
