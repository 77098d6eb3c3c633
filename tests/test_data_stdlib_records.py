"""Records made of the standard library: what they say is so, and nothing that validates was trained on."""

import ast
import functools
import json
import sysconfig
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from zoo.data import stdlib
from zoo.data.cache import folder
from zoo.data.corpus import split_by_hash
from zoo.data.examples import stdlib_records
from zoo.data.examples.lexer import statements
from zoo.data.files import Document
from zoo.errors import DataError

ROOT = Path(sysconfig.get_path("stdlib"))
KINDS = ("classify", "tag", "pairs")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """{kind: records by part} of this Python, made once; two kinds of every third file, for time."""
    modules = stdlib.modules(ROOT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = {"classify": stdlib_records.stdlib_records("classify", 0.1)}
        patch.setattr(stdlib, "modules", lambda root: modules[::3])
        return made | {kind: stdlib_records.stdlib_records(kind, 0.1) for kind in ("tag", "pairs")}


@pytest.fixture
def made_of(tmp_path, monkeypatch):
    """Records of sources that a test gives as {name: text}, with a cache of its own."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))

    def make(kind, sources, valid_fraction=0.1):
        modules = [Document(f"lib/{name}", text, key=f"lib/{name}") for name, text in sources.items()]
        monkeypatch.setattr(stdlib, "modules", lambda root: modules)
        return stdlib_records.stdlib_records(kind, valid_fraction)

    return make


def file_of(record):
    return record.where.rsplit(":", 1)[0]


def everything(parts):
    return [record for records in parts.values() for record in records]


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_makes_thousands_of_records(library, kind):
    sizes = {part: len(records) for part, records in library[kind].items()}
    assert list(sizes) == ["train", "valid"]
    assert sizes["train"] > 1_000 and sizes["valid"] > 50


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_lies_in_the_part_where_its_text_lies(library, kind):
    parts = split_by_hash(stdlib.modules(ROOT), 0.1)
    for part, records in library[kind].items():
        assert records and {file_of(record) for record in records} <= {module.name for module in parts[part]}


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_occurs_once_in_all_the_library(library, kind):
    keys = Counter(record.key for record in everything(library[kind]))
    assert max(keys.values()) == 1


def test_packages_are_as_many_as_asked_and_none_is_a_good_guess(library):
    counts = {part: Counter(r.fields["label"] for r in rs) for part, rs in library["classify"].items()}
    assert counts["train"].keys() == counts["valid"].keys() and 7 <= len(counts["train"]) <= 20
    for count in counts.values():
        assert max(count.values()) / count.total() <= 0.15


def test_a_function_of_a_package_stands_where_it_says(library):
    for record in library["classify"]["valid"]:
        name, line = record.where.removeprefix("lib/").rsplit(":", 1)
        first = (ROOT / name).read_text().split("\n")[int(line) - 1]
        assert first.strip() == record.fields["text"].split("\n")[0].strip()
        assert name.startswith(f"{record.fields['label']}/")
        assert first.strip().startswith(("def ", "async def "))


def test_statements_have_the_plain_tags_and_no_blanks_in_words(library):
    tags = Counter(tag for record in everything(library["tag"]) for tag in record.fields["tags"])
    assert tags.keys() == {"keyword", "name", "number", "string", "comment", "operator"}
    assert max(tags.values()) / tags.total() < 0.5
    words = {word for record in everything(library["tag"]) for word in record.fields["words"]}
    assert all(word.split() == [word] for word in words)


def test_summaries_are_first_lines_of_docstrings_that_bodies_lack(library):
    for record in library["pairs"]["valid"][::20]:
        name, line = record.where.removeprefix("lib/").rsplit(":", 1)
        tree = parsed(name)
        (function,) = (node for node in ast.walk(tree) if getattr(node, "lineno", 0) == int(line)
                       and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))  # fmt: skip
        assert ast.get_docstring(function).split("\n")[0].strip() == record.fields["target"]
        body = ast.parse(f"async def f():\n if 1:\n  pass\n{indented(record.fields['source'])}").body[0].body
        assert [ast.dump(node) for node in body[1:]] == [ast.dump(node) for node in function.body[1:]]
        assert record.fields["target"] not in record.fields["source"]


@functools.cache
def parsed(name):
    return ast.parse((ROOT / name).read_text())


def indented(source):
    return "\n".join(f" {line}" for line in source.split("\n"))


def test_what_the_lexer_says_of_each_word():
    source = '# of two\nif x in ("a in", 0x1F):  # why\n    pass\n\n\nreturn f"b"\n'
    (first, header), (second, body), (third, last) = statements(source)
    assert (first, second, third) == (1, 3, 6)
    words = '# of two if x in ( "a in" , 0x1F ) : # why'.split()
    kinds = "comment comment comment keyword name keyword operator string string operator number operator"
    assert header == list(zip(words, f"{kinds} operator comment comment".split(), strict=True))
    assert body == [("pass", "keyword")] and last[0] == ("return", "keyword")
    assert {tag for _, tag in last[1:]} == {"string"}


def test_a_source_that_cannot_be_read_to_the_end_counts_as_far_as_it_can(made_of):
    assert list(statements("a = 1\nb = (\n")) == [(1, [("a", "name"), ("=", "operator"), ("1", "number")])]
    good = 'def f(x):\n    """Gives x again."""\n    return x + x + x + x + x\n'
    sources = {"a.py": good, "b.py": good.replace("x", "y"), "c.py": "def f(:\n", "d.py": "x = '\0'"}
    assert len(everything(made_of("pairs", sources))) == 2


FUNCTION = """
class C:
    @property
    def f(self):
        {docstring}
        # why
        return {value}  # which is a long enough body
"""


@pytest.mark.parametrize(
    "docstring, summary",
    [
        ('"""Gives the value. """', "Gives the value."),
        ('"""\n        Gives the value,\n\n        and more.\n        """', "Gives the value,"),
        ("'Value.'", None),
        ("' '", None),
        ("pass", None),
    ],
)
def test_a_summary_has_two_words_or_more(made_of, docstring, summary):
    files = {f"{v}.py": FUNCTION.format(docstring=docstring, value=v) for v in "abcdef"}
    if summary is None:
        with pytest.raises(DataError, match="this Python's library has no records of kind=pairs"):
            made_of("pairs", files)
        return
    record = everything(made_of("pairs", files))[0]
    assert record.fields["target"] == summary
    assert record.fields["source"].startswith("# why\nreturn ")
    assert record.where.endswith(".py:4")


def test_bodies_are_neither_trivial_nor_endless(made_of):
    def source(body):
        return f'def f():\n    "Gives the value."\n    {body}\n'

    files = {f"{i}.py": source(f"return {i} * 1_000_000") for i in range(5)}
    found = made_of("pairs", files | {"short.py": source("return 1"), "long.py": source("x + " * 300 + "x")})
    assert {file_of(record) for record in everything(found)} == {f"lib/{name}" for name in files}


def test_statements_of_a_single_tag_teach_nothing_and_are_left_out(made_of):
    files = {f"{i}.py": f'"""Says {i} again and again."""\nx{i} = {i} + 1\n' for i in range(5)}
    assert {record.where.split(":")[1] for record in everything(made_of("tag", files))} == {"2"}


@pytest.mark.parametrize("kind", ["tag", "pairs"])
def test_what_python_warns_of_in_a_source_is_passed_over(made_of, kind):
    body = 'def f{0}():\n    "Gives the value."\n    return "\\d" + "{0}" * (1or 2)\n'
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = everything(made_of(kind, {f"{i}.py": body.format(i) for i in range(5)}))
    assert {file_of(record) for record in found} == {f"lib/{i}.py" for i in range(5)}


def package_sources(sizes, files=20):
    """A library of these packages, each with so many functions over some files."""
    return {
        f"{name}/{i}.py": "\n".join(f"def {name}{i}_{j}(): return {j}" for j in range(size // files))
        for name, size in sizes.items()
        for i in range(files)
    }


def test_a_large_package_is_cut_down_to_its_share(made_of):
    sizes = {"huge": 4000, "big": 800} | {f"p{i}": 200 for i in range(8)}
    parts = made_of("classify", package_sources(sizes), 0.3)
    for records in parts.values():
        counts = Counter(record.fields["label"] for record in records)
        assert len(counts) == 10 and max(counts.values()) <= 0.15 * counts.total() < max(counts.values()) + 1


def test_the_most_frequent_packages_are_kept_and_modules_are_none(made_of):
    sizes = {f"p{i:02}": 40 + 20 * i for i in range(25)}
    sources = package_sources(sizes) | {"module.py": package_sources({"m": 900}, files=1)["m/0.py"]}
    parts = made_of("classify", sources, 0.4)
    expected = {f"p{i:02}" for i in range(5, 25)}
    assert {record.fields["label"] for record in everything(parts)} == expected


def test_records_come_from_the_cache_and_a_damaged_one_is_made_again(made_of, monkeypatch):
    sources = {f"{i}.py": f"x{i} = {i} + 1\n" for i in range(9)}
    before = made_of("tag", sources)
    with monkeypatch.context() as patch:
        patch.setitem(stdlib_records.MAKERS, "tag", None)
        assert made_of("tag", sources) == before
    (path,) = folder().glob("records-*")
    for damage in (b"{", json.dumps({"train": []}).encode(), b'{"train": [1], "valid": []}'):
        np.save(path, np.frombuffer(damage, np.uint8))
        assert made_of("tag", sources) == before


def test_other_sources_or_parts_make_other_records(made_of):
    sources = {f"{i}.py": f"x{i} = {i} + 1\n" for i in range(30)}
    assert len(everything(made_of("tag", sources))) == 30
    assert len(everything(made_of("tag", sources | {"new.py": "y = 2 + 2\n"}))) == 31
    assert len(made_of("tag", sources, 0.1)["valid"]) < len(made_of("tag", sources, 0.6)["valid"])


def test_statements_are_taken_from_all_over_a_long_file(made_of):
    sources = {name: "".join(f"{name[0]}{i} = {i} + 1\n" for i in range(720)) for name in ("a.py", "b.py")}
    for records in made_of("tag", sources).values():
        lines = [int(record.where.rsplit(":", 1)[1]) for record in records]
        assert len(lines) == 48 and lines[0] == 1 and lines[-1] > 700


@pytest.mark.parametrize(
    "kind, valid_fraction, complaint",
    [
        ("slots", 0.1, "the standard library has no records of kind=slots; give yours as data.path"),
        ("sumarise", 0.1, "kind='sumarise' is none of classify, tag, slots, pairs"),
        ("tag", 0, "valid_fraction=0: the standard library is undivided; give 0.1"),
        ("tag", 0.1, "this Python has no .py sources to make records of; give yours as data.path"),
    ],
)
def test_what_the_library_cannot_give_is_refused(made_of, kind, valid_fraction, complaint):
    with pytest.raises(DataError) as caught:
        made_of(kind, {}, valid_fraction)
    assert complaint in str(caught.value) and "\n" not in str(caught.value)
