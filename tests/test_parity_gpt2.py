"""zoo's GPT against implementations that share nothing with it: the same numbers, to rounding.

Three oracles: golden numbers recorded from torch (goldens/gpt2.py), NumPy with gradients by hand
(oracle_gpt2.py), and torch with transformers themselves where they are installed (marked `parity`). All
compare logits, loss and the gradient by every tensor, under Hugging Face's names.

Deviations are relative to the largest number of the reference tensor. That tensor is c_attn where ours are
query, key and value: the gradient by a key's bias is zero in theory, so it has no scale of its own.
"""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import oracle_gpt2
import pytest
from goldens import gpt2 as goldens

import zoo
from zoo.errors import CheckpointError
from zoo.models.gpt import GPTConfig
from zoo.optim import AdamW, transform
from zoo.pretrained.gpt2 import config_from_hf, config_to_hf, from_hf, to_hf
from zoo.schedules import Constant
from zoo.step import TrainState, TrainStep
from zoo.tasks import CausalLM

TOLERANCE = {"float64": 1e-9, "float32": 1e-5}  # what DESIGN.md calls parity
GELU = {"gelu_tanh": oracle_gpt2.gelu_tanh, "gelu": oracle_gpt2.gelu}
GOLDENS = np.load(goldens.FILE)


def undropped(hf_config: dict) -> GPTConfig:
    return dataclasses.replace(config_from_hf(hf_config), dropout_rate=0.0)


def zoo_values(tensors, config: GPTConfig, tokens, counted, dtype: str):
    """(logits, mean loss, gradients as to_hf names them) of zoo, and the gradients as zoo stores them."""
    with jax.enable_x64(dtype == "float64"):
        model = zoo.create(dataclasses.replace(config, dtype=dtype))
        params = jax.tree.map(lambda x: jnp.asarray(x, dtype), from_hf(tensors, config))
        batch = CausalLM().batch({"tokens": tokens, "weights": counted})

        @functools.partial(jax.value_and_grad, has_aux=True)
        def loss(params):
            x_BTD, _ = model.features(params, batch["inputs"])
            sums = CausalLM().loss(x_BTD, functools.partial(model.readout_stored, params), batch)
            return sums["loss"] / sums["weight"], model.readout(params, x_BTD)

        # Without LLVM's optimisation the tests take half the time; XLA's own is untouched.
        quick = {"xla_backend_optimization_level": 0}
        (loss, logits), gradients = jax.jit(loss, compiler_options=quick)(params)
        assert logits.dtype == loss.dtype == dtype
        gradients = jax.device_get(gradients)
        return np.asarray(logits), float(loss), to_hf(gradients, config), gradients


def assert_equal(found, expected, tolerance: float) -> None:
    """Holds two (logits, loss, gradients) together; names what differs."""
    named = {"logits": (found[0], expected[0]), "loss": (found[1], expected[1])}
    named |= {name: (found[2][name], gradient) for name, gradient in expected[2].items()}
    apart = {name: deviation(*pair) for name, pair in named.items()}
    worst = max(list(apart.values())[2:])
    print(f"relative: logits {apart['logits']:.1e}, loss {apart['loss']:.1e}, gradients {worst:.1e}")
    wrong = {name: f"{value:.1e}" for name, value in apart.items() if not value <= tolerance}
    assert not wrong, f"apart by more than {tolerance}: {wrong}"
    beyond = [name for name in found[2] if name not in expected[2] and np.any(found[2][name])]
    assert not beyond, f"gradients that the reference does not have: {beyond}"


def deviation(found, expected) -> float:
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


def random_tensors(config: GPTConfig, seed: int) -> dict[str, np.ndarray]:
    """Every tensor of a model, biases and norms included, far from its initial value."""
    rng = np.random.default_rng(seed)
    specs = zoo.create(config).abstract()
    return to_hf(jax.tree.map(lambda spec: rng.normal(0.1, 0.3, spec.shape), specs), config)


# --- golden numbers -------------------------------------------------------------------------------


def golden_values(case: str):
    before = f"{case}/gradient/"
    names = [name for name in GOLDENS.files if name.startswith(before)]
    gradients = {name.removeprefix(before): GOLDENS[name] for name in names}
    return GOLDENS[f"{case}/logits"], float(GOLDENS[f"{case}/loss"]), gradients


@pytest.mark.parametrize("case", goldens.CASES)
def test_golden_weights_are_drawn_again_bit_for_bit(case):
    assert goldens.digest(goldens.weights(case)) == GOLDENS[f"{case}/digest"]
    np.testing.assert_array_equal(goldens.tokens(case), GOLDENS[f"{case}/tokens"])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", goldens.CASES)
def test_zoo_computes_the_golden_numbers(case, dtype):
    config, tokens, counted = undropped(goldens.CASES[case]), goldens.tokens(case), goldens.counted(case)
    *found, stored = zoo_values(goldens.weights(case), config, tokens, counted, dtype)
    assert_equal(found, golden_values(case), TOLERANCE[dtype])
    assert not np.any(stored["tokens"]["table"][config.vocab_size :]), "padding has a gradient"


# --- NumPy ----------------------------------------------------------------------------------------


def oracle_values(tensors, config: GPTConfig, tokens, counted):
    return oracle_gpt2.loss_and_gradients(
        *(tensors, tokens[:, :-1], tokens[:, 1:], counted),
        num_heads=config.num_heads,
        activation=GELU[config.activation],
    )


@pytest.mark.parametrize("case", goldens.CASES)
def test_the_numpy_oracle_computes_the_golden_numbers(case):
    config = undropped(goldens.CASES[case])
    found = oracle_values(goldens.weights(case), config, goldens.tokens(case), goldens.counted(case))
    assert_equal(found, golden_values(case), 1e-12)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_zoo_computes_what_the_numpy_oracle_does(dtype):
    config = GPTConfig(
        vocab_size=131, max_length=16, num_layers=3, num_heads=5, d_model=20, d_ff=33, dropout_rate=0.0
    )
    tensors = {name: x.astype(np.float32) for name, x in random_tensors(config, seed=0).items()}
    tokens = np.random.default_rng(1).integers(config.vocab_size, size=(4, 6), dtype=np.int32)
    tokens[0] = tokens[0, 0]  # one word all along: its row of the table gathers many gradients
    counted = np.random.default_rng(2).integers(2, size=(4, 5)).astype(np.float32)
    *found, _ = zoo_values(tensors, config, tokens, counted, dtype)
    assert_equal(found, oracle_values(tensors, config, tokens, counted), TOLERANCE[dtype])


def test_greedy_text_is_what_a_slow_loop_over_the_oracle_writes():
    from zoo.inference.generate import generate

    config, tensors = undropped(goldens.CASES["gpt2_odd"]), goldens.weights("gpt2_odd")
    prompts = [[5, 3, 90], [17], [96, 0, 1, 1, 2]]
    slow = []
    for prompt in prompts:
        text = list(prompt)
        for _ in range(6):
            row = np.array([text])
            logits, _ = oracle_gpt2.gpt2(tensors, row, num_heads=3, activation=oracle_gpt2.gelu_tanh)
            text.append(int(logits[0, -1].argmax()))
        slow.append(text[len(prompt) :])
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), from_hf(tensors, config))
    assert generate(zoo.create(config), params, prompts, max_new_tokens=6) == slow


# --- the mapping ----------------------------------------------------------------------------------

SMALL = GPTConfig(vocab_size=97, max_length=7, num_layers=3, num_heads=3, d_model=12, d_ff=10)


BIASES = pytest.mark.parametrize("bias", [True, False], ids=["biases", "no biases"])


@BIASES
def test_parameters_survive_hugging_faces_format_bit_for_bit(bias):
    config = dataclasses.replace(SMALL, bias=bias)
    rng = np.random.default_rng(6)
    specs = zoo.create(config).abstract()
    params = jax.tree.map(lambda spec: rng.normal(size=spec.shape).astype(np.float32), specs)
    params["tokens"]["table"][97:] = 0  # the padding, which is not exported
    back = from_hf(to_hf(params, config), config)
    equal = jax.tree.map(lambda x, y: x.dtype == y.dtype and x.tobytes() == y.tobytes(), params, back)
    assert all(jax.tree.leaves(equal)), equal


def test_tensors_survive_zoos_tree_bit_for_bit():
    tensors = random_tensors(SMALL, seed=3)
    back = to_hf(from_hf(tensors, SMALL), SMALL)
    assert back.keys() == tensors.keys()
    assert all(back[name].tobytes() == tensors[name].tobytes() for name in tensors)


def test_files_as_openai_uploaded_them_are_read():
    tensors = random_tensors(SMALL, seed=3)
    old = {name.removeprefix("transformer."): x for name, x in tensors.items()}
    old |= {"h.0.attn.bias": np.tri(7)[None, None], "h.0.attn.masked_bias": np.array(-1e4)}
    old["lm_head.weight"] = tensors["transformer.wte.weight"]
    assert jax.tree.all(jax.tree.map(np.array_equal, from_hf(old, SMALL), from_hf(tensors, SMALL)))


def test_half_precision_becomes_float32():
    half = {name: x.astype(jnp.bfloat16) for name, x in random_tensors(SMALL, seed=3).items()}
    params = from_hf(half, SMALL)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    assert np.array_equal(params["norm"]["scale"], half["transformer.ln_f.weight"].astype(np.float32))


def test_all_tensors_that_do_not_fit_are_named_in_one_line():
    tensors = random_tensors(SMALL, seed=3)
    del tensors["transformer.h.1.ln_2.bias"], tensors["transformer.wpe.weight"]
    tensors["transformer.h.3.ln_1.weight"] = np.zeros(12)
    tensors["transformer.h.0.mlp.c_fc.weight"] = tensors["transformer.h.0.mlp.c_fc.weight"].T
    tensors["lm_head.weight"] = np.zeros((97, 12))
    with pytest.raises(CheckpointError) as caught:
        from_hf(tensors, SMALL)
    assert str(caught.value) == (
        "tensors do not fit this GPT-2 (missing: transformer.wpe.weight, transformer.h.1.ln_2.bias; "
        "unexpected: transformer.h.3.ln_1.weight; "
        "of another shape: transformer.h.0.mlp.c_fc.weight [10, 12], not [12, 10]; "
        "not tied to wte.weight: lm_head.weight); "
        "take the config.json made with them"
    )


def test_a_file_of_another_model_is_refused_in_a_line_that_can_be_read():
    message = (
        r"missing: transformer\.wte\.weight, .* and 32 more; unexpected: bert\.0\.weight, .* and 192 more"
    )
    with pytest.raises(CheckpointError, match=message) as caught:
        from_hf({f"bert.{n}.weight": np.zeros(3) for n in range(200)}, SMALL)
    assert len(str(caught.value)) < 600


def test_a_model_without_biases_refuses_biases_that_are_not_zero():
    message = r"unexpected: transformer\.ln_f\.bias, transformer\.h\.0\.ln_1\.bias, .* and 11 more"
    with pytest.raises(CheckpointError, match=message):
        from_hf(random_tensors(SMALL, seed=3), dataclasses.replace(SMALL, bias=False))


@pytest.mark.parametrize("name", zoo.list_models("gpt*"))
def test_every_published_size_survives_config_json(name):
    config = zoo.create(name).config
    assert config_from_hf(json.loads(json.dumps(config_to_hf(config)))) == config


def test_an_empty_config_json_is_gpt2_small():
    assert config_from_hf({}) == GPTConfig()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"model_type": "bert"}, "config.json: model_type='bert', but zoo's GPT has only 'gpt2'"),
        ({"layer_norm_epsilon": 1e-6}, "config.json: layer_norm_epsilon=1e-06, but zoo's GPT has only 1e-05"),
        (
            {"scale_attn_by_inverse_layer_idx": True},
            "config.json: scale_attn_by_inverse_layer_idx=True, but zoo's GPT has only False",
        ),
        (
            {"activation_function": "tanh"},
            "config.json: activation_function='tanh' is none of gelu_new, gelu_pytorch_tanh, gelu, relu, "
            "silu",
        ),
        (
            {"attn_pdrop": 0.0},
            "config.json: resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.0, "
            "but zoo's GPT has one dropout rate; make them equal",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_that_zoo_does_not_have_is_refused_in_one_line(setting, message):
    with pytest.raises(CheckpointError) as caught:
        config_from_hf(setting)
    assert str(caught.value) == message


# --- torch and transformers, live -----------------------------------------------------------------

LIVE = {
    "as published": {"vocab_size": 300, "n_positions": 20, "n_layer": 2, "n_head": 4, "n_embd": 32},
    "odd sizes": {"vocab_size": 97, "n_positions": 13, "n_layer": 3, "n_head": 3, "n_embd": 18, "n_inner": 9},
    "relu": {"vocab_size": 128, "n_positions": 9, "n_layer": 1, "n_head": 1, "n_embd": 8}
    | {"activation_function": "relu"},
}


@pytest.fixture
def torch():
    pytest.importorskip("transformers")
    return pytest.importorskip("torch")


def transformers_checkpoint(torch, hf_config: dict, folder):
    """(model, tensors, config) of a random checkpoint that transformers wrote and safetensors read back."""
    from safetensors.numpy import load_file

    torch.manual_seed(0)
    model = goldens.transformers_model(hf_config | {"initializer_range": 0.3})
    for parameter in model.parameters():  # biases and norms too, away from 0 and 1
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    config = config_from_hf(json.loads((folder / "config.json").read_text()))
    return model, load_file(folder / "model.safetensors"), config


def random_rows(config: GPTConfig, rows: int):
    """Tokens [rows, T + 1], full length, and weights of which a few are zero."""
    rng = np.random.default_rng(5)
    tokens = rng.integers(config.vocab_size, size=(rows, config.max_length + 1), dtype=np.int32)
    return tokens, (rng.random((rows, config.max_length)) < 0.9).astype(np.float32)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", LIVE)
def test_zoo_computes_what_transformers_does(name, dtype, torch, tmp_path):
    model, tensors, config = transformers_checkpoint(torch, LIVE[name], tmp_path)
    tokens, counted = random_rows(config, rows=4)
    *found, _ = zoo_values(tensors, config, tokens, counted, dtype)
    expected = goldens.values(model, tokens, counted)
    assert found[2].keys() == expected[2].keys()
    assert_equal(found, expected, TOLERANCE[dtype])


@pytest.mark.parity
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_zoo_computes_what_nanogpt_does(dtype, torch):
    hf_config = goldens.CASES["nanogpt"] | {"n_head": 3, "n_layer": 3}
    config = undropped(hf_config)
    tensors = {name: x.astype(np.float32) for name, x in random_tensors(config, seed=4).items()}
    model = goldens.nanogpt_model(hf_config)
    goldens.set_weights(model, tensors)
    tokens, counted = random_rows(config, rows=4)
    *found, _ = zoo_values(tensors, config, tokens, counted, dtype)
    assert_equal(found, goldens.values(model, tokens, counted), TOLERANCE[dtype])


@pytest.mark.parity
@BIASES
def test_transformers_computes_the_same_from_what_zoo_writes(bias, torch, tmp_path):
    from safetensors.numpy import save_file
    from transformers import GPT2LMHeadModel

    config = dataclasses.replace(SMALL, bias=bias, activation="gelu_tanh" if bias else "gelu")
    model = zoo.create(config)
    params = jax.jit(model.init)(jax.random.key(1))
    save_file(to_hf(params, config), tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(config_to_hf(config)))
    reference, report = GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    tokens, _ = random_rows(config, rows=2)
    with torch.no_grad():
        expected = reference.eval()(torch.from_numpy(tokens[:, :-1])).logits.numpy()
    found = np.asarray(jax.jit(model.apply)(params, tokens[:, :-1]))
    assert deviation(found, expected) <= TOLERANCE["float32"]


@pytest.mark.parity
def test_ten_steps_of_adamw_follow_torchs(torch, tmp_path):
    # A large rate and decay, so that a wrong decay mask or bias correction shows within ten steps.
    steps, rate, decay, clip_norm = 10, 1e-2, 1.0, 1.0
    reference, tensors, config = transformers_checkpoint(torch, LIVE["odd sizes"], tmp_path)
    tokens, counted = random_rows(config, rows=8)
    reference = reference.float()
    groups = [
        {"params": [p for p in reference.parameters() if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in reference.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), eps=1e-8)
    expected = []
    for _ in range(steps):
        expected.append(goldens.values(reference, tokens, counted)[1])
        torch.nn.utils.clip_grad_norm_(reference.parameters(), clip_norm)
        optimizer.step()

    model = zoo.create(dataclasses.replace(config, dropout_rate=0.0))
    adamw = AdamW(learning_rate=rate, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=decay)
    tx = transform(adamw, Constant(), steps, model.abstract())
    train = TrainStep(model, CausalLM(), tx, clip_norm=clip_norm)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), from_hf(tensors, config))
    state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), None)
    step, batch = jax.jit(train.step), CausalLM().batch({"tokens": tokens, "weights": counted})
    found = []
    for _ in range(steps):
        state, metrics = step(state, batch)
        found.append(float(metrics["loss"]))
    apart = np.abs(np.array(found) - expected)
    print(f"losses {expected[0]:.4f} -> {expected[-1]:.4f}, furthest apart {apart.max():.1e}")
    assert apart.max() <= 1e-4
    assert expected[-1] < expected[0] - 1.0, "the losses hardly moved: they prove nothing"


@pytest.mark.parity
def test_the_goldens_are_what_their_script_makes_today(torch):
    for case in goldens.CASES:
        for name, array in goldens.golden(case).items():
            stored = GOLDENS[f"{case}/{name}"]
            if array.dtype == np.float64:
                assert deviation(array, stored) <= 1e-12, f"{case}/{name}"
            else:
                np.testing.assert_array_equal(array, stored)
