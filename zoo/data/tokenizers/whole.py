"""A tokenizer.json taken as it is: of decoders, whose files normalise and cut text each in its own way.

Llama 3 and Qwen cut words by patterns of their own, Llama 2, Mistral and Gemma write spaces as U+2581 and
fall back to bytes, SmolLM takes digits apart. The `tokenizers` library does what the file says; the file is
data, and no code of a folder is run. The spelling of a mark inside a text is ordinary text, as everywhere
here, so no text can end itself.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from zoo import untrusted
from zoo.data.files import read_text
from zoo.data.tokenizers import published, trial
from zoo.data.tokenizers.rust import Located, refusing
from zoo.data.tokenizers.saved import write_note
from zoo.data.tokenizers.text import utf8
from zoo.errors import DataError

KEPT = (
    "tokenizer_class",
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "add_bos_token",
    "add_eos_token",
)
KEPT += ("clean_up_tokenization_spaces", "legacy", "add_prefix_space")


class WholeTokenizer:
    """What the `tokenizers` library makes of a tokenizer.json."""

    name: ClassVar[str] = "whole"
    spells_text: ClassVar[bool] = True

    def __init__(
        self, text: str, settings: dict, source: Path, ends: Iterable[int] = (), chat_template: str = ""
    ):
        with refusing(source):
            self._library = library_of(text)
            self._library.encode_special_tokens = True  # a mark's spelling is text
            self._library.encode("zoo", add_special_tokens=False)
        self.text, self._source = text, source
        self.chat_template = chat_template
        """How the model wants a dialogue written, in the language of jinja2; empty: not said."""
        self.settings = {name: settings[name] for name in KEPT if name in settings}
        self._ids: dict[str, int] = self._library.get_vocab(with_added_tokens=True)
        if not self._ids:
            raise DataError(f"{source}: has no pieces; fetch the file again")
        self._more_ends = tuple(i for i in ends if i < self.vocab_size)

    @property
    def vocab_size(self) -> int:
        """As many as there are ids, those that no piece has among them."""
        return max(self._ids.values()) + 1

    def _mark(self, name: str) -> int | None:
        """The id of one of tokenizer_config.json's marks."""
        content = spelling_of(self.settings.get(name))
        return None if content is None else self._ids.get(content)

    @cached_property
    def eot(self) -> int | None:
        return self._mark("eos_token")

    @cached_property
    def bos(self) -> int | None:
        found = self._mark("bos_token")
        return self.eot if found is None else found

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """All pieces that end a text, `eot` first: a model for dialogues ends its turns by another."""
        eot = () if self.eot is None else (self.eot,)
        return tuple(dict.fromkeys((*eot, *self._more_ends)))

    @cached_property
    def prefix(self) -> tuple[int, ...]:
        """What the file's post-processor puts before every text: Llama's and Gemma's beginning of text."""
        bare, marked = (self._library.encode("a", add_special_tokens=marks).ids for marks in (False, True))
        before = next((n for n in range(len(marked)) if marked[n : n + len(bare)] == bare), 0)
        return tuple(marked[:before])

    @cached_property
    def marks(self) -> dict[str, int]:
        """{spelling: id} of the special pieces, which no text spells and a chat template may."""
        added = self._library.get_added_tokens_decoder()
        return {piece.content: i for i, piece in added.items() if piece.special}

    @cached_property
    def mark_names(self) -> dict[str, str]:
        """{eos_token: its spelling, ...}: what a chat template calls them."""
        names = [name for name in self.settings if name.endswith("_token")]
        found = {name: spelling_of(self.settings[name]) for name in names}
        return {name: spelling for name, spelling in found.items() if spelling is not None}

    @cached_property
    def pad(self) -> int | None:
        """What fills rows up, where there is such a piece."""
        return self._mark("pad_token")

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        """The pieces that no text spells."""
        return tuple(sorted(self.marks.values()))

    @cached_property
    def digest(self) -> str:
        marks = json.dumps([self.bos, self.eot])
        return hashlib.sha256(f"whole {marks} {self.text}".encode()).hexdigest()

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._encoded(self._library, text).ids, np.int32)

    def _encoded(self, library, text: str):
        """What a library's tokenizer makes of a text; a panic, of a regular expression too, is one line."""
        utf8(text)
        with refusing(self._source):
            return library.encode(text, add_special_tokens=False)

    def encode_with_offsets(self, text: str) -> Located:
        """The tokens, and where in the text each begins and ends."""
        found = self._encoded(self._library, text)
        starts_ends = np.array(found.offsets, np.int32).reshape(-1, 2)
        return Located(np.array(found.ids, np.int32), *starts_ends.T)

    @cached_property
    def _reading_marks(self):
        """The library's tokenizer for texts in which marks are marks; its offsets keep white space."""
        return library_of(json.dumps(json.loads(self.text) | {"post_processor": None}))

    def encode_with_marks(self, text: str) -> Located:
        """The tokens of a text that a chat template has written, in which the spelling of a mark is the mark,
        and where in it each begins and ends."""
        found = self._encoded(self._reading_marks, text)
        starts_ends = np.array(found.offsets, np.int32).reshape(-1, 2)
        return Located(np.array(found.ids, np.int32), *starts_ends.T)

    def decode(self, ids: Iterable[int]) -> str:
        """The text; marks, and padding of a vocabulary, decode to nothing."""
        known = [i for i in map(int, ids) if i < self.vocab_size]
        with refusing(self._source):
            return self._library.decode(known, skip_special_tokens=True)

    def save(self, folder: Path) -> None:
        write_note(folder, name=self.name, digest=self.digest)
        self.publish(folder)

    def publish(self, folder: Path, **settings) -> None:
        """Writes tokenizer.json as it came, and what of tokenizer_config.json is kept, with more settings."""
        (folder / published.FILE).write_text(self.text, encoding="utf-8", newline="")
        usual = {"tokenizer_class": "PreTrainedTokenizerFast"}
        published.write_settings(folder, usual | self.settings | settings)
        if len(self.ends) > 1:
            published.write_ends(folder, self.ends)
        if self.chat_template:
            published.write_template(folder, self.chat_template)

    @classmethod
    def read(cls, folder: Path) -> "WholeTokenizer":
        """The tokenizer of a folder with a tokenizer.json."""
        path = folder / published.FILE
        if not path.is_file():
            raise DataError(f"{folder}: has no {published.FILE}; give a folder that has one as vocab_path")
        more = {"ends": published.read_ends(folder), "chat_template": published.read_template(folder)}
        text = read_text(path, most=untrusted.TOKENIZER)
        trial.check("whole", text.encode(), str(path))
        return cls(text, published.read_settings(folder), path, **more)


def library_of(text: str):
    """The library's tokenizer of a tokenizer.json, which neither cuts texts short nor fills them up."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(text)
    made.no_truncation()
    made.no_padding()
    return made


def spelling_of(mark) -> str | None:
    """A mark of tokenizer_config.json: its text, or an object with that as content."""
    content = mark.get("content") if isinstance(mark, dict) else mark
    return content if isinstance(content, str) else None
