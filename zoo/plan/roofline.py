"""How long a step should take, between two bounds, neither of them measured.

    best     arithmetic at the sheet's rate, memory and overlapped wires all at the same time; added to them
             only those collectives that the schedule makes the step wait for
    worst    matmuls at 80 % of the sheet, as large ones reach; memory and wires one after the other

A plan says both. Runs of others: MaxText's 32B on v5p 60 to 71 % of the sheet, Marin's 1.2B on v5p 52 %
(convention A); small models less.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from zoo.plan.chips import TPU
from zoo.plan.collectives import Collective

MATMUL_RATE = 0.8


@dataclass(frozen=True)
class Roofline:
    """Seconds of one step on one chip."""

    compute_s: float
    memory_s: float
    waiting_s: float
    """On the wires while nothing is computed."""
    overlapped_s: float
    """On the wires beside arithmetic."""

    @property
    def best_s(self) -> float:
        return max(self.compute_s, self.memory_s, self.overlapped_s) + self.waiting_s

    @property
    def worst_s(self) -> float:
        return self.compute_s / MATMUL_RATE + self.memory_s + self.waiting_s + self.overlapped_s

    @property
    def bound(self) -> str:
        """What most of the best time goes to."""
        times = {
            "arithmetic": self.compute_s,
            "memory": self.memory_s,
            "wires": self.waiting_s + self.overlapped_s,
        }
        return max(times, key=lambda name: times[name])


def roofline(
    flops: float,
    memory_bytes: float,
    collectives: Iterable[Collective],
    chip: TPU,
    bandwidths: Mapping[str, float],
) -> Roofline:
    """From what a chip computes, reads and sends in a step."""
    seconds = {True: 0.0, False: 0.0}
    for collective in collectives:
        widths = [bandwidths[axis] for axis in collective.axes if axis in bandwidths]
        rate = sum(widths) if widths else chip.link_bandwidth
        seconds[collective.overlapped] += collective.wire_bytes / rate
    return Roofline(flops / chip.flops, memory_bytes / chip.hbm_bandwidth, seconds[False], seconds[True])
