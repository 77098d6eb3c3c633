"""Text on its way into a tokenizer: valid Unicode, in pieces of bounded size."""

import re
from collections.abc import Iterator

from zoo.errors import DataError

CHUNK = 2**18  # characters; the libraries keep some 100 bytes per token while they work


def utf8(text: str) -> bytes:
    """The text as UTF-8. Half a surrogate pair, which a terminal can hand over, has none."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"character {error.start} of the text is {text[error.start]!r}, not valid Unicode; remove it"
        ) from None


def chunks(text: str) -> Iterator[str]:
    """The text in pieces of about CHUNK characters whose tokens together are those of the whole.

    A cut falls between a visible character and the space after it: no token of GPT-2's pattern, of
    BERT's words or of the SentencePiece models trained here reaches across such a place. Only a text
    with no such place in CHUNK characters is cut elsewhere.
    """
    utf8(text)
    place = re.compile(r"(?<=\S) ")
    start = 0
    while len(text) - start > 2 * CHUNK:
        cut = place.search(text, start + CHUNK, start + 2 * CHUNK)
        end = cut.start() if cut else start + CHUNK
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]
