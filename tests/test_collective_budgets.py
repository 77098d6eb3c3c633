"""How much each family may move between devices: at most so many collectives, at most so many bytes.

A change of a model or of the sharding table that lets the compiler gather what it should not shows here.
Models are tiny, the mesh has the eight CPU devices, and the compiler is the CPU's, which sums a gradient
whole where a TPU scatters the sums; numbers are of jaxlib 0.10.2. Beside a budget stands the closed form
(zoo/plan/wires.py) in the same bytes, with what makes the difference.
"""

import collections
import dataclasses
import functools

import jax
import pytest
from training import eight_devices, mesh_of

from zoo import assembly, xla
from zoo.optim import AdamW
from zoo.plan.abstract import abstract_data, placed_batch, placed_state
from zoo.plan.collectives import collectives_of
from zoo.plan.program import read_program
from zoo.plan.wires import wire_bytes
from zoo.recipes import CONFIGS

V, T, ROWS, D = 384, 32, 16, 80
SIZES = {"vocab_size": V, "d_model": D, "layer_unroll": 1, "num_layers": 2, "num_heads": 8, "max_length": T}
SIZES |= {"d_state": D}

# {(family, (data, fsdp, tensor)): ({kind: collectives}, {axes: bytes a device sends in a step})}
BUDGETS = {
    # Gradients in one sum, a tied table's too: the closed form to 14 bytes, which are the losses.
    ("gpt", (8, 1, 1)): ({"all-reduce": 2}, {"data": 1_323_854}),
    # Closed form 1,874,320 with scattered sums; whole ones make the rest, and the exchange of a table's sum.
    ("gpt", (1, 8, 1)): ({"all-gather": 27, "all-reduce": 7, "all-to-all": 1}, {"fsdp": 2_552_438}),
    # Closed form 2,293,760 of the layers, in pairs of gathers and scatters of positions; sums that this
    # compiler does not scatter, the readout's gradient, norms and losses make the rest.
    ("gpt", (1, 1, 8)): ({"all-gather": 8, "all-reduce": 11}, {"tensor": 5_950_266}),
    ("bert", (8, 1, 1)): ({"all-reduce": 2}, {"data": 1_374_142}),
    ("bert", (1, 8, 1)): ({"all-gather": 29, "all-reduce": 11, "all-to-all": 1}, {"fsdp": 2_608_382}),
    # The second sum, of a byte or two, says whether what rows remember is finite everywhere.
    ("lstm", (8, 1, 1)): ({"all-reduce": 2}, {"data": 793_426}),
    ("lstm", (1, 8, 1)): ({"all-gather": 5, "all-reduce": 7, "all-to-all": 2}, {"fsdp": 1_304_202}),
}

pytestmark = [
    eight_devices,
    pytest.mark.skipif(xla.jaxlib_version() != "0.10.2", reason="budgets are of jaxlib 0.10.2's compiler"),
]
budgets = pytest.mark.parametrize(("family", "sizes"), BUDGETS, ids=lambda value: str(value).replace(" ", ""))


@functools.cache
def moved(family, sizes):
    """(collectives of a step, closed form) of a family on a mesh."""
    recipe, mesh = CONFIGS[f"{family}_stdlib"], mesh_of(sizes)
    names = {field.name for field in dataclasses.fields(recipe.model)}
    model = dataclasses.replace(recipe.model, **{k: v for k, v in SIZES.items() if k in names})
    data = dataclasses.replace(recipe.data, length=T, batch_size=ROWS)
    if model.num_layers == 2 and family == "lstm":
        model = dataclasses.replace(model, num_layers=1)
    recipe = dataclasses.replace(recipe, model=model, data=data, optimizer=AdamW())
    given = abstract_data(recipe)
    parts = assembly.step_of(recipe, given)
    state, batch = placed_state(parts, mesh), placed_batch(parts.task, given, mesh)
    with jax.set_mesh(mesh):
        text = parts.compiled(mesh).lower(state, batch).compile().as_text()
    closed = wire_bytes(parts, recipe.model, batch, mesh)
    return collectives_of(read_program(text), dict(mesh.shape)), closed


@budgets
def test_no_more_collectives_and_bytes_than_their_budget(family, sizes):
    found, _ = moved(family, sizes)
    counts = collections.Counter(each.kind for each in found)
    sent: collections.Counter[str] = collections.Counter()
    for each in found:
        sent["+".join(each.axes)] += each.wire_bytes
    most, bytes_most = BUDGETS[family, sizes]
    assert not {kind: number for kind, number in counts.items() if number > most.get(kind, 0)}
    assert not {axes: size for axes, size in sent.items() if size > 1.02 * bytes_most.get(axes, 0)}
    assert not {axes: size for axes, size in bytes_most.items() if sent[axes] < 0.98 * size}  # lower it


@budgets
def test_logits_stay_where_they_are(family, sizes):
    """What has the vocabulary's size is moved as a table or its gradient, V x D, or as a bias."""
    found, _ = moved(family, sizes)
    assert not [
        each for each in found if V in each.shape and each.shape != (V,) and not {D, D // 8} & set(each.shape)
    ]


@pytest.mark.parametrize("family", ["gpt", "bert", "lstm"])
def test_copies_of_a_model_gather_nothing(family):
    found, _ = moved(family, (8, 1, 1))
    assert {each.kind for each in found} == {"all-reduce"}


@pytest.mark.parametrize("family", ["gpt", "bert", "lstm"])
def test_the_bytes_of_data_parallelism_are_the_closed_forms(family):
    """Beside losses, and whether what rows remember is finite."""
    found, closed = moved(family, (8, 1, 1))
    assert sum(each.wire_bytes for each in found) == pytest.approx(closed["data"], abs=18)
