"""Fine-tuning: depths of parameters, rates by depth, what stays frozen, and what joins later."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from test_train import command, refusal, run, text  # noqa: F401
from training import batch_of, mesh_of, parts_of, tiny_model, train

import zoo
from zoo import models, optim, schedules
from zoo.checkpoint import Checkpoints
from zoo.digest import state_digest
from zoo.errors import ConfigError
from zoo.models.bert import BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.models.depth import depths
from zoo.models.gpt import GPTConfig
from zoo.models.rnn import RNNConfig
from zoo.models.scalar_mix import ELMoConfig
from zoo.models.seq2seq import Seq2SeqConfig
from zoo.models.tagger import TaggerConfig
from zoo.optim.finetune import FineTune, by_depth, frozen_names, without
from zoo.tree import named_leaves

BERT = BERTConfig(vocab_size=100, max_length=16, num_layers=3, num_heads=2, d_model=8, d_ff=12)


def found(config) -> dict:
    """{name: depth, or the list of its layers' depths}."""
    tree = depths(models.create(config))
    return {name: depth.ravel().tolist() for name, depth in named_leaves(tree).items()}


# --- depths ---------------------------------------------------------------------------------------


def test_a_classifier_over_bert_counts_from_the_tables_to_the_head():
    tree = found(ClassifierConfig(encoder=BERT, pooling="first"))
    blocks = {name for name in tree if name.startswith("encoder/blocks/")}
    below = {f"encoder/{name}" for name in ("tokens/table", "positions/table", "token_types/table")}
    below |= {"encoder/norm/scale", "encoder/norm/bias"}
    assert all(tree[name] == [1, 2, 3] for name in blocks) and len(blocks) == 16
    assert all(tree[name] == [0] for name in below)
    assert {name for name in tree if tree[name] == [4]} == set(tree) - blocks - below
    assert "classes/w" in tree and "hidden/w" in tree


def test_the_last_norm_of_gpt_is_above_its_blocks_and_the_first_of_bert_below():
    gpt = found(GPTConfig(num_layers=2, num_heads=2, d_model=8))
    assert (gpt["norm/scale"], gpt["tokens/table"], gpt["blocks/mlp/up/w"]) == ([3], [0], [1, 2])
    bert = found(BERT)
    assert (bert["norm/scale"], bert["transform/w"], bert["bias"]) == ([0], [4], [4])


def test_recurrent_layers_count_by_their_names_in_both_directions():
    rnn = RNNConfig(vocab_size=9, d_model=4, d_state=4, num_layers=2, direction="both")
    tree = found(TaggerConfig(encoder=rnn))
    assert [tree[f"encoder/stack/layer{i}_reverse/w"] for i in (0, 1)] == [[1], [2]]
    assert [tree[f"encoder/stack/layer{i}/w_in"] for i in (0, 1)] == [[1], [2]]
    assert (tree["encoder/tokens/table"], tree["tags/emissions/w"]) == ([0], [3])
    elmo = found(ClassifierConfig(encoder=ELMoConfig()))
    assert elmo["encoder/encoder/forward_layers_1/w"] == [2] and elmo["encoder/mix/weights"] == [3]
    assert elmo["encoder/encoder/characters/projection/w"] == [0]


def test_depths_of_a_model_without_one_order_are_refused():
    with pytest.raises(ConfigError, match=r"^finetune: the layers of Seq2SeqConfig stand in no single order"):
        depths(models.create(Seq2SeqConfig()))


# --- rates ----------------------------------------------------------------------------------------


def test_layer_decay_of_adamw_equals_a_learning_rate_of_each_layers_own():
    """Against Adam written out for one number, with decay: 5 steps, every entry of every layer."""
    model = models.create(ClassifierConfig(encoder=BERT, pooling="first", d_hidden=0))
    cfg, specs, decay = optim.AdamW(0.01, weight_decay=0.1), model.abstract(), 0.5
    tx = optim.transform(cfg, schedules.Constant(), 5, specs)
    tx = optax.chain(tx, by_depth(FineTune(layer_decay=decay), depths(model)))
    random = np.random.default_rng(0)

    def draw():
        return jax.tree.map(lambda spec: random.normal(size=spec.shape).astype(np.float32), specs)

    params, gradients = draw(), [draw() for _ in range(5)]
    ours, state, update = params, tx.init(params), jax.jit(tx.update)
    for gradient in gradients:
        updates, state = update(gradient, state, ours)
        ours = optax.apply_updates(ours, updates)

    for name, p in named_leaves(params).items():
        p = p.astype(np.float64)
        stacked = name.startswith("encoder/blocks/")
        below = name.startswith("encoder/") and not stacked
        powers = np.array([3, 2, 1]) if stacked else np.array([4 if below else 0])
        rate = 0.01 * decay ** powers.reshape(-1, *[1] * (p.ndim - 1))
        pull = 0.1 if name.endswith(("/w", "/table")) else 0.0
        m = v = 0.0
        for t, gradient in enumerate(gradients, 1):
            g = named_leaves(gradient)[name].astype(np.float64)
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
            p = p - rate * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8) + pull * p)
        np.testing.assert_allclose(named_leaves(ours)[name], p, rtol=2e-5, atol=2e-6, err_msg=name)


# --- frozen ---------------------------------------------------------------------------------------


def frozen_parts(*patterns, **settings):
    """A tiny GPT's train step in which some parameters stay."""
    model = tiny_model(GPTConfig)
    frozen = frozen_names(patterns, model.abstract())
    parts = parts_of(GPTConfig, model=model, **settings)
    specs = without(model.abstract(), frozen)
    tx = optim.transform(optim.AdamW(1e-2), schedules.Constant(), 10, specs)
    return dataclasses.replace(parts, tx=tx, frozen=frozen)


def test_frozen_parameters_keep_every_bit_and_the_rest_moves():
    parts = frozen_parts("blocks/attention/*", "*/table", average_decay=0.9, accumulate=2)
    before = named_leaves(parts.init())
    state, _ = train(parts, mesh_of(), stop=3)
    after = named_leaves(state)
    for name in parts.frozen:
        for part in ("params", "average"):
            np.testing.assert_array_equal(after[f"{part}/{name}"], before[f"{part}/{name}"], err_msg=name)
    moved = {name for name in named_leaves(state.params) if name not in parts.frozen}
    assert moved and all((after[f"params/{n}"] != before[f"params/{n}"]).any() for n in moved)


def test_frozen_parameters_have_no_optimizer_state():
    parts = frozen_parts("blocks/*")
    names = named_leaves(parts.specs().opt_state)
    assert not [name for name in names if "blocks" in name] and [n for n in names if "tokens/table" in n]


def test_no_gradient_is_computed_for_what_is_frozen():
    """The compiled step of a GPT whose blocks stay does less than two thirds of the arithmetic."""

    def flops(parts):
        state, batch = jax.eval_shape(parts.init), batch_of(0, mesh_of())
        return jax.jit(parts.step).lower(state, batch).compile().cost_analysis()["flops"]

    with jax.set_mesh(mesh_of()):
        some = flops(frozen_parts("*/table", "blocks/*"))  # only the last norm learns
        assert some < 0.67 * flops(frozen_parts())


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("encoder/block/*", "matches no parameter; did you mean 'encoder/blocks/*'?"),
        ("classes", "matches no parameter; did you mean 'classes/w'?"),
        ("*", "leaves no parameter to be trained"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_one_line(pattern, said):
    with pytest.raises(ConfigError) as caught:
        frozen_names((pattern,), models.create(ClassifierConfig(encoder=BERT)).abstract())
    assert said in str(caught.value) and f"finetune.freeze={pattern!r}" in str(caught.value)


@pytest.mark.parametrize("bad", [{"layer_decay": 0.0}, {"layer_decay": 1.1}, {"unfreeze_every": -1}])
def test_bad_settings_are_one_line(bad):
    ((name, value),) = bad.items()
    with pytest.raises(ConfigError, match=f"^{name}={value} must"):
        FineTune(**bad)


# --- gradual unfreezing ---------------------------------------------------------------------------


@functools.cache
def unfreezing_parts():
    """A tiny GPT of two layers; one more learns every two steps. No decay pulls where nothing learns."""
    model = tiny_model(GPTConfig)
    parts = parts_of(GPTConfig, model=model)
    tx = optax.chain(parts.tx, by_depth(FineTune(unfreeze_every=2), depths(model)))
    return dataclasses.replace(parts, tx=tx)


def test_one_more_layer_learns_every_so_many_steps_from_the_top():
    parts = unfreezing_parts()
    states = [parts.init()] + [train(parts, mesh_of(), stop=stop)[0] for stop in range(1, 8)]
    moved = []
    for old, new in zip(states, states[1:], strict=False):
        a, b = named_leaves(old.params), named_leaves(new.params)
        up = [bool((a["blocks/mlp/up/w"][i] != b["blocks/mlp/up/w"][i]).any()) for i in range(2)]
        whole = [bool((a[name] != b[name]).any()) for name in ("tokens/table", "norm/scale")]
        moved.append([whole[0], *up, whole[1]])
    head, one, two, all_of_it = [[i >= 3 - n for i in range(4)] for n in range(4)]
    assert moved == [head, head, one, one, two, two, all_of_it]


def test_unfreezing_goes_on_exactly_after_a_stop(tmp_path):
    parts, mesh = unfreezing_parts(), mesh_of()
    whole, _ = train(parts, mesh, stop=6)
    half, _ = train(parts, mesh, stop=3)
    with jax.set_mesh(mesh), Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(half, parts.specs(), {})
        checkpoints.wait()
        half = checkpoints.restore(parts.specs(), mesh, note=pytest.fail)
    again, _ = train(parts, mesh, half, start=3, stop=6)
    assert state_digest(again, parts.specs()) == state_digest(whole, parts.specs())


# --- train.py -------------------------------------------------------------------------------------


def test_train_py_freezes_slows_and_unfreezes_and_refuses_a_pattern_without_parameters(text, capsys):  # noqa: F811
    settings = ("--finetune.layer-decay", "0.5", "--finetune.unfreeze-every", "3")
    assert run(text, capsys, "--finetune.freeze", "*/table", *settings, "--average-decay", "0.9")[0] == 0
    model, params, _ = zoo.from_pretrained("runs/gpt_stdlib")
    first, last = named_leaves(model.init(jax.random.key(0))), named_leaves(params)
    stayed = {name for name in first if np.array_equal(first[name], last[name])}
    assert stayed == {"tokens/table", "positions/table"}
    error = refusal(capsys, 2, command(text, "--name", "other", "--finetune.freeze", "blocks/mpl/*"))
    assert "finetune.freeze='blocks/mpl/*' matches no parameter; did you mean 'blocks/mlp/*'?" in error
    error = refusal(capsys, 4, command(text, "--finetune.freeze", "*/table"))
    assert "finetune.layer_decay: 0.5 -> 1.0" in error
