"""What a compiled program moves between devices: kinds, bytes, mesh axes, and whether a step waits for it.

    kind             payload            bytes a device sends, of n in a group (ring)
    all-gather       the whole          (n - 1) / n
    reduce-scatter   the whole          (n - 1) / n
    all-reduce       the array          2 (n - 1) / n
    all-to-all       the array          (n - 1) / n
    permute          the array          1

A TPU's compiler hides five things. It writes reduce-scatters as fusions of an all-reduce and a slice. It
repeats a collective in the text where it is part of several fusions; one channel id is one collective. And
where a matmul can begin with a part of what is gathered, it makes a loop of both ("windowed"), in which each
turn multiplies one part while permutes bring the next: these permutes are the gather, and so are called
"permute". They run both ways round the ring, one before the loop and two for every two parts: of n parts n +
1 are sent where n - 1 are needed, and what the last turn brings nobody reads. And over many devices it
writes a gather as the sum of arrays that are zero but for each device's part: "gather by all-reduce", which
sends twice as much as a gather would. And a collective with arithmetic beside it may be three fusions, its
start, the arithmetic with a part of the collective in it (at every turn, where that is a loop), and its end:
all three are one collective, that runs as often as its start.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from zoo.plan.program import Computation, Instruction, Program

KINDS = {
    "all-gather": "all-gather",
    "all-reduce": "all-reduce",
    "reduce-scatter": "reduce-scatter",
    "all-to-all": "all-to-all",
    "ragged-all-to-all": "all-to-all",
    "collective-permute": "permute",
    "collective-broadcast": "broadcast",
}
NAMED = re.compile(
    r"replica_groups=mesh\[(?P<sizes>[^\]]*)\]"
    r"(?:, device_ids=\(\[(?P<dims>[\d,]+)\](?:T\((?P<order>[\d,]+)\))?\))? \{(?P<chosen>[^}]*)\}"
)
CARRIED = "async_collective_fusion"  # begins the names of such arithmetic's computations
WORK = ("convolution", "dot", "fusion", "while", "call", "custom-call", "reduce", "sort", "scatter")


@dataclass(frozen=True)
class Collective:
    """One collective of the program, over all its runs in a step."""

    kind: str
    axes: tuple[str, ...]
    """The mesh axes whose devices take part; ("?",) where they are no whole axes."""
    group: int
    """Devices that take part together."""
    runs: float
    dtype: str
    shape: tuple[int, ...]
    """Of the largest array."""
    payload: float
    """Bytes of the whole array, each time."""
    overlapped: bool
    """Begun early and ended late, with arithmetic between; else the step waits."""

    @property
    def wire_bytes(self) -> float:
        """Bytes that each device sends in a step."""
        share = (self.group - 1) / self.group if self.group else 0.0
        twice = ("all-reduce", "gather by all-reduce")
        ways = 2 * share if self.kind in twice else 1.0 if self.kind in ("permute", "broadcast") else share
        return self.runs * self.payload * ways

    @property
    def unread_bytes(self) -> float:
        """Of them, those that a windowed loop sends in vain."""
        is_windowed = self.kind == "permute" and self.overlapped and "pipeline" not in self.axes
        return self.wire_bytes * 2 / (self.group + 1) if is_windowed else 0.0


def collectives_of(program: Program, axes: dict[str, int]) -> list[Collective]:
    """Every collective that a step runs, given the mesh's axes in the order of its devices."""
    known = groups_of_axes(axes)
    found: dict[str, Collective] = {}
    carried: dict[str, Collective] = {}
    for name, computation in program.computations.items():
        for place, instruction in enumerate(computation.instructions.values()):
            opcode = instruction.opcode.removesuffix("-start")
            kind = KINDS.get(opcode)
            runs = program.runs[name]
            if kind is None or not runs:
                continue
            collective = read(program, computation, instruction, place, kind, runs, axes, known)
            # A collective of another kind may have the same channel.
            channel = instruction.attribute("channel_id")
            key = f"{opcode} {channel}" if channel else f"{name}/{instruction.name}"
            seen = carried if name.startswith(CARRIED) else found
            if key not in seen or seen[key].runs < runs:
                seen[key] = collective
    for key, collective in carried.items():
        found[key] = dataclasses.replace(found.get(key, collective), overlapped=True)
    return [collective for collective in found.values() if collective.group > 1]


def read(program, computation, instruction, place, kind, runs, axes, known) -> Collective:
    """One line as a Collective."""
    devices = math.prod(axes.values())
    groups = groups_in(instruction, devices)
    size = devices if groups is None else max(map(len, groups), default=1)
    arrays = [array for name in instruction.operands for array in computation.arrays(name)]
    if kind == "all-reduce" and is_scattered(computation, instruction):
        kind = "reduce-scatter"
    if kind == "all-reduce" and arrays and is_part(program, computation, instruction.operands[0]):
        kind = "gather by all-reduce"
    payload = sum(array.bytes for array in arrays) * (size if kind == "all-gather" else 1)
    if instruction.opcode == "all-reduce":  # a TPU may convert on the way: the narrower side travels
        payload = min(payload, instruction.bytes)
    largest = max(arrays, key=lambda array: array.bytes)
    return Collective(
        kind=kind,
        axes=known.get(as_sets(groups or ()), ("?",)),
        group=size,
        runs=runs,
        dtype=largest.dtype,
        shape=largest.shape,
        payload=payload,
        overlapped=is_overlapped(computation, instruction, place),
    )


def is_scattered(computation: Computation, instruction: Instruction) -> bool:
    """Whether all that the computation returns, an array or a tuple, are parts of this instruction's sums."""
    root = computation.root
    sums = {instruction.name} | {
        each.name
        for each in computation.instructions.values()
        if each.opcode == "get-tuple-element" and instruction.name in each.operands
    }

    def is_of_sums(name: str) -> bool:
        part = computation.source(name)
        if part is None or part.opcode != "dynamic-slice":
            return False
        whole = computation.source(part.operands[0])
        return whole is not None and whole.name in sums

    return all(map(is_of_sums, root.operands if root.opcode == "tuple" else [root.name]))


def is_part(program: Program, computation: Computation, name: str) -> bool:
    """Whether an array is zeros with one part put into it: what a gather by all-reduce sums."""
    made = computation.source(name)
    if made is not None and made.opcode == "fusion":
        fused = program.computations[made.called[0]]
        made = fused.source(fused.root.name)
    return made is not None and made.opcode == "dynamic-update-slice"


def is_overlapped(computation: Computation, instruction: Instruction, place: int) -> bool:
    """Whether arithmetic stands between its start and its end: the text is in the order of the schedule."""
    if not instruction.opcode.endswith("-start"):
        return False
    for later in itertools.islice(computation.instructions.values(), place + 1, None):
        if instruction.name in later.operands and later.opcode.endswith("-done"):
            return False
        if later.opcode in WORK:
            return True
    return False


def groups_of_axes(axes: dict[str, int]) -> dict[frozenset, tuple[str, ...]]:
    """{the groups of devices that differ in some axes only: those axes}, fewest axes first."""
    places = np.arange(math.prod(axes.values())).reshape(tuple(axes.values()))
    wide = [axis for axis, size in axes.items() if size > 1]
    found: dict[frozenset, tuple[str, ...]] = {}
    for count in range(1, len(wide) + 1):
        for chosen in itertools.combinations(wide, count):
            last = [list(axes).index(axis) for axis in chosen]
            moved = np.moveaxis(places, last, range(-count, 0))
            found.setdefault(as_sets(moved.reshape(-1, math.prod(axes[a] for a in chosen)).tolist()), chosen)
    return found


def as_sets(groups: Iterable[Iterable[int]]) -> frozenset:
    return frozenset(frozenset(group) for group in groups)


def groups_in(instruction: Instruction, devices: int) -> list[list[int]] | None:
    """The devices that take part together, in any of the forms that a text has for it; None for another.

    {{0,1},{2,3}}  [2,2]<=[4]  [2,2]<=[2,2]T(1,0)  mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}
    """
    text = instruction.rest
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", text):
        return chains(re.findall(r"\{(\d+),(\d+)\}", pairs.group(1)))
    if named := NAMED.search(text):
        sizes = {axis: int(size) for axis, size in re.findall(r"'([^']+)'=(\d+)", named["sizes"])}
        chosen = re.findall(r"'([^']+)'", named["chosen"])
        if ":" in named["chosen"] or math.prod(sizes.values()) != devices:  # a part of an axis
            return None
        dims, order = numbers(named["dims"]) or [devices], numbers(named["order"])
        places = np.arange(devices).reshape(dims).transpose(order or range(len(dims)))
        places = places.reshape(tuple(sizes.values()))
        moved = np.moveaxis(places, [list(sizes).index(axis) for axis in chosen], range(-len(chosen), 0))
        return moved.reshape(-1, math.prod(sizes[axis] for axis in chosen)).tolist()
    if counted := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape, dims, order = map(numbers, counted.groups())
        places = np.arange(math.prod(dims)).reshape(dims)
        return (places.transpose(order) if order else places).reshape(shape).tolist()
    if listed := re.search(r"replica_groups=\{(\{.*?\})\}", text):
        return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed.group(1))]
    return None if "replica_groups=" in text and "replica_groups={}" not in text else [list(range(devices))]


def numbers(text: str | None) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text or "")]


def chains(pairs: list[tuple[str, str]]) -> list[list[int]]:
    """The devices that a permute's arrows connect."""
    group: dict[int, set[int]] = {}
    for one, other in ((int(a), int(b)) for a, b in pairs):
        joined = group.get(one, {one}) | group.get(other, {other})
        for device in joined:
            group[device] = joined
    return [list(each) for each in {id(each): each for each in group.values()}.values()]
