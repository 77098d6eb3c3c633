"""Tokenizers: what goes in comes out, and damaged vocabularies are refused in one line."""

import gzip
import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zoo.data.tokenizers.text as text_module
from zoo.data import load_tokenizer
from zoo.data.tokenizers import (
    TOKENIZERS,
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    SentencePieceTokenizer,
    sentence_piece,
)
from zoo.data.tokenizers.bpe import byte_symbols
from zoo.data.tokenizers.sentence_piece import train
from zoo.data.tokenizers.whole import WholeTokenizer
from zoo.data.tokenizers.word import BEGIN, END, EXAMPLES, WordTokenizer
from zoo.data.tokenizers.word_piece import WordPieceTokenizer
from zoo.errors import DataError

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT.parent / "shared" / "data" / "tokenizers"
published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="the published vocabularies (../shared/data) are not here"
)

CODE = "def f(x):\r\n    return x + 1\n\n\nclass A:\n\tdef g(self):\n\t\treturn 'ä€😀'\n" * 30
PROSE = "The quick brown fox jumps over the lazy dog; it does not mind. " * 30

ALPHABETS = (
    "abc XYZ 019 _.,()\"'",
    " \t\n\r",
    "\u2581\u2585 <s></s><unk><0x0A><|endoftext|>[UNK]##",  # what the libraries use inside
    "éßñøÅ中文字кирилعربيةहिन्दी",
    "😀👩\u200d👩\u200d👧🇩🇪\ufe0f",
    "e\u0301\u0308\u00a0\u3000\u2028\u2029\x85\x0b\x0c\x1f\x7f\x00\x01",
    "\ufeff\ufffd\uffff\U0010ffff\ue000",
)


def nasty_texts(count, seed):
    """Short strings of mixed scripts, controls, line ends and the libraries' own signs."""
    rng = random.Random(seed)
    for _ in range(count):
        yield "".join(rng.choice(rng.choice(ALPHABETS)) for _ in range(rng.randrange(25)))


def write_bpe(folder, merges, extra=()):
    """A small byte-level vocabulary: the bytes, the merges' results, an end of text."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [*byte_symbols(), *(left + right for left, right in merges), *extra, "<|endoftext|>"]
    (folder / "encoder.json.gz").write_bytes(
        gzip.compress(json.dumps({p: i for i, p in enumerate(pieces)}).encode())
    )
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "vocab.bpe").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_wordpiece(folder, pieces):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_bytes("\n".join(pieces).encode())
    return folder


BERT_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "hello", ",", "中"]


@pytest.fixture(scope="module")
def makers(tmp_path_factory):
    """One small tokenizer of each name, made when asked for."""
    import test_whole_tokenizer  # here, as a test below reads this file in a process of its own

    folder = tmp_path_factory.mktemp("vocabularies")
    every_character = "".join(ALPHABETS) + CODE + PROSE
    test_whole_tokenizer.written(folder / "whole", "digits")
    return {
        "byte": ByteTokenizer,
        "char": lambda: CharTokenizer.of([every_character], has_eot=True),
        "sentencepiece": lambda: SentencePieceTokenizer(train([CODE, PROSE], 350)),
        "bpe": lambda: BPETokenizer.read(
            write_bpe(folder / "bpe", [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "a")])
        ),
        "wordpiece": lambda: WordPieceTokenizer.read(write_wordpiece(folder / "wordpiece", BERT_PIECES)),
        "whole": lambda: WholeTokenizer.read(folder / "whole"),
        "word": lambda: WordTokenizer.of(["hello", *PROSE.split()], (*EXAMPLES, BEGIN, END)),
    }


@pytest.mark.parametrize("name", ["byte", "char", "sentencepiece", "bpe", "whole"])
def test_what_goes_in_comes_out(makers, name):
    tokenizer = makers[name]()
    for text in [CODE, PROSE, "", " ", "  ", "\n", *nasty_texts(2000, seed=0)]:
        ids = tokenizer.encode(text)
        assert ids.dtype == np.int32 and tokenizer.decode(ids) == text
        assert ids.min(initial=0) >= 0 and ids.max(initial=0) < tokenizer.vocab_size
        assert tokenizer.eot not in ids


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_end_of_text_and_padding_of_a_vocabulary_decode_to_nothing(makers, name):
    tokenizer = makers[name]()
    ids = tokenizer.encode("hello")
    behind = tokenizer.vocab_size + 5
    assert tokenizer.decode([tokenizer.eot, *ids, behind, tokenizer.eot]) == tokenizer.decode(ids) == "hello"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_saved_tokenizer_is_the_same_one(makers, name, tmp_path):
    tokenizer = makers[name]()
    tokenizer.save(tmp_path / "a" / "b")
    loaded = load_tokenizer(tmp_path / "a" / "b")
    assert type(loaded) is type(tokenizer) and loaded.digest == tokenizer.digest
    assert (loaded.vocab_size, loaded.eot) == (tokenizer.vocab_size, tokenizer.eot)
    np.testing.assert_array_equal(loaded.encode(CODE), tokenizer.encode(CODE))


def test_no_two_tokenizers_share_a_digest(makers):
    others = [CharTokenizer.of(["ab"], has_eot=True), CharTokenizer.of(["ab"], has_eot=False)]
    tokenizers = [make() for make in makers.values()] + others
    assert len({tokenizer.digest for tokenizer in tokenizers}) == len(tokenizers)


def test_characters_are_numbered_by_code_point():
    tokenizer = CharTokenizer.of(["ba", "€\nb"], has_eot=False)
    assert tokenizer.encode("\nab€").tolist() == [0, 1, 2, 3]
    assert (tokenizer.vocab_size, tokenizer.eot) == (4, None)


def test_equal_texts_train_equal_models_in_every_process():
    program = (
        "import hashlib; from zoo.data.tokenizers.sentence_piece import train\n"
        "from tests.test_data_tokenizers import CODE, PROSE\n"
        "print(hashlib.sha256(train([CODE, PROSE], 320)).hexdigest())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert elsewhere.stdout.strip() == hashlib.sha256(train([CODE, PROSE], 320)).hexdigest()


def test_training_is_silent(capfd):
    train([CODE], 320)
    assert capfd.readouterr() == ("", "")


def test_indentation_and_line_ends_become_pieces():
    tokenizer = SentencePieceTokenizer(train([CODE.replace("\r", "")], 330))
    assert len(tokenizer.encode("):\n    return")) <= 3


def test_a_large_text_is_sampled_evenly_for_training(monkeypatch):
    monkeypatch.setattr(sentence_piece, "SLICE", 4)
    monkeypatch.setattr(sentence_piece, "SAMPLE", 8)
    assert sentence_piece.sample(["abcdefghij", "klmnopqr"]) == ["abcd", "klmn"]
    assert sentence_piece.sample(["abcd", "ef"]) == ["abcd", "ef"]


@pytest.mark.parametrize("name", ["sentencepiece", "bpe", "wordpiece"])
def test_a_long_text_has_the_tokens_of_the_whole(makers, name, monkeypatch):
    tokenizer = makers[name]()
    text = CODE + PROSE + "".join(f" x{'  ' * (i % 7)}\n\n  y " for i in range(300))
    whole = tokenizer.encode(text)
    monkeypatch.setattr(text_module, "CHUNK", 97)
    np.testing.assert_array_equal(tokenizer.encode(text), whole)


def test_a_text_without_blanks_is_cut_all_the_same(monkeypatch):
    monkeypatch.setattr(text_module, "CHUNK", 10)
    assert list(text_module.chunks("x" * 35)) == ["x" * 10, "x" * 10, "x" * 15]


def test_pieces_continue_words_and_unknown_words_are_unknown(makers):
    tokenizer = makers["wordpiece"]()
    assert tokenizer.encode("Unaffable, HÉLLO 中ü").tolist() == [4, 5, 6, 8, 7, 9, 1]


def test_a_vocabulary_with_capitals_keeps_the_capitals(tmp_path):
    cased = WordPieceTokenizer.read(write_wordpiece(tmp_path, [*BERT_PIECES, "Hello"]))
    assert cased.encode("Hello hello").tolist() == [10, 7]


def test_only_a_line_feed_ends_a_piece(tmp_path):
    pieces = [*BERT_PIECES, "\u2028", "\x85", "a\u2029b"]
    assert WordPieceTokenizer.read(write_wordpiece(tmp_path, pieces)).pieces == tuple(pieces)


@published
def test_gpt2_splits_as_published():
    """Ids as the published encoder gives them, and every text survives."""
    tokenizer = load_tokenizer(PUBLISHED / "gpt2")
    assert (tokenizer.vocab_size, tokenizer.eot) == (50257, 50256)
    assert tokenizer.encode("Hello world").tolist() == [15496, 995]
    assert tokenizer.encode("  two\n\n").tolist() == [220, 734, 628]
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in nasty_texts(500, seed=1))


@published
@pytest.mark.parametrize(
    "name, vocab_size, lowercases, text, ids",
    [
        ("bert-base-uncased", 30522, True, "Hello, world!", [7592, 1010, 2088, 999]),
        ("bert-base-cased", 28996, False, "Hello, world!", [8667, 117, 1362, 106]),
        ("bert-base-chinese", 21128, True, "你好", [872, 1962]),
    ],
)
def test_bert_splits_as_published(name, vocab_size, lowercases, text, ids):
    tokenizer = load_tokenizer(PUBLISHED / name)
    assert (tokenizer.vocab_size, tokenizer.lowercases) == (vocab_size, lowercases)
    assert tokenizer.encode(text).tolist() == ids


def refusal(call, *args):
    """The one line with which a call is refused."""
    with pytest.raises(DataError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unknown_character_is_named():
    tokenizer = CharTokenizer.of(["abc"], has_eot=False)
    assert "'é' (U+00E9, at 2)" in refusal(tokenizer.encode, "abéc")
    assert "'z'" in refusal(CharTokenizer.of([""], has_eot=False).encode, "z")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_half_a_surrogate_pair_is_refused(makers, name):
    assert "\\ud83d" in refusal(makers[name]().encode, "ab\ud83d")


def test_sentencepiece_says_how_many_pieces_a_text_yields():
    most = int(refusal(train, ["ab ab"], 4096).split("set it to ")[1].split(" ")[0])
    assert SentencePieceTokenizer(train(["ab ab"], most)).vocab_size == most
    assert "too small" in refusal(train, ["ab ab"], 100)


def test_a_damaged_sentencepiece_model_is_refused(tmp_path):
    (tmp_path / "a.model").write_bytes(b"no model")
    assert f"{tmp_path}/a.model: refused by the sentencepiece library" in refusal(
        SentencePieceTokenizer.read, tmp_path
    )
    (tmp_path / "b.model").write_bytes(b"nor this")
    assert "holds 2 .model files" in refusal(SentencePieceTokenizer.read, tmp_path)


@pytest.mark.parametrize(
    "damage, complaint",
    [
        (lambda folder: (folder / "vocab.bpe").unlink(), "has no vocab.bpe or merges.txt"),
        (lambda folder: (folder / "encoder.json.gz").unlink(), "has no encoder.json or vocab.json"),
        (lambda folder: (folder / "encoder.json.gz").write_bytes(b"x"), "not a whole gzip file"),
        (
            lambda folder: (folder / "vocab.bpe").write_text("#version: 0.2\nh e\nq q\n"),
            "vocab.bpe:3: piece 'qq'",
        ),
        (
            lambda folder: (folder / "vocab.bpe").write_text("h e\nabc\n"),
            "vocab.bpe:2: 'abc' is not two pieces",
        ),
        (lambda folder: (folder / "vocab.bpe").write_bytes(b"h e\r\n"), "vocab.bpe:1: piece 'e\\r'"),
        (lambda folder: (folder / "encoder.json").write_text("{"), "encoder.json: not JSON"),
        (lambda folder: (folder / "encoder.json").write_text('["a"]'), "a JSON list, not an object"),
        (lambda folder: (folder / "encoder.json").write_text('{"a": 0, "b": 2}'), "'b' has 2 in place of 1"),
        (lambda folder: (folder / "encoder.json").write_text('{"a": 0, "b": 0}'), "'b' has 0 in place of 1"),
        (
            lambda folder: (folder / "encoder.json").write_text('{"a": 0}'),
            "255 of the 256 bytes have no piece",
        ),
    ],
)
def test_a_damaged_bpe_vocabulary_is_refused(tmp_path, damage, complaint):
    damage(write_bpe(tmp_path, [("h", "e")]))
    assert complaint in refusal(BPETokenizer.read, tmp_path)


def test_a_word_of_up_to_100_letters_is_pieces_and_a_longer_one_unknown():
    tokenizer = WordPieceTokenizer(("[UNK]", "a", "##a"))
    assert tokenizer.encode("a" * 100).tolist() == [1] + [2] * 99
    assert tokenizer.encode("a" * 101).tolist() == [0]


@pytest.mark.parametrize(
    "pieces, complaint",
    [
        (["[UNK]", "a", "", "b"], "vocab.txt:3: line is empty"),
        (["[UNK]", "a", "b", "a"], "vocab.txt:4: piece 'a' stands in line 2 too"),
        (["[UNK]\r", "a\r"], "vocab.txt:1: line ends in a carriage return"),
        (["a", "b"], "no [UNK] among its 2 pieces"),
    ],
)
def test_a_damaged_wordpiece_vocabulary_is_refused(tmp_path, pieces, complaint):
    assert complaint in refusal(WordPieceTokenizer.read, write_wordpiece(tmp_path, pieces))


def test_a_panic_of_the_library_is_one_line(tmp_path, monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(self, text):
        raise PanicException("called `Option::unwrap()`\non a `None` value")

    monkeypatch.setattr(BPETokenizer, "encode", panic)
    assert "called `Option::unwrap()` on a `None` value" in refusal(
        BPETokenizer.read, write_bpe(tmp_path, [])
    )


def test_a_folder_without_a_tokenizer_says_so(tmp_path):
    assert "no tokenizer in it" in refusal(load_tokenizer, tmp_path)
    assert "no tokenizer in it" in refusal(load_tokenizer, tmp_path / "absent")


def test_a_changed_saved_vocabulary_is_noticed(tmp_path):
    CharTokenizer.of(["abc"], has_eot=False).save(tmp_path)
    CharTokenizer.of(["abd"], has_eot=False).save(tmp_path / "other")
    (tmp_path / "other" / "characters.json").rename(tmp_path / "characters.json")
    assert "not the one that was saved" in refusal(load_tokenizer, tmp_path)
    (tmp_path / "characters.json").write_text('{"chars": "abc"}')
    assert "not a character vocabulary" in refusal(load_tokenizer, tmp_path)
    (tmp_path / "tokenizer.zoo.json").write_text('{"name": "chair"}')
    assert "did you mean 'char'?" in refusal(load_tokenizer, tmp_path)
    (tmp_path / "tokenizer.zoo.json").write_text("{")
    assert "damaged" in refusal(load_tokenizer, tmp_path)
