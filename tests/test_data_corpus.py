"""Where text comes from, and that its division holds."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.data import stdlib
from zoo.data.corpus import part_digest, read_corpus
from zoo.data.files import Document


def names(corpus, part):
    return {document.name for document in corpus.parts[part]}


def texts(corpus, part):
    return [document.text for document in corpus.parts[part]]


def write_folder(folder, contents):
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = text.encode()
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return str(folder)


@pytest.fixture(scope="module")
def library():
    return read_corpus("", 0.05)


def test_the_standard_library_holds_code_and_prose_and_no_tests(library):
    found = names(library, "train") | names(library, "valid")
    assert {"lib/typing.py", "lib/asyncio/base_events.py"} <= found
    assert library.num_documents["train"] > 300 and library.num_bytes["train"] > 5e6
    unwanted = (
        "test/",
        "tests/",
        "idle_test/",
        "site-packages/",
        "_bundled/",
        "pydoc_data/",
        "_sysconfigdata",
    )
    assert not [name for name in found if any(f"/{part}" in name for part in unwanted)]
    if stdlib.topics():
        assert any(name.startswith("topics/") for name in found)


def test_the_standard_library_names_its_python(library):
    version = ".".join(map(str, sys.version_info[:3]))
    assert (
        library.python.endswith(version) and version in str(library) and library.digest[:12] in str(library)
    )


def test_about_a_twentieth_of_the_library_validates(library):
    total = sum(library.num_documents.values())
    assert 0.02 < library.num_documents["valid"] / total < 0.10


def test_a_file_of_the_library_is_wholly_in_one_part(library):
    assert not names(library, "train") & names(library, "valid")
    everything = sorted(document.text for document in stdlib.documents())
    assert sorted(texts(library, "train") + texts(library, "valid")) == everything


def test_a_file_keeps_its_part_when_others_come_and_go(tmp_path):
    contents = {f"f{i}.txt": f"text {i}" for i in range(60)}
    before = read_corpus(write_folder(tmp_path / "a", contents), 0.2)
    more = contents | {f"g{i}.md": f"more {i}" for i in range(40)}
    after = read_corpus(write_folder(tmp_path / "b", more), 0.2)
    assert names(before, "valid") == names(after, "valid") & contents.keys()
    assert 5 <= before.num_documents["valid"] <= 20


def test_a_larger_fraction_only_adds_to_the_validation_part(tmp_path):
    folder = write_folder(tmp_path, {f"f{i}.txt": f"text {i}" for i in range(60)})
    assert names(read_corpus(folder, 0.1), "valid") < names(read_corpus(folder, 0.5), "valid")


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_two_documents_are_enough_for_two_parts(tmp_path, fraction):
    corpus = read_corpus(write_folder(tmp_path, {"a.txt": "one", "b.txt": "two"}), fraction)
    assert corpus.num_documents == {"train": 1, "valid": 1}


def test_a_single_text_is_cut_by_characters(tmp_path):
    path = tmp_path / "a.txt"
    text = "äöü€😀" * 20 + "xyz"
    path.write_text(text, encoding="utf-8")
    corpus = read_corpus(str(path), 0.1)
    assert texts(corpus, "train") == [text[: int(len(text) * 0.9)]]
    assert texts(corpus, "valid") == [text[int(len(text) * 0.9) :]]


def test_line_ends_of_every_kind_survive(tmp_path):
    text = "\ufeffa\r\nb\rc\nd\x85e\u2028f\x0cg\n\n" * 10
    folder = write_folder(tmp_path, {"a.txt": text, "b.txt.gz": text})
    corpus = read_corpus(folder, 0.5)
    assert texts(corpus, "train") == texts(corpus, "valid") == [text]


def test_lines_of_json_are_documents(tmp_path):
    documents = [f"text {i}\r\n\u2028 😀" for i in range(50)]
    lines = [json.dumps({"id": i, "text": text}, ensure_ascii=False) for i, text in enumerate(documents)]
    lines[7:7] = ["", '{"text": ""}']
    (tmp_path / "a.jsonl").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    corpus = read_corpus(str(tmp_path / "a.jsonl"), 0.3)
    assert sorted(texts(corpus, "train") + texts(corpus, "valid")) == sorted(documents)


def test_copies_of_a_line_of_json_fall_into_one_part(tmp_path):
    lines = [json.dumps({"text": f"text {i % 10}"}) for i in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    corpus = read_corpus(str(tmp_path / "a.jsonl"), 0.3)
    assert not set(texts(corpus, "train")) & set(texts(corpus, "valid"))


@pytest.mark.parametrize("valid", ["valid.txt", "val.jsonl", "dev/a.md", "validation/b/c.py", "VALID.txt.gz"])
def test_named_parts_of_a_folder_are_used(tmp_path, valid):
    held_out = json.dumps({"text": "held out"}) if valid.endswith(".jsonl") else "held out"
    contents = {"train.txt.gz": "to learn", valid: held_out, "test.txt": "to test", "README.md": "not text"}
    corpus = read_corpus(write_folder(tmp_path, contents), 0.1)
    assert {part: texts(corpus, part) for part in corpus.parts} == {
        "train": ["to learn"],
        "valid": ["held out"],
        "test": ["to test"],
    }


def test_a_program_called_train_is_no_part(tmp_path):
    corpus = read_corpus(write_folder(tmp_path, {"train.py": "1", "valid.py": "2", "test/a.py": "3"}), 0.5)
    assert sum(corpus.num_documents.values()) == 3 and "test" not in corpus.parts


def test_hidden_and_unreadable_kinds_are_passed_over(tmp_path):
    contents = {
        "a.txt": "1",
        "b.png": "2",
        ".git/c.txt": "3",
        ".d.txt": "4",
        "LICENSE": "5",
        "e/f.md": "6",
        "g.txt": "",
    }
    corpus = read_corpus(write_folder(tmp_path, contents), 0.5)
    assert names(corpus, "train") | names(corpus, "valid") == {"a.txt", "e/f.md"}


def test_the_digest_tells_texts_divisions_and_borders_apart(tmp_path):
    def digest(folder, fraction, *texts):
        contents = {f"{i}.txt": text for i, text in enumerate(texts)}
        return read_corpus(write_folder(tmp_path / folder, contents), fraction).digest

    base = digest("a", 0.5, "ab", "c")
    assert digest("b", 0.5, "ab", "c") == base
    assert digest("c", 0.5, "ab", "d") != base
    assert digest("d", 0.5, "a", "bc") != base
    assert digest("e", 0.5, "abcd") != digest("f", 0.7, "abcd")


def test_the_digest_of_a_part_knows_where_documents_end():
    divisions = [["abc"], ["ab", "c"], ["a", "bc"], ["c", "ab"], []]
    digests = {
        part_digest([Document("name", text, key="name") for text in division]) for division in divisions
    }
    assert len(digests) == len(divisions)


def test_importing_the_package_is_fast_and_loads_no_library():
    """Of processor time, in an interpreter of its own, without zoo/__init__.py, which is not ours to time."""
    program = (
        "import sys, time, types, numpy\n"
        "zoo = types.ModuleType('zoo'); zoo.__path__ = ['zoo']; sys.modules['zoo'] = zoo\n"
        "start = time.process_time(); import zoo.data; elapsed_s = time.process_time() - start\n"
        "heavy = {'jax', 'grain', 'tokenizers', 'sentencepiece'} & sys.modules.keys()\n"
        "print(sorted(heavy), elapsed_s < 0.3)"
    )
    root = str(Path(__file__).parents[1])
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split("\n")[0] == "[] True", shown.stdout + shown.stderr
