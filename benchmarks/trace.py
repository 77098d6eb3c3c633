"""What ran when on a device, read from the trace that jax.profiler writes.

Each operation of a program leaves a span there. On a CPU it begins where a thread takes the operation up,
and ends where a mark "end: NAME" stands, as the work itself may go on in other threads; a GPU's spans are
those of its kernels. Loops have spans around those of what they repeat, and some operations run side by side.
Every moment is given to one of them, the one that began last, so that all times add up to what there was:

    while    ----------------------------      while    --      --          --
    matmul     -----------                     matmul     --        -
    add            ---     ------              add            ---     ------
"""

import bisect
import collections
import heapq
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import jax

CPU_OPTIONS = {"xla_cpu_enable_xprof_traceme": True}
"""A CPU's trace holds the operations of programs that were compiled with it. It costs a little with each of
them."""

Span = tuple[float, float, str]
"""Begin and end in nanoseconds, and the operation's name in the program."""


def traced(folder: Path, run: Callable[[], None]) -> list[Span]:
    """The spans of all operations that devices work on while `run` runs; it has to wait for them itself."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Python's own calls are many and not asked for
    with jax.profiler.trace(str(folder), profiler_options=options):
        run()
    (path,) = folder.glob("**/*.xplane.pb")
    return spans_of(jax.profiler.ProfileData.from_file(str(path)))


def spans_of(profile) -> list[Span]:
    """The spans of a trace, of its devices where it knows devices, else of the host's threads."""
    planes = list(profile.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    begun, ends = [], collections.defaultdict(list)
    for plane in devices or planes:
        for event in itertools.chain.from_iterable(line.events for line in plane.lines):
            if event.name.startswith("end: "):
                ends[event.name.removeprefix("end: ")].append(event.start_ns)
            elif (name := dict(event.stats).get("hlo_op")) is not None:
                begun.append((event.start_ns, event.start_ns + event.duration_ns, str(name)))
    for marks in ends.values():
        marks.sort()
    return [(begin, ended(ends.get(name, []), begin, end), name) for begin, end, name in begun]


def ended(marks: list[float], begin: float, end: float) -> float:
    """The first mark behind the beginning, where there is one."""
    place = bisect.bisect_left(marks, begin)
    return max(end, marks[place]) if place < len(marks) else end


def seconds(spans: Iterable[Span]) -> dict[str, float]:
    """How long each operation ran in all, every moment given to what began last."""
    waiting = collections.deque(sorted(spans))
    edges = sorted({edge for begin, end, _ in waiting for edge in (begin, end)})
    running: list[tuple[float, float, str]] = []
    found: dict[str, float] = collections.defaultdict(float)
    for now, until in itertools.pairwise(edges):
        while waiting and waiting[0][0] <= now:
            begin, end, name = waiting.popleft()
            heapq.heappush(running, (-begin, end, name))
        while running and running[0][1] <= now:
            heapq.heappop(running)
        if running:
            found[running[0][2]] += (until - now) / 1e9
    return dict(found)
