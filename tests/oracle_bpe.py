"""GPT-2's tokenizer in plain Python, a character and a merge at a time: an oracle for ids and for offsets.

Written from section 2.2 of the paper (Radford et al. 2019), from algorithm 1 of Sennrich et al. 2016 (arXiv
1508.07909), and from the behaviour that its pattern of words is known by:

    'll | one space and letters | one space and numbers | one space and other signs | white space

where white space before a word leaves its last character to that word.
"""

import unicodedata

ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
BLANKS = {*"\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000", *map(chr, range(0x2000, 0x200B))}


def tokenize(text, ids, ranks):
    """(ids, starts, ends) of a text's pieces; `ids` is the vocabulary and `ranks` the place of each pair of
    pieces in the list of merges."""
    found = []
    for start, stop in words(text):
        places = [place for place in range(start, stop) for _ in text[place].encode()]
        first = 0
        for piece in merged([SYMBOLS[byte] for byte in text[start:stop].encode()], ranks):
            last = first + len(piece) - 1
            found.append((ids[piece], places[first], places[last] + 1))
            first = last + 1
    return tuple(map(list, zip(*found, strict=True))) if found else ([], [], [])


def words(text):
    """(start, stop) of each word."""
    start = 0
    while start < len(text):
        stop = end_of_word(text, start)
        yield start, stop
        start = stop


def end_of_word(text, start):
    for ending in ENDINGS:
        if text.startswith(ending, start):
            return start + len(ending)
    first = start + 1 if text[start] == " " and start + 1 < len(text) else start
    kind = kind_of(text[first])
    stop = first
    while stop < len(text) and kind_of(text[stop]) == kind:
        stop += 1
    if kind != "blank":
        return stop
    stop = max(stop, start + 1)
    return stop if stop == len(text) or stop == start + 1 else stop - 1


def kind_of(character):
    if character in BLANKS:
        return "blank"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(character)[0], "sign")


def merged(pieces, ranks):
    """Joins the pair that was learned first, wherever it stands, until no pair was learned."""
    while True:
        pairs = [pair for pair in zip(pieces, pieces[1:], strict=False) if pair in ranks]
        if not pairs:
            return pieces
        pieces = joined(pieces, min(pairs, key=ranks.__getitem__))


def joined(pieces, pair):
    out, index = [], 0
    while index < len(pieces):
        is_pair = tuple(pieces[index : index + 2]) == pair
        out.append("".join(pair) if is_pair else pieces[index])
        index += 1 + is_pair
    return out


def learn(text, count):
    """The `count` most frequent pairs of a text, each joined before the next is counted."""
    corpus = [[SYMBOLS[byte] for byte in text[start:stop].encode()] for start, stop in words(text)]
    merges = []
    for _ in range(count):
        counts = {}
        for word in corpus:
            for pair in zip(word, word[1:], strict=False):
                counts[pair] = counts.get(pair, 0) + 1
        merges.append(max(counts, key=counts.__getitem__))
        corpus = [joined(word, merges[-1]) if merges[-1][0] in word else word for word in corpus]
    return merges


def _symbols():
    """A visible character for every byte: itself where it is one, else the next from 256 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in visible]
    return [chr(256 + others.index(byte)) if byte in others else chr(byte) for byte in range(256)]


SYMBOLS = _symbols()
