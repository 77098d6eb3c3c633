"""Renders a chat template, in a process of its own: `python -I rendering.py`, which template.py starts.

A template is a program, written by whoever published a folder. Two walls are around it: jinja2's sandbox
keeps it from Python's objects, and this process from taking more than its share of time and memory, for in a
sandbox too a loop in a loop takes years and a doubled string all there is. One JSON object on a line comes
in, one goes out:

    {"template": "...", "variables": {"eos_token": "..."}, "date": "2024-07-26"}     first
    {"ready": true}                                                                   or {"error": "..."}

    {"messages": [...], "cuts": [[1, true], [2, false]], "tools": null}               for every dialogue
    {"texts": ["...", "..."], "spans": [[...], [...]]}

A cut is a number of messages, and whether an answer is to come after them. The environment (what blocks leave
of white space, the filter tojson, raise_exception, strftime_now, {% generation %}) is the one that templates
are written for, transformers'.

It imports nothing of zoo, so that it starts in a tenth of a second.
"""

import contextlib
import datetime
import json
import re
import resource
import signal
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

MEMORY = 1 << 30  # bytes
SECONDS = 5.0  # of computing, the system's for it counted too, for one request
LONGEST = 1 << 24  # characters of one text
# Around an answer that the template marks. No characters of any text: encoding.py lets none in.
OPEN, CLOSE = "\ufdd1", "\ufdd2"
SIGNS = re.compile(f"([{OPEN}{CLOSE}])")


class Refused(Exception):
    """What a template says by raise_exception."""


class Answers(jinja2.ext.Extension):
    """{% generation %} ... {% endgeneration %}: what is inside is an answer."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller):
        return OPEN + caller() + CLOSE


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    """JSON as it is, where jinja2's own filter writes HTML's escapes."""
    settings = {"ensure_ascii": ensure_ascii, "indent": indent, "sort_keys": sort_keys}
    return json.dumps(value, separators=separators, **settings)


def refuse(message):
    raise Refused(str(message))


def compiled(template: str, date: str):
    """The template, in the environment that it is written for."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Answers, jinja2.ext.loopcontrols]
    )
    day = datetime.datetime.fromisoformat(date)
    environment.filters["tojson"] = tojson
    environment.globals |= {"raise_exception": refuse, "strftime_now": day.strftime}
    return environment.from_string(template)


def rendered(template, variables: dict, request: dict) -> dict:
    """The texts of all cuts, and in each what the template marks as answers."""
    texts, spans = [], []
    given = {"tools": request.get("tools"), "documents": None}
    for count, is_asked in request["cuts"]:
        messages = request["messages"][:count]
        text = template.render(messages=messages, add_generation_prompt=is_asked, **given, **variables)
        if len(text) > LONGEST:
            raise Refused(f"its text has {len(text):,} characters, more than {LONGEST:,}")
        text, marked = unmarked(text)
        texts.append(text)
        spans.append(marked)
    return {"texts": texts, "spans": spans}


def unmarked(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without the signs around its answers, and where these stand then."""
    pieces, spans, length = [], [], 0
    depth = begun = 0
    for piece in SIGNS.split(text):
        if piece == OPEN:
            begun = begun if depth else length
            depth += 1
        elif piece == CLOSE:
            depth -= 1
            spans += [] if depth else [(begun, length)]
        else:
            pieces.append(piece)
            length += len(piece)
    return "".join(pieces), spans


def answered(function, *arguments) -> str:
    """What a function makes of its arguments as JSON, or {"error": one line of what went wrong}."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # which ends this process: nothing can catch it
    try:
        return json.dumps(function(*arguments))
    except Refused as error:
        text = f"refuses it: {said(error)}"
    except jinja2.TemplateSyntaxError as error:
        text = f"cannot be read (line {error.lineno}: {said(error.message)})"
    except jinja2.sandbox.SecurityError as error:
        text = f"does what no template may ({said(error)})"
    except MemoryError:
        text = f"takes more than {MEMORY >> 20} MiB of memory"
    except RecursionError:
        text = "calls itself without end"
    except Exception as error:  # whatever a program may do wrong: a name that is not there, "a" + 1
        text = f"fails ({type(error).__name__}: {said(error)})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return json.dumps({"error": text})


def said(what) -> str:
    """What a template says of itself, on a part of a line that a terminal shows as it is."""
    text = " ".join(str(what).split())
    return "".join(character for character in text if character.isprintable())[:200]


def main() -> None:
    """Answers the lines of standard input, the first of which brings the template."""
    with contextlib.suppress(ValueError, OSError):  # where an operating system has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    first, made = json.loads(sys.stdin.readline()), []

    def begin():
        made.append(compiled(first["template"], first["date"]))
        return {"ready": True}

    print(answered(begin), flush=True)
    for line in sys.stdin:
        print(
            answered(lambda text: rendered(made[0], first["variables"], json.loads(text)), line), flush=True
        )


if __name__ == "__main__":
    main()
