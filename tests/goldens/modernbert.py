"""Makes modernbert.npz: what PyTorch computes for small random ModernBERTs, in float64.

    python tests/goldens/modernbert.py     # where the extra `parity` is installed; writes it beside this file

Per case: logits, the mean loss, and the gradient of the loss by every tensor, under Hugging Face's names.
Weights are not stored but drawn again, from bits that NumPy promises never to change. Two things there are
float32 whatever the model is: the angles of the rotations, and their product with queries and keys. Angles
are recomputed here in float64, and `Tensor.float` means double while the model runs.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")

# As in config.json; no two sizes are alike, so that a mixed-up dimension or the vocabulary's padding shows.
# The longest row is longer than a window on both sides, so that what a local layer sees matters.
CASES = {
    "released": {"vocab_size": 45, "hidden_size": 12, "num_hidden_layers": 4, "num_attention_heads": 2}
    | {"intermediate_size": 14, "max_position_embeddings": 20, "local_attention": 4},
    "every_second": {"vocab_size": 31, "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2}
    | {"intermediate_size": 10, "max_position_embeddings": 13, "local_attention": 7}
    | {"global_attn_every_n_layers": 2, "global_rope_theta": 90.0, "local_rope_theta": 7.0}
    | {"norm_eps": 1e-3, "hidden_activation": "gelu_new", "classifier_activation": "gelu_new"},
}
LENGTHS = (13, 7, 4)  # of three rows; what is behind them is padding
PAD = 1


def weights(case: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random tensors, float64 with numbers that float32 holds exactly, in the order of their names.

    Wider than a fresh model's, norms and biases included, so that attention is uneven, GELU bends and every
    term is felt.
    """
    bits = np.random.PCG64(100 + list(CASES).index(case))
    drawn = {}
    for name in sorted(shapes):
        uniform = (bits.random_raw(int(np.prod(shapes[name]))) >> 40) * 2.0**-23 - 1.0  # 24 bits, in [-1, 1)
        rounded = (("norm" in name) + uniform.reshape(shapes[name]) * 0.5).astype(np.float32)
        drawn[name] = rounded.astype(np.float64)
    return drawn


def digest(tensors: dict[str, np.ndarray]) -> str:
    """Says whether two machines drew the same weights."""
    return hashlib.sha256(b"".join(name.encode() + x.tobytes() for name, x in tensors.items())).hexdigest()


def batch(case: str) -> dict[str, np.ndarray]:
    """tokens, mask and labels, -100 where a position does not count."""
    random, V = np.random.default_rng(5), CASES[case]["vocab_size"]
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    counts = mask & (random.random(mask.shape) < 0.5)
    return {
        "tokens": np.where(mask, random.integers(3, V, mask.shape), PAD),
        "mask": mask,
        "labels": np.where(counts, random.integers(0, V, mask.shape), -100),
    }


def model_of(case: str):
    """ModernBertForMaskedLM in float64 throughout, and its weights."""
    import torch
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    config = ModernBertConfig(**CASES[case], pad_token_id=PAD, attn_implementation="sdpa")
    net = ModernBertForMaskedLM(config).double().eval()
    parameters = dict(net.named_parameters())
    drawn = weights(case, {name: tuple(x.shape) for name, x in parameters.items()})
    with torch.no_grad():
        for name, x in parameters.items():
            x.copy_(torch.tensor(drawn[name]))
    width = config.hidden_size // config.num_attention_heads

    def turns(x, position_ids, layer_type):
        base = config.rope_parameters[layer_type]["rope_theta"]
        angles = position_ids[..., None].double() * base ** (-torch.arange(0, width, 2).double() / width)
        return torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)

    net.model.rotary_emb.forward = turns
    return net, drawn


def torch_results(case: str) -> dict[str, np.ndarray]:
    """Everything that the file holds of a case."""
    import torch

    net, drawn = model_of(case)
    given = {name: torch.tensor(x) for name, x in batch(case).items()}
    usual, torch.Tensor.float = torch.Tensor.float, torch.Tensor.double
    try:
        logits = net(input_ids=given["tokens"], attention_mask=given["mask"].long()).logits
    finally:
        torch.Tensor.float = usual
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), given["labels"].flatten())
    loss.backward()
    return {
        "digest": np.array(digest(drawn)),
        "logits": logits.detach().numpy()[batch(case)["mask"]],
        "loss": loss.detach().numpy(),
        **{f"gradient/{name}": x.grad.numpy() for name, x in net.named_parameters()},
    }


def main() -> None:
    found = {f"{case}/{name}": x for case in CASES for name, x in torch_results(case).items()}
    np.savez_compressed(FILE, **found)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes, {len(found)} arrays", file=sys.stderr)


if __name__ == "__main__":
    main()
