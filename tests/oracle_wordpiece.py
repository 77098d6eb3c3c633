"""BERT's tokenizer in plain Python, one character at a time: an oracle for ids and for offsets.

Written from the paper's appendix and the behaviour that it is known by: clean, part, take the longest piece.
Every character that is kept remembers which character of the text it comes from, so that a piece knows where
it stands: from its first character to behind its last one.
"""

import unicodedata

CHINESE = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
    *((0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF)),
)
LONGEST = 100  # characters of a word that is looked up at all


def tokenize(text, ids, *, lowercases):
    """(ids, starts, ends) of a text's pieces; `ids` is the vocabulary."""
    found = []
    for word in words(text, lowercases):
        found += pieces(word, ids)
    return tuple(map(list, zip(*found, strict=True))) if found else ([], [], [])


def words(text, lowercases):
    """The words of a text: lists of (character, place, behind)."""
    kept = []
    for place, character in enumerate(text):
        if is_dropped(character):
            continue
        if is_blank(character):
            kept.append((" ", place))
        elif is_chinese(character):
            kept += [(" ", place), (character, place), (" ", place)]
        else:
            kept.append((character, place))
    if lowercases:
        kept = lowered(kept)
    word = []
    for character, place in kept:
        if is_blank(character) or is_mark(character):
            if word:
                yield word
            word = []
            if is_mark(character):
                yield [(character, place)]
        else:
            word.append((character, place))
    if word:
        yield word


def lowered(kept):
    """Decomposed, without accents, in lower case; each part of a character stands where that stood."""
    parts = [(part, place) for one, place in kept for part in unicodedata.normalize("NFD", one)]
    bare = [(part, place) for part, place in reordered(parts) if unicodedata.category(part) != "Mn"]
    return [(low, place) for part, place in bare for low in part.lower()]


def reordered(parts):
    """Combining characters in canonical order, as the whole text's normal form has them."""
    ordered, run = [], []
    for part in parts:
        if unicodedata.combining(part[0]):
            run.append(part)
            continue
        ordered += sorted(run, key=lambda each: unicodedata.combining(each[0]))
        ordered.append(part)
        run = []
    return ordered + sorted(run, key=lambda each: unicodedata.combining(each[0]))


def pieces(word, ids):
    """(id, start, end) of a word's longest pieces, or the unknown one for all of it."""
    whole = [(ids["[UNK]"], word[0][1], word[-1][1] + 1)]
    if len(word) > LONGEST:
        return whole
    found, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = "##" * (start > 0) + "".join(character for character, _ in word[start:end])
            if piece in ids:
                found.append((ids[piece], word[start][1], word[end - 1][1] + 1))
                start = end
                break
        else:
            return whole
    return found


def is_dropped(character):
    """The replacement character, and controls, formats and private ones that are no white space.

    What Unicode has not assigned stays, as in `tokenizers`; BERT's own script drops it.
    """
    if character in "\t\n\r":
        return False
    return character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs")


def is_blank(character):
    return character in " \t\n\r" or character.isspace()


def is_chinese(character):
    return any(first <= ord(character) <= last for first, last in CHINESE)


def is_mark(character):
    """What ASCII has beside letters, digits and blanks, and all that Unicode calls punctuation."""
    code = ord(character)
    is_ascii = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return is_ascii or unicodedata.category(character)[0] == "P"
