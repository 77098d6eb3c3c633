"""train.py, eval, predict and embed on texts that are compared, scored and chosen."""

import functools
import io
import json
import sys

import jax
import numpy as np
import pytest
from families import features
from families import logits as apply
from test_train_examples import refused, verb, write

import train
import zoo
from zoo.data.examples.config import ExamplesConfig
from zoo.data.examples.one_pass import one_pass
from zoo.data.examples.record import Record
from zoo.errors import ConfigError, DataError, UserError
from zoo.inference.embed import batches, embed, shape_of
from zoo.inference.predict import predict, predictions
from zoo.models.bert import BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.models.embedder import EmbedderConfig
from zoo.models.rnn import RNNConfig
from zoo.models.word_vectors import WordVectorsConfig
from zoo.tasks import Regress

SHORT = (
    "--steps 3 --save-every 3 --log-every 3 --data.batch-size 8 --data.bucket 0 --data.max-length 20".split()
)
SMALL = "--model.encoder.d-model 8 --model.encoder.num-layers 1 --model.encoder.num-heads 2".split()
WORDS = "--data.tokenizer word --data.vocab-size 0 --schedule.warmup-steps 1".split()
FEW = 27


def text(i: int) -> str:
    return f"a {'good' if i % 2 else 'bad'} one number {i} " + "so " * (i % 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a kind's finished run, and the file of its validation part."""

    @functools.cache
    def of(kind):
        folder = tmp_path_factory.mktemp(kind)
        rows = {
            "matches": [{"first": text(i), "second": f"of {text(i)}"} for i in range(FEW)],
            "choice": [
                {"question": text(i), "choices": [text(i), text(i + 1), "no"][: 2 + i % 2], "answer": i % 2}
                for i in range(FEW)
            ],
        }[kind]
        for part in ("train", "valid"):
            write(folder / f"{part}.jsonl", map(json.dumps, rows))
        # Multiple choice has the head that BERT has for a score.
        choice = "--task choice --data.kind choice --data.vocab-path= --model.d-hidden 8".split()
        recipe, *more = ["similarity_stdlib"] if kind == "matches" else ["bert_stsb", *choice]
        where = ["--data.path", str(folder), "--runs", str(folder), "--name", "run"]
        assert train.main([recipe, *where, *SHORT, *SMALL, *WORDS, *more]) == 0
        return folder / "run", folder / "valid.jsonl"

    return of


METRICS = {
    "matches": ["recall_at_1", "recall_at_10", "mrr", "ndcg_at_10"],
    "choice": ["accuracy"],
}


@pytest.mark.parametrize("kind", ["matches", pytest.param("choice", marks=pytest.mark.long)])
def test_eval_finds_the_metrics_of_a_run_again_and_predict_says_what_they_count(run, capsys, kind):
    folder, file = run(kind)
    result = json.loads((folder / "result.json").read_text())
    lines, found = verb(capsys, "predict", folder, file)
    said, rows = [json.loads(line) for line in lines], list(map(json.loads, file.read_text().splitlines()))
    _, metrics = verb(capsys, "eval", folder, file)
    for name in METRICS[kind]:
        assert metrics[name] == pytest.approx(result[name], abs=1e-6), name
    assert found["examples"] == len(said) == FEW
    if kind == "matches":
        assert result["chance_recall_at_1"] == 1 / len({row["second"] for row in rows})
        vectors = embedded(folder, [text for row in rows for text in row.values()]).reshape(FEW, 2, -1)
        for answer, (first, second) in zip(said, vectors, strict=True):
            assert answer["similarity"] == pytest.approx(float(first @ second), abs=2e-6)
    if kind == "choice":
        right = sum(answer["answer"] == row["answer"] for answer, row in zip(said, rows, strict=True))
        assert right / FEW == pytest.approx(metrics["accuracy"])
        assert all(
            1 / len(row["choices"]) <= answer["probability"] <= 1
            for answer, row in zip(said, rows, strict=True)
        )
        (alone,) = predict(folder, [{"question": rows[0]["question"], "choices": rows[0]["choices"]}])
        assert alone["answer"] == said[0]["answer"]


def embedded(folder, texts, **settings):
    return embed(*zoo.from_pretrained(folder), texts, max_length=20, **settings)


def test_embed_writes_the_texts_in_their_order(run, capsys, tmp_path, monkeypatch):
    folder, _ = run("matches")
    texts = [text(i) for i in range(13)]
    want = embedded(folder, texts)
    write(tmp_path / "texts.txt", texts)
    write(tmp_path / "texts.tsv", ["id\tsaid", *(f"{i}\t{each}" for i, each in enumerate(texts))])
    _, found = verb(capsys, "embed", folder, tmp_path / "texts.txt", "--out", tmp_path / "texts.npy")
    assert (found["count"], found["width"]) == want.shape == (13, 8) and found["sentences_per_s"] > 0
    np.testing.assert_array_equal(np.load(tmp_path / "texts.npy"), want)
    verb(capsys, "embed", folder, tmp_path / "texts.tsv", "--column", "said", "--out", tmp_path / "t.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == texts
    np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], np.float32), want)
    said = [texts[0], f"{texts[1]}\u2028{texts[2]}"]  # what ends a line is what ends one in a file
    raw = "".join(f"{each}\n" for each in said).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    lines, found = verb(capsys, "embed", folder, "-")
    assert [json.loads(line)["text"] for line in lines] == said and found["count"] == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n")))
    code, error = refused(capsys, "embed", folder, "-")
    assert code == 3 and "standard input: byte 3 (0xe9) is not UTF-8" in error


@pytest.mark.parametrize(
    ("lines", "options", "code", "said"),
    [
        (["a", "", "b"], [], 3, "new.txt:2: is blank"),
        ([], [], 3, "new.txt: has no text"),
        (None, [], 3, "new.txt: no such file"),
        (["a"], ["--out", "vectors.txt"], 2, "the name ends in none of .npy, .jsonl"),
        (["a"], ["--column", "text"], 2, "has no columns"),
        (["a"], ["--pooling", "meen"], 2, "pooling='meen' is none of mean"),
        (["a"], ["--wrap", "all"], 2, "wrap='all' is none of none, end, both"),
        (["a"], ["--wrap", "both"], 2, "needs a tokenizer with marks"),
    ],
)
def test_what_embed_cannot_do_is_one_line(run, capsys, tmp_path, lines, options, code, said):
    if lines is not None:
        write(tmp_path / "new.txt", lines)
    found, err = refused(capsys, "embed", run("matches")[0], tmp_path / "new.txt", *options)
    assert found == code and said in err


def test_predict_says_a_score_of_each_text_in_their_order():
    records = [Record({"text": line}, f"made:{i}") for i, line in enumerate(TEXTS)]
    cfg = ExamplesConfig(kind="score", tokenizer="word", max_length=12, batch_size=4, bucket=0)
    model = zoo.create(ClassifierConfig(BERT, num_classes=1, pooling="mean", d_hidden=0))
    params = made(model.config)[1]
    found = predictions(model, params, Regress(), one_pass(records, Numbers(), (), (), cfg))
    for record, answer in zip(records, found, strict=True):
        tokens_T = Numbers().encode(record.fields["text"])[:12]
        alone = apply(model, params, tokens_T[None])[0, 0]
        assert answer == {**record.fields, "score": pytest.approx(float(alone), abs=2e-6)}


# --- any encoder ----------------------------------------------------------------------------------


class Numbers:
    """A tokenizer of texts that are numbers."""

    name, bos, eot = "numbers", 1, 2
    digest, vocab_size = "numbers", 50

    def encode(self, text):
        return np.array([int(word) for word in text.split()], np.int32)


TEXTS = [" ".join(str(3 + (i * 7 + t) % 40) for t in range(1 + i * 5 % 13)) for i in range(9)]
BERT = BERTConfig(vocab_size=50, max_length=12, num_layers=1, num_heads=2, d_model=8, dropout_rate=0.0)
GRU = RNNConfig(
    *(50, "gru"), direction="both", num_layers=1, d_model=8, d_state=8, dropout_rate=0.0, init_scale=0.5
)


@functools.cache
def made(config):
    model = zoo.create(config)
    random = np.random.default_rng(0)
    return model, jax.tree.map(
        lambda spec: (0.4 * random.standard_normal(spec.shape)).astype(np.float32), model.abstract()
    )


@pytest.mark.parametrize("config", [EmbedderConfig(BERT), GRU], ids=["BERT", "GRU"])
def test_neither_order_nor_padding_nor_what_shares_a_batch_changes_an_embedding(config):
    """Matrix products of other shapes add up in another order: 6e-8 a rounding, of vectors of length 1."""
    model, params = made(config)
    whole = embed(model, params, Numbers(), TEXTS, wrap="both", max_length=12)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = embed(model, params, Numbers(), [TEXTS[i] for i in order], wrap="both", max_length=12)
    np.testing.assert_allclose(shuffled, whole[order], atol=1e-6)
    small = embed(model, params, Numbers(), TEXTS, wrap="both", max_length=12, batch_tokens=24)
    np.testing.assert_allclose(small, whole, atol=1e-6)
    alone = embed(model, params, Numbers(), [TEXTS[3]], wrap="both", max_length=12)
    np.testing.assert_allclose(alone[0], whole[3], atol=1e-6)
    if "embed" in model.traits:
        tokens_BT = np.array([[1, *Numbers().encode(TEXTS[3]), 2]])
        np.testing.assert_allclose(apply(model, params, tokens_BT)[0], whole[3], atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_the_features_of_a_language_model_are_pooled(pooling):
    model, params = made(BERT)
    got = embed(model, params, Numbers(), TEXTS[1:3], pooling=pooling, normalize="none", max_length=12)
    for line, row in zip(TEXTS[1:3], got, strict=True):
        x_TD = np.asarray(features(model, params, Numbers().encode(line)[None, :12])[0])
        np.testing.assert_allclose(row, getattr(x_TD, pooling)(0), rtol=1e-4, atol=1e-5)


def test_texts_that_cannot_be_embedded_are_refused():
    model, params = made(BERT)
    with pytest.raises(DataError, match="^text 2 is empty: ' '"):
        embed(model, params, Numbers(), ["4", " "])
    with pytest.raises(ConfigError, match="max_length=2 has no room"):
        embed(model, params, Numbers(), ["4"], wrap="both", max_length=2)
    with pytest.raises(UserError, match="WordVectorsConfig has no features of a text"):
        embed(*made(WordVectorsConfig(50, 8)), Numbers(), ["4"])


def test_rows_have_few_lengths_that_are_little_longer_than_their_texts():
    shapes = [shape_of(length, 500) for length in range(1, 501)]
    assert len(set(shapes)) == 25 and shapes[-1] == 500
    assert all(n <= shape <= max(8, 1.25 * n) for n, shape in enumerate(shapes, 1))


def test_a_batch_takes_the_next_shorter_texts_whatever_their_length_is_padded_to():
    lengths = np.random.default_rng(0).permutation(np.repeat(np.arange(5, 41), 8))
    rows = [np.full(length, i + 1, np.int32) for i, length in enumerate(lengths)]
    made = list(batches(rows, longest=64, batch_tokens=256))
    seen = np.concatenate([numbers_B for numbers_B, _, _ in made])
    assert sorted(seen[seen >= 0]) == list(range(len(rows)))
    for numbers_B, tokens_BT, lengths_B in made:
        assert tokens_BT.size <= 256
        for number, tokens_T, length in zip(numbers_B, tokens_BT, lengths_B, strict=True):
            expected = rows[number] if number >= 0 else [0]
            assert length == len(expected) and (tokens_T[:length] == expected).all()
            assert not tokens_T[length:].any()
    padded = sum(tokens_BT.size for _, tokens_BT, _ in made)
    assert padded < 1.2 * lengths.sum()  # 1.5 and more where a batch holds one padded length only
