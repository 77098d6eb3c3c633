"""Dialogues with a causal model: its chat template writes what was said, the model what comes next.

Each answer is written after the whole dialogue, read anew. When the dialogue grows longer than the model's
context its oldest turns are forgotten, the system's message never.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from zoo.data.dialogues.encoding import encode_prompt, encode_written, marks_of
from zoo.data.dialogues.messages import Message
from zoo.data.dialogues.template import ChatTemplate
from zoo.data.tokenizers.marks import ends_of
from zoo.errors import DataError, UserError
from zoo.inference.generate import Text, check, context_of
from zoo.inference.stream import stream

PROBE = "zoo"  # an answer that spells no mark, to see what a template puts behind it


@dataclass
class Chat:
    """A dialogue with a model, which grows by `ask` and `answered`."""

    model: object
    params: dict
    tokenizer: object
    template: ChatTemplate
    messages: list[Message] = field(default_factory=list)
    forgotten: int = 0
    """How many of the oldest messages the model does not see any more."""

    def __post_init__(self):
        check(self.model, [[0]])
        self.ends = ends_of_turn(self.template, self.tokenizer)

    def ask(self, text: str, *, max_new_tokens: int, **settings) -> tuple[list[int], Iterator[Text]]:
        """The prompt's tokens and the answer to `text` while it is written; `settings` as `stream` has them.

        Raises UserError where the message does not fit in the model's context, and the dialogue stays as it
        was.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        prompt, forgotten = self._fitting(messages, max_new_tokens)
        self.messages, self.forgotten = messages, forgotten
        settings |= {"max_new_tokens": max_new_tokens, "eot": self.ends}
        return prompt, stream(self.model, self.params, prompt, **settings)

    def answered(self, text: str) -> None:
        """What the model wrote becomes part of the dialogue."""
        self.messages.append({"role": "assistant", "content": text})

    def undo(self) -> None:
        """Takes back the last question and what came after it."""
        asked = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if asked:
            del self.messages[asked[-1] :]

    def _fitting(self, messages: Sequence[Message], max_new_tokens: int) -> tuple[list[int], int]:
        """The prompt of as much of a dialogue as leaves an answer room, half the context at most, and how
        many messages that leaves out."""
        context = context_of(self.model)
        longest = context - min(max_new_tokens, context // 2)
        head = [message for message in messages[:1] if message["role"] in ("system", "developer")]
        asked = [i for i, message in enumerate(messages) if message["role"] == "user"]
        for first in asked:
            kept = messages if first == asked[0] else [*head, *messages[first:]]
            prompt = encode_prompt(kept, self.template, self.tokenizer)
            if len(prompt) <= longest or (first == asked[-1] and len(prompt) < context):
                return prompt, len(messages) - len(kept)
        raise UserError(
            f"the message has {len(prompt):,} tokens with what the model must see beside it, and the model "
            f"reads {context:,}; shorten it"
        )


def ends_of_turn(template: ChatTemplate, tokenizer) -> tuple[int, ...]:
    """The tokens that end an answer: those that end a text, and the mark that the template puts behind an
    answer, which the folder of a fine-tuned model may not name."""
    ends, marks = tuple(ends_of(tokenizer)), set(marks_of(tokenizer).values())
    messages = [{"role": "user", "content": PROBE}, {"role": "assistant", "content": PROBE}]
    try:
        (text,), _ = template.texts(messages, [(2, False)])
    except DataError:  # a template for dialogues of another kind
        return ends
    before, found, behind = text.rpartition(PROBE)
    after = encode_written(behind, (), tokenizer).ids.tolist() if found else []
    return tuple(dict.fromkeys((*ends, *(token for token in after[:1] if token in marks))))
