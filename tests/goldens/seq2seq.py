"""Makes seq2seq.npz: what PyTorch computes for small random encoder-decoders, in float64.

    python tests/goldens/seq2seq.py     # where the extra `parity` is installed; writes the file beside it

Per case: source, tokens, logits, attention weights, the mean loss, and the gradient of the loss by every
parameter, under our names and in our layout. The reference reads one row at a time, without any padding,
step by step through torch's own cells. Weights are not stored but drawn again, from bits that NumPy
promises never to change.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
SOURCE_LENGTHS = np.array([5, 2, 4], np.int32)  # of rows padded to 5
S, T = 5, 6

# Fields of Seq2SeqConfig. No two sizes are alike and none is a power of two; every attention, feeding,
# direction and cell occurs, and decoders that have more, as many and fewer layers than the encoder.
COMMON = {"vocab_size": 29, "d_model": 7, "d_state": 10}
CASES = {
    "none": {"cell": "lstm", "attention": "none", "feeding": "none", "num_encoder_layers": 2},
    "dot": {"cell": "gru", "attention": "dot", "feeding": "none", "direction": "both", "tied": True},
    "general": {"cell": "lstm", "attention": "general", "feeding": "attentional", "direction": "both"},
    "concat": {"cell": "elman_tanh", "attention": "concat", "feeding": "attentional", "tied": True},
    "additive": {"cell": "gru_original", "attention": "additive", "feeding": "context", "direction": "both"},
}
CASES["dot"] |= {"num_encoder_layers": 1, "num_decoder_layers": 2}
CASES["general"] |= {"num_encoder_layers": 3, "num_decoder_layers": 2}
DEFAULTS = {"direction": "forward", "tied": False, "num_encoder_layers": 1, "num_decoder_layers": 1}
GATES = {"lstm": 4, "gru": 3, "gru_original": 3, "elman_tanh": 1}


def settings(case: str) -> dict:
    """All fields of a case that are not a model's usual ones."""
    decoder = {"num_decoder_layers": 2} if case == "none" else {}
    return {**COMMON, **DEFAULTS, **decoder, **CASES[case]}


def shapes(case: str) -> dict[str, tuple[int, ...]]:
    """Our names of a case's parameters, joined by slashes, and their shapes without padding."""
    fields = settings(case)
    V, D, Z, G = fields["vocab_size"], fields["d_model"], fields["d_state"], GATES[fields["cell"]]
    sides = ["", "_reverse"] if fields["direction"] == "both" else [""]
    F = D if fields["tied"] else Z
    found: dict[str, tuple[int, ...]] = {"tokens/table": (V, D), "bias": (V,)}
    if not fields["tied"]:
        found["words/table"] = (V, F)

    def layer(name, width, units):
        found[f"{name}/w_in"], found[f"{name}/w"] = (width, G, units), (units, G, units)
        found[f"{name}/b"] = (G, units)
        if fields["cell"] == "gru":
            found[f"{name}/b_candidate"] = (units,)

    for n in range(fields["num_encoder_layers"]):
        for side in sides:
            layer(f"encoder/layer{n}{side}", Z if n else D, Z // len(sides))
    fed = {"none": 0, "attentional": F, "context": Z}[fields["feeding"]]
    for n in range(fields["num_decoder_layers"]):
        layer(f"decoder/layer{n}", Z if n else D + fed, Z)
    if fields["attention"] != "none":
        found |= {"context": (Z, F), "state": (Z, F)}
    if fields["attention"] in ("general", "concat", "additive"):
        found["alignment/w"] = (Z, Z)
    if fields["attention"] in ("concat", "additive"):
        found |= {"alignment/u": (Z, Z), "alignment/v": (Z,)}
    if fields["attention"] == "additive":
        found["alignment/b"] = (Z,)
    return found


def weights(case: str) -> dict[str, np.ndarray]:
    """Random parameters of a case, float64 with numbers that float32 holds exactly."""
    bits = np.random.PCG64(200 + list(CASES).index(case))
    drawn = {}
    for name, shape in shapes(case).items():
        uniform = (bits.random_raw(int(np.prod(shape))) >> 40) * 2.0**-23 - 1.0  # 24 bits, in [-1, 1)
        drawn[name] = (uniform.reshape(shape) * 0.75).astype(np.float32).astype(np.float64)
    return drawn


def digest(tensors: dict[str, np.ndarray]) -> str:
    """Says whether two machines drew the same weights."""
    return hashlib.sha256(b"".join(name.encode() + x.tobytes() for name, x in tensors.items())).hexdigest()


def words(case: str, length: int, seed: int) -> np.ndarray:
    """Three rows of words."""
    bits = np.random.PCG64(seed + list(CASES).index(case))
    return (bits.random_raw(3 * length) % COMMON["vocab_size"]).reshape(3, length).astype(np.int32)


def counted() -> np.ndarray:
    """Weight 1 for every target but the last two of the first row."""
    weights_BT = np.ones((3, T - 1), np.float32)
    weights_BT[0, -2:] = 0
    return weights_BT


# --- torch ----------------------------------------------------------------------------------------


def cell_step(cell: str, p: dict, name: str, x, state):
    """One step of one layer for one row of vectors [1, D]: torch's own cells, or the formula where torch
    has none."""
    import torch

    w_in, w = (p[f"{name}/{key}"].flatten(1).T for key in ("w_in", "w"))
    b, h = p[f"{name}/b"].flatten(), state[0]
    nothing = torch.zeros_like(b)
    if cell == "lstm":
        return torch.lstm_cell(x, state, w_in, w, b, nothing)
    if cell == "gru":
        candidate = p[f"{name}/b_candidate"]
        hidden = torch.cat([torch.zeros(2 * len(candidate), dtype=b.dtype), candidate])
        return (torch.gru_cell(x, h, w_in, w, b, hidden),)
    if cell == "elman_tanh":
        return (torch.rnn_tanh_cell(x, h, w_in, w, b, nothing),)
    r_x, u_x, n_x = (x @ w_in.T + b).chunk(3, dim=-1)
    w_r, w_u, w_n = w.chunk(3)
    r, u = torch.sigmoid(r_x + h @ w_r.T), torch.sigmoid(u_x + h @ w_u.T)
    n = torch.tanh(n_x + (r * h) @ w_n.T)
    return ((1 - u) * n + u * h,)


def row_logits(case: str, p: dict, source, tokens):
    """(logits [T, V], attention weights [T, S] or None) of one pair of rows of word numbers."""
    import torch

    fields = settings(case)
    cell, layers = fields["cell"], range(fields["num_decoder_layers"])
    sides = ["", "_reverse"] if fields["direction"] == "both" else [""]
    units = fields["d_state"] // len(sides)

    def zeros():
        return tuple(torch.zeros(1, units, dtype=torch.float64) for _ in range(1 + (cell == "lstm")))

    below = [p["tokens/table"][word][None] for word in source]
    last = []
    for n in range(fields["num_encoder_layers"]):
        outputs, ends = [], []
        for side in sides:
            state, read = zeros(), []
            for x in reversed(below) if side else below:
                state = cell_step(cell, p, f"encoder/layer{n}{side}", x, state)
                read.append(state[0])
            outputs.append(read[::-1] if side else read)
            ends.append(state)
        below = [torch.cat(parts, dim=-1) for parts in zip(*outputs, strict=True)]
        last.append(tuple(torch.cat(parts, dim=-1) for parts in zip(*ends, strict=True)))
    memory = torch.cat(below)  # [S, E]

    def look(h):
        if fields["attention"] == "dot":
            scores = [h[0] @ m for m in memory]
        elif fields["attention"] == "general":
            scores = [h[0] @ (m @ p["alignment/w"]) for m in memory]
        else:
            both = torch.cat([p["alignment/w"], p["alignment/u"]])  # Luong's one matrix over [m; h]
            bias = p.get("alignment/b", 0.0)
            scores = [torch.tanh(torch.cat([m, h[0]]) @ both + bias) @ p["alignment/v"] for m in memory]
        share = torch.softmax(torch.stack(scores), dim=0)
        return share, (share[:, None] * memory).sum(0)[None]

    missing = len(layers) - len(last)
    states = [last[max(n - missing, 0)] for n in layers]
    fed = torch.zeros(1, fields["d_model"] if fields["tied"] else fields["d_state"], dtype=torch.float64)
    logits, shares = [], []
    for word in tokens:
        x, share = p["tokens/table"][word][None], None
        if fields["feeding"] == "context":
            share, context = look(states[-1][0])
            x = torch.cat([x, context], dim=-1)
        elif fields["feeding"] == "attentional":
            x = torch.cat([x, fed], dim=-1)
        for n in layers:
            states[n] = cell_step(cell, p, f"decoder/layer{n}", x, states[n])
            x = states[n][0]
        if fields["attention"] != "none":
            if share is None:
                share, context = look(x)
            x = fed = torch.tanh(torch.cat([context, x], dim=-1) @ torch.cat([p["context"], p["state"]]))
            shares.append(share)
        table = p["tokens/table"] if fields["tied"] else p["words/table"]
        logits.append((x @ table.T + p["bias"])[0])
    return torch.stack(logits), torch.stack(shares) if shares else None


def golden(case: str) -> dict[str, np.ndarray]:
    """All that is stored of one case."""
    import torch

    tensors = weights(case)
    p = {name: torch.tensor(array, requires_grad=True) for name, array in tensors.items()}
    source, tokens = words(case, S, 300), words(case, T, 400)
    rows = [
        row_logits(case, p, source[b, :length].tolist(), tokens[b, :-1].tolist())
        for b, length in enumerate(SOURCE_LENGTHS)
    ]
    logits = torch.stack([row for row, _ in rows])
    targets = torch.where(torch.tensor(counted()) > 0, torch.tensor(tokens[:, 1:].astype(np.int64)), -100)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    looks = np.zeros((3, T - 1, S))
    for look, (_, share) in zip(looks, rows, strict=True):
        if share is not None:
            look[:, : share.shape[1]] = share.detach().numpy()
    return {
        "digest": np.array(digest(tensors)),
        "source": source,
        "tokens": tokens,
        "logits": logits.detach().numpy(),
        "attention": looks,
        "loss": np.array(loss.item()),
        **{f"gradient/{name}": tensor.grad.numpy() for name, tensor in p.items()},
    }


def main() -> None:
    import torch

    arrays = {f"{case}/{name}": array for case in CASES for name, array in golden(case).items()}
    made_with = f"torch {torch.__version__}, numpy {np.__version__}"
    np.savez_compressed(FILE, made_with=np.array(made_with), **arrays)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes, {made_with}", file=sys.stderr)


if __name__ == "__main__":
    main()
