"""Rows of chunks by number, as the model reads them.

Chunks go first-fit into rows, the same way every time. With length 12:

    tokens       [CLS] a a [SEP] b [SEP] [CLS] c [SEP] d [SEP] 0
    segments     1 1 1 1 1 1 2 2 2 2 2 0              the chunks of the row; 0 is padding
    positions    0 1 2 3 4 5 0 1 2 3 4 0              restart with each of them
    token_types  0 0 0 0 1 1 0 0 0 1 1 0              1 for the second half of a pair and the [SEP] behind it
    picked       1 9                                  where words are predicted, and these words: targets
    firsts       0 6                                  where the chunks begin, and what their pairs are: labels

A row has room for `num_picked` predictions, the rate of its length rounded up, so that shapes never change.
Very short chunks want more predictions than their share of the positions: they leave some positions empty.
"""

from collections.abc import Callable

import numpy as np

from zoo.data.masked.chunks import Chunks
from zoo.data.masked.config import MaskedConfig
from zoo.data.masked.masks import Masking
from zoo.data.packed import count_up, first_fit
from zoo.data.tokenizers import Tokenizer


class MaskedRows:
    """The rows of one part of a text."""

    def __init__(self, ids: np.ndarray, chunks: Chunks, tokenizer: Tokenizer, cfg: MaskedConfig):
        self.ids, self.chunks, self.cfg = ids, chunks, cfg
        self.marks = int(tokenizer.bos), int(tokenizer.eot), int(tokenizer.pad)
        V = tokenizer.vocab_size
        is_ordinary_V = ~np.isin(np.arange(V), tokenizer.special_ids)
        self.masking = Masking(
            *(cfg.mask_rate, cfg.masked_share, cfg.random_share),
            mask=int(tokenizer.mask),
            ordinary=np.flatnonzero(is_ordinary_V),
            is_ordinary_V=is_ordinary_V,
            goes_on_V=tokenizer.goes_on_V if cfg.words == "whole" else np.zeros(V, bool),
            stride=cfg.length + 1,
        )
        self.num_picked = int(np.ceil(cfg.mask_rate * cfg.length))
        self._sizes = chunks.num_tokens + cfg.length - cfg.room
        self._wanted = np.minimum(self.masking.wanted(chunks.num_tokens), self.num_picked)
        # A chunk takes the share of its row that it needs of the positions or of the predictions.
        taken = np.maximum(self._sizes, -(-self._wanted * cfg.length // self.num_picked))
        rows = first_fit(taken, cfg.length) if cfg.layout == "packed" else np.arange(len(chunks))
        self.num_rows = int(rows.max(initial=-1)) + 1
        self.words_per_chunk = self._wanted.sum() / max(len(chunks), 1)
        # The chunks in the order of their rows: those of row r are from _first[r] up to _first[r + 1].
        self._by_row = np.argsort(rows, kind="stable")
        self._first = np.searchsorted(rows[self._by_row], np.arange(self.num_rows + 2))
        self.num_firsts = int(np.diff(self._first).max(initial=1))

    def rows(self, rows_B: np.ndarray, keys_B: np.ndarray) -> dict[str, np.ndarray]:
        """tokens (masked), segments, positions int32 [B, T]; picked, targets int32, weights float32 [B, P].

        Of pairs token_types [B, T] too, and firsts, labels int32, label_weights float32 [B, S]: as many words
        as a chunk has masked on average, or 0 where there is none. A row behind the last is empty. Masks are
        drawn with the key of each row.
        """
        rows_B = np.minimum(rows_B, self.num_rows)  # the row behind the last has no chunks
        counts_B = self._first[rows_B + 1] - self._first[rows_B]
        row_E = np.repeat(np.arange(len(rows_B)), counts_B)
        number_E = count_up(counts_B)
        chunk_E = self._by_row[self._first[rows_B][row_E] + number_E]
        tokens_EL, types_EL = self._written(chunk_E)
        draw = {"keys_E": keys_B[row_E], "numbers_E": chunk_E}
        chosen_EL = self.masking.chosen(tokens_EL, self._wanted[chunk_E], **draw)
        read_EL = self.masking.read(tokens_EL, chosen_EL, **draw)

        sizes_E = self._sizes[chunk_E]
        before_E = np.cumsum(sizes_E) - sizes_E
        column_E = before_E - before_E[np.searchsorted(row_E, row_E)]
        owner = np.repeat(np.arange(len(chunk_E)), sizes_E)
        place = count_up(sizes_E)
        laid = laying((len(rows_B), self.cfg.length), row_E[owner], column_E[owner] + place)
        is_picked_BT = laid(chosen_EL[owner, place]).astype(bool)
        picked_BP, weights_BP = places_of(is_picked_BT, self.num_picked)
        found = {
            "tokens": laid(read_EL[owner, place], self.marks[2]),
            "segments": laid(number_E[owner] + 1),
            "positions": laid(place),
            "picked": picked_BP,
            "targets": np.take_along_axis(laid(tokens_EL[owner, place]), picked_BP, axis=1),
            "weights": weights_BP,
        }
        if self.cfg.pairs == "none":
            return found
        lay_chunk = laying((len(rows_B), self.num_firsts), row_E, number_E)
        is_chunk = lay_chunk(np.ones_like(chunk_E))
        return found | {
            "token_types": laid(types_EL[owner, place]),
            "firsts": lay_chunk(column_E),
            "labels": lay_chunk(self.chunks.labels[chunk_E]),
            "label_weights": is_chunk.astype(np.float32) * np.float32(self.words_per_chunk),
        }

    def spans(self, row: int) -> list[tuple[int, int]]:
        """Which tokens, [begin, end), a row is made of: one run for each text of its chunks."""
        found, each = [], self.chunks
        for chunk in self._by_row[self._first[row] : self._first[row + 1]].tolist():
            found.append((int(each.a_begin[chunk]), int(each.a_end[chunk])))
            if each.b_end[chunk] > each.b_begin[chunk]:
                found.append((int(each.b_begin[chunk]), int(each.b_end[chunk])))
        return found

    def _written(self, chunk_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of chunks with their marks, padded, and which of two texts each belongs to."""
        (begin, end, pad), L = self.marks, int(self._sizes[chunk_E].max(initial=1))
        tokens_EL, types_EL = np.full((len(chunk_E), L), pad, np.int32), np.zeros((len(chunk_E), L), np.int32)
        each, chunks = np.arange(len(chunk_E)), self.chunks
        tokens_EL[:, 0] = begin
        place_E = np.ones(len(chunk_E), np.int64)
        texts = [(chunks.a_begin, chunks.a_end), (chunks.b_begin, chunks.b_end)]
        for number, (begins, ends) in enumerate(texts if self.cfg.pairs != "none" else texts[:1]):
            sizes_E = ends[chunk_E] - begins[chunk_E]
            owner, inside = np.repeat(each, sizes_E), count_up(sizes_E)
            tokens_EL[owner, place_E[owner] + inside] = self.ids[begins[chunk_E][owner] + inside]
            types_EL[owner, place_E[owner] + inside] = number
            place_E += sizes_E
            tokens_EL[each, place_E], types_EL[each, place_E] = end, number
            place_E += 1
        return tokens_EL, types_EL


def laying(shape: tuple[int, int], rows: np.ndarray, columns: np.ndarray) -> Callable[..., np.ndarray]:
    """lay(values, rest=0): an int32 array of `rest` with the values at these rows and columns."""

    def lay(values: np.ndarray, rest: int = 0) -> np.ndarray:
        laid = np.full(shape, rest, np.int32)
        laid[rows, columns] = values
        return laid

    return lay


def places_of(is_picked_BT: np.ndarray, P: int) -> tuple[np.ndarray, np.ndarray]:
    """The columns that are true, int32 [B, P], in order, and weights of 1; behind the last both are 0."""
    row, column = np.nonzero(is_picked_BT)
    counts_B = is_picked_BT.sum(axis=1)
    lay = laying((len(is_picked_BT), P), row, count_up(counts_B))
    return lay(column), lay(np.ones_like(column)).astype(np.float32)
