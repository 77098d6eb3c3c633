"""What compiled train steps may consist of: copies, matmuls, logits and memory, which no noise touches.

A change that makes the compiler copy activations, hold all logits, or multiply in float32 shows here, long
before a clock would tell. Models are small (tests/step_programs.py), in bfloat16; numbers are of jaxlib
0.10.2 on one device under the flags of conftest.py, and of libtpu 0.0.42. To write them anew, run that file.
"""

import functools
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax
import pytest
from step_programs import FAMILIES, ROWS, T, V, counted
from training import ROWS as TINY_ROWS
from training import parts_of, rows_of

from zoo import losses, models, xla
from zoo.mesh import MeshConfig, make_mesh

ROOT = Path(__file__).parents[1]

# Arrays as large as an activation that are copied or transposed, fused or not, each as often as it runs; and
# peak bytes: parameters and Adam's moments, 1.0 MB of them, gradients, and what waits for the backward pass.
CPU = {
    "gpt": {"copies": 38, "transposes": 38, "peak bytes": 1_551_988},
    "bert": {"copies": 26, "transposes": 26, "peak bytes": 1_610_706},
    "lstm": {"copies": 29, "transposes": 24, "peak bytes": 1_399_807},
}
TPU = {
    "gpt": {"copies": 38, "transposes": 2, "peak bytes": 8_659_456},
    "bert": {"copies": 28, "transposes": 6, "peak bytes": 9_297_920},
    "lstm": {"copies": 19, "transposes": 2, "peak bytes": 8_298_496},
}

# Matmuls as they are handed to the compiler, and how many of them have an operand in float32: of the readout
# the two of its gradient, as the logits' gradient is float32; of a layer's attention the one in which the
# scores' gradient, float32 as well, meets queries or keys.
HANDED = {"gpt": (27, 4), "bert": (30, 4), "lstm": (17, 2)}

on_this_cpu = pytest.mark.skipif(xla.jaxlib_version() != "0.10.2", reason="budgets are of jaxlib 0.10.2")
families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(autouse=True)
def chunks_as_they_were():
    kept = losses.CHUNK_BYTES
    yield
    losses.CHUNK_BYTES = kept


@functools.cache
def here(family: str) -> dict:
    return counted(family, make_mesh(MeshConfig(), jax.devices()[:1]))


def over(found: dict, budget: dict) -> dict:
    """What is more than 2 % over its budget."""
    return {name: found[name] for name, most in budget.items() if found[name] > 1.02 * most}


@on_this_cpu
@families
def test_no_more_copies_transposes_and_memory_than_their_budget(family):
    assert not over(here(family), CPU[family])


@families
def test_no_step_holds_all_logits(family):
    """Nothing with the vocabulary in its shape has as many numbers as the positions have logits."""
    assert 0 < here(family)["widest array of words"] <= ROWS * T * V // 4


@on_this_cpu
@families
def test_matmuls_are_handed_over_in_bfloat16(family):
    found = here(family)
    assert (found["matmuls handed over"], found["of them float32"]) == HANDED[family]


def test_a_step_is_one_program_and_gives_its_state_up():
    """Three steps, one compilation, and the first state's arrays are gone: none is held twice."""
    parts, mesh = parts_of(models.GPTConfig), make_mesh(MeshConfig(), jax.devices()[:1])
    with jax.set_mesh(mesh):
        step, state = parts.compiled(mesh), parts.init_on(mesh)
        first = jax.tree.leaves(state.params)
        for number in range(3):
            state, _ = step(state, without_begins(rows_of(number, range(TINY_ROWS))))
    assert step._cache_size() == 1
    assert all(x.is_deleted() for x in first)


def without_begins(batch: dict) -> dict:
    return {name: x for name, x in batch.items() if name != "begins"}


# --- by the TPU's compiler ------------------------------------------------------------------------


def libtpu() -> str:
    """Its version; empty where there is none."""
    try:
        return metadata.version("libtpu")
    except metadata.PackageNotFoundError:
        return ""


@functools.cache
def on_tpu(family: str) -> dict:
    kept = {k: v for k, v in os.environ.items() if k not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "step_programs.py", "v5e:2x2", family],
        env=kept | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.plan
@pytest.mark.skipif(not libtpu(), reason='needs the TPU compiler: pip install -e ".[plan]"')
@pytest.mark.skipif(not libtpu().startswith("0.0.42"), reason="budgets are of libtpu 0.0.42's compiler")
@pytest.mark.parametrize(
    "family", ["gpt", *(pytest.param(family, marks=pytest.mark.long) for family in ("bert", "lstm"))]
)
def test_a_tpus_program_keeps_its_budget_and_multiplies_in_bfloat16(family):
    """Four chips, each a copy. In float32 are the matmuls that are handed over so, and on a TPU of attention
    both with the scores' gradient."""
    found = on_tpu(family)
    assert not over(found, TPU[family])
    assert found["widest array of words"] <= ROWS * T * V // 4
    assert found["float32 matmuls"] <= {"gpt": 6, "bert": 6, "lstm": 2}[family]
