"""Plans of GPU clusters: names, links, and an analytic report whose numbers follow from each other."""

import json
import types

import pytest

import train
from zoo.data import DataConfig, DialoguesConfig, MaskedConfig
from zoo.errors import ConfigError
from zoo.mesh import MeshConfig
from zoo.plan import Request, estimate, expected
from zoo.plan.analytic import Analytic
from zoo.plan.chips import GPUS
from zoo.plan.estimate import Estimate
from zoo.plan.expected import Held, Memory
from zoo.plan.gpus import cluster, neighbours
from zoo.plan.roofline import Roofline
from zoo.recipes import CONFIGS

P = 124_475_904  # GPT-2's parameters with 50,304 stored rows of its table


def is_planned(name: str) -> bool:
    return isinstance(CONFIGS[name].data, (DataConfig, MaskedConfig, DialoguesConfig))


def told(line: str, capsys) -> tuple[list[str], dict]:
    """Lines and record of a plan."""
    assert train.main(line.split()) == 0
    out = capsys.readouterr().out.splitlines()
    return out[:-1], json.loads(out[-1])


def test_every_gpu_has_less_network_than_nvlink_and_less_of_both_than_memory():
    for name, chip in GPUS.items():
        assert cluster(f"{name}:8x4").count == 32
        assert chip.network_bandwidth < chip.nvlink_bandwidth < chip.hbm_bandwidth
    assert GPUS["a100"].flops < GPUS["h100"].flops == GPUS["h200"].flops < GPUS["b200"].flops


@pytest.mark.parametrize("shape", ["", "8", "16x4", "8x0", "0x8", "8x4x2", "8x-1", "axb"])
def test_a_cluster_that_cannot_be_is_one_line(shape):
    with pytest.raises(ConfigError) as caught:
        cluster(f"h100:{shape}")
    assert "as in h100:8x4" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("gpt2 --plan h900:8x4", "GPUs a node and nodes, such as h100:8x4, of a100, h100, h200, b200"),
        ("gpt2 --plan h100:9x4", "at most 8"),
        ("gpt2 --plan h100:8x4 --mesh.fsdp 3", "does not fit 32 devices"),
        ("gpt2 --plan h100:7x1 --mesh.data 7", "give --data.batch-size 483"),
        ("gpt2 --model gpt3_13b --plan h100:8x1 --mesh.fsdp 8", "does not fit h100:8x1 by the closed form"),
    ],
)
def test_what_cannot_be_planned_is_one_line_and_exit_code_2(line, says, capsys):
    assert train.main(line.split()) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not told.out


@pytest.mark.parametrize(
    ("sizes", "members"),
    [
        ((4, 4, 2), (1, 0, 0)),  # one of each node; four of one node; pairs
        ((1, 32, 1), (0, 8, 0)),  # all: eight in each
        ((2, 2, 8), (1, 1, 0)),  # each axis but the last has one in a node
        ((2, 16, 1), (1, 8, 0)),
        ((4, 2, 4), (1, 0, 0)),
        ((1, 2, 16), (0, 1, 8)),
    ],
)
def test_an_axis_leaves_the_node_where_its_devices_do(sizes, members):
    found = neighbours(dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)), per_node=8)
    assert tuple(found.values()) == members


def test_an_axis_that_leaves_the_node_in_some_groups_only_goes_at_the_slowest_ones_rate():
    # Nodes of 8; groups of 3: 0 1 2, 3 4 5, and 6 7 | 8.
    assert neighbours({"data": 8, "tensor": 3}, per_node=8)["tensor"] == 1


def test_axes_go_at_nvlinks_rate_inside_and_at_their_adapters_rate_outside():
    place, chip = cluster("h100:8x4"), GPUS["h100"]
    rates = place.bandwidths(place.mesh(MeshConfig(data=4, fsdp=8)))
    assert (rates["data"], rates["fsdp"]) == (chip.network_bandwidth, chip.nvlink_bandwidth)
    rates = place.bandwidths(place.mesh(MeshConfig(data=1, fsdp=32)))
    assert rates["fsdp"] == 8 * chip.network_bandwidth


def test_the_report_says_that_it_is_analytic_and_its_numbers_follow_from_each_other(capsys):
    lines, record = told("gpt2 --plan h100:8x4 --mesh.fsdp 8 --price 2", capsys)
    assert "analytic, not compiled, never run: all below is predicted" in lines[0]
    assert record["analytic"] and record["predicted"] and record["fits"]
    assert record["links"] == {"data": "over the network, 1 a node", "fsdp": "over NVLink"}
    chip, parts = GPUS["h100"], 5
    sent = record["expected_wire_bytes"]
    # In each of five parts gathers there and back, of the table one, and scattered sums over 8, then sums of
    # an eighth over 4.
    assert sent["fsdp"] == pytest.approx(parts * (3 * P - 50_304 * 768) * 7 / 8 * 2, rel=0.01)
    assert sent["data"] == pytest.approx(parts * 2 * 3 / 4 * P / 8 * 2, rel=0.01)
    wires = sent["fsdp"] / chip.nvlink_bandwidth + sent["data"] / chip.network_bandwidth
    assert record["wire_overlapped_s"] == pytest.approx(wires)
    tokens = 480 * 1024
    assert record["model_flops"] == pytest.approx((6 * 124_439_808 + 12 * 12 * 768 * 1024) * tokens / 32)
    assert record["compute_s"] == pytest.approx(record["flops"] / chip.flops)
    assert record["step_s"][1] == pytest.approx(record["compute_s"] / 0.8 + record["memory_s"] + wires)
    assert record["tokens_per_s"][0] == pytest.approx(tokens / record["step_s"][1])
    assert record["dollars_per_hour"] == 64


@pytest.mark.parametrize("recipe", [name for name in CONFIGS if name.endswith("stdlib") and is_planned(name)])
def test_every_familys_recipe_on_pythons_own_text_is_planned(recipe, capsys):
    _, record = told(f"{recipe} --plan auto:a100:4x1", capsys)
    for each in record["best"]:
        assert 0 < each["mfu"][0] <= each["mfu"][1] < 1
        assert each["fits"]


def test_state_and_batch_are_parameters_and_moments_shared_out(capsys):
    _, record = told("gpt2 --plan a100:8x1 --mesh.fsdp 8", capsys)
    batch = 480 // 8 * (1024 * 4 + 1024 * 4 + 1024 * 4)  # inputs, targets, weights
    # Biases of heads and feed-forward layers, and norms, 0.1 million, are whole on every GPU.
    assert record["argument_bytes"] == pytest.approx(3 * P / 8 * 4 + batch, rel=0.005)


def test_what_is_computed_again_costs_arithmetic_and_saves_memory(capsys):
    plain, full = (
        told(f"gpt2 --plan h100:8x1 --mesh.fsdp 8 --model.remat {remat}", capsys)[1]
        for remat in ("none", "full")
    )
    # A forward pass of the blocks without its last matmul: 8 D D of 12, of 85 of 163 parts of a token's sum.
    assert full["flops"] / plain["flops"] == pytest.approx(1.17, abs=0.02)
    assert full["total_bytes"] < plain["total_bytes"] / 3


@pytest.mark.parametrize(("share", "is_said"), [(0.74, False), (0.76, True)])
def test_what_jax_takes_at_its_start_is_three_quarters_and_who_needs_more_is_told_how(share, is_said):
    chip, memory = GPUS["h100"], Memory(int(share * GPUS["h100"].hbm_bytes), 0)
    made = Estimate(memory, 1.0, 1.0, {}, {}, Roofline(1.0, 1.0, 0.0, 0.0))
    recipe = CONFIGS["gpt2"]
    plan = Analytic(Request("h100:8x1"), recipe, chip, 8, 8, {"data": 8}, 1.0, 1.0, made)
    assert any("XLA_PYTHON_CLIENT_MEM_FRACTION" in line for line in plan.lines()) == is_said


def test_activations_go_to_memory_and_back_five_times(monkeypatch):
    """Beside state and gradients, twice each; the weights of this model take nothing."""
    monkeypatch.setattr(expected, "everything", lambda *args: 1e6)
    monkeypatch.setattr(expected, "logits", lambda *args: 1e3)
    known = Held(arguments=70, cast=0.0, gradients=8, summed=8, layer=0.0)
    parts, config = types.SimpleNamespace(accumulate=1), CONFIGS["gpt2"].model
    assert estimate.memory_traffic(parts, config, {}, None, known) == 5 * (1e6 + 1e3) + 2 * (70 + 8)
