"""Sets of dialogues: files of every kind, rows, targets, what is left out, the cache."""

import dataclasses
import json

import numpy as np
import pytest
from dialogues import file_of, said
from templates import STRICT

from zoo.data import DialoguesConfig, load_dialogues, load_file
from zoo.data.dialogues import dialogue_set
from zoo.data.dialogues.template import PLAIN
from zoo.data.tokenizers.byte import ByteTokenizer
from zoo.errors import ConfigError, DataError

DIALOGUES = [said(f"What is {i}?", f"It is {i}.", "Really?", "Yes" + "!" * i) for i in range(40)]
SMALL = DialoguesConfig(length=130, batch_size=4, valid_fraction=0.2)


def rows_of(dataset, count: int):
    return [dataset.eval_batch(i, range(dataset.cfg.batch_size)) for i in range(count)]


def spelled(tokens) -> bytes:
    """What a byte tokenizer's tokens say, without its end of text."""
    return bytes(i for i in tokens.ravel().tolist() if i < 256)


def targets_of(batch) -> bytes:
    return spelled(batch["tokens"][:, 1:][batch["weights"] > 0])


def test_every_answer_is_a_target_once_and_nothing_else_is(tmp_path):
    cfg = dataclasses.replace(SMALL, path=file_of(tmp_path / "d.jsonl", DIALOGUES))
    dataset = load_dialogues(cfg, seed=0)
    batches = rows_of(dataset, dataset.num_eval_batches)
    targets = b"".join(map(targets_of, batches))
    valid = [json.loads(document.text)["messages"] for document in dataset.corpus.parts["valid"]]
    answers = [message["content"] for each in valid for message in each if message["role"] == "assistant"]
    assert sorted(targets.decode()) == sorted("".join(answers))
    assert sum(batch["weights"].sum() for batch in batches) == dataset.num_eval_targets
    assert dataset.num_eval_targets == len(targets) + len(answers)  # an end each
    assert dataset.eval_bytes == len(targets)
    assert 0 < len(valid) < len(DIALOGUES)


def test_what_a_template_refuses_is_left_out_and_counted_unless_it_is_all(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    strict = tmp_path / "t.jinja"
    strict.write_text(STRICT.replace("bos_token", "''"))
    system = [{"role": "system", "content": "Be."}, *said("a", "b")]
    path = file_of(tmp_path / "d.jsonl", [system, *DIALOGUES])
    cfg = dataclasses.replace(SMALL, length=200, template=str(strict), path=path, valid_fraction=0.02)
    dataset = load_dialogues(cfg, seed=0)
    assert dataset.lost == "1 left out, as the template refuses them" and dataset.lost in dataset.describe()
    assert "System role not supported" in caplog.text
    all_ = [[system[0], *each] for each in DIALOGUES]
    with pytest.raises(DataError, match="System role not supported"):
        load_dialogues(dataclasses.replace(cfg, path=file_of(tmp_path / "e.jsonl", all_)), seed=0)


def test_two_dialogues_in_a_row_do_not_see_each_other(tmp_path):
    cfg = dataclasses.replace(SMALL, length=200, path=file_of(tmp_path / "d.jsonl", DIALOGUES))
    batch = load_dialogues(cfg, seed=0).batch(0, range(4))
    assert batch["segments"].max() > 1
    firsts = (batch["positions"] == 0) & (batch["segments"] > 0)
    assert all(spelled(batch["tokens"][b, t : t + 5]) == b"User:" for b, t in np.argwhere(firsts))
    changes = np.diff(batch["segments"], axis=1) != 0
    assert not batch["weights"][:, :-1][changes].any()


def test_an_answer_that_a_dialogue_begins_with_has_no_target_for_its_first_token(tmp_path):
    (tmp_path / "t.jinja").write_text(
        "{% for message in messages %}{% generation %}{{ message.content }}{% endgeneration %}{% endfor %}"
    )
    path = file_of(tmp_path / "d.jsonl", [said("abc", "de", roles=("assistant", "user"))] * 3)
    cfg = dataclasses.replace(SMALL, path=path, template=str(tmp_path / "t.jinja"))
    dataset = load_file(cfg, path, ByteTokenizer(), {})
    weights = sum(batch["weights"].sum() for batch in rows_of(dataset, dataset.num_eval_batches))
    assert dataset.num_eval_targets == weights == 2 * 3


def test_a_dialogue_longer_than_a_row_is_cut_and_counted(tmp_path):
    long = said("Hi", "x" * 300, "and?", "y")
    silent = said("q" * 300, "never seen")
    path = file_of(tmp_path / "d.jsonl", [long, silent, *DIALOGUES])
    dataset = load_dialogues(dataclasses.replace(SMALL, path=path, valid_fraction=0.02), seed=0)
    rows = [dataset.batch(step, range(4)) for step in range(30)]
    targets = b"".join(map(targets_of, rows))
    assert b"x" * 100 in targets and b"y" not in targets
    assert not any(b"qqq" in spelled(batch["tokens"]) for batch in rows)
    assert dataset.lost == "2 too long and cut" and dataset.lost in dataset.describe()


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.json", "parts"])
def test_files_of_every_kind_hold_the_same_dialogues(name, tmp_path):
    path = tmp_path / name
    if name == "d.json":
        path.write_text(json.dumps([{"messages": each} for each in DIALOGUES]))
    elif name == "parts":
        path.mkdir()
        file_of(path / "train.jsonl", DIALOGUES[:30])
        (path / "dev.json").write_text(json.dumps([{"messages": each} for each in DIALOGUES[30:]]))
    else:
        file_of(path, DIALOGUES)
    parts = load_dialogues(dataclasses.replace(SMALL, path=str(path)), seed=0).corpus.parts
    assert sum(map(len, parts.values())) == len(DIALOGUES)
    if name == "parts":
        assert len(parts["valid"]) == 10
    assert {json.loads(d.text)["messages"][0]["content"] for part in parts.values() for d in part} == {
        each[0]["content"] for each in DIALOGUES
    }


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("d.jsonl", b'{"messages": [}\n', "d.jsonl:1"),
        ("d.jsonl", b"", "d.jsonl"),
        ("d.json", b'{"messages": []}', "no JSON list of objects"),
        ("d.json", b"[" * 100_000, "not JSON"),
        ("d.csv", b"a,b\n", "give .jsonl or .json"),
        ("d.jsonl", b"\xff\xfe\n", "d.jsonl"),
    ],
)
def test_a_file_without_dialogues_is_refused_in_a_line(name, content, what, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_dialogues(dataclasses.replace(SMALL, path=str(tmp_path / name)), seed=0)
    assert what in str(caught.value) and "\n" not in str(caught.value)


def test_the_digest_names_dialogues_template_day_tokenizer_and_length(tmp_path):
    path = file_of(tmp_path / "d.jsonl", DIALOGUES)
    (tmp_path / "t.jinja").write_text(PLAIN.replace("User", "Human"))
    (tmp_path / "u.jinja").write_text(PLAIN + "\n")
    base = dataclasses.replace(SMALL, path=path)
    changed = [
        {},
        {"length": 90},
        {"date": "2025-01-01"},
        {"template": str(tmp_path / "u.jinja")},
        {"path": file_of(tmp_path / "e.jsonl", DIALOGUES[1:])},
    ]
    digests = [load_dialogues(dataclasses.replace(base, **each), 0).digest for each in changed]
    assert len(set(digests)) == len(digests)
    assert load_dialogues(dataclasses.replace(base, batch_size=2), 1).digest == digests[0]


def test_a_second_call_takes_the_tokens_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    cfg = dataclasses.replace(SMALL, path=file_of(tmp_path / "d.jsonl", DIALOGUES))
    first = load_dialogues(cfg, 0).batch(0, range(4))
    monkeypatch.setattr(dialogue_set, "encode_dialogue", None)
    again = load_dialogues(cfg, 0).batch(0, range(4))
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_a_file_is_evaluated_with_the_runs_tokenizer(tmp_path):
    path = file_of(tmp_path / "d.jsonl", DIALOGUES[:3])
    dataset = load_file(SMALL, path, ByteTokenizer(), {})
    assert dataset.num_eval_targets == sum(
        len(m["content"]) + 1 for each in DIALOGUES[:3] for m in each if m["role"] == "assistant"
    )


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"tokenizer": "wordpiece"}, "keep every character"),
        ({"date": "today"}, "is no day"),
        ({"length": 0}, "length=0"),
        ({"valid_fraction": 1.0}, "valid_fraction"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, what):
    with pytest.raises(ConfigError, match=what):
        DialoguesConfig(**settings)


def test_the_library_asks_about_its_functions_and_answers_stand_in_the_question():
    dataset = load_dialogues(DialoguesConfig(length=256, batch_size=4), seed=0)
    train = dataset.corpus.parts["train"]
    assert len(train) > 1000
    for document in train[:50]:
        messages = json.loads(document.text)["messages"]
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert all(m["content"] in messages[0]["content"] for m in messages[1::2])
