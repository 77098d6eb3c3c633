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
from zoo.plan.topology import Slice, prepare, quiet
prepare()
import jax
from zoo import assembly, kernels
from zoo.models.decoder_config import DecoderConfig
from zoo.models.gpt import GPTConfig
from zoo.plan.abstract import abstract_data, placed_batch, placed_state
from zoo.recipes import CONFIGS
from zoo.mesh import MeshConfig

mesh = Slice("v5e:2x4").mesh(MeshConfig(data=2, fsdp=2, tensor=2))


def lowered(kind, **changes):
    sizes = {"vocab_size": 256, "max_length": 256, "num_layers": 2, "num_heads": 4, "d_model": 128}
    model = kind(**(sizes | {"dropout_rate": 0.0, "dtype": "bfloat16"} | changes))
    rows = {"tokenizer": "byte", "vocab_size": 0, "length": 256, "batch_size": 8, "layout": "packed"}
    recipe = CONFIGS["gpt_stdlib"]
    recipe = dataclasses.replace(recipe, model=model, data=dataclasses.replace(recipe.data, **rows))
    data = abstract_data(recipe)
    parts, reasons = assembly.step_of(recipe, data), []
    with jax.set_mesh(mesh), kernels.noted(lambda chosen: reasons.append(str(chosen))):
        state, batch = placed_state(parts, mesh), placed_batch(parts.task, data, mesh)
        return parts.compiled(mesh).lower(state, batch), reasons


def counted(kind, **changes):
    program, reasons = lowered(kind, **changes)
    with quiet():
        text = program.compile().as_text()
    calls, scores = text.count('custom_call_target="tpu_custom_call"'), text.count("[2,2,256,256]")
    return {"calls": calls, "scores": scores, "reasons": sorted(set(reasons))}


local = {"pattern": "LG", "window": 100, "num_kv_heads": 2, "d_ff": 128, "score_cap": 50.0}
dropped, reasons = lowered(GPTConfig, dropout_rate=0.1)
print(json.dumps({
    "gpt": counted(GPTConfig, remat="full"),
    "decoder": counted(DecoderConfig, **local),
    "dropout": {"calls": dropped.as_text().count("tpu_custom_call"), "reasons": sorted(set(reasons))},
}))
"""


@pytest.mark.plan
@pytest.mark.skipif(not has_libtpu, reason='needs the TPU compiler: pip install -e ".[plan]"')
def test_packed_rows_on_eight_tpus_take_the_kernel_and_those_with_dropout_do_not(tmp_path):
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
    # Forward, forward again as all is recomputed, back to queries, back to keys and values; of the decoder
    # all but the second, with the window and without. Scores would be of two rows and two heads a device.
    packed = "causal, packed documents"
    assert told["gpt"] == {"calls": 4, "scores": 0, "reasons": [f"splash: TPU, {packed}"]}
    windows = f"splash: TPU, causal, a window of 100, packed documents or {packed}"
    assert told["decoder"] == {"calls": 6, "scores": 0, "reasons": [windows]}
    assert told["dropout"]["calls"] == 0
    assert told["dropout"]["reasons"][0].startswith("XLA: dropout of attention weights")
