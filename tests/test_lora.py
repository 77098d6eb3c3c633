"""Adapters of low rank: what they compute, what is trained, and what a run of them leaves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train import command, refusal, run, text  # noqa: F401
from training import eight_devices, mesh_of, parts_of, tiny_model, train

import zoo
from zoo import models, optim, schedules
from zoo.checkpoint import named_leaves, nested
from zoo.errors import ConfigError
from zoo.models.bert import BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.models.gpt import GPTConfig
from zoo.models.lora import LoRA, frozen_beside, with_lora
from zoo.optim.finetune import without

EVERYWHERE = LoRA(rank=2, alpha=6.0, targets=("*attention/*", "*mlp/*"))
BERT = BERTConfig(vocab_size=65, max_length=16, num_layers=2, num_heads=2, d_model=8, d_ff=12)
TOKENS = jax.random.randint(jax.random.key(9), (3, 8), 0, 65)


def moved(model):
    """Parameters whose adapters are not zero."""
    params = model.init(jax.random.key(0))
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params)


@pytest.mark.parametrize(
    "config",
    [GPTConfig(65, 16, 2, 2, 8), dataclasses.replace(BERT, remat="full"), ClassifierConfig(encoder=BERT)],
    ids=lambda config: type(config).__name__,
)
def test_merged_parameters_compute_what_the_adapters_do(config):
    model = with_lora(models.create(config), EVERYWHERE)
    params = moved(model)
    unmerged, merged = model.apply(params, TOKENS), model.base.apply(model.merged(params), TOKENS)
    without_adapters = model.base.apply(params, TOKENS)
    np.testing.assert_allclose(unmerged, merged, atol=2e-5)
    assert float(jnp.abs(unmerged - without_adapters).max()) > 1e-3


def test_an_adapted_model_begins_as_the_one_it_adapts():
    model = with_lora(tiny_model(GPTConfig), EVERYWHERE)
    params = model.init(jax.random.key(0))
    np.testing.assert_array_equal(model.apply(params, TOKENS), model.base.apply(params, TOKENS))


def test_one_layer_by_hand():
    model = with_lora(models.create(ClassifierConfig(encoder=BERT)), LoRA(3, alpha=5.0, targets=("hidden",)))
    params = moved(model)
    hidden = named_leaves(params["hidden"])
    delta = np.asarray(hidden["lora_a"]) @ np.asarray(hidden["lora_b"]) * (5.0 / 3)
    by_hand = nested(named_leaves(params) | {"hidden/w": hidden["w"] + delta})
    np.testing.assert_allclose(model.apply(params, TOKENS), model.base.apply(by_hand, TOKENS), atol=1e-5)


def test_the_root_of_the_rank_scales_where_it_is_asked_to():
    assert (LoRA(rank=16, alpha=8.0).scale, LoRA(rank=16, alpha=8.0, scaling="root").scale) == (0.5, 2.0)


def test_dropout_of_the_adapters_leaves_the_frozen_path_whole():
    config = GPTConfig(65, 16, 2, 2, 8, dropout_rate=0.0)
    model = with_lora(models.create(config), dataclasses.replace(EVERYWHERE, dropout_rate=0.5))
    fresh, params, key = model.init(jax.random.key(0)), moved(model), jax.random.key(1)
    train = {"train": True, "rngs": {"dropout": key}}
    np.testing.assert_array_equal(model.apply(fresh, TOKENS, **train), model.apply(fresh, TOKENS))
    assert not np.array_equal(model.apply(params, TOKENS, **train), model.apply(params, TOKENS))


# --- training -------------------------------------------------------------------------------------


def lora_parts():
    model = with_lora(tiny_model(GPTConfig), EVERYWHERE)
    frozen = frozen_beside(EVERYWHERE, named_leaves(model.abstract()))
    parts = parts_of(GPTConfig, model=model, frozen=frozen)
    return dataclasses.replace(parts, tx=_transform(model, frozen))


def _transform(model, frozen):
    specs = without(model.abstract(), frozen)
    return optim.transform(optim.AdamW(learning_rate=1e-2), schedules.Cosine(warmup_steps=2), 10, specs)


def test_only_adapters_move_and_only_they_have_moments():
    parts = lora_parts()
    state, losses = train(parts, mesh_of(), stop=6)
    first, last = named_leaves(parts.init().params), named_leaves(state.params)
    assert losses[-1] < losses[0]
    assert {n for n in first if not np.array_equal(first[n], last[n])} == {n for n in first if "lora_" in n}
    moments = [name for name in named_leaves(state.opt_state) if "blocks" in name or "tokens" in name]
    assert moments and all("lora_" in name for name in moments)


def test_no_array_as_large_as_a_frozen_kernel_is_made_by_the_gradient():
    """Every product of the head's forward and backward pass is smaller: W is read, never differentiated."""
    model = with_lora(models.create(ClassifierConfig(encoder=BERT)), LoRA(2, targets=("hidden",)))
    params = model.init(jax.random.key(0))
    trained = {name: x for name, x in named_leaves(params).items() if "lora_" in name}

    def loss(trained):
        return model.apply(nested(named_leaves(params) | trained), TOKENS).sum()

    jaxpr = jax.make_jaxpr(jax.grad(loss))(trained)
    kernel = params["hidden"]["w"].shape
    products = [eqn.outvars[0].aval.shape for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"]
    assert kernel not in products and kernel[::-1] not in products and products


@eight_devices
def test_the_losses_are_the_same_on_a_mesh():
    parts = lora_parts()
    one, many = train(parts, mesh_of(), stop=4)[1], train(parts, mesh_of((2, 2, 2)), stop=4)[1]
    np.testing.assert_allclose(one, many, rtol=1e-5)


# --- settings and train.py ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad, said",
    [
        ({"rank": -1}, "rank=-1 must not be negative"),
        ({"alpha": 0.0}, "alpha=0.0 must be above 0"),
        ({"dropout_rate": 1.0}, "dropout_rate=1.0 must be"),
        ({"scaling": "rnak"}, "scaling='rnak' is none of rank, root"),
        ({"rank": 1, "targets": ()}, "adapts nothing without targets"),
        ({"rank": 9}, "lora.rank=9 is more than"),
        ({"rank": 1, "targets": ("*atention/query",)}, "matches no matmul; did you mean"),
    ],
)
def test_settings_that_cannot_be_meant_are_one_line(bad, said):
    with pytest.raises(ConfigError) as caught:
        with_lora(models.create(BERT), LoRA(**bad))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_train_py_adapts_a_run_and_its_folder_is_read_merged(text, capsys):  # noqa: F811
    assert run(text, capsys)[0] == 0
    _, base, _ = zoo.from_pretrained("runs/gpt_stdlib")
    lora = ("--name", "lora", "--init", "runs/gpt_stdlib", "--lora.rank", "2")
    assert run(text, capsys, *lora)[0] == 0
    model, params, _ = zoo.from_pretrained("runs/lora")
    assert model.lora is None
    first, last = named_leaves(base), named_leaves(params)
    changed = {name for name in first if not np.array_equal(first[name], last[name])}
    assert changed == {"blocks/attention/query/w", "blocks/attention/value/w"}
    error = refusal(capsys, 2, command(text, "--name", "other", "--lora.rank", "2"))
    assert "name its folder with init" in error
