"""Makes gpt2.npz: what PyTorch computes for small random GPT-2s, in float64.

    python tests/goldens/gpt2.py     # where the extra `parity` is installed; writes the file beside this one

Per case: tokens, logits, the mean loss, and the gradient of the loss by every tensor, under Hugging Face's
names. Weights are not stored but drawn again, from bits that NumPy promises never to change.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")

# As in config.json. "gpt2" is the published architecture at a small size; "gpt2_odd" has sizes of which
# none is a power of two or divides another, so that a mixed-up dimension or the vocabulary's padding shows;
# "nanogpt" is the character model of karpathy/nanoGPT: no biases, erf GELU.
CASES = {
    "gpt2": {"vocab_size": 128, "n_positions": 12, "n_layer": 2, "n_head": 2, "n_embd": 16},
    "gpt2_odd": {"vocab_size": 97, "n_positions": 11, "n_layer": 3, "n_head": 3, "n_embd": 15, "n_inner": 22},
    "nanogpt": {"vocab_size": 65, "n_positions": 9, "n_layer": 2, "n_head": 2, "n_embd": 12}
    | {"activation_function": "gelu", "bias": False},
}


def weights(case: str) -> dict[str, np.ndarray]:
    """Random tensors of a case, float64 with numbers that float32 holds exactly.

    Ten times the spread of a fresh model, biases and norms included, so that attention is uneven, GELU
    bends and every term is felt.
    """
    config = CASES[case]
    V, T, D = config["vocab_size"], config["n_positions"], config["n_embd"]
    F = config.get("n_inner", 4 * D)
    shapes = {"wte.weight": (V, D), "wpe.weight": (T, D), "ln_f.weight": (D,), "ln_f.bias": (D,)}
    for n in range(config["n_layer"]):
        shapes |= {f"h.{n}.ln_1.weight": (D,), f"h.{n}.ln_1.bias": (D,)}
        shapes |= {f"h.{n}.attn.c_attn.weight": (D, 3 * D), f"h.{n}.attn.c_attn.bias": (3 * D,)}
        shapes |= {f"h.{n}.attn.c_proj.weight": (D, D), f"h.{n}.attn.c_proj.bias": (D,)}
        shapes |= {f"h.{n}.ln_2.weight": (D,), f"h.{n}.ln_2.bias": (D,)}
        shapes |= {f"h.{n}.mlp.c_fc.weight": (D, F), f"h.{n}.mlp.c_fc.bias": (F,)}
        shapes |= {f"h.{n}.mlp.c_proj.weight": (F, D), f"h.{n}.mlp.c_proj.bias": (D,)}
    if not config.get("bias", True):
        shapes = {name: shape for name, shape in shapes.items() if not name.endswith(".bias")}

    bits = np.random.PCG64(list(CASES).index(case))
    drawn = {}
    for name, shape in shapes.items():
        uniform = (bits.random_raw(int(np.prod(shape))) >> 40) * 2.0**-23 - 1.0  # 24 bits, in [-1, 1)
        centre = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
        rounded = (centre + uniform.reshape(shape) * 0.375).astype(np.float32)
        drawn["transformer." + name] = rounded.astype(np.float64)
    return drawn


def digest(tensors: dict[str, np.ndarray]) -> str:
    """Says whether two machines drew the same weights."""
    return hashlib.sha256(b"".join(name.encode() + x.tobytes() for name, x in tensors.items())).hexdigest()


def tokens(case: str) -> np.ndarray:
    """Three rows of one token more than the model reads, one position short of the longest."""
    config = CASES[case]
    shape = (3, config["n_positions"])
    bits = np.random.PCG64(100 + list(CASES).index(case))
    return (bits.random_raw(int(np.prod(shape))) % config["vocab_size"]).reshape(shape).astype(np.int32)


def counted(case: str) -> np.ndarray:
    """Weight 1 for every target but a few: the last two of the first row do not count."""
    weights_BT = np.ones((3, CASES[case]["n_positions"] - 1), np.float32)
    weights_BT[0, -2:] = 0
    return weights_BT


# --- torch ----------------------------------------------------------------------------------------


def transformers_model(json: dict):
    """GPT2LMHeadModel of a config.json's content, in float64 and without dropout."""
    import transformers

    config = transformers.GPT2Config(**json, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    config._attn_implementation = "eager"
    return transformers.GPT2LMHeadModel(config).double()


def nanogpt_model(json: dict):
    """The same in the manner of nanoGPT's model.py: nn.Linear, norms without bias, erf GELU, a tied head."""
    import torch
    from torch import nn
    from torch.nn import functional

    V, T, D, H = json["vocab_size"], json["n_positions"], json["n_embd"], json["n_head"]

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.c_attn = nn.Linear(D, 3 * D, bias=False)
            self.c_proj = nn.Linear(D, D, bias=False)

        def forward(self, x):
            heads = (y.unflatten(-1, (H, D // H)).transpose(1, 2) for y in self.c_attn(x).split(D, dim=-1))
            y = functional.scaled_dot_product_attention(*heads, is_causal=True)
            return self.c_proj(y.transpose(1, 2).flatten(-2))

    class FeedForward(nn.Module):
        def __init__(self):
            super().__init__()
            self.c_fc = nn.Linear(D, 4 * D, bias=False)
            self.c_proj = nn.Linear(4 * D, D, bias=False)

        def forward(self, x):
            return self.c_proj(functional.gelu(self.c_fc(x)))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(D, bias=False), nn.LayerNorm(D, bias=False)
            self.attn, self.mlp = Attention(), FeedForward()

        def forward(self, x):
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class NanoGPT(nn.Module):
        def __init__(self):
            super().__init__()
            blocks = nn.ModuleList(Block() for _ in range(json["n_layer"]))
            wte, wpe, ln_f = nn.Embedding(V, D), nn.Embedding(T, D), nn.LayerNorm(D, bias=False)
            self.transformer = nn.ModuleDict({"wte": wte, "wpe": wpe, "h": blocks, "ln_f": ln_f})

        def forward(self, ids):
            parts = self.transformer
            x = parts["wte"](ids) + parts["wpe"](torch.arange(ids.shape[1]))
            for block in parts["h"]:
                x = block(x)
            return functional.linear(parts["ln_f"](x), parts["wte"].weight)

    return NanoGPT().double()


def set_weights(model, tensors: dict[str, np.ndarray]) -> None:
    """Copies tensors in Hugging Face's layout into either model, turning those of nn.Linear, [out, in]."""
    import torch

    for name, parameter in model.named_parameters():
        tensor = torch.from_numpy(np.array(tensors[name]))
        parameter.data.copy_(tensor.T if is_linear(model, name) else tensor)


def values(model, tokens, counted) -> tuple[np.ndarray, float, dict[str, np.ndarray]]:
    """(logits, mean loss, gradients under Hugging Face's names and in its layout) of rows of T + 1 tokens.

    The loss is taken here: transformers' own would round the logits to float32 first.
    """
    import torch

    ids = torch.from_numpy(np.asarray(tokens, np.int64))
    logits = model(ids[:, :-1])
    logits = getattr(logits, "logits", logits)
    targets = torch.where(torch.from_numpy(counted) > 0, ids[:, 1:], -100)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    model.zero_grad()
    loss.backward()
    gradients = {
        name: (parameter.grad.T if is_linear(model, name) else parameter.grad).numpy().copy()
        for name, parameter in model.named_parameters()
    }
    return logits.detach().numpy(), loss.item(), gradients


def is_linear(model, name: str) -> bool:
    import torch

    return isinstance(model.get_submodule(name.rpartition(".")[0]), torch.nn.Linear)


def golden(case: str) -> dict[str, np.ndarray]:
    """All that is stored of one case."""
    json = CASES[case]
    model = transformers_model(json) if json.get("bias", True) else nanogpt_model(json)
    tensors = weights(case)
    set_weights(model, tensors)
    logits, loss, gradients = values(model, tokens(case), counted(case))
    return {
        "digest": np.array(digest(tensors)),
        "tokens": tokens(case),
        "logits": logits,
        "loss": np.array(loss),
        **{f"gradient/{name}": gradient for name, gradient in gradients.items()},
    }


def main() -> None:
    import torch
    import transformers

    arrays = {f"{case}/{name}": array for case in CASES for name, array in golden(case).items()}
    made_with = f"torch {torch.__version__}, transformers {transformers.__version__}, numpy {np.__version__}"
    np.savez_compressed(FILE, made_with=np.array(made_with), **arrays)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes, {made_with}", file=sys.stderr)


if __name__ == "__main__":
    main()
