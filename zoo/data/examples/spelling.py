"""The characters of the words of examples, each as it stands in its text, whatever the vocabulary knows.

    tokens        the <unk>  sat     int32 [B, T]
    characters    the zyzzyva sat    int32 [B, T, 50], as zoo/data/characters.py spells them

Words are numbered once more, every one of them, in a vocabulary that no model sees; what makes tokens of
records (marks, cuts, padding) makes such numbers of them too, so that both stand at the same positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.data.characters import NO_WORD, spelled
from zoo.data.examples.encoding import words_of
from zoo.data.examples.padded import Ragged
from zoo.data.examples.record import INPUTS, Record
from zoo.data.tokenizers.word import LINE_END, MARKS, PAD, WordTokenizer


@dataclass(frozen=True)
class Spelled:
    """Numbers of words, and the characters of each number."""

    words: Ragged
    table: np.ndarray

    def rows(self, numbers_B: np.ndarray, length: int) -> np.ndarray:
        """int32 [B, length, 50]: the characters of the sequences with these numbers, NO_WORD behind."""
        return self.table[self.words.rows(numbers_B, length)]


def every_word(records: Sequence[Record], tokenizer: WordTokenizer) -> WordTokenizer:
    """The vocabulary of all words of these records, with the marks that `tokenizer` has."""
    marks = [PAD, *(mark for mark in MARKS if mark in tokenizer.ids and mark != PAD)]
    words = {word for record in records for word in words_of(record)}
    return WordTokenizer((*marks, *sorted(words.difference(MARKS))))


def characters_of(tokenizer: WordTokenizer) -> np.ndarray:
    """[vocab_size, 50]: the characters of every word; padding is no word, and a line's end is what it is."""
    table = spelled(["\n" if word == LINE_END else word for word in tokenizer.words])
    table[tokenizer.ids[PAD]] = NO_WORD
    return table


def inputs_alone(record: Record) -> Record:
    """The record without what is to be predicted."""
    return Record({name: value for name, value in record.fields.items() if name in INPUTS}, record.where)
