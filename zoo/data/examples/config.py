"""What ExamplesConfig says: which labelled examples, in which tokens, in batches of which shapes."""

from dataclasses import dataclass

from zoo.data.examples.encoding import WRAPS
from zoo.data.examples.record import KINDS
from zoo.data.limits import check_least, check_valid_fraction
from zoo.data.tokenizers import TOKENIZERS, check_settings
from zoo.errors import ConfigError, nearest


@dataclass(frozen=True)
class ExamplesConfig:
    """Which examples, in which tokens, in batches of which shapes."""

    kind: str = "classify"
    """classify (a text or two, a label), tag (words and their tags), slots (both), pairs (source, target),
    span (a question, a text that holds its answer), score (a text or two, a number), similarity (two texts
    apart, a number), matches (two texts that belong together), triplets (which of two texts is nearer to a
    third), choice (which of several is right)."""

    path: str = ""
    """A file or a folder with train and valid parts; empty: examples made of Python's library."""

    columns: tuple[str, ...] = ()
    """Where fields stand that are not called by a usual name: text=review label=3."""

    tokenizer: str = "word"
    """word, sentencepiece, wordpiece (both trained on the training part), char, byte, bpe (GPT-2's)."""

    vocab_path: str = ""
    """A vocabulary to use: for bpe, a .model for sentencepiece, BERT's for wordpiece, a run's for word."""

    vocab_size: int = 0
    """Pieces to train, for sentencepiece and wordpiece; for word the most entries to have, 0: every word."""

    min_count: int = 1
    """How often a word must be seen in training to be known, for word; 2 or more train <unk> as well."""

    wrap: str = "none"
    """Marks around a text or source: none, end (behind it), both (before and behind). A target has both."""

    max_length: int = 256
    """Longest text, sentence or source, its marks included."""

    max_target_length: int = 128
    """Longest target, its end mark included, for pairs."""

    stride: int = 128
    """Tokens from the beginning of one window of a long text to that of the next, for span."""

    batch_size: int = 32
    """Examples per step, over all processes."""

    bucket: int = 8
    """Examples of like length share a batch, padded to a multiple of this; 0: one shape for all."""

    characters: bool = False
    """Give the characters of each word too, known or not, for models that read spelling (ELMo)."""

    valid_fraction: float = 0.1
    """The part of the examples that is kept for validation, where they do not come divided."""

    def __post_init__(self):
        for field, table in (("kind", KINDS), ("tokenizer", TOKENIZERS), ("wrap", WRAPS)):
            value = getattr(self, field)
            if value not in table:
                raise ConfigError(f"{field}={value!r} is none of {', '.join(table)}{nearest(value, table)}")
        # Of the 5 positions of a text three may be marks, two are for text; of a target one is a mark.
        least = {"max_length": 5, "max_target_length": 2, "batch_size": 1, "min_count": 1, "stride": 1}
        for field, value in (least | {"bucket": 0, "vocab_size": 0}).items():
            check_least(self, value, field)
        check_valid_fraction(self)
        for column in self.columns:
            if not all(column.partition("=")):
                raise ConfigError(f"columns={column!r} is not field=column, for example text=review")
        if self.characters and self.tokenizer != "word":
            raise ConfigError(
                f"characters=true spells words, and tokenizer={self.tokenizer} has none; set tokenizer=word"
            )
        if self.characters and self.kind == "pairs":
            raise ConfigError("characters=true spells words, and kind=pairs is read by no model of spelling")
        if self.kind == "span":
            self._check_span()
        check_settings(self)

    def _check_span(self):
        if self.wrap != "both":
            raise ConfigError(
                f"wrap={self.wrap}: an answer that a text has not is at the mark before it; set wrap=both"
            )
        if not hasattr(TOKENIZERS[self.tokenizer], "encode_with_offsets"):
            known = [name for name, each in TOKENIZERS.items() if hasattr(each, "encode_with_offsets")]
            raise ConfigError(
                f"tokenizer={self.tokenizer} does not say where its tokens stand in a text, which kind=span "
                f"needs; set tokenizer to {' or '.join(known)}"
            )

    @property
    def named_columns(self) -> dict[str, str]:
        """{field: column}."""
        return dict(column.split("=", 1) for column in self.columns)

    @property
    def length(self) -> int:
        """The most positions that a row can have."""
        return max(self.max_length, self.max_target_length) if self.kind == "pairs" else self.max_length
