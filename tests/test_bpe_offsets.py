"""Byte-level BPE against an implementation in plain Python, on random strings: every id and every offset."""

from pathlib import Path

import numpy as np
import oracle_bpe
import pytest
from fuzzed import strings

from zoo.data.tokenizers import text
from zoo.data.tokenizers.bpe import BPETokenizer

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "tokenizers" / "gpt2"


@pytest.fixture(scope="module")
def learned():
    """A vocabulary of merges in all scripts: those of other random strings, and of a text with endings."""
    words = "we'll they're I've it's don't I'm he'd  a  b\n\n c 's 'S "
    merges = oracle_bpe.learn(" ".join([*strings(300, seed=5), *[words] * 20]), 300)
    pieces = [*oracle_bpe.SYMBOLS, *map("".join, merges)]
    return BPETokenizer({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, tuple(merges))


def ranks_of(tokenizer):
    return {pair: rank for rank, pair in enumerate(tokenizer.merges)}


def assert_equals_the_oracle(tokenizer, ranks, written):
    found = tokenizer.encode_with_offsets(written)
    wanted = oracle_bpe.tokenize(written, tokenizer.vocab, ranks)
    assert [each.tolist() for each in found] == list(wanted), ascii(written)
    np.testing.assert_array_equal(tokenizer.encode(written), found.ids)
    assert tokenizer.decode(found.ids) == written, ascii(written)


def test_ids_and_offsets_of_10000_strings_equal_plain_python(learned):
    ranks = ranks_of(learned)
    for written in strings(9_000, seed=1):
        assert_equals_the_oracle(learned, ranks, written)
    for index, written in enumerate(strings(1_000, seed=2)):  # with the endings that the pattern knows
        ending = oracle_bpe.ENDINGS[index % 7] if index % 2 else "'" + "sStTmMdDlv"[index % 10]
        assert_equals_the_oracle(learned, ranks, ending.join(written.split(" ")) + ending)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published vocabulary (../shared/data) is not here")
def test_the_published_vocabulary_equals_plain_python():
    tokenizer = BPETokenizer.read(PUBLISHED)
    ranks = ranks_of(tokenizer)
    for written in strings(1_000, seed=3):
        assert_equals_the_oracle(tokenizer, ranks, written)


def test_offsets_count_in_the_whole_of_a_text_that_is_read_in_pieces(learned, monkeypatch):
    monkeypatch.setattr(text, "CHUNK", 16)
    written = "they'll 中文,  re 😀x\n" * 20
    assert len(list(text.chunks(written))) > 3
    assert_equals_the_oracle(learned, ranks_of(learned), written)
