"""What DialoguesConfig says: which dialogues, written how, in rows of which shape."""

import datetime
from dataclasses import dataclass
from typing import ClassVar

from zoo.data.limits import check_least, check_valid_fraction
from zoo.data.tokenizers import check_settings
from zoo.errors import ConfigError, nearest

TOKENIZERS = ("byte", "sentencepiece", "bpe", "whole")


@dataclass(frozen=True)
class DialoguesConfig:
    """Which dialogues, written how, in rows of which shape. Whole dialogues lie side by side in a row, each
    attending to itself alone, and only the answers are learned."""

    kind: ClassVar[str] = "text"
    layout: ClassVar[str] = "packed"
    characters: ClassVar[bool] = False
    min_count: ClassVar[int] = 1

    path: str = ""
    """A .jsonl or .json file of dialogues (messages; also ShareGPT's, Alpaca's, prompt and completion), plain
    or .gz, or a folder of them, with its own train and valid parts or without; empty: questions about
    Python's library."""

    template: str = ""
    """A file with a chat template (jinja2); empty: that of the vocabulary's folder, or a plain one."""

    date: str = "2024-07-26"
    """What a template that writes today's date takes for it: the same text on every day."""

    tokenizer: str = "byte"
    """byte, sentencepiece (trained on the messages), bpe (GPT-2's files), whole (a tokenizer.json)."""

    vocab_path: str = ""
    """The folder of the vocabulary, for bpe and whole; for sentencepiece a .model to use untrained."""

    vocab_size: int = 0
    """How many pieces to train, for sentencepiece without vocab_path."""

    length: int = 256
    """Positions per row; of a longer dialogue the end is left out."""

    batch_size: int = 8
    """Rows per step, over all processes."""

    valid_fraction: float = 0.1
    """The part of the dialogues that is kept for validation, where they do not come divided."""

    def __post_init__(self):
        if self.tokenizer not in TOKENIZERS:
            known = ", ".join(TOKENIZERS)
            raise ConfigError(
                f"tokenizer={self.tokenizer!r} is none of {known}, which keep every character of a dialogue"
                f"{nearest(self.tokenizer, TOKENIZERS)}"
            )
        check_least(self, 1, "length", "batch_size")
        if self.vocab_size < 0:
            raise ConfigError(f"vocab_size={self.vocab_size} must not be negative; 0 where none is trained")
        check_valid_fraction(self)
        try:
            datetime.date.fromisoformat(self.date)
        except ValueError:
            raise ConfigError(f"date={self.date!r} is no day; give one such as 2024-07-26") from None
        check_settings(self)
