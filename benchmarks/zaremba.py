"""`python -m benchmarks.zaremba`: Zaremba's small language model beside torch, one whole train step.

Two LSTM layers of 200, 20 rows of 20 positions, 10,000 words, float32: table, layers, output layer, loss,
clipping, plain SGD, the state carried on. Both sides start from equal weights (zoo/pretrained/torch_rnn.py)
and see the same random words; the losses of the first steps must agree before a time counts. They take turns
step by step. Needs the extra `parity`. The last line is one JSON object.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import sys
import time

from zoo import xla
from zoo.mesh import MeshConfig, make_mesh

FLAGS = xla.apply()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import zoo  # noqa: E402
from benchmarks.recurrent import interleaved, spread  # noqa: E402
from zoo import optim, schedules, sharding  # noqa: E402
from zoo.pretrained.torch_rnn import to_torch  # noqa: E402
from zoo.step import TrainStep  # noqa: E402
from zoo.tasks import CausalLM  # noqa: E402

SIZE, ROWS, LENGTH, RATE, CLIP = "lstm_zaremba_small", 20, 20, 20.0, 0.25
CHECKED, TIMED = 5, 60


def words_of(step: int) -> np.ndarray:
    return np.random.default_rng(step).integers(0, 10_000, (ROWS, LENGTH + 1)).astype(np.int32)


def zoo_step():
    """(function of a step's number -> loss, the initial parameters, seconds to compile)."""
    model = zoo.create(SIZE)
    tx = optim.transform(optim.SGD(RATE), schedules.Constant(), 1, model.abstract())
    parts = TrainStep(model, CausalLM(), tx, clip_norm=CLIP, carried_rows=ROWS)
    mesh = make_mesh(MeshConfig())
    jax.set_mesh(mesh)
    state = parts.init_on(mesh)
    initial = jax.tree.map(np.asarray, state.params)
    compiled = parts.compiled(mesh)

    def step(number: int) -> float:
        nonlocal state
        examples = {"tokens": words_of(number), "begins": np.full(ROWS, number == 0)}
        batch = sharding.place_rows(
            lambda rows: jax.tree.map(lambda x: x[rows.start : rows.stop], CausalLM().batch(examples)),
            ROWS,
            mesh,
        )
        state, numbers = compiled(state, batch)
        return float(numbers["loss"])

    return step, initial


def torch_step(initial, compile: bool = False):
    """The same as torch's word_language_model has it, in eager mode or compiled."""
    config = zoo.create(SIZE).config

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.Embedding(config.vocab_size, config.d_model)
            self.rnn = torch.nn.LSTM(config.d_model, config.d_state, config.num_layers)
            self.decoder = torch.nn.Linear(config.d_state, config.vocab_size)

        def forward(self, tokens_TB, state):
            h_TBZ, state = self.rnn(self.encoder(tokens_TB), state)
            return self.decoder(h_TBZ), state

    net = Model()
    net.load_state_dict({name: torch.tensor(np.array(x)) for name, x in to_torch(initial, config).items()})
    for name, parameter in net.named_parameters():  # one bias a gate, as zoo has it
        parameter.requires_grad_("bias_hh" not in name)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=RATE)
    forward = torch.compile(net) if compile else net
    state = tuple(torch.zeros(config.num_layers, ROWS, config.d_state) for _ in range(2))

    def step(number: int) -> float:
        nonlocal state
        tokens_TB = torch.from_numpy(words_of(number)).long().T
        logits, new = forward(tokens_TB[:-1], state)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens_TB[1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        state = tuple(x.detach() for x in new)
        return loss.item()

    return step


def main() -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    ours, initial = zoo_step()
    start = time.perf_counter()
    losses = [ours(0)]
    compile_s = time.perf_counter() - start
    steps = {"zoo": ours, "eager": torch_step(initial)}
    if shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"):
        steps["compile"] = torch_step(initial, compile=True)
    losses += [ours(number) for number in range(1, CHECKED)]
    apart = {
        name: max(abs(a - b) / a for a, b in zip(losses, map(step, range(CHECKED)), strict=True))
        for name, step in steps.items()
        if name != "zoo"
    }
    if not max(apart.values()) <= 1e-4:
        sys.exit(f"the losses of the first {CHECKED} steps are {apart} apart: not the same model")
    counts = dict.fromkeys(steps, CHECKED)

    def turn(name):
        counts[name] += 1
        return steps[name](counts[name])

    times = interleaved({name: (lambda name=name: turn(name)) for name in steps}, TIMED)
    faster = min(apart, key=lambda name: statistics.median(times[name]))
    result = {
        "workload": "Zaremba small, 2x200, T 20, B 20, V 10,000, float32, train step; [5 %, median, 95 %]",
        **{f"{name}_ms": spread(1e3 * t for t in values) for name, values in times.items()},
        "faster_torch": faster,
        "torch_over_zoo": spread(t / z for t, z in zip(times[faster], times["zoo"], strict=True)),
        "loss_apart": apart,
        "compile_s": round(compile_s, 2),
        "load_average": os.getloadavg(),
        "xla_flags": FLAGS,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "torch")},
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
