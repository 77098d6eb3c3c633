"""The floating-point operations of a compiled program's matmuls, each as often as it runs.

A TPU writes them all as convolutions. Heads and rows of attention are then "positions" of a window with
dilated inputs, of which most meet only holes: what is counted is the pairs that meet a number, as XLA's own
count does (HloCostAnalysis).

A kernel's matmuls are in no program's text. ragged_dot multiplies every row with one matrix. Splash attention
(zoo/kernels/splash.py) multiplies queries with keys and scores with values forward, and backward makes the
scores anew in each of its two kernels: 2, 3 and 4 products of all queries with all keys. Blocks that see
nothing are counted, though it skips them, as the model's own FLOPs count attention in full.
"""

import math
import re

from zoo.plan.program import Array, Computation, Instruction, Program

UPDATE = 'op_name="jit(step)/cond"'  # TrainStep.updated's (zoo/step.py)
RAGGED = "ragged-dot-none"
PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}


def matmul_flops(program: Program) -> float:
    """Per device and call."""
    return sum(flops_within(program, name) for name in program.computations)


def update_flops(program: Program) -> float:
    """Of matmul_flops, the optimizer's own: those of the branch that a train step's update is."""
    of_update: set[str] = set()
    waiting = [
        called
        for computation in program.computations.values()
        for instruction in computation.instructions.values()
        if instruction.opcode == "conditional" and UPDATE in instruction.rest
        for called in instruction.called
    ]
    while waiting:
        name = waiting.pop()
        if name in program.computations and name not in of_update:
            of_update.add(name)
            waiting += [c for i in program.computations[name].instructions.values() for c in i.called]
    return sum(flops_within(program, name) for name in of_update)


def flops_within(program: Program, name: str) -> float:
    """Of one computation, as often as it runs, without those that it calls."""
    computation, total = program.computations[name], 0.0
    for instruction in computation.instructions.values():
        if instruction.opcode in ("dot", "convolution"):
            total += flops_of(computation, instruction)
        if instruction.opcode == "custom-call":
            total += kernel_flops(computation, instruction)
    return program.runs[name] * total


def kernel_flops(computation: Computation, instruction: Instruction) -> float:
    """Of splash attention, by its queries [..., T, K] and keys [..., S, K]; of ragged_dot, by its result
    [S, N] and its matrices [X, K, N]; 0 of other calls."""
    floats = [a.shape for name in instruction.operands for a in computation.arrays(name) if "f" in a.dtype]
    if products := products_of(instruction):
        queries, keys = [shape for shape in floats if len(shape) > 2][:2]
        return 2.0 * products * math.prod(queries) * keys[-2]
    if instruction.name.startswith(RAGGED):
        width = next(shape[1] for shape in floats if len(shape) == 3)
        return 2.0 * math.prod(instruction.arrays[0].shape) * width
    return 0.0


def made_anew(program: Program) -> float:
    """Of matmul_flops, what splash attention's backward kernels compute that another of its kernels has
    computed too: all but two products each, as many as the model's own FLOPs count for it."""
    total = 0.0
    for name, computation in program.computations.items():
        for instruction in computation.instructions.values():
            if instruction.opcode == "custom-call" and (products := products_of(instruction)):
                flops = kernel_flops(computation, instruction)
                total += program.runs[name] * flops * (products - 2) / products
    return total


def products_of(instruction: Instruction) -> int:
    """How many products of all queries with all keys a kernel makes; 0 of other calls than splash's."""
    return next((n for kernel, n in PRODUCTS.items() if instruction.name.startswith(kernel)), 0)


def flops_of(computation: Computation, instruction: Instruction) -> float:
    """Two per product that is added up."""
    left, right = (computation.arrays(name)[0] for name in instruction.operands[:2])
    out = instruction.arrays[0]
    if instruction.opcode == "dot":
        summed = numbers(instruction.attribute("lhs_contracting_dims"))
        return 2.0 * math.prod(out.shape) * math.prod(left.shape[i] for i in summed)
    return convolution_flops(instruction, left, right, out)


def convolution_flops(instruction: Instruction, left: Array, right: Array, out: Array) -> float:
    """`dim_labels=0bf_io0->0bf`: where batch, features and positions lie in input, kernel and output."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
    assert labels is not None, instruction
    inputs, kernels, outputs = labels.groups()
    window = re.search(r"window=\{([^}]*)\}", instruction.rest)
    settings = dict(part.split("=") for part in window.group(1).split()) if window else {}
    positions = sorted(label for label in inputs if label.isdigit())
    pairs = 1.0
    for place, label in enumerate(positions):
        pad = sides(settings.get("pad", ""), place)
        pairs *= meetings(
            size_in=left.shape[inputs.index(label)],
            size_window=right.shape[kernels.index(label)],
            size_out=out.shape[outputs.index(label)],
            stride=at(settings.get("stride", ""), place),
            pad_low=pad,
            dilation_in=at(settings.get("lhs_dilate", ""), place),
            dilation_window=at(settings.get("rhs_dilate", ""), place),
        )
    batch, features = out.shape[outputs.index("b")], out.shape[outputs.index("f")]
    groups = int(instruction.attribute("batch_group_count") or 1)
    return 2.0 * pairs * batch * features * right.shape[kernels.index("i")] / groups


def meetings(*, size_in, size_window, size_out, stride, pad_low, dilation_in, dilation_window) -> int:
    """How many pairs of an output's and a window's place meet a number of the input."""
    if size_window == 1 and dilation_in == 1 and pad_low == 0:
        return size_out
    count = 0
    for place in range(size_out):
        for tap in range(size_window):
            where = place * stride + tap * dilation_window - pad_low
            count += where % dilation_in == 0 and 0 <= where // dilation_in < size_in
    return count


def at(setting: str, place: int) -> int:
    """The n-th of "8x12", 1 where nothing is said."""
    return int(setting.split("x")[place]) if setting else 1


def sides(setting: str, place: int) -> int:
    """The lower padding of the n-th of "0_0x11_11"."""
    return int(setting.split("x")[place].split("_")[0]) if setting else 0


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]
