"""Recurrences against a slow loop in NumPy, autodiff of a plain loop, and numbers recorded from torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit
from goldens import recurrence as goldens
from training import MESHES, eight_devices, mesh_of

from zoo import recurrence
from zoo.errors import ConfigError
from zoo.sharding import constrain

T, B, Z, P = 7, 4, 6, 5
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}  # what DESIGN.md calls parity
CLIPS = {"cell_clip": 0.5, "projection_clip": 0.6}  # about a third of the numbers meet them
GOLDENS = np.load(goldens.FILE)

# Per cell: how many gates, the shapes of the weights, the width of each state.
SHAPES = {
    "lstm": (4, [(Z, 4, Z)], [Z, Z]),
    "projected_lstm": (4, [(P, 4, Z), (Z, P)], [P, Z]),
    "gru": (3, [(Z, 3, Z), (Z,)], [Z]),
    "gru_original": (3, [(Z, 3, Z)], [Z]),
    "elman_tanh": (0, [(Z, Z)], [Z]),
    "elman_relu": (0, [(Z, Z)], [Z]),
}
each_cell = pytest.mark.parametrize("cell", SHAPES)
both_ways = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


def run(cell, x, weights, states, **options):
    """zoo's recurrence with states as a tuple, whatever the cell: (outputs, states)."""
    if cell.startswith("elman"):
        options["activation"] = cell.removeprefix("elman_")
    if cell == "projected_lstm":
        options = CLIPS | options
    function = getattr(recurrence, "elman" if cell.startswith("elman") else cell)
    if len(states) == 2:
        return function(x, *weights, states, **options)
    h_TBZ, state = function(x, *weights, states[0], **options)
    return h_TBZ, (state,)


def step(cell, x, weights, states, np=jnp, clips=CLIPS):
    """One step as the papers write it, in NumPy or, to be differentiated, in jax.numpy."""

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    w, h = weights[0], states[0]
    if cell.startswith("elman"):
        z = x + h @ w
        return (np.tanh(z) if cell == "elman_tanh" else np.where(z > 0, z, 0),)
    if "lstm" in cell:
        i, f, g, o = (x[:, gate] + h @ w[:, gate] for gate in range(4))
        c = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
        if cell == "lstm":
            return sigmoid(o) * np.tanh(c), c
        c = np.clip(c, -clips["cell_clip"], clips["cell_clip"])
        projected = (sigmoid(o) * np.tanh(c)) @ weights[1]
        return np.clip(projected, -clips["projection_clip"], clips["projection_clip"]), c
    r, u = sigmoid(x[:, 0] + h @ w[:, 0]), sigmoid(x[:, 1] + h @ w[:, 1])
    if cell == "gru":
        n = np.tanh(x[:, 2] + r * (h @ w[:, 2] + weights[1]))
    else:
        n = np.tanh(x[:, 2] + (r * h) @ w[:, 2])
    return ((1 - u) * n + u * h,)


def masked_step(cell, x, present, fresh, weights, states, np=jnp):
    """(output, states) of one step, with every rule of the masks spelled out."""
    before = [np.where(fresh[:, None], 0, state) for state in states]
    after = step(cell, x, weights, before, np)
    output = np.where(present[:, None], after[0], 0)
    return output, tuple(np.where(present[:, None], *pair) for pair in zip(after, before, strict=True))


def slow_loop(cell, x, weights, states, *, present, fresh, reverse):
    """(outputs, states), step by step in NumPy."""
    outputs = {}
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        outputs[t], states = masked_step(cell, x[t], present[t], fresh[t], weights, states, np)
    return np.stack([outputs[t] for t in range(len(x))]), states


def plain_scan(cell, x, weights, states, *, present, fresh, reverse):
    """(outputs, states) by the loop that anyone would write, to be differentiated by JAX."""

    def one(states, inputs):
        return masked_step(cell, *inputs, weights, states)[::-1]

    states, h_TBZ = jax.lax.scan(one, states, (x, present, fresh), reverse=reverse)
    return h_TBZ, states


def arrays(cell, dtype=np.float64, seed=0, rows=B, length=T):
    """(x, weights, states), large enough that every gate is sometimes open and sometimes shut."""
    gates, weights, states = SHAPES[cell]
    rng = np.random.default_rng(seed)
    shape = (length, rows, gates, Z) if gates else (length, rows, Z)

    def draw(shape, scale=1.0):
        return (scale * rng.standard_normal(shape)).astype(dtype)

    return draw(shape), tuple(draw(s, 0.6) for s in weights), tuple(draw((rows, size)) for size in states)


def masks(seed=0, rows=B, length=T):
    """Steps present and fresh, with holes and rows of any kind: the first is absent throughout."""
    rng = np.random.default_rng(seed)
    present_TB, fresh_TB = rng.random((length, rows)) < 0.7, rng.random((length, rows)) < 0.25
    present_TB[:, 0] = False
    return {"present_TB": present_TB, "fresh_TB": fresh_TB}


def chosen(names):
    """(the masks to hand over, both masks for the slow loop)."""
    given = {name: mask for name, mask in masks().items() if name in names}
    neutral = {"present_TB": np.ones((T, B), bool), "fresh_TB": np.zeros((T, B), bool)} | given
    return given, {"present": neutral["present_TB"], "fresh": neutral["fresh_TB"]}


each_mask = pytest.mark.parametrize("names", [(), ("present_TB", "fresh_TB")], ids=["no masks", "masks"])


def deviation(found, expected) -> float:
    """The largest difference between two trees, each leaf relative to its largest number."""
    trees = (map(np.asarray, jax.tree.leaves(tree)) for tree in (found, expected))
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(*trees, strict=True))


def gradients(function, inputs, seed=9):
    """(outputs, gradients of all inputs) for random gradients of all outputs, last states included."""
    outputs, back = jax.vjp(function, *inputs)
    leaves, structure = jax.tree.flatten(outputs)
    rng = np.random.default_rng(seed)
    given = [jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype) for leaf in leaves]
    return outputs, back(jax.tree.unflatten(structure, given))


# --- against independent computations -------------------------------------------------------------


@each_cell
@both_ways
@each_mask
def test_outputs_and_states_equal_a_slow_loop(cell, reverse, names):
    given, both = chosen(names)
    with jax.enable_x64(True):
        found = jit(functools.partial(run, cell, reverse=reverse, **given))(*arrays(cell))
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float64")}
    assert deviation(found, slow_loop(cell, *arrays(cell), **both, reverse=reverse)) < 1e-12


@each_cell
@both_ways
@each_mask
def test_the_written_gradient_equals_autodiff_of_a_plain_scan(cell, reverse, names):
    given, both = chosen(names)

    def written(*inputs):
        return run(cell, *inputs, reverse=reverse, **given)

    def plain(*inputs):
        return plain_scan(cell, *inputs, **both, reverse=reverse)

    with jax.enable_x64(True):
        found, expected = (jit(functools.partial(gradients, f))(arrays(cell)) for f in (written, plain))
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float64")}
    assert deviation(found, expected) < 1e-12


@pytest.mark.parametrize("dtype", goldens.DTYPES)
@pytest.mark.parametrize("case", goldens.CASES)
def test_both_directions_over_ragged_rows_equal_torch(case, dtype):
    assert_equals_torch(case, dtype, recorded(f"{case}/inputs"), recorded(f"{case}/{dtype}"))


@pytest.mark.parity
@pytest.mark.parametrize("dtype", goldens.DTYPES)
@pytest.mark.parametrize("case", goldens.CASES)
def test_both_directions_over_ragged_rows_equal_torch_live(case, dtype):
    pytest.importorskip("torch")
    given = goldens.inputs(case, seed=1)
    assert_equals_torch(case, dtype, given, goldens.outputs(case, given, dtype))


def recorded(prefix):
    """{name: array} of what is stored under a prefix."""
    names = [name for name in GOLDENS.files if name.startswith(prefix + "/")]
    return {name.removeprefix(prefix + "/"): GOLDENS[name] for name in names}


def assert_equals_torch(case, dtype, given, expected):
    """Holds everything of `expected` against zoo's recurrence, the projection of the inputs included."""

    @jit
    def everything(given):
        taken = {name: x for name, x in given.items() if not name.startswith("d_")}
        made, back = jax.vjp(functools.partial(like_torch, case), taken)
        return made, back({name: given["d_" + name] for name in made})[0]

    with jax.enable_x64(dtype == "float64"):
        made, found = everything({name: array.astype(dtype) for name, array in given.items()})
    found = made | {f"gradient/{name}": gradient for name, gradient in found.items()}
    assert set(found) == set(expected)
    assert {array.dtype for array in found.values()} == {np.dtype(dtype)}
    apart = {name: deviation(found[name], array) for name, array in expected.items()}
    assert max(apart.values()) < TOLERANCE[dtype], apart


def like_torch(case, inputs):
    """One layer in both directions under torch's names, over rows of goldens.LENGTHS."""
    present_TB = np.arange(goldens.T)[:, None] < np.asarray(goldens.LENGTHS)
    made = {"output": [], "h_n": [], "c_n": []}
    for direction, suffix in enumerate(["_l0", "_l0_reverse"]):
        gates = inputs["weight_ih" + suffix].shape[0] // goldens.Z
        shape = (gates, goldens.Z) if gates > 1 else (goldens.Z,)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w_in, w, b_in, b = (inputs[name + suffix] for name in names)
        # All biases are folded into x, but for the one of the GRU's candidate.
        folded = b_in + (b.at[2 * goldens.Z :].set(0) if case == "gru" else b)
        x = (inputs["x"] @ w_in.T + folded).reshape(goldens.T, goldens.B, *shape)
        weights = [w.T.reshape(-1, *shape)]
        if case == "gru":
            weights.append(b[2 * goldens.Z :])
        if case == "projected_lstm":
            weights.append(inputs["weight_hr" + suffix].T)
        states = tuple(inputs[name][direction] for name in ("h_0", "c_0") if name in inputs)
        clips = dict.fromkeys(CLIPS) if case == "projected_lstm" else {}
        h_TBZ, states = run(case, x, weights, states, present_TB=present_TB, reverse=direction == 1, **clips)
        made["output"].append(h_TBZ)
        for name, state in zip(("h_n", "c_n"), states, strict=False):
            made[name].append(state)
    joined = {"output": jnp.concatenate(made.pop("output"), axis=-1)}
    return joined | {name: jnp.stack(states) for name, states in made.items() if states}


# --- invariants -----------------------------------------------------------------------------------


@each_cell
def test_reverse_equals_flipping_by_hand(cell):
    x, weights, states = arrays(cell, np.float32)
    given = masks()
    found = jit(functools.partial(run, cell, reverse=True, **given))(x, weights, states)
    flipped = {name: mask[::-1] for name, mask in given.items()}
    h_TBZ, last = jit(functools.partial(run, cell, **flipped))(x[::-1], weights, states)
    jax.tree.map(np.testing.assert_array_equal, found, (h_TBZ[::-1], last))


@each_cell
@both_ways
def test_pieces_with_carried_state_equal_one_long_run(cell, reverse):
    given = masks()

    def whole(x, weights, states):
        return run(cell, x, weights, states, reverse=reverse, **given)

    def pieces(x, weights, states):
        spans, outputs = [slice(0, 3), slice(3, 4), slice(4, T)], {}
        for span in reversed(spans) if reverse else spans:
            now = {name: mask[span] for name, mask in given.items()}
            outputs[span.start], states = run(cell, x[span], weights, states, reverse=reverse, **now)
        return jnp.concatenate([outputs[span.start] for span in spans]), states

    inputs = arrays(cell, np.float32)
    (found, d_found), (expected, d_expected) = (
        jit(functools.partial(gradients, f))(inputs) for f in (pieces, whole)
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert deviation(d_found, d_expected) < 1e-5  # weights are summed piece by piece


@each_cell
@both_ways
def test_fresh_steps_equal_separate_runs_from_zero(cell, reverse):
    x, weights, states = arrays(cell, np.float32)
    fresh_TB = np.zeros((T, B), bool)
    fresh_TB[4 if not reverse else 3] = True  # documents of positions 0-3 and 4-6
    found, last = jit(functools.partial(run, cell, reverse=reverse, fresh_TB=fresh_TB))(x, weights, states)
    zeros = jax.tree.map(np.zeros_like, states)
    firsts = (zeros, states) if reverse else (states, zeros)
    alone = jit(functools.partial(run, cell, reverse=reverse))
    documents = [alone(x[:4], weights, firsts[0]), alone(x[4:], weights, firsts[1])]
    assert deviation(found, np.concatenate([h_TBZ for h_TBZ, _ in documents])) < 1e-6
    assert deviation(last, documents[0 if reverse else 1][1]) < 1e-6


@each_cell
@both_ways
@pytest.mark.parametrize("content", [1e30, np.nan])
def test_what_is_absent_may_hold_anything(cell, reverse, content):
    x, weights, states = arrays(cell, np.float32)
    given = masks()
    absent = ~given["present_TB"]
    other = np.where(absent.reshape(absent.shape + (1,) * (x.ndim - 2)), np.float32(content), x)

    @jit
    def everything(x):
        outputs, back = jax.vjp(functools.partial(run, cell, reverse=reverse, **given), x, weights, states)
        # Neither do gradients that arrive at absent outputs.
        d_h = jnp.where(jnp.asarray(absent)[..., None], x.ravel()[0] * jnp.nan, outputs[0] + 1)
        return outputs, back((d_h, outputs[1]))

    found, expected = everything(other), everything(x)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    (h_TBZ, last), (d_x, _, _) = found
    assert not np.any(np.asarray(h_TBZ)[absent]) and not np.any(np.asarray(d_x)[absent])
    fresh = given["fresh_TB"][:, 0].any()  # the first row is absent throughout: its state stays
    for state, first in zip(last, states, strict=True):
        np.testing.assert_array_equal(state[0], np.zeros_like(first[0]) if fresh else first[0])


@each_cell
@pytest.mark.parametrize("unroll", [2, 5, 100])
def test_unroll_changes_nothing(cell, unroll):
    def at(unroll):
        return jit(functools.partial(gradients, functools.partial(run, cell, unroll=unroll, **masks())))

    found, expected = (at(size)(arrays(cell, np.float32)) for size in (unroll, 1))
    assert deviation(found, expected) < 1e-6


# --- inside other transformations -----------------------------------------------------------------


@each_cell
def test_under_vmap_each_member_is_as_alone(cell):
    members = [arrays(cell, seed=seed) for seed in (0, 1)]
    every = jit(functools.partial(gradients, functools.partial(run, cell, **masks())))
    with jax.enable_x64(True):
        together = jax.vmap(every)(jax.tree.map(lambda *leaves: np.stack(leaves), *members))
        alone = [every(member) for member in members]
    assert deviation(together, jax.tree.map(lambda *leaves: np.stack(leaves), *alone)) < 1e-12


@each_cell
def test_new_weights_and_masks_are_the_same_program(cell):
    compiled = jit(jax.grad(lambda *inputs, **given: run(cell, *inputs, **given)[0].sum(), (0, 1, 2)))
    for seed in (0, 1):
        compiled(*arrays(cell, np.float32, seed=seed), **masks(seed))
    assert compiled._cache_size() == 1


@eight_devices
@each_cell
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_outputs_and_gradients_are_the_same_on_every_mesh(cell, sizes):
    inputs, given = widened(arrays(cell, rows=16, length=3)), masks(rows=16, length=3)

    def placed(x, weights, states):
        """As a model has them: rows over data and fsdp, widths over tensor, weights stored over fsdp too."""
        w = weights[0]
        weights = (constrain(w, "RGZ" if w.ndim == 3 else "RZ"), *weights[1:])
        x = constrain(x, "TBGZ" if x.ndim == 4 else "TBZ")
        return run(cell, x, weights, tuple(constrain(state, "BZ") for state in states), **given)

    every = functools.partial(gradients, placed)
    with jax.enable_x64(True):
        expected = jit(every)(inputs)
        with jax.set_mesh(mesh_of(sizes)):
            found = jit(lambda inputs: every(inputs))(inputs)
    assert deviation(found, expected) < 1e-12


def widened(inputs):
    """Every width Z and P filled up with zeros to eight, which divides over the meshes."""
    return jax.tree.map(lambda x: np.pad(x, [(0, 8 - n if n in (Z, P) else 0) for n in x.shape]), inputs)


# --- what the gradient costs, and its dtypes ------------------------------------------------------


def dots(jaxpr) -> tuple[int, int]:
    """How many matmuls a program has outside of its loops, and inside of them."""
    outside = inside = 0
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", None)
            if inner is not None:
                found = dots(inner)
                if equation.primitive.name == "scan":
                    inside += sum(found)
                else:
                    outside, inside = outside + found[0], inside + found[1]
        outside += equation.primitive.name == "dot_general"
    return outside, inside


@pytest.mark.parametrize(
    ("cell", "weights", "steps"),
    [("lstm", 1, 2), ("projected_lstm", 2, 4), ("gru", 2, 2), ("gru_original", 2, 4), ("elman_tanh", 1, 2)],
)
def test_weights_get_their_gradient_in_one_matmul_after_the_loop(cell, weights, steps):
    x, w, states = arrays(cell, np.float32)
    jaxpr = jax.make_jaxpr(jax.grad(lambda w: run(cell, x, w, states)[0].sum()))(w)
    assert dots(jaxpr.jaxpr) == (weights, steps)  # one for each weight; each step as many forward as backward


@each_cell
def test_bfloat16_keeps_its_cell_and_its_sums_in_float32(cell):
    x, weights, states = arrays(cell, np.float32)
    every = jit(functools.partial(gradients, functools.partial(run, cell, **masks())))
    (h, last), (d_x, d_weights, d_states) = every((x.astype(jnp.bfloat16), weights, states))
    assert h.dtype == d_x.dtype == last[0].dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((last[1:], d_weights, d_states))} == {np.dtype("float32")}
    with jax.enable_x64(True):
        expected = every(jax.tree.map(np.float64, (x, weights, states)))[0][0]
    # Eight bits in weights, inputs, gates and outputs, over seven steps.
    np.testing.assert_allclose(np.asarray(h, np.float64), expected, atol=12 * 2**-8)


def test_a_bfloat16_gradient_adds_more_rows_than_bfloat16_can_count():
    """3,000 equal rows: a sum kept in bfloat16 would stop growing at 256 times the first."""
    x, weights, states = np.zeros((1, 3000, Z)), (np.zeros((Z, Z)),), (np.ones((3000, Z)),)

    @jit
    def gradient(w):
        x_TBZ, h_BZ = jnp.asarray(x, jnp.bfloat16), (jnp.asarray(states[0], jnp.bfloat16),)
        return jax.grad(lambda w: run("elman_relu", x_TBZ + 1, (w,), h_BZ)[0].astype(jnp.float32).sum())(w)

    np.testing.assert_array_equal(gradient(weights[0].astype(np.float32)), np.full((Z, Z), 3000))


def test_an_unknown_activation_names_the_nearest():
    x, weights, states = arrays("elman_tanh", np.float32)
    with pytest.raises(ConfigError, match=r"activation='tan' is not one of .*; did you mean 'tanh'\?"):
        recurrence.elman(x, *weights, *states, activation="tan")


@pytest.mark.parametrize("gates", [(), (4,)], ids=["one", "four"])
def test_the_projection_and_its_gradient_equal_a_plain_matmul(gates):
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape) for shape in ((T, B, P), (P, *gates, Z), (*gates, Z))]

    def plain(x, w, b):
        return jnp.einsum("TBD,D...->TB...", x, w) + b

    with jax.enable_x64(True):
        found, expected = (jit(functools.partial(gradients, f))(inputs) for f in (recurrence.project, plain))
    assert deviation(found, expected) < 1e-12
