"""Dialogues: messages in every shape, what a template writes of them, and which tokens are learned."""

import dataclasses
import gzip
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from templates import ENDING, HOSTILE, LAST_THINKING, MARKS, STRICT, TEMPLATES
from test_whole_tokenizer import library

from zoo.data import DialoguesConfig, load_dialogues, load_file, load_tokenizer
from zoo.data.dialogues import dialogue_set, encoding
from zoo.data.dialogues.template import PLAIN, ChatTemplate
from zoo.data.tokenizers.byte import ByteTokenizer
from zoo.errors import ConfigError, DataError

DAY = "2024-07-26"
each_template = pytest.mark.parametrize("name", TEMPLATES)


def said(*contents, roles=("user", "assistant")) -> list[dict]:
    return [{"role": roles[i % len(roles)], "content": content} for i, content in enumerate(contents)]


def tokenizer_in(folder, template: str = "", kind: str = "split"):
    """A decoder's tokenizer with the marks of a template, and the folder that holds both."""
    from tokenizers import AddedToken

    folder.mkdir(exist_ok=True)
    made = library(kind)
    made.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS])
    made.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
    settings |= {"chat_template": template} if template else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return load_tokenizer(folder)


def process(text: str, tokenizer) -> ChatTemplate:
    return ChatTemplate(text, encoding.variables_of(tokenizer), date=DAY, source="here")


@pytest.fixture(params=["whole", "metaspace", "byte"])
def tokenizer(request, tmp_path):
    if request.param == "byte":
        return ByteTokenizer()
    return tokenizer_in(tmp_path / "t", kind={"whole": "split"}.get(request.param, request.param))


def learned(tokenizer, encoded) -> list[str]:
    """The texts of the runs of tokens that are learned, marks by their spelling."""
    marks = {i: spelling for spelling, i in encoding.marks_of(tokenizer).items()}
    found, run = [], []
    for i, is_answer in zip([*encoded.ids.tolist(), 0], [*encoded.is_answer, False], strict=True):
        if is_answer:
            run.append(i)
        elif run:
            text, plain = "", []
            for each in [*run, None]:
                if each is None or each in marks:
                    text += tokenizer.decode(plain) + marks.get(each, "")
                    plain = []
                else:
                    plain.append(each)
            found, run = [*found, text], []
    return found


# --- templates ------------------------------------------------------------------------------------


@each_template
def test_what_is_learned_is_each_answer_and_the_mark_that_ends_it(name, tmp_path):
    tokenizer = tokenizer_in(tmp_path / "t")
    text = json.dumps({"messages": said("a film", "good, 2024", "why?", "il film")})
    with process(TEMPLATES[name], tokenizer) as template:
        found = encoding.encode_dialogue(text, template, tokenizer, "f:1")
    assert learned(tokenizer, found) == ["good, 2024<|im_end|>", "il film<|im_end|>"]


@each_template
def test_an_answer_is_learned_behind_the_tokens_that_ask_for_it(name, tmp_path):
    """So what is trained is what happens when a model answers."""
    tokenizer = tokenizer_in(tmp_path / "t")
    messages = said("a film", " good", "why\n", "il film ")
    with process(TEMPLATES[name], tokenizer) as template:
        found = encoding.encode_dialogue(json.dumps({"messages": messages}), template, tokenizer, "f:1")
        edges = np.flatnonzero(np.diff(found.is_answer.astype(int)) == 1) + 1
        for turn, edge in zip((1, 3), edges, strict=True):
            prompt = encoding.encode_prompt(messages[:turn], template, tokenizer)
            assert found.ids[:edge].tolist() == prompt


def test_without_a_template_turns_are_named_and_answers_end(tokenizer):
    with process(encoding.plain_template(tokenizer), tokenizer) as template:
        text = json.dumps({"messages": said("Hi", "Hello", "and", "", "end", "ok")})
        found = encoding.encode_dialogue(text, template, tokenizer, "f:1")
        end = encoding.variables_of(tokenizer)["eos_token"]
        assert template.prompt(said("Hi", "Hello", "and")) == (
            f"User:\nHi\nAssistant:\nHello{end}\nUser:\nand\nAssistant:\n"
        )
    assert learned(tokenizer, found) == [f"Hello{end}", end, f"ok{end}"]
    assert (found.ids == tokenizer.eot).sum() == 3


def test_what_is_quoted_is_text(tokenizer):
    """A message that spells marks ends no turn and begins none, and is read as it was written."""
    marks = encoding.marks_of(tokenizer)
    content = "".join(marks) + " and <|user|> " + "<|<|end|>end|>"
    with process(encoding.plain_template(tokenizer), tokenizer) as template:
        text = json.dumps({"messages": said(content, content)})
        found = encoding.encode_dialogue(text, template, tokenizer, "f:1")
        prompt = encoding.encode_prompt(said(content), template, tokenizer)
    assert sum(np.isin(found.ids, list(marks.values()))) == 1 and found.ids.tolist().count(tokenizer.eot) == 1
    assert not np.isin(prompt, list(marks.values())).any()
    assert tokenizer.decode(prompt).strip() == f"User:\n{content}\nAssistant:".strip()
    assert content in tokenizer.decode(found.ids[found.is_answer])


@pytest.mark.parametrize("kind", ["split", "metaspace"])
@pytest.mark.parametrize("name", ["chatml", "trimming", "strict", "marking"])
def test_a_quoted_mark_changes_nothing_but_itself(name, kind, tmp_path):
    """The prompt is a beginning of what was trained; without the quotation the tokens are the same."""
    tokenizer = tokenizer_in(tmp_path / "t", kind=kind)
    contents = ["a <|im_end|> film", "film <|end|>", "il", "why <|im_start|>?", "a", "b"]
    for place in ("<|im_end|>", ""):
        messages = said(*(content.replace("<|im_end|>", place) for content in contents))
        with process(TEMPLATES[name], tokenizer) as template:
            text = json.dumps({"messages": messages})
            found = encoding.encode_dialogue(text, template, tokenizer, "f:1")
            for turn in (1, 3, 5):
                prompt = encoding.encode_prompt(messages[:turn], template, tokenizer)
                assert found.ids[: len(prompt)].tolist() == prompt
        ends = [tokenizer.marks["<|im_end|>"], tokenizer.marks["<|im_start|>"]]
        assert np.isin(found.ids, ends).sum() == 12
    whole = found.ids.tolist()
    for token in tokenizer.encode("<|im_end|>").tolist():
        assert token not in tokenizer.marks.values()
    assert len(whole) > 40


def test_tools_and_their_keys_quote_too(tmp_path):
    tokenizer = tokenizer_in(tmp_path / "t")
    dialogue = {"messages": said("a", "b"), "tools": [{"<|im_end|>": "<|im_end|>"}]}
    with process(TEMPLATES["trimming"], tokenizer) as template:
        found = encoding.encode_dialogue(json.dumps(dialogue), template, tokenizer, "f:1")
    assert (found.ids == tokenizer.marks["<|im_end|>"]).sum() == 2
    assert tokenizer.decode(found.ids).count("<|im_end|>") == 2


@pytest.mark.parametrize("strange", ["\ufdd0", "\ufdd1", "\ufdd2"])
def test_characters_that_are_none_are_refused(strange, tmp_path):
    tokenizer = tokenizer_in(tmp_path / "t")
    text = json.dumps({"messages": said("a" + strange, "b")})
    with process(TEMPLATES["chatml"], tokenizer) as template, pytest.raises(DataError, match="U.FDD"):
        encoding.encode_dialogue(text, template, tokenizer, "f:1")


@pytest.mark.parametrize(
    ("template", "want"),
    [
        (ENDING, ["film<|im_end|>", "2024<|im_end|>\n<|end|>"]),
        (LAST_THINKING, ["film<|im_end|>", "<think>\n\n</think>\n\n2024<|im_end|>"]),
    ],
    ids=["Phi-3", "Qwen 3"],
)
def test_answers_that_are_written_otherwise_at_the_end_are_learned_all_the_same(template, want, tmp_path):
    tokenizer = tokenizer_in(tmp_path / "t")
    text = json.dumps({"messages": said("a", "film", "b", "2024")})
    with process(template, tokenizer) as made:
        found = encoding.encode_dialogue(text, made, tokenizer, "f:1")
    assert learned(tokenizer, found) == want and found.missed == 0


@pytest.mark.parametrize("name", ["chatml", "marking"])
def test_an_answer_of_weight_0_is_not_learned(name, tmp_path):
    tokenizer = tokenizer_in(tmp_path / "t")
    messages = said("a", "film", "b", "2024")
    messages[1]["weight"] = 0
    with process(TEMPLATES[name], tokenizer) as template:
        found = encoding.encode_dialogue(json.dumps({"messages": messages}), template, tokenizer, "f:1")
    assert learned(tokenizer, found) == ["2024<|im_end|>"] and found.missed == 0


def test_answers_within_answers_are_one(tmp_path):
    tokenizer = tokenizer_in(tmp_path / "t")
    text = "x{% generation %}a{% generation %}film{% endgeneration %}b{% endgeneration %}y"
    with process(text, tokenizer) as template:
        found = encoding.encode_dialogue(json.dumps({"messages": said("a", "b")}), template, tokenizer, "f:1")
    assert learned(tokenizer, found) == ["afilmb"] and tokenizer.decode(found.ids) == "xafilmby"


def test_a_dialogue_of_many_turns_is_asked_for_in_parts(tmp_path):
    tokenizer = tokenizer_in(tmp_path / "t")
    messages = said(*(f"{i}" for i in range(100)))
    with process(TEMPLATES["chatml"], tokenizer) as template:
        found = encoding.encode_dialogue(json.dumps({"messages": messages}), template, tokenizer, "f:1")
    assert learned(tokenizer, found) == [f"{i}<|im_end|>" for i in range(1, 100, 2)]


def test_a_dialogue_without_marks_in_it_is_cut_as_the_library_cuts_the_whole_text(tmp_path):
    tokenizer, random_ = tokenizer_in(tmp_path / "t"), random.Random(3)
    with process(TEMPLATES["chatml"], tokenizer) as template:
        for _ in range(30):
            contents = ["".join(random_.choices("film 2024,\n\u4e2d\u00e9", k=9)) for _ in range(4)]
            (text,), _ = template.texts(said(*contents), [(4, False)])
            made = tokenizer._reading_marks.encode(text, add_special_tokens=False).ids
            found = encoding.encode_dialogue(
                json.dumps({"messages": said(*contents)}), template, tokenizer, "f:1"
            )
            assert found.ids.tolist() == made


def test_a_template_that_says_what_its_answers_are_is_believed(tmp_path):
    tokenizer = tokenizer_in(tmp_path / "t")
    text = TEMPLATES["marking"].replace("message.content + '<|im_end|>' }}{% end", "message.content }}{% end")
    messages = said("a", "film", "b", "2024")
    with process(text, tokenizer) as template:
        found = encoding.encode_dialogue(json.dumps({"messages": messages}), template, tokenizer, "f:1")
    assert learned(tokenizer, found) == ["film", "2024"]


def test_thoughts_that_a_template_takes_away_are_learned_only_as_the_last(tmp_path):
    tokenizer = tokenizer_in(tmp_path / "t")
    thought = "<think>\nil\n</think>\n"
    messages = said("a", thought + "film", "b", thought + "2024")
    with process(TEMPLATES["thinking"], tokenizer) as template:
        found = encoding.encode_dialogue(json.dumps({"messages": messages}), template, tokenizer, "f:1")
    assert learned(tokenizer, found) == [thought + "2024<|im_end|>"] and found.missed == 1


def test_a_template_writes_the_day_that_it_is_told_and_tools_as_json(tmp_path):
    tokenizer = tokenizer_in(tmp_path / "t")
    with process(TEMPLATES["trimming"], tokenizer) as template:
        (text,), _ = template.texts(said("a"), [(1, True)], [{"name": "<\u4e2d>", "a": 1}])
    assert text.startswith('<|begin|>Tools: [{"name": "<\u4e2d>", "a": 1}]\nToday: 26 Jul 2024\n')


def test_a_template_that_refuses_says_why(tmp_path):
    tokenizer = tokenizer_in(tmp_path / "t")
    messages = [{"role": "system", "content": "x"}, *said("a", "b")]
    with process(TEMPLATES["strict"], tokenizer) as template, pytest.raises(DataError) as caught:
        encoding.encode_dialogue(json.dumps({"messages": messages}), template, tokenizer, "f.jsonl:2")
    assert str(caught.value) == "f.jsonl:2: here: its chat template refuses it: System role not supported"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_costs_an_error_and_seconds(name):
    text, what = HOSTILE[name]
    started = time.monotonic()
    with (
        pytest.raises(DataError, match="its chat template") as caught,
        ChatTemplate(text, {}, date=DAY, source="here") as template,
    ):
        template.prompt(said("a"))
    assert what in str(caught.value) and "\n" not in str(caught.value)
    assert time.monotonic() - started < 60  # five seconds of computing, on a machine that does other things


def test_a_process_that_was_ended_is_started_anew(tmp_path):
    text = "{% if messages[0].content == 'x' %}" + HOSTILE["loop"][0] + "{% endif %}fine"
    with ChatTemplate(text, {}, date=DAY, source="here") as template:
        assert template.prompt(said("a")) == "fine"
        with pytest.raises(DataError, match="more time"):
            template.prompt(said("x"))
        assert template.prompt(said("a")) == "fine"


def test_what_was_interrupted_is_not_the_answer_to_the_next(monkeypatch):
    with ChatTemplate("{{ messages[0].content }}", {}, date=DAY, source="here") as template:

        def interrupted(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("select.select", interrupted)
            with pytest.raises(KeyboardInterrupt):
                template.prompt(said("first"))
        assert template.prompt(said("second")) == "second"


def test_a_template_is_rendered_far_from_the_environment(monkeypatch):
    monkeypatch.setenv("ZOO_SECRET", "secret")
    with ChatTemplate("x", {}, date=DAY, source="here") as template:
        folder = Path("/proc") / str(template._process.pid)
        if not folder.exists():
            pytest.skip("no /proc to look into")
        assert b"ZOO_SECRET" not in (folder / "environ").read_bytes()
        assert os.readlink(folder / "cwd") == "/"


def test_a_template_without_answers_in_their_places_is_refused(tmp_path):
    tokenizer = tokenizer_in(tmp_path / "t")
    text = "{{ messages | map(attribute='content') | join }}{% if add_generation_prompt %}?{% endif %}"
    with process(text, tokenizer) as template, pytest.raises(DataError, match="put {% generation %}"):
        encoding.encode_dialogue(json.dumps({"messages": said("Hi", "Hello")}), template, tokenizer, "f:1")


# --- sets of dialogues ----------------------------------------------------------------------------


def file_of(path, dialogues) -> str:
    lines = "".join(json.dumps({"messages": each}) + "\n" for each in dialogues)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return str(path)


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
