"""How many bytes a compiled program reads from and writes to a device's large memory, roughly.

Each instruction that runs by itself reads its operands and writes its results once; what a fusion keeps
inside costs nothing. A fusion that takes a slice of an operand reads the slice, and one that updates a
slice writes that. What the compiler has put into the small memory (S(1) of a TPU) is left out. Real
programs read some things twice, so this is a lower bound.
"""

import math
from collections.abc import Iterator

from zoo.plan.program import Array, Computation, Instruction, Program

# They move nothing, or what they call is counted where it stands.
FREE = frozenset(
    ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "iota")
    + ("partition-id", "replica-id", "after-all", "optimization-barrier", "opt-barrier", "domain")
    + ("async-update",)
)
ALLOCATING = ("AllocateBuffer", "ConcatBitcast")
SLICES = ("dynamic-slice", "gather", "slice")


def memory_bytes(program: Program) -> float:
    """Per device and call."""
    alone = standing_alone(program)
    return sum(runs * moved(program, computation, instruction) for computation, instruction, runs in alone)


def standing_alone(program: Program) -> Iterator[tuple[Computation, Instruction, float]]:
    """Every instruction that runs by itself, not within a fusion, and how often one call runs it."""
    inside = {
        called
        for computation in program.computations.values()
        for instruction in computation.instructions.values()
        if instruction.opcode not in ("while", "conditional", "call")
        for called in instruction.called
    }
    for name, computation in program.computations.items():
        runs = program.runs[name]
        if runs and name not in inside:
            for instruction in computation.instructions.values():
                if instruction.opcode not in FREE:
                    yield computation, instruction, runs


def moved(program: Program, computation: Computation, instruction: Instruction) -> float:
    """Bytes of one instruction's operands and results."""
    if (
        instruction.opcode.endswith("-done")
        or instruction.attribute("custom_call_target").strip('"') in ALLOCATING
    ):
        return 0.0
    operands = [computation.arrays(name) for name in instruction.operands]
    if instruction.opcode in ("slice-start", "dynamic-slice-start"):  # (whole, slice, a flag)
        return instruction.arrays[1].bytes
    if instruction.opcode in SLICES:
        return 2 * in_hbm(instruction.arrays)
    if instruction.opcode == "dynamic-update-slice":
        return 2 * in_hbm(operands[1])
    if instruction.opcode == "copy-start":
        return in_hbm(instruction.arrays[:2])
    called = instruction.called
    if instruction.opcode != "fusion" or not called or called[0] not in program.computations:
        return in_hbm(instruction.arrays) + sum(map(in_hbm, operands))
    fused = program.computations[called[0]]
    made = fused.root.operands if fused.root.opcode == "tuple" else (fused.root.name,)
    total = 0.0
    for name, array in zip(made, instruction.arrays, strict=False):
        if array.in_hbm:
            total += written(program, fused, name, array)
    for number, arrays in enumerate(operands):
        total += min(in_hbm(arrays), read(program, fused, parameter(fused, number)))
    return total


def parameter(fused: Computation, number: int) -> str:
    """The name of a fusion's operand inside."""
    found = (i for i in fused.instructions.values() if i.opcode == "parameter" and i.literal == str(number))
    return next(found).name


def written(program: Program, fused: Computation, name: str, array: Array) -> float:
    """What a fusion writes of a result: the slice, where it updates one."""
    source = fused.source(name)
    if source is not None and source.opcode == "fusion":
        inner = program.computations[source.called[0]]
        return written(program, inner, inner.root.name, array) if len(source.arrays) == 1 else array.bytes
    if source is not None and source.opcode == "dynamic-update-slice":
        return in_hbm(fused.arrays(source.operands[1]))
    return array.bytes


def read(program: Program, fused: Computation, name: str) -> float:
    """What a fusion reads of an operand: the slices, where it takes slices alone; at most everything."""
    total = 0.0
    for user in fused.instructions.values():
        for place, operand in enumerate(user.operands):
            if operand != name:
                continue
            if user.opcode in SLICES:
                total += user.bytes
            elif user.opcode == "bitcast":
                total += read(program, fused, user.name)
            elif user.opcode == "fusion":
                inner = program.computations[user.called[0]]
                total += read(program, inner, parameter(inner, place))
            elif user.opcode != "dynamic-update-slice" or place:
                return math.inf
    return total


def in_hbm(arrays: tuple[Array, ...]) -> float:
    return sum(array.bytes for array in arrays if array.in_hbm)
