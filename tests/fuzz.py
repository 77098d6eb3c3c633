"""Readers of files that somebody else wrote, each as a function of bytes: it ends, or raises a UserError.

    python tests/fuzz.py TARGET --seconds 60 [--corpus FOLDER]      by atheris, guided by coverage
    python tests/fuzz.py --list

test_fuzz.py gives the same functions what hypothesis makes up. What either found has a case in tests/hostile.
"""

import argparse
import atexit
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

SCRATCH = Path(tempfile.mkdtemp(prefix="zoo-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)

from hostile.samples import SAMPLES  # noqa: E402

from zoo import cli, run  # noqa: E402
from zoo.data import load_tokenizer  # noqa: E402
from zoo.data.corpus import read_corpus  # noqa: E402
from zoo.data.dialogues.files import DIALOGUES  # noqa: E402
from zoo.data.examples import labels  # noqa: E402
from zoo.data.examples.records import read_inputs, read_records  # noqa: E402
from zoo.data.tokenizers import trial  # noqa: E402
from zoo.errors import UserError  # noqa: E402
from zoo.pretrained import adapter, huggingface  # noqa: E402
from zoo.pretrained.stored import open_tensors  # noqa: E402
from zoo.pretrained.vectors import read_vectors  # noqa: E402
from zoo.recipes import CHOICES, CONFIGS  # noqa: E402

Target = Callable[[bytes], None]


def of_file(name: str, read: Callable[[Path], object]) -> Target:
    """A reader of one file, or of the folder that holds it."""
    folder = Path(tempfile.mkdtemp(dir=SCRATCH))
    path = folder / name

    def target(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    return target


def records(kind: str) -> Callable[[Path], object]:
    """A reader of labelled records, and of their inputs alone."""

    def read(path):
        try:
            read_records(path, kind, {}, 0.5)
        except UserError:
            read_inputs(path, kind, {})

    return read


def index(path: Path) -> object:
    """An index beside one sound shard."""
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"x": entry}).encode()
    path.with_name("a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    return open_tensors(path.parent)


def bpe(data: bytes) -> None:
    """A vocabulary and its merges, with a zero between."""
    folder = SCRATCH / "bpe"
    folder.mkdir(exist_ok=True)
    vocab, _, merges = data.partition(b"\0")
    (folder / "vocab.json").write_bytes(vocab)
    (folder / "merges.txt").write_bytes(merges)
    load_tokenizer(folder)


def saved(name: str, file: str) -> Target:
    """A tokenizer that a run keeps."""

    def read(path):
        (path.parent / "tokenizer.zoo.json").write_text(json.dumps({"name": name, "digest": "x"}))
        load_tokenizer(path.parent)

    return of_file(file, read)


def command(data: bytes) -> None:
    """A command line, its words with zeros between."""
    words = data.decode("utf-8", "replace").split("\0")
    cli.parse([word for word in words if word not in ("-h", "--help")], CONFIGS, CHOICES)


TARGETS: dict[str, Target] = {
    "header": of_file("model.safetensors", lambda path: open_tensors(path.parent)),
    "index": of_file("model.safetensors.index.json", index),
    "config": of_file("config.json", lambda path: huggingface.described(path.parent)),
    "adapter": of_file("adapter_config.json", lambda path: adapter.described(path.parent)),
    "recipe": of_file("config.json", lambda path: run.recipe_of(path.parent)),
    "labels": of_file("labels.json", lambda path: labels.read(path.parent)),
    "command": command,
    "tokenizer": of_file("tokenizer.json", lambda path: load_tokenizer(path.parent).encode("the cat")),
    "wordpiece": of_file("vocab.txt", lambda path: load_tokenizer(path.parent).encode("the cat")),
    "bpe": bpe,
    "characters": saved("char", "characters.json"),
    "words": saved("word", "words.json"),
    "note": of_file("tokenizer.zoo.json", lambda path: load_tokenizer(path.parent)),
    "sentencepiece": of_file("tokenizer.model", lambda path: load_tokenizer(path.parent).encode("the cat")),
    "text": of_file("a.txt", lambda path: read_corpus(str(path), 0.5)),
    "gzip": of_file("a.txt.gz", lambda path: read_corpus(str(path), 0.5)),
    "jsonl": of_file("b.jsonl", lambda path: read_corpus(str(path), 0.5)),
    "dialogues": of_file("c.jsonl", lambda path: read_corpus(str(path), 0.5, DIALOGUES)),
    "classify_tsv": of_file("d.tsv", records("classify")),
    "classify_csv": of_file("e.csv", records("classify")),
    "classify_jsonl": of_file("f.jsonl", records("classify")),
    "conll": of_file("g.conll", records("tag")),
    "spans": of_file("h.jsonl", records("tag")),
    "scan": of_file("i.txt", records("pairs")),
    "pairs": of_file("j.jsonl", records("pairs")),
    "squad": of_file("k.json", records("span")),
    "questions": of_file("l.jsonl", records("span")),
    "choice": of_file("m.jsonl", records("choice")),
    "score": of_file("n.jsonl", records("score")),
    "vectors": of_file("o.txt", read_vectors),
    "binary_vectors": of_file("p.bin", read_vectors),
}


def tried(name: str, data: bytes) -> bool:
    """Whether a target takes these bytes; False where it refuses them as it should. All else is raised."""
    check, trial.check = (
        trial.check,
        lambda *_: None,
    )  # a process for each input would be all that is measured
    try:
        TARGETS[name](data)
        return True
    except UserError as error:
        assert str(error).isprintable(), ascii(str(error))
        return False
    finally:
        trial.check = check


def main() -> None:
    """Lets atheris loose on one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", nargs="?", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", default="", help="a folder of inputs to begin with; new ones are added")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list or not options.target:
        print("\n".join(TARGETS))
        return
    import atheris

    for name, module in list(sys.modules.items()):
        if name.startswith(("zoo.", "json.decoder")):
            instrument(atheris, module)
    corpus = Path(options.corpus or tempfile.mkdtemp(dir=SCRATCH))
    (corpus / "sample").write_bytes(SAMPLES[options.target])
    arguments = [sys.argv[0], f"-max_total_time={options.seconds}", "-max_len=8192", "-timeout=10"]
    arguments += [
        "-rss_limit_mb=4096",
        f"-artifact_prefix={Path.cwd()}/{options.target}-",
        "-print_final_stats=1",
    ]
    atheris.Setup([*arguments, str(corpus)], lambda data: tried(options.target, data))
    atheris.Fuzz()


def instrument(atheris, module) -> None:
    """Has atheris count the branches of a module's functions and methods."""
    for name, value in list(vars(module).items()):
        if getattr(value, "__module__", "") != module.__name__:
            continue
        for owner, key, function in [(module, name, value), *((value, k, f) for k, f in methods(value))]:
            if type(function).__name__ == "function":
                setattr(owner, key, atheris.instrument_func(function))


def methods(value) -> list:
    return list(vars(value).items()) if isinstance(value, type) else []


if __name__ == "__main__":
    main()
