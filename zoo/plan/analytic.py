"""The plan of a cluster of GPUs: computed, not compiled.

The same questions as of a slice of TPUs, answered by the closed forms (estimate.py) alone. What only a
compiler knows stays open: what it fuses, and which collectives it hides.
"""

from dataclasses import dataclass
from typing import Any

import jax

from zoo.assembly import step_of
from zoo.mesh import describe
from zoo.plan import Request, expected
from zoo.plan.abstract import placed_batch, placed_state
from zoo.plan.chips import GPU
from zoo.plan.estimate import Estimate, estimate
from zoo.plan.gpus import Cluster, neighbours
from zoo.plan.remedies import TooLarge, smallest_change
from zoo.plan.report import gib, timed, timed_lines
from zoo.plan.roofline import Roofline

# Of a GPU's memory, what JAX takes at its start unless it is told otherwise
# (docs.jax.dev, "GPU memory allocation").
TAKEN = 0.75


@dataclass(frozen=True)
class Analytic:
    """A step on GPUs that are not there. Bytes, FLOPs and seconds are of one GPU."""

    request: Request
    recipe: Any
    chip: GPU
    chips: int
    per_node: int
    mesh_sizes: dict[str, int]
    model_flops: float
    tokens: float
    """Of a step, over all GPUs."""
    estimated: Estimate

    @property
    def time(self) -> Roofline:
        return self.estimated.time

    @property
    def total_bytes(self) -> int:
        return self.estimated.memory.total

    def how(self, count: int) -> str:
        return "none compiled"

    def links(self) -> dict[str, str]:
        """What each axis that sends runs over."""
        members = neighbours(self.mesh_sizes, self.per_node)
        return {
            axis: f"over the network, {members[axis]} a node" if members[axis] else "over NVLink"
            for axis in self.estimated.wires
        }

    def lines(self) -> list[str]:
        """For a person."""
        total, hbm, made = self.total_bytes, self.chip.hbm_bytes, self.estimated
        told = [
            f"plan     {self.recipe.name} on {self.request.topology}, {self.chips} GPUs, "
            f"{describe(self.mesh_sizes)}; analytic, not compiled, never run: all below is predicted",
            f"memory   {gib(total)} of {gib(hbm)} a GPU, {gib(hbm - total)} to spare: "
            f"{gib(made.memory.arguments)} state and batch, {gib(made.memory.temporary)} at one time "
            "beside it",
        ]
        if total > TAKEN * hbm:
            told.append(
                f"         more than the {TAKEN:.0%} that JAX takes at its start; give it more by "
                "XLA_PYTHON_CLIENT_MEM_FRACTION=0.95"
            )
        told += [
            f"FLOPs    a GPU and step: {made.flops:.4g} with what is computed again, {self.model_flops:.4g} "
            f"in the model (6 N + 12 L d T a token); ratio {made.flops / self.model_flops:.3f}",
            f"traffic  {made.traffic:.4g} bytes between a GPU and its memory",
        ]
        for axis, link in self.links().items():
            size, rate = made.wires[axis], made.bandwidths[axis]
            told.append(
                f"wires    {axis}: {size / 1e6:,.1f} MB a GPU and step {link}, {1e3 * size / rate:,.1f} ms "
                f"at {rate / 1e9:.0f} GB/s"
            )
        told += timed_lines(self)
        told.append(f"with     jax {jax.__version__}; {self.chip.name}, rates from vendors' sheets")
        return told

    def record(self) -> dict[str, Any]:
        """For a script."""
        made = self.estimated
        return {
            "plan": self.request.topology,
            "recipe": self.recipe.name,
            "predicted": True,
            "analytic": True,
            "mesh": self.mesh_sizes,
            "chips": self.chips,
            "fits": self.total_bytes <= self.chip.hbm_bytes,
            "argument_bytes": made.memory.arguments,
            "temporary_bytes": made.memory.temporary,
            "total_bytes": self.total_bytes,
            "hbm_bytes": self.chip.hbm_bytes,
            "model_flops": self.model_flops,
            "flops": made.flops,
            "memory_traffic_bytes": made.traffic,
            "expected_wire_bytes": {axis: round(size) for axis, size in made.wires.items()},
            "links": self.links(),
            **timed(self),
            "jax": jax.__version__,
        }


def analysed(request: Request, recipe, data, place: Cluster) -> Analytic:
    """The plan of a cluster; TooLarge where it does not fit."""
    mesh = place.mesh(recipe.mesh)
    parts = step_of(recipe, data)
    state, batch = placed_state(parts, mesh), placed_batch(parts.task, data, mesh)
    known = expected.held(parts, recipe.model, state, batch, mesh, place.numbers)
    made = estimate(parts, recipe, batch, mesh, place, known)
    needed, hbm = made.memory.total, place.chip.hbm_bytes
    if needed > hbm:
        change = smallest_change(recipe, data, place, mesh, 1.0)
        raise TooLarge(
            f"{recipe.name} does not fit {request.topology} by the closed form: it needs {gib(needed)} of a "
            f"GPU's {gib(hbm)}; {change}",
            needed,
        )
    tokens = recipe.data.batch_size * recipe.data.length
    return Analytic(
        request=request,
        recipe=recipe,
        chip=place.chip,
        chips=place.count,
        per_node=place.per_node,
        mesh_sizes=dict(mesh.shape),
        model_flops=recipe.model.flops_per_token(recipe.data.length).full * tokens / mesh.size,
        tokens=tokens,
        estimated=made,
    )
