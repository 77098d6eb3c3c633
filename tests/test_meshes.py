"""One device and eight learn the same, however the eight are shared out: GPT, BERT and an LSTM.

A few meshes always, all of them with the marker `long`: the table of its last results is in tests/README.md.
"""

import functools
import itertools

import jax
import numpy as np
import pytest
from training import ROWS, compiled, eight_devices, initial, mesh_of, parts_of, tiny_model, train

import zoo
from zoo import models, optim, schedules
from zoo.attention import Causal, Segments, attention
from zoo.checkpoint import Checkpoints
from zoo.feed import place_rows
from zoo.models import gpt
from zoo.models.bert import BERTConfig
from zoo.models.gpt import GPTConfig
from zoo.models.rnn import RNNConfig
from zoo.sharding import constrain, shardings
from zoo.step import TrainStep
from zoo.tasks import MaskedLM

STACKED = [
    kind
    for kind in models.MODELS
    if models.create(kind()).traits in ({"causal"}, {"bidirectional"}) and hasattr(kind(), "num_heads")
]
AXES = {"transformer": ("pipeline", "data", "fsdp", "context", "tensor"), "lstm": ("data", "fsdp", "tensor")}
DEEP = {"num_layers": 8, "num_heads": 8}  # which divide over every axis of eight
FEW = [
    {"data": 2, "context": 4},
    {"fsdp": 2, "context": 2, "tensor": 2},
    {"slice": 2, "data": 2, "fsdp": 2},
    {"pipeline": 2, "fsdp": 2, "tensor": 2},
]


def every_mesh(axes):
    """All the ways to give eight devices to these axes."""
    return [
        {axis: 2**power for axis, power in zip(axes, powers, strict=True) if power}
        for powers in itertools.product(range(4), repeat=len(axes))
        if sum(powers) == 3
    ]


def on(axes):
    return mesh_of((axes.get("data", 1), axes.get("fsdp", 1), axes.get("tensor", 1)), **others(axes))


def others(axes):
    return {axis: size for axis, size in axes.items() if axis not in ("data", "fsdp", "tensor")}


def masked_rows(step, rows):
    random = np.random.default_rng(step)
    tokens = ((random.integers(0, 65, (ROWS, 1)) + 3 * np.arange(24)) % 65).astype(np.int32)
    picked = np.argsort(random.random(tokens.shape), axis=1)[:, :4].astype(np.int32)
    examples = {
        "tokens": np.where(random.random(tokens.shape) < 0.15, 64, tokens),
        "segments": np.repeat([[1, 2]], 12, axis=1).repeat(ROWS, 0),
        "positions": np.tile(np.arange(12), 2)[None].repeat(ROWS, 0),
        "picked": picked,
        "targets": np.take_along_axis(tokens, picked, 1),
        "weights": (random.random(picked.shape) < 0.9).astype(np.float32),
    }
    return MaskedLM().batch({name: x[rows.start : rows.stop] for name, x in examples.items()})


@functools.cache
def masked_parts(dropout_rate):
    config = BERTConfig(65, 32, d_model=32, d_ff=64, dropout_rate=dropout_rate, **DEEP)
    model, optimizer = zoo.create(config), optim.AdamW(learning_rate=1e-2)
    tx = optim.transform(optimizer, schedules.Cosine(warmup_steps=2), 10, model.abstract())
    return TrainStep(model, MaskedLM(), tx, seed=3, clip_norm=1.0)


def losses_of(family, axes, dropout_rate):
    mesh = on(axes)
    if family != "bert":
        kind = {"gpt": GPTConfig, "lstm": RNNConfig}[family]
        sizes = DEEP if family == "gpt" else {}
        return train(parts_of(kind, model=tiny_model(kind, dropout_rate=dropout_rate, **sizes)), mesh)[1]
    found, parts = [], masked_parts(dropout_rate)
    with jax.set_mesh(mesh):
        state = initial(parts, mesh)
        for step in range(10):
            batch = place_rows(functools.partial(masked_rows, step), ROWS, mesh)
            state, numbers = compiled(parts, mesh)(state, batch)
            found.append(float(numbers["loss"]))
    return found


@functools.cache
def alone(family, dropout_rate):
    return losses_of(family, {}, dropout_rate)


def check_losses(family, axes):
    """The first within 1e-6, ten within 1e-5, relative: sums in another order, nothing else. What is dropped
    out is the same on every mesh, but in a pipeline, whose micro-batches draw for themselves."""
    dropout_rate = 0.0 if "pipeline" in axes else 0.1
    losses, wanted = losses_of(family, axes, dropout_rate), alone(family, dropout_rate)
    np.testing.assert_allclose(losses[0], wanted[0], rtol=1e-6)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)


@eight_devices
@pytest.mark.parametrize(
    ("family", "axes"), [("gpt", FEW[0]), ("gpt", FEW[1]), ("gpt", FEW[2]), ("bert", FEW[3])], ids=str
)
def test_losses_are_the_same_where_positions_are_spread(family, axes):
    check_losses(family, axes)


@eight_devices
@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "axes"),
    [(family, axes) for family in ("gpt", "bert") for axes in every_mesh(AXES["transformer"])]
    + [("lstm", axes) for axes in every_mesh(AXES["lstm"])],
    ids=str,
)
def test_losses_are_the_same_on_all_meshes(family, axes):
    check_losses(family, axes)


def drawn(B=2, T=16, H=4, J=4, K=8):
    keys = jax.random.split(jax.random.key(5), 3)
    q_BTHK = jax.random.normal(keys[0], (B, T, H, K))
    k_BSJK, v_BSJK = (jax.random.normal(key, (B, T, J, K)) for key in keys[1:])
    ids_BT = np.repeat([[1, 2, 3, 0]], 4, axis=1).repeat(B, 0).reshape(B, T)
    return q_BTHK, k_BSJK, v_BSJK, Causal() & Segments(ids_BT)


@eight_devices
@pytest.mark.parametrize(("heads", "kinds"), [((8, 8), {"all-to-all"}), ((4, 2), {"all-gather"})])
def test_attention_over_spread_positions_is_plain_attention(heads, kinds):
    """Values and gradients; what is exchanged are heads for positions, or keys and values, and no scores."""
    *arrays, sees = drawn(H=heads[0], J=heads[1])

    def loss(q, k, v):
        q, k, v = constrain(q, "BTHK"), constrain(k, "BTJK"), constrain(v, "BTJK")
        return (attention(q, k, v, sees) ** 2).sum()

    gradients = jax.value_and_grad(loss, argnums=(0, 1, 2))
    plain = jax.jit(gradients)(*arrays)
    with jax.set_mesh(on({"context": 8})):
        program = jax.jit(gradients).lower(*arrays).compile()
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), program(*arrays), plain
        )
    text = program.as_text()
    assert {kind for kind in ("all-to-all", "all-gather") if f" {kind}(" in text} == kinds


@eight_devices
@pytest.mark.parametrize("kind", STACKED, ids=lambda kind: kind.__name__)
def test_a_pipeline_hands_rows_on_and_gathers_no_layer(kind):
    """Every Transformer here: gradients are those of the plain stack, rows travel between stages (permutes),
    and no kernel does."""
    model = zoo.create(tiny_model(kind, dropout_rate=0.0).config)
    params, tokens = model.init(jax.random.key(0)), np.arange(16 * 24).reshape(16, 24) % 65

    def loss(params, tokens):
        (x_BTD, _), _, _ = model.watched(
            params, {"tokens": tokens}, train=True, rngs={"dropout": jax.random.key(0)}
        )
        return (x_BTD**2).mean()

    plain = jax.jit(jax.value_and_grad(loss))(params, tokens)
    mesh = on({"pipeline": 2, "data": 4})
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, shardings(model.abstract(), mesh))
        program = jax.jit(jax.value_and_grad(loss)).lower(placed, tokens).compile()
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            program(placed, tokens),
            plain,
        )
    text = program.as_text()
    assert " collective-permute(" in text
    gathered = [line for line in text.splitlines() if " all-gather(" in line]
    assert not [line for line in gathered if "f32[2,32," in line.split(" all-gather(")[0]], gathered


MESHES = [
    *({"data": 8}, {"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 2, "tensor": 4}),
    *({"pipeline": 2, "fsdp": 4}, {"context": 2, "tensor": 4}, {"slice": 2, "fsdp": 2, "context": 2}, {}),
]


@eight_devices
@pytest.mark.long
def test_what_is_saved_on_any_mesh_is_restored_on_any_other(tmp_path):
    """64 ways from one of eight meshes to another, every leaf bit by bit: parameters, moments, average."""
    parts = parts_of(GPTConfig, average_decay=0.2)
    specs = parts.specs()
    with jax.set_mesh(mesh_of()):
        state, _ = train(parts, mesh_of(), stop=1)
    wanted = jax.device_get(state)
    for number, axes in enumerate(MESHES):
        with Checkpoints(tmp_path / str(number), keep=1) as checkpoints, jax.set_mesh(on(axes)):
            checkpoints.save(jax.device_put(wanted, shardings(specs, on(axes))), specs, {})
            checkpoints.wait()
    for source, target in itertools.product(range(len(MESHES)), MESHES):
        with Checkpoints(tmp_path / str(source), keep=1) as checkpoints, jax.set_mesh(on(target)):
            restored = checkpoints.restore(specs, on(target), note=print)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), wanted)
        assert jax.tree.all(
            jax.tree.map(lambda x, y: x.sharding == y, restored, shardings(specs, on(target)))
        )


@eight_devices
@pytest.mark.parametrize("axes", [{"pipeline": 2, "data": 2, "tensor": 2}], ids=str)
def test_bfloat16_on_a_mesh(axes):
    """Within bfloat16's rounding, 2^-9, of a loss; the CPU's compiler of jaxlib died of a sum in it."""
    parts = parts_of(GPTConfig, model=tiny_model(GPTConfig, dropout_rate=0.0, dtype="bfloat16"))
    wanted = train(parts, mesh_of(), stop=2)[1]
    np.testing.assert_allclose(train(parts, on(axes), stop=2)[1], wanted, rtol=2**-9)


@eight_devices
def test_each_micro_batch_and_stage_drops_out_for_itself(monkeypatch):
    """Of a batch of one text many times over, the first rows of the micro-batches stand first; nothing is
    dropped before the blocks."""
    key_of = gpt.dropout_key
    monkeypatch.setattr(gpt, "dropout_key", lambda m: None if isinstance(m, gpt.GPT) else key_of(m))
    model = tiny_model(GPTConfig, dropout_rate=0.5)
    params = model.init(jax.random.key(0))
    with jax.set_mesh(on({"pipeline": 2})):
        features = jax.jit(lambda: model.features(params, tokens, train=True, rngs={"dropout": key})[0])
        tokens, key = np.arange(24)[None].repeat(4, 0), jax.random.key(1)
        x_BTD = np.asarray(features())
    assert all((x_BTD[0] != x_BTD[row]).any() for row in (1, 2, 3))
