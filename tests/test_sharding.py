"""The alphabet and the table."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from training import eight_devices, mesh_of

import zoo
from zoo.errors import ConfigError
from zoo.models.gpt import GPTConfig
from zoo.reporter import unspread
from zoo.sharding import (
    LETTERS,
    RULES,
    MeshConfig,
    ParamSpec,
    check_rows,
    make_mesh,
    placement,
    shardings,
    stored_size,
)


class Mesh222:
    """Sizes are all that `placement` asks of a mesh."""

    shape = {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("letters", "shape", "expected"),
    [
        ("BTD", (8, 4, 6), PartitionSpec(("data", "fsdp"), None, None)),  # B took fsdp before D could
        ("DF", (8, 4), PartitionSpec("fsdp", "tensor")),
        ("NDHK", (3, 8, 2, 5), PartitionSpec(None, "fsdp", "tensor", None)),
        ("NHKD", (3, 2, 5, 8), PartitionSpec(None, "tensor", None, "fsdp")),
        ("VD", (128, 8), PartitionSpec("tensor", "fsdp")),
        ("BTV", (8, 4, 128), PartitionSpec(("data", "fsdp"), None, "tensor")),
        ("V.", (128, 8), PartitionSpec("tensor", None)),
        ("", (), PartitionSpec()),
    ],
)
def test_each_axis_serves_once_and_the_leftmost_letter_wins(letters, shape, expected):
    assert placement(letters, shape, Mesh222()) == expected


def test_axes_of_size_one_are_left_out():
    mesh = type("Mesh", (), {"shape": {"data": 8, "fsdp": 1, "tensor": 1}})()
    assert placement("DF", (7, 5), mesh, exact="w") == PartitionSpec(None, None)


def test_every_letter_has_a_meaning_and_a_rule():
    assert set(LETTERS) == set(RULES)


def test_unknown_letter_names_the_parameter():
    with pytest.raises(ConfigError, match=r"\['mlp'\]\['b'\]: dimension 'Q' has no rule; add it to RULES"):
        shardings({"mlp": {"b": ParamSpec("Q", (4,), (4,), np.float32)}}, mesh_of())


def test_a_parameter_that_does_not_divide_is_named_with_its_size():
    with pytest.raises(
        ConfigError, match=r"\['w'\]: dimension H=3 \(heads\) does not divide over mesh tensor=2"
    ):
        placement("DHK", (8, 3, 5), Mesh222(), exact="['w']")


def test_an_activation_that_does_not_divide_stays_whole():
    assert placement("BTD", (1, 4, 6), Mesh222()) == PartitionSpec(None, None, "fsdp")


@pytest.mark.parametrize(("size", "stored"), [(50257, 50304), (65, 128), (128, 128), (129, 256)])
def test_a_vocabulary_is_stored_in_multiples_of_128(size, stored):
    assert (stored_size("V", size), stored_size("D", size)) == (stored, size)


@eight_devices
def test_minus_one_takes_the_rest():
    assert dict(make_mesh(MeshConfig(-1, 2, 2)).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert dict(make_mesh(MeshConfig(2, 2, -1)).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@eight_devices
@pytest.mark.parametrize("sizes", [(3, 2, 1), (-1, 3, 1), (1, 1, 1), (16, 1, 1)])
def test_a_mesh_that_does_not_fit_says_so_in_one_line(sizes):
    with pytest.raises(ConfigError, match="does not fit 8 devices; sizes must multiply") as error:
        make_mesh(MeshConfig(*sizes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (-2, 1, 1), (-1, -1, 1)])
def test_impossible_mesh_sizes_are_refused(sizes):
    with pytest.raises(ConfigError, match="data="):
        MeshConfig(*sizes)


@eight_devices
def test_rows_that_do_not_divide_over_the_shards_are_refused():
    with pytest.raises(ConfigError, match="rows=6 does not divide over 8 batch shards"):
        check_rows(6, mesh_of((4, 2, 1)), "rows")


def test_axes_are_automatic():
    assert all(kind == jax.sharding.AxisType.Auto for kind in mesh_of().axis_types)


def test_parameters_that_no_axis_takes_are_said_where_they_are_many():
    """A long table of positions has no letter that tensor parallelism spreads; fsdp spreads its width."""
    config = GPTConfig(vocab_size=128, max_length=4096, num_layers=1, num_heads=8, d_model=16, d_ff=32)
    specs = zoo.create(config).abstract()
    text = unspread(specs, make_mesh(MeshConfig(tensor=8, data=1)))
    assert text.startswith("9") and "positions/table" in text
    assert unspread(specs, make_mesh(MeshConfig(fsdp=8, data=1))) == ""
    assert unspread(specs, make_mesh(MeshConfig(data=8))) == ""  # copies are what is meant
