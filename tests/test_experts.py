"""Experts: a token gets the weighted sum of those it picks, however they lie and wherever they are."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit, parameters
from training import LENGTH, ROWS, SIZES, eight_devices, parts_of, rows_of

import zoo
from zoo import sharding
from zoo.distill import Distill, Lesson
from zoo.errors import CheckpointError, ConfigError
from zoo.models.decoder_config import DecoderConfig
from zoo.models.experts import Experts, NoExperts, block_rows, gauges, layout, spread
from zoo.models.grouped import by_instruction, grouped, part_rows
from zoo.plan.collectives import collectives_of
from zoo.plan.program import read_program
from zoo.pretrained import decoder
from zoo.pretrained.architectures import settings_of
from zoo.recipes import CONFIGS

B, T, D, F = 3, 20, 6, 10


def by_loop(activation, x_BTD, weight_BTP, chosen_BTP, gate_XDF, up_XDF, down_XFD):
    """The same, each expert for all tokens."""
    y_BTD = 0.0
    for x, (gate_DF, up_DF, down_FD) in enumerate(zip(gate_XDF, up_XDF, down_XFD, strict=True)):
        weight_BT = jnp.where(chosen_BTP == x, weight_BTP, 0).sum(-1)
        y_BTD += weight_BT[..., None] * ((activation(x_BTD @ gate_DF) * (x_BTD @ up_DF)) @ down_FD)
    return y_BTD


def drawn(X, P, rows=B, length=T):
    """(what is differentiated, chosen_BTP) at random."""
    rng = np.random.default_rng(0)
    shapes = (rows, length, D), (rows, length, P), (X, D, F), (X, D, F), (X, F, D)
    chosen_BTP = np.argsort(rng.random((rows, length, X)), -1)[..., :P].astype(np.int32)
    return [rng.standard_normal(shape) for shape in shapes], chosen_BTP


# --- the layout and the products ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "P", "rows", "length"),
    [(5, 2, B, T), (4, 4, B, T), (16, 1, 1, 3), (8, 2, 1, 1)],
    ids=["some", "all", "few picks", "one token"],
)
def test_values_and_gradients_are_those_of_a_loop_over_all_experts(X, P, rows, length):
    """In float64, so that nothing but the order of sums differs."""
    with jax.enable_x64(True):
        (x_BTD, *rest), chosen = drawn(X, P, rows, length)

        def loss(way, x_BTD, weight_BTP, *kernels):
            return jnp.sin(way(jax.nn.silu, x_BTD, weight_BTP, chosen, *kernels)).sum()

        got, want = (
            jit(jax.value_and_grad(functools.partial(loss, way), argnums=range(5)))(x_BTD, *rest)
            for way in (spread, by_loop)
        )
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.abs(one - other).max() <= 1e-12 * np.abs(other).max()


@pytest.mark.parametrize("picks", ["even", "one expert", "of others too"])
def test_every_pick_of_an_expert_here_has_a_row_of_its_own_in_a_block_of_its_expert(picks):
    X, A, rows = 4, 50, 8
    chosen = np.random.default_rng(0).integers(0, X, A)
    chosen = {"even": chosen, "one expert": np.full(A, 2), "of others too": chosen * 2 - 3}[picks]
    place, pick_S, size_X = map(np.asarray, layout(jnp.asarray(chosen), X, rows))
    here = (chosen >= 0) & (chosen < X)
    assert len(pick_S) % rows == 0 and (size_X % rows == 0).all() and size_X.sum() <= len(pick_S)
    expert_S = np.repeat(np.arange(X), size_X)
    for pick in range(A):
        if here[pick]:
            assert pick_S[place[pick]] == pick and expert_S[place[pick]] == chosen[pick]
        else:
            assert place[pick] == len(pick_S)
    assert (pick_S < A).sum() == here.sum()


def test_a_product_by_blocks_is_that_of_the_instruction_that_a_tpu_has():
    rng, rows = np.random.default_rng(0), 4
    size_X = jnp.array([8, 0, 4, 12])
    x_SD, w_XDF = rng.standard_normal((32, D)), rng.standard_normal((4, D, F))
    with jax.enable_x64(True):
        got = jit(functools.partial(grouped, rows=rows))(x_SD, w_XDF, size_X=size_X)
        want = jax.lax.ragged_dot(x_SD, w_XDF, size_X)
    used = int(size_X.sum())  # what is behind is not defined
    np.testing.assert_allclose(got[:used], want[:used], rtol=1e-12)


@pytest.mark.parametrize(
    "sizes",
    [[512, 0, 1024, 384], [64] * 8, [0, 1152], [8] * 24, [128]],
    ids=["few", "less than a part", "one is empty", "many", "one alone"],
)
def test_a_tpus_gradients_of_groups_are_those_of_each_group_alone(sizes):
    """Rows behind the last group's are no number, and touch nothing."""
    rng, used, D, F = np.random.default_rng(0), sum(sizes), 6, 10
    x_SD, w_XDF = rng.standard_normal((used + 72, D)), rng.standard_normal((len(sizes), D, F))
    y_SF = rng.standard_normal((used + 72, F))
    x_SD[used:] = y_SF[used:] = np.nan
    with jax.enable_x64(True):
        _, pull_back = jax.vjp(lambda x, w: by_instruction(x, w, jnp.array(sizes)), x_SD, w_XDF)
        dx_SD, dw_XDF = jit(pull_back)(jnp.asarray(y_SF))
    for group, end in enumerate(np.cumsum(sizes)):
        its = slice(end - sizes[group], end)
        np.testing.assert_allclose(dx_SD[its], y_SF[its] @ w_XDF[group].T, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(dw_XDF[group], x_SD[its].T @ y_SF[its], rtol=1e-12, atol=1e-11)


def test_a_part_has_a_groups_rows_on_average_or_what_a_tpu_multiplies_at_once():
    assert [part_rows(S, X) for S, X in ((8_192, 64), (8_192, 2), (2_400, 8), (64, 8))] == [128, 512, 256, 64]


def test_a_block_has_one_row_where_experts_are_many_and_no_more_than_the_picks_of_an_expert():
    assert block_rows(2, 8) == block_rows(8, 8) == 1
    assert block_rows(8_192, 8) == 128
    for picks in (100, 1_000, 100_000):
        assert block_rows(picks, 8) <= picks / 8 + 16


# --- the router -----------------------------------------------------------------------------------


def told(share_TX, chosen_TP, there_T):
    share_BTX = jnp.asarray(share_TX)[None]
    found = gauges(
        jnp.log(share_BTX) + 2, share_BTX, jnp.asarray(chosen_TP)[None], jnp.asarray(there_T)[None]
    )
    return {name: float(value) for name, value in found.items()}


def test_gauges_are_1_where_tokens_spread_evenly_and_tell_where_they_do_not():
    even = told(np.full((8, 4), 0.25), [[n % 4, (n + 1) % 4] for n in range(8)], np.ones(8))
    assert even == pytest.approx(
        {"balance_loss": 1, "router_z_loss": 4, "expert_entropy": 1, "expert_max": 1}, abs=1e-6
    )
    uneven = np.tile(np.array([0.97, 0.01, 0.01, 0.01], np.float32), (8, 1))
    one = told(uneven, np.zeros((8, 1), int), np.ones(8))
    assert one["balance_loss"] == pytest.approx(4 * 0.97) and one["expert_max"] == 4
    assert one["expert_entropy"] == pytest.approx(0, abs=1e-6)


def test_padding_counts_in_no_gauge():
    rng = np.random.default_rng(0)
    share_TX = rng.dirichlet(np.ones(4), 8).astype(np.float32)
    chosen = np.argsort(-share_TX)[:, :2]
    alone = told(share_TX[:5], chosen[:5], np.ones(5))
    assert told(share_TX, chosen, np.arange(8) < 5) == pytest.approx(alone, rel=1e-6)
    assert np.isfinite(list(told(share_TX, chosen, np.zeros(8)).values())).all()


def model_of(**changes):
    picked = Experts(**{"num_experts": 4, "experts_per_token": 2} | changes)
    sizes = {name: size for name, size in SIZES.items() if name not in ("d_state", "init_scale")}
    return zoo.create(DecoderConfig(**sizes, experts=picked, rotary_base=100.0, layer_unroll=0))


def test_what_the_router_asks_for_is_in_the_loss_and_pulls_at_it():
    """One step of the same parameters with and without: the losses differ by weight times gauge, the mean of
    the micro-batches', and the gradient's length differs too."""
    batch, found = rows_of(0, range(ROWS)), {}
    for weight in (0.0, 0.5):
        parts = parts_of(DecoderConfig, model=model_of(balance_loss=weight, z_loss=weight), accumulate=2)
        found[weight] = jax.tree.map(float, jit(parts.step)(parts.init(), batch)[1])
    gauges = found[0.5]["gauges"]
    assert gauges == pytest.approx(found[0.0]["gauges"], rel=1e-6)
    asked = 0.5 * (gauges["balance_loss"] + gauges["router_z_loss"])
    assert found[0.5]["loss"] - found[0.0]["loss"] == pytest.approx(asked, rel=1e-4)
    assert abs(found[0.5]["grad_norm"] / found[0.0]["grad_norm"] - 1) > 1e-4


def test_a_dense_model_says_nothing_beside_its_features():
    model = zoo.create("decoder_tiny")
    _, penalty, gauges = model.watched(parameters(model), np.zeros((1, 4), np.int32))
    assert penalty == 0.0 and gauges == {}


def test_a_lesson_refuses_what_it_would_leave_out():
    Lesson(model_of(), model_of(), Distill())
    with pytest.raises(ConfigError, match=r"z_loss=0.1 of the student's experts .* set it to 0"):
        Lesson(model_of(z_loss=0.1), model_of(), Distill())


# --- sizes ----------------------------------------------------------------------------------------


def test_active_parameters_and_flops_count_the_picked_experts():
    model = model_of()
    config, specs = model.config, jax.tree_util.tree_leaves_with_path(model.abstract())
    active = sum(
        spec.size * (2 / 4 if spec.letters.startswith("NX") else 1) for _, spec in specs
    )  # 2 of 4 experts
    assert config.num_active_params == active < config.num_params
    dense = dataclasses.replace(config, experts=NoExperts(), d_ff=2 * config.d_ff)
    router = config.num_layers * config.d_model * 4
    flops, plain = config.flops_per_token(LENGTH), dense.flops_per_token(LENGTH)
    assert flops.full - plain.full == flops.causal - plain.causal == 6 * router


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_experts": 1}, "num_experts=1 must be at least 2"),
        ({"experts_per_token": 0}, "experts_per_token=0 must be from 1 to num_experts=8"),
        ({"experts_per_token": 9}, "experts_per_token=9 must be from 1 to num_experts=8"),
        ({"balance_loss": -1.0}, "balance_loss=-1.0 must be a number of at least 0"),
        ({"z_loss": float("nan")}, "z_loss=nan must be a number of at least 0"),
    ],
)
def test_experts_that_cannot_be_are_refused_in_one_line(fields, said):
    with pytest.raises(ConfigError, match=said):
        Experts(**fields)


# --- on a mesh ------------------------------------------------------------------------------------

AXES = ("data", "fsdp", "tensor", "expert")


def mesh_with_experts(sizes):
    types = (sharding.AxisType.Auto,) * 4
    return jax.make_mesh(sizes, AXES, axis_types=types, devices=jax.devices()[: int(np.prod(sizes))])


def loss_and_gradients_on(mesh, model):
    """(compiled, what it gives) of a batch, every array where the table places it."""

    def loss(params, batch):
        (x_BTD, _), penalty, _ = model.watched(params, batch["inputs"])
        logp_BTV = jax.nn.log_softmax(model.readout_stored(params, x_BTD))
        picked_BT = jnp.take_along_axis(logp_BTV, batch["targets"][..., None], -1)[..., 0]
        return penalty - picked_BT.mean()

    batch = {name: rows_of(0, range(ROWS))[name] for name in ("inputs", "targets")}
    with jax.set_mesh(mesh):
        placed = sharding.shardings(model.abstract(), mesh)
        params = jax.device_put(parameters(model), placed)
        batch = jax.device_put(batch, sharding.rows_sharding(mesh))
        program = jit(jax.value_and_grad(loss), out_shardings=(None, placed)).lower(params, batch).compile()
        return program, program(params, batch)


@eight_devices
@pytest.mark.parametrize(
    ("batch_axes", "meshes"),
    [(("data", "fsdp"), [(1, 1, 1, 4), (1, 2, 2, 2)]), (("data", "fsdp", "expert"), [(2, 1, 2, 2)])],
    ids=["apart", "shared"],
)
def test_loss_and_gradients_are_the_same_wherever_experts_are(monkeypatch, batch_axes, meshes):
    """Also where the axis of the experts splits the batch too. Float32 sums in another order, a hundred terms
    of rounding 6e-8 each."""
    monkeypatch.setitem(sharding.RULES, "B", batch_axes)
    model = model_of(balance_loss=0.1, z_loss=0.1)
    _, want = loss_and_gradients_on(mesh_with_experts((1, 1, 1, 1)), model)
    for sizes in meshes:
        _, got = loss_and_gradients_on(mesh_with_experts(sizes), model)
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            assert np.abs(np.asarray(one) - other).max() <= 1e-5 * np.abs(other).max(), sizes
        kernel = got[1]["blocks"]["experts"]["gate"]["w"]
        assert kernel.addressable_shards[0].data.size * np.prod(sizes[1:]) == kernel.size


@eight_devices
def test_copies_of_a_model_bring_no_tokens_together_and_experts_no_kernels(monkeypatch):
    """Where the batch is not spread over experts too; where it is, their tokens come together first."""
    monkeypatch.setitem(sharding.RULES, "B", ("data", "fsdp"))
    for sizes in ((8, 1, 1, 1), (2, 1, 1, 4)):
        mesh = mesh_with_experts(sizes)
        program, _ = loss_and_gradients_on(mesh, model_of(balance_loss=0.1))
        moved = collectives_of(read_program(program.as_text()), dict(mesh.shape))
        gathered = [each for each in moved if each.kind != "all-reduce"]
        # The router gives logits of the experts here; all of a token's are brought together, X numbers each.
        assert sum(each.payload for each in gathered) <= (sizes[3] > 1) * ROWS * LENGTH * 4 * 4 * 2, gathered


# --- files ----------------------------------------------------------------------------------------

MIXTRAL = {"model_type": "mixtral", "num_local_experts": 5}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (MIXTRAL | {"router_jitter_noise": 0.1}, "router_jitter_noise=0.1, but zoo's experts have only 0.0"),
        ({"model_type": "qwen3_moe", "decoder_sparse_step": 2}, "decoder_sparse_step=2"),
        ({"model_type": "qwen3_moe", "mlp_only_layers": [0]}, r"mlp_only_layers=\[0\]"),
        ({"model_type": "olmoe", "clip_qkv": 8.0}, "clip_qkv=8.0"),
    ],
)
def test_a_layer_of_experts_that_is_not_here_is_refused_by_name(settings, said):
    with pytest.raises(CheckpointError, match=said):
        decoder.config_from_hf(settings)


def test_both_names_of_the_number_of_experts_are_read():
    for name in ("num_experts", "num_local_experts"):
        for kind in ("mixtral", "qwen3_moe", "olmoe"):
            assert decoder.config_from_hf({"model_type": kind, name: 12}).experts.num_experts == 12


def test_what_a_router_asks_for_in_training_is_no_part_of_a_file():
    quiet, strict = (model_of(balance_loss=weight).config for weight in (0.0, 0.3))
    assert settings_of(quiet, (), "") == settings_of(strict, (), "")
    raw = dataclasses.replace(quiet, experts=Experts(4, 2, normalised=False))
    with pytest.raises(ConfigError, match="experts=.*MixtralForCausalLM"):
        settings_of(raw, (), "")


def test_the_recipe_multiplies_as_much_as_the_one_without_experts():
    experts_model, dense = (CONFIGS[f"{name}_stdlib"].model for name in ("moe", "llama"))
    router = dense.num_layers * dense.d_model * 8
    assert experts_model.num_active_params - router == dense.num_params
