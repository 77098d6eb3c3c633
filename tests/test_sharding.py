"""The alphabet and the table."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from training import eight_devices, mesh_of

import zoo
from zoo.errors import ConfigError
from zoo.fits import check_axes, check_rows
from zoo.lettered import ParamSpec, stored_size
from zoo.mesh import AXES, MeshConfig, abstract_mesh, make_mesh
from zoo.micro_batches import pipeline_of
from zoo.models.gpt import GPTConfig
from zoo.models.rnn import RNNConfig
from zoo.recipes import CONFIGS
from zoo.reporter import bubble, unspread
from zoo.sharding import LETTERS, RULES, copied, placement, shardings

MESH = abstract_mesh({"data": 2, "fsdp": 2, "tensor": 2})


@pytest.mark.parametrize(
    ("letters", "shape", "expected"),
    [
        # B took fsdp before D could; T takes the tensor axis where no letter wants it, wherever that stands.
        ("BTD", (8, 4, 6), PartitionSpec(("data", "fsdp"), "tensor", None)),
        ("BTF", (8, 4, 6), PartitionSpec(("data", "fsdp"), None, "tensor")),
        ("BTHK", (8, 4, 2, 5), PartitionSpec(("data", "fsdp"), None, "tensor", None)),
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
    assert placement(letters, shape, MESH) == expected


def test_axes_of_size_one_are_left_out():
    mesh = abstract_mesh({"data": 8, "fsdp": 1, "tensor": 1})
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
        placement("DHK", (8, 3, 5), MESH, exact="['w']")


def test_an_activation_takes_the_first_axes_that_divide_it():
    assert placement("BTD", (1, 3, 6), MESH) == PartitionSpec(None, None, "fsdp")
    assert placement("BTD", (2, 3, 6), MESH) == PartitionSpec("data", None, "fsdp")


def test_positions_are_split_over_context_and_heads_where_positions_are_whole():
    mesh = abstract_mesh({"data": 2, "context": 2, "tensor": 2})
    assert placement("BTD", (2, 4, 6), mesh) == PartitionSpec("data", ("context", "tensor"), None)
    assert placement("BTHK", (2, 4, 8, 5), mesh) == PartitionSpec("data", "context", "tensor", None)
    assert placement("BSAK", (2, 4, 8, 5), mesh) == PartitionSpec("data", None, ("tensor", "context"), None)
    assert placement("BTD", (2, 2, 6), mesh) == PartitionSpec("data", "context", None)


@pytest.mark.parametrize(("size", "stored"), [(50257, 50304), (65, 128), (128, 128), (129, 256)])
def test_a_vocabulary_is_stored_in_multiples_of_128(size, stored):
    assert (stored_size("V", size), stored_size("D", size)) == (stored, size)


@eight_devices
def test_minus_one_takes_the_rest():
    wanted = dict.fromkeys(AXES, 1) | {"data": 2, "fsdp": 2, "tensor": 2}
    assert dict(make_mesh(MeshConfig(-1, 2, 2)).shape) == wanted
    assert dict(make_mesh(MeshConfig(2, 2, -1)).shape) == wanted
    assert dict(make_mesh(MeshConfig(1, 2, context=-1)).shape)["context"] == 4


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
    recipe = CONFIGS["gpt_stdlib"]
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, batch_size=6), accumulate=1)
    with pytest.raises(
        ConfigError, match="=6 in accumulate=1 parts does not divide over 8 batch shards"
    ) as error:
        check_rows(recipe, mesh_of((4, 2, 1)).shape)
    assert str(error.value).endswith("(mesh data=4 fsdp=2); give --data.batch-size 8 --accumulate 1")


@eight_devices
def test_a_slice_is_consecutive_devices():
    mesh = make_mesh(MeshConfig(data=2, tensor=2, slice=2))
    assert [[d.id for d in part.flat] for part in mesh.devices] == [[0, 1, 2, 3], [4, 5, 6, 7]]


class Device:
    """Of eight in two hosts or slices, which JAX calls slices both."""

    def __init__(self, number, platform):
        self.slice_index = self.process_index = number // 4
        self.id, self.platform = number, platform


def test_slices_that_are_not_the_machines_are_refused():
    with pytest.raises(ConfigError, match="slice=1: the devices are 2 slices; use --mesh.slice 2"):
        make_mesh(MeshConfig(), [Device(number, "tpu") for number in range(8)])


def test_hosts_of_gpus_are_no_slices():
    devices = [Device(number, "gpu") for number in (5, 4, 7, 6, 1, 0, 3, 2)]
    for config in (MeshConfig(fsdp=8, data=1), MeshConfig(slice=2, fsdp=4)):
        assert [device.id for device in make_mesh(config, devices).devices.flat] == list(range(8))


@eight_devices
@pytest.mark.parametrize(
    ("rows", "stages", "parts"), [(64, 2, 8), (64, 4, 16), (6, 2, 6), (10, 4, 10), (7, 2, 7), (22, 2, 2)]
)
def test_micro_batches_are_at_most_four_a_stage(rows, stages, parts):
    mesh = make_mesh(MeshConfig(data=1, pipeline=stages), jax.devices()[:stages])
    assert pipeline_of(rows, mesh) == (stages, parts)


@pytest.mark.parametrize(
    ("config", "axes", "message"),
    [
        ("lstm", {"context": 2}, "mesh.context=2: RNNConfig has no attention to spread"),
        ("lstm", {"pipeline": 2}, "mesh.pipeline=2: RNNConfig has no layers to spread"),
        ("qwen3_30b_a3b", {"pipeline": 2}, "what routers say is not passed on from stage to stage"),
        ("gpt_tiny", {"expert": 2}, "mesh.expert=2: GPTConfig has no experts to spread"),
        ("gpt_tiny", {"context": 5}, "data.length=24 does not divide over mesh context=5"),
    ],
)
def test_an_axis_without_anything_to_spread_is_refused(config, axes, message):
    model = zoo.create(RNNConfig() if config == "lstm" else config)
    with pytest.raises(ConfigError, match=message):
        check_axes(model, 24, abstract_mesh(dict.fromkeys(AXES, 1) | axes))


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
    for axis in ("pipeline", "expert"):  # of one layer, a stage has all of it, and nobody an expert
        layers = {"pipeline": 8, "expert": 1}[axis]
        specs = zoo.create(dataclasses.replace(config, num_layers=layers)).abstract()
        text = unspread(specs, make_mesh(MeshConfig(data=1, **{axis: 8})))
        assert "positions/table" in text and "--mesh.fsdp would" in text


@pytest.mark.parametrize(("whole", "is_said"), [(200, False), (208, True)])
def test_two_parts_of_a_hundred_may_lie_whole(whole, is_said):
    sizes = {"F": 9800, "D": whole}
    specs = {letter: ParamSpec(letter, (n,), (n,), np.dtype("float32")) for letter, n in sizes.items()}
    assert bool(unspread(specs, make_mesh(MeshConfig(tensor=8, data=1)))) == is_said


def test_a_second_size_that_takes_the_rest_is_told_what_the_first_shall_be():
    with pytest.raises(ConfigError, match="only one size may be -1; give data=1 too"):
        MeshConfig(fsdp=-1)
    assert MeshConfig(fsdp=-1, data=1).fsdp == -1


def test_a_stage_of_a_pipeline_is_idle_while_the_others_fill_and_empty():
    assert (bubble(1, 4), bubble(2, 4), bubble(4, 8)) == (0, 1 / 5, 3 / 11)


@eight_devices
@pytest.mark.parametrize("words", [16, 12], ids=["divides", "does not divide"])
@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (2, 4, 1)], ids=str)
def test_the_gradients_of_copies_are_summed_and_stored_as_the_parameter_is(words, sizes):
    mesh, random = mesh_of(sizes), np.random.default_rng(0)
    x_VD, weights_NVD = (
        random.integers(-9, 9, shape).astype(np.float32) for shape in ((words, 8), (8, words, 8))
    )
    with jax.set_mesh(mesh):
        place = NamedSharding(mesh, placement("VD", x_VD.shape, mesh))
        found = jax.jit(jax.grad(lambda x: (copied(x, "VD", 8).value * weights_NVD).sum()))(
            jax.device_put(x_VD, place)
        )
    np.testing.assert_array_equal(found, weights_NVD.sum(0))
    assert found.sharding.is_equivalent_to(place, 2)
