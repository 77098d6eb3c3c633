"""A step of training for eight TPUs that are not there: whose programs hold the splash kernel.

The TPU's compiler runs in a process of its own, without the settings of this one. Marked `plan`: skipped
where the extra of that name is not installed. About half a minute.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_plan import has_libtpu

ROOT = Path(__file__).parents[1]
PROGRAM = """
import dataclasses, json, sys
from zoo.plan.topology import devices_of, mesh_over, prepare, quiet
prepare()
import jax
import train
from zoo import kernels
from zoo.models.gpt import GPTConfig
from zoo.plan.abstract import abstract_data, placed_batch, placed_state
from zoo.recipes import CONFIGS
from zoo.mesh import MeshConfig

mesh = mesh_over(devices_of("v5e:2x4"), MeshConfig(data=2, fsdp=2, tensor=2))


def lowered(layout="packed", **changes):
    sizes = {"vocab_size": 256, "max_length": 256, "num_layers": 2, "num_heads": 4, "d_model": 128}
    model = GPTConfig(**(sizes | {"dropout_rate": 0.0, "dtype": "bfloat16"} | changes))
    rows = {"tokenizer": "byte", "vocab_size": 0, "length": 256, "batch_size": 8, "layout": layout}
    recipe = CONFIGS["gpt_stdlib"]
    recipe = dataclasses.replace(recipe, model=model, data=dataclasses.replace(recipe.data, **rows))
    data = abstract_data(recipe)
    parts, reasons = train.step_of(recipe, data), []
    with jax.set_mesh(mesh), kernels.noted(lambda chosen: reasons.append(str(chosen))):
        state, batch = placed_state(parts, mesh), placed_batch(parts.task, data, mesh)
        return parts.compiled(mesh).lower(state, batch), reasons


packed, reasons = lowered(remat="full")
with quiet():
    compiled = packed.compile().as_text()
dropped, why = lowered(dropout_rate=0.1)
print(json.dumps({
    "calls": compiled.count('custom_call_target="tpu_custom_call"'),
    "scores": compiled.count("[2,2,256,256]"),
    "reasons": sorted(set(reasons)),
    "calls_with_dropout": dropped.as_text().count("tpu_custom_call"),
    "why": sorted(set(why)),
}))
"""


@pytest.mark.plan
@pytest.mark.skipif(not has_libtpu, reason='needs the TPU compiler: pip install -e ".[plan]"')
def test_packed_rows_of_a_gpt_on_eight_tpus_take_the_kernel_and_those_with_dropout_do_not(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "JAX_NUM_CPU_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    # Forward, forward again as all is recomputed, back to queries, and back to keys and values.
    assert told["calls"] == 4
    assert told["scores"] == 0  # two rows and two heads a device
    assert told["reasons"] == ["splash: TPU, causal, packed documents"]
    assert told["calls_with_dropout"] == 0
    assert [reason.partition(",")[0] for reason in told["why"]] == ["XLA: dropout of attention weights"]
