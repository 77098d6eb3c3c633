"""Optimizers against the papers' formulas, written in NumPy for one tensor of one layer at a time.

The tree below has a model's shapes: stacked layers, attention heads, an output layer, a padded
vocabulary. That the oracles see neither stacking nor padding is what the tests prove of ours.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zoo.errors import ConfigError
from zoo.lettered import ParamSpec
from zoo.mesh import MeshConfig, make_mesh
from zoo.optim import (
    OPTIMIZERS,
    SGD,
    Adafactor,
    AdamW,
    Lion,
    Muon,
    learning_rate,
    state_specs,
    transform,
)
from zoo.optim.muon import orthogonalize
from zoo.schedules import Constant, Linear
from zoo.sharding import shardings

STEPS = 5
SIZES = {"N": 2, "V": 8, "T": 4, "D": 6, "H": 2, "K": 4, "F": 10}
VISIBLE_V = 5  # three rows of padding


def spec(letters, contracted=0):
    shape = tuple(SIZES[letter] for letter in letters)
    visible = tuple(VISIBLE_V if letter == "V" else SIZES[letter] for letter in letters)
    return ParamSpec(letters, shape, visible, jnp.dtype("float32"), contracted)


SPECS = {
    "tokens": {"table": spec("VD")},
    "positions": {"table": spec("TD")},
    "norm": {"scale": spec("D"), "bias": spec("D")},
    "head": {"w": spec("DV", 1), "b": spec("V")},
    "blocks": {
        "norm1": {"scale": spec("ND"), "bias": spec("ND")},
        "attention": {
            "query": {"w": spec("NDHK", 1), "b": spec("NHK")},
            "out": {"w": spec("NHKD", 2), "b": spec("ND")},
        },
        "mlp": {"up": {"w": spec("NDF", 1)}, "down": {"w": spec("NFD", 1)}},
    },
}
HIDDEN_KERNELS = {  # what Muon's own step is for, and nothing else
    "['blocks']['attention']['query']['w']",
    "['blocks']['attention']['out']['w']",
    "['blocks']['mlp']['up']['w']",
    "['blocks']['mlp']['down']['w']",
}
TABLES_AND_KERNELS = HIDDEN_KERNELS | {"['tokens']['table']", "['positions']['table']", "['head']['w']"}

# Settings far from where a term could hide: decay on, momentum on, clipping on.
EXAMPLES = [
    AdamW(2**-6, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.3),
    SGD(2**-4, weight_decay=0.3),
    SGD(2**-4, momentum=0.9, weight_decay=0.3),
    SGD(2**-4, momentum=0.9, nesterov=True, weight_decay=0.3),
    Lion(2**-6, beta1=0.7, beta2=0.9, weight_decay=0.3),
    Adafactor(2**-4, decay_exponent=0.6, clipping_threshold=0.8, weight_decay=0.3),
    Muon(
        2**-5, 0.8, weight_decay=0.3, adam_learning_rate=2**-6, adam_beta1=0.8, adam_beta2=0.9, adam_eps=1e-3
    ),
]
every_optimizer = pytest.mark.parametrize("optimizer", EXAMPLES, ids=lambda cfg: type(cfg).__name__)
SCHEDULE = Linear(warmup_steps=2, final_fraction=0.25)


def named(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def random_tree(seed, specs=SPECS):
    """Normal numbers where they are visible, zeros in the padding."""
    rng = np.random.default_rng(seed)

    def draw(spec):
        x = np.zeros(spec.shape, np.float32)
        spec.visible(x)[...] = 0.5 * rng.standard_normal(spec.visible_shape)
        return x

    return jax.tree.map(draw, specs)


@functools.cache
def compiled(optimizer):
    """(init, step) of the whole tree, compiled once for all tests."""
    init, step = eager(optimizer, SPECS)
    return jax.jit(init), jax.jit(step)


def eager(optimizer, specs):
    """The same, not compiled: for a few parameters and many settings that is faster."""
    tx = transform(optimizer, SCHEDULE, STEPS, specs)

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return tx.init, step


def train(init, step, specs=SPECS):
    """Parameters before any step and after every step on random gradients."""
    visited = [random_tree(0, specs)]
    state = init(visited[0])
    for t in range(STEPS):
        params, state = step(visited[-1], state, random_tree(1 + t, specs))
        visited.append(jax.tree.map(np.asarray, params))
    return visited


FEW = {"tokens": SPECS["tokens"], "blocks": {"attention": {"query": SPECS["blocks"]["attention"]["query"]}}}


# --- the papers -----------------------------------------------------------------------------------
# Each oracle changes one visible tensor of one layer, p, given its gradient g and what it remembers in s.
# `rows` is the number of leading dimensions that are rows of its matrix, 0 for a vector.


def adamw(cfg, p, g, s, t, rate, rows):  # arXiv 1412.6980 algorithm 1, 1711.05101 algorithm 2
    s["m"] = cfg.beta1 * s.get("m", 0) + (1 - cfg.beta1) * g
    s["v"] = cfg.beta2 * s.get("v", 0) + (1 - cfg.beta2) * g**2
    m, v = s["m"] / (1 - cfg.beta1**t), s["v"] / (1 - cfg.beta2**t)
    return p - rate(cfg.learning_rate) * (m / (np.sqrt(v) + cfg.eps) + (rows > 0) * cfg.weight_decay * p)


def sgd(cfg, p, g, s, t, rate, rows):  # the algorithm in the documentation of torch.optim.SGD
    g = g + (rows > 0) * cfg.weight_decay * p
    s["b"] = cfg.momentum * s.get("b", 0) + g
    return p - rate(cfg.learning_rate) * (g + cfg.momentum * s["b"] if cfg.nesterov else s["b"])


def lion(cfg, p, g, s, t, rate, rows):  # arXiv 2302.06675 algorithm 2
    c = cfg.beta1 * s.get("m", 0) + (1 - cfg.beta1) * g
    s["m"] = cfg.beta2 * s.get("m", 0) + (1 - cfg.beta2) * g
    return p - rate(cfg.learning_rate) * (np.sign(c) + (rows > 0) * cfg.weight_decay * p)


def adafactor(cfg, p, g, s, t, rate, rows):  # arXiv 1804.04235 algorithms 4 and 5
    eps1, eps2 = 1e-30, 1e-3
    beta2 = 1 - t**-cfg.decay_exponent

    def rms(x):
        return np.sqrt(np.mean(x**2))

    if rows:
        g2 = g.reshape(math.prod(g.shape[:rows]), -1) ** 2 + eps1
        s["r"] = beta2 * s.get("r", 0) + (1 - beta2) * g2 @ np.ones(g2.shape[1])
        s["c"] = beta2 * s.get("c", 0) + (1 - beta2) * np.ones(g2.shape[0]) @ g2
        v = (np.outer(s["r"], s["c"]) / s["r"].sum()).reshape(g.shape)
    else:
        s["v"] = v = beta2 * s.get("v", 0) + (1 - beta2) * (g**2 + eps1)
    u = g / np.sqrt(v)
    u = u / max(1, rms(u) / cfg.clipping_threshold)
    # the decay is not the paper's: decoupled, as everywhere else in zoo
    return p - rate(cfg.learning_rate) * (max(eps2, rms(p)) * u + (rows > 0) * cfg.weight_decay * p)


def newton_schulz(m, steps):  # kellerjordan.github.io/posts/muon
    x = m / np.linalg.norm(m)
    for _ in range(steps):
        x = 3.4445 * x - 4.7750 * (x @ x.T) @ x + 2.0315 * (x @ x.T) @ (x @ x.T) @ x
    return x


def muon(cfg, p, g, s, t, rate, rows):  # Jordan's, with equation 4 of arXiv 2502.16982
    s["b"] = cfg.momentum * s.get("b", 0) + (1 - cfg.momentum) * g
    m = cfg.momentum * s["b"] + (1 - cfg.momentum) * g
    m = m.reshape(math.prod(m.shape[:rows]), -1)
    u = 0.2 * math.sqrt(max(m.shape)) * newton_schulz(m, cfg.newton_schulz_steps).reshape(p.shape)
    return p - rate(cfg.learning_rate) * (u + cfg.weight_decay * p)


def oracle(cfg, name):
    """The paper's rule for the parameter of this name, and its settings."""
    if isinstance(cfg, Muon) and name not in HIDDEN_KERNELS:
        return adamw, AdamW(
            cfg.adam_learning_rate, cfg.adam_beta1, cfg.adam_beta2, cfg.adam_eps, cfg.weight_decay
        )
    return {AdamW: adamw, SGD: sgd, Lion: lion, Adafactor: adafactor, Muon: muon}[type(cfg)], cfg


@every_optimizer
def test_optimizer_equals_its_paper_on_every_layer_by_itself(optimizer):
    visited = [named(params) for params in train(*compiled(optimizer))]
    gradients = [named(random_tree(1 + t)) for t in range(STEPS)]
    for name, spec in named(SPECS).items():
        rule, cfg = oracle(optimizer, name)
        rows = (spec.contracted or 1) if name in TABLES_AND_KERNELS else 0
        for layer in range(SIZES["N"]) if spec.letters[0] == "N" else [...]:

            def tensor(tree, spec=spec, name=name, layer=layer):
                return np.asarray(spec.visible(tree[name]), np.float64)[layer]

            p, state = tensor(visited[0]), {}
            for t in range(STEPS):

                def rate(peak, t=t):
                    return float(SCHEDULE.rate(peak, STEPS)(t))

                p = rule(cfg, p, tensor(gradients[t]), state, t + 1, rate, rows)
                # float32 against float64; five quintic iterations multiply roundings by some tens
                tolerance = 1e-4 if rule is muon else 1e-5
                error = np.abs(tensor(visited[t + 1]) - p).max() / np.abs(p).max()
                assert error < tolerance, f"{name} layer {layer} step {t}: {error:.1e}"


def test_oracles_take_every_optimizer():
    assert {type(cfg) for cfg in EXAMPLES} == set(OPTIMIZERS.values())


# --- what decays, and what stays zero -------------------------------------------------------------


@every_optimizer
def test_only_kernels_and_tables_decay(optimizer):
    init, step = compiled(optimizer)
    ones = jax.tree.map(lambda spec: np.ones(spec.shape, np.float32), SPECS)
    params, _ = step(ones, init(ones), jax.tree.map(np.zeros_like, ones))
    for name, after in named(params).items():
        peak = optimizer.learning_rate
        if isinstance(optimizer, Muon) and name not in HIDDEN_KERNELS:
            peak = optimizer.adam_learning_rate
        rate = SCHEDULE.rate(peak, STEPS)(0)
        pull = rate * optimizer.weight_decay if name in TABLES_AND_KERNELS else 0.0
        if isinstance(optimizer, SGD) and optimizer.nesterov:
            pull *= 1 + optimizer.momentum  # coupled: the penalty goes through the momentum
        np.testing.assert_allclose(after, 1 - pull, rtol=1e-6, err_msg=name)


@every_optimizer
def test_padding_of_the_vocabulary_stays_exactly_zero(optimizer):
    for params in train(*compiled(optimizer)):
        assert (params["tokens"]["table"][VISIBLE_V:] == 0).all()
        assert (params["head"]["w"][:, VISIBLE_V:] == 0).all()
        assert (params["head"]["b"][VISIBLE_V:] == 0).all()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("size", [1e-18, 1e15])
def test_adafactor_is_finite_for_tiny_and_huge_gradients_beside_padding(size):
    init, step = eager(Adafactor(), FEW)
    params = random_tree(0, FEW)
    params, _ = step(params, init(params), jax.tree.map(lambda g: np.float32(size) * g, random_tree(1, FEW)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert (params["tokens"]["table"][VISIBLE_V:] == 0).all()


# --- Muon -----------------------------------------------------------------------------------------


def test_muon_takes_every_hidden_kernel_and_nothing_else():
    state = transform(Muon(), Constant(), STEPS, SPECS).init(random_tree(0)).inner_states

    def held(group):
        return {name for name in named(SPECS) for key in named(state[group]) if key.endswith(name)}

    assert held("muon") == HIDDEN_KERNELS
    assert held("adam") == set(named(SPECS)) - HIDDEN_KERNELS


def test_muon_equals_optax_given_the_same_matrices():
    dimensions = {"w": optax.contrib.MuonDimensionNumbers((1, 2), (3,))}
    specs = {"w": spec("NHKD", 2)}
    params = {"w": random_tree(0)["blocks"]["attention"]["out"]["w"]}
    gradients = {"w": random_tree(1)["blocks"]["attention"]["out"]["w"]}
    theirs = optax.contrib.muon(
        2**-5, weight_decay=0.3, consistent_rms=0.2, muon_weight_dimension_numbers=dimensions
    )
    # at the first step; later theirs corrects for the bias of its mean and Jordan's does not
    expected, _ = jax.jit(lambda: theirs.update(gradients, theirs.init(params), params))()
    ours = transform(Muon(2**-5, weight_decay=0.3), Constant(), STEPS, specs)
    updates, _ = jax.jit(lambda: ours.update(gradients, ours.init(params), params))()
    np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("rows, columns", [(16, 40), (40, 16), (24, 24)])
def test_orthogonalize_keeps_directions_and_brings_singular_values_near_one(rows, columns):
    rng, rank = np.random.default_rng(0), min(rows, columns)
    u = np.linalg.qr(rng.standard_normal((3, rows, rank)))[0]
    v = np.linalg.qr(rng.standard_normal((3, columns, rank)))[0]
    x = u * np.linspace(0.05, 1.0, rank) @ v.mT
    core = u.mT @ np.asarray(orthogonalize(jnp.asarray(x, jnp.float32), 5)) @ v
    values = np.diagonal(core, axis1=-2, axis2=-1)
    assert 0.65 < values.min() and values.max() < 1.25
    np.testing.assert_allclose(core, values[..., None] * np.eye(rank), atol=1e-5)


# --- the state ------------------------------------------------------------------------------------


def described(optimizer, specs=SPECS):
    tx = transform(optimizer, SCHEDULE, STEPS, specs)
    return jax.eval_shape(tx.init, random_tree(0)), state_specs(tx, specs)


@every_optimizer
def test_state_specs_describe_every_array_of_the_state(optimizer):
    state, specs = described(optimizer)
    assert jax.tree.structure(state) == jax.tree.structure(specs)
    for array, spec in zip(jax.tree.leaves(state), jax.tree.leaves(specs), strict=True):
        assert isinstance(spec, ParamSpec)
        assert (spec.shape, spec.dtype) == (array.shape, array.dtype)
        # a letter is kept where the array has the letter's size, which differs from 1 for all of ours
        assert spec.shape == tuple(1 if letter == "1" else SIZES[letter] for letter in spec.letters)
        assert spec.visible_shape == tuple(VISIBLE_V if size == SIZES["V"] else size for size in spec.shape)


@every_optimizer
def test_state_is_scalars_and_arrays_with_their_parameters_letters(optimizer):
    letters = {name: spec.letters for name, spec in named(described(optimizer)[1]).items()}
    for name, of in letters.items():
        if of:
            parameter = next(spec for key, spec in named(SPECS).items() if name.endswith(key))
            assert all(a in (b, "1") for a, b in zip(of, parameter.letters, strict=True)), name
    arrays = {AdamW: 2, SGD: bool(getattr(optimizer, "momentum", 0)), Lion: 1, Adafactor: 2}
    if isinstance(optimizer, Muon):  # a momentum for its kernels, two moments for the others
        expected = len(HIDDEN_KERNELS) + 2 * (len(named(SPECS)) - len(HIDDEN_KERNELS))
    else:
        expected = arrays[type(optimizer)] * len(named(SPECS))
    assert sum(of != "" for of in letters.values()) == expected


def test_adafactor_keeps_a_row_and_a_column_per_layer():
    _, specs = described(Adafactor())
    row, column = named(specs[0].row), named(specs[0].column)
    for name, expected in {
        "['tokens']['table']": ("V1", "1D"),
        "['blocks']['attention']['query']['w']": ("ND11", "N1HK"),
        "['blocks']['attention']['out']['w']": ("NHK1", "N11D"),
        "['blocks']['attention']['query']['b']": ("NHK", "N11"),
        "['norm']['scale']": ("D", "1"),
    }.items():
        assert (row[name].letters, column[name].letters) == expected


@every_optimizer
def test_table_places_the_state(optimizer):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    state, specs = described(optimizer)
    assert jax.tree.structure(shardings(specs, mesh)) == jax.tree.structure(state)


def test_state_that_no_letter_describes_is_refused_by_name():
    tx = optax.contrib.scale_by_muon(weight_dimension_numbers={"w": optax.contrib.MuonDimensionNumbers(1, 2)})
    with pytest.raises(ValueError, match=r"^optimizer state \.ns_coeffs of shape \(3,\) is neither.*$"):
        state_specs(tx, {"w": spec("NDF", 1)})


@every_optimizer
def test_an_update_keeps_shapes_and_dtypes_of_the_state(optimizer):
    tx = transform(optimizer, SCHEDULE, STEPS, SPECS)
    params = random_tree(0)
    before = jax.eval_shape(tx.init, params)
    _, after = jax.eval_shape(tx.update, params, before, params)
    assert before == after


# --- the settings ---------------------------------------------------------------------------------

CHANGES = {  # another legal value for each field
    "learning_rate": 2**-3, "beta1": 0.5, "beta2": 0.6, "eps": 0.1, "weight_decay": 0.1, "momentum": 0.5,
    "nesterov": True, "decay_exponent": 0.9, "clipping_threshold": 0.3, "newton_schulz_steps": 3,
    "adam_learning_rate": 2**-3, "adam_beta1": 0.5, "adam_beta2": 0.6, "adam_eps": 0.1,
}  # fmt: skip


# (one SGD stands for three: the one whose every field may change alone)
@pytest.mark.parametrize(
    "optimizer", [EXAMPLES[0], EXAMPLES[2], *EXAMPLES[4:]], ids=lambda cfg: type(cfg).__name__
)
def test_every_field_of_an_optimizer_changes_the_parameters(optimizer):
    ours = named(train(*eager(optimizer, FEW), FEW)[-1])
    for field in dataclasses.fields(optimizer):
        other = dataclasses.replace(optimizer, **{field.name: CHANGES[field.name]})
        theirs = named(train(*eager(other, FEW), FEW)[-1])
        changed = {name for name in ours if not np.array_equal(ours[name], theirs[name])}
        expected = set(ours)
        if field.name == "weight_decay":
            expected = expected & TABLES_AND_KERNELS
        elif isinstance(optimizer, Muon):
            expected = (
                expected - HIDDEN_KERNELS if field.name.startswith("adam_") else expected & HIDDEN_KERNELS
            )
        assert changed == expected, field.name


def test_each_group_of_muon_follows_the_schedule_from_its_own_peak():
    params, gradients = random_tree(0, FEW), random_tree(1, FEW)

    def change(optimizer):
        tx = transform(optimizer, SCHEDULE, STEPS, FEW)
        return named(tx.update(gradients, tx.init(params), params)[0])

    slow, fast = (
        change(Muon(matrices, adam_learning_rate=adam)) for matrices, adam in [(2**-5, 2**-7), (2**-4, 2**-5)]
    )
    for name in slow:
        times = 2 if name in HIDDEN_KERNELS else 4
        np.testing.assert_allclose(fast[name], times * slow[name], rtol=1e-5, atol=1e-9, err_msg=name)


@every_optimizer
def test_logged_learning_rate_is_the_one_applied(optimizer):
    rate = learning_rate(optimizer, SCHEDULE, STEPS)
    expected = [SCHEDULE.rate(optimizer.learning_rate, STEPS)(t) for t in range(STEPS)]
    assert [rate(t) for t in range(STEPS)] == expected and min(expected) > 0


POSITIVE = {"learning_rate", "eps", "decay_exponent", "clipping_threshold", "newton_schulz_steps"}
FRACTIONS = {"beta1", "beta2", "momentum"}


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_bad_setting_is_one_line_with_field_value_and_default(kind):
    for field in dataclasses.fields(kind):
        name = field.name.removeprefix("adam_")
        bad = [-1.0, math.nan, math.inf]
        bad += [0.0] if name in POSITIVE else [1.0] if name in FRACTIONS else []
        for value in bad if name != "nesterov" else []:
            with pytest.raises(ConfigError) as caught:
                kind(**{field.name: value})
            message = str(caught.value)
            assert f"{kind.__name__} {field.name}={value!r} must" in message
            assert str(field.default) in message and "\n" not in message


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(
        ConfigError, match="^SGD nesterov=True does nothing with momentum=0.0; set a momentum.*$"
    ):
        SGD(nesterov=True)
