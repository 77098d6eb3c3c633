"""Whether a tokenizer's file may be given to the library that reads it: it is tried once in a process with
limits (trying.py), a second or less, and a file that has passed is known by its digest on this machine."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

from zoo.data import cache
from zoo.errors import DataError

SECONDS = 60.0  # for an answer; the process ends itself after ten of computing
KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # of the environment: what Python may need to start
ALONE = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
TRYING = Path(__file__).with_name("trying.py")
LIBRARIES = {"whole": "tokenizers", "sentencepiece": "sentencepiece"}


def check(kind: str, raw: bytes, source: str) -> None:
    """DataError, one line that names `source`, for a file that its library refuses, or does not survive."""
    version = importlib.metadata.version(LIBRARIES[kind])
    digest = hashlib.sha256(f"{kind} {version} ".encode() + TRYING.read_bytes() + raw).hexdigest()
    mark = cache.folder() / f"tried-{digest[:32]}"
    if mark.is_file():
        return
    reply = tried(kind, raw)
    if "pieces" not in reply:
        raise DataError(
            f"{source}: refused by the {LIBRARIES[kind]} library ({reply['error']}); fetch it again"
        )
    with contextlib.suppress(OSError):  # then it is tried again at every start
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.touch()


def tried(kind: str, raw: bytes) -> dict:
    """What trying.py answers, or what became of it."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(TRYING), kind],
            input=raw,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={name: os.environ[name] for name in KEPT if name in os.environ} | ALONE,
            start_new_session=True,
            timeout=SECONDS,
        )
        return json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return {"error": "it took more time or memory than any takes, or crashed it, and was ended"}
