"""Distillation: its terms against slow loops, any student from any teacher, on a mesh and after a stop."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train import refusal
from test_train_examples import command, write
from test_training_of_tasks import CLASSES, ROWS, T, V, labelled
from training import eight_devices, mesh_of

import train
from zoo import distill, models, optim, schedules, sharding
from zoo.checkpoint import Checkpoints
from zoo.digest import state_digest
from zoo.distill import Distill, Lesson
from zoo.errors import ConfigError
from zoo.feed import place_rows
from zoo.models.bert import BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.models.gpt import GPTConfig
from zoo.models.rnn import RNNConfig
from zoo.step import TrainStep
from zoo.tasks import CausalLM, Classify, Tag
from zoo.tree import named_leaves

random = np.random.default_rng(0)
LENGTHS = np.array([3, 5])
THERE = np.arange(5) < LENGTHS[:, None]


def draw(*shape):
    return random.normal(size=shape).astype(np.float32)


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


# --- the terms ------------------------------------------------------------------------------------


def test_soft_loss_is_the_divergence_of_the_softened_distributions_times_the_square():
    ours, theirs, weights, temperature = draw(2, 5, 7), draw(2, 5, 7), draw(2, 5) ** 2, 3.0
    expected = 0.0
    for b, t in np.ndindex(2, 5):
        p, q = softmax(theirs[b, t] / temperature), softmax(ours[b, t] / temperature)
        expected += temperature**2 * weights[b, t] * (p * np.log(p / q)).sum()
    np.testing.assert_allclose(distill.soft_loss(ours, theirs, weights, temperature), expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_the_padding_of_a_vocabulary_teaches_nothing(temperature):
    ours, theirs, lowest = draw(3, 7), draw(3, 7), np.finfo(np.float32).min
    padded = [jnp.pad(x, [(0, 0), (0, 2)], constant_values=lowest) for x in (ours, theirs)]
    loss = functools.partial(distill.soft_loss, weights=np.ones(3), temperature=temperature)
    np.testing.assert_allclose(loss(*padded), loss(ours, theirs), rtol=1e-6)
    gradient = jax.grad(loss)(*padded)
    np.testing.assert_allclose(gradient[:, :7], jax.grad(loss)(ours, theirs), rtol=1e-5, atol=1e-7)
    assert not np.asarray(gradient[:, 7:]).any()


def test_layers_are_compared_where_there_are_words():
    x, theirs, w = draw(2, 2, 5, 3), draw(2, 2, 5, 4), draw(3, 4)
    layers = {"q_BTHK": draw(2, 2, 5, 3, 2), "k_BTHK": draw(2, 2, 5, 3, 2)}
    other = {"q_BTHK": draw(2, 2, 5, 3, 6), "k_BTHK": draw(2, 2, 5, 3, 6)}
    hidden, scores = [], []
    sees = distill.seen({"tokens": jnp.zeros((2, 5), int), "lengths": LENGTHS}, causal=False)
    for n, b in np.ndindex(2, 2):
        for t in range(LENGTHS[b]):
            hidden += list((x[n, b, t] @ w - theirs[n, b, t]) ** 2)
            for h, s in np.ndindex(3, LENGTHS[b]):
                a = layers["q_BTHK"][n, b, t, h] @ layers["k_BTHK"][n, b, s, h] / 2**0.5
                z = other["q_BTHK"][n, b, t, h] @ other["k_BTHK"][n, b, s, h] / 6**0.5
                scores.append((a - z) ** 2)
    np.testing.assert_allclose(distill.hidden_loss(x, theirs, THERE, w), np.mean(hidden), rtol=1e-5)
    np.testing.assert_allclose(distill.attention_loss(layers, other, sees), np.mean(scores), rtol=1e-5)


def test_attention_is_compared_where_a_model_looks():
    inputs = {"tokens": jnp.zeros((1, 4), int), "segments": jnp.array([[1, 1, 2, 0]])}
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]
    assert list(map(tuple, np.argwhere(distill.seen(inputs, causal=False)[0]))) == pairs
    assert list(map(tuple, np.argwhere(distill.seen(inputs, causal=True)[0]))) == [
        pair for pair in pairs if pair != (0, 1)
    ]


def test_a_student_of_two_layers_follows_the_third_and_the_sixth_of_six():
    assert distill.every({"x": np.arange(6)}, 2)["x"].tolist() == [2, 5]
    assert distill.every({"x": np.arange(4)}, 4)["x"].tolist() == [0, 1, 2, 3]


def test_the_layers_that_a_model_shows_end_in_its_features():
    """BERT's features are its last block's output; what is shown changes nothing of what is returned."""
    for config in (BERT, GPTConfig(vocab_size=V, max_length=T, num_layers=2, num_heads=2, d_model=8)):
        model, tokens = models.create(config), jnp.arange(2 * T).reshape(2, T)
        params = model.init(jax.random.key(1))
        x, layers = jax.jit(model.layers)(params, tokens)
        np.testing.assert_array_equal(x, jax.jit(model.features)(params, tokens)[0])
        assert layers["x_BTD"].shape == (config.num_layers, 2, T, 8)
        assert layers["q_BTHK"].shape == layers["k_BTHK"].shape == (config.num_layers, 2, T, 2, 4)
        if config is BERT:
            np.testing.assert_array_equal(layers["x_BTD"][-1], x)


# --- lessons --------------------------------------------------------------------------------------

BERT = BERTConfig(vocab_size=V, max_length=T, num_layers=4, num_heads=2, d_model=8, d_ff=16, dropout_rate=0.1)
SMALL = dataclasses.replace(BERT, num_layers=2, d_model=16, num_heads=2)
LSTM = RNNConfig(vocab_size=V, direction="both", num_layers=1, d_model=8, d_state=8, init_scale=0.3)


def over(encoder, **settings):
    settings = {"num_classes": CLASSES, "d_hidden": 8, "pooling": "mean", "dropout_rate": 0.1} | settings
    return models.create(ClassifierConfig(encoder=encoder, **settings))


def parts_of(student, cfg: Distill, *, teacher=None, task=None) -> TrainStep:
    lesson = Lesson(student, teacher or over(BERT), cfg)
    specs = student.abstract() | lesson.specs()
    tx = optim.transform(optim.AdamW(3e-3), schedules.Constant(), 10, specs)
    return TrainStep(student, task or Classify(), tx, seed=3, clip_norm=1.0, lesson=lesson)


@functools.cache
def compiled(parts, mesh):
    """The step of a student beside a teacher with its first values."""
    teacher = parts.lesson.teacher
    places = sharding.shardings(teacher.abstract(), mesh)
    return parts.compiled(mesh, jax.jit(teacher.init, out_shardings=places)(jax.random.key(7)))


def trained(parts, mesh, state=None, *, start=0, stop=4):
    """(state, losses) of the steps from `start` to `stop`."""
    losses = []
    with jax.set_mesh(mesh):
        state = parts.init_on(mesh) if state is None else jax.tree.map(jnp.copy, state)
        for number in range(start, stop):
            batch = functools.partial(rows_of, parts.task.batch(labelled(number)))
            state, numbers = compiled(parts, mesh)(state, place_rows(batch, ROWS, mesh))
            losses.append(float(numbers["loss"]))
    return state, losses


def rows_of(batch, rows: range):
    return jax.tree.map(lambda x: x[rows.start : rows.stop], batch)


def test_an_lstm_learns_from_bert_by_the_sum_of_both_losses():
    """Against the terms by hand, from the logits of the two models."""
    student = over(dataclasses.replace(LSTM, dropout_rate=0.0), dropout_rate=0.0)
    cfg = Distill(teacher="there", temperature=2.0, hard=0.3, soft=0.7)
    parts = parts_of(student, cfg)
    params, theirs = student.init(jax.random.key(3)), over(BERT).init(jax.random.key(7))
    batch = Classify().batch(labelled(0))
    ours = jax.jit(student.apply)(params, batch["inputs"])
    theirs = jax.jit(over(BERT).apply)(theirs, batch["inputs"])
    expected = 0.0
    for row in np.flatnonzero(batch["present"]):
        p, q = softmax(np.asarray(theirs[row]) / 2), softmax(np.asarray(ours[row]) / 2)
        expected -= 0.3 * np.log(softmax(np.asarray(ours[row])))[batch["targets"][row]]
        expected += 0.7 * 4 * (p * np.log(p / q)).sum()
    _, losses = trained(parts, mesh_of(), stop=1)
    np.testing.assert_allclose(losses[0], expected / batch["present"].sum(), rtol=1e-5)


def test_a_teacher_of_the_same_parameters_teaches_nothing_new():
    model = over(dataclasses.replace(BERT, dropout_rate=0.0), dropout_rate=0.0)
    lesson = Lesson(model, model, Distill("there", hard=0.0, soft=1.0, hidden=1.0, attention=1.0))
    params, batch = model.init(jax.random.key(0)), Classify().batch(labelled(0))

    def loss(params, teacher_params):
        x, layers = lesson.read(model, params, batch["inputs"])
        return lesson.sums(Classify(), params, teacher_params, x, layers, batch)["loss"]

    learned = jax.jit(jax.value_and_grad(loss))
    value, gradients = learned(params, params)
    assert abs(value) < 1e-5
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradients)) < 1e-5
    moved = jax.tree.map(lambda x: x + 0.1, params)
    assert learned(params, moved)[0] > 0.01


def test_every_term_counts_by_its_own_weight():
    """Layers and attention are means, so that they count once for each row that the task counts."""
    teacher = over(dataclasses.replace(BERT, dropout_rate=0.0), dropout_rate=0.0)
    student = over(dataclasses.replace(BERT, num_layers=2, dropout_rate=0.0), dropout_rate=0.0)
    params, theirs = student.init(jax.random.key(3)), teacher.init(jax.random.key(7))
    batch = Classify().batch(labelled(0))

    @functools.partial(jax.jit, static_argnums=0)
    def loss(cfg):
        lesson = Lesson(student, teacher, cfg)
        x, layers = lesson.read(student, params, batch["inputs"])
        return lesson.sums(Classify(), params, theirs, x, layers, batch)["loss"]

    @jax.jit
    def terms():
        layers = student.layers(params, batch["inputs"])[1]
        other = distill.every(teacher.layers(theirs, batch["inputs"])[1], 2)
        hidden = distill.hidden_loss(layers["x_BTD"], other["x_BTD"], distill.present(batch["inputs"]))
        return hidden, distill.attention_loss(layers, other, distill.seen(batch["inputs"], causal=False))

    rows, (hidden, attention) = batch["present"].sum(), terms()
    alone = loss(Distill("there", hard=0.3, soft=0.7))
    both = loss(Distill("there", hard=0.3, soft=0.7, hidden=0.2, attention=1e5))
    np.testing.assert_allclose(both - alone, rows * (0.2 * hidden + 1e5 * attention), rtol=1e-4)
    assert rows > 1 and 0.1 < 1e5 * attention / hidden < 10  # neither hides in the other's rounding


@pytest.mark.long
@eight_devices
def test_lessons_are_the_same_on_a_mesh_and_exact_after_a_stop(tmp_path):
    """All four terms, widths that differ, dropout in the student: the map W is trained and saved too."""
    student = over(SMALL)
    parts = parts_of(student, Distill("there", hidden=0.5, attention=0.5))
    mesh = mesh_of((2, 2, 2))
    half, first = trained(parts, mesh, stop=2)
    whole, rest = trained(parts, mesh, half, start=2)
    _, alone = trained(parts, mesh_of())
    np.testing.assert_allclose(first + rest, alone, rtol=1e-5)
    names = set(named_leaves(whole.params)) - set(named_leaves(student.abstract()))
    assert names == {"distill/w"}  # and nothing of the teacher's
    with jax.set_mesh(mesh), Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(half, parts.specs(), {})
        checkpoints.wait()
        half = checkpoints.restore(parts.specs(), mesh, note=pytest.fail)
    again, _ = trained(parts, mesh, half, start=2)
    assert state_digest(again, parts.specs()) == state_digest(whole, parts.specs())


@pytest.mark.parametrize(
    ("student", "cfg", "said"),
    [
        (LSTM, {"hidden": 1.0}, "compare the layers of two Transformers"),
        (dataclasses.replace(BERT, num_layers=3), {"hidden": 1.0}, "choose one of 1, 2, 4 layers"),
        (dataclasses.replace(BERT, num_heads=1), {"attention": 1.0}, "has 1 heads, the teacher 2"),
    ],
)
def test_models_that_cannot_be_compared_are_one_line(student, cfg, said):
    with pytest.raises(ConfigError) as caught:
        Lesson(over(student), over(BERT), Distill("there", **cfg))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"hard": -1.0}, {"soft": float("nan")}])
def test_bad_settings_are_one_line(bad):
    ((name, value),) = bad.items()
    with pytest.raises(ConfigError, match=f"^{name}={value} must be"):
        Distill(**bad)


def test_tags_next_words_and_classes_count_as_their_tasks_count_them():
    from zoo.crf import Chain, PerToken

    logits, there = draw(2, 5, 4), THERE.astype(np.float32)
    batch = {"inputs": {"tokens": np.zeros((2, 5)), "lengths": LENGTHS}, "present": np.array([1.0, 0.0])}
    found, weights = Tag().scored(None, lambda x: PerToken(logits), batch)
    np.testing.assert_array_equal(weights, there * [[1], [0]])
    assert found is logits
    with pytest.raises(ConfigError, match="set model.decoder=softmax"):
        Tag().scored(None, lambda x: Chain(logits, None, None, None), batch)
    found, weights = CausalLM().scored(None, lambda x: logits, {"weights": there})
    assert found is logits and weights is there
    batch = {"targets": np.array([2, 0, 1]), "present": np.array([1.0, 1.0, 0.0])}
    _, weights = Classify(class_weights=(3.0, 1.0, 0.5)).scored(None, lambda x: draw(3, 3), batch)
    np.testing.assert_array_equal(weights, [0.5, 3.0, 0.0])  # as the task's own loss counts a class


# --- runs -----------------------------------------------------------------------------------------

TINY = "--model.encoder.d-model 8 --model.encoder.d-state 8 --model.d-hidden 8 --model.d-attention 8".split()


def test_train_py_distills_a_run_and_refuses_what_is_no_teacher(tmp_path, capsys):
    for part, count in (("train", 60), ("valid", 9)):
        texts = [(f"a {'good' if i % 2 else 'bad'} one {i % 5}", i % 2) for i in range(count)]
        for folder, names in (("data", ("0", "1")), ("renamed", ("no", "yes"))):
            rows = ["sentence\tlabel", *(f"{text}\t{names[label]}" for text, label in texts)]
            write(tmp_path / folder / f"{part}.tsv", rows)

    def argv(name, *more, data="data"):
        words = command("lstm_sst2", tmp_path / data, *TINY, *more)
        words[words.index("--runs") + 1] = str(tmp_path / "runs")
        words[words.index("--name") + 1] = name
        return words

    teacher = ("--distill.teacher", str(tmp_path / "runs" / "teacher"))
    assert str(tmp_path / "runs" / "teacher") in refusal(capsys, 4, argv("student", *teacher))
    assert train.main(argv("teacher", "--best", "accuracy")) == 0
    capsys.readouterr()
    small = argv("student", *teacher)
    small[small.index("--model.encoder.d-model") + 1] = "4"
    assert train.main(small) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["step"] == 6 and 0 <= result["accuracy"] <= 1
    renamed = refusal(capsys, 4, argv("other", *teacher, data="renamed"))
    assert "has other names of classes or tags" in renamed
