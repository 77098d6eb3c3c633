"""What a reader does beside reading, by Python's audit events (PEP 578): a hook that can be switched on.

    with gate(folder, writable) as events: ...
    assert not events

Of interest is whatever runs code, starts a process, asks the network, or opens a file that is none of the
reader's business. What importing a module does is not: a library may be imported at its first use.
"""

import contextlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

FORBIDDEN = (
    *(
        "pickle.find_class",
        "marshal.load",
        "code.__new__",
        "ctypes.dlopen",
        "os.system",
        "os.exec",
        "os.fork",
    ),
    *(
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "pty.spawn",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.link",
    ),
    *(
        "os.symlink",
        "os.chmod",
        "os.chown",
        "os.truncate",
        "os.putenv",
        "shutil.",
        "socket.",
        "urllib.",
        "ftplib.",
    ),
    *("http.client.", "smtplib.", "webbrowser.", "sqlite3.", "winreg."),
)
CODE = ("exec", "compile", "marshal.loads")
CHILDREN = ("trying.py", "rendering.py")  # the only processes that a reader may start
# Of Python's own that make code of what they are given as data (a class of fields, a literal) or start a child.
LIBRARIES_OWN = ("subprocess.py", "linecache.py", "inspect.py", "dataclasses.py", "ast.py")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
OURS = Path(__file__).parents[2]
LIBRARIES = [str(OURS), sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()]
LIBRARIES += ["/proc/self", "/dev/null", "/dev/urandom", "/sys/", "/proc/cpuinfo", "/etc/mime.types"]

_state: dict = {"events": None, "readable": (), "writable": ()}


def _hook(event: str, arguments: tuple) -> None:
    events = _state["events"]
    if events is None:
        return
    _state["events"] = None  # what follows makes events too
    try:
        if event == "open":
            wrong = opened(*arguments)
        elif event == "subprocess.Popen":
            wrong = not any(str(each).endswith(CHILDREN) for each in arguments[1] or ())
        elif event == "os.rename":
            wrong = not all(os.path.realpath(each).startswith(_state["writable"]) for each in arguments[:2])
        else:
            wrong = event in CODE or event.startswith(FORBIDDEN)
        if wrong and not is_importing():
            events.append(f"{event} {arguments!r:.200}")
    finally:
        _state["events"] = events


def opened(path, mode, flags) -> bool:
    """Whether opening this is none of a reader's business."""
    if not isinstance(path, str | bytes | os.PathLike):
        return False  # a descriptor that was opened before
    path = os.path.realpath(os.fsdecode(path))
    if flags & WRITING or set(mode or "") & set("wax+"):
        return not path.startswith((*_state["writable"], "/dev/null"))
    return not path.startswith((*_state["readable"], *_state["writable"], *LIBRARIES))


def is_importing() -> bool:
    """Whether the import system is at work below us, or one of LIBRARIES_OWN."""
    frame = sys._getframe(2)
    while frame:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib") or name.endswith(LIBRARIES_OWN):
            return True
        frame = frame.f_back
    return False


sys.addaudithook(_hook)  # for good: Python has no way to take one off again


@contextlib.contextmanager
def gate(folder: Path, *writable: Path | str) -> Iterator[list[str]]:
    """The events that should not be, while `folder` is read; the rest of the disk is closed to it, what is
    `writable` (caches) and Python's own libraries aside."""
    events: list[str] = []
    places = [os.path.realpath(each) for each in writable]
    _state.update(events=events, readable=(os.path.realpath(folder),), writable=tuple(places))
    try:
        yield events
    finally:
        _state["events"] = None
