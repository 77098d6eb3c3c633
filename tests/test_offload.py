"""Optimizer state in the host's memory: where it lies, what it costs the device, and that no bit changes."""

import dataclasses

import jax
import numpy as np
import pytest
from training import batch_of, compiled, eight_devices, initial, mesh_of, parts_of

from zoo import optim, sharding
from zoo.checkpoint import Checkpoints
from zoo.digest import state_digest
from zoo.errors import ConfigError
from zoo.models.gpt import GPTConfig
from zoo.tree import named_leaves

OPTIMIZERS = [optim.AdamW(learning_rate=1e-2), optim.Adafactor(), optim.Muon()]


def pair(optimizer=OPTIMIZERS[0], **settings):
    """(the step with its state on the device, the step with it in the host's memory)."""
    return (
        parts_of(GPTConfig, optimizer=optimizer, **settings),
        parts_of(GPTConfig, optimizer=optimizer, offload=("optimizer",), **settings),
    )


def trained(parts, mesh, state=None, start=0, stop=3):
    with jax.set_mesh(mesh):
        state = initial(parts, mesh) if state is None else state
        for step in range(start, stop):
            state, _ = compiled(parts, mesh)(state, batch_of(step, mesh))
    return state


def kinds(tree) -> set[str]:
    return {x.sharding.memory_kind for x in jax.tree.leaves(tree) if x.ndim}


@eight_devices
@pytest.mark.parametrize(
    "optimizer",
    [pytest.param(each, marks=() if each is OPTIMIZERS[0] else pytest.mark.long) for each in OPTIMIZERS],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_training_is_the_same_to_the_bit_with_the_state_in_the_hosts_memory(optimizer):
    here, there = pair(optimizer, accumulate=2, average_decay=0.2)
    mesh = mesh_of((2, 2, 2))
    plain, offloaded = trained(here, mesh), trained(there, mesh)
    jax.tree.map(np.testing.assert_array_equal, plain, offloaded)
    assert kinds(plain) == kinds(offloaded.params) == kinds(offloaded.average) == {"device"}
    assert kinds(offloaded.opt_state) == {"pinned_host"}
    with jax.set_mesh(mesh):
        assert kinds(there.init_on(mesh).opt_state) == {"pinned_host"}


def test_what_lies_with_the_host_is_fetched_after_the_gradients():
    """The moments go through a barrier with the gradients, and only then to the device."""
    parts, mesh = pair()[1], mesh_of()
    with jax.set_mesh(mesh):
        jaxpr = jax.make_jaxpr(parts.compiled(mesh))(initial(parts, mesh), batch_of(0, mesh)).jaxpr
    equations, host = jaxpr.eqns[0].params["jaxpr"].eqns, jax.memory.Space.Host
    fetched = [
        x
        for equation in equations
        if equation.primitive.name == "device_put"
        for x in equation.invars
        if getattr(x.aval, "memory_space", None) == host
    ]
    barrier = next(e for e in equations if e.primitive.name == "optimization_barrier")
    state, gradients = initial(parts, mesh).opt_state, len(jax.tree.leaves(parts.param_specs()))
    assert len(fetched) == sum(x.ndim > 0 for x in jax.tree.leaves(state))
    assert set(fetched) <= set(barrier.outvars)
    assert len(barrier.outvars) == gradients + len(jax.tree.leaves(state))


@pytest.mark.parametrize("first", [0, 1], ids=["to the host", "from the host"])
def test_a_checkpoint_is_read_with_and_without_offloading(first, tmp_path):
    mesh, parts = mesh_of(), pair()
    writer, reader = parts[first], parts[1 - first]
    state = trained(writer, mesh)
    with jax.set_mesh(mesh):
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            digest = checkpoints.save(state, writer.specs(), {})
        with Checkpoints(tmp_path) as checkpoints:
            read = checkpoints.restore(reader.specs(), mesh, pytest.fail, reader.places(mesh))
    assert kinds(read.opt_state) == {"device" if first else "pinned_host"}
    assert state_digest(read, reader.specs()) == digest
    went_on = trained(reader, mesh, read, start=3, stop=4)
    jax.tree.map(np.testing.assert_array_equal, went_on, trained(writer, mesh, state, start=3, stop=4))


def test_a_device_without_memory_of_the_host_is_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(sharding, "HOST_MEMORY", "a_memory_that_no_device_has")
    with pytest.raises(ConfigError, match="^offload: this cpu addresses no memory of its host [^\n]*$"):
        pair()[1].places(mesh_of())


def test_numbers_of_the_run_stay_on_the_device():
    parts, mesh = pair()[1], mesh_of()
    places = named_leaves(parts.places(mesh).opt_state)
    specs = named_leaves(parts.specs().opt_state)
    assert {name for name, spec in specs.items() if not spec.shape} == {
        name for name, place in places.items() if place.memory_kind != "pinned_host"
    }
    assert dataclasses.replace(parts, offload=()).places(mesh) != parts.places(mesh)
