"""A table of words on a mesh: gathered once a step, and its gradient summed over devices once.

A tied table is looked up and read out. Each adds its part of the gradient on every device, and each part
would be summed over devices where it is made: twice the bytes. With a copy for each part of the batch, both
are added in the copy, and the copies are summed:

    stored V x D ─ cast, gathered ─ copy of part 0 ─┬─ looked up   part 0's rows
                                  ─ copy of part 1  └─ read out    part 0's rows
                                    ...
    gradient     ─ summed once    ─ gradient of each copy: both parts of it

What an Embed finds of its table's copies, it reads (zoo/layers.py); no model mentions them. They are in the
activations' dtype, as matmuls' weights are, and so is their gradient when it crosses devices; on a device it
is added up in float32.

Only where every device has rows of its own: where devices share rows (tensor, context, pipeline, expert),
the partitioner of jaxlib 0.10.2 aborts on lookups in copies whose words or positions are shared out too.
"""

from zoo.lettered import ParamSpec
from zoo.models.pure import Model
from zoo.sharding import Copies, copied, num_devices, spread
from zoo.tree import named_leaves, nested


def word_tables(model: Model) -> dict[str, ParamSpec]:
    """Every table with a row for each word, by its name."""
    specs = named_leaves(model.abstract())
    return {name: spec for name, spec in specs.items() if name.endswith("table") and spec.letters[0] == "V"}


def with_copies(model: Model, params, rows: int) -> dict:
    """The parameters, and beside every table of words its copies for the parts that the mesh in force makes
    of `rows` rows, where that is a part for each device."""
    if num_devices() == 1 or spread("B", (rows,)) < num_devices():
        return params
    found = named_leaves(params)
    tables: dict[str, Copies] = {
        f"{name}_copies": copied(found[name].astype(model.config.dtype), spec.letters, rows)
        for name, spec in word_tables(model).items()
    }
    return nested(found | tables)
