"""Chunks: runs of consecutive sentences of one document, alone or as pairs.

    sentences        1 2 3 4 5 | 6 7 8 ...           as many as fit a row; some chunks end early
    none             [CLS] 1 2 3 4 5 [SEP]
    next_sentence    [CLS] 1 2 [SEP] 3 4 5 [SEP]     label 0: goes on from a
                     [CLS] 1 2 [SEP] x y z [SEP]     label 1: of another document; 3 begins the next chunk
    sentence_order   [CLS] 1 2 [SEP] 3 4 5 [SEP]     label 0
                     [CLS] 3 4 5 [SEP] 1 2 [SEP]     label 1: stood before a

As in BERT's create_pretraining_data, but that no chunk is longer than its row, so that nothing is cut off
again: packing fills the rows. The last sentence of a document, if left alone, gets another document's.
"""

from array import array
from dataclasses import dataclass

import numpy as np

from zoo.data import draws
from zoo.data.masked.config import MaskedConfig
from zoo.data.masked.sentences import Sentences
from zoo.errors import DataError

DRAWS = 6  # random numbers for the chunk that begins with a sentence


@dataclass(frozen=True)
class Chunks:
    """Where the two texts of each chunk begin and end among the tokens; without pairs b is empty."""

    a_begin: np.ndarray
    a_end: np.ndarray
    b_begin: np.ndarray
    b_end: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_tokens(self) -> np.ndarray:
        """How many tokens that are no marks each chunk has."""
        return self.a_end - self.a_begin + self.b_end - self.b_begin


def make_chunks(sentences: Sentences, cfg: MaskedConfig, keys: list[int]) -> Chunks:
    """All chunks of the sentences, once for each of these keys of a stream of random numbers.

    Raises DataError where next_sentence finds no second document.
    """
    if cfg.pairs == "next_sentence" and len(sentences.documents) < 3:
        raise DataError(
            "pairs=next_sentence takes sentences of another document, and there is none in one of the parts; "
            "give a folder or a .jsonl of several, or set data.pairs to sentence_order"
        )
    add = {"none": add_single, "next_sentence": add_next_sentence, "sentence_order": add_sentence_order}
    sentences = sentences.cut(cfg.room if cfg.pairs == "none" else cfg.room // 2)
    found = array("q")
    for key in keys:
        for document in range(len(sentences.documents) - 1):
            walk(found, sentences, document, cfg, key, add[cfg.pairs])
    return Chunks(*np.array(found, np.int64).reshape(-1, 5).T.copy())


def walk(found: array, sentences: Sentences, document: int, cfg: MaskedConfig, key: int, add) -> None:
    """Adds the chunks of a document, from its first sentence to its last."""
    sentence, last = (int(sentences.documents[document + side]) for side in (0, 1))
    numbers = np.arange(DRAWS * sentence, DRAWS * last)
    drawn = draws.uniform(key, numbers).reshape(-1, DRAWS).tolist()
    first = sentence
    while sentence < last:
        is_short, short, *more = drawn[sentence - first]
        target = 2 + int(short * (cfg.room - 1)) if is_short < cfg.short_rate else cfg.room
        sentence = add(found, sentences, document, sentence, target, cfg.room, more)


def add_single(
    found, sentences: Sentences, document: int, sentence: int, target: int, room: int, drawn
) -> int:
    """Adds the sentences that fit; returns the one after them."""
    starts, last = sentences.starts, sentences.documents[document + 1]
    end = behind(starts, sentence, target, last)
    found.extend((starts[sentence], starts[end], 0, 0, 0))
    return end


def add_next_sentence(
    found, sentences: Sentences, document: int, sentence: int, target: int, room: int, drawn
) -> int:
    """Adds a pair of which the second half goes on from the first, or is from another document."""
    starts, last = sentences.starts, int(sentences.documents[document + 1])
    end, middle = two_sides(sentences, document, sentence, target, drawn[0])
    if middle < end and drawn[1] < 0.5:
        found.extend((starts[sentence], starts[middle], starts[middle], starts[end], 0))
        return end
    size = int(starts[middle] - starts[sentence])
    other = int(drawn[2] * (len(sentences.documents) - 2))
    other += other >= document
    first, last = (int(sentences.documents[other + side]) for side in (0, 1))
    begin = first + int(drawn[3] * (last - first))
    b_end = starts[behind(starts, begin, target - size, last)]
    b_end = min(b_end, starts[begin] + room - size)
    found.extend((starts[sentence], starts[middle], starts[begin], b_end, 1))
    return middle


def add_sentence_order(
    found, sentences: Sentences, document: int, sentence: int, target: int, room: int, drawn
) -> int:
    """Adds a pair of consecutive halves, every second one swapped. A sentence alone makes no pair."""
    starts = sentences.starts
    end, middle = two_sides(sentences, document, sentence, target, drawn[0])
    if middle < end:
        halves = (starts[sentence], starts[middle]), (starts[middle], starts[end])
        is_swapped = drawn[1] < 0.5
        one, other = reversed(halves) if is_swapped else halves
        found.extend((*one, *other, int(is_swapped)))
    return end


def two_sides(
    sentences: Sentences, document: int, sentence: int, target: int, drawn: float
) -> tuple[int, int]:
    """(the end of a chunk of two sentences or more, where its second half begins); of a sentence that is left
    alone the second half is empty."""
    last = int(sentences.documents[document + 1])
    end = behind(sentences.starts, sentence, target, last)
    end = min(max(end, sentence + 2), last)
    return end, sentence + 1 + int(drawn * (end - sentence - 1))


def behind(starts: np.ndarray, sentence: int, target: int, last: int) -> int:
    """The end of the sentences from `sentence` on, one at least, that have up to `target` tokens together."""
    end = int(np.searchsorted(starts, starts[sentence] + target, side="right")) - 1
    return min(max(end, sentence + 1), int(last))
