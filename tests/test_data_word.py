"""Words: how they are numbered, what a line's end is, and the vocabularies of published data sets."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from zoo.data import load_tokenizer
from zoo.data.corpus import read_corpus
from zoo.data.tokenizers import TOKENIZERS
from zoo.data.tokenizers.word import BEGIN, END, EXAMPLES, LINES, WordTokenizer
from zoo.data.vocabulary import make_tokenizer
from zoo.errors import DataError

DATA = Path(__file__).parents[2] / "shared" / "data"
published = pytest.mark.skipif(
    not DATA.is_dir(), reason="the published data sets (../shared/data) are not here"
)

MARKED = WordTokenizer((*EXAMPLES, BEGIN, END, "the", "cat"))


def refusal(call, *args, **kwargs):
    """The one line with which a call is refused."""
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_words_are_numbered_by_falling_frequency_and_equals_by_spelling():
    words = "b c a a c d ä".split()
    assert WordTokenizer.of(words, EXAMPLES).words == ("<pad>", "<unk>", "a", "c", "b", "d", "ä")
    assert WordTokenizer.of(words, EXAMPLES, min_count=2).words == ("<pad>", "<unk>", "a", "c")
    assert WordTokenizer.of(words, EXAMPLES, vocab_size=5).words == ("<pad>", "<unk>", "a", "c", "b")


def test_the_order_in_which_words_come_numbers_nothing():
    words = random.Random(0).choices([f"w{i}" for i in range(50)], k=500)
    assert WordTokenizer.of(words, LINES) == WordTokenizer.of(sorted(words), LINES)


def test_a_line_end_is_a_token_in_a_text_of_lines_and_white_space_elsewhere():
    lines = WordTokenizer.of_lines(["the cat\n\n the \n"])
    assert lines.words == ("<eos>", "<unk>", "the", "cat")
    assert lines.encode(" the  cat\n\n dog").tolist() == [2, 3, 0, 0, 1]
    assert lines.encode("the cat").tolist() == [2, 3]
    assert MARKED.encode(" the\n cat ").tolist() == [4, 5]


def test_decoding_puts_a_blank_between_words_and_a_line_end_for_its_token():
    lines = WordTokenizer.of_lines(["the cat"])
    ids = {word: lines.ids[word] for word in lines.words}
    assert lines.decode([ids["the"], ids["cat"], 0, 0, ids["cat"], 1, 0]) == "the cat\n\ncat <unk>\n"
    assert lines.decode([0, ids["the"]]) == "\nthe" and lines.decode([]) == ""


def test_all_that_decoding_loses_is_white_space_within_lines():
    rng = random.Random(1)
    for _ in range(200):
        text = "".join(
            rng.choice(["a", "bb", " ", "\t", "\n", "\r\n", "ü"]) for _ in range(rng.randrange(30))
        )
        tokenizer = WordTokenizer.of_lines([text])
        expected = "\n".join(" ".join(line.split()) for line in text.split("\n"))
        assert tokenizer.decode(tokenizer.encode(text)) == expected


def test_a_text_that_says_unk_means_it_and_no_text_can_end_itself():
    tokenizer = WordTokenizer.of("<unk> </s> <pad> the".split(), (*EXAMPLES, BEGIN, END))
    assert tokenizer.words == (*EXAMPLES, BEGIN, END, "the")
    assert tokenizer.encode("the <unk> dog </s> <s> <pad>").tolist() == [4, 1, 1, 1, 1, 1]


def test_marks_and_padding_decode_to_nothing():
    assert MARKED.decode([2, 4, 0, 1, 3, 99]) == "the <unk>"
    assert (MARKED.bos, MARKED.eot, MARKED.unk) == (2, 3, 1)
    lines = WordTokenizer.of_lines(["the"])
    assert (lines.bos, lines.eot, lines.unk) == (None, None, 1)


def test_words_that_are_given_stay_whole():
    tokenizer = WordTokenizer.of(["New York", "a"], EXAMPLES)
    assert tokenizer.encode_words(["New York", "b", ""]).tolist() == [tokenizer.ids["New York"], 1, 1]


@pytest.mark.parametrize("tokenizer", [MARKED, WordTokenizer.of_lines(["ein ä 😀"])])
def test_a_saved_vocabulary_is_the_same_one(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a")
    assert load_tokenizer(tmp_path / "a") == tokenizer
    assert (
        load_tokenizer(tmp_path / "a").digest
        == tokenizer.digest
        != WordTokenizer(tokenizer.words[::-1]).digest
    )


def test_only_tokenizers_that_give_a_text_back_say_so():
    assert {name for name, each in TOKENIZERS.items() if not each.spells_text} == {"word", "wordpiece"}


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("{", "not JSON"),
        ('{"a": 1}', "a JSON dict, not a list"),
        ('["<unk>", 1]', "not a list of words"),
        ('["<unk>", "a", "a"]', "word 'a' stands there twice"),
        ('["a"]', "no <unk> among its 1 words"),
    ],
)
def test_a_damaged_vocabulary_is_refused(tmp_path, content, complaint):
    (tmp_path / "words.json").write_text(content)
    assert f"{tmp_path}/words.json: {complaint}" in refusal(WordTokenizer.read, tmp_path)


def test_what_cannot_be_is_refused_in_one_line(tmp_path):
    assert "no such file" in refusal(WordTokenizer.read, tmp_path)
    assert "leaves no word beside the 2 marks" in refusal(WordTokenizer.of, ["a"], EXAMPLES, vocab_size=2)
    assert "\\ud83d" in refusal(MARKED.encode, "the \ud83d")


def line_model(folder, **settings):
    """A published folder's parts and the vocabulary of its training part."""
    corpus = read_corpus(str(DATA / folder), 0.1)
    return corpus, make_tokenizer("word", corpus, vocab_path="", vocab_size=0, **settings)


@published
def test_the_penn_treebank_has_its_10000_words_and_929589_tokens():
    corpus, tokenizer = line_model("ptb")
    ids = {part: tokenizer.encode(documents[0].text) for part, documents in corpus.parts.items()}
    assert {part: len(each) for part, each in ids.items()} == {"train": 929589, "valid": 73760, "test": 82430}
    assert tokenizer.vocab_size == 10000 and tokenizer.words[:3] == ("<eos>", "<unk>", "the")
    assert (ids["train"] == tokenizer.ids["<eos>"]).sum() == 42068
    assert all(each.max() < 10000 and each.min() == 0 for each in ids.values())


@published
def test_wikitext_2_has_its_33278_words_and_2088628_tokens():
    corpus, tokenizer = line_model("wikitext-2")
    counts = {part: len(tokenizer.encode(documents[0].text)) for part, documents in corpus.parts.items()}
    assert counts == {"train": 2088628, "valid": 217646, "test": 245569}
    assert tokenizer.vocab_size == 33278  # the same over all three parts: rare words are <unk> in the files


@published
def test_rare_words_of_a_text_become_unknown():
    corpus, tokenizer = line_model("ptb", min_count=100)
    ids = tokenizer.encode(corpus.parts["train"][0].text)
    counts = np.bincount(ids, minlength=tokenizer.vocab_size)
    assert counts[2:].min() >= 100 and (np.diff(counts[2:]) <= 0).all() and counts.sum() == 929589


def test_a_vocabulary_file_is_a_list_of_words(tmp_path):
    MARKED.save(tmp_path)
    assert json.loads((tmp_path / "words.json").read_text()) == list(MARKED.words)
