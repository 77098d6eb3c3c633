"""What no shipped code may do, read from the sources: unpickle, run text as code, start a shell, unpack an
archive, ask the network. What is allowed is allowed in one place, for a reason."""

import ast

import pytest
from test_house import ROOT, SOURCES

MODULES = (
    *(
        "pickle",
        "cPickle",
        "_pickle",
        "cloudpickle",
        "dill",
        "joblib",
        "marshal",
        "shelve",
        "jsonpickle",
        "copyreg",
    ),
    *(
        "yaml",
        "ruamel",
        "toml",
        "xml",
        "plistlib",
        "code",
        "codeop",
        "runpy",
        "imp",
        "zipimport",
        "pydoc",
        "pty",
    ),
    *(
        "tarfile",
        "zipfile",
        "ctypes",
        "cffi",
        "requests",
        "urllib",
        "urllib3",
        "httpx",
        "aiohttp",
        "http",
        "ftplib",
    ),
    *(
        "smtplib",
        "xmlrpc",
        "telnetlib",
        "webbrowser",
        "multiprocessing",
        "h5py",
        "keras",
        "torch",
        "tensorflow",
    ),
    *("transformers", "msgpack"),
)
CALLS = (
    *("eval", "exec", "compile", "__import__", "globals", "locals", "breakpoint", "input", "delattr"),
    *("os.system", "os.popen", "os.exec*", "os.spawn*", "os.posix_spawn*", "os.fork*", "os.startfile"),
    *(
        "tempfile.mktemp",
        "os.tempnam",
        "*.extractall",
        "*.extract",
        "*.unpack_archive",
        "*.urlopen",
        "*.urlretrieve",
    ),
    *(
        "socket.*",
        "torch.load",
        "*.load_module",
        "*.exec_module",
        "*.import_module",
        "*.frombytes_unsafe",
        "*.as_eval",
    ),
    *("np.load", "numpy.load", "np.fromregex", "np.memmap", "jnp.load", "ast.literal_eval", "subprocess.*"),
    *("*.unsafe_load", "*.full_load", "*.create_connection"),
)
# file: what it calls or imports, and why it may
ALLOWED = {
    "zoo/__main__.py": {"importlib.import_module": "of one of the verbs that this file itself names"},
    "zoo/host_memory.py": {"ctypes": "glibc's mallopt and madvise, of this process's own heap"},
    "zoo/plan/apart.py": {
        "multiprocessing": "the pipe to a fork of this process, which brings back what it computed",
        "os.fork": "the same",
    },
    "zoo/run.py": {"socket.gethostname": "this machine's own name, in the note of who holds a folder"},
    "zoo/verbs/chat.py": {"input": "what a person types is text here, no code"},
    "zoo/verbs/launch.py": {
        "subprocess.Popen": "the command that the user gives, without a shell",
        "socket.socket": "to find a free port of this machine for the processes of a rehearsal",
    },
    "zoo/data/cache.py": {"np.load": "with allow_pickle=False, of this user's own cache"},
    "zoo/data/tokenizers/trial.py": {"subprocess.run": "a tokenizer is tried in a process with limits"},
    "zoo/data/dialogues/template.py": {"subprocess.Popen": "a template is rendered in a process with limits"},
}


def matches(name: str, pattern: str) -> bool:
    """os.exec* is os.execv; *.extractall is x.extractall."""
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def called(node: ast.AST) -> str:
    """a.b.c of a call's function; the last name alone where it hangs on something else."""
    if isinstance(node, ast.Attribute):
        return f"{called(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def found_in(text: str) -> set[str]:
    """The banned modules that a source imports, and the banned calls that it makes."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in MODULES}
        elif isinstance(node, ast.ImportFrom):
            module, names = node.module or "", {alias.name for alias in node.names}
            found |= {module} if module.split(".")[0] in MODULES else set()
            found |= {
                name
                for name in (f"{module}.{each}" for each in names)
                if any(matches(name, each) for each in CALLS)
            }
        elif isinstance(node, ast.Call):
            name = called(node.func)
            found |= {name} if any(matches(name, pattern) for pattern in CALLS) else set()
            for keyword in node.keywords:
                is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                found |= (
                    {f"{keyword.arg}=True"}
                    if keyword.arg in ("shell", "allow_pickle", "trust_remote_code")
                    and (is_true or not isinstance(keyword.value, ast.Constant))
                    else set()
                )
    return found


def test_no_shipped_code_does_what_is_banned():
    wrong = {}
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        if left := found_in(path.read_text()) - ALLOWED.get(name, {}).keys():
            wrong[name] = left
    assert not wrong


def test_what_is_allowed_is_still_needed():
    for name, reasons in ALLOWED.items():
        assert reasons.keys() <= found_in((ROOT / name).read_text()), name


def test_arrays_are_loaded_without_pickles():
    text = (ROOT / "zoo/data/cache.py").read_text()
    loads = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and called(node.func) == "np.load"
    ]
    assert loads and all(
        any(each.arg == "allow_pickle" and each.value.value is False for each in node.keywords)
        for node in loads
    )


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import torch.nn",
        "from os import system",
        "import yaml; yaml.safe_load(x)",
        "eval(x)",
        "os.system(x)",
        "os.execvp(x, y)",
        "subprocess.run(x, shell=True)",
        "subprocess.run(x, shell=flag)",
        "np.load(x, allow_pickle=True)",
        "np.load(x)",
        "archive.extractall(x)",
        "tempfile.mktemp()",
        "urllib.request.urlopen(x)",
        "importlib.import_module(x)",
        "torch.load(x)",
        "socket.socket()",
        "f(trust_remote_code=True)",
    ],
)
def test_the_gate_sees(text):
    assert found_in(text)
