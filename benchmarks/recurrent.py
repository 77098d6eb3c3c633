"""`python -m benchmarks.recurrent [--quick]`: recurrent stacks beside torch, forward and backward, on a CPU.

LSTM, GRU and Elman's network at the shapes of SHAPES, float32, input projections and biases included, from
the same weights and inputs. Outputs and all gradients must agree before a time counts. zoo, zoo again (the
A/A row), torch eager and torch.compile (where there is a C++ compiler) take turns, so that a change of the
machine's speed meets all; ratios are of the same turn. Needs the extra `parity`. The last line is one JSON
object, the ones before it are its rows. `--quick` times the two small shapes, a few turns each.

A busy machine falsifies wall-clock ratios, in zoo's favour, since torch's threads wait for each other by
spinning; the load average stands in the result.

Tried, with processor seconds on one core of an AMD EPYC (family 26) that others were using too, LSTM:

    kernel transposed once before the loop backwards    2x650: 320 -> 203 ms (its matmul 58 -> 154 GFLOP/s)
    h transposed before the kernel's gradient           1x256: 117 -> 98 ms
    bias gradient as a matmul with ones                 128 x 32 x 1,024: 20 -> 0.6 ms
    unroll 2                                            nothing beyond noise, compiles twice as long
    sigmoid by tanh, or all gates by one tanh           0 to 5 %
    xla_cpu_prefer_vector_width=512, fast math, preset  0 to 3 %
    xla_cpu_use_fusion_emitters=false                   2x200: 12.4 -> 10.9 ms, 1x256: 102 -> 96
    matmuls column-wise (W' h') in the loop             41 to 157 GFLOP/s where h W has 57 to 196
"""

import gc
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import sys
import time

from zoo import xla

FLAGS = xla.apply()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from zoo import recurrence  # noqa: E402

SHAPES = {  # layers, width, T, B
    "1x256": (1, 256, 128, 32),
    "2x200": (2, 200, 20, 20),
    "2x650": (2, 650, 35, 20),
    "2x1500": (2, 1500, 35, 20),
}
QUICK = ("1x256", "2x200")
TURNS = {"1x256": 30, "2x200": 100, "2x650": 20, "2x1500": 8}
GATES = {"lstm": 4, "gru": 3, "elman": 1}
KEPT = {
    "lstm": 6,
    "gru": 5,
    "elman": 1,
}  # widths per token and layer that wait for backward: gates and states
TORCH = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}
TOLERANCE = 1e-5  # float32: relative to the largest number of each array


# --- the two sides --------------------------------------------------------------------------------


def drawn(cell: str, shape):
    """(parameters of each layer, inputs, gradient of the outputs), in torch's initial spread."""
    layers, width, length, rows = shape
    rng = np.random.default_rng(0)

    def uniform(*sizes):
        return rng.uniform(-(width**-0.5), width**-0.5, sizes).astype(np.float32)

    gates = (GATES[cell],) if GATES[cell] > 1 else ()
    kernel, bias = (width, *gates, width), (*gates, width)
    params = [
        {"w_in": uniform(*kernel), "b_in": uniform(*bias), "w": uniform(*kernel)} for _ in range(layers)
    ]
    if cell == "gru":
        for layer in params:
            layer["b"] = uniform(width)
    x_TBD, d_TBZ = (rng.standard_normal((length, rows, width)).astype(np.float32) for _ in range(2))
    return params, x_TBD, d_TBZ


def stack(cell: str, params, x_TBD):
    """The outputs of the last layer, all layers starting from zeros."""
    for layer in params:
        x = recurrence.project(x_TBD, layer["w_in"], layer["b_in"])
        zeros_BZ = jnp.zeros((x.shape[1], x.shape[-1]), x.dtype)
        if cell == "lstm":
            x_TBD, _ = recurrence.lstm(x, layer["w"], (zeros_BZ, zeros_BZ))
        elif cell == "gru":
            x_TBD, _ = recurrence.gru(x, layer["w"], layer["b"], zeros_BZ)
        else:
            x_TBD, _ = recurrence.elman(x, layer["w"], zeros_BZ)
    return x_TBD


def zoo_step(cell: str, given):
    """(a function that runs forward and backward, the compiled program, seconds to compile it)."""

    @jax.jit
    def forward_backward(params, x_TBD, d_TBZ):
        y_TBZ, back = jax.vjp(lambda *inputs: stack(cell, *inputs), params, x_TBD)
        return y_TBZ, back(d_TBZ)

    arrays = jax.device_put(given)
    start = time.perf_counter()
    compiled = forward_backward.lower(*arrays).compile()
    compile_s = time.perf_counter() - start
    return lambda: jax.block_until_ready(compiled(*arrays)), compiled, compile_s


def torch_step(cell: str, shape, given, compile: bool = False):
    """(a function that runs forward and backward in torch, the network, its input)."""
    params, x_TBD, d_TBZ = given
    layers, width, _, _ = shape
    net = TORCH[cell](width, width, layers)
    with torch.no_grad():
        for n, layer in enumerate(params):
            for name, kernel in (("weight_ih", "w_in"), ("weight_hh", "w")):
                getattr(net, f"{name}_l{n}").copy_(torch.tensor(layer[kernel].reshape(width, -1).T))
            getattr(net, f"bias_ih_l{n}").copy_(torch.tensor(layer["b_in"].ravel()))
            getattr(net, f"bias_hh_l{n}").zero_()
            if cell == "gru":
                getattr(net, f"bias_hh_l{n}")[2 * width :] = torch.tensor(layer["b"])
    inputs, d_out = torch.tensor(x_TBD, requires_grad=True), torch.tensor(d_TBZ)
    forward = torch.compile(net) if compile else net

    def step():
        inputs.grad = None
        net.zero_grad(set_to_none=True)
        outputs, _ = forward(inputs)
        outputs.backward(d_out)
        return outputs

    return step, net, inputs


def deviation(cell: str, ours, theirs) -> float:
    """The largest relative difference between outputs and all gradients of the two sides."""
    y_TBZ, (d_params, d_x_TBD) = ours()
    step, net, inputs = theirs
    pairs = [(y_TBZ, step().detach()), (d_x_TBD, inputs.grad)]
    for n, layer in enumerate(d_params):
        width = inputs.shape[-1]
        for name, kernel in (("weight_ih", "w_in"), ("weight_hh", "w")):
            pairs.append((np.reshape(layer[kernel], (width, -1)), getattr(net, f"{name}_l{n}").grad.T))
        pairs.append((np.ravel(layer["b_in"]), getattr(net, f"bias_ih_l{n}").grad))
        if cell == "gru":
            pairs.append((layer["b"], getattr(net, f"bias_hh_l{n}").grad[2 * width :]))
    return max(float(np.abs(a - b.numpy()).max() / b.abs().max()) for a, b in pairs)


# --- times ----------------------------------------------------------------------------------------


def interleaved(steps: dict, turns: int) -> dict[str, list[float]]:
    """Seconds of each step, taken in turns; the order is turned round every time."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-3, turns):
        for name in list(steps)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            steps[name]()
            if turn >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def spread(values) -> list[float]:
    """5 %, median, 95 %."""
    ordered = sorted(values)
    return [
        float(f"{q:.4g}")
        for q in (ordered[len(ordered) // 20], statistics.median(ordered), ordered[-1 - len(ordered) // 20])
    ]


def flops(cell: str, shape) -> int:
    """Matmuls only: the kernels of input and state, used once forward and twice backward."""
    layers, width, length, rows = shape
    return 3 * 2 * 2 * layers * length * rows * width * width * GATES[cell]


def matmul_gflops() -> float:
    """The better of what JAX and torch reach with 2,048 x 2,048, on random numbers."""
    a = np.random.default_rng(0).standard_normal((2048, 2048)).astype(np.float32)
    ours, theirs = jax.device_put(a), torch.tensor(a)
    product = jax.jit(jnp.matmul)
    times = interleaved(
        {"jax": lambda: product(ours, ours).block_until_ready(), "torch": lambda: theirs @ theirs}, 5
    )
    return 2 * 2048**3 / min(map(min, times.values())) / 1e9


def loop_us(cell: str) -> float:
    """Microseconds a step costs forward and backward when there is nothing to multiply: width 8, one row."""
    steps = {T: zoo_step(cell, drawn(cell, (1, 8, T, 1)))[0] for T in (500, 1500)}
    times = interleaved(steps, 20)
    return 1e6 * (statistics.median(times[1500]) - statistics.median(times[500])) / 1000


def row(cell: str, name: str, turns: int, peak: float) -> dict:
    """One line of the table."""
    shape = SHAPES[name]
    layers, width, length, rows = shape
    given = drawn(cell, shape)
    ours, compiled, compile_s = zoo_step(cell, given)
    eager = torch_step(cell, shape, given)
    apart = deviation(cell, ours, eager)
    if not apart <= TOLERANCE:
        sys.exit(f"{cell} {name}: outputs or gradients are {apart:.1e} apart; not the same mathematics")
    steps = {"zoo": ours, "again": zoo_step(cell, given)[0], "eager": eager[0]}
    if shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"):
        steps["compile"] = torch_step(cell, shape, given, compile=True)[0]
    times = interleaved(steps, turns)
    peers = [peer for peer in ("eager", "compile") if peer in times]
    faster = min(peers, key=lambda peer: statistics.median(times[peer]))
    gflops = flops(cell, shape) / statistics.median(times["zoo"]) / 1e9
    memory = compiled.memory_analysis()
    return {
        "cell": cell,
        "shape": f"{name} T{length} B{rows}",
        "apart": apart,
        "compile_s": round(compile_s, 2),
        **{f"{side}_ms": spread(1e3 * t for t in times[side]) for side in ("zoo", *peers)},
        "faster_torch": faster,
        "torch_over_zoo": spread(t / z for t, z in zip(times[faster], times["zoo"], strict=True)),
        "a_a": spread(t / z for t, z in zip(times["again"], times["zoo"], strict=True)),
        "gflops": round(gflops, 1),
        "percent_of_matmul": round(100 * gflops / peak, 1),
        "kept_bytes_per_token": 4 * layers * width * KEPT[cell],
        "temporary_bytes_per_token": round(memory.temp_size_in_bytes / (length * rows)),
    }


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    torch.set_num_threads(os.cpu_count() or 1)
    peak = max(matmul_gflops() for _ in range(3))
    rows = []
    for name in QUICK if quick else SHAPES:
        for cell in GATES:
            rows.append(row(cell, name, TURNS[name] // 5 if quick else TURNS[name], peak))
            print(json.dumps(rows[-1]), flush=True)
            gc.collect()
    result = {
        "workload": "recurrent stacks, forward + backward, float32; [5 %, median, 95 %]",
        "rows": rows,
        "loop_us_per_step": {cell: round(loop_us(cell), 2) for cell in GATES},
        "matmul_gflops": round(peak, 1),
        "load_average": os.getloadavg(),
        "xla_flags": FLAGS,
        "malloc": {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")},
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "torch")},
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
