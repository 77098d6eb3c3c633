"""ELMo from the command line: a biLM is trained, and a tagger reads the mix of its layers."""

import json

import jax
import numpy as np
import pytest

import train
import zoo
from zoo import cli
from zoo.inference.predict import predict
from zoo.mesh import MeshConfig, make_mesh
from zoo.pretrained.start import load_start
from zoo.recipes import CHOICES, CONFIGS
from zoo.tree import named_leaves

SHORT = "--steps 2 --save-every 2 --eval-every 2 --log-every 1 --schedule.warmup-steps 1".split()
SIZES = {"d-model": 4, "d-state": 6, "num-filters": 64, "d-character": 3, "num-layers": 2}


def sized(prefix):
    return [word for name, size in SIZES.items() for word in (f"--{prefix}.{name}", str(size))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elmo")
    (folder / "text").mkdir()
    (folder / "tagged").mkdir()
    text = "".join(f"we go to {'rome' if i % 2 else 'oslo'} at {i % 5}\n" for i in range(60))
    tagged = "".join(f"we{i % 7}\tO\n{'rome' if i % 2 else 'oslo'}\tB-city\n\n" for i in range(40))
    for part in ("train", "valid"):
        (folder / "text" / f"{part}.txt").write_text(text)
        (folder / "tagged" / f"{part}.conll").write_text(tagged)
    argv = ["bilm_stdlib", *SHORT, *sized("model"), "--data.vocab-size", "0", "--data.length", "6"]
    assert train.main([*argv, "--data.path", str(folder / "text"), *where(folder, "bilm")]) == 0
    return folder


def where(folder, name):
    return ["--data.batch-size", "8", "--runs", str(folder / "runs"), "--name", name]


@pytest.mark.long
def test_a_tagger_reads_the_mix_of_a_trained_bilm_over_words_of_its_own(folder, capsys):
    """Its vocabulary is another, as no array is of words; what it predicts of an unknown word depends on how
    that is spelled."""
    argv = [
        "elmo_tag_stdlib",
        *SHORT,
        *sized("model.encoder.encoder"),
        "--init",
        str(folder / "runs" / "bilm"),
    ]
    argv += ["--data.path", str(folder / "tagged"), *where(folder, "elmo")]
    recipe = cli.parse(argv, CONFIGS, CHOICES, default="elmo_tag_stdlib")
    assert train.main(argv) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["step"] == 2 and 0 <= result["tag_accuracy"] <= 1

    model, params, tokenizer = zoo.from_pretrained(folder / "runs" / "elmo")
    _, trained, _ = zoo.from_pretrained(folder / "runs" / "bilm")
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    first = model.init(jax.random.key(0))
    started = named_leaves(load_start(recipe.init, model, first, mesh, tokenizer))
    theirs, before = named_leaves(trained), named_leaves(first)
    prefix = "encoder/encoder/"
    assert any(name.startswith(prefix) for name in started)
    for name, array in started.items():
        wanted = theirs[name.removeprefix(prefix)] if name.startswith(prefix) else before[name]
        np.testing.assert_array_equal(array, wanted, err_msg=name)

    inputs = train.data.load(recipe.data, 0).eval_batch(0, range(8))
    read = {name: inputs[name] for name in ("tokens", "lengths", "characters")}
    other = read | {
        "characters": np.where(read["characters"] == 1 + ord("r"), 1 + ord("x"), read["characters"])
    }
    assert (model.features(params, read)[0] != model.features(params, other)[0]).any()
    answers = predict(folder / "runs" / "elmo", [{"words": ["we9", "madrid", "unheard-of"]}])
    assert len(answers[0]["tags"]) == 3
