"""The embedded default corpus: the interpreter's own prose and sources.

Every Python installation carries real text under a free licence: the language reference as
`pydoc_data.topics` (English prose; some distributions leave it out) and the standard library's sources.
Left out are tests, vendored and site packages, and what differs from machine to machine for no reason
of the language. The text differs between Python versions, so its numbers are printed with the version
and the corpus digest.
"""

import importlib.util
import os
import platform
import sysconfig
from pathlib import Path

from zoo.data.files import Document
from zoo.errors import DataError

NAME = "stdlib"

NOT_LIBRARY = {
    "test", "tests", "idle_test",  # tests
    "site-packages", "dist-packages", "_bundled", "pip",  # not the library's own
    "pydoc_data",  # read below as prose
    "__pycache__", "lib-dynload",
}  # fmt: skip
OF_THIS_MACHINE = ("_sysconfigdata", "sitecustomize", "usercustomize", "config-")


def version() -> str:
    """What the text depends on: the interpreter and its version."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def documents(root: Path | None = None) -> list[Document]:
    """Topics and modules in the order of their names, `topics/...` and `lib/...`; none is empty."""
    root = root or Path(sysconfig.get_path("stdlib"))
    found = modules(root)
    if not found:
        raise DataError(f"{root}: this Python has no .py sources to train on; give your text as data.path")
    return found + topics()


def modules(root: Path) -> list[Document]:
    """The library's sources. A source in another encoding than UTF-8 (PEP 263) is left out."""
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in NOT_LIBRARY and not _is_local(name)]
        for name in names:
            path = Path(folder, name)
            if path.suffix != ".py" or _is_local(name) or not path.is_file():
                continue
            try:
                text = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                continue
            if text:
                module = "lib/" + path.relative_to(root).as_posix()
                found.append(Document(module, text, key=module))
    return sorted(found, key=lambda document: document.name)


def topics() -> list[Document]:
    """The language reference as `help("topic")` shows it, or nothing where it is not installed."""
    if (
        importlib.util.find_spec("pydoc_data") is None
        or importlib.util.find_spec("pydoc_data.topics") is None
    ):
        return []
    from pydoc_data.topics import topics

    named = {f"topics/{name}": text for name, text in sorted(topics.items()) if text}
    return [Document(name, text, key=name) for name, text in named.items()]


def _is_local(name: str) -> bool:
    return name.startswith(OF_THIS_MACHINE)
