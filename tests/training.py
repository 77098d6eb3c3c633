"""What the tests of training share: tiny models whose sizes divide over eight devices, and batches.

Every language model in zoo.models.MODELS is trained here; a new one joins by being in that table. Models of
other tasks have test_training_of_tasks.py.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from zoo import models, optim, schedules
from zoo.feed import place_rows
from zoo.mesh import MeshConfig, make_mesh
from zoo.step import TrainStep
from zoo.tasks import CausalLM

SIZES = {"vocab_size": 65, "max_length": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4}
SIZES |= {"d_model": 32, "d_ff": 64}
SIZES |= {"d_state": 40, "init_scale": 0.3}
ROWS, LENGTH = 16, 24
MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)]

eight_devices = pytest.mark.skipif(
    jax.device_count() != 8, reason="needs 8 devices: JAX_NUM_CPU_DEVICES=8, which conftest.py sets"
)
LANGUAGE_MODELS = [
    kind
    for kind in models.MODELS
    if "causal" in models.create(kind()).traits and "pair" not in models.create(kind()).traits
]
families = pytest.mark.parametrize("kind", LANGUAGE_MODELS, ids=lambda kind: kind.__name__)
# The same where programs are dear: two families, which differ most, and the others among the long proofs.
two_families = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=() if kind in (models.GPTConfig, models.RNNConfig) else pytest.mark.long)
        for kind in LANGUAGE_MODELS
    ],
    ids=lambda kind: kind.__name__,
)


def tiny_model(kind, **changes):
    names = {field.name for field in dataclasses.fields(kind)}
    sizes = {name: size for name, size in (SIZES | {"dropout_rate": 0.1}).items() if name in names}
    return models.create(kind(**(sizes | changes)))


@functools.cache  # equal parts are one object, with programs and a first state that tests share
def parts_of(kind, *, optimizer=None, steps=10, model=None, **settings) -> TrainStep:
    """A train step with AdamW and a cosine, unless told otherwise; a recurrent model carries its state."""
    model = model or tiny_model(kind)
    carried_rows = ROWS if "recurrent" in model.traits else 0
    tx = optim.transform(
        optimizer or optim.AdamW(learning_rate=1e-2),
        schedules.Cosine(warmup_steps=2),
        steps,
        model.abstract(),
    )
    settings = {"seed": 3, "clip_norm": 1.0, "carried_rows": carried_rows} | settings
    return TrainStep(model, CausalLM(), tx, **settings)


def rows_of(step: int, rows: range) -> dict:
    """Examples of a step: random tokens with a pattern that can be learned, and some targets left out; as
    parallel streams, of which each row begins anew at some steps."""
    random = np.random.default_rng(step)
    tokens = (random.integers(0, 65, (ROWS, 1)) + 3 * np.arange(LENGTH + 1)) % 65
    noise = random.random(tokens.shape) < 0.2
    tokens = np.where(noise, random.integers(0, 65, tokens.shape), tokens).astype(np.int32)
    weights = (random.random((ROWS, LENGTH)) < 0.9).astype(np.float32)
    chosen = slice(rows.start, rows.stop)
    begins = (step + np.arange(ROWS)) % 5 == 0
    return CausalLM().batch({"tokens": tokens[chosen], "weights": weights[chosen], "begins": begins[chosen]})


def batch_of(step: int, mesh):
    return place_rows(functools.partial(rows_of, step), ROWS, mesh)


def mesh_of(sizes=(1, 1, 1), **others):
    """A mesh of so many devices for data, fsdp and tensor, and for other axes by their names."""
    count = int(np.prod([*sizes, *others.values()]))
    return make_mesh(MeshConfig(*sizes, **others), jax.devices()[:count])


@functools.cache
def compiled(parts: TrainStep, mesh):
    with jax.set_mesh(mesh):
        return parts.compiled(mesh)


@functools.cache
def _first(parts: TrainStep):
    with jax.set_mesh(mesh := mesh_of()):
        return parts.init_on(mesh)


@functools.cache
def _initial(parts: TrainStep, mesh):
    """State 0 as `init_on` places it, made on one device: one program to compile for all meshes."""
    return jax.device_put(_first(parts), parts.places(mesh))


def initial(parts: TrainStep, mesh):
    """State 0, a copy: the train step gives up what it is given."""
    return jax.tree.map(lambda x: x.copy(), _initial(parts, mesh))


def train(parts: TrainStep, mesh, state=None, *, start=0, stop=10):
    """(state, losses) after the steps from `start` to `stop`."""
    losses = []
    with jax.set_mesh(mesh):
        state = initial(parts, mesh) if state is None else state
        for step in range(start, stop):
            state, numbers = compiled(parts, mesh)(state, batch_of(step, mesh))
            losses.append(float(numbers["loss"]))
    return state, losses
