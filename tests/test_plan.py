"""The planner: reading compiled programs, closed forms beside them, and what it refuses.

Programs are compiled for the eight virtual CPU devices, so that every count has a hand-made number beside it.
What only the TPU's compiler writes is read from a text in its form; tests that need that compiler are marked
`plan` and are skipped where the extra of that name is not installed.
"""

import dataclasses
import functools
import importlib.util
import json
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from training import ROWS, eight_devices, mesh_of, parts_of, rows_of

import train
from zoo import data
from zoo.errors import ConfigError
from zoo.feed import training_batches
from zoo.models.gpt import GPTConfig
from zoo.plan import Request, expected, requested
from zoo.plan.abstract import abstract_data, bytes_per_device, placed_batch, placed_state, tiled_size
from zoo.plan.chips import CHIPS, GiB
from zoo.plan.collectives import Collective, collectives_of
from zoo.plan.matmuls import matmul_flops, meetings
from zoo.plan.planner import asked_for
from zoo.plan.program import read_program
from zoo.plan.remedies import check_rows, smallest_change
from zoo.plan.roofline import Roofline, roofline
from zoo.plan.topology import TOPOLOGIES, check_topology, count
from zoo.plan.traffic import memory_bytes
from zoo.recipes import CONFIGS
from zoo.tasks import MaskedPairs

ROOT = Path(__file__).parents[1]
AXES = {"data": 2, "fsdp": 2, "tensor": 2}


def text_of(f, *args):
    return jax.jit(f).lower(*args).compile().as_text()


def read(f, *args):
    return read_program(text_of(f, *args))


def on(mesh, shape, *spec):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*spec)))


# --- collectives ----------------------------------------------------------------------------------


@eight_devices
@pytest.mark.parametrize(
    ("kind", "operation", "share", "axes"),
    [
        # A shard is 64 float32 numbers, 256 bytes; what is gathered over n devices n times as many.
        ("all-gather", lambda x: lax.all_gather(x, "fsdp", tiled=True), 256 * 1, ("fsdp",)),
        (
            "all-gather",
            lambda x: lax.all_gather(x, ("data", "tensor"), tiled=True),
            256 * 3,
            ("data", "tensor"),
        ),
        ("reduce-scatter", lambda x: lax.psum_scatter(x, "data", tiled=True), 256 * 1 / 2, ("data",)),
        ("all-reduce", lambda x: lax.psum(x, ("fsdp", "tensor")), 256 * 2 * 3 / 4, ("fsdp", "tensor")),
        ("all-to-all", lambda x: lax.all_to_all(x, "tensor", 0, 0, tiled=True), 256 * 1 / 2, ("tensor",)),
        ("permute", lambda x: lax.ppermute(x, "data", [(0, 1), (1, 0)]), 256, ("data",)),
    ],
)
def test_each_kind_of_collective_has_its_bytes_and_its_axes(kind, operation, share, axes):
    mesh = mesh_of((2, 2, 2))
    moved = jax.shard_map(
        operation, mesh=mesh, in_specs=P(("data", "fsdp", "tensor")), out_specs=P(), check_vma=False
    )
    (found,) = collectives_of(read(moved, on(mesh, (64 * 8,))), AXES)
    assert (found.kind, found.axes, found.wire_bytes, found.runs) == (kind, axes, share, 1)


@eight_devices
def test_weights_spread_over_the_batchs_axis_are_gathered_and_their_gradient_is_summed():
    mesh = mesh_of((1, 8, 1))
    x, w = on(mesh, (32, 64), "fsdp"), on(mesh, (64, 128), "fsdp")
    gradient = jax.grad(lambda w, x: ((x @ w) ** 2).sum())
    compiled = jax.jit(gradient, out_shardings=w.sharding).lower(w, x).compile()
    found = {c.kind: c for c in collectives_of(read_program(compiled.as_text()), {"fsdp": 8})}
    assert found["all-gather"].wire_bytes == 64 * 128 * 4 * 7 / 8
    # A CPU sums everything and keeps a part (2 x 7/8), a TPU scatters sums (7/8).
    sums = found.get("reduce-scatter") or found["all-reduce"]
    assert sums.payload == 64 * 128 * 4
    assert all(c.axes == ("fsdp",) and not c.overlapped for c in found.values())


@eight_devices
def test_a_collective_in_a_loop_counts_at_every_turn_and_in_nested_ones_at_every_turn_of_both():
    mesh = mesh_of((1, 8, 1))

    def summed(x):
        def outer(x, _):
            x, _ = lax.scan(lambda x, _: (lax.psum(x, "fsdp") * 0.1, None), x, None, length=5)
            return x, None

        return lax.scan(outer, x, None, length=3)[0]

    moved = jax.shard_map(summed, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    (found,) = collectives_of(read(moved, on(mesh, (64,))), {"fsdp": 8})
    assert found.runs == 15
    assert found.wire_bytes == 15 * 64 * 4 * 2 * 7 / 8


# What the TPU's compiler makes of a gather that a matmul can begin before: a loop of two turns (from 0 to 4
# by 2) in which permutes bring parts; and of a scattered sum: a fusion of an all-reduce and a slice.
WINDOWED = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

%all-reduce-scatter (input: f32[64,16]) -> f32[8,16] {
  %input = f32[64,16]{1,0:T(8,128)} parameter(0)
  %all-reduce.1 = f32[64,16]{1,0:T(8,128)} all-reduce(%input), channel_id=7, \
replica_groups={{0,1,2,3,4,5,6,7}}, use_global_device_ids=true, to_apply=%add
  %zero = s32[]{:T(128)} constant(0)
  ROOT %part = f32[8,16]{1,0:T(8,128)} dynamic-slice(%all-reduce.1, %zero, %zero), dynamic_slice_sizes={8,16}
}

%condition (p: (bf16[8,16], u32[])) -> pred[] {
  %four = u32[]{:T(128)} constant(4)
  %p = (bf16[8,16]{1,0:T(8,128)(2,1)S(1)}, u32[]{:T(128)}) parameter(0)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  ROOT %less = pred[]{:T(512)} compare(%i, %four), direction=LT
}

%body (p.1: (bf16[8,16], u32[])) -> (bf16[8,16], u32[]) {
  %p.1 = (bf16[8,16]{1,0:T(8,128)(2,1)S(1)}, u32[]{:T(128)}) parameter(0)
  %x.1 = bf16[8,16]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%p.1), index=0
  %i.1 = u32[]{:T(128)} get-tuple-element(%p.1), index=1
  %two = u32[]{:T(128)} constant(2)
  %begun = (bf16[8,16]{1,0:T(8,128)(2,1)S(1)}, bf16[8,16]{1,0:T(8,128)(2,1)S(1)}, u32[]{:S(2)}, \
u32[]{:S(2)}) collective-permute-start(%x.1), channel_id=3, \
source_target_pairs={{0,1},{1,2},{2,3},{3,4},{4,5},{5,6},{6,7},{7,0}}
  %product = bf16[8,8]{1,0:T(8,128)(2,1)S(1)} convolution(%x.1, %x.1), dim_labels=bf_oi->bf
  %came = bf16[8,16]{1,0:T(8,128)(2,1)S(1)} collective-permute-done(%begun)
  %next = u32[]{:T(128)} add(%i.1, %two)
  ROOT %out = (bf16[8,16]{1,0:T(8,128)(2,1)S(1)}, u32[]{:T(128)}) tuple(%came, %next)
}

ENTRY %main (a: bf16[8,16], g: f32[64,16]) -> f32[8,16] {
  %a = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  %g = f32[64,16]{1,0:T(8,128)} parameter(1)
  %start = u32[]{:T(128)} constant(0)
  %first = (bf16[8,16]{1,0:T(8,128)(2,1)S(1)}, u32[]{:T(128)}) tuple(%a, %start)
  %loop = (bf16[8,16]{1,0:T(8,128)(2,1)S(1)}, u32[]{:T(128)}) while(%first), condition=%condition, body=%body
  %row = bf16[16]{0:T(256)(128)(2,1)} all-reduce(%a), channel_id=9, \
replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, use_global_device_ids=true, to_apply=%add
  ROOT %scattered = f32[8,16]{1,0:T(8,128)} fusion(%g), kind=kCustom, calls=%all-reduce-scatter
}
"""


def test_the_tpus_windowed_loops_and_fused_scatters_are_read_for_what_they_are():
    program = read_program(WINDOWED)
    found = {c.kind: c for c in collectives_of(program, {"data": 4, "fsdp": 2})}
    assert program.runs["body"] == 2
    assert not program.unknown_loops
    permute = found["permute"]
    assert (permute.axes, permute.runs, permute.wire_bytes) == (("data", "fsdp"), 2, 2 * 8 * 16 * 2)
    assert permute.overlapped
    scatter = found["reduce-scatter"]
    assert (scatter.axes, scatter.wire_bytes) == (("data", "fsdp"), 64 * 16 * 4 * 7 / 8)
    assert not scatter.overlapped
    assert found["all-reduce"].axes == ("fsdp",)
    assert matmul_flops(program) == 2 * 2 * 8 * 8 * 16


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", ("tensor",)),
        ("[4,2]<=[8]", ("tensor",)),
        ("[4,2]<=[2,2,2]T(0,2,1)", ("fsdp",)),
        ("mesh['a'=4,'b'=2] {'b'}", ("tensor",)),
        ("mesh['a'=2,'b'=2,'c'=2] {'a','c'}", ("data", "tensor")),
        ("mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}", ("tensor",)),
        ("mesh['a'=8] {'a':(1)2}", ("?",)),
        ("{{0,3},{1,2},{4,7},{5,6}}", ("?",)),
    ],
)
def test_groups_of_devices_in_every_form_are_the_axes_they_differ_in(groups, axes):
    text = WINDOWED.replace("mesh['axis_0'=4,'axis_1'=2] {'axis_1'}", groups)
    (found,) = (c for c in collectives_of(read_program(text), AXES) if c.kind == "all-reduce")
    assert found.axes == axes


def test_a_gather_that_is_written_as_a_sum_of_parts_is_named_and_counts_twice():
    put = "%part0 = bf16[64,16]{1,0} dynamic-update-slice(%zeros, %a, %start, %start)\n  "
    put += "%row = bf16[64,16]{1,0}"
    text = WINDOWED.replace("%row = bf16[16]{0:T(256)(128)(2,1)} all-reduce(%a)", f"{put} all-reduce(%part0)")
    found = {c.kind: c for c in collectives_of(read_program(text), {"data": 4, "fsdp": 2})}
    assert found["gather by all-reduce"].wire_bytes == 2 * 64 * 16 * 2 / 2


def test_a_loop_that_cannot_be_read_is_counted_once_and_named():
    program = read_program(WINDOWED.replace("constant(4)", "parameter(1)"))
    assert program.runs["body"] == 1
    assert program.unknown_loops == ["loop"]


# --- arithmetic and memory ------------------------------------------------------------------------


@eight_devices
def test_the_flops_of_a_sharded_matmul_are_each_devices_share():
    mesh = mesh_of((4, 1, 2))
    x, w = on(mesh, (64, 32), "data"), on(mesh, (32, 128), None, "tensor")
    assert matmul_flops(read(jnp.dot, x, w)) == 2 * 64 * 32 * 128 / 8


def test_a_scanned_stack_has_the_flops_of_its_unrolled_twin():
    def stack(unroll, x, w):
        return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w, unroll=unroll)[0].sum()

    x, w = jnp.zeros((16, 32)), jnp.zeros((12, 32, 32))
    scanned, unrolled = (
        matmul_flops(read(jax.grad(functools.partial(stack, unroll), argnums=1), x, w)) for unroll in (1, 12)
    )
    one = 2 * 16 * 32 * 32
    assert scanned == 3 * 12 * one
    assert unrolled == (3 * 12 - 1) * one  # unrolled, the first layer's input is seen to need no gradient


def test_a_convolution_that_stands_for_a_batched_matmul_counts_real_products_alone():
    """Eight rows by twelve heads as positions of a window: 96 pairs meet, and not 96 x 96."""
    assert (
        meetings(size_in=8, size_window=8, size_out=8, stride=7, pad_low=0, dilation_in=8, dilation_window=1)
        == 8
    )
    text = """ENTRY %main (q: bf16[8,12,64,32], k: bf16[8,12,64,32]) -> f32[8,12,64,64] {
  %q = bf16[8,12,64,32]{3,2,1,0} parameter(0)
  %k = bf16[8,12,64,32]{3,2,1,0} parameter(1)
  ROOT %s = f32[8,12,64,64]{3,2,1,0} convolution(%q, %k), window={size=8x12 stride=7x11 lhs_dilate=8x12}, \
dim_labels=01bf_01oi->01bf
}
"""
    assert matmul_flops(read_program(text)) == 2 * 8 * 12 * 64 * 64 * 32


def test_the_model_flops_of_a_gpt_are_those_of_its_compiled_matmuls():
    """Attention counted in full, 0.95 to 1.05; without the positions' table, which no matmul reads."""
    config = GPTConfig(
        vocab_size=512, max_length=64, num_layers=3, num_heads=4, d_model=128, dropout_rate=0.0
    )
    ratio = flops_ratio(config)
    assert 0.95 <= ratio <= 1.05


def test_full_recomputation_costs_what_a_second_forward_pass_of_the_layers_costs():
    """Less its last matmul, whose product nobody reads: compilers leave it out."""
    shape = {"vocab_size": 512, "max_length": 64, "num_layers": 3, "num_heads": 4, "d_model": 128}
    plain, full = (
        flops_ratio(GPTConfig(**shape, dropout_rate=0.0, remat=remat)) for remat in ("none", "full")
    )
    D, T, N, V = 128, 64, 3, 512
    forward = N * (2 * 12 * D * D + 4 * T * D)
    model = 3 * (forward + 2 * V * D)
    assert full / plain == pytest.approx(1 + (forward - N * 2 * 4 * D * D) / model, rel=0.02)


def flops_ratio(config):
    parts = parts_of(GPTConfig, model=train.models.create(config))
    batch = jax.tree.map(jnp.asarray, rows_of(0, range(ROWS)))
    batch.pop("begins")
    state = jax.eval_shape(parts.init)
    text = jax.jit(parts.step).lower(state, batch).compile().as_text()
    tokens = batch["targets"].size
    positions = config.max_length * config.d_model
    model = (config.flops_per_token(batch["targets"].shape[1]).full - 6 * positions) * tokens
    return matmul_flops(read_program(text)) / model


def test_memory_traffic_of_a_loop_reads_the_slice_of_each_turn():
    w = jnp.zeros((10, 64, 64))
    moved = memory_bytes(
        read(lambda x, w: lax.scan(lambda x, w: (x @ w, None), x, w)[0], jnp.zeros((64, 64)), w)
    )
    once = 64 * 64 * 4
    assert 10 * 3 * once <= moved <= 10 * 8 * once  # and not ten times the whole stack: 10 x 10


def test_memory_traffic_of_a_stack_writes_the_slice_of_each_turn():
    def stack(x):
        return lax.scan(lambda x, _: (x * 2, x + 1), x, None, length=50)[1]

    made = memory_bytes(read(stack, jnp.zeros((64, 64))))
    once = 64 * 64 * 4
    assert 50 * 2 * once <= made <= 50 * 12 * once  # and not fifty times the whole stack: 50 x 50


def test_arrays_are_filled_up_to_tiles_where_least_is_wasted():
    assert tiled_size((12, 96, 12, 64)) == 12 * 12 * 64 * 128
    assert tiled_size((768,)) == 768
    assert tiled_size(()) == 1
    assert tiled_size((50304, 96)) == 50304 * 96  # 50,304 is 393 x 128, and 96 is 12 x 8


# --- closed forms ---------------------------------------------------------------------------------


def step_on(mesh, **changes):
    """(parts, recipe, state, batch, compiled program) of a tiny float32 GPT on the eight CPU devices."""
    model = GPTConfig(vocab_size=256, max_length=32, num_layers=2, num_heads=8, d_model=64, dropout_rate=0.0)
    rows = {"tokenizer": "byte", "vocab_size": 0, "length": 32, "batch_size": 16}
    recipe = dataclasses.replace(
        CONFIGS["gpt_stdlib"],
        model=dataclasses.replace(model, **changes),
        data=dataclasses.replace(CONFIGS["gpt_stdlib"].data, **rows),
    )
    given = abstract_data(recipe)
    parts = train.step_of(recipe, given)
    state, batch = placed_state(parts, mesh), placed_batch(parts.task, given, mesh)
    return parts, recipe, state, batch


def compiled_on(mesh, parts, state, batch):
    with jax.set_mesh(mesh):
        return parts.compiled(mesh).lower(state, batch).compile()


@eight_devices
def test_the_planned_step_is_the_one_that_trains(tmp_path):
    """The same program from shapes as from a run's first state and a batch of its data."""
    mesh = mesh_of((2, 4, 1))
    recipe = dataclasses.replace(step_on(mesh)[1], data=text_in(tmp_path, "gpt_stdlib"))
    dataset = data.load(recipe.data, recipe.seed)
    parts, given = train.step_of(recipe, dataset), abstract_data(recipe)
    with jax.set_mesh(mesh):
        batch = next(training_batches(dataset, recipe.task, mesh, 0, 1))
        trained = parts.compiled(mesh).lower(parts.init_on(mesh), batch).as_text()
        parts = train.step_of(recipe, given)
        planned = parts.compiled(mesh).lower(placed_state(parts, mesh), placed_batch(parts.task, given, mesh))
    assert planned.as_text() == trained


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gpt_stdlib", {"layout": "packed"}),
        ("lstm_stdlib", {"layout": "streams"}),
        ("bilm_stdlib", {}),
        ("bert_stdlib", {}),
        ("bert_stdlib", {"pairs": "next_sentence", "layout": "padded"}),
    ],
    ids=str,
)
def test_batches_without_data_have_the_shapes_of_those_with(name, changes, tmp_path):
    cfg = text_in(tmp_path, name, **changes)
    task = MaskedPairs() if "pairs" in changes else CONFIGS[name].task
    recipe = types.SimpleNamespace(data=cfg, distill=CONFIGS[name].distill, model=CONFIGS[name].model)
    real, given = data.load(cfg, 0), abstract_data(recipe)
    shapes = [
        jax.tree.map(lambda x: (x.shape, x.dtype), task.batch(examples))
        for examples in (real.batch(0, range(cfg.batch_size)), given.examples())
    ]
    assert shapes[0] == shapes[1]
    assert given.carried_rows == real.carried_rows
    assert name == "bilm_stdlib" or given.sizes == real.sizes  # words: as many as the text has, at most


def text_in(folder, name, **changes):
    """A recipe's data, of a small text in rows of 32."""
    words = ("the", "a", "cat", "mat", "dog", "sat", "ran", "on", "under", "house")
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(words, 9)) + "." for _ in range(400)]
    folder = folder / "corpus"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.txt").write_text("\n".join(lines[number::10]))
    known = {"path": str(folder), "length": 32, "batch_size": 16, "valid_fraction": 0.2}
    known |= (
        {"tokenizer": "byte", "vocab_size": 0}
        if name in ("gpt_stdlib", "lstm_stdlib")
        else {"vocab_size": 44}
    )
    return dataclasses.replace(CONFIGS[name].data, **known | changes)


@eight_devices
def test_the_closed_form_of_data_parallelism_is_what_the_program_sends():
    mesh = mesh_of((8, 1, 1))
    parts, recipe, state, batch = step_on(mesh)
    program = read_program(compiled_on(mesh, parts, state, batch).as_text())
    sent = sum(c.wire_bytes for c in collectives_of(program, dict(mesh.shape)))
    # The tied table's gradient is summed over devices twice: as it is looked up, and as it is read out.
    table = 2 * 7 / 8 * 256 * 64 * 4
    closed = expected.wire_bytes(parts, recipe.model, batch, mesh)["data"] + table
    assert sent == pytest.approx(closed, rel=0.02)


@eight_devices
def test_closed_form_arguments_are_the_compilers_where_nothing_is_tiled():
    mesh = mesh_of((2, 4, 1))
    parts, _, state, batch = step_on(mesh)
    used = compiled_on(mesh, parts, state, batch).memory_analysis()
    assert bytes_per_device((state, batch), numbers=math.prod) == used.argument_size_in_bytes


@eight_devices
def test_recomputing_keeps_less_and_micro_batches_need_less_at_a_time():
    mesh = mesh_of((8, 1, 1))
    sizes = {}
    for remat in ("none", "full"):
        parts, recipe, state, batch = step_on(mesh, remat=remat, num_layers=8, max_length=64)
        sizes[remat] = expected.memory(parts, recipe.model, state, batch, mesh).temporary
    assert sizes["full"] < 0.7 * sizes["none"]


@eight_devices
def test_parameters_that_are_frozen_send_no_gradients():
    mesh, (_, recipe, _, _) = mesh_of((8, 1, 1)), step_on(mesh_of((8, 1, 1)))
    given = abstract_data(recipe)
    sizes = {}
    for freeze in ("", "blocks/*"):
        finetune = dataclasses.replace(recipe.finetune, freeze=(freeze,) if freeze else ())
        parts = train.step_of(dataclasses.replace(recipe, finetune=finetune), given)
        batch = placed_batch(parts.task, given, mesh)
        sizes[freeze] = expected.wire_bytes(parts, recipe.model, batch, mesh)["data"]
    blocks = parts.model.abstract()["blocks"]
    held = sum(spec.size for spec in jax.tree.leaves(blocks)) * 4
    assert sizes[""] - sizes["blocks/*"] == pytest.approx(2 * 7 / 8 * held)


def test_a_roofline_adds_what_the_step_waits_for_and_overlaps_the_rest():
    chip = CHIPS["v5e"]
    waits = Collective("all-gather", ("fsdp",), 8, 1.0, "bf16", (8,), 8 * 90e9 / 7, overlapped=False)
    found = roofline(197e12, 819e9 / 2, [waits], chip, {"fsdp": 90e9})
    assert found == Roofline(compute_s=1.0, memory_s=0.5, waiting_s=pytest.approx(1.0), overlapped_s=0.0)
    assert found.best_s == pytest.approx(2.0)
    assert found.worst_s == pytest.approx(1.25 + 0.5 + 1.0)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("v5e:3x3", "no such slice of v5e; there are v5e:2x2, v5e:2x4"),
        ("v5e:2x5x1", "no such slice of v5e"),
        ("v5e-2x4", "did you mean 'v5e:2x4'?"),
        ("h200", "no such topology"),
    ],
)
def test_a_topology_that_does_not_exist_is_one_line(name, says):
    with pytest.raises(ConfigError) as caught:
        check_topology(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_topology_is_of_a_chip_that_is_known():
    for name in TOPOLOGIES:
        check_topology(name)
        assert name.partition(":")[0] in CHIPS
    assert {count(name) for name in TOPOLOGIES if name.startswith("v5p")} >= {4, 64, 256}
    assert max(count(name) for name in TOPOLOGIES if name.startswith("v5e")) == 256


def test_the_command_line_gives_up_its_plan_and_keeps_the_rest():
    line = "gpt2 --plan v5e:2x4 --mesh.fsdp 8 --price=1.2"
    assert requested(line.split()) == (Request("v5e:2x4", 1.2), ["gpt2", "--mesh.fsdp", "8"])
    assert requested(["gpt2"]) == (None, ["gpt2"])


def test_help_names_the_flags_that_are_no_fields(capsys):
    with pytest.raises(SystemExit):
        train.main(["gpt2", "--help"])
    assert "--plan TOPOLOGY" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("gpt2 --plan", "--plan: needs a value"),
        ("gpt2 --plan --price 1", "--plan: needs a value"),
        ("gpt2 --price 1", "give --plan TOPOLOGY too"),
        ("gpt2 --plan v5e:2x4 --price cheap", "--price=cheap"),
        ("gpt2 --plan v5e:2x4 --price -1", "--price=-1"),
        ("gpt2 --plan v5e:2x4 --plan v5e:2x2", "given twice"),
        ("gpt2 --plan v5e:9x9", "no such slice"),
        ("gpt2 --plan v5e:2x4 --mesh.fsdp 3", "does not fit 8 devices"),
        ("gpt2_xl --plan v5p:4x4x4 --mesh.fsdp 64", "give --data.batch-size 512 --accumulate 1"),
        ("lstm_ptb_large --plan v5e:2x2", "say it, as in --model.vocab-size 10000"),
        ("slot_snips --plan v5e:2x2", "text, masked and dialogues are planned"),
        ("gpt2 --plan v5e:2x4 --distill.teacher runs/x", "leave distill.teacher out"),
        ("gpt2 --plan v5e:2x4 --modle.remat full", "no such field"),
    ],
)
def test_what_cannot_be_planned_is_one_line_and_exit_code_2(line, says, capsys):
    assert train.main(line.split()) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not told.out


def test_without_the_compiler_the_extra_is_named_and_nothing_is_set(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "libtpu.so"))
    assert train.main(["gpt2", "--plan", "v5e:2x4"]) == 2
    assert capsys.readouterr().err.strip().endswith('pip install -e ".[plan]"')
    assert os.environ.get("ALLOW_MULTIPLE_LIBTPU_LOAD") is None


def test_rows_that_do_not_divide_name_numbers_that_do():
    recipe = CONFIGS["gpt2_xl"]  # 480 rows in 40 parts
    with pytest.raises(ConfigError, match="give --data.batch-size 512 --accumulate 1"):
        check_rows(recipe, {"data": 1, "fsdp": 64, "tensor": 1})
    check_rows(recipe, {"data": 1, "fsdp": 4, "tensor": 3})


@eight_devices
def test_the_smallest_change_that_fits_is_named():
    mesh = mesh_of((8, 1, 1))
    parts, recipe, state, batch = step_on(mesh, num_layers=8)
    data = abstract_data(recipe)
    needed = expected.memory(parts, recipe.model, state, batch, mesh).total
    little = smallest_change(recipe, train.step_of, data, mesh, available=0.99 * needed, scale=1.0)
    assert little.startswith("--model.remat dots should")
    nothing = smallest_change(recipe, train.step_of, data, mesh, available=1, scale=1.0)
    assert nothing == "no recomputation, accumulation or mesh of this slice would; take a larger one"


def test_what_the_compiler_says_of_too_large_programs_is_read():
    assert asked_for("Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.") == 20.5 * GiB
    assert asked_for("memory required for HLO temporaries (400.00G) exceeds available", GiB) == 401 * GiB
    assert asked_for("something else") is None


# --- with the TPU's compiler ----------------------------------------------------------------------

LIBRARY = os.environ.get("TPU_LIBRARY_PATH", "")
has_libtpu = bool(importlib.util.find_spec("libtpu")) or Path(LIBRARY).is_file()


def planned(line: str, folder) -> dict:
    """What a plan's last line says."""
    environment = {key: value for key, value in os.environ.items() if key != "JAX_NUM_CPU_DEVICES"}
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *line.split()],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "predicted" in done.stdout.splitlines()[0]
    assert not any(folder.iterdir())  # a plan leaves nothing behind
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.plan
@pytest.mark.skipif(not has_libtpu, reason='needs the TPU compiler: pip install -e ".[plan]"')
def test_a_tiny_gpt_is_planned_for_a_slice_of_v5e_and_its_loop_is_counted_as_its_unrolled_twin(tmp_path):
    line = "gpt_stdlib --data.tokenizer byte --data.vocab-size 0 --mesh.fsdp 4 --price 1 --plan v5e:2x2"
    told, unrolled = (planned(f"{line} --model.layer-unroll {unroll}", tmp_path) for unroll in (1, 0))
    assert told["predicted"] and told["fits"] and told["chips"] == 4
    assert told["argument_bytes"] < told["total_bytes"] < told["hbm_bytes"]
    assert 0 < told["mfu"][0] <= told["mfu"][1] < 1
    assert math.isfinite(told["dollars_per_billion_tokens"][0])
    assert told["compiled_flops"] == pytest.approx(unrolled["compiled_flops"], rel=0.01)
