"""Span extraction: the head's two logits, the loss, and a run with its answers."""

import json
import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import parameters
from test_train_examples import SHORT

import train
import zoo
from zoo.__main__ import main
from zoo.errors import ConfigError
from zoo.inference.predict import predict
from zoo.models.bert import BERTConfig
from zoo.models.span import SpanConfig
from zoo.tasks import Span

ENCODER = BERTConfig(vocab_size=20, max_length=16, num_layers=1, num_heads=2, d_model=12)
CONFIG = SpanConfig(encoder=ENCODER)
TOKENS = np.random.default_rng(0).integers(0, 20, (3, 7)).astype(np.int32)
INPUTS = {"tokens": TOKENS, "lengths": np.array([7, 5, 4], np.int32)}


def test_two_logits_are_a_linear_layer_of_the_encoders_features():
    """Hugging Face's qa_outputs: a weight [2, D], the beginning first, and a bias."""
    model = zoo.create(CONFIG)
    params = parameters(model)
    assert set(params) == {"encoder", "bounds"} and params["bounds"]["w"].shape == (12, 2)
    x_BTD, _ = zoo.create(ENCODER).features(params["encoder"], INPUTS)
    want = np.asarray(x_BTD) @ params["bounds"]["w"] + params["bounds"]["b"]
    np.testing.assert_allclose(model.apply(params, INPUTS), want, rtol=1e-5, atol=1e-5)


def test_the_loss_is_the_mean_nats_of_both_ends_over_what_is_there():
    bounds_BTC = np.random.default_rng(1).standard_normal((3, 7, 2)).astype(np.float32)
    start_B, end_B = np.array([2, 0, 3]), np.array([6, 0, 3])
    batch = {"inputs": INPUTS, "targets": {"start": start_B, "end": end_B}, "present": np.array([1.0, 1, 0])}
    found = Span().loss(jnp.asarray(bounds_BTC), lambda x: x, batch)
    nats = 0.0
    for row, length in enumerate((7, 5)):
        for end, target in enumerate((start_B[row], end_B[row])):
            there = bounds_BTC[row, :length, end].astype(np.float64)
            nats += np.log(np.exp(there).sum()) - there[target]
    assert float(found["loss"]) == pytest.approx(nats / 2, rel=1e-5) and float(found["weight"]) == 2


def test_padding_and_absent_rows_teach_nothing():
    batch = {
        "inputs": INPUTS,
        "targets": {"start": np.array([2, 0, 3]), "end": np.array([3, 0, 3])},
        "present": np.array([1.0, 1, 0]),
    }

    def loss(bounds_BTC):
        return Span().loss(bounds_BTC, lambda x: x, batch)["loss"]

    slope_BTC = jax.grad(loss)(jnp.zeros((3, 7, 2)))
    assert np.abs(slope_BTC[0]).min() > 0 and not slope_BTC[2].any()
    assert slope_BTC[1, :5].all() and not slope_BTC[1, 5:].any()


@pytest.mark.parametrize("field, value", [("max_answer_length", 0), ("num_best", 0), ("no_answer", math.nan)])
def test_a_bad_field_is_one_line(field, value):
    with pytest.raises(ConfigError, match=field):
        Span(**{field: value})


# A run.

NAMES = ["ann", "bob", "cid", "dora", "eve", "finn"]
PLACES = ["rome", "oslo", "bern", "cairo"]
FILLER = "so it was told to us by them and others on that very day".split()


def question(rng, number):
    """Who went to a place, out of three sentences; one in eight asks for a place that no one went to."""
    people, places = rng.sample(NAMES, 3), rng.sample(PLACES, 4)
    said = [f"{person} went to {place}" for person, place in zip(people, places[:3], strict=True)]
    context = " , ".join([" ".join(rng.choices(FILLER, k=rng.randint(0, 12))), *said]).strip(" ,")
    place = 3 if number % 8 == 0 else rng.randrange(3)
    answers = [] if place == 3 else [{"text": people[place], "answer_start": context.index(people[place])}]
    return {
        "id": f"q{number}",
        "question": f"who went to {places[place]} ?",
        "context": context,
        "answers": answers,
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("span")
    rng = random.Random(0)
    for part, count in (("train", 400), ("dev", 24)):
        lines = [json.dumps(question(rng, number)) for number in range(count)]
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *NAMES, *PLACES, *FILLER, *"went who ? ,".split()]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    where = [
        "--data.path",
        str(folder),
        "--data.vocab-path",
        str(folder),
        "--runs",
        str(folder / "runs"),
        "--name",
        "run",
    ]
    sizes = [
        "--model.encoder.d-model",
        "16",
        "--model.encoder.num-heads",
        "2",
        "--model.encoder.num-layers",
        "1",
    ]
    data = ["--data.max-length", "24", "--data.stride", "8", "--task.no-answer", "0", "--data.bucket", "0"]
    assert train.main(["bert_squad", *where, *data, *sizes, *SHORT]) == 0
    return folder


def verb(capsys, *argv):
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 0
    lines = capsys.readouterr().out.splitlines()
    return lines[:-1], json.loads(lines[-1])


def test_what_predict_answers_scores_what_eval_says(run, capsys):
    _, metrics = verb(capsys, "eval", run / "runs" / "run", run / "dev.jsonl")
    lines, counted = verb(capsys, "predict", run / "runs" / "run", run / "dev.jsonl")
    said, asked = (
        list(map(json.loads, lines)),
        list(map(json.loads, (run / "dev.jsonl").read_text().splitlines())),
    )
    assert [each["id"] for each in said] == [each["id"] for each in asked] and counted["examples"] == 24
    exact = [
        answer["answer"].strip(" ,") == next((right["text"] for right in each["answers"]), "")
        for answer, each in zip(said, asked, strict=True)
    ]
    assert sum(exact) / 24 == pytest.approx(metrics["exact_match"])
    assert {"f1", "answered_f1", "unanswered_accuracy"} <= metrics.keys()
    for answer, each in zip(said, asked, strict=True):
        for other in answer["nbest"]:
            assert each["context"][other["start"] : other["end"]].strip() == other["answer"]
        assert answer["score"] in [other["score"] for other in answer["nbest"]]
    (alone,) = predict(
        run / "runs" / "run", [{name: asked[0][name] for name in ("question", "context")} | {"id": 5}]
    )
    assert alone["id"] == "5" and alone["answer"] == said[0]["answer"]
