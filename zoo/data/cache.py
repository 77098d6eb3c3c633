"""Arrays that are computed once per machine and mapped into memory afterwards.

They lie under $ZOO_CACHE, else $XDG_CACHE_HOME/zoo, else ~/.cache/zoo, which is made private (0700) and
may be deleted at any time. A file appears whole or not at all (written under another name, flushed,
renamed), so a killed process or two at once do no harm. Where nothing can be written the arrays stay in
memory.
"""

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]

log = logging.getLogger("zoo.data")


def folder() -> Path:
    """Where cached arrays lie on this machine."""
    if os.environ.get("ZOO_CACHE"):
        return Path(os.environ["ZOO_CACHE"])
    parent = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(parent) / "zoo"


def cached(
    key: str, *, build: Callable[[], Arrays], is_sound: Callable[[Arrays], bool], names: tuple[str, ...]
) -> Arrays:
    """The arrays `names` of `build()`, from the files of an earlier call where those are sound.

    `key` names everything that the arrays depend on. `is_sound` looks at what was found: a file that is cut
    short or is somebody else's is built again.
    """
    paths = {name: folder() / f"{key}.{name}.npy" for name in names}
    found = _open(paths)
    if found is not None and is_sound(found):
        return found
    built = build()
    assert built.keys() == paths.keys() and is_sound(built), key
    try:
        for name, path in paths.items():
            _write(path, built[name])
    except OSError as error:
        log.warning("%s cannot be written (%s): it is built again at every start", folder(), error.strerror)
        return built
    return _open(paths) or built


def _open(paths: dict[str, Path]) -> Arrays | None:
    try:
        return {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in paths.items()}
    except (OSError, ValueError, EOFError):  # absent, cut short, no array
        return None


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".unfinished-")
    try:
        with open(handle, "wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
