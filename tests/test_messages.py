"""Messages out of records in every shape that people publish them in."""

import json

import pytest
from dialogues import said

from zoo.data.dialogues.messages import dialogue_of, key_of
from zoo.errors import DataError

ASKED = said("Hi", "Hello")
SHAPES = {
    "messages": ({"messages": ASKED}, ASKED),
    "parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "H"}, {"text": "i"}]}, ASKED[1]]},
        ASKED,
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "id": "7"},
        ASKED,
    ),
    "sharegpt's system": (
        {
            "system": "Be kind.",
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
        },
        [{"role": "system", "content": "Be kind."}, *ASKED],
    ),
    "alpaca": ({"instruction": "Hi", "input": "", "output": "Hello"}, ASKED),
    "alpaca's input": (
        {"instruction": "Add.", "input": "1 2", "output": "3", "text": "all of it"},
        said("Add.\n\n1 2", "3"),
    ),
    "dolly": ({"instruction": "Add.", "context": "1 2", "response": "3"}, said("Add.\n\n1 2", "3")),
    "orca": (
        {"system_prompt": "Be.", "question": "Hi", "response": "Hello"},
        [{"role": "system", "content": "Be."}, *ASKED],
    ),
    "history": (
        {"instruction": "and?", "output": "no", "history": [["Hi", "Hello"]]},
        [*ASKED, *said("and?", "no")],
    ),
    "system beside messages": (
        {"system": "Be.", "messages": ASKED},
        [{"role": "system", "content": "Be."}, *ASKED],
    ),
    "nulls": (
        {"messages": [each | {"tool_calls": None, "name": None} for each in ASKED], "tools": None},
        ASKED,
    ),
    "capitals": ({"messages": [each | {"role": each["role"].title()} for each in ASKED]}, ASKED),
    "what follows the last answer": ({"messages": [*ASKED, *said("and?")]}, ASKED),
    "prompt": ({"prompt": "Hi", "completion": "Hello"}, ASKED),
    "prompt of messages": ({"prompt": ASKED[:1], "completion": ASKED[1:]}, ASKED),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_record_of_any_shape_is_its_messages(shape):
    record, messages = SHAPES[shape]
    assert json.loads(dialogue_of(record, "f:1"))["messages"] == messages


def test_tools_and_their_calls_are_kept_for_the_template():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    record = {"messages": [*said("Hi"), call], "tools": '[{"name": "f"}]'}
    found = json.loads(dialogue_of(record, "f:1"))
    assert found["tools"] == [{"name": "f"}]
    assert found["messages"][1] == {name: call[name] for name in ("role", "tool_calls")}


@pytest.mark.parametrize(
    ("record", "what"),
    [
        ({"text": "Hi"}, "no dialogue by its keys ('text')"),
        ({"messages": []}, '"messages" is no list of messages'),
        ({"messages": ["Hi"]}, '"messages"[0] is a JSON str, not an object'),
        ({"messages": said("Hi")}, "no message of the role assistant"),
        ({"messages": [{"role": "bot", "content": "Hi"}]}, "role='bot' is none of system"),
        ({"messages": [{"role": "user", "content": 3}]}, '"content" is a JSON int, not a string'),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "a part of its content is of the kind 'image_url', not text",
        ),
        ({"messages": ASKED, "tools": "{"}, "is a string that is not JSON"),
        ({"messages": ASKED, "tools": {"a": 1}}, "is a JSON dict, not a list"),
        ({"messages": said("\ud800", "x")}, "half of a surrogate pair"),
        ({"instruction": "Hi", "output": None}, '"output" is a JSON NoneType'),
    ],
)
def test_a_record_that_is_no_dialogue_is_refused_in_a_line(record, what):
    with pytest.raises(DataError) as caught:
        dialogue_of(record, "f.jsonl:7")
    assert str(caught.value).startswith("f.jsonl:7") and what in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", ['{"b": 1, "a": "x"}', {"b": 1, "a": "x"}])
def test_arguments_are_an_object_in_their_order(arguments):
    """OpenAI writes them as a string, which a template would write as a string of a string."""
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    record = {"messages": [*said("Hi"), {"role": "assistant", "tool_calls": [call]}]}
    text = dialogue_of(record, "f:1")
    found = json.loads(text)["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert list(found.items()) == [("b", 1), ("a", "x")]


def test_a_call_of_sharegpts_is_one():
    record = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "function_call", "value": "{}"}]}
    message = json.loads(dialogue_of(record, "f:1"))["messages"][1]
    assert message == {"role": "assistant", "tool_calls": [{"type": "function", "function": {}}]}


def test_equal_dialogues_have_one_key_whatever_the_order_of_their_keys():
    texts = [
        dialogue_of({"messages": [*said("Hi"), dict(sorted(m.items(), reverse=up))]}, "f:1")
        for up in (False, True)
        for m in said("Hello", roles=("assistant",))
    ]
    assert texts[0] != texts[1] and key_of(texts[0]) == key_of(texts[1])


def test_answers_of_weight_0_alone_are_nothing_to_learn():
    with pytest.raises(DataError, match="of the role assistant of weight 1"):
        dialogue_of({"messages": [ASKED[0], ASKED[1] | {"weight": 0}]}, "f:1")
    with pytest.raises(DataError, match="weight=0.5 is neither 0 nor 1"):
        dialogue_of({"messages": [ASKED[0], ASKED[1] | {"weight": 0.5}]}, "f:1")
