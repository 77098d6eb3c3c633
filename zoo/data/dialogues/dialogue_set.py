"""Dialogues as rows of tokens of which only the answers are learned."""

import hashlib
import importlib.util
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo.data import stdlib
from zoo.data.cache import cached
from zoo.data.corpus import Corpus, part_digest, read_corpus
from zoo.data.dialogues.config import DialoguesConfig
from zoo.data.dialogues.encoding import (
    Encoded,
    encode_dialogue,
    encode_prompt,
    plain_template,
    variables_of,
)
from zoo.data.dialogues.files import DIALOGUES, read_dialogues
from zoo.data.dialogues.library import library_dialogues
from zoo.data.dialogues.template import ChatTemplate, LimitError
from zoo.data.files import Document, read_text
from zoo.data.order import Order
from zoo.data.packed import Packed
from zoo.data.text import TextPass, TextSet
from zoo.data.tokenizers import Tokenizer, published
from zoo.data.tokens import Tokens
from zoo.data.vocabulary import make_tokenizer
from zoo.errors import ConfigError, DataError

FORMAT = 2  # of what is cached; raise it when the same dialogues come to mean other arrays

log = logging.getLogger("zoo.data")


@dataclass(frozen=True)
class DialoguePass(TextPass):
    """One pass over dialogues: what is evaluated. `eval_batch` is TextPass's, of the layout "packed"."""

    template: str
    """How a dialogue is written."""

    @cached_property
    def eval_bytes(self) -> int:
        """The bytes of the answers."""
        ids, is_target = self.layout.ids, self.layout.is_target
        edges = np.flatnonzero(np.diff(is_target, prepend=False, append=False))
        runs = zip(edges[::2], edges[1::2], strict=True)
        return sum(len(self.tokenizer.decode(ids[start:end]).encode()) for start, end in runs)


@dataclass(frozen=True)
class DialogueSet(DialoguePass, TextSet):
    """Training rows without end and one pass over the part that is evaluated."""

    lost: str
    """What of the training part is not learned, and why."""

    @cached_property
    def digest(self) -> str:
        """Names the dialogues, their division, how they are written, the tokenizer and the rows."""
        cfg = self.cfg
        what = json.dumps([self.corpus.digest, self.tokenizer.digest, self.template, cfg.date, cfg.length])
        return hashlib.sha256(f"dialogues {what}".encode()).hexdigest()

    def describe(self) -> str:
        """One line: dialogues, their parts and sizes, and what is left out."""
        source = f"{self.corpus.name} of {self.corpus.python}" if self.corpus.python else self.corpus.name
        counts = ", ".join(f"{part} {count:,} dialogues" for part, count in self.corpus.num_documents.items())
        lost = f"; of train {self.lost}" if self.lost else ""
        return f"{source}, digest {self.digest[:12]}: {counts}{lost}"

    def save(self, folder: Path) -> None:
        """What turns a dialogue into this run's tokens, into a run's folder."""
        super().save(folder)
        published.write_template(folder / "tokenizer", self.template)

    between: ClassVar[str] = "\n"

    def prompt(self, text: str) -> list[int]:
        """The tokens after which the model answers `text`."""
        with template_process(self.template, self.tokenizer, self.cfg.date, self.cfg.template) as template:
            return encode_prompt([{"role": "user", "content": text}], template, self.tokenizer)

    def baselines(self) -> dict[str, float]:
        """None: what an answer is worth depends on its question."""
        return {}


def load_dialogues(cfg: DialoguesConfig, seed: int, evaluate: str = "valid") -> DialogueSet:
    """Reads, divides and encodes the dialogues; a second call on a machine finds the tokens in the cache."""
    require_jinja2()
    corpus = read_corpus(cfg.path, cfg.valid_fraction, DIALOGUES) if cfg.path else library(cfg)
    if evaluate not in corpus.parts:
        raise DataError(
            f"{corpus.name}: has no {evaluate} part, only {', '.join(corpus.parts)}; choose one of these"
        )
    tokenizer = make_tokenizer(
        cfg.tokenizer, contents(corpus), vocab_path=cfg.vocab_path, vocab_size=cfg.vocab_size
    )
    template = template_for(cfg, tokenizer)
    tokens, missed = encode(corpus.parts["train"], template, tokenizer, cfg)
    train, num_cut = rows_of(tokens, cfg.length)
    if not train.num_targets:
        raise DataError(
            f"{corpus.name}: no answer of the training part begins within length={cfg.length} tokens of its "
            "dialogue; give a greater length"
        )
    layout = evaluated(corpus, evaluate, template, tokenizer, cfg)
    order, lost = Order(train, seed), lost_of(missed, num_cut)
    return DialogueSet(
        *(cfg, corpus, tokenizer, evaluate, layout, order.rows, order, train), template=template, lost=lost
    )


def load_dialogue_file(cfg: DialoguesConfig, path: Path, tokenizer: Tokenizer) -> DialoguePass:
    """One file, to be evaluated by a run with this configuration and tokenizer."""
    require_jinja2()
    corpus = Corpus(str(path), "", {"file": tuple(read_dialogues(path, path.name))})
    template = template_for(cfg, tokenizer)
    layout = evaluated(corpus, "file", template, tokenizer, cfg)
    return DialoguePass(cfg, corpus, tokenizer, "file", layout, template)


def require_jinja2() -> None:
    """ConfigError where what reads chat templates is not installed."""
    if importlib.util.find_spec("jinja2") is None:
        raise ConfigError('dialogues are written by jinja2, which is not installed; pip install -e ".[chat]"')


def library(cfg: DialoguesConfig) -> Corpus:
    """Dialogues about Python's library."""
    return Corpus(f"questions about {stdlib.NAME}", stdlib.version(), library_dialogues(cfg.valid_fraction))


def contents(corpus: Corpus) -> Corpus:
    """What the messages of a corpus say, to train a vocabulary on."""

    def said(document: Document) -> Document:
        messages = json.loads(document.text)["messages"]
        return Document(document.name, "\n".join(each.get("content", "") for each in messages), document.key)

    parts = {part: tuple(map(said, documents)) for part, documents in corpus.parts.items()}
    return Corpus(corpus.name, corpus.python, parts)


def template_for(cfg: DialoguesConfig, tokenizer: Tokenizer) -> str:
    """The configuration's template, else the tokenizer's own, else a plain one."""
    if cfg.template:
        return read_text(Path(cfg.template))
    return getattr(tokenizer, "chat_template", "") or plain_template(tokenizer)


def template_process(text: str, tokenizer: Tokenizer, date: str, source: str) -> ChatTemplate:
    """The template at work, with this tokenizer's marks."""
    return ChatTemplate(text, variables_of(tokenizer), date=date, source=source or "the model's folder")


def lost_of(missed: np.ndarray, num_cut: int) -> str:
    """What is not learned of dialogues, by `encode`'s counts and how many do not fit in a row."""
    left_out, answers = int((missed < 0).sum()), int(missed[missed > 0].sum())
    parts = {
        f"{left_out:,} left out, as the template refuses them": left_out,
        f"{answers:,} answers not learned, as the template writes them otherwise than it asks": answers,
        f"{num_cut:,} too long and cut": num_cut,
    }
    return ", ".join(text for text, count in parts.items() if count)


def encode(
    documents: Sequence[Document], template: str, tokenizer: Tokenizer, cfg: DialoguesConfig
) -> tuple[Tokens, np.ndarray]:
    """The dialogues' tokens and which of them are answers, from the cache where these met this template and
    this tokenizer before; and of each dialogue how many answers are not learned, -1 where the template
    refuses it and it is left out. Raises DataError where that is so of all."""
    what = [FORMAT, part_digest(documents), template, cfg.date, tokenizer.digest]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def build():
        ids, is_target, starts, missed = [np.empty(0, np.int32)], [np.empty(0, bool)], [0], []
        refusals: list[DataError] = []
        source = cfg.template or cfg.vocab_path
        with template_process(template, tokenizer, cfg.date, source) as process:
            for document in documents:
                try:
                    made = encode_dialogue(document.text, process, tokenizer, document.name)
                except LimitError:
                    raise
                except DataError as error:
                    refusals.append(error)
                    made = Encoded(ids[0], is_target[0], -1)
                missed.append(made.missed)
                ids.append(made.ids)
                is_target.append(made.is_answer)
                starts.append(starts[-1] + len(made.ids))
        if refusals and len(refusals) == len(documents):
            raise refusals[0]
        if refusals:
            log.warning("%d of %d dialogues are left out: %s", len(refusals), len(documents), refusals[0])
        arrays = {"ids": np.concatenate(ids), "is_target": np.concatenate(is_target)}
        return arrays | {"starts": np.array(starts, np.int64), "missed": np.array(missed, np.int32)}

    def is_sound(arrays):
        ids, is_target, starts = arrays["ids"], arrays["is_target"], arrays["starts"]
        return bool(
            (ids.dtype, is_target.dtype, starts.dtype) == (np.int32, bool, np.int64)
            and starts.shape == (len(documents) + 1,)
            and starts[0] == 0
            and np.all(np.diff(starts) >= 0)
            and ids.shape == is_target.shape == (starts[-1],)
            and arrays["missed"].shape == (len(documents),)
            and ids.max(initial=0) < tokenizer.vocab_size
        )

    names = ("ids", "is_target", "starts", "missed")
    arrays = cached(f"dialogues-{key[:32]}", build=build, is_sound=is_sound, names=names)
    return Tokens(arrays["ids"], arrays["starts"], False, arrays["is_target"]), arrays["missed"]


def rows_of(tokens: Tokens, length: int) -> tuple[Packed, int]:
    """The dialogues packed into rows, of each as much as a row takes, and how many are cut so. Those without
    an answer in that much are left out: there is nothing to learn from them."""
    sizes = np.diff(tokens.starts)
    document = np.repeat(np.arange(len(sizes)), sizes)
    position = np.arange(len(document)) - tokens.starts[document]
    is_target = tokens.is_target & (position > 0)  # before the first token stands nothing
    kept = position <= length
    has_answer = np.bincount(document[kept & is_target], minlength=len(sizes)) > 0
    kept &= has_answer[document]
    sizes = np.bincount(document[kept], minlength=len(sizes))[has_answer]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    shown = Tokens(tokens.ids[kept], starts, False, is_target[kept], np.flatnonzero(has_answer))
    return Packed(shown, length), int((np.diff(tokens.starts) > length + 1).sum())


def evaluated(corpus: Corpus, part: str, template: str, tokenizer: Tokenizer, cfg: DialoguesConfig) -> Packed:
    """The rows of a part that is evaluated."""
    layout, _ = rows_of(encode(corpus.parts[part], template, tokenizer, cfg)[0], cfg.length)
    if not layout.num_targets:
        raise DataError(
            f"{corpus.name}: no answer of the {part} part begins within length={cfg.length} tokens of its "
            "dialogue; give a greater length"
        )
    return layout
