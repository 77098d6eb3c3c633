"""Labelled examples that every Python carries: made of its own library's sources, by kind.

    classify    a function             the package that it comes from
    tag         words of a statement   what the lexer calls each: keyword, name, number, string, ...
    pairs       a function's body      the first line of its docstring
    span        a question about one   the default of a parameter, what is returned, what is raised
    matches     the same two, as a question and the text that answers it

Sources are read and parsed, never executed. A file lies wholly in one part, by the hash that divides the text
in corpus.py, and of copies only the first counts: nothing that validates was seen in training. Like the
text, these examples differ between Python versions.
"""

import ast
import hashlib
import json
import sysconfig
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from zoo.data import stdlib
from zoo.data.cache import Arrays, cached
from zoo.data.corpus import part_digest, split_by_hash
from zoo.data.examples.lexer import statements
from zoo.data.examples.questions import asked
from zoo.data.examples.record import Parts, Record, check_kind, make_record
from zoo.data.files import Document
from zoo.errors import DataError

FORMAT = 2  # of what is cached; raise it when the same sources come to mean other records

NUM_CLASSES = 20  # packages, the most frequent; there may be fewer
LARGEST_CLASS = 0.15  # of a part at most: so much is right for who always says the same
# The lexer is slow (11 s for all the library on 3.11), and modules of up to 12,000 characters are enough: a
# sixth of the text, half of the files. Their statements are taken evenly spaced.
TAGGED_CHARACTERS = 12_000
STATEMENTS_PER_FILE = 48
STATEMENT_WORDS = range(4, 65)
BODY_CHARACTERS = range(20, 1001)
SOURCE_CHARACTERS = range(40, 601)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def stdlib_records(kind: str, valid_fraction: float) -> Parts:
    """Records of this Python's library, "train" and "valid"; from the cache where they were made before.

    Raises DataError for the kind slots, of which there are none, and where a Python lacks its sources.
    """
    check_kind(kind)
    if kind not in MAKERS:
        raise DataError(f"the standard library has no records of kind={kind}; give yours as data.path")
    if not 0 < valid_fraction < 1:
        raise DataError(f"valid_fraction={valid_fraction}: the standard library is undivided; give 0.1 or so")
    modules = stdlib.modules(Path(sysconfig.get_path("stdlib")))
    if len(modules) < 2:
        raise DataError("this Python has no .py sources to make records of; give yours as data.path")
    parts = split_by_hash(modules, valid_fraction)
    digests = [part_digest(parts[part]) for part in ("train", "valid")]
    key = hashlib.sha256(f"{kind} {FORMAT} {stdlib.version()} {digests}".encode()).hexdigest()

    def build() -> Arrays:
        made: Parts = {}
        seen: set[str] = set()
        for part in ("train", "valid"):
            each = (record for module in parts[part] for record in MAKERS[kind](module))
            made[part] = tuple(_first_of_each(each, seen))
        made = balanced(made) if kind == "classify" else made
        if not made["train"]:
            raise DataError(f"this Python's library has no records of kind={kind}; give yours as data.path")
        return _packed(made)

    arrays = cached(f"records-{key[:32]}", build=build, is_sound=_is_sound, names=("json",))
    return _unpacked(arrays)


def classified(module: Document) -> Iterator[Record]:
    """The functions of a package's module; a module that is no package would lie in one part alone."""
    package = module.name.split("/")[1]
    if package.endswith(".py"):
        return
    lines = module.text.split("\n")
    for function in functions(module):
        text = textwrap.dedent("\n".join(lines[function.lineno - 1 : function.end_lineno]))
        yield make_record({"text": text, "label": package}, f"{module.name}:{function.lineno}")


def balanced(parts: Parts) -> Parts:
    """The most frequent labels of those that every part has, and none much more often than others."""
    counts = [Counter(record.fields["label"] for record in records) for records in parts.values()]
    common = set(counts[0]).intersection(*counts[1:])
    kept = sorted(common, key=lambda label: (-sum(count[label] for count in counts), label))[:NUM_CLASSES]
    return {part: tuple(_capped(records, frozenset(kept))) for part, records in parts.items()}


def _capped(records: Sequence[Record], labels: frozenset) -> Iterator[Record]:
    """The records of these labels, of each label so many that it stays below LARGEST_CLASS of them all.

    Which ones is decided by their hash. With too few labels for that (six have a sixth each) all remain.
    """
    of_label: dict = {label: [] for label in labels}
    for record in records:
        if record.fields["label"] in labels:
            of_label[record.fields["label"]].append(record.key)
    sizes = [len(keys) for keys in of_label.values()]
    caps = range(max(sizes, default=0), 0, -1)
    cap = next((n for n in caps if n <= LARGEST_CLASS * sum(min(n, size) for size in sizes)), None)
    kept = {key for keys in of_label.values() for key in sorted(keys)[:cap]}
    return (record for record in records if record.key in kept)


def tagged(module: Document) -> Iterator[Record]:
    """Statements of a short module, with the comments above them, as words and what the lexer calls them."""
    if len(module.text) > TAGGED_CHARACTERS:
        return
    found = [
        (line, words)
        for line, words in statements(module.text)
        if len(words) in STATEMENT_WORDS and len({tag for _, tag in words}) > 1
    ]
    for line, pairs in found[:: -(-len(found) // STATEMENTS_PER_FILE) or 1]:
        words, tags = zip(*pairs, strict=True)
        yield make_record({"words": words, "tags": tags}, f"{module.name}:{line}")


def summarised(module: Document) -> Iterator[Record]:
    """Bodies of functions, and the first line of the docstring that stood there, if it has two words."""
    lines = module.text.split("\n")
    for function in functions(module):
        target = (ast.get_docstring(function) or "").split("\n")[0].strip()
        body = "\n".join(lines[function.body[0].end_lineno : function.end_lineno])
        source = textwrap.dedent(body).strip("\n")
        if len(target.split()) > 1 and len(source) in BODY_CHARACTERS:
            yield make_record({"source": source, "target": target}, f"{module.name}:{function.lineno}")


def questioned(module: Document) -> Iterator[Record]:
    """What the syntax tree knows of a function, asked of its source."""
    lines = module.text.split("\n")
    for function in functions(module):
        source = lines[function.lineno - 1 : function.end_lineno]
        context = "\n".join(source)
        if len(context) in SOURCE_CHARACTERS:
            where = f"{module.name}:{function.lineno}"
            for question, start, end in asked(function, source):
                fields = {"question": question, "context": context, "answers": (context[start:end],)}
                yield make_record(fields, where, offsets=((start, end),))


def described(module: Document) -> Iterator[Record]:
    """First lines of docstrings, and the bodies that they stood in."""
    for record in summarised(module):
        yield Record({"first": record.fields["target"], "second": record.fields["source"]}, record.where)


def functions(module: Document) -> Iterator[Function]:
    """The functions at top level and the methods of classes at top level."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strings such as "\d", which are the library's business
        try:
            tree = ast.parse(module.text)
        except (SyntaxError, ValueError):  # a template, a source for another Python
            return
    for node in tree.body:
        for inner in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(inner, Function):
                yield inner


MAKERS: dict[str, Callable[[Document], Iterator[Record]]] = {
    "classify": classified,
    "tag": tagged,
    "pairs": summarised,
    "span": questioned,
    "matches": described,
}


def _first_of_each(records: Iterable[Record], seen: set[str]) -> Iterator[Record]:
    for record in records:
        if record.key not in seen:
            seen.add(record.key)
            yield record


def _packed(parts: Parts) -> Arrays:
    rows = {
        part: [[record.fields, record.where, record.offsets] for record in records]
        for part, records in parts.items()
    }
    return {"json": np.frombuffer(json.dumps(rows).encode(), np.uint8)}


def _unpacked(arrays: Arrays) -> Parts:
    rows = json.loads(arrays["json"].tobytes())
    return {
        part: tuple(
            Record(
                {k: v if isinstance(v, str) else tuple(v) for k, v in fields.items()},
                where,
                offsets=tuple(map(tuple, offsets)),
            )
            for fields, where, offsets in rows[part]
        )
        for part in ("train", "valid")
    }


def _is_sound(arrays: Arrays) -> bool:
    try:
        return len(_unpacked(arrays)["train"]) > 0
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
