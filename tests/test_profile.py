"""The profile of a train step: every moment belongs to one operation, every operation to a layer."""

import dataclasses
import functools

import jax
import pytest
from training import LENGTH, ROWS, batch_of, initial, mesh_of, parts_of, tiny_model

from benchmarks import layers, trace
from benchmarks.profile import NOT_ATTRIBUTED, Profile, Step, markdown, profile, workload_named
from zoo import xla
from zoo.errors import ConfigError
from zoo.models.gpt import GPTConfig
from zoo.models.rnn import RNNConfig
from zoo.plan.matmuls import matmul_flops
from zoo.plan.program import read_program

MODEL = tiny_model(GPTConfig, d_model=128, d_ff=512)
PATHS = layers.paths_of(["blocks/attention/query/w", "blocks/mlp/up/w", "norm/scale", "tokens/table"])


def test_each_moment_is_given_to_what_began_last():
    spans = [(0, 100, "while"), (10, 40, "matmul"), (30, 60, "add"), (70, 80, "matmul"), (120, 130, "add")]
    found = {name: round(1e9 * total) for name, total in trace.seconds(spans).items()}
    assert found == {"while": 10 + 10 + 20, "matmul": 20 + 10, "add": 30 + 10}


def test_a_span_ends_at_the_mark_behind_it():
    assert trace.ended([5.0, 50.0], begin=10.0, end=20.0) == 50.0
    assert trace.ended([5.0], begin=10.0, end=20.0) == 20.0


@pytest.mark.parametrize(
    ("name", "layer"),
    {
        "jit(step)/jvp(GPT.features)/blocks/closed_call/layers/attention/query/add": "blocks/attention/query",
        "jit(step)/transpose(jvp(GPT.features))/blocks/closed_call/layers/attention/BJTS,BJSK->BJTK/dot": (
            "blocks/attention"
        ),
        "jit(step)/layers/attention/jit(_where)/select_n": "blocks/attention",
        "jit(step)/transpose(jvp(GPT.features))/norm/mul;layers/mlp/up/add": "norm",
        "jit(step)/jvp(GPT.readout)/tokens.attend/BD,VD->BV/dot_general": "readout/tokens",
        "jit(step)/jvp(GPT.features)/add": "features",
        "jit(step)/jvp()/reduce_sum": "loss",
        "jit(step)/sqrt": "update",
        "reduce_or": layers.UNNAMED,
    }.items(),
)
def test_an_operation_is_known_by_the_function_it_came_from(name, layer):
    assert layers.layer_of(name, PATHS) == layer


@functools.cache
def found() -> Profile:
    """Of a small GPT whose step takes long enough to be timed. A machine that is busy with others may take
    a thread away between two operations, so the best of a few."""
    mesh = mesh_of()
    with jax.set_mesh(mesh):
        batches = [batch_of(i, mesh) for i in range(4)]
        step = Step(parts_of(GPTConfig, model=MODEL), batches[0])
        step.times(batches)
        best = profile(step, batches)
        for _ in range(10):
            if best.attributed > 0.95:
                break
            best = max(best, profile(step, batches), key=lambda each: each.attributed)
    return best


@pytest.mark.skipif(
    xla.jaxlib_version() != "0.10.2", reason="0.12's CPU runs a third of a step under no operation's name"
)
def test_rows_sum_to_the_step_and_operations_account_for_nearly_all_of_it():
    rows = found().rows
    assert sum(row.seconds for row in rows) == pytest.approx(found().step_s, rel=1e-9)
    assert rows[-1].layer == NOT_ATTRIBUTED and rows[-1].seconds >= 0
    assert found().attributed > 0.95
    assert f"| sum | {sum(row.flops for row in rows) * 1e-6:,.1f} |" in markdown(found())


def test_flops_of_the_layers_are_the_closed_form():
    cfg = MODEL.config
    tokens, N, D, F, V = ROWS * LENGTH, cfg.num_layers, cfg.d_model, cfg.d_ff, 128  # 65 words, stored as 128
    flops = {row.layer: row.flops for row in found().rows}
    for name in ("query", "key", "value", "out"):
        assert flops[f"blocks/attention/{name}"] == 6 * tokens * N * D * D
    assert flops["blocks/mlp/up"] == flops["blocks/mlp/down"] == 6 * tokens * N * D * F
    assert flops["blocks/attention"] == 12 * tokens * N * LENGTH * D
    assert flops["readout/tokens"] == 6 * tokens * V * D


def test_costs_of_a_recurrent_step_are_all_of_its_matmuls():
    parts, mesh = parts_of(RNNConfig), mesh_of()
    with jax.set_mesh(mesh):
        text = parts.compiled(mesh).lower(initial(parts, mesh), batch_of(0, mesh)).compile().as_text()
    program = read_program(text)
    costs = list(layers.costs(program, layers.paths_of(["layers/state/w"])))
    assert sum(cost.flops for cost in costs) == matmul_flops(program) > 0
    names = [cost.instruction for cost in costs]
    assert len(names) == len(set(names))


def test_a_workload_that_is_none_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'gpt_6x384'"):
        workload_named("gpt_6x38")
    assert dataclasses.is_dataclass(workload_named("lstm_2x200"))
