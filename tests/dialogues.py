"""What tests of dialogues share: messages, tokenizers with marks, templates at work, files."""

import gzip
import json

from templates import MARKS
from test_whole_tokenizer import library

from zoo.data import load_tokenizer
from zoo.data.dialogues import encoding
from zoo.data.dialogues.template import ChatTemplate

DAY = "2024-07-26"


def said(*contents, roles=("user", "assistant")) -> list[dict]:
    return [{"role": roles[i % len(roles)], "content": content} for i, content in enumerate(contents)]


def tokenizer_in(folder, template: str = "", kind: str = "split"):
    """A decoder's tokenizer with the marks of a template, and the folder that holds both."""
    from tokenizers import AddedToken

    folder.mkdir(exist_ok=True)
    made = library(kind)
    made.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS])
    made.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
    settings |= {"chat_template": template} if template else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return load_tokenizer(folder)


def process(text: str, tokenizer) -> ChatTemplate:
    return ChatTemplate(text, encoding.variables_of(tokenizer), date=DAY, source="here")


def file_of(path, dialogues) -> str:
    lines = "".join(json.dumps({"messages": each}) + "\n" for each in dialogues)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return str(path)
