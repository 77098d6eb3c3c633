"""Adapters against peft: its logits, losses, gradients and ten steps of training, from goldens/adapters.npz;
and where peft is installed, folders that it wrote read here, and folders written here read by it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit, logits
from folders import CONFIGS as PUBLISHED
from folders import random_params
from goldens import adapters as goldens
from test_adapter import CONFIGS as ADAPTED
from test_adapter import adapted, put

import zoo
from zoo import optim, schedules
from zoo.models.lora import LoRA, frozen_beside, with_lora
from zoo.optim.finetune import without
from zoo.pretrained.adapter import PREFIX
from zoo.pretrained.architectures import architecture_of, config_of
from zoo.pretrained.write_adapter import as_published
from zoo.step import TrainState, TrainStep
from zoo.tasks import CausalLM
from zoo.tree import named_leaves, nested

CONFIGS = PUBLISHED | ADAPTED
each_case = pytest.mark.parametrize("case", goldens.CASES)
TARGETS = {
    "llama": {"query": "q_proj", "value": "v_proj", "down": "down_proj"},
    "gpt2": {"out": "attn.c_proj", "up": "c_fc"},
    "gpt2_fused": {"query": "c_attn", "key": "c_attn", "value": "c_attn"},
}


@functools.cache
def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(goldens.FILE) as file:
        return {
            name.removeprefix(f"{case}/"): file[name] for name in file.files if name.startswith(f"{case}/")
        }


def of(case: str):
    """(model, places, parameters) of a golden, drawn again. A fused layer's A stands beside each of ours."""
    name, settings, lora = goldens.CASES[case]
    kind = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    settings = settings | {"model_type": name.lower(), "architectures": [kind]}
    architecture = architecture_of(settings)
    config = config_of(settings, architecture)
    scaling = "root" if "use_rslora" in lora else "rank"
    targets = tuple(f"*/{name}" for name in TARGETS[case])
    model = with_lora(zoo.create(config), LoRA(goldens.RANK, goldens.ALPHA, scaling=scaling, targets=targets))
    places = architecture.family.places(config)
    base = architecture.family.from_hf(goldens.drawn(1, {n: p.shape for n, p in places.items()}), config)
    shapes = {
        name.removeprefix("gradient/"): x.shape for name, x in golden(case).items() if "gradient" in name
    }
    halves = as_ours(model, places, goldens.drawn(2, shapes))
    leaves = named_leaves(base) | halves
    return model, places, nested({name: jnp.asarray(x, jnp.float32) for name, x in leaves.items()})


def as_ours(model, places, tensors) -> dict[str, np.ndarray]:
    """Both halves of every adapter as our arrays, from peft's tensors."""
    specs = named_leaves(model.abstract())
    found = {name: np.zeros(spec.shape) for name, spec in specs.items() if "lora_" in name}
    for name, place in places.items():
        layer = name.removesuffix(".weight")
        if f"{layer}.lora_A.weight" not in tensors:
            continue
        a, b = (tensors[f"{layer}.lora_{half}.weight"].T for half in "AB")
        parts = np.split(b, len(place.paths), axis=1)
        for path, part in zip(place.paths, parts, strict=True):
            for half, x in (("a", a), ("b", part)):
                room = found[path.removesuffix("w") + f"lora_{half}"][place.row]
                room[...] = x.reshape(room.shape)
    return found


def as_theirs(places, leaves, names) -> dict[str, np.ndarray]:
    """peft's tensors, of ours or their gradients: of an A that stands beside several, the sum."""
    found = {}
    for name in names:
        layer, half = name.removesuffix(".weight").rsplit(".lora_", 1)
        place = places[f"{layer}.weight"]
        arrays = [
            np.asarray(leaves[path.removesuffix("w") + f"lora_{half.lower()}"])[place.row]
            for path in place.paths
        ]
        if half == "A":
            found[name] = sum(x.reshape(-1, goldens.RANK).T for x in arrays)
        else:
            found[name] = np.concatenate([x.reshape(goldens.RANK, -1).T for x in arrays])
    return found


def close(found, want, tolerance):
    assert np.abs(found - want).max() <= tolerance * np.abs(want).max()


@each_case
def test_logits_loss_and_gradients_are_pefts(case):
    """Ours in float32, theirs in float64: they part by rounding alone."""
    model, places, params = of(case)
    batch = CausalLM().batch({"tokens": goldens.batch(0)})

    def loss(params):
        logits_BTV = model.apply(params, batch["inputs"])
        logp_BTV = jax.nn.log_softmax(logits_BTV)
        return -jnp.take_along_axis(logp_BTV, batch["targets"][..., None], -1).mean(), logits_BTV

    (value, found), gradients = jit(jax.value_and_grad(loss, has_aux=True))(params)
    want = golden(case)
    close(np.asarray(found), want["logits"], 1e-5)
    close(np.asarray(value), want["loss"], 1e-5)
    names = [name.removeprefix("gradient/") for name in want if name.startswith("gradient/")]
    assert names
    for name, gradient in as_theirs(places, named_leaves(gradients), names).items():
        close(gradient, want[f"gradient/{name}"], 2e-5)


@pytest.mark.parametrize("case", ["llama", "gpt2"])  # a fused A is one there, and three here that part
def test_ten_steps_of_training_adapters_follow_pefts(case):
    model, places, params = of(case)
    frozen = frozen_beside(model.lora, named_leaves(params))
    adamw = optim.AdamW(goldens.RATE, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=goldens.DECAY)
    tx = optim.transform(adamw, schedules.Constant(), goldens.STEPS, without(model.abstract(), frozen))
    parts = TrainStep(model, CausalLM(), tx, clip_norm=goldens.CLIP_NORM, frozen=frozen)
    state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(without(params, frozen)), None)
    step, losses = jit(parts.step), []
    for number in range(goldens.STEPS):
        state, metrics = step(state, CausalLM().batch({"tokens": goldens.batch(number)}))
        losses.append(float(metrics["loss"]))
    want = golden(case)
    assert np.abs(np.array(losses) - want["losses"]).max() <= 1e-4
    assert np.ptp(want["losses"]) > 0.1, "the losses hardly moved: they prove nothing"
    names = [name.removeprefix("last/") for name in want if name.startswith("last/")]
    for name, last in as_theirs(places, named_leaves(state.params), names).items():
        close(last, want[f"last/{name}"], 1e-3)


# --- with peft ------------------------------------------------------------------------------------


@pytest.mark.parity
@each_case
def test_the_golden_numbers_are_what_peft_finds_today(case):
    """But for Llama's angles, always of float32 in transformers, whose rounding is a machine's."""
    pytest.importorskip("peft")
    found = goldens.results(case)
    assert found.keys() == golden(case).keys()
    for name, want in golden(case).items():
        close(found[name], want, 1e-5)


@pytest.fixture
def peft(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("torch")
    return pytest.importorskip("peft")


def random_base(folder, config):
    """A folder of random parameters; returns its model and them."""
    model, params = zoo.create(config), random_params(config)
    zoo.save_pretrained(folder, model, params)
    return model, params


def transformers_model(folder):
    import transformers

    kind = transformers.AutoConfig.from_pretrained(folder).architectures[0]
    return getattr(transformers, kind).from_pretrained(folder, attn_implementation="eager").eval()


def theirs(net) -> np.ndarray:
    import torch

    with torch.no_grad():
        return net(input_ids=torch.tensor(INPUTS, dtype=torch.int64)).logits.numpy()


def same(found, want):
    """As far as float32 is; two programs that sum in other orders."""
    assert np.abs(np.asarray(found) - want).max() <= 2e-5 * np.abs(want).max()


INPUTS = np.random.default_rng(1).integers(5, 12, (2, 10)).astype(np.int32)
MADE = {  # LoraConfig, by what test_adapter.py calls the configuration
    "gpt2": {
        "target_modules": ["c_attn", "mlp.c_proj"],
        "rank_pattern": {"c_attn": 5},
        "fan_in_fan_out": True,
    },
    "llama": {"target_modules": "all-linear", "use_rslora": True, "layers_to_transform": None},
    "neox": {
        "target_modules": ["query_key_value"],
        "alpha_pattern": {"layers.1.attention.query_key_value": 9},
    },
    "modernbert": {"target_modules": ["Wqkv", "mlp.Wi"]},
    "bert": {"target_modules": ["query", "output.dense"], "layers_to_transform": [0, 2]},
    "bert classes": {"target_modules": ["value"], "task_type": "SEQ_CLS", "modules_to_save": ["pooler"]},
    "roberta classes": {"target_modules": ["value"], "task_type": "SEQ_CLS"},
}


@pytest.mark.parity
@pytest.mark.parametrize("name", MADE)
def test_a_folder_that_peft_wrote_gives_pefts_logits(name, tmp_path, peft):
    import torch

    random_base(tmp_path / "base", CONFIGS[name])
    net = peft.get_peft_model(
        transformers_model(tmp_path / "base"), peft.LoraConfig(r=3, lora_alpha=7, **MADE[name])
    )
    torch.manual_seed(0)
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    net.eval().save_pretrained(tmp_path / "lora")
    model, params, _ = zoo.from_pretrained(tmp_path / "base", adapter=tmp_path / "lora")
    same(logits(model, params, INPUTS), theirs(net))
    without_it = zoo.from_pretrained(tmp_path / "base")[1]
    assert np.abs(logits(model, without_it, INPUTS) - theirs(net)).max() > 1e-2


@pytest.mark.parity
@pytest.mark.parametrize("scaling", ["rank", "root"])
@pytest.mark.parametrize("name", [*MADE, "distilbert classes"])
def test_a_folder_written_here_gives_peft_our_logits(name, scaling, tmp_path, peft):
    random_base(tmp_path / "base", CONFIGS[name])
    lora = LoRA(2, 6.0, scaling=scaling, targets=("*attention/query", "*attention/value", "*mlp/*"))
    model, params = adapted(CONFIGS[name], lora)
    if hasattr(model.config, "encoder"):  # a head that is not the base's
        params["classes"] = jax.tree.map(lambda x: x + 1.0, params["classes"])
    settings, tensors = as_published(model, params)
    put(tmp_path / "lora", settings, {key.removeprefix(PREFIX): x for key, x in tensors.items()})
    net = peft.PeftModel.from_pretrained(transformers_model(tmp_path / "base"), tmp_path / "lora").eval()
    same(logits(model.base, model.merged(params), INPUTS), theirs(net))
