"""How much each family may move between TPUs: programs of the TPU's compiler, and no TPU.

As tests/test_collective_budgets.py, whose programs are a CPU's. Tiny models in bfloat16, two rows a chip, one
process of the compiler for each family. Numbers are of libtpu 0.0.42 with jax 0.10.2; beside each stands the
closed form (zoo/plan/wires.py) and what makes the difference. To write them anew: tests/tpu_programs.py.
"""

import collections
import functools
import json
import math
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from tpu_programs import D, V

ROOT = Path(__file__).parents[1]

# {(family, (data, fsdp, tensor)): ({kind: collectives}, {axes: bytes a chip sends}, {axis: closed form})}
BUDGETS = {
    # All gradients in bfloat16, a tied table's summed once: norms' in float32 and losses make the rest.
    ("gpt", (8, 1, 1)): ({"all-reduce": 3}, {"data": 1_579_662}, {"data": 1_575_168}),
    # Matmuls' weights are gathered forward and backward, the table once, all their sums scattered, and the
    # table's exchanged for its place: 10,752 bytes. Sums of positions, norms and biases are the rest.
    ("gpt", (1, 8, 1)): (
        {"all-gather": 15, "gather by all-reduce": 4, "all-reduce": 7, "reduce-scatter": 2, "all-to-all": 1},
        {"fsdp": 2_307_550},
        {"fsdp": 2_273_600},
    ),
    # Positions are gathered before and scattered behind each half of a layer. So small, they are summed whole
    # where the closed form scatters them; GPT-2's are scattered (benchmarks/README.md).
    ("gpt", (1, 1, 8)): (
        {"all-gather": 8, "all-reduce": 11, "reduce-scatter": 1},
        {"tensor": 3_862_866},
        {"tensor": 2_293_760},
    ),
    # Devices share rows, so the table has no copies and its gradient is summed twice, over data and fsdp at
    # once: that stands in neither's closed form.
    ("gpt", (2, 2, 2)): (
        {"all-gather": 23, "gather by all-reduce": 4, "all-reduce": 25, "reduce-scatter": 5},
        {
            "data": 196_608,
            "fsdp": 694_464,
            "tensor": 435_844,
            "data+fsdp": 156_300,
            "data+fsdp+tensor": 354_816,
        },
        {"data": 228_864, "fsdp": 658_432, "tensor": 327_680},
    ),
    ("bert", (8, 1, 1)): ({"all-reduce": 3}, {"data": 1_715_854}, {"data": 1_636_096}),
    ("bert", (1, 8, 1)): (
        {"all-gather": 16, "gather by all-reduce": 4, "all-reduce": 7, "reduce-scatter": 3, "all-to-all": 1},
        {"fsdp": 2_410_226},
        {"fsdp": 2_364_096},
    ),
    # The LSTM's kernels are summed in float32, where the closed form has bfloat16.
    ("lstm", (8, 1, 1)): ({"all-reduce": 3}, {"data": 1_267_861}, {"data": 805_952}),
    ("lstm", (1, 8, 1)): (
        {"all-gather": 5, "all-reduce": 4, "reduce-scatter": 1, "all-to-all": 2},
        {"fsdp": 1_002_701},
        {"fsdp": 1_035_328},
    ),
}


# The same of the other axes, {(family, mesh): ({kind: collectives}, {axes: bytes a chip sends})}.
AXES = {
    # Heads for positions and back, eight times: all that attention sends. The rest are sums of gradients, as
    # of copies; the table's is summed twice, as devices share rows.
    ("gpt", "1,1,1,context=8"): ({"all-to-all": 8, "all-reduce": 3}, {"context": 1_995_406}),
    # Each stage gathers a layer for each of 2 + 4 - 1 ticks, forward and backward; rows and their gradients
    # go on by permutes, and no layer leaves its stage.
    ("gpt", "1,4,1,pipeline=2"): (
        {
            "all-gather": 15,
            "gather by all-reduce": 4,
            "permute": 3,
            "reduce-scatter": 2,
            "all-reduce": 15,
            "all-to-all": 1,
        },
        {"fsdp": 4_727_508, "pipeline": 172_080, "pipeline+fsdp": 252},
    ),
    # Rows of other chips come to the experts that a chip has, and their sums go back; no expert moves but to
    # the chip that shares it.
    ("moe", "1,2,1,expert=4"): (
        {
            "all-gather": 18,
            "gather by all-reduce": 3,
            "reduce-scatter": 1,
            "all-reduce": 16,
            "all-to-all": 1,
        },
        {"fsdp": 635_504, "expert": 571_392, "fsdp+expert": 26_208},
    ),
}


def version() -> str:
    """Of the package libtpu; empty where there is none."""
    try:
        return metadata.version("libtpu")
    except metadata.PackageNotFoundError:
        return ""


pytestmark = [
    pytest.mark.plan,
    pytest.mark.skipif(not version(), reason='needs the TPU compiler: pip install -e ".[plan]"'),
    pytest.mark.skipif(not version().startswith("0.0.42"), reason="budgets are of libtpu 0.0.42's compiler"),
]
budgets = pytest.mark.parametrize(("family", "sizes"), BUDGETS, ids=lambda value: str(value).replace(" ", ""))


@functools.cache
def programs(family: str, topology: str, meshes: tuple) -> dict:
    """{mesh: what its program moves}; the compiler starts once for all."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    }
    written = [sizes if isinstance(sizes, str) else ",".join(map(str, sizes)) for sizes in meshes]
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "tpu_programs.py", family, topology, *written],
        env=kept | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(meshes, map(json.loads, done.stdout.splitlines()), strict=True))


def moved(family: str, sizes: tuple) -> dict:
    """Of a mesh over v5e:2x4."""
    return programs(family, "v5e:2x4", tuple(mesh for name, mesh in BUDGETS if name == family))[sizes]


def by_axes(program: dict) -> dict[str, float]:
    sent: collections.Counter[str] = collections.Counter()
    for each in program["collectives"]:
        sent[each["axes"]] += each["bytes"]
    return dict(sent)


def logits_in(program: dict, sizes: tuple) -> list:
    """Shapes of what has the vocabulary's size and is no table's or its gradient's, V x D or a chip's part of
    it, and no bias."""
    of_table, part = {D, D // sizes[1]}, V * D // sizes[1]
    shapes = [each["shape"] for each in program["collectives"]]
    return [s for s in shapes if V in s and s != [V] and not of_table & set(s) and math.prod(s) != part]


@budgets
def test_no_more_collectives_and_bytes_than_their_budget(family, sizes):
    program = moved(family, sizes)
    most, bytes_most, closed = BUDGETS[family, sizes]
    counts = collections.Counter(each["kind"] for each in program["collectives"])
    assert not {kind: number for kind, number in counts.items() if number > most.get(kind, 0)}
    assert by_axes(program) == pytest.approx(bytes_most, rel=0.02)
    assert program["closed"] == pytest.approx(closed, rel=0.001)


@pytest.mark.parametrize(("family", "mesh"), AXES)
def test_the_other_axes_send_no_more_than_their_budget(family, mesh):
    program = programs(family, "v5e:2x4", (mesh,))[mesh]
    most, bytes_most = AXES[family, mesh]
    counts = collections.Counter(each["kind"] for each in program["collectives"])
    assert not {kind: number for kind, number in counts.items() if number > most.get(kind, 0)}
    assert by_axes(program) == pytest.approx(bytes_most, rel=0.02)


@budgets
def test_logits_stay_where_they_are(family, sizes):
    assert not logits_in(moved(family, sizes), sizes)


@pytest.mark.parametrize(
    ("family", "sizes"), [("gpt", (8, 1, 1)), ("gpt", (1, 8, 1)), ("bert", (1, 8, 1))], ids=str
)
def test_bytes_are_within_a_fiftieth_of_the_closed_form(family, sizes):
    program = moved(family, sizes)
    assert sum(by_axes(program).values()) == pytest.approx(sum(program["closed"].values()), rel=0.02)


@pytest.mark.parametrize("family", ["gpt", "bert", "lstm"])
def test_copies_of_a_model_gather_nothing(family):
    found = moved(family, (8, 1, 1))["collectives"]
    assert {each["kind"] for each in found} == {"all-reduce"}


@pytest.mark.parametrize("family", ["gpt", "bert", "lstm"])
def test_gathers_bring_a_layers_matmul_or_a_table_at_a_time(family):
    """No gather of all layers, none of all parameters: at most the largest kernel, of two layers as a step
    runs it."""
    found = moved(family, (1, 8, 1))["collectives"]
    gathers = [each["bytes"] for each in found if "gather" in each["kind"]]
    assert len(gathers) >= 4
    assert max(gathers) <= 2 * 4 * D * D * 2 * 7 / 8


# --- slices of many chips -------------------------------------------------------------------------

LARGE = [("v5p:4x4x4", (64, 1, 1)), ("v5p:4x4x4", (8, 8, 1)), ("v5e:16x16", (32, 8, 1))]


@pytest.mark.long
@pytest.mark.parametrize(("topology", "sizes"), LARGE, ids=lambda value: str(value).replace(" ", ""))
def test_many_chips_send_what_few_do(topology, sizes):
    """Over 64 and 256 chips a step sends no more than its closed form, gathers and sums written as whole sums
    at twice the bytes included, and no logits."""
    program = programs("gpt", topology, (sizes,))[sizes]
    sent, closed = sum(by_axes(program).values()), sum(program["closed"].values())
    assert closed <= sent <= 2.3 * closed
    assert not logits_in(program, sizes)


SLICES = """
from zoo.mesh import MeshConfig, make_mesh
from zoo.plan.topology import prepare, quiet
prepare()
from jax.experimental import topologies
with quiet():
    devices = topologies.get_topology_desc("v5e:2x2", platform="tpu", num_slices=2).devices
mesh = make_mesh(MeshConfig(slice=2, data=2, tensor=2), list(devices)[::-1])
print([sorted({device.slice_index for device in part.flat}) for part in mesh.devices])
"""


def test_the_slice_axis_is_what_joins_slices():
    """Two slices, as the TPU's runtime describes them; no other axis leaves its slice."""
    done = subprocess.run(
        [sys.executable, "-c", SLICES],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[[0], [1]]\n", done.stderr
