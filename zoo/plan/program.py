"""Reads the text of a compiled program: its computations, and how often a step runs each of them.

The text of XLA (HLO, after optimization) is a list of computations, and each a list of instructions:

    %body (p: (s32[], f32[8,64])) -> (s32[], f32[8,64]) {
      %p = (s32[], f32[8,64]{1,0}) parameter(0)
      ROOT %t = (s32[], f32[8,64]{1,0}) tuple(%i, %x)
    }
    ENTRY %main (a: f32[8,64]) -> f32[8,64] {
      %w = (s32[], f32[8,64]{1,0}) while(%init), condition=%cond, body=%body, ...
    }

A computation runs as often as those that name it, a loop's body as often as the loop turns. The compiler's
own counts (cost_analysis) take every body once; here they are multiplied.
"""

import collections
import functools
import math
import re
from dataclasses import dataclass, field

ITEM_BITS = {
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 64),
    **dict.fromkeys(("s32", "u32", "f32"), 32),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 16),
    **dict.fromkeys(("s8", "u8", "pred"), 8),
    "s4": 4,
    "u4": 4,
    "s2": 2,
    "u2": 2,
    "c128": 128,
    "token": 0,
    "opaque": 0,
}

ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
NAME = re.compile(r"%([\w.\-]+)")
HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{")
INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
CALLED_LISTS = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
PASSING = ("copy", "bitcast", "convert", "copy-start", "copy-done", "optimization-barrier")


@dataclass(frozen=True)
class Array:
    """An array's type as the program writes it."""

    dtype: str
    shape: tuple[int, ...]
    layout: str = ""

    @property
    def bytes(self) -> float:
        bits = ITEM_BITS.get(self.dtype, 8)  # the kinds of 8-bit floats are many
        return math.prod(self.shape) * bits / 8

    @property
    def in_hbm(self) -> bool:
        """Whether it lies in the device's large memory; S(n) of a TPU names another one."""
        return "S(" not in self.layout


@dataclass(frozen=True)
class Instruction:
    """One line: what it makes, of what, by which operation."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    literal: str
    """What stands between the brackets: of a constant its value."""
    rest: str
    """Attributes, as written."""
    is_root: bool

    @property
    def bytes(self) -> float:
        return sum(array.bytes for array in self.arrays)

    @functools.cached_property
    def called(self) -> list[str]:
        """The computations that it names."""
        lists = [name for found in CALLED_LISTS.findall(self.rest) for name in re.findall(r"[\w.\-]+", found)]
        return CALLED.findall(self.rest) + lists

    def attribute(self, name: str) -> str:
        """The word, or the text in braces, after `name=`; empty where there is none."""
        found = re.search(rf"\b{name}=(\{{\{{.*?\}}\}}|\{{.*?\}}|[^\s,]+)", self.rest)
        return found.group(1) if found else ""


@dataclass
class Computation:
    """Instructions in the order of the schedule."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @property
    def root(self) -> Instruction:
        return next(i for i in self.instructions.values() if i.is_root)

    def source(self, name: str) -> Instruction | None:
        """The instruction behind copies and conversions."""
        found = self.instructions.get(name)
        while found is not None and found.opcode in PASSING and found.operands:
            found = self.instructions.get(found.operands[0])
        return found

    def arrays(self, name: str) -> tuple[Array, ...]:
        return self.instructions[name].arrays if name in self.instructions else ()


@dataclass
class Program:
    """The computations of a text by name, and which of them runs first."""

    computations: dict[str, Computation]
    entry: str
    unknown_loops: list[str] = field(default_factory=list)
    """Loops whose turns could not be read: they are counted once."""

    @functools.cached_property
    def runs(self) -> dict[str, float]:
        """How often one call of the program runs each computation; each branch of a conditional counts."""
        edges: dict[str, list[tuple[str, float]]] = {name: [] for name in self.computations}
        callers: collections.Counter[str] = collections.Counter()
        for name, computation in self.computations.items():
            for instruction in computation.instructions.values():
                turns = self.turns(computation, instruction) if instruction.opcode == "while" else 1
                for called in instruction.called:
                    if called in edges:
                        edges[name].append((called, turns))
                        callers[called] += 1
        runs = dict.fromkeys(self.computations, 0.0) | {self.entry: 1.0}
        ready = [name for name in self.computations if not callers[name]]
        while ready:
            name = ready.pop()
            for called, times in edges[name]:
                runs[called] += runs[name] * times
                callers[called] -= 1
                if not callers[called]:
                    ready.append(called)
        return runs

    def turns(self, computation: Computation, loop: Instruction) -> int:
        """How often a while loop turns: as the compiler says, or as its counter, step and bound say."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
            return int(known.group(1))
        counted = self._counter(loop)
        if counted is None:
            self.unknown_loops.append(loop.name)
            return 1
        index, bound, step = counted
        start = 0
        first = computation.source(loop.operands[0])
        if first is not None and first.opcode == "tuple" and index < len(first.operands):
            value = computation.source(first.operands[index])
            if value is not None and value.opcode == "constant":
                start = int(value.literal)
        return max(0, -(-(bound - start) // step))

    def _counter(self, loop: Instruction) -> tuple[int, int, int] | None:
        """(place of the counter in the loop's tuple, bound, step)."""
        condition = self.computations.get(loop.attribute("condition").lstrip("%"))
        body = self.computations.get(loop.attribute("body").lstrip("%"))
        if condition is None or body is None or condition.root.opcode != "compare":
            return None
        counter, limit = (condition.source(name) for name in condition.root.operands)
        if counter is None or limit is None or limit.opcode != "constant":
            return None
        index = int(counter.attribute("index") or -1)
        if body.root.opcode != "tuple" or not 0 <= index < len(body.root.operands):
            return None
        moved, step = body.source(body.root.operands[index]), 1
        if moved is not None and moved.opcode == "add":
            constants = [
                c for c in map(body.source, moved.operands) if c is not None and c.opcode == "constant"
            ]
            step = int(constants[0].literal) if constants else 1
        extra = 1 if condition.root.attribute("direction") == "LE" else 0
        return index, int(limit.literal) + extra, max(step, 1)


def read_program(text: str) -> Program:
    """The program of a text as `compiled.as_text()` gives it."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            if header := HEADER.match(line):
                current = computations[header.group(2)] = Computation(header.group(2))
                entry = header.group(2) if header.group(1) else entry
        elif line == "}":  # a kernel's own attributes go over several lines, the last of them "}}, ..."
            current = None
        elif found := INSTRUCTION.match(line):
            instruction = read_instruction(line, found)
            current.instructions[instruction.name] = instruction
    return Program(computations, entry)


def read_instruction(line: str, found: re.Match) -> Instruction:
    """One line, of which `found` is the beginning up to the type."""
    begin = found.end()
    end = closing(line, begin) if line[begin] == "(" else line.index(" ", begin)
    bracket = line.index("(", end)
    behind = closing(line, bracket)
    literal = line[bracket + 1 : behind - 1]
    return Instruction(
        name=found.group(2),
        arrays=tuple(arrays_of(line[begin:end])),
        opcode=line[end:bracket].strip(),
        operands=tuple(NAME.findall(literal)),
        literal=literal,
        rest=line[behind:],
        is_root=bool(found.group(1)),
    )


def arrays_of(text: str) -> list[Array]:
    return [
        Array(dtype, tuple(int(n) for n in re.findall(r"\d+", shape)), layout)
        for dtype, shape, layout in ARRAY.findall(text)
    ]


def closing(line: str, begin: int) -> int:
    """The place behind the bracket that closes the one at `begin`."""
    depth = 0
    for place in range(begin, len(line)):
        depth += {"(": 1, ")": -1}.get(line[place], 0)
        if depth == 0:
            return place + 1
    return len(line)
