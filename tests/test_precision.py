"""Parameters of 16 bits: a master that is what float32 makes of the gradients, and rounding that is right on
average."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training import eight_devices, initial, mesh_of, parts_of, tiny_model, train

from zoo import optim
from zoo.checkpoint import Checkpoints
from zoo.digest import state_digest
from zoo.models.gpt import GPTConfig
from zoo.models.rnn_config import RNNConfig
from zoo.optim.finetune import without
from zoo.optim.precision import MASTER, STOCHASTIC, first_state, rounded_at_random, stored, updated, wide
from zoo.pretrained.runs import stored_params
from zoo.schedules import Cosine
from zoo.tree import named_leaves, nested

ADAMW = optim.AdamW(learning_rate=1e-2)


trained = functools.partial(train, stop=3)


def dtypes(tree) -> set[str]:
    return {str(x.dtype) for x in jax.tree.leaves(tree) if x.ndim}


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_each_master_is_what_adamw_in_float32_makes_of_the_same_gradients():
    """Update by update, to the bit; what the model reads is the master rounded to the nearest."""
    model = tiny_model(GPTConfig)
    tx = optim.transform(ADAMW, Cosine(warmup_steps=2), 10, model.abstract())
    exact = model.init(jax.random.key(0))
    moments, state, params = tx.init(exact), first_state(tx, exact, MASTER), stored(exact, MASTER)
    for step in range(4):
        keys = jax.random.split(jax.random.key(step), len(jax.tree.leaves(exact)))
        keys = jax.tree.unflatten(jax.tree.structure(exact), list(keys))
        gradients = jax.tree.map(lambda x, key: jax.random.normal(key, x.shape, jnp.bfloat16), exact, keys)
        updates, moments = tx.update(wide(gradients), moments, exact)
        exact = optax.apply_updates(exact, updates)
        params, averaged, state = updated(
            tx, gradients, state, params, param_dtype=MASTER, key=jax.random.key(9)
        )
        same((averaged, state.master, state.rule), (exact, exact, moments))
        same(params, jax.tree.map(lambda x: x.astype(jnp.bfloat16), exact))


@pytest.mark.parametrize("kind", [GPTConfig, RNNConfig], ids=lambda kind: kind.__name__)
def test_training_with_a_master_follows_float32(kind):
    """Within what rounding of weights to 8 bits does to a loss: at most 2 % of it over ten steps."""
    model = tiny_model(kind, dropout_rate=0.0)
    mesh = mesh_of()
    _, plain = trained(parts_of(kind, model=model, optimizer=ADAMW), mesh, stop=10)
    state, losses = trained(parts_of(kind, model=model, optimizer=ADAMW, param_dtype=MASTER), mesh, stop=10)
    np.testing.assert_allclose(losses, plain, rtol=0.02)
    assert dtypes(state.params) == {"bfloat16"} and dtypes(state.opt_state) == {"float32"}


def test_rounding_at_random_is_right_on_average_and_never_further_than_a_neighbour():
    """n draws of a share p of the gap have a standard deviation of sqrt(p (1 - p) / n) <= 1 / (2 sqrt(n)); of
    300 means none may be 5 of them off (chance 2e-4)."""
    n, rng = 4096, np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal(297) * 10.0 ** rng.integers(-30, 30, 297), [0.0, 1.0, 1 + 2**-9]])
    x = x.astype(np.float32)
    many = np.asarray(rounded_at_random(jnp.tile(x, (n, 1)), jax.random.key(1)).astype(jnp.float32))
    down = (x.view(np.uint32) & 0xFFFF0000).view(np.float32)
    up = np.where(x == down, down, ((x.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32))
    assert ((many == down) | (many == up)).all()
    gap = np.where(up == down, 1, up.astype(np.float64) - down)
    share = (x.astype(np.float64) - down) / gap
    error = ((many.astype(np.float64) - down) / gap).mean(0) - share
    assert np.abs(error).max() < 5 / (2 * np.sqrt(n))
    assert not error[-3:-1].any()  # 0 and 1 are bfloat16s


def test_rounding_keeps_what_is_not_finite():
    x = jnp.array([np.nan, -np.nan, np.inf, -np.inf, 3.4e38], jnp.float32)
    got = np.asarray(rounded_at_random(jnp.tile(x, (64, 1)), jax.random.key(0)).astype(jnp.float32))
    assert np.isnan(got[:, :2]).all() and (got[:, 2] == np.inf).all() and (got[:, 3] == -np.inf).all()


def test_rounding_at_random_trains_where_rounding_to_the_nearest_stalls():
    """A linear regression by small steps, from a loss of 16: soon each is less than half a bfloat16's gap.
    Measured 1.4e-5 in float32, 7.4e-5 rounded at random, 3.5 rounded to the nearest."""
    x_BD = jax.random.normal(jax.random.key(0), (256, 16))
    y_B = x_BD @ jax.random.normal(jax.random.key(1), (16,))
    gradient = jax.grad(lambda w_D: ((x_BD @ w_D - y_B) ** 2).mean())

    def loss_after(store):
        def step(w, key):
            return store(w.astype(jnp.float32) - 1e-3 * gradient(w.astype(jnp.float32)), key), None

        keys = jax.random.split(jax.random.key(2), 4000)
        w, _ = jax.lax.scan(step, store(jnp.zeros(16), keys[0]), keys)
        return float(((x_BD @ w.astype(jnp.float32) - y_B) ** 2).mean())

    exact = loss_after(lambda w, key: w)
    nearest = loss_after(lambda w, key: w.astype(jnp.bfloat16))
    random = loss_after(rounded_at_random)
    assert exact < random < 1e-3 and nearest > 1, (exact, random, nearest)


@eight_devices
@pytest.mark.parametrize("param_dtype", [MASTER, pytest.param(STOCHASTIC, marks=pytest.mark.long)])
def test_dtypes_are_kept_by_training_with_everything_beside_and_by_checkpoints(param_dtype, tmp_path):
    """Micro-batches, an average, the best, frozen parameters, the optimizer's state with the host."""
    frozen = frozenset(["tokens/table"])
    model = tiny_model(GPTConfig)
    tx = optim.transform(ADAMW, Cosine(warmup_steps=2), 10, without(model.abstract(), frozen))
    parts = parts_of(GPTConfig, optimizer=ADAMW, param_dtype=param_dtype, accumulate=2, average_decay=0.5)
    parts = dataclasses.replace(parts, tx=tx, frozen=frozen, best="loss", offload=("optimizer",))
    mesh = mesh_of((2, 2, 2))
    state, losses = trained(parts, mesh, stop=4)
    assert dtypes(state.params) == {"bfloat16"}
    assert dtypes(state.average) == dtypes(state.opt_state) == dtypes(state.best.params) == {"float32"}
    same(state.params["tokens"], initial(parts, mesh).params["tokens"])
    described = {name: spec.dtype for name, spec in named_leaves(parts.specs()).items()}
    assert {name: x.dtype for name, x in named_leaves(state).items()} == described
    with jax.set_mesh(mesh):
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            digest = checkpoints.save(state, parts.specs(), {})
        with Checkpoints(tmp_path) as checkpoints:
            read = checkpoints.restore(parts.specs(), mesh, pytest.fail, parts.places(mesh))
    assert state_digest(read, parts.specs()) == digest
    same(trained(parts, mesh, read, start=4, stop=6)[0], trained(parts, mesh, state, start=4, stop=6)[0])


def test_rounding_is_the_same_from_run_to_run_and_on_every_mesh():
    parts = parts_of(GPTConfig, optimizer=ADAMW, param_dtype=STOCHASTIC)
    one, other = (trained(parts, mesh_of(), stop=2)[0] for _ in range(2))
    same(one, other)
    rows = jnp.linspace(0.0, 1.0, 64).reshape(8, 8)
    alone = rounded_at_random(rows, jax.random.key(3))
    spread = jax.device_put(
        rows, jax.sharding.NamedSharding(mesh_of((2, 1, 1)), jax.sharding.PartitionSpec("data"))
    )
    same(alone, jax.jit(rounded_at_random)(spread, jax.random.key(3)))


def test_a_start_from_other_parameters_is_a_start_of_the_master_too():
    parts, mesh = parts_of(GPTConfig, optimizer=ADAMW, param_dtype=MASTER, average_decay=0.5), mesh_of()
    with jax.set_mesh(mesh):
        state = initial(parts, mesh)
        given = nested({name: x + 1 / 3 for name, x in named_leaves(state.opt_state.master).items()})
        begun = state.started_from(given)
    same(begun.opt_state.master, given)
    same(begun.average, given)
    same(begun.params, stored(given, MASTER))
    trained(parts, mesh, begun, stop=1)  # no array is given up twice


@pytest.mark.parametrize("average_decay", [0.0, 0.5])
def test_whoever_reads_a_run_gets_its_values_in_float32(average_decay, tmp_path):
    """What training read, exactly, or the average."""
    parts = parts_of(GPTConfig, optimizer=ADAMW, param_dtype=STOCHASTIC, average_decay=average_decay)
    mesh = mesh_of()
    with jax.set_mesh(mesh):
        state = initial(parts, mesh)
        with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
            checkpoints.save(state, parts.specs(), {})
        recipe = SimpleNamespace(average_decay=average_decay, best="", param_dtype=STOCHASTIC)
        read = stored_params(tmp_path, recipe, parts.model, mesh)
    assert dtypes(read) == {"float32"}
    same(read, wide(state.evaluated_params))
