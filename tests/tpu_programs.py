"""What tiny train steps move between the chips of a slice, compiled by the TPU's compiler.

    python tests/tpu_programs.py gpt v5e:2x4 8,1,1 1,8,1,context=2    ->  a line of JSON a mesh

A mesh is the sizes of data, fsdp and tensor, and those of other axes by their names.

A script of its own, as the compiler is to start in a process without the test suite's settings of XLA.
"""

import dataclasses
import json
import sys

import jax

from zoo import assembly
from zoo.mesh import MeshConfig
from zoo.optim import AdamW
from zoo.plan.abstract import abstract_data, placed_batch, placed_state
from zoo.plan.collectives import collectives_of
from zoo.plan.program import read_program
from zoo.plan.topology import Slice, prepare, quiet
from zoo.plan.wires import wire_bytes
from zoo.recipes import CONFIGS

V, T, D = 384, 32, 128
SIZES = {"vocab_size": V, "d_model": D, "layer_unroll": 1, "num_layers": 2, "num_heads": 8, "max_length": T}
SIZES |= {"d_state": D, "dtype": "bfloat16"}


def tiny(family: str, rows: int):
    """A recipe of a family's standard-library run, with other sizes."""
    recipe = CONFIGS[f"{family}_stdlib"]
    names = {field.name for field in dataclasses.fields(recipe.model)}
    model = dataclasses.replace(recipe.model, **{k: v for k, v in SIZES.items() if k in names})
    if family == "moe":
        model = dataclasses.replace(model, d_ff=D, num_kv_heads=8)
    if family == "lstm":
        model = dataclasses.replace(model, num_layers=1)
    data = dataclasses.replace(recipe.data, length=T, batch_size=rows)
    return dataclasses.replace(recipe, model=model, data=data, optimizer=AdamW())


def config_of(text: str) -> MeshConfig:
    first, others = text.split(",")[:3], text.split(",")[3:]
    sizes = dict(zip(("data", "fsdp", "tensor"), first, strict=True))
    sizes |= dict(other.split("=") for other in others)
    return MeshConfig(**{axis: int(size) for axis, size in sizes.items()})


def moved(family: str, place: Slice, config: MeshConfig) -> dict:
    """The collectives of a step, and the closed form, on a mesh; two rows for each chip."""
    recipe, mesh = tiny(family, 2 * place.count), place.mesh(config)
    given = abstract_data(recipe)
    parts = assembly.step_of(recipe, given)
    state, batch = placed_state(parts, mesh), placed_batch(parts.task, given, mesh)
    with jax.set_mesh(mesh), quiet():
        text = parts.compiled(mesh).lower(state, batch).compile().as_text()
    found = collectives_of(read_program(text), dict(mesh.shape))
    return {
        "collectives": [
            {"kind": each.kind, "axes": "+".join(each.axes), "shape": each.shape, "bytes": each.wire_bytes}
            for each in found
        ],
        "closed": wire_bytes(parts, recipe.model, batch, mesh),
    }


if __name__ == "__main__":
    prepare()
    for sizes in sys.argv[3:]:
        print(json.dumps(moved(sys.argv[1], Slice(sys.argv[2]), config_of(sizes))))
