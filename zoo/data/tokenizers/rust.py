"""Calls into the `tokenizers` library: where its tokens stand, and its panics, which are no Exceptions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zoo.data.tokenizers.text import chunks
from zoo.errors import DataError


class Located(NamedTuple):
    """Tokens of a text and where they stand in it: token k is of the characters starts[k] to ends[k]."""

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def located(library, text: str) -> Located:
    """The tokens of a text by one of the library's tokenizers, int32."""
    found, before = [np.empty((0, 3), np.int32)], 0
    for chunk in chunks(text):
        encoding = library.encode(chunk)
        starts_ends = np.array(encoding.offsets, np.int32).reshape(-1, 2) + before
        found.append(np.column_stack([np.array(encoding.ids, np.int32), starts_ends]))
        before += len(chunk)
    return Located(*np.concatenate(found).astype(np.int32).T)


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
