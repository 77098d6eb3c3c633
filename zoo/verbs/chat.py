"""chat: a dialogue in the terminal, or with the lines of standard input."""

import dataclasses
import datetime
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from zoo.data.dialogues.dialogue_set import require_jinja2
from zoo.data.dialogues.encoding import variables_of
from zoo.data.dialogues.template import ChatTemplate
from zoo.data.files import read_text
from zoo.errors import ConfigError, DataError, UserError
from zoo.inference.apart import apart
from zoo.inference.chat import Chat
from zoo.inference.stop import Stop, continuation
from zoo.pretrained import chat_template_of, with_tokenizer
from zoo.verbs.generate import sampling_of, shown

HELP = "/new forgets what was said, /undo the last question, /system TEXT begins anew under it, /system \
without one, /quit leaves; Ctrl-C ends an answer; a line that ends in \\ goes on; // begins a line with /"


def chat(options) -> dict:
    """Answers one message after the other until there are no more."""
    require_jinja2()
    if options.tokens < 1:
        raise ConfigError(f"--tokens={options.tokens} must be at least 1")
    if options.seed is not None and not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed={options.seed} must be at least 0 and less than {2**32}")
    sampling, seed = sampling_of(options), options.seed or 0
    source, text = template_of(options)
    if not text:
        raise ConfigError(
            f"{options.model} has no chat template, which models have that were fine-tuned on dialogues; "
            "give one with --template, or fine-tune it: train.py llama_chat --init FOLDER"
        )
    model, params, tokenizer = with_tokenizer(options.model, options.adapter, options.weights)
    model, params = apart(model, params)
    stop = Stop(tuple(options.stop), tokenizer) if options.stop else None
    started, turns, written = time.monotonic(), 0, 0
    today = datetime.date.today().isoformat()
    with ChatTemplate(text, variables_of(tokenizer), date=today, source=source) as template:
        talk = Chat(model, params, tokenizer, template, begun(options.system))
        for line in lines():
            if line.startswith("/") and not line.startswith("//"):
                if not obeyed(talk, line):
                    break
                continue
            message = line.removeprefix("/") if line.startswith("//") else line
            settings = {"sampling": sampling, "seed": (seed + turns) % 2**32, "stop": stop}
            settings |= {"max_new_tokens": options.tokens, "cache_dtype": options.cache}
            try:
                prompt, pieces = talk.ask(message, **settings)
            except UserError as error:
                if not sys.stdin.isatty():
                    raise
                note(f"error: {error}")
                continue
            if talk.forgotten:
                note(f"(the oldest {talk.forgotten} messages are out of the model's context)")
            answer = shown(prompt, pieces, tokenizer, stop)
            new = continuation(tokenizer, prompt, answer.tokens)
            talk.answered(new if stop is None else stop.cut(new))
            turns, written = turns + 1, written + len(answer.tokens)
    report = {"model": options.model} | dataclasses.asdict(sampling) | {"seed": seed}
    report |= {"turns": turns, "new_tokens": written, "messages": talk.messages}
    return report | {"seconds": round(time.monotonic() - started, 2)}


def template_of(options) -> tuple[str, str]:
    """(where it is from, the chat template): the one asked for, else the adapter's, else the model's."""
    if options.template:
        return options.template, read_text(Path(options.template))
    if options.adapter and (text := chat_template_of(options.adapter)):
        return options.adapter, text
    return options.model, chat_template_of(options.model)


def begun(system: str) -> list[dict]:
    """A dialogue before its first question."""
    return [{"role": "system", "content": system}] if system else []


def obeyed(talk: Chat, line: str) -> bool:
    """Does what a line beginning with / says; False where that is to leave."""
    command, _, rest = line.partition(" ")
    if command in ("/quit", "/exit"):
        return False
    if command == "/new":
        talk.messages = [message for message in talk.messages[:1] if message["role"] == "system"]
    elif command == "/undo":
        talk.undo()
    elif command == "/system":
        talk.messages = begun(rest.strip())
    else:
        note(HELP)
    return True


def lines() -> Iterator[str]:
    """The messages: typed after a prompt, or the lines of standard input that are not blank."""
    is_typed = sys.stdin.isatty()
    if is_typed:
        import readline  # noqa: F401 - arrow keys in input()

        note(HELP)
    whole = ""
    while True:
        try:
            line = input("> " if not whole else ". ") if is_typed else next(sys.stdin).rstrip("\n")
        except (EOFError, StopIteration):
            break
        except UnicodeDecodeError as error:
            raise DataError(f"standard input is no UTF-8 ({error.reason}); convert it") from None
        whole += line
        if whole.endswith("\\"):
            whole = whole[:-1] + "\n"
            continue
        if whole.strip():
            yield whole
        whole = ""
    if whole.strip():
        yield whole


def note(text: str) -> None:
    print(text, file=sys.stderr)
