"""Several texts in an example: what a group of rows holds, scores, answers, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from zoo.data.examples.example_set import ExamplesConfig, load_examples, make_examples
from zoo.data.examples.majority import guess_scores
from zoo.data.examples.record import Record
from zoo.data.examples.records import read_file, read_inputs, read_records
from zoo.data.examples.stdlib_records import described, summarised
from zoo.data.files import Document
from zoo.errors import DataError
from zoo.scores import spearman

STSB = Path(__file__).parents[2] / "shared" / "data" / "glue-stsb"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def words(i: int, length: int) -> str:
    return " ".join([f"id{i}", *["w"] * (length - 1)])


def records(kind: str, count: int = 11) -> tuple[Record, ...]:
    """Texts whose first word names them; of every kind, lengths go up and down."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        texts = [words(10 * i + g, int(rng.integers(1, 12))) for g in range(4)]
        fields = {
            "similarity": {"first": texts[0], "second": texts[1], "score": f"{i / 4:.2f}"},
            "matches": {"first": texts[0], "second": texts[1]},
            "triplets": {"anchor": texts[0], "positive": texts[1], "negative": texts[2]},
            "choice": {"question": texts[3], "choices": tuple(texts[: 2 + i % 2]), "answer": str(i % 2)},
            "score": {"text": texts[0], "text_pair": texts[1], "score": str(i)},
        }[kind]
        made.append(Record(fields, f"made:{i}"))
    return tuple(made)


def dataset(kind, **settings):
    parts = {"train": records(kind), "valid": records(kind)}
    return make_examples(parts, ExamplesConfig(kind=kind, batch_size=4, bucket=4, **settings), 3)


def batches(made):
    return [made.eval_batch(i, range(4)) for i in range(made.num_eval_batches)]


def text_of(made, row, length) -> str:
    return " ".join(made.tokenizer.words[token] for token in row[:length])


@pytest.mark.parametrize("kind", ["similarity", "matches", "triplets"])
@pytest.mark.parametrize("wrap", ["none", "both"])
def test_every_text_of_a_group_is_a_row_of_its_own(kind, wrap):
    made = dataset(kind, wrap=wrap)
    seen = []
    for i, batch in enumerate(batches(made)):
        shape = batch["tokens"].shape
        assert shape[1] == {"triplets": 3}.get(kind, 2) and shape[2] % 4 == 0
        assert shape[2] - batch["lengths"].max() < 4 or i == 0  # the longest text decides
        for row, number in enumerate(made.numbers(i)):
            if number < 0:
                assert batch["present"][row] == 0 and (batch["texts"][row] == -1).all()
                assert not batch["tokens"][row].any() and (batch["lengths"][row] == 1).all()
                continue
            seen.append(number)
            fields = made.records[number].fields
            texts = [value for name, value in fields.items() if name != "score"]
            marked = [f"<s> {text} </s>" if wrap == "both" else text for text in texts]
            rows = zip(batch["tokens"][row], batch["lengths"][row], strict=True)
            assert [text_of(made, *each) for each in rows] == marked
            if kind == "similarity":
                assert batch["score"][row] == np.float32(fields["score"])
    assert sorted(seen) == list(range(11))


def test_a_choice_is_read_behind_its_question_and_smaller_groups_are_filled_up():
    made = dataset("choice", wrap="both")
    for i, batch in enumerate(batches(made)):
        assert batch["tokens"].shape[1] == 3
        for row, number in enumerate(made.numbers(i)):
            if number < 0:
                continue
            fields = made.records[number].fields
            size = batch["sizes"][row]
            assert size == len(fields["choices"]) and batch["answer"][row] == int(fields["answer"])
            for g, choice in enumerate(fields["choices"]):
                text = text_of(made, batch["tokens"][row, g], batch["lengths"][row, g])
                assert text == f"<s> {fields['question']} </s> {choice} </s>"
            assert (batch["lengths"][row, size:] == 1).all() and not batch["tokens"][row, size:].any()


def test_equal_texts_have_equal_numbers_and_others_do_not():
    pairs = [("a b", "c"), ("a b", "d"), ("c", "a b"), ("e", "a")]
    made = tuple(Record({"first": a, "second": b}, "made") for a, b in pairs)
    found = make_examples(
        {"train": made, "valid": made}, ExamplesConfig(kind="matches", batch_size=4, bucket=0), 0
    )
    texts = found.eval_batch(0, range(4))["texts"]
    names = {
        text: number
        for pair, row in zip(pairs, texts, strict=True)
        for text, number in zip(pair, row, strict=True)
    }
    assert [[names[text] for text in pair] for pair in pairs] == texts.tolist()
    assert len(set(names.values())) == len(names) == 5


def test_a_score_goes_with_one_row_of_both_texts():
    made = dataset("score", wrap="both")
    assert made.sizes["num_classes"] == 1
    batch = batches(made)[0]
    for row, number in enumerate(made.numbers(0)):
        fields = made.records[number].fields
        text = text_of(made, batch["tokens"][row], batch["lengths"][row])
        assert text == f"<s> {fields['text']} </s> {fields['text_pair']} </s>"
        assert batch["score"][row] == float(fields["score"]) and batch["score"].dtype == np.float32


def test_tokens_are_counted_over_all_texts_of_a_group():
    made = dataset("triplets", wrap="none")
    lengths = [sum(len(text.split()) for text in record.fields.values()) for record in records("triplets")]
    assert made.tokens_per_step == pytest.approx(4 * np.mean(lengths))


def write(path, text) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("kind", "name", "text", "fields"),
    [
        ("similarity", "a.tsv", "genre\tsentence1\tsentence2\tscore\nx\ta b\tc\t3.5\n", ["a b", "c", "3.5"]),
        ("score", "a.tsv", "genre\tsentence1\tsentence2\tscore\nx\ta b\tc\t3.5\n", ["a b", "c", "3.5"]),
        ("similarity", "a.jsonl", '{"text": "a", "text_pair": "b", "score": 1}', ["a", "b", "1"]),
        ("matches", "a.csv", 'query,document\n"a, b",c\n', ["a, b", "c"]),
        ("triplets", "a.jsonl", '{"anchor": "a", "positive": "b", "negative": "c"}', ["a", "b", "c"]),
        ("choice", "a.jsonl", '{"context": "a", "choices": ["b", "c"], "label": 1}', ["a", ("b", "c"), "1"]),
        ("choice", "a.jsonl", '{"ctx": "a", "endings": ["b", "c"], "label": "0"}', ["a", ("b", "c"), "0"]),
    ],
)
def test_published_names_of_the_fields_are_known(tmp_path, kind, name, text, fields):
    (record,) = read_file(write(tmp_path / name, text), kind, {})
    assert list(record.fields.values()) == fields


def test_columns_without_a_header_are_named_by_their_numbers(tmp_path):
    path = write(tmp_path / "a.tsv", "x\t2.5\ta girl\ta boy\tlicence\n" * 2)
    found = read_file(path, "similarity", {"first": "2", "second": "3", "score": "1"})
    assert found[1].fields == {"first": "a girl", "second": "a boy", "score": "2.5"}


@pytest.mark.parametrize(
    ("kind", "name", "text", "said"),
    [
        ("score", "a.tsv", "sentence\tscore\na\tx\n", "a.tsv:2: the score 'x' is no finite number"),
        ("score", "a.tsv", "sentence\tscore\na\tnan\n", "a.tsv:2: the score 'nan' is no finite number"),
        ("score", "a.jsonl", '{"text": "a", "score": NaN}', "a.jsonl:1: the score 'NaN' is no finite number"),
        ("score", "a.jsonl", '{"text": "a", "score": 1e39}', "a.jsonl:1: the score '1e+39' is no finite"),
        ("score", "a.jsonl", '{"text": "a", "score": true}', '"score" is a JSON bool'),
        ("similarity", "a.tsv", "sentence1\tsentence2\tscore\na\t\t1\n", "a.tsv:2: the second is empty"),
        ("similarity", "a.tsv", "sentence1\tsentence2\na\tb\n", "a.tsv:1: no score among"),
        ("similarity", "a.tsv", "sentence\tscore\na\t1\n", "a.tsv:1: no first among"),
        ("matches", "a.tsv", "first\tlabel\na\t1\n", "a.tsv:1: no second among"),
        ("triplets", "a.jsonl", '{"anchor": "a", "positive": "b"}', "a.jsonl:1: no negative among"),
        (
            "choice",
            "a.jsonl",
            '{"question": "a", "choices": ["b", "c"], "answer": 2}',
            "none of the choices, 0 to 1",
        ),
        (
            "choice",
            "a.jsonl",
            '{"question": "a", "choices": ["b", "c"], "answer": "B"}',
            "none of the choices",
        ),
        ("choice", "a.jsonl", '{"question": "a", "choices": ["b"], "answer": 0}', "a single choice is none"),
        (
            "choice",
            "a.jsonl",
            '{"question": "a", "choices": ["b", " "], "answer": 0}',
            "one of the choices is empty",
        ),
        ("choice", "a.tsv", "question\tchoices\na\tb\n", "not a file of kind=choice; give .jsonl"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(tmp_path, kind, name, text, said):
    with pytest.raises(DataError) as caught:
        read_file(write(tmp_path / name, text), kind, {})
    assert said in str(caught.value) and name in str(caught.value) and "\n" not in str(caught.value)


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path):
    path = write(tmp_path / "a.tsv", "left\tright\tscore\na\tb\t1\n")
    with pytest.raises(DataError, match="columns first=lefft is none of 'left', .*did you mean 'left'"):
        read_records(path, "similarity", {"first": "lefft", "second": "right"}, 0.0)


def test_lines_are_no_pairs(tmp_path):
    with pytest.raises(DataError, match="a line is one text, and kind=matches reads first, second"):
        read_inputs(write(tmp_path / "a.txt", "a\nb\n"), "matches", {})
    assert len(read_inputs(write(tmp_path / "a.txt", "a\nb\n"), "score", {})) == 2


def test_guesses_stand_beside_models_that_compare_texts():
    made = records("matches")
    found = guess_scores(made, made)
    assert found == pytest.approx(
        {"chance_recall_at_1": 1 / 11, "chance_recall_at_10": 10 / 11}
        | {"chance_mrr": np.mean([1 / (1 + np.arange(11))])}
    )
    pairs = [("a b", "b a", 5), ("a b", "a c", 2), ("a b", "C d", 3), ("a", "A", 4)]
    scored = [Record({"first": a, "second": b, "score": str(s)}, "made") for a, b, s in pairs]
    assert guess_scores(scored, scored) == {"overlap_spearman": spearman([1, 1 / 3, 0, 1], [5, 2, 3, 4])}


def test_functions_of_the_library_are_found_by_their_docstrings():
    source = 'def f():\n    """Says what it does.\n\n    More."""\n    return 1 + 2 + 3 + 4 + 5 + 6\n'
    module = Document("Lib/a/b.py", source, "")
    (described_one,), (summarised_one,) = described(module), summarised(module)
    assert described_one.fields == {"first": "Says what it does.", "second": "return 1 + 2 + 3 + 4 + 5 + 6"}
    assert described_one.where == summarised_one.where


@pytest.mark.skipif(not STSB.is_dir(), reason="STS-B (../shared/data/glue-stsb) is not here")
@pytest.mark.parametrize("kind", ["similarity", "score"])
def test_sts_b_is_read_as_it_is_published(kind):
    made = load_examples(ExamplesConfig(kind=kind, path=str(STSB), min_count=2, max_length=128), 0)
    assert {part: len(found) for part, found in made.parts.items()} == {"train": 5749, "valid": 1500}
    assert list(made.records[0].fields.values()) == [
        "A man with a hard hat is dancing.",
        "A man wearing a hard hat is dancing.",
        "5.000",
    ]
    columns = dict(zip(made.records[0].fields, ("5", "6", "4"), strict=True))
    assert len(read_file(STSB / "test-labelled.tsv", kind, columns)) == 1379
    assert json.loads(json.dumps(made.sizes)) == made.sizes
