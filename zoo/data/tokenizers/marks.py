"""What a tokenizer says of prompts and of ends, for whoever lets a model write."""

from collections.abc import Sequence


def prompt_of(tokenizer, text: str) -> list[int]:
    """The tokens that a model reads before it writes: those of the text, behind what its tokenizer puts
    before every text (Llama's and Gemma's beginning); of an empty text the end of text, which begins the
    next."""
    tokens = [*prefix_of(tokenizer), *tokenizer.encode(text).tolist()]
    return tokens or ([] if tokenizer.eot is None else [tokenizer.eot])


def prefix_of(tokenizer) -> tuple[int, ...]:
    """What stands before every text: nothing with most tokenizers."""
    return getattr(tokenizer, "prefix", ())


def ends_of(tokenizer) -> Sequence[int]:
    """The tokens that end a text, `eot` first."""
    return getattr(tokenizer, "ends", () if tokenizer.eot is None else (tokenizer.eot,))
