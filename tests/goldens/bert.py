"""Makes bert.npz: what PyTorch computes for small random BERTs, in float64.

    python tests/goldens/bert.py     # where the extra `parity` is installed; writes the file beside this one

Per case: tokens, which of them are there, token types, labels, logits, the mean loss, and the gradient of the
loss by every tensor, under Hugging Face's names. Weights are not stored but drawn again, from bits that NumPy
promises never to change.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")

# As in config.json; no two sizes are alike, so that a mixed-up dimension or the vocabulary's padding shows.
CASES = {
    "bert": {"model_type": "bert", "vocab_size": 97, "hidden_size": 24, "num_hidden_layers": 3}
    | {"num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 14},
    "roberta": {"model_type": "roberta", "vocab_size": 90, "hidden_size": 16, "num_hidden_layers": 2}
    | {"num_attention_heads": 2, "intermediate_size": 44, "max_position_embeddings": 15}
    | {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1},
    "distilbert": {"model_type": "distilbert", "vocab_size": 99, "dim": 20, "n_layers": 2, "n_heads": 2}
    | {"hidden_dim": 30, "max_position_embeddings": 13, "activation": "gelu"},
}
LENGTHS = (11, 7, 4)  # of three rows; what is behind them is padding
PAD = 1


def weights(case: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random tensors, float64 with numbers that float32 holds exactly, in the order of their names.

    Ten times the spread of a fresh model, biases and norms included, so that attention is uneven, GELU bends
    and every term is felt.
    """
    bits = np.random.PCG64(list(CASES).index(case))
    drawn = {}
    for name in sorted(shapes):
        uniform = (bits.random_raw(int(np.prod(shapes[name]))) >> 40) * 2.0**-23 - 1.0  # 24 bits, in [-1, 1)
        is_scale = "norm" in name.lower() and name.endswith("weight")
        rounded = (is_scale + uniform.reshape(shapes[name]) * 0.375).astype(np.float32)
        drawn[name] = rounded.astype(np.float64)
    return drawn


def digest(tensors: dict[str, np.ndarray]) -> str:
    """Says whether two machines drew the same weights."""
    return hashlib.sha256(b"".join(name.encode() + x.tobytes() for name, x in tensors.items())).hexdigest()


def batch(case: str) -> dict[str, np.ndarray]:
    """tokens, mask, token_types and labels, -100 where a position does not count."""
    random, V = np.random.default_rng(5), CASES[case]["vocab_size"]
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    counts = mask & (random.random(mask.shape) < 0.5)
    return {
        "tokens": np.where(mask, random.integers(3, V, mask.shape), PAD),
        "mask": mask,
        "token_types": random.integers(0, 2, mask.shape) * (case == "bert"),
        "labels": np.where(counts, random.integers(0, V, mask.shape), -100),
    }


def torch_results(case: str) -> dict[str, np.ndarray]:
    """Everything that the file holds of a case."""
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    settings = dict(CASES[case])
    net = AutoModelForMaskedLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    net = net.double().eval()
    parameters = dict(net.named_parameters())
    drawn = weights(case, {name: tuple(x.shape) for name, x in parameters.items()})
    with torch.no_grad():
        for name, x in parameters.items():
            x.copy_(torch.tensor(drawn[name]))
    given = batch(case)
    inputs = {"input_ids": given["tokens"], "attention_mask": given["mask"].astype(int)}
    if case == "bert":
        inputs["token_type_ids"] = given["token_types"]
    out = net(**{k: torch.tensor(x) for k, x in inputs.items()}, labels=torch.tensor(given["labels"]))
    out.loss.backward()
    return {
        "digest": np.array(digest(drawn)),
        "logits": out.logits.detach().numpy(),
        "loss": out.loss.detach().numpy(),
        **{f"gradient/{name}": x.grad.numpy() for name, x in parameters.items()},
    }


def main() -> None:
    found = {f"{case}/{name}": x for case in CASES for name, x in torch_results(case).items()}
    np.savez_compressed(FILE, **found)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes, {len(found)} arrays", file=sys.stderr)


if __name__ == "__main__":
    main()
