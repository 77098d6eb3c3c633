"""Examples of several texts, each text a row of its own: pairs to compare, triplets, choices.

    tokens      the film works 0 0    a fine film 0 0       int32 [B, G, T]
    lengths     3                     3                     int32 [B, G]
    texts       7                     2                     int32 [B, G], equal where the tokens are
    sizes       2                                           int32 [B], how many of the G texts are there
    present     1                                           float32 [B]

A choice is read together with its question, as the two texts of a pair are (encoding.py). What fills up a
group or a batch is a text of one padding token, as in padded.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np

from zoo.data.examples.encoding import encode_texts
from zoo.data.examples.padded import Sequences
from zoo.data.examples.record import KINDS, Record
from zoo.data.tokenizers import Tokenizer


@dataclass(frozen=True)
class Groups:
    """Texts of all groups one after another, and where each group begins among them."""

    texts: Sequences
    starts: np.ndarray
    """Where each group begins, and where the last one ends."""
    per_example: Mapping[str, np.ndarray]

    @cached_property
    def sizes_N(self) -> np.ndarray:
        return np.diff(self.starts)

    @cached_property
    def is_cut_N(self) -> np.ndarray:
        """Groups of which a text was longer than it may be."""
        return np.logical_or.reduceat(self.texts.is_cut_N, self.starts[:-1])

    @cached_property
    def lengths_NK(self) -> np.ndarray:
        """One column: the longest text of each group."""
        return np.maximum.reduceat(self.texts.tokens.lengths_N, self.starts[:-1])[:, None]

    @cached_property
    def num_tokens_N(self) -> np.ndarray:
        """What training on each of them reads."""
        return np.add.reduceat(self.texts.tokens.lengths_N, self.starts[:-1])

    @cached_property
    def same_M(self) -> np.ndarray:
        """A number for each text, int32, equal where the tokens are."""
        found: dict[bytes, int] = {}
        values, starts = self.texts.tokens.values, self.texts.tokens.starts
        spans = zip(starts[:-1], starts[1:], strict=True)
        return np.array([found.setdefault(values[a:b].tobytes(), len(found)) for a, b in spans], np.int32)

    def having(self, token: int) -> np.ndarray:
        """bool [N]: which groups hold this token."""
        return np.logical_or.reduceat(self.texts.having(token), self.starts[:-1])

    def rows(self, numbers_B: np.ndarray, shape: Sequence[int]) -> dict[str, np.ndarray]:
        """tokens [B, G, T] and what goes with each token, lengths and texts [B, G], sizes, present and each
        of `per_example` [B]."""
        is_there_B = numbers_B >= 0
        places_G = np.arange(self.sizes_N.max())
        sizes_B = np.where(is_there_B, self.sizes_N[numbers_B], 1)
        is_there_BG = is_there_B[:, None] & (places_G < sizes_B[:, None])
        texts_BG = np.where(is_there_BG, self.starts[numbers_B][:, None] + places_G, -1)
        flat = self.texts.rows(texts_BG.reshape(-1), shape)
        del flat["present"]
        return {
            **{name: x.reshape(*texts_BG.shape, *x.shape[1:]) for name, x in flat.items()},
            "texts": np.where(is_there_BG, self.same_M[texts_BG], -1).astype(np.int32),
            "sizes": sizes_B.astype(np.int32),
            "present": is_there_B.astype(np.float32),
            **{
                name: np.where(is_there_B, each[numbers_B], 0).astype(each.dtype)
                for name, each in self.per_example.items()
            },
        }


def encode_scored(
    records: Sequence[Record], tokenizer: Tokenizer, *, wrap: str, max_length: int
) -> Sequences:
    """Records of the kind score: one text, or two in one row, and the score of those that have one."""
    found = encode_texts(records, tokenizer, (), wrap=wrap, max_length=max_length)
    return Sequences(found.tokens, found.per_token, scores_of(records), found.is_cut_N)


def encode_separately(
    records: Sequence[Record], tokenizer: Tokenizer, *, wrap: str, max_length: int
) -> Groups:
    """Records of the kinds similarity, matches and triplets: every text in a row of its own."""
    names = [name for kind in ("triplets", "matches") for name in KINDS[kind] if name in records[0].fields]
    texts = [Record({"text": record.fields[name]}, record.where) for record in records for name in names]
    encoded = encode_texts(texts, tokenizer, (), wrap=wrap, max_length=max_length)
    return Groups(encoded, np.arange(len(records) + 1) * len(names), scores_of(records))


def encode_choices(records: Sequence[Record], tokenizer: Tokenizer, *, wrap: str, max_length: int) -> Groups:
    """Records of the kind choice: the question with each of its choices, and the answer of those that have
    one. Records may have different numbers of choices."""
    texts = [
        Record({"text": record.fields["question"], "text_pair": choice}, record.where)
        for record in records
        for choice in record.fields["choices"]
    ]
    encoded = encode_texts(texts, tokenizer, (), wrap=wrap, max_length=max_length)
    starts = np.cumsum([0, *(len(record.fields["choices"]) for record in records)])
    return Groups(encoded, starts, numbers_of(records, "answer", np.int32))


def scores_of(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """score float32 [N], where the records have one."""
    return numbers_of(records, "score", np.float32)


def numbers_of(records: Sequence[Record], field: str, dtype) -> dict[str, np.ndarray]:
    """{field: [N]}, where the records have it."""
    if not all(field in record.fields for record in records):
        return {}
    return {field: np.array([float(cast(str, record.fields[field])) for record in records]).astype(dtype)}
