"""Chat templates: how a model wants a dialogue written.

A folder says it in the language of jinja2 (tokenizers/published.py finds it); a model that was never shown
dialogues has no template and learns PLAIN. What a template does is done in a process with limits
(rendering.py), so that a folder from anywhere can do no harm.
"""

import json
import os
import select
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo.data.dialogues.messages import Message
from zoo.errors import DataError

SECONDS = 60.0  # for an answer; its process ends itself after five of computing
KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # of the environment: what Python may need to start

OPEN, CLOSE = "\ufdd1", "\ufdd2"  # what rendering.py puts around the answers that a template marks

RENDERING = Path(__file__).with_name("rendering.py")

# For models that have no other, in words alone and one end of text after each answer:
#
#   System: You know Python.
#   User: What does len return?
#   Assistant: the number of items<|endoftext|>
PLAIN = """\
{%- for message in messages %}
{{- message.role | capitalize + ":\\n" + message.content }}
{%- if message.role == "assistant" %}{{ eos_token }}{% endif %}
{{- "\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "Assistant:\\n" }}{% endif %}
"""


class LimitError(DataError):
    """A template that was ended, and would be for every other dialogue."""


class ChatTemplate:
    """A template that renders dialogues; `variables` are the marks that it may name (eos_token), `date` is
    the day, as 2024-07-26, that it takes for today. A context manager: it holds a process.

    Raises DataError, with `source` for the template's name, where it is no template.
    """

    def __init__(self, text: str, variables: Mapping[str, str], *, date: str, source: str):
        self.text, self.source = text, source
        self._first = {"template": text, "variables": dict(variables), "date": date}
        self._start()

    def _start(self):
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(RENDERING)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            cwd="/",
            env={name: os.environ[name] for name in KEPT if name in os.environ},
            start_new_session=True,  # Ctrl-C in a terminal is for this process alone
        )
        self._finalizer = weakref.finalize(self, end, self._process)
        self._asked(self._first)

    def __enter__(self) -> "ChatTemplate":
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Ends its process."""
        self._finalizer()

    def texts(
        self, messages: Sequence[Message], cuts: Sequence[tuple[int, bool]], tools: list | None = None
    ) -> tuple[list[str], list[list[tuple[int, int]]]]:
        """For each cut (number of messages, whether an answer is to come) the text of so many messages, and
        the spans [start, end) in it that the template itself marks as answers. Raises DataError in one line
        where the template refuses, fails, or takes too much."""
        reply = self._asked({"messages": list(messages), "cuts": list(cuts), "tools": tools})
        return reply["texts"], [[tuple(span) for span in spans] for spans in reply["spans"]]

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text after which an answer to these messages comes."""
        (text,), _ = self.texts(messages, [(len(messages), True)])
        return text

    def _asked(self, request: dict) -> dict:
        if self._process.poll() is not None:  # it was ended by what it was asked before
            self.close()
            self._start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            is_there, _, _ = select.select([self._process.stdout], [], [], SECONDS)
            line = self._process.stdout.readline() if is_there else ""
        except OSError:
            line = ""
        except BaseException:  # Ctrl-C: the answer to this must not be taken for that to the next
            self._process.kill()
            self._process.wait()
            raise
        if not line:
            self._process.kill()
            self._process.wait()
            raise LimitError(
                f"{self.source}: its chat template took more time or memory than any takes, and was ended; "
                "give another with a .jinja file"
            )
        reply = json.loads(line)
        if "error" in reply:
            raise DataError(f"{self.source}: its chat template {reply['error']}")
        return reply


def end(process: subprocess.Popen) -> None:
    """Its input ends, and so does it."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        try:
            pipe.close()
        except OSError:  # what was not sent to it any more
            pass
