"""A dialogue as tokens, of which some are answers.

    <|user|> What is 2 + 2? <|end|> <|assistant|> 4 <|end|>       the text that a template writes
                                                  ^ ^^^^^^^       what is learned: each answer, and its end

Where a template does not mark its answers itself ({% generation %}), an answer is what a dialogue up to it
has more than the same dialogue up to the place where it is asked for. So it is learned in the place where it
will be written; an answer that the template writes otherwise once others follow (Qwen 3 takes its thoughts
away) is learned only as the last.

What a message says is text and nothing else: the spelling of a mark in it becomes ordinary pieces, so that
nobody who is quoted can end his turn or begin another's.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from zoo.data.dialogues.messages import Message
from zoo.data.dialogues.template import PLAIN, ChatTemplate
from zoo.errors import DataError

BREAK = "\ufdd0"  # put into a mark that is quoted; a character that Unicode keeps out of texts
END = "<|endoftext|>"  # how templates spell the end of text of tokenizers that have no spelling for it

Span = tuple[int, int]


class Encoded(NamedTuple):
    """The tokens of a dialogue, int32, and which of them are to be learned."""

    ids: np.ndarray
    is_answer: np.ndarray


# --- the tokenizer's part of a template -----------------------------------------------------------


def marks_of(tokenizer) -> dict[str, int]:
    """{spelling: id} of the pieces that a template may write and no message can."""
    if hasattr(tokenizer, "marks"):
        return tokenizer.marks
    return {} if tokenizer.eot is None else {END: tokenizer.eot}


def variables_of(tokenizer) -> dict[str, str]:
    """What templates call bos_token, eos_token, ..."""
    if hasattr(tokenizer, "mark_names"):
        return tokenizer.mark_names
    return {} if tokenizer.eot is None else {"eos_token": END, "bos_token": END}


def plain_template(tokenizer) -> str:
    """PLAIN, behind what stands before every text of this tokenizer. Raises DataError for one without an end
    of text, without which no answer would end."""
    if "eos_token" not in variables_of(tokenizer):
        raise DataError(
            f"this {tokenizer.name} tokenizer has no end of text, so that no answer would end; give another"
        )
    return ("{{- bos_token }}" if getattr(tokenizer, "prefix", ()) else "") + PLAIN


# --- dialogues to tokens --------------------------------------------------------------------------


def encode_dialogue(text: str, template: ChatTemplate, tokenizer, where: str) -> Encoded:
    """The tokens of a dialogue's JSON (messages.py). Raises DataError that begins with `where`."""
    try:
        dialogue = json.loads(text)
        messages = quoted(dialogue["messages"], marks_of(tokenizer))
        written, answers = answers_in(messages, template, dialogue.get("tools"), marks_of(tokenizer))
        return encode_written(written, answers, tokenizer)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def encode_prompt(messages: Sequence[Message], template: ChatTemplate, tokenizer) -> list[int]:
    """The tokens after which an answer to these messages comes. Raises DataError where the template does."""
    text = template.prompt(quoted(messages, marks_of(tokenizer)))
    return encode_written(text, (), tokenizer).ids.tolist()


def answers_in(
    messages: Sequence[Message], template: ChatTemplate, tools, marks: Mapping[str, int]
) -> tuple[str, list[Span]]:
    """The text of a dialogue and where its answers stand, each with the mark that ends it."""
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    whole = (len(messages), False)
    (text,), (marked,) = template.texts(messages, [whole], tools)
    if marked:
        return text, marked
    cuts = [
        cut for i in turns for cut in ((i, True), (i + 1, False)) if i
    ]  # nothing asks for a first message
    found, _ = template.texts(messages, cuts, tools)
    spans = []
    for before, after in zip(found[::2], found[1::2], strict=True):
        trimmed = after.rstrip()
        end = len(trimmed) if trimmed.endswith(tuple(marks)) and marks else len(after)
        if text.startswith(before) and text.startswith(after[:end]) and len(before) < end:
            spans.append((len(before), end))
    if not spans:
        raise DataError(
            f"{template.source}: its chat template writes no answer in the place where it asks for one; put "
            "{% generation %} and {% endgeneration %} around its answers"
        )
    return text, spans


def quoted(messages: Sequence[Message], marks: Mapping[str, int]) -> list[Message]:
    """The messages with BREAK in each mark that they spell."""
    if not marks:
        return list(messages)
    spelled = re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))))

    def within(value):
        if isinstance(value, str):
            if BREAK in value:
                raise DataError(f"has U+{ord(BREAK):04X}, which is no character; take it out")
            return spelled.sub(lambda found: found[0][0] + BREAK + found[0][1:], value)
        if isinstance(value, dict):
            return {key: within(item) for key, item in value.items()}
        return [within(item) for item in value] if isinstance(value, list) else value

    return [within(message) for message in messages]


def encode_written(text: str, answers: Sequence[Span], tokenizer) -> Encoded:
    """The tokens of what a template has written, with its marks as marks.

    A tokenizer.json cuts it in one piece, as transformers has it do. Other tokenizers, and texts that quote a
    mark, are cut at the marks and around the answers first.
    """
    if hasattr(tokenizer, "encode_with_marks") and BREAK not in text:
        found = tokenizer.encode_with_marks(text)
        inside = np.zeros(len(text) + 1, bool)
        for start, end in answers:
            inside[start:end] = True
        return Encoded(found.ids, inside[found.starts])
    ids, counted = [], []
    for piece, mark, is_answer in pieces(text, answers, marks_of(tokenizer)):
        new = [mark] if mark is not None else tokenizer.encode(piece.replace(BREAK, "")).tolist()
        ids += new
        counted += [is_answer] * len(new)
    return Encoded(np.array(ids, np.int32), np.array(counted, bool))


def pieces(
    text: str, answers: Sequence[Span], marks: Mapping[str, int]
) -> Iterator[tuple[str, int | None, bool]]:
    """The text in pieces: each with its mark, if it is one, and whether it lies in an answer."""
    found = []
    if marks:
        spelled = re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))))
        found = [each.span() for each in spelled.finditer(text)]
    cuts = sorted({0, len(text), *(place for span in (*found, *answers) for place in span)})
    for start, end in zip(cuts, cuts[1:], strict=False):
        is_answer = any(first <= start < last for first, last in answers)
        yield text[start:end], marks.get(text[start:end]) if (start, end) in found else None, is_answer
