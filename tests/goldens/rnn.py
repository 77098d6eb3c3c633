"""Makes rnn.npz: what PyTorch computes for small random recurrent networks, in float64.

    python tests/goldens/rnn.py     # where the extra `parity` is installed; writes the file beside this one

Per case of layers: the outputs of ragged rows, the last states, and the gradients of a weighted sum of them
by every weight, by the inputs and by the first states. Per case of models: logits, mean loss and its
gradients. Weights and inputs are not stored but drawn again, from bits that NumPy promises never to change.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
RAGGED = (6, 2, 1, 5)  # how much of each row is there; the longest is one short of the batch
T = 7

# Arguments of torch's modules. No two sizes are alike, so that a mixed-up dimension shows.
SMALL = {"input_size": 5, "hidden_size": 7, "num_layers": 2}
BOTH = SMALL | {"bidirectional": True}
CASES = {
    "elman_tanh": SMALL | {"kind": "RNN", "nonlinearity": "tanh"},
    "elman_relu": SMALL | {"kind": "RNN", "nonlinearity": "relu"},
    "lstm": SMALL | {"kind": "LSTM"},
    "lstm_projected": SMALL | {"kind": "LSTM", "proj_size": 3},
    "gru": SMALL | {"kind": "GRU"},
    "elman_tanh_both": BOTH | {"kind": "RNN", "nonlinearity": "tanh"},
    "lstm_both": BOTH | {"kind": "LSTM"},
    "lstm_projected_both": BOTH | {"kind": "LSTM", "proj_size": 3},
    "gru_both": BOTH | {"kind": "GRU"},
}
# Whole language models, as torch's tutorial "word_language_model" puts them together.
MODELS = {
    "model_lstm": SMALL | {"kind": "LSTM", "vocab_size": 11},
    "model_gru_tied": SMALL | {"kind": "GRU", "vocab_size": 13, "input_size": 7},
    "model_relu": SMALL | {"kind": "RNN", "nonlinearity": "relu", "vocab_size": 12},
}


def shapes(settings: dict) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a module's state dict, from torch's documentation."""
    D, H, R = settings["input_size"], settings["hidden_size"], width(settings)
    rows = {"RNN": 1, "GRU": 3, "LSTM": 4}[settings["kind"]] * H
    found: dict[str, tuple[int, ...]] = {}
    for layer in range(settings["num_layers"]):
        below = D if layer == 0 else R * directions(settings)
        for end in (f"l{layer}", f"l{layer}_reverse")[: directions(settings)]:
            found |= {f"weight_ih_{end}": (rows, below), f"weight_hh_{end}": (rows, R)}
            found |= {f"bias_ih_{end}": (rows,), f"bias_hh_{end}": (rows,)}
            found |= {f"weight_hr_{end}": (R, H)} if "proj_size" in settings else {}
    if "vocab_size" in settings:
        V = settings["vocab_size"]
        found = {f"rnn.{name}": shape for name, shape in found.items()}
        found = {"encoder.weight": (V, D), **found, "decoder.weight": (V, R), "decoder.bias": (V,)}
    return found


def width(settings: dict) -> int:
    return settings.get("proj_size") or settings["hidden_size"]


def directions(settings: dict) -> int:
    return 1 + settings.get("bidirectional", False)


def drawn(shape: tuple[int, ...], bits, scale: float) -> np.ndarray:
    """Evenly spread over -scale to scale; float64 with numbers that float32 holds exactly."""
    uniform = (bits.random_raw(int(np.prod(shape))) >> 40) * 2.0**-23 - 1.0  # 24 bits, in [-1, 1)
    return (uniform.reshape(shape) * scale).astype(np.float32).astype(np.float64)


def weights(settings: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors, biases included, large enough that every gate moves."""
    bits = np.random.PCG64([seed, 1])
    found = {name: drawn(shape, bits, 0.75) for name, shape in shapes(settings).items()}
    if is_tied(settings):
        found["decoder.weight"] = found["encoder.weight"]
    return found


def is_tied(settings: dict) -> bool:
    return settings.get("vocab_size", 0) > 0 and settings["input_size"] == width(settings)


def inputs(settings: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Vectors x [B, T, D], first states, and what each output counts in the sum that is differentiated.

    zoo's networks that read both ways take no state, so there are no first ones.
    """
    bits = np.random.PCG64([seed, 2])
    B, N = len(RAGGED), settings["num_layers"] * directions(settings)
    R, H = width(settings), settings["hidden_size"]
    found = {
        "x": drawn((B, T, settings["input_size"]), bits, 1.5),
        "h_0": drawn((N, B, R), bits, 1.0),
        "c_0": drawn((N, B, H), bits, 1.0),
        "d_output": drawn((B, T, R * directions(settings)), bits, 1.0),
        "d_h_n": drawn((N, B, R), bits, 1.0),
        "d_c_n": drawn((N, B, H), bits, 1.0),
    }
    absent = set() if settings["kind"] == "LSTM" else {"c_0", "d_c_n"}
    absent |= {"h_0", "c_0"} if directions(settings) == 2 else set()
    return {name: x for name, x in found.items() if name not in absent}


def tokens(settings: dict, seed: int = 0) -> np.ndarray:
    """Three rows of one token more than the model reads."""
    bits = np.random.PCG64([seed, 3])
    return (bits.random_raw(3 * (T + 1)) % settings["vocab_size"]).reshape(3, T + 1).astype(np.int32)


def digest(tensors: dict[str, np.ndarray]) -> str:
    """Says whether two machines drew the same numbers."""
    return hashlib.sha256(b"".join(name.encode() + x.tobytes() for name, x in tensors.items())).hexdigest()


# --- torch ----------------------------------------------------------------------------------------


def torch_module(settings: dict):
    """The torch module, in float64: the layers alone, or the tutorial's model around them."""
    from torch import nn

    names = {"input_size", "hidden_size", "num_layers", "nonlinearity", "proj_size", "bidirectional", "bias"}
    arguments = {name: value for name, value in settings.items() if name in names}
    layers = getattr(nn, settings["kind"])(**arguments, batch_first=True)
    if "vocab_size" not in settings:
        return layers.double()

    class LanguageModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Embedding(settings["vocab_size"], settings["input_size"])
            self.rnn = layers
            self.decoder = nn.Linear(width(settings), settings["vocab_size"])
            if is_tied(settings):
                self.decoder.weight = self.encoder.weight

        def forward(self, ids):
            return self.decoder(self.rnn(self.encoder(ids))[0])

    return LanguageModel().double()


def set_weights(module, tensors: dict[str, np.ndarray]) -> None:
    import torch

    module.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in tensors.items()})


def layer_values(module, settings: dict, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs, last states, and gradients of the sum of all, each times its weight: ragged rows, packed."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    given = {name: torch.from_numpy(x) for name, x in given.items()}
    roots = {name: given[name].requires_grad_() for name in ("x", "h_0", "c_0") if name in given}
    is_lstm = settings["kind"] == "LSTM"
    first = tuple(given[name] for name in ("h_0", "c_0") if name in given)
    packed = pack_padded_sequence(given["x"], torch.tensor(RAGGED), batch_first=True, enforce_sorted=False)
    output, last = module(packed, (first if is_lstm else first[0]) if first else None)
    output, _ = pad_packed_sequence(output, batch_first=True, total_length=T)
    values = {"output": output, "h_n": last[0] if is_lstm else last}
    values |= {"c_n": last[1]} if is_lstm else {}
    module.zero_grad()
    sum((value * given[f"d_{name}"]).sum() for name, value in values.items()).backward()
    roots |= dict(module.named_parameters())
    found = {name: value.detach().numpy() for name, value in values.items()}
    return found | {f"gradient/{name}": root.grad.numpy().copy() for name, root in roots.items()}


def model_values(module, settings: dict, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Logits, the mean loss of the next token, and its gradients."""
    import torch

    ids = torch.from_numpy(tokens.astype(np.int64))
    logits = module(ids[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    module.zero_grad()
    loss.backward()
    gradients = {f"gradient/{name}": p.grad.numpy().copy() for name, p in module.named_parameters()}
    return {"logits": logits.detach().numpy(), "loss": np.array(loss.item())} | gradients


def golden(case: str) -> dict[str, np.ndarray]:
    """All that is stored of one case."""
    settings = (CASES | MODELS)[case]
    module, tensors = torch_module(settings), weights(settings)
    set_weights(module, tensors)
    if case in MODELS:
        read = {"tokens": tokens(settings)}
        values = model_values(module, settings, read["tokens"])
    else:
        read = inputs(settings)
        values = layer_values(module, settings, read)
    return values | {"digest": np.array(digest(tensors | read))}


def main() -> None:
    import torch

    arrays = {f"{case}/{name}": array for case in [*CASES, *MODELS] for name, array in golden(case).items()}
    made_with = f"torch {torch.__version__}, numpy {np.__version__}"
    np.savez_compressed(FILE, made_with=np.array(made_with), **arrays)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes, {made_with}", file=sys.stderr)


if __name__ == "__main__":
    main()
