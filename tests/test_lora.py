"""Adapters of low rank: what they compute, what is trained, and what a run of them leaves."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import first_values, jit, logits
from test_train import command, refusal, run, text  # noqa: F401
from training import eight_devices, mesh_of, parts_of, train

import zoo
from zoo import models, optim, schedules
from zoo.__main__ import main
from zoo.data.tokenizers.bpe import BPETokenizer, byte_symbols
from zoo.errors import ConfigError
from zoo.models.bert import BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.models.gpt import GPTConfig
from zoo.models.lora import LoRA, frozen_beside, with_lora
from zoo.optim.finetune import without
from zoo.tree import named_leaves, nested

EVERYWHERE = LoRA(rank=2, alpha=6.0, targets=("*attention/*", "*mlp/*"))
BERT = BERTConfig(vocab_size=65, max_length=16, num_layers=2, num_heads=2, d_model=8, d_ff=12)
GPT = GPTConfig(vocab_size=65, max_length=24, num_layers=2, num_heads=4, d_model=8, dropout_rate=0.0)
HEAD = ClassifierConfig(encoder=BERT, pooling="first", d_hidden=8)
TOKENS = jax.random.randint(jax.random.key(9), (3, 8), 0, 65)


def moved(model):
    """Parameters whose adapters are not zero."""
    random = np.random.default_rng(1)
    draw = lambda x: x + 0.1 * random.normal(size=x.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, first_values(model))


def without_adapters(params):
    return nested({name: x for name, x in named_leaves(params).items() if "lora_" not in name})


@pytest.mark.parametrize(
    "config", [GPT, dataclasses.replace(BERT, remat="full"), HEAD], ids=lambda config: type(config).__name__
)
def test_merged_parameters_compute_what_the_adapters_do(config):
    model = with_lora(models.create(config), EVERYWHERE)
    params = moved(model)
    unmerged, merged = logits(model, params, TOKENS), logits(model.base, model.merged(params), TOKENS)
    np.testing.assert_allclose(unmerged, merged, atol=2e-5)
    assert float(jnp.abs(unmerged - logits(model.base, without_adapters(params), TOKENS)).max()) > 1e-3


def test_an_adapted_model_begins_as_the_one_it_adapts():
    model = with_lora(models.create(GPT), EVERYWHERE)
    params = first_values(model)
    np.testing.assert_array_equal(
        logits(model, params, TOKENS), logits(model.base, model.merged(params), TOKENS)
    )


def test_one_layer_by_hand():
    model = with_lora(models.create(HEAD), LoRA(3, alpha=5.0, targets=("hidden",)))
    params = moved(model)
    hidden = named_leaves(params["hidden"])
    delta = hidden["lora_a"] @ hidden["lora_b"] * (5.0 / 3)
    by_hand = named_leaves(params) | {"hidden/w": hidden["w"] + delta}
    del by_hand["hidden/lora_a"], by_hand["hidden/lora_b"]
    np.testing.assert_allclose(
        logits(model, params, TOKENS), logits(model.base, nested(by_hand), TOKENS), atol=1e-5
    )


def test_the_root_of_the_rank_scales_where_it_is_asked_to():
    assert (LoRA(rank=16, alpha=8.0).scale, LoRA(rank=16, alpha=8.0, scaling="root").scale) == (0.5, 2.0)


def test_dropout_of_the_adapters_leaves_the_frozen_path_whole():
    model = with_lora(models.create(GPT), dataclasses.replace(EVERYWHERE, dropout_rate=0.5))
    rngs = {"dropout": jax.random.key(1)}
    trained = jit(lambda params: model.apply(params, TOKENS, train=True, rngs=rngs))
    for params, is_same in ((first_values(model), True), (moved(model), False)):
        assert np.array_equal(trained(params), logits(model, params, TOKENS)) is is_same


def test_a_head_is_trained_beside_the_adapters_unless_it_is_said_what_is():
    def trained(**settings):
        lora = dataclasses.replace(EVERYWHERE, **settings)
        names = set(named_leaves(with_lora(models.create(HEAD), lora).abstract()))
        return {name for name in names - frozen_beside(lora, names) if "lora_" not in name}

    assert trained() == {"hidden/w", "hidden/b", "classes/w", "classes/b"}
    assert trained(trained=("classes/*",)) == {"classes/w", "classes/b"}
    names = named_leaves(with_lora(models.create(GPT), EVERYWHERE).abstract())
    assert set(names) - frozen_beside(EVERYWHERE, names) == {name for name in names if "lora_" in name}


# --- training -------------------------------------------------------------------------------------


def lora_parts():
    model = with_lora(models.create(GPT), EVERYWHERE)
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
    model = with_lora(models.create(HEAD), LoRA(2, targets=("hidden",)))
    params = first_values(model)
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


def published(folder):
    """A folder of a tiny GPT with GPT-2's bytes as its vocabulary."""
    pieces = [*byte_symbols(), "<|endoftext|>"]
    config = GPTConfig(len(pieces), max_length=32, num_layers=1, num_heads=2, d_model=16, layer_unroll=0)
    model = models.create(config)
    tokenizer = BPETokenizer({piece: i for i, piece in enumerate(pieces)}, ())
    zoo.save_pretrained(folder, model, first_values(model), tokenizer)


def test_train_py_adapts_a_folder_and_the_run_is_read_merged(text, capsys):  # noqa: F811
    published(text.parent / "base")
    _, base, _ = zoo.from_pretrained("base")
    flags = ("--init", "base", "--data.tokenizer", "bpe", "--data.vocab-path", "base", "--lora.rank", "2")
    code, _, err = run(text, capsys, *flags, "--steps", "3", "--sample-tokens", "0")
    assert code == 0, err
    assert "parameters, 128 of them trained" in err  # 2 kernels x 2 x (16 + 16)
    model, params, _ = zoo.from_pretrained("runs/gpt_stdlib")
    assert model.lora is None
    first, last = named_leaves(base), named_leaves(params)
    changed = {name for name in first if not np.array_equal(first[name], last[name])}
    assert changed == {"blocks/attention/query/w", "blocks/attention/value/w"}
    assert main(["export", "runs/gpt_stdlib", "peft", "--format", "peft"]) == 0
    _, exported, _ = zoo.from_pretrained("base", adapter="peft")
    for name, leaf in named_leaves(exported).items():  # the same sums, in another order
        np.testing.assert_allclose(leaf, last[name], atol=1e-7)
    assert json.loads(Path("peft/adapter_config.json").read_text())["base_model_name_or_path"] == "base"


def test_adapters_of_a_random_model_are_refused(text, capsys):  # noqa: F811
    error = refusal(capsys, 2, command(text, "--lora.rank", "2"))
    assert "name its folder with init" in error
