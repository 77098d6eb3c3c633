"""Calls into the `tokenizers` library, whose panics are no Exceptions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import DataError


@contextmanager
def refusing(source: Path) -> Iterator[None]:
    """Whatever the library has against the vocabulary of `source` is one line to the user.

    A panic in Rust arrives as pyo3_runtime.PanicException, which derives from BaseException alone.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, DataError):
        raise
    except BaseException as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{source}: refused by the tokenizers library ({reason}); fetch the files again"
        ) from None
