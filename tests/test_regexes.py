"""No regular expression in zoo takes a text's length squared: each is given texts that are there for that."""

import ast
import collections
import re
import time

import pytest
from test_banned import called
from test_house import ROOT, SOURCES

LENGTH = 1 << 15  # the square of it takes a third of a second and more
SECONDS = 0.15
SAME = (
    "a",
    "1",
    " ",
    "\n",
    ".",
    "\t",
    "\u4e2d",
    "\u0300",
    "-",
    ". ",
    "a ",
    "IN:",
    "OUT:",
    "IN: OUT:",
    "layer_",
)
TEXTS = [same * (LENGTH // len(same)) for same in SAME]
TEXTS = [f"{before}{text}{behind}" for text in TEXTS for before, behind in (("", "!"), (". ", "\0"))]
# Matched against whole lines only; and against a line that a library says of a disk.
WHOLE = ("zoo/data/examples/records/scan.py", "zoo/errors.py")
BLOCKS = {"CHINESE": "\u3400-\u4dbf\u4e00-\u9fff", "OPEN": "\ufdd1", "CLOSE": "\ufdd2"}  # what f-strings name


def expressions() -> dict[str, str]:
    """{pattern: where} of all in the sources but the planner's, which reads what XLA writes, and a fault's,
    which is there to take for ever."""
    found = {}
    for path in SOURCES:
        if "plan" in path.parts or path.name == "faults.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            function = getattr(node, "func", None)
            if called(function).startswith("re.") and node.args:
                if (pattern := literal(node.args[0])) is not None:
                    found[pattern] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


def literal(node: ast.AST) -> str | None:
    """The text of a string, or of an f-string of BLOCKS."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return None
    parts = []
    for each in node.values:
        name = getattr(getattr(each, "value", None), "id", None)
        if not isinstance(each, ast.Constant) and name not in BLOCKS:
            return None
        parts.append(each.value if isinstance(each, ast.Constant) else BLOCKS[name])
    return "".join(parts)


@pytest.mark.parametrize(("pattern", "where"), expressions().items(), ids=expressions().values())
def test_it_takes_no_longer_than_a_text_is_long(pattern, where):
    made = re.compile(pattern)
    for text in TEXTS:
        started = time.process_time()
        made.fullmatch(text)
        if not where.startswith(WHOLE):
            collections.deque(made.finditer(text), maxlen=0)
        assert time.process_time() - started < SECONDS, text[:20]


def test_an_expression_that_does_would_be_seen():
    started = time.process_time()
    re.search(r"a+b", "a" * LENGTH)
    assert time.process_time() - started > SECONDS
