"""Questions about a function whose exact answer the syntax tree gives.

def open_url(name, timeout=30):
    if not name:
        raise ValueError("no name")                 What does open_url raise?           ValueError
    return fetch(name, timeout)                     What does open_url return?          fetch(name, timeout)
                                                    What is the default of timeout?     30

Only what has one answer is asked: one return, one exception. Answers stand on one line, and have a letter or
a digit, as what has neither is nothing to SQuAD's measures.
"""

import ast
import zlib
from collections.abc import Iterator, Sequence

Function = ast.FunctionDef | ast.AsyncFunctionDef
Question = tuple[str, int, int]  # and where in the source its answer begins and ends


def asked(function: Function, source: Sequence[str]) -> Iterator[Question]:
    """At most three questions about a function, whose source these lines are."""
    for question, node in _questions(function):
        if node.end_lineno != node.lineno:
            continue
        line = node.lineno - function.lineno
        before = sum(len(each) + 1 for each in source[:line])
        start, end = (_characters(source[line], column) for column in (node.col_offset, node.end_col_offset))
        if any(character.isalnum() for character in source[line][start:end]):
            yield question, before + start, before + end


def _questions(function: Function) -> Iterator[tuple[str, ast.expr]]:
    """Each with the expression that answers it; of several defaults one, chosen by the function's name."""
    defaults = list(_defaults(function.args))
    if defaults:
        name, node = defaults[zlib.crc32(function.name.encode()) % len(defaults)]
        yield f"What is the default of {name}?", node
    inner = list(_nodes(function))
    returned = [node.value for node in inner if isinstance(node, ast.Return) and node.value]
    if len(returned) == 1:
        yield f"What does {function.name} return?", returned[0]
    raised = [node.exc for node in inner if isinstance(node, ast.Raise) and node.exc]
    if len(raised) == 1:
        exception = raised[0]
        yield (
            f"What does {function.name} raise?",
            exception.func if isinstance(exception, ast.Call) else exception,
        )


def _defaults(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr]]:
    positional = arguments.posonlyargs + arguments.args
    late = positional[len(positional) - len(arguments.defaults) :]
    yield from ((argument.arg, node) for argument, node in zip(late, arguments.defaults, strict=True))
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    yield from ((argument.arg, node) for argument, node in named if node is not None)


def _nodes(function: Function) -> Iterator[ast.AST]:
    """What belongs to a function and not to one inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def _characters(line: str, column: int) -> int:
    """A column of the syntax tree, which counts bytes, in characters."""
    return len(line.encode()[:column].decode())
