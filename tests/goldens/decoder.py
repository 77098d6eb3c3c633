"""Makes decoder.npz: what PyTorch computes for small random decoders of today, in float64.

    python tests/goldens/decoder.py     # where the extra `parity` is installed; writes it beside this file

Per case of RECORDED: logits, the mean loss of the next words, and the gradient of the loss by every tensor,
under Hugging Face's names; of what is large, evenly spread entries. Weights are not stored but drawn again,
from bits that NumPy promises never to change. transformers computes norms, angles and softmaxes in float32
whatever the model is; `doubled` makes all of it float64.
"""

import contextlib
import hashlib
import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")

# As in config.json; no two sizes are alike, so that a mixed-up dimension or the vocabulary's padding shows.
# Rows are longer than the windows. A width of 16 has an exact square root, as transformers keeps Gemma's in
# float32.
SIZES = {"vocab_size": 45, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "intermediate_size": 14, "max_position_embeddings": 128}
TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SIZES |= TOKENS
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 16}
LLAMA3 |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
GEMMA = SIZES | {"num_hidden_layers": 4, "head_dim": 6, "sliding_window": 4, "query_pre_attn_scalar": 9}
CASES = {
    "llama2": ("Llama", SIZES | {"num_key_value_heads": 4}),
    "llama3": ("Llama", SIZES | {"rope_theta": 500.0, "rope_scaling": LLAMA3}),
    "llama_biased": ("Llama", SIZES | {"attention_bias": True, "head_dim": 6, "hidden_act": "gelu"}),
    "llama_linear": ("Llama", SIZES | {"rope_scaling": {"rope_type": "linear", "factor": 3.0}}),
    "llama_dynamic": ("Llama", SIZES | {"rope_scaling": {"rope_type": "dynamic", "factor": 3.0}}),
    "smollm": ("Llama", SIZES | {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "mistral": ("Mistral", SIZES | {"sliding_window": 4}),
    "qwen2": ("Qwen2", SIZES | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
    "qwen2_yarn": ("Qwen2", SIZES | {"rope_scaling": YARN, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", SIZES | {"head_dim": 6, "rope_theta": 1e6}),
    "olmo2": ("Olmo2", SIZES),
    "gemma2": ("Gemma2", GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma3": (
        "Gemma3",
        GEMMA
        | {
            "layer_types": ["sliding_attention", "sliding_attention"]
            + ["full_attention", "sliding_attention"]
        },
    ),
}
CASES["neox"] = (
    "GPTNeoX",
    TOKENS
    | {"vocab_size": 45, "hidden_size": 16, "num_hidden_layers": 3}
    | {"num_attention_heads": 2, "intermediate_size": 14, "rotary_pct": 0.5, "max_position_embeddings": 128},
)
CASES |= {
    "mixtral": ("Mixtral", SIZES | {"num_local_experts": 5, "num_experts_per_tok": 2}),
    "qwen3_moe": (
        "Qwen3Moe",
        SIZES
        | {"head_dim": 6, "moe_intermediate_size": 10, "num_experts": 6, "num_experts_per_tok": 3}
        | {"norm_topk_prob": True, "use_sliding_window": True, "sliding_window": 4},
    ),
    "olmoe": ("Olmoe", SIZES | {"num_experts": 6, "num_experts_per_tok": 3}),
}
RECORDED = ("llama3", "qwen3", "olmo2", "gemma2", "gemma3", "neox", "mixtral", "qwen3_moe", "olmoe")
LENGTHS = (13, 7, 4)  # of three rows; what is behind them is not compared


def classes(case: str):
    """The model's and the configuration's class."""
    import transformers

    name = CASES[case][0]
    suffix = "TextConfig" if name == "Gemma3" else "Config"
    return getattr(transformers, f"{name}ForCausalLM"), getattr(transformers, f"{name}{suffix}")


@contextlib.contextmanager
def doubled():
    """In here, what transformers calls float is float64."""
    import safetensors.torch  # noqa: F401  its table of dtypes is made at its import, and is to have float32
    import torch

    usual = torch.float, torch.float32, torch.Tensor.float, torch.get_default_dtype()
    torch.float = torch.float32 = torch.float64
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.float, torch.float32, torch.Tensor.float = usual[:3]
        torch.set_default_dtype(usual[3])


def weights(case: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random tensors, float64 with numbers that float32 holds exactly, in the order of their names.

    Wider than a fresh model's, norms and biases included, so that attention is uneven and every term is felt.
    """
    bits = np.random.PCG64(100 + list(CASES).index(case))
    drawn = {}
    for name in sorted(shapes):
        uniform = (bits.random_raw(int(np.prod(shapes[name]))) >> 40) * 2.0**-23 - 1.0  # 24 bits, in [-1, 1)
        centre = "norm" in name and not case.startswith("gemma")
        rounded = (centre + uniform.reshape(shapes[name]) * 0.5).astype(np.float32)
        drawn[name] = rounded.astype(np.float64)
    return drawn


def digest(tensors: dict[str, np.ndarray]) -> str:
    """Says whether two machines drew the same weights."""
    return hashlib.sha256(b"".join(name.encode() + x.tobytes() for name, x in tensors.items())).hexdigest()


def batch(case: str) -> dict[str, np.ndarray]:
    """tokens; the mask of what is there; which predictions of a next word count."""
    random, V = np.random.default_rng(5), CASES[case][1]["vocab_size"]
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    return {"tokens": random.integers(0, V, mask.shape), "mask": mask, "counts": mask[:, 1:]}


def random_net(case: str):
    """The model in float64 throughout; call it in `doubled`."""
    import torch

    model, config = classes(case)
    ways = {"attn_implementation": "eager", "experts_implementation": "eager"}  # the others have no float64
    net = model(config(**CASES[case][1], **ways)).double().eval()
    drawn = weights(case, {name: tuple(x.shape) for name, x in tensors_of(net, case).items()})
    with torch.no_grad():
        for name, x in tensors_of(net, case).items():
            x.copy_(torch.tensor(drawn[name]))
    return net


def tensors_of(net, case: str, gradients: bool = False) -> dict:
    """The parameters, or their gradients, as files hold them: parts of what the newest code puts together."""
    found = {}
    for name, x in net.named_parameters():
        found |= apart(case, name, x.grad if gradients else x.data)
    return found


def apart(case: str, name: str, x) -> dict:
    """{name in files: its part} of a parameter; of experts the gate lies before the way up."""
    if case == "mixtral":
        name = name.replace(".mlp.", ".block_sparse_moe.")
    stem, _, last = name.rpartition(".")
    if not stem.endswith(".experts"):
        return {name: x}
    called = {"gate": "w1", "up": "w3", "down": "w2"} if case == "mixtral" else {}
    parts = last.removesuffix("_proj").split("_")  # gate_up, or down
    return {
        f"{stem}.{number}.{called.get(part, f'{part}_proj')}.weight": piece
        for number, expert in enumerate(x)
        for part, piece in zip(parts, expert.chunk(len(parts)), strict=True)
    }


def published(case: str, name: str) -> str:
    """A tensor's name in files; only in the newest code is NeoX's output layer called otherwise."""
    return name.replace("lm_head", "embed_out") if case == "neox" else name


def results(net, case: str) -> dict[str, np.ndarray]:
    """Logits of what is there, the loss, and its gradients."""
    import torch

    given = {name: torch.tensor(x) for name, x in batch(case).items()}
    with doubled():
        logits = net(input_ids=given["tokens"]).logits
        counts = given["counts"]
        loss = torch.nn.functional.cross_entropy(logits[:, :-1][counts], given["tokens"][:, 1:][counts])
        net.zero_grad()
        loss.backward()
    return {
        "logits": logits.detach().numpy()[batch(case)["mask"]],
        "loss": loss.detach().numpy(),
        **{
            f"gradient/{published(case, name)}": x.numpy()
            for name, x in tensors_of(net, case, gradients=True).items()
        },
    }


def thinned(x: np.ndarray) -> np.ndarray:
    """At most 12 entries, evenly spread."""
    return x.ravel()[:: -(-x.size // 12)]


def main() -> None:
    found = {}
    for case in RECORDED:
        with doubled():
            net = random_net(case)
        got = results(net, case)
        drawn = {name: x.numpy() for name, x in sorted(tensors_of(net, case).items())}
        found |= {f"{case}/{name}": thinned(x) for name, x in got.items()}
        found[f"{case}/digest"] = np.array(digest(drawn))
    np.savez_compressed(FILE, **found)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes, {len(found)} arrays", file=sys.stderr)


if __name__ == "__main__":
    main()
