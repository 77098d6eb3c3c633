"""The train step: one program, the same on every mesh, exact in parts, and closed to what is not finite."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from training import (
    ROWS,
    batch_of,
    compiled,
    eight_devices,
    families,
    initial,
    mesh_of,
    parts_of,
    rows_of,
    tiny_model,
    train,
    two_families,
)

from zoo import optim, schedules
from zoo.feed import evaluation_batches, place_rows, prefetched
from zoo.models import MODELS
from zoo.models.gpt import GPTConfig
from zoo.models.rnn import RNNConfig
from zoo.plan.program import read_program
from zoo.tasks import CausalLM
from zoo.tree import named_leaves

# Programs are most of the time here, so tests share these. Young averages forget faster than 0.2 for two
# steps, and not after them.
in_parts = functools.partial(parts_of, accumulate=2, average_decay=0.2)


@families
@eight_devices
def test_losses_are_the_same_on_every_mesh(kind):
    """First loss within 1e-6, first ten within 1e-5, relative: sums in another order, nothing else. GPT on
    two meshes, the others on the one with every axis; tests/test_meshes.py has all."""
    parts = parts_of(kind)
    _, alone = train(parts, mesh_of())
    for sizes in [(8, 1, 1), (2, 2, 2)] if kind is GPTConfig else [(2, 2, 2)]:
        _, losses = train(parts, mesh_of(sizes))
        np.testing.assert_allclose(losses[0], alone[0], rtol=1e-6, err_msg=str(sizes))
        np.testing.assert_allclose(losses, alone, rtol=1e-5, err_msg=str(sizes))


@families
@eight_devices
def test_first_values_are_the_same_on_a_mesh_and_spread_as_the_table_says(kind):
    """Parameters, moments and average alike: at most 2 % of the bytes are on every device. Values may differ
    in the last bits, as a program for eight devices computes the normal distribution in other pieces."""
    parts, mesh = in_parts(kind), mesh_of((1, 2, 4))
    with jax.set_mesh(mesh):
        state = parts.init_on(mesh)
    alone = initial(parts, mesh_of())
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=0), state, alone)
    kept = {name: x.nbytes for name, x in named_leaves(state).items() if x.sharding.is_fully_replicated}
    total = sum(x.nbytes for x in jax.tree.leaves(state))
    assert sum(kept.values()) < 0.02 * total, kept


@families
def test_ten_steps_learn_something(kind):
    _, losses = train(parts_of(kind, optimizer=optim.AdamW(learning_rate=3e-2)), mesh_of())
    assert losses[-1] < losses[0] - 0.2, losses


@families
def test_many_steps_are_one_compilation(kind):
    parts, mesh = parts_of(kind), mesh_of()
    train(parts, mesh, stop=4)
    assert compiled(parts, mesh)._cache_size() == 1


@two_families
def test_micro_batches_equal_one_big_batch(kind):
    """Without dropout, whose masks follow the micro-batch. Missing targets tell it from a mean of means."""
    model = tiny_model(kind, dropout_rate=0.0)
    sgd = optim.SGD(learning_rate=0.1, momentum=0.0)  # keeps gradients' differences as small as they are
    whole, losses = train(parts_of(kind, model=model, optimizer=sgd), mesh_of(), stop=3)
    split, same = train(parts_of(kind, model=model, optimizer=sgd, accumulate=4), mesh_of(), stop=3)
    np.testing.assert_allclose(same, losses, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), split.params, whole.params)


@two_families
@eight_devices
def test_micro_batches_are_the_same_on_a_mesh(kind):
    _, alone = train(in_parts(kind), mesh_of(), stop=3)
    _, spread = train(in_parts(kind), mesh_of((2, 2, 2)), stop=3)
    np.testing.assert_allclose(spread, alone, rtol=1e-5)


@eight_devices
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_micro_batches_are_added_up_where_the_parameters_lie(param_dtype):
    """What the compiled loop over micro-batches changes: a float32 array for each parameter's part, none of a
    whole parameter's shape, and numbers. Weights that it only reads may be gathered before it."""
    parts, mesh = parts_of(GPTConfig, accumulate=4, param_dtype=param_dtype), mesh_of((1, 8, 1))
    with jax.set_mesh(mesh):
        text = parts.compiled(mesh).lower(initial(parts, mesh), batch_of(0, mesh)).compile().as_text()
    program = read_program(text)
    entry = program.computations[program.entry]
    (loop,) = [i for i in entry.instructions.values() if i.opcode == "while" and program.turns(entry, i) == 4]
    body = program.computations[loop.attribute("body").lstrip("%")]
    changed = []
    for index, (name, array) in enumerate(zip(body.root.operands, loop.arrays, strict=True)):
        made = body.source(name)
        if made.opcode != "get-tuple-element" or made.attribute("index") != str(index):
            changed.append((array.shape, array.dtype))
    specs, places = jax.tree.leaves(parts.specs().params), jax.tree.leaves(parts.places(mesh).params)
    held = [place.shard_shape(spec.shape) for spec, place in zip(specs, places, strict=True)]
    whole = {spec.shape for spec, part in zip(specs, held, strict=True) if spec.shape != part}
    assert len(whole) > 5 and not whole & set(held)
    assert sorted(change for change in changed if change[0]) == sorted((part, "f32") for part in held)


@families
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_changes_nothing(kind, poison):
    parts, mesh = in_parts(kind), mesh_of()
    with jax.set_mesh(mesh):
        state = initial(parts, mesh)
        before = jax.tree.map(np.asarray, state)
        batch = batch_of(0, mesh)
        batch = batch | {"weights": batch["weights"].at[0, 0].set(poison)}
        after, numbers = compiled(parts, mesh)(state, batch)
    assert not numbers["finite"]
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_a_gradient_that_is_not_finite_beside_a_finite_loss_changes_nothing():
    class Pointed(CausalLM):
        """With a term of value 0 that has no slope there."""

        def loss(self, x_BTD, readout, batch):
            sums = super().loss(x_BTD, readout, batch)
            return sums | {"loss": sums["loss"] + jnp.sqrt(0 * jnp.square(x_BTD).sum())}

    parts, mesh = dataclasses.replace(parts_of(GPTConfig), task=Pointed()), mesh_of()
    before = initial(parts_of(GPTConfig), mesh)
    with jax.set_mesh(mesh):
        after, numbers = jax.jit(parts.step)(before, batch_of(0, mesh))
    assert jnp.isfinite(numbers["loss"]) and not numbers["finite"]
    jax.tree.map(np.testing.assert_array_equal, after, before)


@families
def test_an_update_that_overflows_shows_in_the_norm_of_the_parameters(kind):
    """Gradient and loss are finite here; what they are added up to is not. No run goes on from there."""
    optimizer = optim.SGD(learning_rate=3e38, momentum=0.0)
    parts, mesh = parts_of(kind, optimizer=optimizer, clip_norm=0.0), mesh_of()
    with jax.set_mesh(mesh):
        step, state = compiled(parts, mesh), initial(parts, mesh)
        for number in range(3):
            state, numbers = step(state, batch_of(number, mesh))
            if not jnp.isfinite(numbers["param_norm"]):
                break
    assert numbers["finite"] and not jnp.isfinite(numbers["param_norm"])


@families
def test_clipping_bounds_the_gradient_that_is_applied(kind):
    sgd = optim.SGD(learning_rate=1.0, momentum=0.0, weight_decay=0.0)
    parts, mesh = parts_of(kind, optimizer=sgd, clip_norm=0.01, steps=1000), mesh_of()
    with jax.set_mesh(mesh):
        before = jax.tree.map(np.asarray, initial(parts, mesh).params)
    state, _ = train(parts, mesh, stop=1)
    rate = float(optim.learning_rate(sgd, schedules.Cosine(warmup_steps=2), 1000)(0))
    moved = np.sqrt(
        sum(
            ((a - b) ** 2).sum()
            for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(before), strict=True)
        )
    )
    np.testing.assert_allclose(moved, 0.01 * rate, rtol=1e-4)


def nats_of(parts, params, batch, key=None):
    """(the summed loss of a batch, how many targets it has), with dropout by a key."""
    training = {} if key is None else {"train": True, "rngs": {"dropout": key}}
    x_BTD, _ = parts.model.features(params, batch["inputs"], **training)
    sums = parts.task.loss(x_BTD, Partial(parts.model.readout_stored, params), batch)
    return sums["loss"], sums["weight"]


def test_an_update_is_the_gradient_of_the_mean_where_nothing_is_clipped():
    sgd = optim.SGD(learning_rate=1.0, momentum=0.0, weight_decay=0.0)
    settings = {"optimizer": sgd, "clip_norm": 1000.0, "model": tiny_model(GPTConfig, dropout_rate=0.0)}
    parts, batch = parts_of(GPTConfig, **settings), rows_of(0, range(ROWS))
    before = initial(parts, mesh_of()).params

    def mean(params):
        nats, weight = nats_of(parts, params, batch)
        return nats / weight

    wanted = jax.jit(jax.grad(mean))(before)
    after = train(parts, mesh_of(), stop=1)[0].params
    rate = float(optim.learning_rate(sgd, schedules.Cosine(warmup_steps=2), 10)(0))
    jax.tree.map(
        lambda new, old, g: np.testing.assert_allclose((old - new) / rate, g, atol=2e-6),
        after,
        before,
        wanted,
    )


def scaled(factor, tree):
    return jax.tree.map(lambda x: factor * x, tree)


@families
def test_the_average_follows_its_recurrence(kind):
    parts, mesh = in_parts(kind), mesh_of()
    with jax.set_mesh(mesh):
        state = initial(parts, mesh)
        expected = jax.tree.map(np.asarray, state.params)
        for step in range(4):
            state, _ = compiled(parts, mesh)(state, batch_of(step, mesh))
            decay = min(0.2, (1 + step) / (10 + step))
            new = jax.tree.map(np.asarray, state.params)
            expected = jax.tree.map(np.add, scaled(decay, expected), scaled(1 - decay, new))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), state.average, expected)
    assert state.evaluated_params is state.average


@families
def test_dropout_changes_with_the_step_and_not_between_runs(kind):
    parts, mesh = parts_of(kind), mesh_of()
    losses = []
    with jax.set_mesh(mesh):
        for step in range(2):  # the same parameters and the same batch at two steps
            state = initial(parts, mesh)
            state = dataclasses.replace(state, step=state.step + step)
            losses.append(float(compiled(parts, mesh)(state, batch_of(0, mesh))[1]["loss"]))
    assert abs(losses[0] - losses[1]) > 1e-4
    assert train(parts, mesh, stop=2)[1] == train(parts, mesh, stop=2)[1]


def test_each_micro_batch_drops_out_for_itself():
    """By the key of the step, with the micro-batch's number folded in."""
    parts, batch = in_parts(GPTConfig), rows_of(0, range(ROWS))
    params, key = initial(parts, mesh_of()).params, jax.random.fold_in(jax.random.key(3), 0)
    loss = jax.jit(functools.partial(nats_of, parts))
    found = []
    for number in range(2):
        rows = jax.tree.map(lambda x, number=number: x[number::2], batch)
        found.append(loss(params, rows, jax.random.fold_in(key, number)))
    nats, weight = np.sum(found, axis=0)
    np.testing.assert_allclose(train(parts, mesh_of(), stop=1)[1], nats / weight, rtol=1e-6)


def test_a_row_that_begins_goes_on_from_nothing_and_others_from_their_state():
    parts, batch = parts_of(RNNConfig), rows_of(0, range(ROWS))
    params, carry = parts.init().params, jax.tree.map(lambda x: jnp.ones_like(x) / 2, parts.no_carry())
    begins_B = np.arange(ROWS) % 3 == 0
    chosen = jax.tree.map(lambda x: jnp.where(begins_B[:, None], 0, x), carry)
    _, wanted = parts.model.features(params, batch["inputs"], state=chosen)
    _, _, after = parts.evaluate(params, batch | {"begins": begins_B}, carry)
    jax.tree.map(np.testing.assert_array_equal, after, wanted)


@families
@eight_devices
def test_the_state_stays_where_the_table_put_it(kind):
    parts, mesh = parts_of(kind), mesh_of((2, 2, 2))
    with jax.set_mesh(mesh):
        placed = jax.tree.map(lambda x: x.sharding, parts.init_on(mesh))
    state, _ = train(parts, mesh, stop=1)
    jax.tree.map(
        lambda x, sharding: x.sharding.is_equivalent_to(sharding, x.ndim) or pytest.fail(str(x.sharding)),
        state,
        placed,
    )


def test_two_batches_wait_ahead_and_none_is_lost():
    placed = []
    batches = prefetched(lambda item: placed.append(item) or item, range(6))
    assert next(batches) == 0 and placed == [0, 1, 2]
    assert list(batches) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("limit", "carried_rows", "read"),
    [(0, 0, range(7)), (3, 0, [0, 2, 4]), (9, 0, range(7)), (3, 8, range(3)), (0, 8, range(7))],
)
def test_an_evaluation_reads_every_batch_or_an_even_choice(limit, carried_rows, read):
    """Of rows that go on from batch to batch it is the first ones."""
    dataset = SimpleNamespace(
        num_eval_batches=7,
        carried_rows=carried_rows,
        cfg=SimpleNamespace(batch_size=8),
        eval_batch=lambda number, rows: np.full(len(rows), number),
    )
    task = SimpleNamespace(batch=lambda examples: examples)
    found = evaluation_batches(dataset, task, mesh_of(), limit)
    assert [set(np.asarray(batch).tolist()) for batch in found] == [{number} for number in read]


@eight_devices
def test_each_device_gets_its_rows_and_only_those_are_read():
    read = []

    def rows(span):
        read.append(span)
        return rows_of(0, span)

    mesh = mesh_of((2, 2, 2))
    batch = place_rows(rows, ROWS, mesh)
    assert sorted((span.start, span.stop) for span in read) == [(0, 4), (4, 8), (8, 12), (12, 16)]
    np.testing.assert_array_equal(batch["targets"], rows_of(0, range(ROWS))["targets"])


def test_parts_compare_by_what_they_are():
    kind = next(iter(MODELS))
    parts = parts_of(kind)
    assert dataclasses.replace(parts, seed=4) != parts
