"""What a template writes of messages, which tokens are learned, and templates that mean harm."""

import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from dialogues import DAY, process, said, tokenizer_in
from templates import ENDING, HOSTILE, LAST_THINKING, TEMPLATES

from zoo.data.dialogues import encoding
from zoo.data.dialogues.template import ChatTemplate
from zoo.data.tokenizers.byte import ByteTokenizer
from zoo.errors import DataError

each_template = pytest.mark.parametrize("name", TEMPLATES)


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


def test_of_two_marks_that_begin_alike_the_longer_is_found():
    pattern = encoding.spellings({"<|end|>": 1, "<|end|>\n": 2})
    assert pattern.findall("a<|end|>\nb<|end|>c") == ["<|end|>\n", "<|end|>"]


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
