"""A plan as lines for a person, and as one record for a script."""

import collections
from typing import Any

import jax

from zoo.mesh import describe
from zoo.plan.chips import GiB


def record(plan) -> dict[str, Any]:
    """The last line of stdout. Everything is predicted; nothing ran."""
    return {
        "plan": plan.request.topology,
        "recipe": plan.recipe.name,
        "predicted": True,
        "mesh": plan.mesh_sizes,
        "chips": plan.chips,
        "fits": plan.total_bytes <= plan.chip.hbm_bytes,
        "argument_bytes": plan.argument_bytes,
        "temporary_bytes": plan.temporary_bytes,
        "output_bytes": plan.output_bytes,
        "total_bytes": plan.total_bytes,
        "hbm_bytes": plan.chip.hbm_bytes,
        "host_bytes": plan.host_bytes,
        "estimated_bytes": plan.estimated.total,
        "model_flops": plan.model_flops,
        "compiled_flops": plan.compiled_flops,
        "flops_ratio": plan.compiled_flops / plan.model_flops,
        "flops_ratio_without_remade": (plan.compiled_flops - plan.remade_flops) / plan.model_flops,
        "flops_ratio_of_update": plan.update_flops / plan.model_flops,
        "memory_traffic_bytes": plan.memory_bytes,
        "wire_bytes": {axis: round(total) for axis, (total, _) in by_axis(plan).items()},
        "expected_wire_bytes": {axis: round(size) for axis, size in plan.expected_wire.items()},
        "unread_wire_bytes": round(sum(each.unread_bytes for each in plan.collectives)),
        "collectives": [
            {
                "kind": kind,
                "axes": axes,
                "count": number,
                "runs": runs,
                "bytes": round(size),
                "overlapped": beside,
            }
            for (kind, axes, beside), (number, runs, size) in by_kind(plan).items()
        ],
        **timed(plan),
        "compile_s": round(plan.compile_s, 1),
        "jax": jax.__version__,
        "libtpu": plan.libtpu,
    }


def timed(plan) -> dict[str, Any]:
    """The part of a record that is about time and money, of a compiled plan or an analytic one."""
    time, best, worst = plan.time, plan.time.best_s, plan.time.worst_s
    found = {
        "compute_s": time.compute_s,
        "memory_s": time.memory_s,
        "wire_waiting_s": time.waiting_s,
        "wire_overlapped_s": time.overlapped_s,
        "step_s": [best, worst],
        "tokens_per_s": [plan.tokens / worst, plan.tokens / best],
        "mfu": [mfu(plan, worst), mfu(plan, best)],
        "tokens_per_day": [plan.tokens / worst * 86400, plan.tokens / best * 86400],
    }
    if plan.request.price is not None:
        per_hour = plan.request.price * plan.chips
        found |= {"dollars_per_hour": per_hour, "dollars_per_billion_tokens": dollars(plan, per_hour)}
    return found


def mfu(plan, seconds: float) -> float:
    """Of a step that takes so long, by convention A."""
    return plan.model_flops / seconds / plan.chip.flops


def dollars(plan, per_hour: float) -> list[float]:
    """For a thousand million tokens, at best and at worst."""
    return [
        1e9 / plan.tokens * seconds / 3600 * per_hour for seconds in (plan.time.best_s, plan.time.worst_s)
    ]


def by_kind(plan) -> dict[tuple[str, str, bool], tuple[int, float, float]]:
    """{(kind, axes, overlapped): (collectives in the program, runs in a step, bytes that a chip sends)}."""
    found: dict[tuple[str, str, bool], tuple[int, float, float]] = {}
    for each in plan.collectives:
        key = each.kind, "+".join(each.axes), each.overlapped
        number, runs, size = found.get(key, (0, 0.0, 0.0))
        found[key] = (number + 1, runs + each.runs, size + each.wire_bytes)
    return dict(sorted(found.items(), key=lambda item: -item[1][2]))


def by_axis(plan) -> dict[str, tuple[float, float]]:
    """{axes: (bytes that a chip sends, those of them beside arithmetic)}."""
    sent: collections.Counter[str] = collections.Counter()
    beside: collections.Counter[str] = collections.Counter()
    for each in plan.collectives:
        sent["+".join(each.axes)] += each.wire_bytes
        beside["+".join(each.axes)] += each.wire_bytes * each.overlapped
    return {axis: (size, beside[axis]) for axis, size in sent.items()}


def lines(plan) -> list[str]:
    """Each begins with what it is about."""
    chip = plan.chip
    head = chip.hbm_bytes - plan.total_bytes
    ratio = plan.compiled_flops / plan.model_flops
    apart = ""
    if plan.remade_flops:
        share = (plan.compiled_flops - plan.remade_flops) / plan.model_flops
        apart = f", {share:.3f} without the scores that attention's kernels make anew for each other"
    if plan.update_flops:
        apart += f", {plan.update_flops / plan.model_flops:.3f} of it in the optimizer's update"
    told = [
        f"plan     {plan.recipe.name} on {plan.request.topology}, {plan.chips} chips, "
        f"{describe(plan.mesh_sizes)}; compiled in {plan.compile_s:.0f} s, never run: all below is predicted",
        f"memory   {gib(plan.total_bytes)} of {gib(chip.hbm_bytes)} a chip, {gib(head)} to spare: "
        f"{gib(plan.argument_bytes)} state and batch, {gib(plan.temporary_bytes)} beside it at one time, "
        f"{gib(plan.output_bytes)} output (in the state's place), {gib(plan.code_bytes)} program",
        f"         closed form, without compiling: {gib(plan.estimated.total)}, of it "
        f"{gib(plan.estimated.arguments)} state and batch",
        *([f"host     {gib(plan.host_bytes)} of its memory a chip, offloaded"] if plan.host_bytes else []),
        f"FLOPs    a chip and step: {plan.compiled_flops:.4g} in the compiled matmuls, "
        f"{plan.model_flops:.4g} in the model (6 N + 12 L d T a token); ratio {ratio:.3f}{apart}",
        f"traffic  {plan.memory_bytes:.4g} bytes between a chip and its memory, at least",
    ]
    for (kind, axes, beside), (number, runs, size) in by_kind(plan).items():
        how = "beside arithmetic" if beside else "the step waits"
        told.append(
            f"wires    {axes}: {number} {kind}, {runs:.0f} runs, {size / 1e6:,.1f} MB a chip and step, {how}"
        )
    sent, closed = by_axis(plan), plan.expected_wire
    for axis in {**closed, **sent} if len({**closed, **sent}) > 1 else ():
        of_closed = f", closed form {closed[axis] / 1e6:,.1f} MB" if axis in closed else ""
        told.append(f"         {axis}: {sent.get(axis, (0.0, 0.0))[0] / 1e6:,.1f} MB{of_closed}")
    if closed:
        got, should = sum(size for size, _ in sent.values()), sum(closed.values())
        rates = ", ".join(f"{plan.bandwidths[axis] / 1e9:.0f} GB/s a chip along {axis}" for axis in closed)
        told.append(
            f"         all {got / 1e6:,.1f} MB, closed form {should / 1e6:,.1f} MB, "
            f"ratio {got / should:.2f}; {rates}"
        )
        if unread := sum(each.unread_bytes for each in plan.collectives):
            told.append(
                f"         of it {unread / 1e6:,.1f} MB that the last turns of loops send and nobody reads; "
                f"ratio {(got - unread) / should:.2f} without them"
            )
    if plan.unknown_loops:
        told.append(f"         loops whose turns are unknown, counted once: {', '.join(plan.unknown_loops)}")
    told += timed_lines(plan)
    told.append(f"with     jax {jax.__version__}, libtpu {plan.libtpu}; chips' rates from vendors' sheets")
    return told


def timed_lines(plan) -> list[str]:
    """Time, speed and money, of a compiled plan or an analytic one."""
    time, chip, best, worst = plan.time, plan.chip, plan.time.best_s, plan.time.worst_s
    told = [
        f"step     {1e3 * best:.1f} to {1e3 * worst:.1f} ms, bound by {time.bound}: arithmetic "
        f"{1e3 * time.compute_s:.1f} ms at {chip.flops / 1e12:g} TFLOP/s, memory "
        f"{1e3 * time.memory_s:.1f} ms at {chip.hbm_bandwidth / 1e9:g} GB/s, wires "
        f"{1e3 * time.waiting_s:.1f} waiting and {1e3 * time.overlapped_s:.1f} beside",
        "         at best all at once but for waiting wires; at worst one after the other, matmuls at 80 %",
        f"speed    {speed(plan)}, {plan.tokens / worst * 86400 / 1e9:,.2f} to "
        f"{plan.tokens / best * 86400 / 1e9:,.2f} thousand million tokens a day",
    ]
    if plan.request.price is not None:
        per_hour = plan.request.price * plan.chips
        low, high = dollars(plan, per_hour)
        told.append(
            f"cost     ${per_hour:,.2f} an hour; ${low:,.2f} to ${high:,.2f} a thousand million tokens; "
            f"all {plan.recipe.steps:,} steps ${low * total(plan):,.0f} to ${high * total(plan):,.0f}"
        )
    return told


def speed(plan) -> str:
    """Tokens per second and MFU, at worst and at best."""
    best, worst = plan.time.best_s, plan.time.worst_s
    return (
        f"{plan.tokens / worst:,.0f} to {plan.tokens / best:,.0f} tokens/s, MFU "
        f"{100 * mfu(plan, worst):.1f} to {100 * mfu(plan, best):.1f} % (convention A)"
    )


def total(plan) -> float:
    """Thousand million tokens of the whole run."""
    return plan.tokens * plan.recipe.steps / 1e9


def gib(size: float) -> str:
    return f"{size / GiB:.2f} GiB"
