"""The text of new tokens, and strings at which it ends.

A stop string is looked for in the text, not in the tokens, so it is found however the tokens divide it. The
text ends before it; its tokens end with the one that completed it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.data.tokenizers import Tokenizer
from zoo.errors import ConfigError


def continuation(tokenizer, prompt: Sequence[int], new: Sequence[int]) -> str:
    """What `new` adds to the text of the prompt, the blank between two words included."""
    return tokenizer.decode([*prompt, *new]).removeprefix(tokenizer.decode(prompt))


@dataclass(frozen=True)
class Stop:
    """Ends a text before any of `strings`; none: never."""

    strings: tuple[str, ...]
    tokenizer: Tokenizer

    def __post_init__(self):
        if "" in self.strings:
            raise ConfigError("stop='' would end every text before its first token; leave it out")

    def found(self, prompt: Sequence[int], new: Sequence[int], start: int) -> int | None:
        """The fewest tokens of `new`, more than `start`, whose text has a stop string."""
        if not self.is_in(continuation(self.tokenizer, prompt, new)):
            return None
        counts = range(start + 1, len(new))
        texts = ((count, continuation(self.tokenizer, prompt, new[:count])) for count in counts)
        return next((count for count, text in texts if self.is_in(text)), len(new))

    def is_in(self, text: str) -> bool:
        return any(string in text for string in self.strings)

    def cut(self, text: str) -> str:
        """`text` before its first stop string."""
        return text[: min((text.index(string) for string in self.strings if string in text), default=None)]

    def settled(self, text: str) -> str:
        """`text` without an end that may yet become a stop string."""
        text = self.cut(text)
        held = (n for string in self.strings for n in range(1, len(string)) if text.endswith(string[:n]))
        return text[: len(text) - max(held, default=0)]
