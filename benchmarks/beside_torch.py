"""`python -m benchmarks.beside_torch`: a GPT train step beside the same model in torch eager, in one run.

GPT 6x384, T 256, B 8, 65 characters, float32, AdamW with clipping: forward, backward, update. Both start
from the same weights and see the same random tokens; the losses of the first steps must agree before a time
counts. The two take turns, step by step, so that a change of the machine's speed meets both. Needs the extra
`parity`. The last line is one JSON object.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time

from zoo import xla
from zoo.mesh import MeshConfig, make_mesh

FLAGS = xla.apply()

import jax  # noqa: E402
import numpy as np  # noqa: E402

import zoo  # noqa: E402
from zoo import optim, schedules, sharding  # noqa: E402
from zoo.models.gpt import GPTConfig  # noqa: E402
from zoo.pretrained.gpt2 import to_hf  # noqa: E402
from zoo.step import TrainStep  # noqa: E402
from zoo.tasks import CausalLM  # noqa: E402

CONFIG = GPTConfig(
    vocab_size=65, max_length=256, num_layers=6, num_heads=6, d_model=384, dropout_rate=0.0, layer_unroll=0
)
ROWS, LENGTH, RATE, BETAS, DECAY = 8, 256, 1e-3, (0.9, 0.99), 0.1
CHECKED, WARM, TIMED = 5, 3, 20


def tokens_of(step: int) -> np.ndarray:
    return np.random.default_rng(step).integers(0, CONFIG.vocab_size, (ROWS, LENGTH + 1)).astype(np.int32)


def zoo_step():
    """(step function of a step number -> loss, the initial parameters)."""
    model = zoo.create(CONFIG)
    adamw = optim.AdamW(RATE, *BETAS, weight_decay=DECAY)
    tx = optim.transform(adamw, schedules.Constant(), 1, model.abstract())
    parts, mesh = TrainStep(model, CausalLM(), tx, clip_norm=1.0), make_mesh(MeshConfig())
    jax.set_mesh(mesh)
    state = parts.init_on(mesh)
    initial = jax.tree.map(np.asarray, state.params)
    compiled = parts.compiled(mesh)

    def step(number):
        nonlocal state
        batch = sharding.place_rows(
            lambda rows: CausalLM().batch({"tokens": tokens_of(number)[rows.start : rows.stop]}), ROWS, mesh
        )
        state, numbers = compiled(state, batch)
        return float(numbers["loss"])

    return step, initial


def torch_step(initial):
    """The same in torch eager: transformers' GPT-2 with its fused attention and torch's own AdamW."""
    import torch
    import transformers

    config = transformers.GPT2Config(
        vocab_size=CONFIG.vocab_size,
        n_positions=CONFIG.max_length,
        n_embd=CONFIG.d_model,
        n_layer=CONFIG.num_layers,
        n_head=CONFIG.num_heads,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    )
    model = transformers.GPT2LMHeadModel._from_config(config, attn_implementation="sdpa")
    tensors = {name: torch.tensor(np.array(x)) for name, x in to_hf(initial, CONFIG).items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and all("lm_head" in name or "attn.bias" in name for name in missing), (
        missing,
        unexpected,
    )
    model.tie_weights()
    model.train()
    named = dict(model.named_parameters())
    decayed = [p for name, p in named.items() if p.ndim >= 2]
    others = [p for name, p in named.items() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)

    def step(number):
        tokens = torch.from_numpy(tokens_of(number)).long()
        logits = model(tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def main() -> None:
    ours, initial = zoo_step()
    started = time.perf_counter()
    losses = [ours(0)]
    compile_s = time.perf_counter() - started
    theirs = torch_step(initial)
    losses += [ours(number) for number in range(1, CHECKED)]
    apart = max(abs(a - b) / b for a, b in zip(losses, map(theirs, range(CHECKED)), strict=True))
    if apart > 1e-3:
        sys.exit(f"the losses of the first {CHECKED} steps are {apart:.1e} apart: not the same model")
    times: dict[str, list[float]] = {"zoo": [], "torch": []}
    for number in range(CHECKED, CHECKED + WARM + TIMED):
        for name, step in (("zoo", ours), ("torch", theirs)):
            start = time.perf_counter()
            step(number)
            times[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values[WARM:]) for name, values in times.items()}
    ratios = sorted(t / z for z, t in zip(times["zoo"][WARM:], times["torch"][WARM:], strict=True))
    flops = CONFIG.flops_per_token(LENGTH).full * ROWS * LENGTH
    result = {
        "workload": "GPT 6x384, T 256, B 8, V 65, float32, train step",
        "config": dataclasses.asdict(CONFIG),
        "zoo_ms": 1000 * median["zoo"],
        "torch_ms": 1000 * median["torch"],
        "zoo_gflops": flops / median["zoo"] / 1e9,
        "torch_gflops": flops / median["torch"] / 1e9,
        "torch_over_zoo": statistics.median(ratios),
        "torch_over_zoo_5_95": [ratios[len(ratios) // 20], ratios[-1 - len(ratios) // 20]],
        "loss_apart": apart,
        "compile_s": compile_s,
        "xla_flags": FLAGS,
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "torch", "transformers")
        },
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
