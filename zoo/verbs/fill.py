"""fill: the likeliest words for the blanks of a text."""

from zoo.errors import ConfigError
from zoo.inference.masked import fill
from zoo.pretrained import with_tokenizer


def show(options) -> dict:
    """Prints for each [MASK] its likeliest words with their probabilities."""
    if options.count < 1:
        raise ConfigError(f"--count={options.count} must be at least 1")
    model, params, tokenizer = with_tokenizer(options.model, options.adapter, options.weights)
    blanks = fill(model, params, tokenizer, options.text, count=options.count)
    for number, words in enumerate(blanks, 1):
        if len(blanks) > 1:
            print(f"[MASK] {number}")
        for word in words:
            print(f"{word.probability:10.4f}  {word.piece}")
    return {"model": options.model, "blanks": [[word._asdict() for word in words] for words in blanks]}
