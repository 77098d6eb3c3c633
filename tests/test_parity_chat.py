"""Dialogues as transformers writes them by the same templates: the same tokens, the same answers.
Skipped where transformers is not installed; test_dialogues.py has what needs none."""

import datetime
import json
import random

import numpy as np
import pytest
from dialogues import said, tokenizer_in
from templates import ENDING, LAST_THINKING, TEMPLATES
from test_chat import folder_of

import zoo
from zoo.__main__ import main
from zoo.data.dialogues.encoding import encode_dialogue, encode_prompt, variables_of
from zoo.data.dialogues.messages import dialogue_of
from zoo.data.dialogues.template import ChatTemplate
from zoo.data.tokenizers.published import TEMPLATE

pytestmark = pytest.mark.parity
ALL = TEMPLATES | {"ending": ENDING, "last thinking": LAST_THINKING}
each_template = pytest.mark.parametrize("name", ALL)
ALPHABET = "film 2024,.\n\t\u00e9\u4e2d\u6587\U0001f600<|>_"


@pytest.fixture
def auto(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("transformers").AutoTokenizer


def both(auto, folder, template):
    """Our tokenizer and our template at work, and transformers' tokenizer, of one folder."""
    tokenizer = tokenizer_in(folder, template)
    today = datetime.date.today().isoformat()  # transformers knows no other day
    ours = ChatTemplate(template, variables_of(tokenizer), date=today, source="here")
    return tokenizer, ours, auto.from_pretrained(folder)


def dialogues(count: int):
    """Messages at random, of scripts, blanks and pieces of marks; none of a whole mark."""
    draw = random.Random(5)
    for _ in range(count):
        texts = [
            "".join(draw.choices(ALPHABET, k=draw.randint(1, 30))) for _ in range(2 * draw.randint(1, 3))
        ]
        yield said(*texts)


@each_template
def test_the_tokens_of_dialogues_and_prompts_are_transformers(name, tmp_path, auto):
    tokenizer, ours, theirs = both(auto, tmp_path / "t", ALL[name])
    with ours:
        for messages in dialogues(40):
            want = theirs.apply_chat_template(messages, return_dict=False)
            found = encode_dialogue(json.dumps({"messages": messages}), ours, tokenizer, "f:1")
            assert found.ids.tolist() == want
            asked = theirs.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
            assert encode_prompt(messages[:-1], ours, tokenizer) == asked


CALLS = """\
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
    {%- for call in message.tool_calls or [] %}{{ call.function | tojson(indent=1) }}{% endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""


def test_tools_and_calls_of_a_record_are_written_as_transformers_writes_them(tmp_path, auto):
    """In the order of their keys, whatever is null left out."""
    tokenizer, ours, theirs = both(auto, tmp_path / "t", CALLS)
    tools = [{"type": "function", "function": {"name": "f", "description": "<\u4e2d> & 'x'"}}]
    call = {"type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": "x"}}}
    messages = [*said("a"), {"role": "assistant", "tool_calls": [call]}]
    messages += [{"role": "tool", "content": "1", "name": "f"}, {"role": "assistant", "content": "one"}]
    nulls = [each | {"tool_calls": each.get("tool_calls"), "weight": None} for each in messages]
    with ours:
        text = dialogue_of({"messages": nulls, "tools": tools}, "f:1")
        found = encode_dialogue(text, ours, tokenizer, "f:1")
    assert found.ids.tolist() == theirs.apply_chat_template(messages, tools=tools, return_dict=False)


@pytest.mark.parametrize("name", ["marking", "chatml"])
def test_what_is_learned_is_transformers_mask_of_the_assistant(name, tmp_path, auto):
    """Of a template that marks its answers; and one that does not has the same as its twin that does."""
    tokenizer, ours, _ = both(auto, tmp_path / "t", TEMPLATES[name])
    tokenizer_in(tmp_path / "marking", TEMPLATES["marking"])
    theirs = auto.from_pretrained(tmp_path / "marking")
    with ours:
        for messages in dialogues(40):
            want = theirs.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
            found = encode_dialogue(json.dumps({"messages": messages}), ours, tokenizer, "f:1")
            assert found.ids.tolist() == want["input_ids"]
            np.testing.assert_array_equal(found.is_answer, np.array(want["assistant_masks"], bool))


def test_an_exported_folder_brings_its_template_to_transformers(tmp_path, auto):
    source = folder_of(tmp_path / "m", TEMPLATES["trimming"])
    assert main(["export", str(source), str(tmp_path / "out")]) == 0
    theirs, ours = auto.from_pretrained(tmp_path / "out"), zoo.from_pretrained(source)[2]
    assert theirs.chat_template == ours.chat_template == (tmp_path / "out" / TEMPLATE).read_text()
