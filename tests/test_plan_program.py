"""What the planner reads of compiled programs: collectives, arithmetic, memory traffic.

Programs are compiled for the eight virtual CPU devices, so that every count has a hand-made number beside it.
What only the TPU's compiler writes is read from a text in its form.
"""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from training import ROWS, eight_devices, mesh_of, parts_of, rows_of

import train
from zoo.models.gpt import GPTConfig
from zoo.plan.abstract import tiled_size
from zoo.plan.collectives import collectives_of
from zoo.plan.matmuls import made_anew, matmul_flops, meetings
from zoo.plan.program import read_program
from zoo.plan.traffic import memory_bytes

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

%all-reduce-scatter.2 (one: bf16[16,8], two: bf16[8]) -> (bf16[2,8], bf16[1]) {
  %one = bf16[16,8]{1,0:T(8,128)(2,1)} parameter(0)
  %two.1 = bf16[8]{0:T(256)(128)(2,1)} parameter(1)
  %all-reduce.2 = (bf16[16,8]{1,0:T(8,128)(2,1)}, bf16[8]{0:T(256)(128)(2,1)}) all-reduce(%one, %two.1), \
channel_id=8, replica_groups={{0,1,2,3,4,5,6,7}}, use_global_device_ids=true, to_apply=%add
  %nought = s32[]{:T(128)} constant(0)
  %sum.1 = bf16[16,8]{1,0:T(8,128)(2,1)} get-tuple-element(%all-reduce.2), index=0
  %part.1 = bf16[2,8]{1,0:T(8,128)(2,1)} dynamic-slice(%sum.1, %nought, %nought), dynamic_slice_sizes={2,8}
  %sum.2 = bf16[8]{0:T(256)(128)(2,1)} get-tuple-element(%all-reduce.2), index=1
  %part.2 = bf16[1]{0:T(256)(128)(2,1)} dynamic-slice(%sum.2, %nought), dynamic_slice_sizes={1}
  ROOT %parts = (bf16[2,8]{1,0:T(8,128)(2,1)}, bf16[1]{0:T(256)(128)(2,1)}) tuple(%part.1, %part.2)
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
  %h = bf16[16,8]{1,0:T(8,128)(2,1)} bitcast(%a)
  %both = (bf16[2,8]{1,0:T(8,128)(2,1)}, bf16[1]{0:T(256)(128)(2,1)}) fusion(%h, %row), kind=kCustom, \
calls=%all-reduce-scatter.2
  ROOT %scattered = f32[8,16]{1,0:T(8,128)} fusion(%g), kind=kCustom, calls=%all-reduce-scatter
}
"""


def test_the_tpus_windowed_loops_and_fused_scatters_are_read_for_what_they_are():
    program = read_program(WINDOWED)
    all_found = collectives_of(program, {"data": 4, "fsdp": 2})
    found = {c.kind: c for c in all_found if c.dtype != "bf16" or c.kind != "reduce-scatter"}
    assert program.runs["body"] == 2
    assert not program.unknown_loops
    permute = found["permute"]
    assert (permute.axes, permute.runs, permute.wire_bytes) == (("data", "fsdp"), 2, 2 * 8 * 16 * 2)
    assert permute.overlapped
    scatter = found["reduce-scatter"]
    assert (scatter.axes, scatter.wire_bytes) == (("data", "fsdp"), 64 * 16 * 4 * 7 / 8)
    assert not scatter.overlapped
    both = next(c for c in all_found if c.dtype == "bf16" and c.shape == (16, 8))  # two sums in one
    assert (both.kind, both.wire_bytes) == ("reduce-scatter", (16 * 8 + 8) * 2 * 7 / 8)
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


def test_a_gather_that_goes_on_beside_a_loop_is_one_gather_and_hidden():
    """Its text stands in three fusions, of which the one in the loop runs at every turn."""
    gather = """%{name} (part: bf16[8,16]) -> bf16[64,16] {{
  %part = bf16[8,16]{{1,0}} parameter(0)
  ROOT %whole = bf16[64,16]{{1,0}} all-gather(%part), channel_id=11, \
replica_groups={{{{0,1,2,3,4,5,6,7}}}}, use_global_device_ids=true, dimensions={{0}}
}}

"""
    names = ("fused_computation.1", "async_collective_fusion.2", "fused_computation.3")
    start, beside, end = (
        f"  %{name}.fusion = bf16[64,16]{{1,0}} fusion(%{operand}), kind=kCustom, calls=%{name}\n"
        for name, operand in zip(names, ("a", "x.1", "a"), strict=True)
    )
    text = WINDOWED.replace(
        "%condition (p", "".join(gather.format(name=name) for name in names) + "%condition (p"
    )
    text = text.replace("  %two = u32", f"{beside}  %two = u32").replace(
        "  %start = u32", f"{start}{end}  %start = u32"
    )
    assert read_program(text).runs["async_collective_fusion.2"] == 2
    (found,) = (c for c in collectives_of(read_program(text), AXES) if c.kind == "all-gather")
    assert (found.runs, found.wire_bytes, found.overlapped) == (1, 64 * 16 * 2 * 7 / 8, True)


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


KERNEL = r"""
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %kernel = f32[8]{0} custom-call(%x), custom_call_target="tpu_custom_call", attributes={kernel_metadata={
"xprof_metadata":"{\"block_q\": 512}"
}}, metadata={op_name="jit(step)/pallas_call"}, backend_config={"custom_call_config":{"body":"TUzv"}}
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %t = (s32[], f32[8]{0}) tuple(%i, %kernel)
}

ENTRY %main (a: f32[8]) -> (s32[], f32[8]) {
  %a = f32[8]{0} parameter(0)
  ROOT %b = (s32[], f32[8]{0}) call(%a), to_apply=%body
}
"""


def test_a_kernels_own_attributes_may_go_over_several_lines():
    program = read_program(KERNEL)
    assert list(program.computations["body"].instructions) == ["p", "x", "kernel", "i", "t"]
    assert program.computations["body"].root.name == "t"
    assert program.runs == {"body": 1.0, "main": 1.0}


def test_the_kernel_of_groups_multiplies_each_row_with_one_matrix():
    text = """HloModule jit_step, is_scheduled=true

ENTRY %main (n: s32[8], x: bf16[1024,64], w: bf16[8,64,256]) -> bf16[1024,256] {
  %n = s32[8]{0} parameter(0)
  %x = bf16[1024,64]{1,0} parameter(1)
  %w = bf16[8,64,256]{2,1,0} parameter(2)
  ROOT %ragged-dot-none.1 = bf16[1024,256]{1,0} custom-call(%n, %x, %w), custom_call_target="tpu_custom_call"
}
"""
    assert matmul_flops(read_program(text)) == 2 * 1024 * 64 * 256


def test_what_a_kernel_makes_anew_is_all_but_two_of_its_products():
    """Of splash's 2, 3 and 4 products the forward kernel repeats none, the backward ones 1 and 2."""
    kernels = "\n".join(
        f"  %{name}.1 = bf16[4,256,64]{{2,1,0}} custom-call(%q, %k), custom_call_target="
        for name in ("splash_mha_fwd", "splash_mha_dq", "splash_mha_dkv")
    ).replace("custom_call_target=", 'custom_call_target="tpu_custom_call"')
    text = f"""HloModule jit_step, is_scheduled=true

ENTRY %main (q: bf16[4,256,64], k: bf16[4,256,64]) -> bf16[4,256,64] {{
  %q = bf16[4,256,64]{{2,1,0}} parameter(0)
  %k = bf16[4,256,64]{{2,1,0}} parameter(1)
{kernels}
  ROOT %out = bf16[4,256,64]{{2,1,0}} bitcast(%splash_mha_dkv.1)
}}
"""
    program, product = read_program(text), 2.0 * 4 * 256 * 64 * 256
    assert matmul_flops(program) == (2 + 3 + 4) * product
    assert made_anew(program) == pytest.approx((1 + 2) * product)
