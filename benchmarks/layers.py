"""A compiled train step's instructions by the layer of the model that they compute for, and what each costs.

XLA keeps for every instruction the name of the function it came from:

    jit(step)/jvp(GPT.features)/blocks/closed_call/layers/attention/query/dot     blocks/attention/query
    jit(step)/transpose(jvp(GPT.features))/norm/mul                               norm, backward
    jit(step)/jvp(GPT.readout)/tokens.attend/BD,VD->BV/dot                        readout/tokens
    jit(step)/jvp()/reduce_sum                                                    loss
    jit(step)/sqrt                                                                update

Layers that are scanned or unrolled alike have one name together. A fusion has one name, that of its main
part, though it may hold a little of the layer before or behind: so the table has it too.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from zoo.plan.matmuls import flops_of, kernel_flops
from zoo.plan.program import Computation, Instruction, Program
from zoo.plan.traffic import moved, standing_alone

OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
PASS = re.compile(r"\b\w+\.(features|readout)\)")
UNNAMED = "unnamed"


@dataclass(frozen=True)
class Cost:
    """Of one instruction in one call of the program, all its runs together."""

    instruction: str
    layer: str
    backward: bool
    flops: float
    """Of its matmuls; what is added or multiplied element by element is not counted."""
    bytes: float
    """Read and written, each operand and result once a run (zoo/plan/traffic.py)."""


def costs(program: Program, paths: set[str]) -> Iterator[Cost]:
    """Of every instruction that runs by itself; `paths` are those of the model's modules."""
    for computation, instruction, runs in standing_alone(program):
        name = name_of(program, computation, instruction)
        yield Cost(
            instruction.name,
            layer_of(name, paths),
            "transpose(" in name,
            runs * matmuls_in(program, computation, instruction),
            runs * moved(program, computation, instruction),
        )


def matmuls_in(program: Program, computation: Computation, instruction: Instruction) -> float:
    """FLOPs of the matmul that an instruction is, or of those fused into it."""
    if instruction.opcode in ("dot", "convolution"):
        return flops_of(computation, instruction)
    if instruction.opcode == "custom-call":
        return kernel_flops(computation, instruction)
    if instruction.opcode != "fusion":
        return 0.0
    inner = [program.computations[called] for called in instruction.called if called in program.computations]
    return sum(matmuls_in(program, part, each) for part in inner for each in part.instructions.values())


def name_of(program: Program, computation: Computation, instruction: Instruction) -> str:
    """Where it came from: as it says itself, or what is fused into it, or what it copies; else empty."""
    if found := OP_NAME.search(instruction.rest):
        return found.group(1)
    if instruction.opcode == "fusion" and instruction.called[0] in program.computations:
        fused = program.computations[instruction.called[0]]
        names = [OP_NAME.search(each.rest) for each in (fused.root, *fused.instructions.values())]
        if found := next(filter(None, names), None):
            return found.group(1)
    for operand in instruction.operands:
        source = computation.source(operand)
        if source is not None and source.opcode != "parameter" and (found := OP_NAME.search(source.rest)):
            return found.group(1)
    return ""


def layer_of(name: str, paths: set[str]) -> str:
    """The layer that an op_name names, or the first of several."""
    if not name.startswith("jit("):
        return UNNAMED
    name = name.partition(";")[0]
    which = PASS.search(name)
    modules = {part for path in paths for part in path.split("/")}
    inside = [part.partition(".")[0] for part in name.split("/")[1:-1]]
    found = "/".join(part for part in inside if part in modules)
    if which and which.group(1) == "readout":
        return f"readout/{found}".rstrip("/")
    if found:  # what is the same in every layer is computed before their loop, and has lost its beginning
        return min((path for path in paths if f"/{path}".endswith(f"/{found}")), key=len, default=found)
    return "features" if which else "loss" if "jvp(" in name else "update"


def paths_of(names: Iterable[str]) -> set[str]:
    """The modules in the names of parameters: blocks, blocks/attention, ... of "blocks/attention/query/w"."""
    paths = (name.split("/")[:-1] for name in names)
    return {"/".join(path[: depth + 1]) for path in paths for depth in range(len(path))}
