"""Messages out of one record, in the shapes that people publish them in.

    {"messages": [{"role": "user", "content": "..."}, ...]}              OpenAI's and transformers' own
    {"conversations": [{"from": "human", "value": "..."}, ...]}          ShareGPT's
    {"instruction": "...", "input": "...", "output": "..."}               Alpaca's (input may be left out)
    {"prompt": "...", "completion": "..."}                                and lists of messages in these

"system" beside any but the first is the message before the others. What a message says beside its role and
content ("tool_calls", "name"), and the record's "tools", is kept for templates that read it.
"""

import json
from typing import Any

from zoo.errors import DataError

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
SHAREGPT = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "function": "tool",
    "observation": "tool",
}
REMEDY = (
    'a dialogue is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": '
    "\"...\"}]}, or ShareGPT's conversations, Alpaca's instruction and output, or prompt and completion"
)


def dialogue_of(record: dict[str, Any], where: str) -> str:
    """A record's dialogue as JSON, the same for the same messages: {"messages": [...]}, with "tools" where it
    has some. Raises DataError for what is no dialogue, or has no answer to learn."""
    found = {"messages": messages_of(record, where)}
    if not any(message["role"] == "assistant" for message in found["messages"]):
        raise DataError(
            f"{where}: no message of the role assistant, so that nothing can be learned; {REMEDY}"
        )
    tools = record.get("tools")
    if isinstance(tools, str):  # ShareGPT's files hold them as JSON in JSON
        tools = json_of(tools, f'{where}: "tools"')
    if tools is not None and not isinstance(tools, list):
        raise DataError(
            f'{where}: "tools" is a JSON {type(tools).__name__}, not a list; give a list of tools'
        )
    if tools:
        found["tools"] = tools
    text = json.dumps(found, ensure_ascii=False, sort_keys=True)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: has half of a surrogate pair; replace it") from None
    return text


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
            listed = record[key]
            if not isinstance(listed, list) or not listed:
                raise DataError(f'{where}: "{key}" is no list of messages; {REMEDY}')
            made = [message(each, f'{where}: "{key}"[{i}]') for i, each in enumerate(listed)]
            return made if key == "messages" else with_system(record, made, where)
    if "output" in record and ("instruction" in record or "input" in record):
        asked = [string(record.get(key) or "", f'{where}: "{key}"') for key in ("instruction", "input")]
        made = pair(
            "\n\n".join(each for each in asked if each), string(record["output"], f'{where}: "output"')
        )
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


def message(given, where: str) -> Message:
    """One message with a role of ROLES and a content that is a string, or null beside "tool_calls"."""
    if not isinstance(given, dict):
        raise DataError(f"{where} is a JSON {type(given).__name__}, not an object; {REMEDY}")
    names = ("from", "value") if "from" in given and "role" not in given else ("role", "content")
    role, content = (given.get(name) for name in names)
    role = SHAREGPT.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise DataError(f"{where}: {names[0]}={role!r:.80} is none of {', '.join(ROLES)}; rename it")
    if content is None and given.get("tool_calls"):
        content = ""
    elif isinstance(content, list):
        content = "".join(part(each, where) for each in content)
    kept = {key: value for key, value in given.items() if key not in ("from", "value")}
    return kept | {"role": role, "content": string(content, f'{where}: "{names[1]}"')}


def part(given, where: str) -> str:
    """The text of one of a content's parts; there are no others that a language model reads."""
    if isinstance(given, dict) and given.get("type", "text") == "text" and isinstance(given.get("text"), str):
        return given["text"]
    kind = given.get("type") if isinstance(given, dict) else type(given).__name__
    raise DataError(f"{where}: a part of its content is of the kind {kind!r:.80}, not text; leave it out")


def side(given, role: str, where: str) -> list[Message]:
    """A prompt or a completion: a text, or messages."""
    if isinstance(given, list) and given:
        return [message(each, f"{where}[{i}]") for i, each in enumerate(given)]
    return [{"role": role, "content": string(given, where)}]


def pair(asked: str, answered: str) -> list[Message]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def with_system(record: dict[str, Any], messages: list[Message], where: str) -> list[Message]:
    """The messages behind the record's "system", if it says something."""
    system = record.get("system")
    if not system or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": string(system, f'{where}: "system"')}, *messages]


def string(value, what: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{what} is a JSON {type(value).__name__}, not a string; quote it")
    return value
