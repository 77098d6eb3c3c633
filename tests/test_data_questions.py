"""Questions about a text: reading them, windows of long texts, answers out of scores, the library's own."""

import ast
import gzip
import json
import random
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from zoo.data import stdlib
from zoo.data.examples.answers import answers_of, best_spans
from zoo.data.examples.config import ExamplesConfig
from zoo.data.examples.example_set import make_examples
from zoo.data.examples.one_pass import one_pass
from zoo.data.examples.questions import asked
from zoo.data.examples.record import Record
from zoo.data.examples.records import read_file, read_inputs, read_records
from zoo.data.examples.stdlib_records import stdlib_records
from zoo.data.examples.windows import window_starts
from zoo.data.tokenizers.word_piece import WordPieceTokenizer
from zoo.errors import ConfigError, DataError

WORDS = [f"w{i}" for i in range(30)]
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##x", "who", "?", ",")
TOKENIZER = WordPieceTokenizer(PIECES)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n")
    return str(path)


def settings(**changes):
    return {
        "kind": "span",
        "tokenizer": "wordpiece",
        "wrap": "both",
        "vocab_path": "x",
        "batch_size": 4,
    } | changes


def question(context, answer="", name="q", text="who?"):
    start = context.find(answer)
    fields = {"question": text, "context": context} | ({"answers": (answer,)} if answer else {})
    return Record(fields, name, offsets=((start, start + len(answer)),) if answer else (), id=name)


def laid_out(*records, **changes):
    return one_pass(records, TOKENIZER, (), (), ExamplesConfig(**settings(**changes)))


# Reading.


def squad(*questions, context="Ann came by train."):
    return {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def asks(answers, **more):
    return {"id": "7", "question": "Who came?", "answers": answers} | more


def at(text, start):
    return {"text": text, "answer_start": start}


def write(path, value):
    written = json.dumps(value).encode()
    path.write_bytes(gzip.compress(written) if path.suffix == ".gz" else written)
    return path


def test_squad_is_read_plain_and_compressed_with_all_answers(tmp_path):
    found = squad(asks([at("Ann", 0), at("train", 12)]), asks([], id="8"), asks([], is_impossible=True))
    for name in ("dev-v2.0.json", "dev.json.gz"):
        one, other, third = read_file(write(tmp_path / name, found), "span", {})
        assert one.fields == {
            "question": "Who came?", "context": "Ann came by train.", "answers": ("Ann", "train"),
        }  # fmt: skip
        assert one.offsets == ((0, 3), (12, 17)) and one.id == "7"
        assert "answers" not in other.fields and "answers" not in third.fields


def test_a_question_per_line_is_read_too(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"question": "q", "context": "a b", "answers": [at("b", 2)], "id": 5}) + "\n")
    (record,) = read_file(path, "span", {})
    assert record.fields["answers"] == ("b",) and record.offsets == ((2, 3),) and record.id == "5"


def test_squads_names_of_parts_are_known(tmp_path):
    write(tmp_path / "train-v1.1.json", squad(asks([at("Ann", 0)])))
    write(tmp_path / "dev-v1.1.json", squad(asks([at("train", 12)])))
    parts = read_records(tmp_path, "span", {}, 0.1)
    assert [(part, records[0].fields["answers"]) for part, records in parts.items()] == [
        ("train", ("Ann",)), ("valid", ("train",)),
    ]  # fmt: skip


def test_what_is_to_be_predicted_needs_no_answers(tmp_path):
    whole = squad({"id": "1", "question": "Who?"})
    (record,) = read_inputs(write(tmp_path / "a.json", whole), "span", {})
    assert record.fields.keys() == {"question", "context"}
    with pytest.raises(DataError, match='question 1: has no "answers"; give them'):
        read_file(tmp_path / "a.json", "span", {})


@pytest.mark.parametrize(
    "value, said",
    [
        (
            squad(asks([at("Ann", 4)])),
            "question 7: the answer 'Ann' is not at answer_start 4, where 'cam' stands",
        ),
        (squad(asks([at("Ann", 4)])), "it first stands at 0"),
        (squad(asks([at("Bob", 0)])), "it is not in the context"),
        (squad(asks([at("Ann", -18)])), "is not at answer_start -18"),
        (squad(asks([at("Ann", "0")])), "answer_start '0' is no whole number"),
        (squad(asks([at(" ", 3)])), "question 7: an answer is empty"),
        (squad(asks("Ann")), '"answers" is not a list of objects'),
        (
            squad({"id": "7", "answers": []}),
            "question 7: no \"question\" among its keys ('id', 'answers', 'context')",
        ),
        (squad(asks([], question="  ")), "question 7: the question is empty"),
        ({"data": [{}]}, 'an article: no "paragraphs"'),
        ({"questions": []}, 'no "data" among its keys'),
        ([1], "a JSON list, not an object; a SQuAD file is"),
    ],
)
def test_a_question_that_cannot_be_meant_is_one_line_with_file_and_id(tmp_path, value, said):
    path = write(tmp_path / "a.json", value)
    with pytest.raises(DataError) as caught:
        read_file(path, "span", {})
    message = str(caught.value)
    assert str(path) in message and said in message and "\n" not in message


def test_questions_about_one_text_are_in_one_part(tmp_path):
    lines = [
        {"question": f"q{j}", "context": f"text {i}", "answers": [at("text", 0)]}
        for i in range(60)
        for j in (1, 2)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    parts = read_records(tmp_path / "a.jsonl", "span", {}, 0.3)
    train, valid = ({record.fields["context"] for record in parts[part]} for part in ("train", "valid"))
    assert train and valid and not train & valid


# Windows.


def test_a_question_and_its_text_are_marked_and_typed_and_the_answer_is_its_tokens():
    layout = laid_out(question("w1 w2x, w3", "w2x")).layout
    (row,) = ({name: array[0] for name, array in layout.rows(np.array([0]), (11,)).items()},)
    assert [PIECES[i] for i in row["tokens"]] == "[CLS] who ? [SEP] w1 w2 ##x , w3 [SEP] [PAD]".split()
    assert row["token_types"].tolist() == [0] * 4 + [1] * 6 + [0]
    assert (row["start"], row["end"], row["index"], row["lengths"]) == (5, 6, 0, 10)
    starts, ends = layout.places(0)
    assert starts.tolist() == [0, 0, 0, 0, 0, 3, 5, 6, 8, 0] and ends.tolist() == [
        0,
        0,
        0,
        0,
        2,
        5,
        6,
        7,
        10,
        0,
    ]


def test_windows_reach_every_token_and_the_last_one_the_end():
    for length in range(1, 30):
        for size in range(1, 12):
            for stride in range(1, 15):
                starts = window_starts(length, size, stride)
                seen = {token for start in starts for token in range(start, min(start + size, length))}
                assert seen == set(range(length)) and starts[-1] + size >= length
                assert all(start + size < length for start in starts[:-1])  # no window more than is needed
                assert starts == [i * min(stride, size) for i in range(len(starts))]


def test_an_answer_is_in_every_window_that_holds_it_whole_and_nowhere_in_the_others():
    context = " ".join(WORDS)
    dataset = laid_out(question(context, "w13 w14"), max_length=17, stride=4)
    layout = dataset.layout
    T = int(layout.tokens.lengths_N.max())
    found = layout.rows(np.arange(len(layout.is_cut_N)), (T,))
    holds = 0
    for row in range(len(found["tokens"])):
        words = [PIECES[i] for i in found["tokens"][row][4 : found["lengths"][row] - 1]]
        start, end = found["start"][row], found["end"][row]
        if {"w13", "w14"} <= set(words):
            assert [PIECES[i] for i in found["tokens"][row][start : end + 1]] == ["w13", "w14"]
            holds += 1
        else:
            assert (start, end) == (0, 0)
    assert holds > 1 and len(found["tokens"]) > holds + 1


def test_a_long_question_leaves_half_of_the_row_to_the_text():
    record = question("w1 w2 w3 w4", "w4", text=" ".join(WORDS))
    layout = laid_out(record, max_length=11).layout
    row = layout.rows(np.array([0]), (11,))
    assert [PIECES[i] for i in row["tokens"][0]] == "[CLS] w0 w1 w2 w3 [SEP] w1 w2 w3 w4 [SEP]".split()
    assert row["end"].tolist() == [9] and layout.is_cut_N.tolist() == [True]


def test_training_shows_every_window_of_every_question_once_an_epoch(vocabulary):
    rng = random.Random(0)
    records = tuple(
        question(" ".join(rng.choices(WORDS, k=rng.randint(1, 40))), name=f"q{i}") for i in range(20)
    )
    cfg = ExamplesConfig(**settings(vocab_path=vocabulary, max_length=16, stride=5, batch_size=1))
    dataset = make_examples({"train": records, "valid": records[:3]}, cfg, 0)
    seen = [int(dataset.batch(step, range(1))["index"][0]) for step in range(dataset.steps_per_epoch)]
    assert sorted(seen) == list(range(len(dataset.train.record_N))) and len(seen) > 20


def test_the_digest_names_where_an_answer_stands_and_the_stride(vocabulary):
    def digest(start, **changes):
        record = Record(
            {"question": "q", "context": "w1 w1", "answers": ("w1",)}, "1", offsets=((start, start + 2),)
        )
        cfg = ExamplesConfig(**settings(vocab_path=vocabulary, batch_size=1, **changes))
        return make_examples({"train": (record,), "valid": (record,)}, cfg, 0).digest

    assert len({digest(0), digest(3), digest(0, stride=64)}) == 3


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"wrap": "end"}, "wrap=end: an answer that a text has not"),
        ({"tokenizer": "byte"}, "tokenizer=byte does not say where its tokens stand"),
        ({"stride": 0}, "stride=0 must be at least 1"),
    ],
)
def test_settings_that_find_no_answers_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        ExamplesConfig(**settings(**changes))


# Answers.


def test_the_best_spans_of_a_window_are_those_of_a_slow_loop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        T, first, last = 14, 3, 12
        bounds_T2 = rng.standard_normal((T, 2))
        starts_T = np.where((np.arange(T) >= first) & (np.arange(T) <= last), 10 * np.arange(T), 0)
        ends_T = np.where(starts_T > 0, starts_T + 9, 0)
        spans = [
            (bounds_T2[i, 0] + bounds_T2[j, 1], starts_T[i], ends_T[j])
            for i in range(first, last + 1)
            for j in range(i, min(i + 4, last + 1))
        ]
        found = best_spans(bounds_T2, starts_T, ends_T, count=6, longest=4)
        for (score, start, end), got in zip(sorted(spans, reverse=True), found, strict=False):
            assert (got.start, got.end) == (start, end) and got.score == pytest.approx(score)
        assert len(found) == 6


def scored(dataset, **peaks):
    """Logits of every window, 0 but where `peaks` says, by the window's number: w0=(start, end, score)."""
    for number in range(len(dataset.layout.record_N)):
        bounds_T2 = np.zeros((dataset.layout.tokens.lengths_N[number], 2))
        start, end, score = peaks.get(f"w{number}", (0, 0, 0.0))
        bounds_T2[start, 0] += score
        bounds_T2[end, 1] += score
        yield number, bounds_T2


def test_an_answer_is_text_of_the_context_as_it_was_written():
    dataset = laid_out(question("W1  w2X,   w3"))
    answer = answers_of(dataset, scored(dataset, w0=(4, 6, 5.0)), count=3, longest=9, margin=np.inf)[0]
    assert answer.text == "W1  w2X" and 0.9 < answer.score <= 1
    assert answer.best[0] == {"answer": "W1  w2X", "start": 0, "end": 7, "score": answer.score}
    assert len(answer.best) == 3 and sum(each["score"] for each in answer.best) == pytest.approx(1, abs=1e-5)


def test_the_window_that_scores_best_answers():
    dataset = laid_out(question(" ".join(WORDS)), max_length=17, stride=4)
    layout = dataset.layout
    place = int(np.flatnonzero(layout.places(1)[1])[2])
    wanted = slice(layout.places(1)[0][place], layout.places(1)[1][place])
    answers = answers_of(
        dataset, scored(dataset, w0=(4, 4, 3.0), w1=(place, place, 5.0)), count=5, longest=3, margin=np.inf
    )
    assert answers[0].text == " ".join(WORDS)[wanted]


def test_no_answer_is_said_where_it_is_better_by_more_than_the_margin_in_every_window():
    dataset = laid_out(question(" ".join(WORDS)), max_length=17, stride=8)
    everywhere = {f"w{number}": (0, 0, 2.0) for number in range(len(dataset.layout.record_N))}

    def said(margin, **changes):
        rows = scored(dataset, **(everywhere | changes))
        return answers_of(dataset, rows, count=5, longest=3, margin=margin)[0]

    assert said(3.9).text == "" and said(4.1).text != "" and said(np.inf).text != ""
    assert said(3.9, w1=(0, 0, 0.0)).text != ""  # one window that does not say so is enough
    assert "" in [each["answer"] for each in said(4.1).best]
    assert "" not in [each["answer"] for each in said(np.inf).best]


# The standard library's.


def test_questions_of_a_function_have_the_answers_of_its_syntax_tree():
    source = (
        "def open_url(name, timeout=30, *, über='é', retry=('a', 2)):\n"
        "    if not name:\n"
        '        raise ValueError("no name")\n'
        "    def inner():\n"
        "        return 1\n"
        "    return fetch(name, timeout) or None\n"
    )
    function = ast.parse(source).body[0]
    found = {question: source[start:end] for question, start, end in asked(function, source.split("\n"))}
    default = found.pop(next(text for text in found if "default" in text))
    assert default in ("30", "'é'", "('a', 2)")
    assert found == {
        "What does open_url return?": "fetch(name, timeout) or None",
        "What does open_url raise?": "ValueError",
    }


def test_what_has_two_answers_or_none_is_not_asked():
    source = (
        "def f(x=()):\n    if x:\n        return 1\n    raise a\n    raise b\n    return (1 +\n        2)\n"
    )
    assert list(asked(ast.parse(source).body[0], source.split("\n"))) == []


def test_the_library_asks_about_its_own_functions_and_answers_stand_where_they_say(monkeypatch):
    modules = stdlib.modules(Path(sysconfig.get_path("stdlib")))[::12]
    monkeypatch.setattr(stdlib, "modules", lambda root: modules)
    parts = stdlib_records("span", 0.1)
    assert len(parts["train"]) > 200 and len(parts["valid"]) > 5
    for record in parts["valid"]:
        ((start, end),) = record.offsets
        assert record.fields["context"][start:end] == record.fields["answers"][0]
    train, valid = ({record.where.rpartition(":")[0] for record in parts[part]} for part in parts)
    assert not train & valid
    assert stdlib_records("span", 0.1) == parts  # from the cache
