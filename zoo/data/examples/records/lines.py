"""The lines of a file as records count them."""

from pathlib import Path

from zoo import untrusted
from zoo.data.files import read_text


def read_lines(path: Path) -> list[str]:
    """The lines of a file, line n at index n - 1."""
    return lines_of(read_text(path, line=untrusted.LINE))


def lines_of(text: str) -> list[str]:
    """The lines of a text without line ends (LF or CR LF) and byte-order mark.

    Nothing else ends a line: a form feed or U+2028 is text.
    """
    lines = text.removeprefix("\ufeff").split("\n")
    if not lines[-1]:  # behind the last line end, or an empty file
        lines.pop()
    return [line.removesuffix("\r") for line in lines]
