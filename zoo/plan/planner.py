"""The flow of a plan: check, compile, look, tell."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from zoo import sharding
from zoo.errors import ConfigError
from zoo.metrics import print_result
from zoo.plan import Request, expected
from zoo.plan.abstract import abstract_data, placed_batch, placed_state
from zoo.plan.chips import CHIPS, Chip, GiB
from zoo.plan.collectives import Collective, collectives_of
from zoo.plan.matmuls import matmul_flops
from zoo.plan.program import read_program
from zoo.plan.remedies import check_rows, field_path, smallest_change
from zoo.plan.report import record, show
from zoo.plan.roofline import Roofline, roofline
from zoo.plan.topology import (
    check_topology,
    count,
    devices_of,
    libtpu_version,
    link_bandwidths,
    mesh_over,
    prepare,
    quiet,
)
from zoo.plan.traffic import memory_bytes

OUT_OF_MEMORY = re.compile(r"[Uu]sed ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm|required.*?\(([\d.]+)([KMGT])\)")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Plan:
    """All that is known of a step on a pod without having one. Bytes, FLOPs and seconds are of one chip."""

    request: Request
    recipe: Any
    chip: Chip
    mesh_sizes: dict[str, int]
    compile_s: float
    argument_bytes: int
    temporary_bytes: int
    output_bytes: int
    code_bytes: int
    total_bytes: int
    """Of all, where what takes another's place counts once."""
    host_bytes: int
    """Of the host's memory, a chip: what is offloaded, between steps and inside one."""
    estimated: expected.Memory
    model_flops: float
    compiled_flops: float
    memory_bytes: float
    collectives: list[Collective]
    expected_wire: dict[str, float]
    bandwidths: dict[str, float]
    time: Roofline
    tokens: float
    """Of a step, over all chips."""
    unknown_loops: list[str]
    libtpu: str

    @property
    def chips(self) -> int:
        return count(self.request.topology)


def run(request: Request, recipe, complete: Callable, step_of: Callable) -> int:
    """Plans and tells; returns the exit code. `complete` and `step_of` are train.py's."""
    check_topology(request.topology)
    check_rows(recipe, sharding.mesh_sizes(recipe.mesh, count(request.topology)))
    data = abstract_data(recipe)
    recipe = complete(recipe, data)
    prepare()
    code = parent(recipe)
    if code is not None:
        return code
    plan = planned(request, recipe, step_of, data)
    show(plan)
    print_result(record(plan))
    return 0


def parent(recipe) -> int | None:
    """None in a new process, which goes on; in the old one, which waits for it, its exit code.

    The compiler is large and can crash, which would end this process without a word. No device has started.
    """
    sys.stdout.flush()
    child = os.fork()
    if not child:
        return None
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code >= 0:
        return code
    path = field_path(recipe.model, "dropout_rate")
    hint = f"; it has been seen to with dropout, so try --{path.replace('_', '-')} 0" if path else ""
    raise ConfigError(
        f"the TPU's compiler, libtpu {libtpu_version()}, crashed on this step "
        f"({signal.Signals(-code).name}), a defect of its own{hint}"
    )


def planned(request: Request, recipe, step_of: Callable, data) -> Plan:
    """Compiles the step for the topology and reads what came out."""
    chip = CHIPS[request.topology.partition(":")[0]]
    mesh = mesh_over(devices_of(request.topology), recipe.mesh)
    parts = step_of(recipe, data)
    state, batch = placed_state(parts, mesh), placed_batch(parts.task, data, mesh)
    estimated = expected.memory(parts, recipe.model, state, batch, mesh)
    start = time.monotonic()
    with jax.set_mesh(mesh):
        lowered = parts.compiled(mesh).lower(state, batch)
    try:
        with quiet():
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        asked = asked_for(str(error), estimated.arguments) or estimated.total
        change = smallest_change(recipe, step_of, data, mesh, chip.hbm_bytes, asked / estimated.total)
        raise ConfigError(
            f"{recipe.name} does not fit {request.topology}: it needs {asked / GiB:.1f} GiB of a chip's "
            f"{chip.hbm_bytes / GiB:.2f}; {change}"
        ) from None
    compile_s = time.monotonic() - start
    used = compiled.memory_analysis()
    program = read_program(compiled.as_text())
    collectives = collectives_of(program, dict(mesh.shape))
    bandwidths = link_bandwidths(mesh, request.topology)
    flops, moved = matmul_flops(program), memory_bytes(program)
    tokens = data.cfg.batch_size * data.cfg.length
    return Plan(
        request=request,
        recipe=recipe,
        chip=chip,
        mesh_sizes=dict(mesh.shape),
        compile_s=compile_s,
        argument_bytes=used.argument_size_in_bytes,
        temporary_bytes=used.temp_size_in_bytes,
        output_bytes=used.output_size_in_bytes,
        code_bytes=used.generated_code_size_in_bytes,
        total_bytes=used.argument_size_in_bytes
        + used.temp_size_in_bytes
        + used.output_size_in_bytes
        - used.alias_size_in_bytes
        + used.generated_code_size_in_bytes,
        host_bytes=used.host_argument_size_in_bytes
        + used.host_temp_size_in_bytes
        + used.host_output_size_in_bytes
        - used.host_alias_size_in_bytes,
        estimated=estimated,
        model_flops=recipe.model.flops_per_token(data.cfg.length).full * tokens / mesh.size,
        compiled_flops=flops,
        memory_bytes=moved,
        collectives=collectives,
        expected_wire=expected.wire_bytes(parts, recipe.model, batch, mesh),
        bandwidths=bandwidths,
        time=roofline(flops, moved, collectives, chip, bandwidths),
        tokens=tokens,
        unknown_loops=program.unknown_loops,
        libtpu=libtpu_version(),
    )


def asked_for(message: str, arguments: float = 0) -> float | None:
    """How many bytes a program needs that the compiler refuses, from what it says; of temporary ones alone it
    says "temporaries", and the arguments come on top."""
    found = OUT_OF_MEMORY.search(message)
    if not found:
        return None
    size, unit = (part for part in found.groups() if part)
    return float(size) * UNITS[unit] + (arguments if "temporaries" in message else 0)
