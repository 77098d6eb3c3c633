"""Records as numbers, kind by kind.

    classify    text, wrapped                          text </s> text_pair, wrapped, where there are pairs
                [CLS] a [SEP]                          [CLS] a [SEP] b [SEP]      of types 0 0 0 1 1 (BERT)
                <s> a </s>                             <s> a </s> </s> b </s>     no types (RoBERTa)
    tag         a token and a tag for every word       slots has a label besides
                [CLS] un ##broken film [SEP]           a tag for every word, at its first piece
    pairs       source, wrapped                        <s> target </s>
    span        [CLS] question [SEP] context [SEP]     the context in windows (windows.py)

`wrap` puts marks around a text or a source: none; end: `</s>` behind it; both: `<s>` before it as well. The
names of the marks are those of a vocabulary of words; other tokenizers have [CLS] and [SEP], or one end of
text in both places.

What is longer than it may be is cut (of two texts the longer one first; the marks stay, but a target that
was cut has no end mark) and counted; example_set.py says what then becomes of it.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np

from zoo.data import tokens
from zoo.data.examples import labels
from zoo.data.examples.padded import Pairs, Ragged, Sequences
from zoo.data.examples.record import TEXTS, Record
from zoo.data.files import Document
from zoo.data.tokenizers import Tokenizer
from zoo.data.tokenizers.bpe import BPETokenizer
from zoo.data.tokenizers.word import WordTokenizer
from zoo.data.tokenizers.word_piece import WordPieceTokenizer
from zoo.errors import DataError

Words = tuple[str, ...]

WRAPS = {"none": (False, False), "end": (False, True), "both": (True, True)}
"""Whether a mark stands before and behind a text."""


def texts_of(record: Record) -> tuple[str, ...]:
    """The texts of a record; words are one, with blanks between."""
    if "words" in record.fields:
        return (" ".join(record.fields["words"]),)
    texts = [cast(str, record.fields[name]) for name in TEXTS if name in record.fields]
    return (*texts, *record.fields.get("choices", ()))


def words_of(record: Record) -> Sequence[str]:
    """The words of a record: those it gives, or what white space divides in its texts."""
    if "words" in record.fields:
        return record.fields["words"]
    return [word for text in texts_of(record) for word in text.split()]


def marks_of_pair(tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int]]:
    """What stands before, between and behind two texts."""
    before, behind, _ = _marks(tokenizer, "both")
    return before, _between(tokenizer), behind


def needs_marks(records: Sequence[Record], wrap: str) -> bool:
    """Whether these records take a tokenizer with marks for the beginning and the end of a text."""
    return wrap != "none" or any({"target", "text_pair", "choices"} & each.fields.keys() for each in records)


def encode_texts(
    records: Sequence[Record], tokenizer: Tokenizer, known: Sequence[str], *, wrap: str, max_length: int
) -> Sequences:
    """tokens of records of the kind classify, and the label of those that have one."""
    before, behind, _ = _marks(tokenizer, wrap)
    firsts = encode_all(records, "text", tokenizer)
    with_pair = [record for record in records if "text_pair" in record.fields]
    seconds = iter(encode_all(with_pair, "text_pair", tokenizer))
    rows, types, is_cut = [], [], []
    for record, first in zip(records, firsts, strict=True):
        has_pair = "text_pair" in record.fields
        second = next(seconds) if has_pair else []
        between = _between(tokenizer) if has_pair else []
        room = max_length - len(before) - len(between) - len(behind)
        is_cut.append(len(first) + len(second) > room)
        keep = _shares(len(first), len(second), room)
        one = [*before, *first[: keep[0]], *between]
        other = [*second[: keep[1]], *behind]
        rows.append(np.array([*one, *other], np.int32))
        types.append(np.repeat([0, int(has_pair)], [len(one), len(other)]))
    per_token = {"token_types": Ragged.of(types)} if with_pair and has_types(tokenizer) else {}
    return Sequences(Ragged.of(rows), per_token, _labels(records, known), np.array(is_cut, bool))


def encode_words(
    records: Sequence[Record],
    tokenizer: WordTokenizer,
    known_tags: Sequence[str],
    known_labels: Sequence[str],
    *,
    max_length: int,
) -> Sequences:
    """tokens of records of the kinds tag and slots, and the tags and the label of those that have them."""
    rows = [tokenizer.encode_words(cast(Words, record.fields["words"])) for record in records]
    is_cut_N = np.array([len(row) > max_length for row in rows], bool)
    tokens = Ragged.of([row[:max_length] for row in rows])
    per_token = {}
    if all("tags" in record.fields for record in records):
        tags = [
            labels.numbers(cast(Words, record.fields["tags"]), known_tags, record.where, "tag")
            for record in records
        ]
        per_token["tags"] = Ragged.of([row[:max_length] for row in tags])
    return Sequences(tokens, per_token, _labels(records, known_labels), is_cut_N)


def encode_pieces(
    records: Sequence[Record],
    tokenizer: Tokenizer,
    known_tags: Sequence[str],
    known_labels: Sequence[str],
    *,
    wrap: str,
    max_length: int,
) -> Sequences:
    """tokens of records of the kinds tag and slots whose words are pieces or stand between marks.

    Each word's first piece is in "word_starts", and the tags are the words'. What is too long is cut before
    a word; of a first word that is itself too long, a part remains.
    """
    before, behind, _ = _marks(tokenizer, wrap)
    room = max_length - len(before) - len(behind)
    pieces_of = _pieces(records, tokenizer)
    rows, starts, counts, is_cut = [], [], [], []
    for record in records:
        pieces = [pieces_of[word] for word in record.fields["words"]]
        ends = np.cumsum([len(each) for each in pieces])
        count = max(1, int(np.searchsorted(ends, room, side="right")))
        kept = np.concatenate(pieces[:count])[:room]
        rows.append(np.array([*before, *kept, *behind], np.int32))
        starts.append(len(before) + np.array([0, *ends[: count - 1]]))
        counts.append(count)
        is_cut.append(ends[-1] > room)
    per_word = {"word_starts": Ragged.of(starts)}
    if all("tags" in record.fields for record in records):
        per_word["tags"] = Ragged.of(
            [
                labels.numbers(cast(Words, record.fields["tags"]), known_tags, record.where, "tag")[:count]
                for record, count in zip(records, counts, strict=True)
            ]
        )
    return Sequences(
        Ragged.of(rows), {}, _labels(records, known_labels), np.array(is_cut, bool), per_word=per_word
    )


def words_are_tokens(tokenizer: Tokenizer, wrap: str) -> bool:
    """Whether a tagged sentence is its words and nothing else."""
    return isinstance(tokenizer, WordTokenizer) and wrap == "none"


def sizes_of_words(records: Sequence[Record], tokenizer: Tokenizer, wrap: str) -> list[int]:
    """How many tokens each tagged sentence is, uncut, its marks included."""
    before, behind, _ = _marks(tokenizer, wrap)
    if isinstance(tokenizer, WordTokenizer):
        counts = [len(record.fields["words"]) for record in records]
    else:
        pieces_of = _pieces(records, tokenizer)
        counts = [sum(len(pieces_of[word]) for word in record.fields["words"]) for record in records]
    return [len(before) + count + len(behind) for count in counts]


def _pieces(records: Sequence[Record], tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """The tokens of every word that occurs: at least one, where nothing is left of it the unknown one.

    A tokenizer that spells text out sees a blank before the word, as there would be in a text.
    """
    words = dict.fromkeys(word for record in records for word in record.fields["words"])
    if isinstance(tokenizer, WordTokenizer):
        return {word: tokenizer.encode_words([word]) for word in words}
    blank = " " if tokenizer.spells_text else ""
    found = {word: tokenizer.encode(blank + word) for word in words}
    return {word: ids if len(ids) else np.array([tokenizer.unk], np.int32) for word, ids in found.items()}


def encode_pairs(
    records: Sequence[Record], tokenizer: Tokenizer, *, wrap: str, max_length: int, max_target_length: int
) -> Pairs:
    """Source and target of records of the kind pairs."""
    before, behind, end = _marks(tokenizer, wrap)
    begin, _, _ = _marks(tokenizer, "both")
    room = max_length - len(before) - len(behind)
    sources = encode_all(records, "source", tokenizer)
    targets = encode_all(records, "target", tokenizer)
    is_cut_N = np.array(
        [len(s) > room or len(t) >= max_target_length for s, t in zip(sources, targets, strict=True)], bool
    )
    return Pairs(
        Ragged.of([np.array([*before, *each[:room], *behind], np.int32) for each in sources]),
        Ragged.of([np.array([*begin, *each, *end], np.int32)[: max_target_length + 1] for each in targets]),
        is_cut_N,
    )


def encode_all(records: Sequence[Record], field: str, tokenizer: Tokenizer) -> list[np.ndarray]:
    """The tokens of one field of every record, without marks; DataError for a text that has none."""
    texts = [cast(str, record.fields[field]) for record in records]
    named = [Document(record.where, text, "") for record, text in zip(records, texts, strict=True)]
    flat = tokens.encode(named, tokenizer)
    ids = np.asarray(flat.ids)
    found = [ids[a:b] for a, b in zip(flat.starts[:-1] + flat.has_eot, flat.starts[1:], strict=True)]
    for record, text, row in zip(records, texts, found, strict=True):
        if not len(row) or not text.strip():
            raise DataError(f"{record.where}: the {field} {text!r} is empty; write one, or remove the record")
    return found


def _labels(records: Sequence[Record], known: Sequence[str]) -> dict[str, np.ndarray]:
    """label int32 [N], where the records have one."""
    if not all("label" in record.fields for record in records):
        return {}
    each = [labels.numbers([cast(str, record.fields["label"])], known, record.where) for record in records]
    return {"label": np.concatenate(each)}


def _marks(tokenizer: Tokenizer, wrap: str) -> tuple[list[int], list[int], list[int]]:
    """What stands before a text, behind it, and between two; nothing for a tokenizer without marks."""
    first, last = WRAPS[wrap]
    begin = [] if tokenizer.bos is None else [tokenizer.bos]
    end = [] if tokenizer.eot is None else [tokenizer.eot]
    return begin * first, end * last, end


def has_types(tokenizer: Tokenizer) -> bool:
    """Whether models of this vocabulary tell two texts of a row apart by types, as BERT does."""
    return isinstance(tokenizer, WordPieceTokenizer)


def _between(tokenizer: Tokenizer) -> list[int]:
    """What stands between two texts: the end mark, and twice where the beginning has another, as RoBERTa
    has it."""
    _, _, end = _marks(tokenizer, "none")
    return 2 * end if isinstance(tokenizer, BPETokenizer) and tokenizer.bos != tokenizer.eot else end


def _shares(first: int, second: int, room: int) -> tuple[int, int]:
    """How much of two lengths to keep in `room`: all, or the longer one cut until it is the shorter.

    Of an odd room the longer one gets the larger half, of two equals the second, as in `tokenizers`.
    """
    if first + second <= room:
        return first, second
    least = min(first, second, room // 2)
    return (least, room - least) if first <= second else (room - least, least)
