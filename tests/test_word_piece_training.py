"""WordPiece trained on a text: the pieces that counting by hand gives, the same in every process."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from zoo.data import DataConfig, load, load_tokenizer, vocabulary
from zoo.data.tokenizers.word_piece import WordPieceTokenizer
from zoo.data.tokenizers.word_piece_training import SPECIAL, train
from zoo.errors import ConfigError, DataError

ROOT = Path(__file__).parents[1]
TEXT = (
    "The tea teat, the Tea-eater! An ant ate a tan tent; that hat hath heat. " * 20
    + "zebra ox lion mouse " * 3
)


def by_hand(words: Counter, size: int) -> tuple[str, ...]:
    """Byte-pair merges in words, one at a time; of equal counts the pair whose pieces were there first."""
    split = {word: [word[0], *(f"##{c}" for c in word[1:])] for word in words}

    def by_character(piece):
        return (piece.removeprefix("##") or piece, len(piece) > 2 and piece.startswith("##"))

    pieces = sorted({piece for parts in split.values() for piece in parts}, key=by_character)
    while len(pieces) < size:
        counts: Counter = Counter()
        for word, parts in split.items():
            for pair in zip(parts, parts[1:], strict=False):
                counts[pair] += words[word]
        number = {piece: i for i, piece in enumerate(pieces)}
        left, right = min(counts, key=lambda pair: (-counts[pair], number[pair[0]], number[pair[1]]))
        pieces.append(left + right.removeprefix("##"))
        for parts in split.values():
            for place in range(len(parts) - 2, -1, -1):
                if parts[place : place + 2] == [left, right]:
                    parts[place : place + 2] = [pieces[-1]]
    return tuple(pieces)


def test_the_pieces_are_those_of_merging_by_hand():
    words = Counter(
        "The tea teat , the Tea - eater ! An ant ate a tan tent ; that hat hath heat .".split() * 20
    )
    words.update("zebra ox lion mouse".split() * 3)
    for size in (30, 45, 60):
        assert train([TEXT], len(SPECIAL) + size) == SPECIAL + by_hand(words, size)


def test_equal_texts_train_equal_pieces_in_every_process():
    program = (
        "from zoo.data.tokenizers.word_piece_training import train\n"
        "from tests.test_word_piece_training import TEXT\n"
        "print(*train([TEXT], 60))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert tuple(done.stdout.split()) == train([TEXT], 60)


def test_a_text_in_its_own_vocabulary_comes_back_without_unknown_words():
    tokenizer = WordPieceTokenizer(train([TEXT], 60))
    assert tokenizer.decode(tokenizer.encode("the heat ate zebra")) == "the heat ate zebra"
    assert tokenizer.ids["[UNK]"] not in tokenizer.encode(TEXT)
    assert tokenizer.encode("\u4e2d").tolist() == [tokenizer.ids["[UNK]"]]


def test_upper_case_is_kept_where_the_text_has_it():
    assert not WordPieceTokenizer(train([TEXT], 60)).lowercases
    assert WordPieceTokenizer(train([TEXT.lower()], 50)).lowercases


@pytest.mark.parametrize(("size", "said"), [(12, "too small .* set it to 3[0-9] or more"), (999, "or less")])
def test_a_size_that_cannot_be_says_which_can(size, said):
    with pytest.raises(DataError, match=said) as caught:
        train([TEXT], size)
    limit = int(str(caught.value).split("set it to ")[1].split()[0])
    assert len(train([TEXT], limit)) == limit


def test_special_pieces_are_named_and_spelled_by_no_text():
    tokenizer = WordPieceTokenizer((*SPECIAL, "[unused0]", "[", "]", "mask", "##s", "##"))
    assert tokenizer.special_ids == (0, 1, 2, 3, 4, 5)
    assert (tokenizer.pad, tokenizer.mask, tokenizer.bos, tokenizer.eot) == (0, 4, 2, 3)
    assert tokenizer.goes_on_V.tolist() == [False] * 9 + [True, False]
    ids = tokenizer.encode("[MASK] [PAD] [unused0] [mask]s")
    assert set(ids.tolist()) & set(tokenizer.special_ids) <= {1}
    assert WordPieceTokenizer(("[UNK]", "a")).mask is None


def test_a_trained_vocabulary_is_cached_and_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(TEXT)
    cfg = DataConfig(path=str(tmp_path / "text.txt"), tokenizer="wordpiece", vocab_size=45, length=16)
    first = load(cfg, seed=0)
    assert first.tokenizer.pieces[:5] == SPECIAL and first.sizes == {"vocab_size": 45}
    monkeypatch.setattr(vocabulary.word_piece_training, "train", None)
    assert load(cfg, seed=0).digest == first.digest
    first.save(tmp_path / "run")
    saved = load_tokenizer(tmp_path / "run" / "tokenizer")
    np.testing.assert_array_equal(saved.encode(TEXT), first.tokenizer.encode(TEXT))


def test_without_a_vocabulary_or_its_size_nothing_can_be_read():
    with pytest.raises(ConfigError, match="needs vocab_path, the folder of a vocab.txt, or vocab_size"):
        DataConfig(tokenizer="wordpiece")
