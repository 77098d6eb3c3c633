"""What is summed chunk by chunk equals what is summed at once: values, gradients, on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from training import eight_devices, mesh_of

import zoo
from zoo import losses
from zoo.losses import cross_entropy, drift, summed
from zoo.models import gpt
from zoo.tasks.causal_lm import CausalLM
from zoo.tasks.masked_lm import word_sums
from zoo.tasks.seq2seq import Seq2Seq

B, T, D, V = 8, 30, 16, 256


def drawn(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    x_BTD = jax.random.normal(keys[0], (B, T, D), dtype)
    params = {"table": jax.random.normal(keys[1], (V, D)), "unread": jnp.ones(3)}
    targets_BT = jax.random.randint(keys[2], (B, T), 0, V).at[0, :3].set(-100)
    weights_BT = jax.random.uniform(keys[3], (B, T)).at[0, :3].set(0.0)
    return params, x_BTD, targets_BT, weights_BT


def read(params, x):
    return jnp.einsum("...D,VD->...V", x, params["table"].astype(x.dtype)).astype(jnp.float32)


def smoothed(logits, targets, weights):
    return Seq2Seq(label_smoothing=0.1, end=0).loss(
        logits, lambda x: x, {"targets": targets, "weights": weights}
    )


def with_drift(logits, targets, weights):
    nats, weight = cross_entropy(logits, targets, weights)
    return {"loss": nats + 0.01 * drift(logits, weights), "nats": nats, "weight": weight}


def gradients(sums, params, x_BTD, targets_BT, weights_BT):
    def loss(params, x_BTD):
        found = summed(sums, Partial(read, params), x_BTD, targets_BT, weights_BT)
        return found["loss"] * 0.5, found

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x_BTD)


def near(one, other, **bounds):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **bounds), one, other)


@pytest.mark.parametrize("sums", [word_sums, smoothed, with_drift])
@pytest.mark.parametrize("chunks", [2, 7, B * T])
def test_chunks_change_nothing(monkeypatch, sums, chunks):
    """Float32 sums of a few hundred numbers in another order: some units in the last place."""
    given = drawn()
    whole = gradients(sums, *given)
    monkeypatch.setattr(losses, "CHUNK_BYTES", B * T * V * 4 // chunks)
    in_chunks = gradients(sums, *given)
    near(in_chunks, whole, rtol=2e-5, atol=2e-5)
    params, x_BTD, *rows = given
    alone = jax.jit(lambda: summed(sums, Partial(read, params), x_BTD, *rows))()
    near(alone, whole[0][1], rtol=2e-5)


def test_gradients_in_float64_are_those_of_the_closed_form(monkeypatch):
    """softmax less one at the target, times weights, worked out with NumPy."""
    monkeypatch.setattr(losses, "CHUNK_BYTES", 10_000)
    with jax.enable_x64(True):
        params, x_BTD, targets_BT, weights_BT = (
            jax.tree.map(lambda x: np.asarray(x, np.float64) if x.dtype.kind == "f" else np.asarray(x), each)
            for each in drawn()
        )

        def loss(params, x_BTD):
            exact = Partial(lambda params, x: jnp.einsum("...D,VD->...V", x, params["table"]), params)
            return summed(word_sums, exact, x_BTD, targets_BT, weights_BT)["loss"]

        d_params, dx_BTD = jax.grad(loss, argnums=(0, 1))(params, x_BTD)
    logits = x_BTD @ params["table"].T
    share = np.exp(logits - logits.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    d_logits = (share - (np.arange(V) == targets_BT[..., None])) * weights_BT[..., None]
    near(dx_BTD, d_logits @ params["table"], rtol=1e-11, atol=1e-11)
    near(d_params["table"], np.einsum("BTV,BTD->VD", d_logits, x_BTD), rtol=1e-11, atol=1e-11)
    assert not d_params["unread"].any()


def test_logits_of_all_positions_are_never_held(monkeypatch):
    """The largest array of the compiled program is a chunk's logits; it was those of all positions."""
    given = drawn()

    def largest():
        def loss(params, x_BTD):
            return summed(word_sums, Partial(read, params), x_BTD, *given[2:])["loss"]

        text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*given[:2]).as_text()
        return f"tensor<{B}x{T}x{V}xf32>" in text, f"tensor<{B * T // 8}x{V}xf32>" in text

    assert largest() == (True, False)
    monkeypatch.setattr(losses, "CHUNK_BYTES", B * T * V * 4 // 8)
    assert largest() == (False, True)


def test_frozen_parameters_get_no_gradient(monkeypatch):
    """Of a table that is not learned nothing is added up: its gradient is in no loop of the program."""
    monkeypatch.setattr(losses, "CHUNK_BYTES", 10_000)
    params, x_BTD, *rows = drawn()

    def loss(x_BTD):
        return summed(word_sums, Partial(read, params), x_BTD, *rows)["loss"]

    text = str(jax.make_jaxpr(jax.grad(loss))(x_BTD))
    assert "scan" in text
    assert f"f32[{V},{D}] = add" not in text
    both = jax.make_jaxpr(jax.grad(lambda params, x: loss_of(params, x, rows), argnums=(0, 1)))
    assert f"f32[{V},{D}] = add" in str(both(params, x_BTD))


def loss_of(params, x_BTD, rows):
    return summed(word_sums, Partial(read, params), x_BTD, *rows)["loss"]


def test_a_readout_whose_parameters_are_hidden_is_refused(monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_BYTES", 10_000)
    params, x_BTD, *rows = drawn()
    with pytest.raises(TypeError, match="Partial"):
        summed(word_sums, lambda x: read(params, x), x_BTD, *rows)


@eight_devices
@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2), (1, 4, 2)])
def test_chunks_change_nothing_on_a_mesh(monkeypatch, sizes):
    """A device sums its own positions; the gradient of the table crosses devices once, not once a chunk."""
    model = zoo.create(gpt.GPTConfig(V, T, 1, 8, D, dropout_rate=0.0))
    params = model.init(jax.random.key(1))
    _, x_BTD, *rows = drawn()
    rows[0] = jnp.maximum(rows[0], 0)

    def gradients(params, x_BTD):
        def loss(params, x_BTD):
            return summed(word_sums, Partial(model.readout_stored, params), x_BTD, *rows)["loss"]

        return jax.value_and_grad(loss, argnums=(0, 1))(params, x_BTD)

    whole = jax.jit(gradients)(params, x_BTD)
    monkeypatch.setattr(losses, "CHUNK_BYTES", B * T * V * 4 // 8 // 4)
    mesh = mesh_of(sizes)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, zoo.sharding.shardings(model.abstract(), mesh))
        x_BTD = jax.device_put(x_BTD, zoo.sharding.rows_sharding(mesh))
        step = jax.jit(gradients).lower(placed, x_BTD).compile()
        near(step(placed, x_BTD), whole, rtol=2e-5, atol=2e-5)
    loops = [text for text in step.as_text().split("\n\n") if "all-reduce(" in text and "ENTRY" not in text]
    inside = [line for text in loops for line in text.splitlines() if "all-reduce(" in line]
    assert not [line for line in inside if f"{V}" in line.split("all-reduce(")[0] or f"{V // 8}," in line]


@pytest.mark.parametrize(("rows", "chunks"), [(1024, 1), (1025, 2), (3 * 1024, 3)])
def test_logits_of_more_than_256_mib_come_in_as_many_chunks_as_that_holds(rows, chunks):
    """A row of 2,048 words is 8 KiB: 32 of them a text, 1,024 texts, are 256 MiB."""
    shapes = {"x": (rows, 32, 8), "table": (2048, 8), "targets": (rows, 32), "weights": (rows, 32)}
    given = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}

    def loss(x, table, targets, weights):
        return summed(with_drift, Partial(read, {"table": table}), x, targets, weights)

    text = str(jax.make_jaxpr(loss)(**given))
    assert text.count(f"length={chunks}") == (chunks > 1) and ("scan" in text) == (chunks > 1)


def test_nats_and_targets_are_counted_by_their_weights():
    params, x_BTD, targets_BT, weights_BT = drawn()
    logits_BTV = read(params, x_BTD)
    nats, weight = cross_entropy(logits_BTV, targets_BT, weights_BT)
    shares_BTV = np.exp(np.asarray(logits_BTV, np.float64))
    picked_BT1 = np.take_along_axis(shares_BTV, np.maximum(targets_BT, 0)[..., None], axis=-1)
    wanted_BT = np.log(shares_BTV.sum(-1)) - np.log(picked_BT1[..., 0])
    np.testing.assert_allclose(nats, (wanted_BT * weights_BT).sum(), rtol=1e-5)
    np.testing.assert_allclose(weight, weights_BT.sum(), rtol=1e-6)


def test_every_target_is_the_token_behind_its_input():
    tokens = np.arange(12).reshape(2, 6)
    batch = CausalLM().batch({"tokens": tokens})
    np.testing.assert_array_equal(batch["inputs"]["tokens"], tokens[:, :5])
    np.testing.assert_array_equal(batch["targets"], batch["inputs"]["tokens"] + 1)
    np.testing.assert_array_equal(batch["weights"], np.ones((2, 5)))


def test_z_loss_adds_to_each_target_what_its_denominator_has_drifted():
    params, x_BTD, targets_BT, weights_BT = drawn()
    logits_BTV = read(params, x_BTD)
    batch = {"targets": targets_BT, "weights": weights_BT}
    found = CausalLM(z_loss=0.01).loss(logits_BTV, Partial(lambda x: x), batch)
    denominator_BT = np.log(np.exp(np.asarray(logits_BTV, np.float64)).sum(-1))
    added = 0.01 * (denominator_BT**2 * weights_BT).sum()
    np.testing.assert_allclose(found["loss"] - found["nats"], added, rtol=1e-5)
