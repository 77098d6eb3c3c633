"""What MaskedConfig says: which text, in which pairs, and how much of it is masked."""

import typing
from dataclasses import dataclass
from typing import ClassVar, Literal

from zoo.data.limits import check_least
from zoo.data.tokenizers import check_settings
from zoo.errors import ConfigError, nearest

TOKENIZERS = ("wordpiece", "bpe")  # whose vocabularies can have a token that stands for a masked one


@dataclass(frozen=True)
class MaskedConfig:
    """Which text, in which tokens and rows, with which of them masked."""

    path: str = ""
    """A text file (.txt, .md, .py, ...: one document), a .jsonl (a document in "text" per line), each also
    .gz, or a folder of them, with its own train and valid parts or without; empty: Python's library."""

    tokenizer: str = "wordpiece"
    """wordpiece (trained on the text, or BERT's vocab.txt), bpe (the files of RoBERTa or ModernBERT)."""

    vocab_path: str = ""
    """The folder of a vocabulary to use untrained."""

    vocab_size: int = 8192
    """How many pieces to train where there is no vocab_path."""

    pairs: Literal["none", "next_sentence", "sentence_order"] = "none"
    """none: [CLS] a [SEP]. The others are [CLS] a [SEP] b [SEP]: in half of them b goes on from a; in the
    rest b is from another document (BERT), or stood before a (ALBERT, arXiv 1909.11942)."""

    layout: Literal["packed", "padded"] = "packed"
    """packed: as many chunks a row as fit, each attending to itself alone; padded: one chunk a row."""

    length: int = 128
    """Positions per row."""

    batch_size: int = 32
    """Rows per step, over all processes."""

    short_rate: float = 0.1
    """Share of the chunks that end early, at a length drawn at random."""

    mask_rate: float = 0.15
    """Share of a chunk's tokens that are predicted."""

    masked_share: float = 0.8
    """How many of these are read as the mask."""

    random_share: float = 0.1
    """How many of these are read as a random token; the rest are read as they are."""

    words: Literal["pieces", "whole"] = "pieces"
    """pieces: any piece may be predicted by itself; whole: all pieces of a word together."""

    masking: Literal["dynamic", "static"] = "dynamic"
    """dynamic: other tokens each epoch (RoBERTa, arXiv 1907.11692); static: the same each time (BERT)."""

    duplicates: int = 1
    """Copies of the text in an epoch, each in chunks and with masks of its own; 10 in BERT's release."""

    valid_fraction: float = 0.1
    """The part of the text that is kept for validation, where the text does not come divided."""

    min_count: ClassVar[int] = 1  # no piece is too rare

    def __post_init__(self):
        for field, annotation in typing.get_type_hints(type(self)).items():
            known = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
            value = getattr(self, field)
            if known and value not in known:
                raise ConfigError(f"{field}={value!r} is none of {', '.join(known)}{nearest(value, known)}")
        if self.tokenizer not in TOKENIZERS:
            raise ConfigError(
                f"tokenizer={self.tokenizer!r} has no token for a masked one; set it to wordpiece or bpe"
            )
        for field, least in {"length": 8, "batch_size": 1, "vocab_size": 0, "duplicates": 1}.items():
            check_least(self, least, field)
        for field in ("mask_rate", "valid_fraction"):
            if not 0 < getattr(self, field) < 1:
                raise ConfigError(f"{field}={getattr(self, field)} must lie between 0 and 1")
        for field in ("short_rate", "masked_share", "random_share"):
            if not 0 <= getattr(self, field) <= 1:
                raise ConfigError(f"{field}={getattr(self, field)} must lie in [0, 1]")
        if self.masked_share + self.random_share > 1:
            raise ConfigError(
                f"masked_share={self.masked_share} and random_share={self.random_share} are more than 1 "
                "together; what they leave is read as it is"
            )
        if self.duplicates > 1 and self.pairs == "none" and self.masking == "dynamic":
            raise ConfigError(
                f"duplicates={self.duplicates} of single texts differ in their masks alone, which "
                "masking=dynamic draws anew each epoch; set it to 1, or masking to static"
            )
        check_settings(self)

    @property
    def kind(self) -> str:
        """What the examples are: texts, or texts with a label for each pair."""
        return "masked" if self.pairs == "none" else "masked_pairs"

    @property
    def room(self) -> int:
        """Tokens of a row that are no marks: [CLS] a [SEP], and in pairs b [SEP]."""
        return self.length - (2 if self.pairs == "none" else 3)
