"""The flow of a plan: check, compile, look, tell."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from zoo.assembly import complete, step_of
from zoo.errors import ConfigError, first_line
from zoo.fits import check_axes, check_rows
from zoo.mesh import mesh_sizes
from zoo.metrics import print_result
from zoo.plan import Request, auto, expected
from zoo.plan.abstract import abstract_data, placed_batch, placed_state
from zoo.plan.analytic import analysed
from zoo.plan.apart import Crashed, apart
from zoo.plan.candidates import meshes, value
from zoo.plan.chips import TPU, GiB
from zoo.plan.collectives import Collective, collectives_of
from zoo.plan.gpus import cluster, is_cluster
from zoo.plan.matmuls import made_anew, matmul_flops, update_flops
from zoo.plan.program import read_program
from zoo.plan.remedies import TooLarge, field_path, smallest_change
from zoo.plan.report import lines, record
from zoo.plan.roofline import Roofline, roofline
from zoo.plan.topology import Slice, check_topology, libtpu_version, prepare, quiet, start_on_cpu
from zoo.plan.traffic import memory_bytes
from zoo.plan.wires import wire_bytes

OUT_OF_MEMORY = re.compile(r"[Uu]sed ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm|required.*?\(([\d.]+)([KMGT])\)")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Plan:
    """All that is known of a step on a pod without having one. Bytes, FLOPs and seconds are of one chip."""

    request: Request
    recipe: Any
    chip: TPU
    chips: int
    mesh_sizes: dict[str, int]
    compile_s: float
    argument_bytes: int
    temporary_bytes: int
    """What lives at one time beside them, at most. The compiler's "temp_size_in_bytes" is up to two thirds
    more than it lays out: it accepts a step of which that is more than the chip has."""
    output_bytes: int
    code_bytes: int
    total_bytes: int
    """Arguments, temporary and the program; the new state takes the old one's place."""
    host_bytes: int
    """Of the host's memory, a chip: what is offloaded, between steps and inside one."""
    estimated: expected.Memory
    model_flops: float
    compiled_flops: float
    remade_flops: float
    """Of them, what attention's kernels compute more than once for each other."""
    update_flops: float
    """Of them, the optimizer's."""
    memory_bytes: float
    collectives: list[Collective]
    expected_wire: dict[str, float]
    bandwidths: dict[str, float]
    time: Roofline
    tokens: float
    """Of a step, over all chips."""
    unknown_loops: list[str]
    libtpu: str

    def how(self, count: int) -> str:
        return f"{count} compiled"

    def lines(self) -> list[str]:
        """For a person."""
        return lines(self)

    def record(self) -> dict[str, Any]:
        """For a script."""
        return record(self)


def run(request: Request, recipe) -> int:
    """Plans and tells; returns the exit code."""
    of_gpus = is_cluster(request.topology)
    if recipe.mesh.slice != 1:
        raise ConfigError(f"mesh.slice={recipe.mesh.slice}: a plan is of one slice; leave mesh.slice at 1")
    if not of_gpus:
        check_topology(request.topology)
    place = cluster(request.topology) if of_gpus else Slice(request.topology)
    others = [axis for axis in ("pipeline", "context", "expert") if recipe.mesh.sizes[axis] != 1]
    if of_gpus and others:
        raise ConfigError(
            f"mesh.{others[0]}={recipe.mesh.sizes[others[0]]}: GPUs are planned over data, fsdp and "
            "tensor; a TPU slice is compiled with every axis"
        )
    if request.auto:
        meshes(recipe.mesh, place.count)  # refuses what is kept and does not multiply to the chips
    else:
        check_rows(recipe, mesh_sizes(recipe.mesh, place.count))
    data = abstract_data(recipe)
    recipe = complete(recipe, data)
    (start_on_cpu if of_gpus else prepare)()
    plan_of: Callable = analysed if of_gpus else compiled_apart
    found: Any
    if request.auto:
        found = auto.chosen(request, recipe, data, place, plan_of)
    else:
        found = plan_of(request, recipe, data, place)
    print("\n".join(found.lines()))
    print_result(found.record())
    return 0


def compiled_apart(request: Request, recipe, data, place: Slice) -> Plan:
    """The plan of a slice, from a process of its own; Crashed, of one line, where that took the compiler with
    it."""
    try:
        return apart(lambda: planned(request, recipe, data, place))
    except Crashed as error:
        path = field_path(recipe.model, "dropout_rate")
        drops = path and value(recipe, path)
        hint = f"it has been seen to with dropout, so try --{path.replace('_', '-')} 0" if drops else ""
        hint = hint or "try another mesh or --plan auto, which passes such steps over"
        raise Crashed(
            f"the TPU's compiler, libtpu {libtpu_version()}, crashed on this step ({error}), a defect of its "
            f"own; {hint}"
        ) from None


def planned(request: Request, recipe, data, place: Slice) -> Plan:
    """Compiles the step for the slice and reads what came out; TooLarge where it does not fit, Crashed where
    the compiler fails in itself."""
    chip, mesh = place.chip, place.mesh(recipe.mesh)
    parts = step_of(recipe, data)
    check_axes(parts.model, data.cfg.length, mesh)
    state, batch = placed_state(parts, mesh), placed_batch(parts.task, data, mesh)
    known = expected.held(parts, recipe.model, state, batch, mesh, place.numbers)
    estimated = expected.memory(parts, recipe.model, batch, mesh, known)
    start = time.monotonic()
    try:
        with jax.set_mesh(mesh):
            lowered = parts.compiled(mesh).lower(state, batch)
            with quiet():
                compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise Crashed(first_line(error)) from None
        asked = asked_for(str(error)) or estimated.total
        change = "another setting may"
        if not request.auto:
            change = smallest_change(recipe, data, place, mesh, asked / estimated.total)
        raise TooLarge(
            f"{recipe.name} does not fit {request.topology}: it needs {asked / GiB:.1f} GiB of a chip's "
            f"{chip.hbm_bytes / GiB:.2f}; {change}",
            asked,
        ) from None
    compile_s = time.monotonic() - start
    used = compiled.memory_analysis()
    peak = used.peak_memory_in_bytes - used.host_argument_size_in_bytes  # of which it counts what waits there
    program = read_program(compiled.as_text())
    collectives = collectives_of(program, dict(mesh.shape))
    bandwidths = place.bandwidths(mesh)
    flops, moved = matmul_flops(program), memory_bytes(program)
    tokens = data.cfg.batch_size * data.cfg.length
    return Plan(
        request=request,
        recipe=recipe,
        chip=chip,
        chips=place.count,
        mesh_sizes=dict(mesh.shape),
        compile_s=compile_s,
        argument_bytes=used.argument_size_in_bytes,
        temporary_bytes=peak - used.argument_size_in_bytes,
        output_bytes=used.output_size_in_bytes,
        code_bytes=used.generated_code_size_in_bytes,
        total_bytes=peak + used.generated_code_size_in_bytes,
        host_bytes=used.host_argument_size_in_bytes
        + used.host_temp_size_in_bytes
        + used.host_output_size_in_bytes
        - used.host_alias_size_in_bytes,
        estimated=estimated,
        model_flops=recipe.model.flops_per_token(data.cfg.length).full * tokens / mesh.size,
        compiled_flops=flops,
        remade_flops=made_anew(program),
        update_flops=update_flops(program),
        memory_bytes=moved,
        collectives=collectives,
        expected_wire=wire_bytes(parts, recipe.model, batch, mesh),
        bandwidths=bandwidths,
        time=roofline(flops, moved, collectives, chip, bandwidths),
        tokens=tokens,
        unknown_loops=program.unknown_loops,
        libtpu=libtpu_version(),
    )


def asked_for(message: str) -> float | None:
    """How many bytes a program needs that the compiler refuses, from what it says. What it calls temporaries
    has the arguments in it: of a program with 6 GiB of each of three arrays, one of them given, it says 18.
    """
    found = OUT_OF_MEMORY.search(message)
    if not found:
        return None
    size, unit = (part for part in found.groups() if part)
    return float(size) * UNITS[unit]
