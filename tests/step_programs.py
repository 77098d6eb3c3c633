"""What the compiled train steps of small models consist of, in counts that no noise touches.

    python tests/step_programs.py v5e:2x2 gpt bert lstm   ->  a line of JSON a family, by the TPU's compiler

tests/test_programs.py imports it for a CPU's programs, and runs it as a script for a TPU's: that compiler is
to start in a process without the test suite's settings of XLA.
"""

import collections
import dataclasses
import json
import math
import re
import sys

import jax

from zoo import assembly, losses
from zoo.mesh import MeshConfig
from zoo.optim import AdamW
from zoo.plan.abstract import abstract_data, placed_batch, placed_state
from zoo.plan.program import read_program
from zoo.recipes import CONFIGS

V, T, D, ROWS = 384, 64, 64, 8  # rows a device; an activation is larger than a kernel or a table
SIZES = {"vocab_size": V, "d_model": D, "layer_unroll": 0, "num_layers": 2, "num_heads": 4, "max_length": T}
SIZES |= {"d_state": D, "dtype": "bfloat16"}
FAMILIES = ("gpt", "bert", "lstm")
CHUNK = ROWS * T * V * 4 // 4  # bytes of logits that may be there at a time: a quarter of a device's

# A matmul as JAX hands it to a compiler: its operands' types. (What a CPU makes of bfloat16 is float32.)
HANDED = re.compile(r"stablehlo\.dot_general.*?: \(tensor<([\w]+)>, tensor<([\w]+)>\)")


def small(family: str, rows: int):
    """A recipe of a family's standard-library run, with other sizes."""
    recipe = CONFIGS[f"{family}_stdlib"]
    names = {field.name for field in dataclasses.fields(recipe.model)}
    model = dataclasses.replace(recipe.model, **{k: v for k, v in SIZES.items() if k in names})
    data = dataclasses.replace(recipe.data, length=T, batch_size=rows)
    return dataclasses.replace(recipe, model=model, data=data, optimizer=AdamW())


def counted(family: str, mesh) -> dict:
    """Counts of a step, compiled for a mesh of copies of the model."""
    recipe = small(family, ROWS * mesh.size)
    given = abstract_data(recipe)
    parts = assembly.step_of(recipe, given)
    losses.CHUNK_BYTES = CHUNK
    with jax.set_mesh(mesh):
        state, batch = placed_state(parts, mesh), placed_batch(parts.task, given, mesh)
        lowered = parts.compiled(mesh).lower(state, batch)
        compiled = lowered.compile()
    program, used = read_program(compiled.as_text()), compiled.memory_analysis()
    large, found = ROWS * T * D, collections.Counter()
    widest = 0
    for name, computation in program.computations.items():
        for instruction in computation.instructions.values():
            for array in instruction.arrays:
                if V in array.shape or 4 * V in array.shape:
                    widest = max(widest, math.prod(array.shape))
            if instruction.opcode in ("copy", "transpose") and instruction.arrays:
                if math.prod(instruction.arrays[0].shape) >= large:
                    found[instruction.opcode] += round(program.runs[name])
            if instruction.opcode in ("dot", "convolution"):
                kinds = {computation.arrays(operand)[0].dtype for operand in instruction.operands[:2]}
                found["float32 matmul"] += "f32" in kinds
    handed = HANDED.findall(lowered.as_text())
    return {
        "copies": found["copy"],
        "transposes": found["transpose"],
        "matmuls handed over": len(handed),
        "of them float32": sum("f32" in left or "f32" in right for left, right in handed),
        "float32 matmuls": found["float32 matmul"],
        "widest array of words": widest,
        "peak bytes": used.peak_memory_in_bytes,
    }


if __name__ == "__main__":
    from zoo.plan.topology import Slice, prepare, quiet

    prepare()
    place = Slice(sys.argv[1])
    for family in sys.argv[2:]:
        with quiet():
            print(json.dumps(counted(family, place.mesh(MeshConfig()))), flush=True)
