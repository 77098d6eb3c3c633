"""The tasks of heads: what they sum, what they report, and that a few dozen steps learn a rule."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from encoders import LSTM, WORDS, model_of
from families import jit

from zoo.crf import Chain, PerToken
from zoo.errors import ConfigError
from zoo.models.classifier import ClassifierConfig
from zoo.models.joint import JointConfig
from zoo.models.tagger import TaggerConfig
from zoo.tasks.classify import Classify
from zoo.tasks.slots import Slots
from zoo.tasks.tag import Tag

B, T = 4, 5
LENGTHS = np.asarray([5, 1, 3, 2], np.int32)
PRESENT = np.asarray([1, 1, 0, 1], np.float32)  # the third row only fills up the batch
LABELS, TAGS = ("left", "right", "up"), ("O", "B-x", "I-x")


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def examples(seed=0):
    draw = np.random.default_rng(seed).integers
    return {
        "tokens": draw(0, 11, (B, T)).astype(np.int32),
        "lengths": LENGTHS,
        "present": PRESENT,
        "label": draw(0, 3, B).astype(np.int32),
        "tags": draw(0, 3, (B, T)).astype(np.int32),
    }


def log_softmax(x):
    return x - np.logaddexp.reduce(x, axis=-1, keepdims=True)


def picked(logp, targets):
    return np.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]


# --- what a batch holds ---------------------------------------------------------------------------


@pytest.mark.parametrize("task", [Classify(), Tag(), Slots()], ids=type)
def test_a_batch_gives_the_model_tokens_and_lengths_only(task):
    batch = task.batch(examples())
    assert set(batch) == {"inputs", "targets", "present"} and set(batch["inputs"]) == {"tokens", "lengths"}
    assert all(len(leaf) == B for leaf in jax.tree.leaves(batch))


def test_spelling_goes_to_the_model_where_examples_have_it():
    given = examples() | {"characters": np.zeros((B, T, 50), np.int32)}
    for task in (Classify(), Tag(), Slots()):
        assert task.batch(given)["inputs"]["characters"] is given["characters"]


# --- sums -----------------------------------------------------------------------------------------


def test_classification_sums_the_nats_of_the_rows_that_are_there():
    batch, logits = Classify().batch(examples()), random(B, 3)
    sums = Classify().loss(logits, lambda x: jnp.asarray(x), batch)
    want = -(picked(log_softmax(logits), batch["targets"]) * PRESENT).sum()
    np.testing.assert_allclose([sums["loss"], sums["nats"]], want, rtol=1e-6)
    assert sums["weight"] == sums["count"] == 3


def test_smoothing_and_class_weights_are_learned_from_and_not_reported():
    task, logits = Classify(label_smoothing=0.3, class_weights=(0.5, 2.0, 1.0)), random(B, 3)
    batch = task.batch(examples())
    sums = task.loss(logits, lambda x: jnp.asarray(x), batch)
    logp, targets = log_softmax(logits), batch["targets"]
    weights = PRESENT * np.asarray([0.5, 2.0, 1.0])[targets]
    smoothed = 0.7 * picked(logp, targets) + 0.3 * logp.mean(-1)
    np.testing.assert_allclose(sums["loss"], -(weights * smoothed).sum(), rtol=1e-6)
    np.testing.assert_allclose(sums["weight"], weights.sum(), rtol=1e-6)
    np.testing.assert_allclose(sums["nats"], -(PRESENT * picked(logp, targets)).sum(), rtol=1e-6)
    assert sums["count"] == 3


def test_tagging_sums_the_nats_of_the_words_that_are_there():
    batch, logits = Tag().batch(examples()), random(B, T, 3)
    sums = Tag().loss(logits, lambda x: PerToken(jnp.asarray(x)), batch)
    there = (np.arange(T) < LENGTHS[:, None]) * PRESENT[:, None]
    np.testing.assert_allclose(
        sums["loss"], -(picked(log_softmax(logits), batch["targets"]) * there).sum(), rtol=1e-6
    )
    assert sums["weight"] == 5 + 1 + 2


def test_tagging_with_a_chain_sums_the_chains_nats():
    batch, rest = Tag().batch(examples()), (random(3, 3), random(3), random(3))
    chain = Chain(random(B, T, 3), *rest)
    sums = Tag().loss(chain.emissions_BTC, lambda x: Chain(x, *rest), batch)
    np.testing.assert_allclose(
        sums["loss"], (chain.nats(batch["targets"], LENGTHS) * PRESENT).sum(), rtol=1e-6
    )


def test_a_row_that_fills_up_a_batch_costs_nothing_though_its_tag_is_forbidden():
    emissions = random(B, T, 3)
    forbidden, given = emissions.copy(), examples()
    np.put_along_axis(forbidden[2], given["tags"][2][:, None], -np.inf, axis=-1)
    for task in (Tag(), Slots()):
        sums = []
        for each in (emissions, forbidden):
            tags = PerToken(jnp.asarray(each))
            read = {"intent": jnp.zeros((B, 3)), "slots": tags} if isinstance(task, Slots) else tags
            sums.append(task.loss(None, lambda x, read=read: read, task.batch(given))["loss"])
        assert sums[0] == sums[1]


def test_intents_and_slots_are_added_row_by_row():
    task, batch = Slots(slot_weight=0.5), Slots().batch(examples())
    intent, slots = random(B, 3), random(B, T, 3, seed=1)
    read = {"intent": jnp.asarray(intent), "slots": PerToken(jnp.asarray(slots))}
    sums = task.loss(None, lambda x: read, batch)
    there = np.arange(T) < LENGTHS[:, None]
    words = -(picked(log_softmax(slots), batch["targets"]["tags"]) * there).sum(-1)
    rows = -picked(log_softmax(intent), batch["targets"]["label"]) + 0.5 * words / LENGTHS
    np.testing.assert_allclose(sums["loss"], (rows * PRESENT).sum(), rtol=1e-6)
    assert sums["weight"] == 3


@pytest.mark.parametrize("task", [Classify(label_smoothing=0.1), Tag(), Slots()], ids=type)
def test_rows_that_fill_up_a_batch_teach_nothing(task):
    kind = {Classify: ClassifierConfig, Tag: TaggerConfig, Slots: JointConfig}[type(task)]
    model, batch = model_of(kind(encoder=WORDS)), task.batch(examples())

    def loss(params, batch):
        x, _ = model.features(params, batch["inputs"])
        return task.loss(x, lambda x: model.readout_stored(params, x), batch)["loss"]

    def changed(leaf):
        return np.where(np.arange(B).reshape(-1, *[1] * (leaf.ndim - 1)) == 2, 0, leaf)

    gradient, params = jit(jax.grad(loss)), jit(model.init)(jax.random.key(0))
    other = task.batch(jax.tree.map(changed, examples()))
    jax.tree.map(np.testing.assert_array_equal, gradient(params, batch), gradient(params, other))


# --- what is reported -----------------------------------------------------------------------------


def test_classification_reports_the_rows_that_are_there():
    first = {"predicted": [0, 1, 1], "label": [0, 1, 0], "present": [1, 1, 0]}
    second = {"predicted": [0, 1, 1], "label": [0, 0, 1], "present": [1, 1, 1]}
    outputs = [{name: np.asarray(values) for name, values in part.items()} for part in (first, second)]
    sums = {"loss": 9.0, "weight": 2.0, "nats": 3.0, "count": 4.0}
    found = Classify().metrics(sums, outputs, SimpleNamespace(labels=("no", "yes")))
    # Five rows: predicted 0 1 0 1 1 for 0 1 0 0 1. F1 of "no" 2*2/(2+3), of "yes" 2*2/(3+2).
    assert found == {
        "eval_loss": 0.75,
        "accuracy": 0.8,
        "macro_f1": pytest.approx(0.8),
        "matthews": pytest.approx((2 * 2 - 0 * 1) / np.sqrt(2 * 3 * 2 * 3)),
    }
    assert "matthews" not in Classify().metrics(sums, outputs, SimpleNamespace(labels=LABELS))


def tag_outputs():
    """Two batches of different widths; the second row of the first only fills up."""
    return [
        {
            "predicted": np.asarray([[0, 1, 2], [1, 1, 1]]),
            "tags": np.asarray([[0, 1, 2], [0, 0, 0]]),
            "lengths": np.asarray([3, 3]),
            "present": np.asarray([1.0, 0.0]),
        },
        {
            "predicted": np.asarray([[1, 0, 0, 0], [1, 1, 0, 0]]),
            "tags": np.asarray([[1, 2, 0, 0], [1, 0, 1, 1]]),
            "lengths": np.asarray([2, 1]),
            "present": np.asarray([1.0, 1.0]),
        },
    ]


def test_tagging_reports_the_words_that_are_there():
    found = Tag().metrics({"loss": 3.0, "weight": 6.0}, tag_outputs(), SimpleNamespace(tags=TAGS))
    # Rows O B I (right), B O for B I, B (right): 5 words of 6, 2 entities of 3, 3 predicted.
    assert found == {
        "eval_loss": 0.5,
        "tag_accuracy": pytest.approx(5 / 6),
        "entity_precision": pytest.approx(2 / 3),
        "entity_recall": pytest.approx(2 / 3),
        "entity_f1": pytest.approx(2 / 3),
    }


def test_tags_that_name_no_entities_have_an_accuracy_only():
    data = SimpleNamespace(tags=("noun", "verb", "other"))
    assert set(Tag().metrics({"loss": 3.0, "weight": 6.0}, tag_outputs(), data)) == {
        "eval_loss",
        "tag_accuracy",
    }


def test_joint_metrics_count_an_utterance_that_is_wholly_right():
    outputs = [
        part | {"intent": np.asarray(intent), "label": np.asarray(label)}
        for part, intent, label in zip(tag_outputs(), ([1, 1], [2, 0]), ([1, 0], [2, 1]), strict=True)
    ]
    data = SimpleNamespace(labels=LABELS, tags=TAGS)
    found = Slots().metrics({"loss": 3.0, "weight": 3.0}, outputs, data)
    # Of three utterances the first is right, the second has a wrong tag, the third a wrong intent.
    assert found == {
        "eval_loss": 1.0,
        "intent_accuracy": pytest.approx(2 / 3),
        "tag_accuracy": pytest.approx(5 / 6),
        "sentence_accuracy": pytest.approx(1 / 3),
        "slot_f1": pytest.approx(2 / 3),
    }


# --- configurations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Classify(label_smoothing=1.0), "label_smoothing=1.0 must be"),
        (lambda: Classify(class_weights=(1.0, -1.0)), "class_weights: -1.0 must be"),
        (lambda: Classify(class_weights=(float("nan"),)), "class_weights: nan must be"),
        (lambda: Slots(slot_weight=-1.0), "slot_weight=-1.0 must be"),
    ],
)
def test_a_bad_field_is_one_line_with_its_value(make, message):
    with pytest.raises(ConfigError, match=f"^{message}[^\n]+$"):
        make()


def test_class_weights_of_another_number_of_labels_are_refused():
    task = Classify(class_weights=(1.0, 2.0))
    with pytest.raises(ConfigError, match="class_weights has 2 values for 3 labels"):
        task.loss(random(B, 3), lambda x: x, task.batch(examples()))


# --- learning -------------------------------------------------------------------------------------

# Rows of words 0 to 10. Words 0, 1 and 2 are keys, and only where the rule says so do they stand.
ROWS, LENGTH = 64, 6


def rows(seed=0):
    draw = np.random.default_rng(seed).integers
    lengths = draw(2, LENGTH + 1, ROWS).astype(np.int32)
    return {
        "tokens": draw(3, 11, (ROWS, LENGTH)).astype(np.int32),
        "lengths": lengths,
        "present": np.ones(ROWS, np.float32),
        "label": draw(0, 3, ROWS).astype(np.int32),
        "tags": np.zeros((ROWS, LENGTH), np.int32),
    }


def with_keys(place, seed=0):
    """Rows whose label is the key that stands at `place(lengths)`."""
    data = rows(seed)
    data["tokens"][np.arange(ROWS), place(data["lengths"])] = data["label"]
    return data


def learned(task, config, data, test=None, steps=80, learning_rate=0.05):
    """The task's metrics on `test` after `steps` of Adam on `data`."""
    model, batch, tx = model_of(config), task.batch(data), optax.adam(learning_rate)

    def loss(params, key):
        x, _ = model.features(params, batch["inputs"], train=True, rngs={"dropout": key})
        sums = task.loss(x, lambda x: model.readout_stored(params, x), batch)
        return sums["loss"] / sums["weight"]

    def step(carry, key):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    @jit
    def run(test):
        params = model.init(jax.random.key(0))
        keys = jax.random.split(jax.random.key(1), steps)
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), keys)
        x, _ = model.features(params, test["inputs"])
        sums = task.loss(x, lambda x: model.readout_stored(params, x), test)
        return sums, task.outputs(model, params, x, test)

    sums, outputs = jax.device_get(run(task.batch(test or data)))
    names = SimpleNamespace(labels=LABELS, tags=TAGS)
    return task.metrics({name: float(value) for name, value in sums.items()}, [outputs], names)


@pytest.mark.parametrize(
    "pooling, place",
    {
        "first": lambda lengths: 0,
        "last": lambda lengths: lengths - 1,
        "mean": lambda lengths: lengths // 2,
        "max": lambda lengths: lengths // 2,
        "attention": lambda lengths: lengths // 2,
    }.items(),
    ids=["first", "last", "mean", "max", "attention"],
)
def test_a_classifier_learns_which_key_stands_in_a_row(pooling, place):
    config = ClassifierConfig(
        num_classes=3, pooling=pooling, d_attention=8, d_hidden=0, dropout_rate=0.1, encoder=WORDS
    )
    found = learned(Classify(), config, with_keys(place), with_keys(place, seed=1))
    assert found["accuracy"] > 0.95 and found["eval_loss"] < 0.5


def test_a_pooling_that_looks_elsewhere_does_not_learn_it():
    config = ClassifierConfig(num_classes=3, pooling="first", d_hidden=0, encoder=WORDS)
    found = learned(Classify(), config, with_keys(lambda lengths: lengths - 1))
    assert found["accuracy"] < 0.7  # a guess is right at 1/3; eight first words and 64 rows give a few more


def alternating(seed=0):
    """Tags 1 2 1 2 ... or 2 1 2 1 ..., and only the first word, 1 or 2, says which."""
    data = rows(seed)
    start = np.random.default_rng(seed).integers(1, 3, (ROWS, 1))
    data["tags"] = (1 + (start + 1 + np.arange(LENGTH)) % 2).astype(np.int32)
    data["tokens"] = np.where(np.arange(LENGTH) == 0, data["tags"], 5).astype(np.int32)
    return data


def test_a_crf_learns_tags_that_only_their_neighbours_tell():
    crf, softmax = (
        learned(Tag(), TaggerConfig(num_tags=3, decoder=decoder, encoder=WORDS), alternating())
        for decoder in ("crf", "softmax")
    )
    assert crf["tag_accuracy"] > 0.99 and crf["eval_loss"] < 0.05
    assert softmax["tag_accuracy"] < 0.8 and softmax["eval_loss"] > 0.4


def test_a_softmax_tagger_learns_them_over_an_encoder_that_sees_the_neighbours():
    config = TaggerConfig(num_tags=3, decoder="softmax", encoder=LSTM)
    found = learned(Tag(), config, alternating(), alternating(seed=1))
    assert found["tag_accuracy"] > 0.99


@pytest.mark.parametrize("decoder", ["softmax", "crf"])
def test_a_joint_model_learns_intents_and_slots(decoder):
    data, test = (with_keys(lambda lengths: lengths // 2, seed) for seed in (0, 1))
    for part in (data, test):
        part["tags"] = (part["tokens"] % 3).astype(np.int32)
    config = JointConfig(num_classes=3, num_tags=3, decoder=decoder, encoder=LSTM)
    found = learned(Slots(), config, data, test)
    assert found["sentence_accuracy"] > 0.9 and found["slot_f1"] > 0.9 and found["intent_accuracy"] > 0.95
