"""The sequence-to-sequence task: its loss, its texts and scores, and that it learns."""

import functools
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import assert_close, jit, parameters

from zoo import optim, schedules
from zoo.data.examples.record import Record
from zoo.data.tokenizers.word import BEGIN, END, EXAMPLES, WordTokenizer
from zoo.errors import ConfigError, DataError, UserError
from zoo.inference.beam import Beam, beam_search
from zoo.inference.translate import translate
from zoo.models.pure import Model
from zoo.models.seq2seq import Seq2Seq as Module
from zoo.models.seq2seq import Seq2SeqConfig
from zoo.step import TrainStep
from zoo.tasks.seq2seq import Seq2Seq

WORDS = "a b c d e f".split()
TOKENIZER = WordTokenizer.of(WORDS, EXAMPLES + (BEGIN, END))
V, FIRST, LONGEST, PAIRS = TOKENIZER.vocab_size, 4, 5, 64


def make(**changes) -> Model:
    sizes = {"d_model": 48, "d_state": 48, "num_encoder_layers": 1, "num_decoder_layers": 1}
    fields = sizes | {"cell": "gru", "direction": "both", "dropout_rate": 0.0, "init_scale": 0.0}
    config = Seq2SeqConfig(**({"vocab_size": V} | fields | changes))
    return Model(config, Module(config))


def examples(seed, *, reverse, rows=PAIRS) -> dict:
    """Rows of random words, and the same words or the same backwards."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LONGEST + 1, rows).astype(np.int32)
    source = np.zeros((rows, LONGEST), np.int32)
    tokens = np.zeros((rows, LONGEST + 2), np.int32)
    for b, length in enumerate(lengths):
        words = rng.integers(FIRST, V, length)
        source[b, :length] = words
        target = words[::-1] if reverse else words
        tokens[b, : length + 2] = [TOKENIZER.bos, *target, TOKENIZER.eot]
    return {
        "source": source,
        "source_lengths": lengths,
        "tokens": tokens,
        "weights": (np.arange(LONGEST + 1) <= lengths[:, None]).astype(np.float32),
        "present": np.ones(rows, np.float32),
        "index": np.arange(rows, dtype=np.int32),
    }


def dataset_of(rows: dict):
    """What metrics() reads of a dataset."""
    records = []
    for source, tokens, length in zip(rows["source"], rows["tokens"], rows["source_lengths"], strict=True):
        fields = {"source": TOKENIZER.decode(source[:length]), "target": TOKENIZER.decode(tokens)}
        records.append(Record(fields, "made up"))
    return SimpleNamespace(tokenizer=TOKENIZER, records=tuple(records))


# --- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reverse, fields",
    [
        (True, {"attention": "general", "feeding": "none"}),
        pytest.param(False, {"attention": "additive", "feeding": "context"}, marks=pytest.mark.long),
    ],
    ids=["reverse", "copy"],
)
def test_the_order_of_words_is_learned_to_the_last_pair(reverse, fields):
    model, task = make(**fields), Seq2Seq(end=TOKENIZER.eot, max_new_tokens=LONGEST + 1)
    tx = optim.transform(
        optim.AdamW(learning_rate=1e-2, weight_decay=0.0),
        schedules.Cosine(warmup_steps=10),
        250,
        model.abstract(),
    )
    parts = TrainStep(model, task, tx, clip_norm=1.0)
    state, step = jit(parts.init)(), jit(parts.step)
    for i in range(250):
        state, numbers = step(state, task.batch(examples(i, reverse=reverse)))
    rows = examples(10**6, reverse=reverse, rows=256)
    sums, outputs, _ = jit(parts.evaluate)(state.params, task.batch(rows))
    found = task.metrics(jax.device_get(sums), [jax.device_get(outputs)], dataset_of(rows))
    assert found["exact_match"] == 1.0
    assert found["eval_loss"] < 0.05
    texts = [record.fields["source"] for record in dataset_of(rows).records[:9]]
    wanted = [record.fields["target"] for record in dataset_of(rows).records[:9]]
    assert translate(model, state.params, TOKENIZER, texts, max_new_tokens=6, batch_size=4) == wanted


# --- loss -----------------------------------------------------------------------------------------


def sums_of(task, model, params, batch):
    x_BTF, _ = model.features(params, batch["inputs"])
    return jax.device_get(task.loss(x_BTF, functools.partial(model.readout_stored, params), batch))


def test_the_loss_is_that_of_the_targets_that_count():
    model, rows = make(), examples(0, reverse=False, rows=6)
    rows["weights"][4:] = 0  # rows that only fill up a batch
    params, batch = parameters(model), Seq2Seq().batch(rows)
    logp = np.asarray(jax.nn.log_softmax(model.apply(params, batch["inputs"])), np.float64)
    nats = [-logp[b, t, batch["targets"][b, t]] for b, t in zip(*np.nonzero(rows["weights"]), strict=True)]
    sums = sums_of(Seq2Seq(), model, params, batch)
    assert_close([sums["loss"], sums["nats"], sums["weight"]], [sum(nats), sum(nats), len(nats)])


def test_a_smoothed_loss_spreads_over_the_words_that_there_are():
    model, rows = make(), examples(0, reverse=False, rows=6)
    params, batch = parameters(model), Seq2Seq().batch(rows)
    logp = np.asarray(jax.nn.log_softmax(model.apply(params, batch["inputs"])), np.float64)
    learned = 0.9 * np.eye(V)[batch["targets"]] + 0.1 / V
    smooth = -((learned * logp).sum(-1) * rows["weights"]).sum()
    sums = sums_of(Seq2Seq(label_smoothing=0.1), model, params, batch)
    assert_close([sums["loss"]], [smooth])
    assert_close([sums["nats"]], [sums_of(Seq2Seq(), model, params, batch)["nats"]])


# --- texts and scores -----------------------------------------------------------------------------


def written(texts, present=None, index=None):
    """Outputs of a batch that wrote these texts."""
    hypothesis = np.full((len(texts), 8), TOKENIZER.eot, np.int32)
    lengths = np.array([len(text.split()) for text in texts], np.int32)
    for row, text in zip(hypothesis, texts, strict=True):
        words = TOKENIZER.encode(text)
        row[: len(words)] = words
    return {
        "hypothesis": hypothesis,
        "length": lengths,
        "index": np.arange(len(texts)) if index is None else np.asarray(index),
        "present": np.ones(len(texts)) if present is None else np.asarray(present),
    }


def test_scores_are_of_the_rows_that_are_present_against_every_reference():
    fields = [{"target": "a b c d"}, {"target": "b", "references": ("b", "c  d e f")}, {"target": "f"}]
    records = tuple(Record({"source": "a", **each}, "made up") for each in fields)
    dataset = SimpleNamespace(tokenizer=TOKENIZER, records=records)
    outputs = [
        written(["c d e f", "a b c"], index=[1, 0]),
        written(["e", "a"], index=[2, -1], present=[1, 0]),
    ]
    task = Seq2Seq(scores=("rouge",))
    found = task.metrics({"nats": 8.0, "weight": 4.0, "loss": 9.0}, outputs, dataset)
    assert found["eval_loss"] == 2.0 and math.isclose(found["perplexity"], math.exp(2.0))
    assert math.isclose(found["exact_match"], 1 / 3)
    assert math.isclose(found["rouge_1"], (1 + 2 * 3 / 7 + 0) / 3)  # 3 of 3 words, 3 of 4


def test_bleu_is_counted_on_whole_words():
    pytest.importorskip("sacrebleu")
    tokenizer = WordTokenizer.of("pul@@ ley sys@@ tem a the".split(), EXAMPLES + (BEGIN, END))
    record = Record({"source": "a", "target": "the pul@@ ley sys@@ tem a the"}, "made up")
    dataset = SimpleNamespace(tokenizer=tokenizer, records=(record,))
    words = tokenizer.encode("the pul@@ ley sys@@ tem a the")
    outputs = [{"hypothesis": words[None], "length": [len(words)], "index": [0], "present": [1.0]}]
    task = Seq2Seq(scores=("tokenized_bleu", "bleu", "chrf"))
    found = task.metrics({"nats": 1.0, "weight": 1.0}, outputs, dataset)
    assert found["exact_match"] == 1.0
    for name in task.scores:
        assert math.isclose(found[name], 100.0, rel_tol=1e-6)


def test_outputs_are_what_the_beam_finds():
    model, rows = make(), examples(0, reverse=False, rows=6)
    task = Seq2Seq(end=TOKENIZER.eot, max_new_tokens=7, beam=Beam(size=3, length_penalty=1.0))
    params, batch = parameters(model), task.batch(rows)
    outputs = task.outputs(model, params, None, batch)
    begun = batch["inputs"] | {"tokens": np.full((6, 1), TOKENIZER.bos, np.int32)}
    found = beam_search(model, params, begun, max_new_tokens=7, end=TOKENIZER.eot, beam=task.beam)
    np.testing.assert_array_equal(outputs["hypothesis"], found.tokens_BCT[:, 0])
    np.testing.assert_array_equal(outputs["length"], found.lengths_BC[:, 0])
    np.testing.assert_array_equal(outputs["index"], rows["index"])


def test_without_texts_only_the_loss_is_measured():
    task = Seq2Seq(max_new_tokens=0)
    assert task.outputs(None, None, None, {}) == {}
    assert set(task.metrics({"nats": 1.0, "weight": 2.0}, [], None)) == {"eval_loss", "perplexity"}


def test_a_task_without_an_end_cannot_write():
    with pytest.raises(ConfigError, match="end=-1 is no token"):
        Seq2Seq().outputs(None, None, None, {})


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"max_new_tokens": -1}, "max_new_tokens=-1"),
        ({"scores": ("meteor",)}, "'meteor' is none of bleu"),
        ({"scores": ("bleu",), "max_new_tokens": 0}, "scores=bleu are of texts"),
    ],
)
def test_a_task_that_cannot_be_meant_is_one_line(fields, words):
    with pytest.raises(ConfigError, match=words):
        Seq2Seq(**fields)


# --- translate ------------------------------------------------------------------------------------


def test_translations_do_not_depend_on_the_company():
    model = make()
    params = jax.tree.map(lambda x: 3 * x, parameters(model))
    params["bias"][TOKENIZER.eot] -= 9.0  # longer texts
    texts = ["a b c d e", "f", "c d", "b b b a", "e"]
    together = translate(model, params, TOKENIZER, texts, max_new_tokens=5, batch_size=2)
    assert together == [translate(model, params, TOKENIZER, [text], max_new_tokens=5)[0] for text in texts]
    assert len(set(together)) > 2 and translate(model, params, TOKENIZER, []) == []


def test_marks_stand_where_the_data_has_them():
    model = make()
    params = jax.tree.map(lambda x: 3 * x, parameters(model))
    params["bias"][TOKENIZER.eot] -= 9.0
    source = jnp.array([[TOKENIZER.bos, *TOKENIZER.encode("a b"), TOKENIZER.eot]])
    inputs = {"source": source, "tokens": jnp.array([[TOKENIZER.bos]])}
    found = beam_search(model, params, inputs, max_new_tokens=5, end=TOKENIZER.eot, beam=Beam(size=1))
    want = TOKENIZER.decode(np.asarray(found.tokens_BCT[0, 0, : found.lengths_BC[0, 0]]))
    got = translate(model, params, TOKENIZER, ["a b"], max_new_tokens=5, beam=Beam(size=1), wrap="both")
    assert got == [want] and want
    assert got != translate(model, params, TOKENIZER, ["a b"], max_new_tokens=5, beam=Beam(size=1))


def test_texts_that_cannot_be_translated_are_refused():
    with pytest.raises(DataError, match="^text 2: the source ' ' is empty"):
        translate(make(), {}, TOKENIZER, ["a", " "])
    without_marks = WordTokenizer.of(WORDS, EXAMPLES)
    with pytest.raises(UserError, match="tokenizer without marks"):
        translate(make(), {}, without_marks, ["a"])
