"""Messages out of one record, in the shapes that people publish them in.

    {"messages": [{"role": "user", "content": "..."}, ...]}              OpenAI's and transformers' own
    {"conversations": [{"from": "human", "value": "..."}, ...]}          ShareGPT's
    {"instruction": "...", "input": "...", "output": "..."}               Alpaca's, and Dolly's
    {"prompt": "...", "completion": "..."}                                and lists of messages in these

"system" beside any is the message before the others, and Alpaca's "history" the turns. What a message says
beside its role and content ("tool_calls", "name"), and the record's "tools", is kept for templates that read
it, in its order; what is null is left out, as transformers does. "weight": 0 beside an answer keeps it from
being learned.
"""

import hashlib
import json
from typing import Any

from zoo.errors import DataError

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
OTHER_NAMES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
CALL = "function_call"  # ShareGPT's role of a message that is nothing but a call, as JSON
# (what is asked, in one key or two, what is answered)
PAIRS = (
    (("instruction", "input"), "output"),
    (("input",), "output"),
    (("instruction", "context"), "response"),
    (("question",), "response"),
)
REMEDY = (
    'a dialogue is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": '
    "\"...\"}]}, or ShareGPT's conversations, Alpaca's instruction and output, or prompt and completion"
)


def dialogue_of(record: dict[str, Any], where: str) -> str:
    """A record's dialogue up to its last answer as JSON: {"messages": [...]}, with "tools" where it has some.
    Raises DataError for what is no dialogue, or has no answer to learn."""
    messages = messages_of(record, where)
    answers = [i for i, message in enumerate(messages) if is_learned(message)]
    if not answers:
        what = "of weight 1" if any(message["role"] == "assistant" for message in messages) else ""
        raise DataError(
            f"{where}: no message of the role assistant {what}, so that nothing can be learned; {REMEDY}"
        )
    found = {"messages": messages[: answers[-1] + 1]}
    tools = record.get("tools")
    if isinstance(tools, str):  # ShareGPT's files hold them as JSON in JSON
        tools = json_of(tools, f'{where}: "tools"')
    if tools is not None and not isinstance(tools, list):
        raise DataError(
            f'{where}: "tools" is a JSON {type(tools).__name__}, not a list; give a list of tools'
        )
    if tools:
        found["tools"] = tools
    text = json.dumps(found, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: has half of a surrogate pair; replace it") from None
    return text


def key_of(text: str) -> str:
    """What equal dialogues share, whatever the order of keys in their JSON."""
    return hashlib.sha256(json.dumps(json.loads(text), sort_keys=True).encode()).hexdigest()


def is_learned(message: Message) -> bool:
    return message["role"] == "assistant" and message.get("weight", 1) != 0


def json_of(text: str, what: str):
    """What a string of JSON says."""
    try:
        return json.loads(text) if text.strip() else None
    except (ValueError, RecursionError):
        raise DataError(f"{what} is a string that is not JSON; give a list of tools") from None


def messages_of(record: dict[str, Any], where: str) -> list[Message]:
    """The messages of a record, whichever shape it has."""
    for key in ("messages", "conversations", "conversation"):
        if key in record:
            return with_system(record, listed(record[key], f'{where}: "{key}"'), where)
    for asked, answered in PAIRS:
        if answered in record and asked[0] in record:
            made = [*history(record.get("history"), where), *pair(record, asked, answered, where)]
            return with_system(record, made, where)
    for key in ("completion", "response"):
        if "prompt" in record and key in record:
            sides = [
                side(record[name], role, f'{where}: "{name}"')
                for name, role in (("prompt", "user"), (key, "assistant"))
            ]
            return with_system(record, [*sides[0], *sides[1]], where)
    keys = ", ".join(map(repr, list(record)[:5])) or "none"
    raise DataError(f"{where}: no dialogue by its keys ({keys}); {REMEDY}")


# --- the parts of a record ------------------------------------------------------------------------


def listed(given, where: str) -> list[Message]:
    if not isinstance(given, list) or not given:
        raise DataError(f"{where} is no list of messages; {REMEDY}")
    return [message(each, f"{where}[{i}]") for i, each in enumerate(given)]


def side(given, role: str, where: str) -> list[Message]:
    """A prompt or a completion: a text, or messages."""
    return listed(given, where) if isinstance(given, list) else [said(role, given, where)]


def pair(record: dict[str, Any], asked: tuple[str, ...], answered: str, where: str) -> list[Message]:
    """A question, in one key or two, and its answer."""
    parts = [string(record.get(key) or "", f'{where}: "{key}"') for key in asked]
    question = said("user", "\n\n".join(part for part in parts if part), where)
    return [question, said("assistant", record[answered], f'{where}: "{answered}"')]


def history(given, where: str) -> list[Message]:
    """Alpaca's turns before: [[question, answer], ...]."""
    if not given:
        return []
    if not isinstance(given, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in given):
        raise DataError(f'{where}: "history" is no list of [question, answer]; leave it out')
    roles = ("user", "assistant")
    return [
        said(role, text, f'{where}: "history"')
        for turn in given
        for role, text in zip(roles, turn, strict=True)
    ]


def with_system(record: dict[str, Any], messages: list[Message], where: str) -> list[Message]:
    """The messages behind the record's "system", if it says something."""
    key = next((key for key in ("system", "system_prompt") if record.get(key)), None)
    if key is None or messages[0]["role"] == "system":
        return messages
    return [said("system", record[key], f'{where}: "{key}"'), *messages]


def said(role: str, content, what: str) -> Message:
    return {"role": role, "content": string(content, what)}


def string(value, what: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{what} is a JSON {type(value).__name__}, not a string; quote it")
    return value


# --- one message ----------------------------------------------------------------------------------


def message(given, where: str) -> Message:
    """One message with a role of ROLES and a content that is a string; without one only beside its calls."""
    if not isinstance(given, dict):
        raise DataError(f"{where} is a JSON {type(given).__name__}, not an object; {REMEDY}")
    names = ("from", "value") if "from" in given and "role" not in given else ("role", "content")
    role, content = (given.get(name) for name in names)
    kept = {key: value for key, value in given.items() if key not in ("from", "value") and value is not None}
    if isinstance(role, str):
        role = OTHER_NAMES.get(role.lower(), role.lower())
    if role == CALL:
        call = json_of(string(content, f'{where}: "{names[1]}"'), f'{where}: "{names[1]}"')
        kept, role, content = {"tool_calls": [{"type": "function", "function": call}]}, "assistant", None
    if role not in ROLES:
        raise DataError(f"{where}: {names[0]}={role!r:.80} is none of {', '.join(ROLES)}; rename it")
    if kept.get("weight", 1) not in (0, 1):
        raise DataError(f"{where}: weight={kept['weight']!r:.80} is neither 0 nor 1; choose one of these")
    if isinstance(kept.get("tool_calls"), list):
        kept["tool_calls"] = list(map(with_arguments, kept["tool_calls"]))
    if content is None and kept.get("tool_calls"):
        return kept | {"role": role}
    if isinstance(content, list):
        content = "".join(part(each, where) for each in content)
    return kept | {"role": role, "content": string(content, f'{where}: "{names[1]}"')}


def with_arguments(call):
    """A call whose arguments are an object, as templates want them, where they are JSON in a string."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    if not isinstance(arguments, dict):
        return call
    return call | {"function": function | {"arguments": arguments}}


def part(given, where: str) -> str:
    """The text of one of a content's parts; there are no others that a language model reads."""
    if isinstance(given, dict) and given.get("type", "text") == "text" and isinstance(given.get("text"), str):
        return given["text"]
    kind = given.get("type") if isinstance(given, dict) else type(given).__name__
    raise DataError(f"{where}: a part of its content is of the kind {kind!r:.80}, not text; leave it out")
