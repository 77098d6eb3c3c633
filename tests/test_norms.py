"""The norm of a tree beside NumPy in float64, in one piece and on a mesh."""

import jax
import numpy as np
import pytest
from training import eight_devices, mesh_of

from zoo import xla
from zoo.norms import global_norm

SHAPES = [(), (1,), (7,), (64, 3), (12, 5, 2), (97, 4), (1000, 130)]


def tree():
    random = np.random.default_rng(0)
    return [np.asarray(random.normal(size=shape), np.float32) for shape in SHAPES]


def wanted(arrays):
    return np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in arrays))


@pytest.mark.parametrize("jitted", [jax.jit, lambda function: function], ids=["compiled", "eager"])
def test_it_is_the_root_of_all_squares(jitted):
    np.testing.assert_allclose(jitted(global_norm)(tree()), wanted(tree()), rtol=1e-6)
    assert jitted(global_norm)([]) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_number_that_is_not_finite_shows(value):
    arrays = tree()
    arrays[-1][999, 129] = value
    assert not np.isfinite(global_norm(arrays))


@eight_devices
def test_what_is_spread_over_devices_is_gathered_nowhere():
    mesh = mesh_of((1, 8, 1))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    x = jax.device_put(tree()[-1], rows)
    with jax.set_mesh(mesh):
        program = jax.jit(global_norm).lower(x).compile()
        np.testing.assert_allclose(program(x), wanted([x]), rtol=1e-6)
    assert "all-gather" not in program.as_text() and "all-to-all" not in program.as_text()


@pytest.mark.skipif(xla.jaxlib_version() != "0.10.2", reason="jaxlib 0.12's CPU writes them all the same")
def test_no_array_of_squares_is_written():
    """Besides its input, what the compiled program keeps is a part of it."""
    x = np.ones((4096, 256), np.float32)
    assert jax.jit(global_norm).lower(x).compile().memory_analysis().temp_size_in_bytes < x.nbytes / 8
