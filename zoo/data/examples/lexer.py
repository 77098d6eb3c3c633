"""Python sources as the language's own lexer sees them: words with plain names for what they are."""

import io
import keyword
import tokenize
from collections.abc import Iterator

Words = list[tuple[str, str]]


def statements(source: str) -> Iterator[tuple[int, Words]]:
    """Each logical line, the comments above it included: where it begins and its (word, tag) pairs.

    Strings and comments are cut at blanks, so that "in" is a keyword, a comment or a string by its company.
    A source that the lexer cannot read to the end (a template, one for another Python) counts as far as that.
    """
    first = 0
    words: Words = []
    for token in _tokens(source):
        if token.type == tokenize.NEWLINE:
            yield first, words
            words = []
        elif tag := tag_of(token):
            first = first if words else token.start[0]
            words += [(word, tag) for word in token.string.split()]


def tag_of(token: tokenize.TokenInfo) -> str:
    """keyword, name, number, string, comment or operator; empty for layout, which has no words."""
    kind = tokenize.tok_name[token.type]
    if kind == "NAME":
        return "keyword" if keyword.iskeyword(token.string) else "name"
    if "STRING" in kind:  # also FSTRING_START, FSTRING_MIDDLE, ... of 3.12 and later
        return "string"
    return {"NUMBER": "number", "COMMENT": "comment", "OP": "operator"}.get(kind, "")


def _tokens(source: str) -> list[tokenize.TokenInfo]:
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            found.append(token)
    except (tokenize.TokenError, SyntaxError):
        pass  # found holds what came before
    return found
