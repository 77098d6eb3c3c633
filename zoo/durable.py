"""Files that outlive a loss of power: written beside, brought to the disk, renamed into place.

A rename by itself is safe from a kill: whoever looks sees the old file or the new one. A loss of power may
leave the new name without its bytes, unless these were on the disk before, and the old name, unless the
folder was brought there after.
"""

import os
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Puts `text` in a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
