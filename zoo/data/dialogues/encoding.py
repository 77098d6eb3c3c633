"""A dialogue as tokens, of which some are answers.

    <|user|> What is 2 + 2? <|end|> <|assistant|> 4 <|end|>       the text that a template writes
                                                  ^ ^^^^^^^       what is learned: each answer, and its end

Where a template does not mark its answers itself ({% generation %}), an answer begins where the same dialogue
up to there asks for it, and ends by the mark behind it. So it is learned in the place where it will be
written. What a template writes otherwise once others follow (Qwen 3 takes thoughts away) is learned as it
stands in the whole, if its content does; else it is not, and counted.

What a message says is text and nothing else: the spelling of a mark in it becomes ordinary pieces, so that
nobody who is quoted can end his turn or begin another's.
"""

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from zoo.data.dialogues.messages import Message, is_learned
from zoo.data.dialogues.template import CLOSE, OPEN, PLAIN, ChatTemplate
from zoo.errors import DataError

BREAK = "\ufdd0"  # put into a mark that is quoted; a character that Unicode keeps out of texts
KEPT_OUT = {BREAK, OPEN, CLOSE}
END = "<|endoftext|>"  # how templates spell the end of text of tokenizers that have no spelling for it

TURNS = 16  # whose places a template is asked for at once: its time is limited for each request

Span = tuple[int, int]


class Encoded(NamedTuple):
    """The tokens of a dialogue, int32, which of them are to be learned, and how many of its answers are
    not, as the template writes them otherwise than it asks for them."""

    ids: np.ndarray
    is_answer: np.ndarray
    missed: int = 0


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
        dialogue, marks = json.loads(text), marks_of(tokenizer)
        messages, tools = quoted([dialogue["messages"], dialogue.get("tools")], marks)
        written, answers, missed = answers_in(messages, template, tools, marks)
        return encode_written(written, answers, tokenizer)._replace(missed=missed)
    except DataError as error:
        raise type(error)(f"{where}: {error}") from None


def encode_prompt(messages: Sequence[Message], template: ChatTemplate, tokenizer) -> list[int]:
    """The tokens after which an answer to these messages comes. Raises DataError where the template does."""
    text = template.prompt(quoted(list(messages), marks_of(tokenizer)))
    return encode_written(text, (), tokenizer).ids.tolist()


def answers_in(
    messages: Sequence[Message], template: ChatTemplate, tools, marks: Mapping[str, int]
) -> tuple[str, list[Span], int]:
    """The text of a dialogue, where its answers stand, each with the mark that ends it, and how many are not
    found."""
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    (text,), (marked,) = template.texts(messages, [(len(messages), False)], tools)
    if marked:
        if len(marked) == len(turns):
            marked = [span for span, i in zip(marked, turns, strict=True) if is_learned(messages[i])]
        return text, marked, 0
    turns = [i for i in turns if i and is_learned(messages[i])]  # nothing asks for a first message
    spans = []
    for first in range(0, len(turns), TURNS):
        batch = turns[first : first + TURNS]
        cuts = [cut for i in batch for cut in ((i, True), (i + 1, False))]
        found, _ = template.texts(messages, cuts, tools)
        for i, before, after in zip(batch, found[::2], found[1::2], strict=True):
            end = end_of_answer(text, before, after, messages[i].get("content", ""), marks)
            spans += [(len(before), end)] if end > len(before) else []
    if not spans:
        raise DataError(
            f"{template.source}: its chat template writes no answer in the place where it asks for one; put "
            "{% generation %} and {% endgeneration %} around its answers"
        )
    return text, spans, len(turns) - len(spans)


def end_of_answer(text: str, before: str, after: str, content: str, marks: Mapping[str, int]) -> int:
    """Where an answer ends in the whole text that begins where `before` ends; 0 where it does not stand
    there. `after` is the dialogue up to it."""
    if not text.startswith(before):
        return 0
    shared = len(os.path.commonprefix([text, after]))
    if shared >= len(after.rstrip()):
        trimmed = after.rstrip()
        return len(trimmed) if marks and trimmed.endswith(tuple(marks)) else shared
    if marks:  # what comes behind the last turn of all may differ: Phi-3 ends the text there
        end = max((found.end() for found in spellings(marks).finditer(text[:shared])), default=0)
        if end > len(before):
            return end
    content = content.strip()
    place = text.find(content, len(before)) if content else -1
    if place < 0 or text[len(before) : place].strip():
        return 0
    end = place + len(content)
    behind = text[end:]
    mark = spellings(marks).match(behind.lstrip()) if marks else None
    return end + len(behind) - len(behind.lstrip()) + mark.end() if mark else end


@functools.lru_cache(maxsize=8)
def _spellings(marks: tuple[str, ...]) -> re.Pattern:
    return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))))


def spellings(marks: Mapping[str, int]) -> re.Pattern:
    """Finds marks, the longest first. There must be some."""
    return _spellings(tuple(marks))


def quoted(value, marks: Mapping[str, int]):
    """Messages, or whatever a template reads, with BREAK in each mark that a string of theirs spells. Raises
    DataError for characters that are none."""
    if isinstance(value, str):
        if strange := KEPT_OUT.intersection(value):
            raise DataError(f"has U+{ord(min(strange)):04X}, which is no character; take it out")
        if not marks:
            return value
        return spellings(marks).sub(lambda found: found[0][0] + BREAK + found[0][1:], value)
    if isinstance(value, dict):
        return {quoted(key, marks): quoted(item, marks) for key, item in value.items()}
    return [quoted(item, marks) for item in value] if isinstance(value, list) else value


def encode_written(text: str, answers: Sequence[Span], tokenizer) -> Encoded:
    """The tokens of what a template has written, with its marks as marks and without BREAK.

    A tokenizer.json cuts it in one piece, as transformers has it do; other tokenizers are given what stands
    between marks and around answers.
    """
    if hasattr(tokenizer, "encode_with_marks"):
        found = tokenizer.encode_with_marks(text)
        inside, broken = np.zeros((2, len(text) + 1), bool)
        for start, end in answers:
            inside[start:end] = True
        broken[[each.start() for each in re.finditer(BREAK, text)]] = True
        only = found.ends - found.starts == 1
        kept = ~(broken[found.starts] & only)
        holds = np.cumsum(np.concatenate([[0], broken]))
        if not (holds[found.ends] - holds[found.starts])[kept].any():
            return Encoded(found.ids[kept], inside[found.starts[kept]])
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
    found = {each.span() for each in spellings(marks).finditer(text)} if marks else set()
    cuts = sorted({0, len(text), *(place for span in (*found, *answers) for place in span)})
    for start, end in zip(cuts, cuts[1:], strict=False):
        is_answer = any(first <= start < last for first, last in answers)
        yield text[start:end], marks.get(text[start:end]) if (start, end) in found else None, is_answer
