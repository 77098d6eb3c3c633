"""Decoders that transformers wrote to a folder, read here, and written back: same logits, gradients and
texts. Skipped where torch is not installed; test_decoder.py has what needs no torch."""

import dataclasses

import jax
import numpy as np
import pytest
from families import jit
from folders import digests
from goldens import decoder as goldens

import zoo
from zoo.inference.generate import generate
from zoo.pretrained.architectures import exported

pytestmark = pytest.mark.parity

each_case = pytest.mark.parametrize("case", goldens.CASES)
LENGTHS = np.array(goldens.LENGTHS)


@pytest.fixture
def torch(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("transformers")
    return pytest.importorskip("torch")


@pytest.fixture
def written(torch, case, tmp_path):
    """(a transformers model in float64, the folder that it wrote)."""
    with goldens.doubled():
        net = goldens.random_net(case)
        net.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    return net, tmp_path / "theirs"


def read(folder, dtype: str):
    model, params, _ = zoo.from_pretrained(folder)
    return zoo.create(dataclasses.replace(model.config, dtype=dtype)), params


def deviation(found, wanted) -> float:
    """Largest difference, relative to the largest value."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    return np.abs(found - wanted).max() / np.abs(wanted).max()


@each_case
def test_logits_and_gradients_of_a_folder_are_transformers(written, case):
    net, folder = written
    want = goldens.results(net, case)
    given = goldens.batch(case)
    inputs, counts = {"tokens": given["tokens"]}, given["counts"]
    family = exported(read(folder, "float32")[0].config)[0].family
    for dtype, tolerance in (("float64", 1e-9), ("float32", 1e-5)):
        with jax.enable_x64(dtype == "float64"):
            model, params = read(folder, dtype)

            def loss(params, model=model):
                logits_BTV = model.apply(params, inputs)
                logp_BTV = jax.nn.log_softmax(logits_BTV[:, :-1])
                next_BT = given["tokens"][:, 1:, None]
                logp_BT = jax.numpy.take_along_axis(logp_BTV, next_BT, -1)[..., 0]
                return -(logp_BT * counts).sum() / counts.sum(), logits_BTV

            (_, logits), gradients = jit(jax.value_and_grad(loss, has_aux=True))(params)
            gradients = family.to_hf(gradients, model.config)
        assert deviation(np.asarray(logits)[given["mask"]], want["logits"]) <= tolerance
        assert gradients.keys() == {n.removeprefix("gradient/") for n in want if n.startswith("gradient/")}
        for name, gradient in gradients.items():
            wanted = want[f"gradient/{name}"]
            # What is zero in exact arithmetic (the gradient of a key's bias) is compared with the largest.
            largest = max(np.abs(wanted).max(), 1e-3 * max(np.abs(g).max() for g in gradients.values()))
            assert np.abs(gradient - wanted).max() <= tolerance * largest, name


@each_case
def test_a_greedy_text_of_100_tokens_is_transformers(torch, written, case):
    """With a cache on both sides, in float64 so that no rounding decides between two words."""
    net, folder = written
    prompt = goldens.batch(case)["tokens"][:1, :5]
    with goldens.doubled(), torch.no_grad():
        out = net.generate(
            torch.tensor(prompt), max_new_tokens=100, min_new_tokens=100, do_sample=False, pad_token_id=0
        )
    with jax.enable_x64(True):
        found = generate(*read(folder, "float64"), prompt.tolist(), max_new_tokens=100)
    assert found[0] == out[0, 5:].tolist()


@each_case
def test_what_is_exported_is_what_was_read(torch, written, case, tmp_path):
    """transformers gives the same logits, and a second round trip the same bytes."""
    import transformers

    net, folder = written
    model, params = read(folder, "float32")
    zoo.save_pretrained(tmp_path / "once", model, params)
    found, again, _ = zoo.from_pretrained(tmp_path / "once")
    zoo.save_pretrained(tmp_path / "twice", found, again)
    assert digests(tmp_path / "once") == digests(tmp_path / "twice")

    back, report = type(net).from_pretrained(
        tmp_path / "once", output_loading_info=True, experts_implementation="eager"
    )
    assert not any(report.values()), report
    assert isinstance(back, transformers.PreTrainedModel)
    tokens = torch.tensor(goldens.batch(case)["tokens"])
    with torch.no_grad():
        found = back.eval()(tokens).logits
    with goldens.doubled(), torch.no_grad():
        want = net(tokens).logits
    assert deviation(found.numpy(), want.numpy()) <= 1e-5
