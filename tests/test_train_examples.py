"""train.py on labelled examples of every kind, and what `eval` and `predict` make of its runs."""

import functools
import gzip
import io
import json
import shutil

import pytest
from test_train import refusal

import train
from zoo.__main__ import main
from zoo.data.examples.record import Record
from zoo.errors import DataError
from zoo.inference.predict import predict, predict_records

SHORT = "--steps 6 --save-every 6 --eval-every 6 --log-every 3 --data.batch-size 8".split()
ENCODER = "--model.encoder.d-model 8 --model.encoder.d-state 8".split()


def write(path, lines):
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.write("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """A folder of each kind, with the file of its test part."""
    folder = tmp_path_factory.mktemp("examples")
    for part, count in (("train", 60), ("valid", 9), ("test", 9)):
        texts = [(f"a {'good' if i % 2 else 'bad'} one {i % 5}", i % 2) for i in range(count)]
        rows = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in texts)]
        write(folder / "classify" / f"{part}.tsv.gz", rows)
        tagged = [f"we{i % 7}\tO\n{'rome' if i % 2 else 'oslo'}\tB-city\n" for i in range(count)]
        write(folder / "tag" / f"{part}.conll", tagged)
        said = [["go", "to", "rome" if i % 2 else "oslo", f"at{i % 3}"] for i in range(count)]
        slots = [{"words": w, "tags": ["O", "O", "B-city", "B-time"], "label": w[2]} for w in said]
        write(folder / "slots" / f"{part}.jsonl", map(json.dumps, slots))
        pairs = [f"walk {i % 3}\t{'W ' * (i % 3 + 1)}".strip() for i in range(count)]
        write(folder / "pairs" / f"{part}.tsv", ["source\ttarget", *pairs])
    return folder


RECIPES = {
    "classify": ("lstm_sst2", [*ENCODER, "--model.d-hidden", "8", "--model.d-attention", "8"]),
    "tag": ("tag_stdlib", [*ENCODER, "--schedule.warmup-steps", "1"]),
    "slots": ("slot_snips", ENCODER),
    "pairs": ("seq2seq_scan", ["--model.d-model", "8", "--model.d-state", "8"]),
}
METRICS = {
    "classify": ["accuracy", "majority_accuracy"],
    "tag": ["entity_f1", "tag_accuracy"],
    "slots": ["slot_f1", "tag_accuracy", "intent_accuracy", "sentence_accuracy"],
    "pairs": ["exact_match"],
}
TESTS = {"classify": "test.tsv.gz", "tag": "test.conll", "slots": "test.jsonl", "pairs": "test.tsv"}
each_kind = pytest.mark.parametrize("kind", RECIPES)


def command(recipe, folder, *more):
    where = ["--data.path", str(folder), "--runs", str(folder / "runs"), "--name", "run"]
    return [recipe, *where, *SHORT, *more]


@pytest.fixture(scope="module")
def run(examples):
    """The folder of a kind's finished run."""

    @functools.cache
    def of(kind):
        recipe, more = RECIPES[kind]
        assert train.main(command(recipe, examples / kind, *more)) == 0
        return examples / kind / "runs" / "run"

    return of


def verb(capsys, *argv):
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 0
    lines = capsys.readouterr().out.split("\n")[:-1]
    return lines[:-1], json.loads(lines[-1])


@each_kind
def test_a_run_has_its_metrics_and_eval_has_them_of_every_part_and_of_a_file(examples, run, capsys, kind):
    result = json.loads((run(kind) / "result.json").read_text())
    assert all(0 <= result[name] <= 1 for name in METRICS[kind]) and result["step"] == 6
    _, part = verb(capsys, "eval", run(kind), "--part", "test")
    assert set(part) >= {"eval_loss", *[name for name in METRICS[kind] if "majority" not in name]}
    _, file = verb(capsys, "eval", run(kind), examples / kind / TESTS[kind])
    for name in part.keys() - {"part", "seconds"}:
        assert file[name] == part[name], name


def test_eval_reads_slots_in_the_three_files_that_training_reads(examples, run, capsys, tmp_path):
    records = list(map(json.loads, (examples / "slots" / "test.jsonl").read_text().splitlines()))
    for name, field in (("seq.in", "words"), ("seq.out.gz", "tags"), ("label", "label")):
        values = [record[field] for record in records]
        write(tmp_path / name, [value if field == "label" else " ".join(value) for value in values])
    _, whole = verb(capsys, "eval", run("slots"), examples / "slots" / "test.jsonl")
    _, found = verb(capsys, "eval", run("slots"), tmp_path)
    assert {**found, "seconds": 0} == {**whole, "file": str(tmp_path), "seconds": 0}
    (tmp_path / "label").unlink()
    assert "has no label, plain or .gz" in refused(capsys, "eval", run("slots"), tmp_path)[1]


def labelled(examples, kind):
    """The answers of the test part, as a list of dicts."""
    lines = (examples / kind / TESTS[kind]).read_bytes()
    lines = (gzip.decompress(lines) if TESTS[kind].endswith(".gz") else lines).decode().split("\n")[:-1]
    if kind == "slots":
        return [{name: record[name] for name in ("label", "tags")} for record in map(json.loads, lines)]
    if kind == "tag":
        return [{"tags": ["O", "B-city"]}] * 9
    return [{{"classify": "label", "pairs": "target"}[kind]: line.split("\t")[1]} for line in lines[1:]]


@each_kind
def test_what_predict_says_scores_what_eval_says(examples, run, capsys, kind):
    """The share of right answers, counted here, is the metric; answers stand in the file's order."""
    _, metrics = verb(capsys, "eval", run(kind), "--part", "test")
    lines, found = verb(capsys, "predict", run(kind), examples / kind / TESTS[kind])
    said, right = list(map(json.loads, lines)), labelled(examples, kind)
    assert len(said) == len(right) == found["examples"] == 9

    def share(field):
        return sum(one[field] == other[field] for one, other in zip(said, right, strict=True)) / 9

    if kind == "classify":
        assert share("label") == pytest.approx(metrics["accuracy"])
        assert all(0.5 <= answer["probability"] <= 1 for answer in said)
    if kind == "slots":
        assert share("label") == pytest.approx(metrics["intent_accuracy"])
    if kind == "pairs":
        assert share("target") == pytest.approx(metrics["exact_match"])
    if kind in ("tag", "slots"):
        pairs = [p for a, b in zip(said, right, strict=True) for p in zip(a["tags"], b["tags"], strict=True)]
        assert sum(a == b for a, b in pairs) / len(pairs) == pytest.approx(metrics["tag_accuracy"])


@each_kind
def test_predict_reads_plain_lines_and_says_the_same_of_each_alone(examples, run, capsys, tmp_path, kind):
    """Long and short ones take turns, so that batches, which hold texts of like length, are not in order."""
    texts = ["walk 1 good" if i % 2 else "bad rome oslo " * 4 + "walk" for i in range(20)]
    write(tmp_path / "new.txt", [texts[0], "", *texts[1:]])  # a blank line is no text
    lines, _ = verb(capsys, "predict", run(kind), tmp_path / "new.txt")
    together = list(map(json.loads, lines))
    field = {"classify": "text", "pairs": "source"}.get(kind, "words")
    given = [{field: text.split() if field == "words" else text} for text in texts]
    assert [answer[field] for answer in together] == [each[field] for each in given]
    for text, answer in list(zip(given, together, strict=True))[:2]:
        (alone,) = predict(run(kind), [text])
        assert alone.keys() == answer.keys()
        assert alone.get("probability", 0) == pytest.approx(answer.get("probability", 0), abs=2e-6)
        for name in answer.keys() & {"label", "tags", "target"}:
            assert alone[name] == answer[name], name


def test_predict_reads_conll_without_tags_and_keeps_what_is_no_blank(run, capsys, tmp_path):
    """One word a line; U+3000 is a word of tagged Chinese texts, and a tab belongs to the text it is in."""
    write(tmp_path / "new.conll", ["we1", "rome", "", "oslo"])
    lines, _ = verb(capsys, "predict", run("tag"), tmp_path / "new.conll")
    assert [json.loads(line)["words"] for line in lines] == [["we1", "rome"], ["oslo"]]
    write(tmp_path / "new.txt", ["we1 \u3000 rome"])
    (line,), _ = verb(capsys, "predict", run("tag"), tmp_path / "new.txt")
    assert json.loads(line)["words"] == ["we1", "\u3000", "rome"]
    write(tmp_path / "new.txt", ["a good\tone"])
    (line,), _ = verb(capsys, "predict", run("classify"), tmp_path / "new.txt")
    assert json.loads(line)["text"] == "a good\tone" and "text_pair" not in json.loads(line)


@pytest.mark.parametrize(
    ("kind", "example", "said"),
    [
        ("classify", {"text": "a", "foo": "b"}, "'foo' is no input"),
        ("classify", {"text": "a", "label": "1"}, "'label' is no input"),
        ("classify", {"text": 5}, "text is a int"),
        ("classify", {}, "has no text"),
        ("classify", "a fine film", "a str, not a dict"),
        ("classify", {"text": "\ud800"}, "half of a surrogate pair"),
        ("classify", {"text": " "}, "the text is empty"),
        (
            "classify",
            {"text": "a", "text_pair": "b"},
            "has text and text_pair, and training examples have text;",
        ),
        ("tag", {"words": "a b"}, "words is a str"),
        ("tag", {"words": ["a", 3]}, "no text"),
        ("tag", {"words": []}, "there are no words"),
        ("pairs", {"text": "walk"}, "'text' is no input"),
    ],
)
def test_an_example_that_is_none_is_refused_with_its_number(run, kind, example, said):
    good = {"classify": {"text": "a"}, "tag": {"words": ["a"]}, "pairs": {"source": "walk"}}[kind]
    with pytest.raises(DataError, match=said) as caught:
        predict(run(kind), [good, example])
    assert str(caught.value).startswith("example 2: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["{}", '{"labels": ["0"], "tags": []}', '{"labels": "01", "tags": []}', "["]
)
def test_damaged_names_are_one_line(examples, run, tmp_path, content):
    folder = tmp_path / "run"
    shutil.copytree(run("classify"), folder)
    (folder / "labels.json").write_text(content)
    with pytest.raises(DataError, match="labels.json"):
        predict(folder, [{"text": "a"}])


def test_a_text_that_is_cut_is_said(run, caplog):
    predict(run("classify"), [{"text": "one " * 500}, {"text": "one"}])
    assert "1 of 2 are too long and were cut" in caplog.text


def test_predict_reads_a_table_that_has_no_labels(run, capsys, tmp_path):
    """GLUE's test parts: an index and a sentence."""
    write(tmp_path / "test.tsv", ["index\tsentence", "0\ta good one", "1\ta bad one"])
    lines, _ = verb(capsys, "predict", run("classify"), tmp_path / "test.tsv")
    assert [json.loads(line)["text"] for line in lines] == ["a good one", "a bad one"]


def test_a_source_without_a_token_is_refused_with_its_place(run):
    with pytest.raises(DataError, match="^new.txt:7: the source '.' is empty"):
        predict_records(
            run("pairs"), [Record({"source": "walk"}, "new.txt:6"), Record({"source": " "}, "new.txt:7")]
        )


def test_generate_writes_the_target_that_predict_finds(run, capsys, tmp_path):
    write(tmp_path / "sources.txt", ["walk 1"])
    (line,), _ = verb(capsys, "predict", run("pairs"), tmp_path / "sources.txt")
    lines, found = verb(capsys, "generate", run("pairs"), "walk 1", "--tokens", "50")
    assert lines == [found["text"]] == [json.loads(line)["target"]]


def refused(capsys, *argv):
    capsys.readouterr()
    code = main([str(word) for word in argv])
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and err.count("\n") == 1, err
    return code, err


@pytest.mark.parametrize(
    ("verb_name", "kind", "name", "lines", "said"),
    [
        ("eval", "classify", "new.tsv", ["sentence\tlabel", "a one\t7"], "new.tsv:2: label '7' is none of"),
        ("eval", "tag", "new.conll", ["rome B-planet"], "new.conll:1: tag 'B-planet' is none of"),
        ("eval", "tag", "new.conll", ["rome\tO"] * 600, "600 words, more than max_length=512"),
        ("eval", "pairs", "new.tsv", ["source\ttarget", "walk\t"], "new.tsv:2: the target is empty"),
        ("eval", "classify", "new.tsv", ["sentence\tlabel"], "has no record"),
        (
            "eval",
            "classify",
            "new.tsv",
            ["text\ttext_pair\tlabel", "a\tb\t1"],
            "new.tsv:2: has text and text_p",
        ),
        (
            "predict",
            "classify",
            "new.jsonl",
            ['{"text": "a", "text_pair": "b"}'],
            "new.jsonl:1: has text and",
        ),
        ("eval", "classify", "none.tsv", None, "no such file"),
        ("predict", "classify", "new.txt", ["", " "], "has no example"),
        ("predict", "classify", "new.tsv", ["a\tb", "1\t2"], "new.tsv:1: no text among"),
        ("predict", "tag", "new.txt", ["a " * 600], "600 words, more than max_length=512"),
        ("predict", "slots", "new.jsonl", ['{"words": []}'], "there are no words"),
        ("predict", "pairs", "new.jsonl", ['{"source": 3}'], '"source" is a JSON int'),
        ("predict", "pairs", "none.txt", None, "no such file"),
        ("predict", "pairs", "new.txt", ["IN: walk OUT: W"], "new.txt:1: has a target behind OUT:"),
        ("predict", "tag", "new.txt", ["we O", "rome B-city"], "every line ends with the name of a tag"),
        ("predict", "classify", ".", None, "a folder; give one file of it"),
        ("eval", "classify", "new.xyz", ["a"], "not a file of kind=classify"),
    ],
)
def test_a_bad_file_is_one_line(run, capsys, tmp_path, verb_name, kind, name, lines, said):
    if lines is not None:
        write(tmp_path / name, lines)
    code, err = refused(capsys, verb_name, run(kind), tmp_path / name)
    assert code == 3 and said in err


@pytest.mark.parametrize(
    ("recipe", "name", "line", "said"),
    [
        ("lstm_sst2", "classify/valid.tsv.gz", "sentence\tlabel\na fine one\t7", "'7'"),
        ("seq2seq_scan", "pairs/valid.tsv", "source\ttarget\nwalk\t", "target"),
        ("tag_stdlib", "tag/valid.conll", "rome", "valid.conll:1"),
    ],
)
def test_a_bad_example_stops_training_with_its_place(examples, tmp_path, capsys, recipe, name, line, said):
    kind = name.split("/")[0]
    for path in (examples / kind).glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write(tmp_path / name.split("/")[1], [line])
    error = refusal(capsys, 3, command(recipe, tmp_path))
    assert said in error and name.split("/")[1] in error


def type_in(monkeypatch, text):
    """What standard input holds."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


@pytest.mark.parametrize(
    "typed", ["a good one\nbad\n", '\n{"text": "a good one"}\n{"text": "bad"}\n'], ids=["lines", "json"]
)
def test_predict_reads_standard_input(run, capsys, monkeypatch, typed):
    type_in(monkeypatch, typed)
    lines, found = verb(capsys, "predict", run("classify"), "-")
    assert list(map(json.loads, lines)) == predict(run("classify"), [{"text": "a good one"}, {"text": "bad"}])
    assert (found["file"], found["examples"]) == ("-", 2)


@pytest.mark.parametrize(
    "typed, said",
    [
        ("", "-: has no example"),
        ('{"text": "a"}\n{"text": ""}\n', "standard input:2: the text is empty"),
        ('{"text": "a"}\n{"txt": "b"}\n', 'standard input:2: no "text" among its keys'),
    ],
)
def test_what_is_wrong_in_standard_input_is_one_line_with_its_place(run, capsys, monkeypatch, typed, said):
    type_in(monkeypatch, typed)
    code, message = refused(capsys, "predict", run("classify"), "-")
    assert code == 3 and said in message and message.count("\n") == 1


def test_columns_name_the_fields_of_a_file_that_calls_them_otherwise(examples, run, capsys, tmp_path):
    rows = gzip.decompress((examples / "classify" / "test.tsv.gz").read_bytes()).decode()
    path = tmp_path / "other.tsv"
    path.write_text(rows.replace("sentence\tlabel", "said\tstars"))
    named = ["--columns", "text=said", "label=stars"]
    _, want = verb(capsys, "eval", run("classify"), examples / "classify" / "test.tsv.gz")
    _, found = verb(capsys, "eval", run("classify"), path, *named)
    assert found["accuracy"] == want["accuracy"] and found["eval_loss"] == want["eval_loss"]
    lines, _ = verb(capsys, "predict", run("classify"), path, *named)
    assert len(lines) == 9
    assert "no text among" in refused(capsys, "predict", run("classify"), path)[1]
    wrong = ["--columns", "text=sad", "label=stars"]
    assert "columns text=sad is none of" in refused(capsys, "eval", run("classify"), path, *wrong)[1]
