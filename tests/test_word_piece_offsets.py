"""WordPiece against an implementation in plain Python, on random strings: every id and every offset."""

from pathlib import Path

import numpy as np
import oracle_wordpiece
import pytest
from fuzzed import strings

from zoo.data.tokenizers import text
from zoo.data.tokenizers.bpe import BPETokenizer, byte_symbols
from zoo.data.tokenizers.word_piece import WordPieceTokenizer

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "tokenizers"

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = (*"abcdeghiknorstué", *"αβσий", *"가ㄱ", *"中文的", *".,-!?'", "ca", "the", "ing", "ss", "e\u0301")
SMALL = tuple(dict.fromkeys((*MARKS, *LETTERS, *("##" + letter for letter in LETTERS), "straße", "##fi")))
CASED = (*SMALL, "A", "##B", "É", "İ", "##Σ")


def assert_equals_the_oracle(tokenizer, written):
    found = tokenizer.encode_with_offsets(written)
    wanted = oracle_wordpiece.tokenize(written, tokenizer.ids, lowercases=tokenizer.lowercases)
    assert [each.tolist() for each in found] == list(wanted), ascii(written)


@pytest.mark.parametrize("pieces", [SMALL, CASED], ids=["uncased", "cased"])
def test_ids_and_offsets_of_5000_strings_equal_plain_python(pieces):
    tokenizer = WordPieceTokenizer(pieces)
    assert tokenizer.lowercases == (pieces is SMALL)
    for written in strings(5000, seed=len(pieces)):
        assert_equals_the_oracle(tokenizer, written)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published vocabularies (../shared/data) are not here")
@pytest.mark.parametrize("name", ["bert-base-uncased", "bert-base-cased", "bert-base-chinese"])
def test_published_vocabularies_equal_plain_python(name):
    tokenizer = WordPieceTokenizer.read(PUBLISHED / name)
    for written in strings(500, seed=7):
        assert_equals_the_oracle(tokenizer, written)


def test_offsets_count_in_the_whole_of_a_text_that_is_read_in_pieces(monkeypatch):
    monkeypatch.setattr(text, "CHUNK", 16)
    written = "the caing 中文, " * 20
    assert len(list(text.chunks(written))) > 3
    assert_equals_the_oracle(WordPieceTokenizer(SMALL), written)


def test_ids_with_offsets_are_the_ids_without():
    tokenizer = WordPieceTokenizer(SMALL)
    for written in strings(50, seed=1):
        np.testing.assert_array_equal(tokenizer.encode(written), tokenizer.encode_with_offsets(written).ids)


def test_byte_pairs_stand_one_after_another_in_the_text():
    merges = (("c", "a"), ("Ġ", "t"))
    pieces = ["<|endoftext|>", *byte_symbols(), *map("".join, merges)]
    tokenizer = BPETokenizer({piece: i for i, piece in enumerate(pieces)}, merges)
    ids, starts, ends = tokenizer.encode_with_offsets("cab té")
    assert [pieces[i] for i in ids] == ["ca", "b", "Ġt", *"Ã©"]
    assert starts.tolist() == [0, 2, 3, 5, 5] and ends.tolist() == [2, 3, 5, 6, 6]
