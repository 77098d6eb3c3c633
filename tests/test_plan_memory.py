"""Closed-form memory beside what steps need that the TPU's compiler compiled: benchmarks/README.md's rows.

GiB a chip are the compiler's peak and the program, recorded with libtpu 0.0.42.1 and jax 0.10.2; nothing is
compiled here. Who changes what a step keeps has rows to record anew (`train.py ... --plan`, "memory").
"""

import pytest

from zoo import assembly, cli
from zoo.mesh import mesh_sizes
from zoo.plan import expected
from zoo.plan.abstract import abstract_data, placed_batch, placed_state
from zoo.plan.topology import Slice
from zoo.recipes import CHOICES, CONFIGS

COMPILED = [
    ("gpt2 --mesh.fsdp 8 --accumulate 10", "v5e:2x4", 5.34),
    ("gpt2_xl --mesh.fsdp 64 --data.batch-size 512 --accumulate 1", "v5p:4x4x4", 12.25),
    ("gpt2 --mesh.fsdp 8 --data.batch-size 64 --accumulate 1 --model.remat full", "v5e:2x4", 0.91),
    ("lstm_ptb_large --model.vocab-size 10000", "v5e:2x2", 0.63),
    ("gpt2_xl --mesh.fsdp 8 --data.batch-size 512 --accumulate 1", "v5p:4x4x4", 15.16),
    ("bert_large --mesh.fsdp 16 --model.encoder.dropout-rate 0", "v6e:4x4", 4.79),
    (
        "gpt2 --mesh.fsdp 8 --data.batch-size 64 --accumulate 1 --model.remat full --model.num-layers 48",
        "v5e:2x4",
        1.91,
    ),
    (
        "gpt2 --model gpt3_175b --model.dtype bfloat16 --model.remat full --data.length 2048 "
        "--data.batch-size 256 --accumulate 1 --mesh.fsdp 256",
        "v5p:4x8x8",
        23.06,
    ),
    ("gpt2 --mesh.fsdp 8", "v5e:2x4", 10.01),
    ("gpt2 --mesh.fsdp 8 --data.batch-size 64 --accumulate 1 --model.remat dots", "v5e:2x4", 2.02),
    (
        "gpt2 --model smollm_135m --model.dtype bfloat16 --model.remat dots --mesh.data 4 --mesh.fsdp 4 "
        "--data.batch-size 128 --accumulate 1",
        "v5e:4x4",
        3.40,
    ),
]


@pytest.mark.parametrize(("line", "topology", "gib"), COMPILED, ids=lambda value: str(value)[:60])
def test_closed_form_memory_is_within_a_tenth_of_the_compilers(line, topology, gib):
    recipe = cli.parse(line.split(), CONFIGS, CHOICES, default="gpt_stdlib")
    data, place = abstract_data(recipe), Slice(topology)
    recipe = assembly.complete(recipe, data)
    mesh = place.abstract(mesh_sizes(recipe.mesh, place.count))
    parts = assembly.step_of(recipe, data)
    state, batch = placed_state(parts, mesh), placed_batch(parts.task, data, mesh)
    known = expected.held(parts, recipe.model, state, batch, mesh, place.numbers)
    found = expected.memory(parts, recipe.model, batch, mesh, known).total
    assert found / 2**30 == pytest.approx(gib, rel=0.1)
