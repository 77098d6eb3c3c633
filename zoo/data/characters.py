"""Words as the numbers of their bytes, as ELMo's character network reads them (arXiv 1802.05365).

    "cat"   <bow> c a t <eow> <pad> <pad> ...        259 100 98 117 260 261 261 ...

A byte has the number 1 + byte, so that 0 is left for positions where no word is. A word has 50 places: what
does not fit between its marks is cut off. The words that begin and end a sentence have a byte of their own.
"""

from collections.abc import Sequence

import numpy as np

NO_WORD = 0
BEGIN_SENTENCE, END_SENTENCE = 257, 258
BEGIN_WORD, END_WORD = 259, 260
PADDING = 261
NUM_CHARACTERS = 262
MAX_CHARACTERS = 50


def spelled(
    words: Sequence[str], *, max_characters: int = MAX_CHARACTERS, begin: str = "<s>", end: str = "</s>"
) -> np.ndarray:
    """int32 [number of words, max_characters]: row k spells word k. `begin` and `end` are the words that
    stand for a sentence's ends.
    """
    if max_characters < 3:
        raise ValueError(f"max_characters={max_characters} must be at least 3: a character between two marks")
    table = np.full((len(words), max_characters), PADDING, np.int32)
    table[:, 0] = BEGIN_WORD
    for row, word in zip(table, words, strict=True):
        if word in (begin, end):
            letters = [BEGIN_SENTENCE if word == begin else END_SENTENCE]
        else:
            letters = [1 + byte for byte in word.encode("utf-8", "replace")[: max_characters - 2]]
        row[1 : 1 + len(letters)] = letters
        row[1 + len(letters)] = END_WORD
    return table


def spelling_of(tokenizer) -> np.ndarray:
    """The spelling of every token, [vocab_size, 50]: `table[tokens]` is the input "characters" of a model."""
    return spelled([tokenizer.decode([i]) for i in range(tokenizer.vocab_size)])
