"""Makes recurrence.npz: what torch.nn.RNN, LSTM and GRU compute, both ways, for rows of several lengths.

    python tests/goldens/recurrence.py     # where the extra `parity` is installed; writes the file beside it

Per cell: inputs and parameters under torch's names (numbers that float32 holds exactly), the gradients that
reach the outputs; and per dtype the outputs, the last states, and the gradients of everything that goes in.
"""

import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
LENGTHS = (6, 1, 4, 5)
T, B, D, Z, P = 6, 4, 5, 7, 3
DTYPES = ("float64", "float32")
CASES = {
    "lstm": ("LSTM", {}),
    "projected_lstm": ("LSTM", {"proj_size": P}),
    "gru": ("GRU", {}),
    "elman_tanh": ("RNN", {"nonlinearity": "tanh"}),
    "elman_relu": ("RNN", {"nonlinearity": "relu"}),
}


def module(case: str, dtype: str):
    """One layer of the cell in both directions."""
    import torch

    name, options = CASES[case]
    return getattr(torch.nn, name)(D, Z, bidirectional=True, **options).to(getattr(torch, dtype))


def inputs(case: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Everything that goes in: x, parameters, first states, and the gradients "d_..." of what comes out."""
    rng = np.random.default_rng([list(CASES).index(case), seed])
    width = CASES[case][1].get("proj_size", Z)
    shapes = {"x": (T, B, D), "h_0": (2, B, width), "d_output": (T, B, 2 * width), "d_h_n": (2, B, width)}
    if CASES[case][0] == "LSTM":
        shapes |= {"c_0": (2, B, Z), "d_c_n": (2, B, Z)}
    shapes |= {name: tuple(p.shape) for name, p in module(case, "float32").named_parameters()}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def outputs(case: str, given: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """output, h_n and c_n, and "gradient/..." of x, the parameters and the first states."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    net = module(case, dtype)
    tensors = {name: torch.tensor(array, dtype=getattr(torch, dtype)) for name, array in given.items()}
    for name, parameter in net.named_parameters():
        parameter.data.copy_(tensors[name])
    states = [tensors[name] for name in ("h_0", "c_0") if name in tensors]
    for tensor in (tensors["x"], *states):
        tensor.requires_grad_()
    packed = pack_padded_sequence(tensors["x"], torch.tensor(LENGTHS), enforce_sorted=False)
    packed, last = net(packed, tuple(states) if len(states) == 2 else states[0])
    output, _ = pad_packed_sequence(packed, total_length=T)
    made = {
        "output": output,
        **dict(zip(("h_n", "c_n"), last if len(states) == 2 else (last,), strict=False)),
    }
    sum((tensors["d_" + name] * tensor).sum() for name, tensor in made.items()).backward()
    gradients = {"x": tensors["x"].grad, "h_0": states[0].grad}
    if len(states) == 2:
        gradients["c_0"] = states[1].grad
    gradients |= {name: parameter.grad for name, parameter in net.named_parameters()}
    made |= {f"gradient/{name}": gradient for name, gradient in gradients.items()}
    return {name: tensor.detach().numpy() for name, tensor in made.items()}


def main() -> None:
    import torch

    arrays = {}
    for case in CASES:
        given = inputs(case)
        arrays |= {f"{case}/inputs/{name}": array for name, array in given.items()}
        for dtype in DTYPES:
            made = outputs(case, given, dtype)
            arrays |= {f"{case}/{dtype}/{name}": array for name, array in made.items()}
    made_with = f"torch {torch.__version__}, numpy {np.__version__}"
    np.savez_compressed(FILE, made_with=np.array(made_with), **arrays)
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes, {made_with}", file=sys.stderr)


if __name__ == "__main__":
    main()
