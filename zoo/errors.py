"""What a user can fix, one line each, and the exit code that a supervisor reads.

The codes are the contract of every command (README.md, "Exit codes"): a scheduler may retry
70, 71 and 75, and must leave the rest to a person.
"""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator

LONGEST = 2_000  # characters of a message; what is said in the middle of a longer one is left out


class UserError(ValueError):
    """Something a person can mend. The message is one line: what is wrong, the value, the remedy. A value
    may come from anywhere, so that what no line shows (line ends, a terminal's escapes) is spelled out."""

    exit_code = 2

    def __str__(self) -> str:
        text = shown(super().__str__())
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 500]} ... {text[-500:]}"


class ConfigError(UserError):
    """A recipe, a field or a mesh that cannot be meant (exit 2)."""

    exit_code = 2


class DataError(UserError):
    """Text, a table or a vocabulary that cannot be read as asked (exit 3)."""

    exit_code = 3


class CheckpointError(UserError):
    """Checkpoints that exist and cannot be used, or belong to another configuration (exit 4)."""

    exit_code = 4


class NumericsError(UserError):
    """Numbers that are not finite or leap, or bits that are not the same twice (exit 5)."""

    exit_code = 5


class StorageError(UserError):
    """A folder that is full, read-only or owned by a live run (exit 6)."""

    exit_code = 6


def shown(text: str) -> str:
    """The text with whatever cannot be printed as Python would write it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


INTERNAL, LOST, PREEMPTED = 70, 71, 75  # a defect of ours; a process gone; stopped with a checkpoint saved
INTERRUPTED = 130  # by Ctrl-C, as shells count it


def nearest(word: str, words: Iterable[str]) -> str:
    """The closest of `words` as a hint to append to a message, or nothing."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


STORAGE_SIGNS = (
    "RESOURCE_EXHAUSTED",
    "No space left",
    "File too large",
    "Read-only file",
    "PERMISSION_DENIED",
    "Permission denied",
    "os_error_code=",
)
OS_ERROR = re.compile(r"([^:\[\]]+) \[os_error_code=")  # as TensorStore ends a long message


@contextlib.contextmanager
def storage_errors(path) -> Iterator[None]:
    """Turns what a full, read-only or missing disk raises, in Python or in C++, into a StorageError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text, reason = str(error), OS_ERROR.search(str(error))
        is_of_disk = any(sign in text for sign in STORAGE_SIGNS) and "Out of memory" not in text
        if not (isinstance(error, OSError) or is_of_disk):
            raise
        remedy = "make room or choose another place"
        if "Too many open files" in text:
            remedy = "allow more of them (ulimit -n)"
        reason = reason[1].strip() if reason else first_line(error)
        raise StorageError(f"{path}: cannot be written ({reason}); {remedy}") from error


def first_line(error: BaseException) -> str:
    """What went wrong, at the length of a line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
