"""Every task trains: the same on a mesh, exact after a stop, and with the metrics it promises.

One tiny model for each task, on examples made from a rule; test_step.py and test_checkpoint.py have the
long list of promises, for language models.
"""

import functools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from training import ROWS, compiled, eight_devices, initial, mesh_of

from zoo import models, optim, schedules, sharding
from zoo.checkpoint import Checkpoints
from zoo.evaluation import Evaluation
from zoo.feed import place_rows
from zoo.models.classifier import ClassifierConfig
from zoo.models.embedder import EmbedderConfig
from zoo.models.joint import JointConfig
from zoo.models.rnn import RNNConfig
from zoo.models.seq2seq import Seq2SeqConfig
from zoo.models.tagger import TaggerConfig
from zoo.models.word_vectors import WordVectorsConfig
from zoo.step import TrainStep
from zoo.tasks import Choice, Classify, Contrastive, Regress, Seq2Seq, SkipGram, Slots, Tag
from zoo.tree import named_leaves

V, T, CLASSES, TAGS = 65, 8, 4, 8
ENCODER = RNNConfig(
    vocab_size=V, direction="both", num_layers=1, d_model=32, d_state=16, dropout_rate=0.1, init_scale=0.3
)


def words_of(random):
    lengths = random.integers(2, T + 1, ROWS)
    tokens = random.integers(5, V, (ROWS, T)) * (np.arange(T) < lengths[:, None])
    return tokens.astype(np.int32), lengths.astype(np.int32)


def labelled(step: int) -> dict:
    """Texts with the class of their first word, and words with tags of their own."""
    tokens, lengths = words_of(np.random.default_rng(step))
    return {
        "tokens": tokens,
        "lengths": lengths,
        "label": (tokens[:, 0] % CLASSES).astype(np.int32),
        "tags": (tokens % TAGS).astype(np.int32),
        "present": (np.arange(ROWS) < ROWS - 1).astype(np.float32),
    }


def scored(step: int) -> dict:
    """Texts with the share of their first word as a score."""
    examples = labelled(step)
    return examples | {"score": (examples["tokens"][:, 0] / V).astype(np.float32)}


def groups(step: int) -> dict:
    """Pairs of texts that begin with the same word, of which the first is the right choice where it is even;
    some are equal to those of other pairs."""
    random = np.random.default_rng(step)
    (first, first_lengths), (second, second_lengths) = words_of(random), words_of(random)
    second[:, 0] = first[:, 0]
    first[1], first_lengths[1] = first[0], first_lengths[0]
    second[3], second_lengths[3] = second[2], second_lengths[2]
    tokens = np.stack([first, second], axis=1)
    same = np.unique(tokens.reshape(2 * ROWS, T), axis=0, return_inverse=True)[1].reshape(ROWS, 2)
    return {
        "tokens": tokens,
        "lengths": np.stack([first_lengths, second_lengths], axis=1),
        "texts": same.astype(np.int32),
        "sizes": np.full(ROWS, 2, np.int32),
        "answer": (first[:, 0] % 2).astype(np.int32),
        "present": (np.arange(ROWS) < ROWS - 1).astype(np.float32),
    }


def pairs(step: int) -> dict:
    """Words, and the same words backwards between <s> 2 and </s> 3."""
    source, lengths = words_of(np.random.default_rng(step))
    target = np.zeros((ROWS, T + 2), np.int32)
    for row, length in enumerate(lengths):
        target[row, : length + 2] = [2, *source[row, :length][::-1], 3]
    return {
        "source": source,
        "source_lengths": lengths,
        "tokens": target,
        "weights": (np.arange(T + 1) <= lengths[:, None]).astype(np.float32),
        "index": np.arange(ROWS, dtype=np.int32),
        "present": (np.arange(ROWS) < ROWS - 1).astype(np.float32),
    }


def stretches(step: int) -> dict:
    """Running words in which each is followed by the next number."""
    random, window = np.random.default_rng(step), 2
    tokens = (random.integers(0, V, (ROWS, 1)) + np.arange(T + 2 * window)) % V
    return {
        "tokens": tokens.astype(np.int32),
        "segments": np.ones_like(tokens, np.int32),
        "windows": random.integers(1, window + 1, (ROWS, T)).astype(np.int32),
        "weights": np.ones((ROWS, T), np.float32),
        "negatives": random.integers(0, V, (ROWS, 6)).astype(np.int32),
    }


def rows_of(examples: dict, rows: range) -> dict:
    return jax.tree.map(lambda x: x[rows.start : rows.stop], examples)


@dataclass(frozen=True)
class Case:
    name: str
    config: Any
    task: Any
    examples: Any
    metrics: frozenset


CASES = [
    Case(
        *("classify", ClassifierConfig(ENCODER, 0.1, CLASSES, d_attention=16, d_hidden=16), Classify()),
        *(labelled, frozenset({"eval_loss", "accuracy", "macro_f1"})),
    ),
    Case(
        *("regress", ClassifierConfig(ENCODER, 0.1, 1, pooling="mean", d_hidden=16), Regress()),
        *(scored, frozenset({"eval_loss", "pearson", "spearman"})),
    ),
    Case(
        *("choice", ClassifierConfig(ENCODER, 0.1, 1, pooling="mean", d_hidden=16), Choice()),
        *(groups, frozenset({"eval_loss", "accuracy"})),
    ),
    Case(
        *("contrastive", EmbedderConfig(ENCODER, 0.1), Contrastive(backward_weight=1.0)),
        *(groups, frozenset({"eval_loss", "recall_at_1", "recall_at_10", "mrr", "ndcg_at_10"})),
    ),
    Case(
        *("tag", TaggerConfig(ENCODER, 0.1, TAGS), Tag()),
        *(labelled, frozenset({"eval_loss", "tag_accuracy"})),
    ),
    Case(
        *("slots", JointConfig(ENCODER, 0.1, CLASSES, TAGS), Slots()),
        *(labelled, frozenset({"eval_loss", "intent_accuracy", "tag_accuracy", "sentence_accuracy"})),
    ),
    Case(
        "seq2seq",
        Seq2SeqConfig(
            vocab_size=V,
            d_model=32,
            d_state=32,
            num_encoder_layers=1,
            num_decoder_layers=1,
            dropout_rate=0.1,
            init_scale=0.3,
        ),
        *(Seq2Seq(end=3, max_new_tokens=T), pairs, frozenset({"eval_loss", "perplexity", "exact_match"})),
    ),
    Case(
        *("skip_gram", WordVectorsConfig(V, 32), SkipGram()),
        *(stretches, frozenset({"eval_loss"})),
    ),
]
each_task = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def parts_of(case) -> TrainStep:
    return parts_named(case.name)


@functools.cache
def parts_named(name: str) -> TrainStep:
    """The same object at each call, so that its step is compiled once."""
    case = next(case for case in CASES if case.name == name)
    model = models.create(case.config)
    tx = optim.transform(optim.AdamW(learning_rate=1e-2), schedules.Constant(), 10, model.abstract())
    return TrainStep(model, case.task, tx, seed=3, clip_norm=1.0)


def train(case, mesh, state=None, *, start=0, stop=4):
    """(state, losses) after the steps from `start` to `stop`."""
    parts, losses = parts_of(case), []
    with jax.set_mesh(mesh):
        state = initial(parts, mesh) if state is None else state
        step = compiled(parts, mesh)
        for number in range(start, stop):
            examples = case.task.batch(case.examples(number % 2))
            batch = place_rows(functools.partial(rows_of, examples), ROWS, mesh)
            state, numbers = step(state, batch)
            losses.append(float(numbers["loss"]))
    return state, losses


@each_task
@eight_devices
def test_losses_are_the_same_on_a_mesh_and_go_down(case):
    _, alone = train(case, mesh_of(), stop=8)
    _, spread = train(case, mesh_of((2, 2, 2)), stop=3)
    np.testing.assert_allclose(spread, alone[:3], rtol=1e-5)
    assert alone[-1] < alone[0]


@each_task
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(case, tmp_path):
    parts, mesh = parts_of(case), mesh_of()
    whole, losses = train(case, mesh)
    state, before = train(case, mesh, stop=2)
    with jax.set_mesh(mesh), Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(state, parts.specs(), {})
    with jax.set_mesh(mesh), Checkpoints(tmp_path) as checkpoints:
        state = checkpoints.restore(parts.specs(), mesh, pytest.fail)
    state, after = train(case, mesh, state, start=2)
    assert before + after == losses
    for name, array in named_leaves(whole).items():
        np.testing.assert_array_equal(named_leaves(state)[name], array)


class Examples(SimpleNamespace):
    """A data set of three evaluation batches."""

    cfg = SimpleNamespace(batch_size=ROWS, max_target_length=T + 2)
    num_eval_batches, carried_rows = 3, 0
    tokenizer = SimpleNamespace(decode=lambda ids: " ".join(map(str, ids)))
    records = [SimpleNamespace(fields={"target": "5 6 7"})] * ROWS
    labels, tags = tuple(map(str, range(CLASSES))), tuple(map(str, range(TAGS)))

    def eval_batch(self, i, rows):
        return rows_of(self.examples(100 + i), rows)


@each_task
@eight_devices
def test_an_evaluation_has_its_metrics_the_same_on_every_mesh(case):
    state, _ = train(case, mesh_of(), stop=1)
    found = []
    for mesh in (mesh_of(), mesh_of((2, 2, 2))):
        with jax.set_mesh(mesh):
            params = jax.device_put(
                jax.tree.map(np.asarray, state.params),
                sharding.shardings(parts_of(case).model.abstract(), mesh),
            )
            found.append(Evaluation(parts_of(case), Examples(examples=case.examples), mesh)(params))
    assert found[0].keys() >= case.metrics
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-5, err_msg=name)
