"""Files of word vectors: the formats to the byte, round trips, and every way a file can be wrong.

The bytes below are what the original tools and gensim 4.4 write for such vectors: word2vec's text ends its
lines with a blank, its binary with a newline; gensim's has neither.
"""

import gzip
import struct
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from zoo.data.tokenizers.word import WordTokenizer
from zoo.errors import DataError, StorageError
from zoo.pretrained.tables import initialise, vectors_of
from zoo.pretrained.vectors import (
    Vectors,
    read_glove,
    read_vectors,
    read_word2vec_binary,
    read_word2vec_text,
)
from zoo.pretrained.write_vectors import write_glove, write_word2vec_binary, write_word2vec_text

FORMATS = {
    "word2vec text": (write_word2vec_text, read_word2vec_text, "v.txt"),
    "word2vec binary": (write_word2vec_binary, read_word2vec_binary, "v.bin"),
    "glove": (write_glove, read_glove, "v.txt"),
}
each_format = pytest.mark.parametrize("kind", FORMATS)
zipped_or_not = pytest.mark.parametrize("ending", ["", ".gz"])

ODD_WORDS = (
    "the",
    "日本",
    "e\u0301",
    "a\u00a0b",
    "\u2028",
    "x\ty",
    "3.5",
    "-1",
    b"\xff\xfe".decode("utf-8", "surrogateescape"),
)


def odd_vectors() -> Vectors:
    """Odd words and every kind of float32: tiny, huge, with 24 bits that matter, zero of both signs."""
    rng = np.random.default_rng(0)
    random = rng.integers(0, 2**32, 4000, np.uint64).astype(np.uint32).view(np.float32)
    numbers = random[np.isfinite(random)][: 300 * len(ODD_WORDS)].reshape(len(ODD_WORDS), 300).copy()
    numbers[0, :4] = [0.0, -0.0, 1e-45, 3.4028235e38]
    return Vectors(ODD_WORDS, numbers)


def file_of(tmp_path, content: bytes, name="v.txt"):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def binary(*rows, count=None, width=None, newline=b"\n") -> bytes:
    head = b"%d %d\n" % (len(rows) if count is None else count, len(rows[0][1]) if width is None else width)
    return head + b"".join(word + b" " + struct.pack(f"<{len(v)}f", *v) + newline for word, v in rows)


# --- round trips ----------------------------------------------------------------------------------


@each_format
@zipped_or_not
def test_what_is_written_is_read_back_to_the_bit(tmp_path, kind, ending):
    write, read, name = FORMATS[kind]
    vectors = odd_vectors()
    write(tmp_path / (name + ending), vectors)
    for again in (read(tmp_path / (name + ending)), read_vectors(tmp_path / (name + ending))):
        assert again.words == vectors.words
        assert again.table_VD.dtype == np.float32
        np.testing.assert_array_equal(again.table_VD.view(np.uint32), vectors.table_VD.view(np.uint32))


@each_format
def test_equal_vectors_make_equal_files(tmp_path, kind):
    write, read, name = FORMATS[kind]
    write(tmp_path / "a.gz", odd_vectors())
    write(tmp_path / "b.gz", read(tmp_path / "a.gz"))
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert (tmp_path / "a.gz").read_bytes()[3:8] == bytes(5)  # no name and no time in the gzip header


def test_files_are_laid_out_as_the_tools_lay_them_out(tmp_path):
    vectors = Vectors(("the", "cat"), np.array([[0.5, -1], [1 / 3, 2e-8]], np.float32))
    write_word2vec_text(tmp_path / "t", vectors)
    assert (tmp_path / "t").read_bytes() == b"2 2\nthe 0.5 -1\ncat 0.333333343 1.99999999e-08\n"
    write_glove(tmp_path / "g", vectors)
    assert (tmp_path / "g").read_bytes() == b"the 0.5 -1\ncat 0.333333343 1.99999999e-08\n"
    write_word2vec_binary(tmp_path / "b", vectors)
    numbers = [struct.pack("<2f", 0.5, -1), struct.pack("<2f", 1 / 3, 2e-8)]
    assert (tmp_path / "b").read_bytes() == b"2 2\nthe " + numbers[0] + b"\ncat " + numbers[1] + b"\n"


# --- what tools write -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"2 3\nthe 0.250000 -1.500000 2.000000 \ncat 1.000000 0.000000 -0.125000 \n",  # the original tool
        b"2 3\nthe 0.25 -1.5 2.0\ncat 1.0 0.0 -0.125\n",  # gensim
        b"2 3\r\nthe 0.25 -1.5 2.0\r\ncat 1.0 0.0 -0.125",  # out of an editor
        b"the 0.25 -1.5 2\ncat 1 0 -.125\n",  # GloVe
        b"\xef\xbb\xbf2 3\r\nthe 0.25 -1.5 2.0\r\ncat 1.0 0.0 -0.125\r\n\r\n",  # and of Windows
        b"\xef\xbb\xbfthe 0.25 -1.5 2\ncat 1 0 -.125\n\n \n",
    ],
    ids=["word2vec", "gensim", "CR LF", "glove", "BOM, word2vec", "BOM, glove"],
)
def test_text_of_every_tool_reads_alike(tmp_path, content):
    for name in ("v.txt", "v.vec.gz"):
        vectors = read_vectors(file_of(tmp_path, content, name))
        assert vectors.words == ("the", "cat")
        assert vectors.table_VD.tolist() == [[0.25, -1.5, 2.0], [1.0, 0.0, -0.125]]


@pytest.mark.parametrize("newline", [b"\n", b""], ids=["word2vec", "gensim"])
def test_binary_of_every_tool_reads_alike(tmp_path, newline, monkeypatch):
    # Numbers whose bytes look like blanks and newlines (0x20202020, 0x0a0a0a0a) are numbers all the same.
    blank, newlines = struct.unpack("<2f", b"    \n\n\n\n")
    content = binary((b"the", [0.25, blank]), (b"cat", [newlines, -0.125]), newline=newline)
    for name in ("v.bin", "v.bin.gz"):
        vectors = read_vectors(file_of(tmp_path, content, name))
        assert vectors.words == ("the", "cat")
        assert vectors.table_VD.tolist() == [[0.25, blank], [newlines, -0.125]]
    monkeypatch.setattr("zoo.pretrained.vectors.BLOCK", 3)  # and wherever a block ends
    assert read_word2vec_binary(tmp_path / "v.bin").table_VD.tolist() == vectors.table_VD.tolist()


def test_words_with_blanks_in_them_are_read_where_the_rest_are_numbers(tmp_path):
    vectors = read_glove(file_of(tmp_path, b"the 1 2\n. . . 3 4\nat name@domain.com 5 6\nin 1_0 7 8\n"))
    assert vectors.words == ("the", ". . .", "at name@domain.com", "in 1_0")
    assert vectors.table_VD.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]


def test_a_byte_order_mark_may_be_a_word_and_none_is_written_as_if_it_were_a_mark(tmp_path):
    vectors = read_glove(file_of(tmp_path, "\ufeff 1 2\na\ufeff 3 4\n".encode()))
    assert vectors.words == ("\ufeff", "a\ufeff")
    write_glove(tmp_path / "again", vectors)
    assert read_vectors(tmp_path / "again").words == vectors.words
    with pytest.raises(DataError, match="word 1 .* begins with a byte-order mark"):
        write_glove(tmp_path / "marked", Vectors(("\ufeffa", "b"), vectors.table_VD))


def test_words_that_differ_in_one_odd_byte_stay_two(tmp_path):
    content = b"a\xe9 1 2\na\xea 3 4\n"
    vectors = read_glove(file_of(tmp_path, content))
    assert len(set(vectors.words)) == 2
    write_glove(tmp_path / "again", vectors)
    assert (tmp_path / "again").read_bytes() == content


@each_format
def test_only_the_words_asked_for_are_kept(tmp_path, kind):
    write, read, name = FORMATS[kind]
    rng = np.random.default_rng(0)
    vectors = Vectors(tuple(f"w{i}" for i in range(50)), rng.standard_normal((50, 3)).astype(np.float32))
    write(tmp_path / name, vectors)
    some = read(tmp_path / name, words={"w7", "w40", "elsewhere"})
    assert some.words == ("w7", "w40")
    np.testing.assert_array_equal(some.table_VD, vectors.table_VD[[7, 40]])
    assert read(tmp_path / name, words=()).table_VD.shape == (0, 3)


# --- what is wrong with a file --------------------------------------------------------------------

CAT, DOG = (b"cat", [1.0, 2.0]), (b"dog", [3.0, 4.0])

WRONG = {
    "empty": (b"", "v.txt", "{path}: no vectors in it"),
    "a narrower line": (b"cat 1 2\ndog 3\n", "v.txt", "{path}:2: a vector of 1 numbers among vectors of 2"),
    "a wider line": (b"cat 1 2\ndog 3 4 5\n", "v.txt", "{path}:2: a vector of 3 numbers among vectors of 2"),
    "a blank line": (b"cat 1 2\n\ndog 3 4\n", "v.txt", "{path}:2: an empty line with others behind it"),
    "blank lines": (b"\n \n", "v.txt", "{path}: no vectors in it"),
    "no numbers": (b"cat\ndog\n", "v.txt", "{path}:1: not a word and its numbers"),
    "no word": (b"cat 1 2\n 3 4\n", "v.txt", "{path}:2: not a word and its numbers"),
    "no number": (b"cat 1 2\ndog 3 four\n", "v.txt", "{path}:2: 'four' is no number"),
    "an underscore": (b"cat 1 2\ndog_1_0 3 4_0\n", "v.txt", "{path}:2: '4_0' is no number"),
    "a long line": (b"cat 1 2\ndog 1 " + b"x" * 9000, "v.txt", "{path}:2: '" + "x" * 40 + "' is no number"),
    "nan": (b"cat 1 2\ndog nan 4\n", "v.txt", "{path}:2: number 1 of 'dog' is nan; vectors must be finite"),
    "infinite": (b"cat 1 2\ndog 3 -inf\n", "v.txt", "{path}:2: number 2 of 'dog' is -inf"),
    "beyond float32": (b"cat 1 1e39\n", "v.txt", "{path}:1: number 2 of 'cat' is inf"),
    "a word twice": (b"cat 1 2\ndog 3 4\ncat 5 6\n", "v.txt", "{path}: word 3 'cat' is word 1 too"),
    "header too small": (b"1 2\ncat 1 2\ndog 3 4\n", "v.txt", "{path}:3: the header promises 1 words"),
    "header too large": (b"3 2\ncat 1 2\ndog 3 4\n", "v.txt", "{path}:3: ends after 2 of the 3 words"),
    "header too wide": (
        b"2 3\ncat 1 2\ndog 3 4\n",
        "v.txt",
        "{path}:2: a vector of 2 numbers among vectors of 3",
    ),
    "header too narrow": (
        b"2 1\ncat 1 2\ndog 3 4\n",
        "v.txt",
        "{path}:2: a vector of 2 numbers among vectors of 1",
    ),
    "header alone": (b"2 3\n", "v.txt", "{path}:1: ends after 0 of the 2 words"),
    "header of nothing": (b"0 3\n", "v.txt", "{path}:1: a header of 0 words of width 3 cannot be"),
    "binary cut in a vector": (
        binary(CAT, DOG)[:-3],
        "v.bin",
        "{path}: word 2 of 2: the file ends inside it",
    ),
    "binary cut in a word": (binary(CAT, DOG)[:17], "v.bin", "{path}: word 2 of 2: the file ends inside it"),
    "binary longer": (binary(CAT, DOG, count=1), "v.bin", "{path}: goes on behind the 1 words"),
    "binary shorter": (binary(CAT, DOG, count=3), "v.bin", "{path}: word 3 of 3: the file ends inside it"),
    "binary wider": (binary(CAT, DOG, width=3), "v.bin", "{path}: word 2 of 2: "),
    "binary narrower": (binary(CAT, DOG, width=1), "v.bin", "{path}: "),
    "binary nan": (
        binary(CAT, (b"dog", [0.0, float("nan")])),
        "v.bin",
        "{path}: word 2 of 2: number 2 of 'dog' is nan",
    ),
    "binary twice": (binary(CAT, CAT), "v.bin", "{path}: word 2 'cat' is word 1 too"),
    "binary huge header": (
        b"9999999999999 300\ncat " + bytes(8),
        "v.bin",
        "{path}: word 1 of 9999999999999: ",
    ),
    "binary huge width": (
        b"2 9999999999999\ncat " + bytes(8),
        "v.bin",
        "{path}:1: a header of 2 words of width",
    ),
    "binary without blanks": (b"2 3\n" + b"x" * 9000, "v.bin", "{path}: word 1 of 2: no blank behind it"),
    "cut gzip": (None, "v.txt.gz", "{path}: not a whole gzip file"),
    "absent": (None, "absent.txt", "{path}: no such file"),
}


@pytest.mark.parametrize("content, name, message", WRONG.values(), ids=WRONG)
def test_a_file_that_is_wrong_is_one_line_with_its_place(tmp_path, content, name, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(b"cat 1 2\ndog 3 4\n")[:-9])
    with pytest.raises(DataError) as caught:
        read_vectors(path)
    text = str(caught.value)
    assert text.startswith(message.format(path=path)), text
    assert "\n" not in text


def test_a_reader_that_needs_a_header_says_so(tmp_path):
    path = file_of(tmp_path, b"cat 1 2\n")
    for read in (read_word2vec_text, read_word2vec_binary):
        with pytest.raises(DataError, match=":1: no header of two numbers"):
            read(path)


@pytest.mark.parametrize(
    "words, numbers, message",
    [
        (("a b",), [[1.0]], "word 1 'a b' has a blank"),
        (("a", ""), [[1.0], [2.0]], "word 2 '' has a blank"),
        (("a\n",), [[1.0]], "has a blank or a line's end"),
        (("a", "b", "a"), [[1.0]] * 3, "word 'a' is there twice"),
        (("a", "b"), [[1.0], [float("inf")]], "vector of 'b' is not finite"),
        ((), np.zeros((0, 3)), "make no file"),
    ],
)
@each_format
def test_vectors_that_no_reader_would_take_are_not_written(tmp_path, kind, words, numbers, message):
    write, _, name = FORMATS[kind]
    with pytest.raises(DataError, match=message):
        write(tmp_path / name, Vectors(words, np.array(numbers, np.float32)))
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    with pytest.raises(StorageError, match="nowhere: no such folder; create it"):
        write_glove(tmp_path / "nowhere" / "v.txt", odd_vectors())
    (tmp_path / "v.txt").mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        write_glove(tmp_path / "v.txt", odd_vectors())
    assert [path.name for path in tmp_path.iterdir()] == ["v.txt"]


# --- models that start from vectors ---------------------------------------------------------------

TOKENIZER = WordTokenizer(("<unk>", "<eos>", "the", "cat", "zyzzyva"))
KNOWN = Vectors(("cat", "dog", "the"), np.arange(6, dtype=np.float32).reshape(3, 2))


def test_a_table_takes_the_rows_of_words_that_it_knows_and_keeps_the_others():
    table = jnp.full((8, 2), 9.0)  # three rows pad the vocabulary
    params = {"body": {"tokens": {"table": table, "scale": jnp.ones(2)}}, "head": jnp.zeros(3)}
    new, found = initialise(params, "body/tokens/table", KNOWN, TOKENIZER)
    assert found == 2
    assert new["body"]["tokens"]["table"].tolist() == [[9, 9], [9, 9], [4, 5], [0, 1]] + [[9, 9]] * 4
    assert params["body"]["tokens"]["table"].tolist() == [[9, 9]] * 8  # what was given stays as it was
    assert new["head"] is params["head"] and new["body"]["tokens"]["scale"].tolist() == [1, 1]


def test_several_tokens_may_spell_one_word():
    tokenizer = SimpleNamespace(vocab_size=3, decode=lambda ids: [" cat", "cat", "ca"][ids[0]])
    new, found = initialise({"table": jnp.zeros((3, 2))}, "table", KNOWN, tokenizer)
    assert found == 2 and new["table"].tolist() == [[0, 1], [0, 1], [0, 0]]


def test_a_table_without_any_known_word_stays_as_it_is():
    tokenizer = SimpleNamespace(vocab_size=2, decode=lambda ids: "xy"[ids[0]])
    new, found = initialise({"table": jnp.ones((2, 2))}, "table", KNOWN, tokenizer)
    assert found == 0 and new["table"].tolist() == [[1, 1], [1, 1]]


def test_vectors_of_another_width_are_one_line_with_both_widths():
    with pytest.raises(DataError, match="the vectors are 2 wide and table is 3; set the model's width to 2"):
        initialise({"table": jnp.zeros((5, 3))}, "table", KNOWN, TOKENIZER)


def test_a_table_that_is_not_there_is_one_line():
    with pytest.raises(DataError, match="body/tabel: the model has no such table; its parts are body"):
        initialise({"body": {"table": jnp.zeros((5, 2))}}, "body/tabel", KNOWN, TOKENIZER)


def test_vectors_of_a_model_leave_out_marks_and_padding_and_add_tables():
    words, contexts = np.arange(16.0).reshape(8, 2), np.ones((8, 2))
    params = {"words": {"table": words}, "contexts": {"table": contexts}}
    vectors = vectors_of(params, TOKENIZER)
    assert vectors.words == ("the", "cat", "zyzzyva")
    np.testing.assert_array_equal(vectors.table_VD, words[2:5])
    both = vectors_of(params, TOKENIZER, ("words", "contexts"))
    np.testing.assert_array_equal(both.table_VD, words[2:5] + 1)
