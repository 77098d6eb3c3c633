"""`python -m benchmarks.masked_lm [SIZE ...]`: masked-LM train steps of BERT beside transformers on torch.

Rows of 128 positions hold texts of 32 to 128 random tokens (80 on average), 15 % of them masked: one text a
row, padded, as torch reads them, and several a row, packed, each attending to itself. float32, AdamW with
clipping, no dropout: forward, backward, update. Both sides start from the same weights, and the losses of the
first padded steps must agree before a time counts. The three take turns, step by step. What counts is tokens
per second, padding left out. Needs the extra `parity`. The last line is one JSON object.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

from zoo import xla
from zoo.mesh import MeshConfig, make_mesh

FLAGS = xla.apply()

import jax  # noqa: E402
import numpy as np  # noqa: E402

import zoo  # noqa: E402
from zoo import optim, schedules, sharding  # noqa: E402
from zoo.data.packed import count_up, first_fit  # noqa: E402
from zoo.models.bert import SIZES, BERTConfig  # noqa: E402
from zoo.pretrained.bert import config_to_hf, to_hf  # noqa: E402
from zoo.step import TrainStep  # noqa: E402
from zoo.tasks import MaskedLM  # noqa: E402

LENGTH, SHORTEST, PICKED = 128, 32, 20  # 20 = 15 % of 128, rounded up
ROWS = {"bert_mini": 16, "bert_small": 16, "bert_base": 4}
RATE, BETAS, DECAY, MASK = 1e-4, (0.9, 0.999), 0.01, 103  # 103 is [MASK] of the uncased vocabulary
CHECKED, WARM, TIMED = 3, 1, 10


# --- rows -----------------------------------------------------------------------------------------


def examples(step: int, rows: int, vocab_size: int, *, packed: bool) -> dict[str, np.ndarray]:
    """tokens, segments, positions [B, T], and picked, targets, weights [B, P] of a step."""
    rng = np.random.default_rng(step)
    sizes = rng.integers(SHORTEST, LENGTH + 1, 4 * rows)
    row_of = first_fit(sizes, LENGTH) if packed else np.arange(len(sizes))
    tokens_BT, segments_BT, positions_BT = np.zeros((3, rows, LENGTH), np.int32)
    picked_BP, targets_BP = np.zeros((2, rows, PICKED), np.int32)
    weights_BP = np.zeros((rows, PICKED), np.float32)
    for row in range(rows):
        here = sizes[row_of == row]
        end = here.sum()
        tokens_BT[row, :end] = rng.integers(1000, vocab_size, end)
        segments_BT[row, :end] = np.repeat(np.arange(1, len(here) + 1), here)
        positions_BT[row, :end] = count_up(here)
        count = round(0.15 * end)
        picked_BP[row, :count] = np.sort(rng.choice(end, count, replace=False))
        targets_BP[row, :count] = tokens_BT[row, picked_BP[row, :count]]
        tokens_BT[row, picked_BP[row, :count]] = MASK
        weights_BP[row, :count] = 1
    return {
        "tokens": tokens_BT,
        "segments": segments_BT,
        "positions": positions_BT,
        "picked": picked_BP,
        "targets": targets_BP,
        "weights": weights_BP,
    }


def num_tokens(step: int, rows: int, vocab_size: int, *, packed: bool) -> int:
    """Tokens of a step, padding left out."""
    return int((examples(step, rows, vocab_size, packed=packed)["segments"] > 0).sum())


# --- the steps that are compared ------------------------------------------------------------------


def zoo_step(config: BERTConfig, rows: int, *, packed: bool):
    """(step function of a step number -> loss, the initial parameters)."""
    model = zoo.create(config)
    adamw = optim.AdamW(RATE, *BETAS, weight_decay=DECAY)
    tx = optim.transform(adamw, schedules.Constant(), 1, model.abstract())
    parts, mesh = TrainStep(model, MaskedLM(), tx, clip_norm=1.0), make_mesh(MeshConfig())
    jax.set_mesh(mesh)
    state = parts.init_on(mesh)
    initial = jax.tree.map(np.asarray, state.params)
    compiled = parts.compiled(mesh)

    def step(number: int) -> float:
        nonlocal state
        whole = MaskedLM().batch(examples(number, rows, config.vocab_size, packed=packed))
        batch = sharding.place_rows(
            lambda part: jax.tree.map(lambda x: x[part.start : part.stop], whole), rows, mesh
        )
        state, numbers = compiled(state, batch)
        return float(numbers["loss"])

    return step, initial


def torch_step(config: BERTConfig, rows: int, initial) -> Callable[[int], float]:
    """The padded rows in torch eager: transformers' BERT with its fused attention and torch's own AdamW."""
    import torch
    import transformers

    settings = transformers.BertConfig(**config_to_hf(config), attn_implementation="sdpa")
    model = transformers.BertForMaskedLM(settings)
    tensors = {name: torch.tensor(np.array(x)) for name, x in to_hf(initial, config).items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and all("decoder" in name or "position_ids" in name for name in missing), missing
    model.tie_weights()
    model.train()
    named = dict(model.named_parameters())
    decayed = [p for p in named.values() if p.ndim >= 2]
    others = [p for p in named.values() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)

    def step(number: int) -> float:
        batch = examples(number, rows, config.vocab_size, packed=False)
        labels = np.full((rows, LENGTH), -100)
        for row, count in enumerate(batch["weights"].sum(axis=1).astype(int)):
            labels[row, batch["picked"][row, :count]] = batch["targets"][row, :count]
        loss = model(
            input_ids=torch.from_numpy(batch["tokens"]).long(),
            attention_mask=torch.from_numpy(batch["segments"]).long(),
            labels=torch.from_numpy(labels),
        ).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


# --- the measurement ------------------------------------------------------------------------------


def measure(size: str) -> dict:
    """One size's row."""
    config = dataclasses.replace(SIZES[size], max_length=LENGTH, dropout_rate=0.0, layer_unroll=0)
    rows, V = ROWS[size], config.vocab_size
    padded, initial = zoo_step(config, rows, packed=False)
    packed, _ = zoo_step(config, rows, packed=True)
    theirs = torch_step(config, rows, initial)
    apart = max(abs(a - b) / b for a, b in ((padded(n), theirs(n)) for n in range(CHECKED)))
    if apart > 1e-3:
        sys.exit(f"{size}: the losses of the first {CHECKED} steps are {apart:.1e} apart: not the same model")
    steps = {"zoo_packed": packed, "zoo_padded": padded, "torch_padded": theirs}
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(CHECKED, CHECKED + WARM + TIMED):
        for name, step in steps.items():
            count = num_tokens(number, rows, V, packed=name == "zoo_packed")
            start = time.perf_counter()
            step(number)
            rates[name].append(count / (time.perf_counter() - start))
    rates = {name: values[WARM:] for name, values in rates.items()}
    found: dict[str, object] = {f"{name}_tokens_per_s": statistics.median(rates[name]) for name in steps}
    for name in ("zoo_padded", "zoo_packed"):
        ratios = sorted(a / b for a, b in zip(rates[name], rates["torch_padded"], strict=True))
        found[f"{name}_over_torch"] = [statistics.median(ratios), ratios[0], ratios[-1]]
    return {"size": size, "rows": rows, "loss_apart": apart, **found}


def main(sizes: list[str]) -> None:
    found = []
    for size in sizes or ["bert_mini", "bert_base"]:
        found.append(measure(size))
        print(found[-1], file=sys.stderr)
    names = ("jax", "jaxlib", "torch", "transformers")
    result = {
        "workload": f"masked LM, T {LENGTH}, texts of {SHORTEST} to {LENGTH}, float32, train step",
        "rows": found,
        "xla_flags": FLAGS,
        "versions": {name: importlib.metadata.version(name) for name in names},
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
