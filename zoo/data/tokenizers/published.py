"""Tokenizers as Hugging Face publishes them: what the files say beside a plain vocabulary.

    tokenizer.json           everything, of every kind; WordPiece and byte-level BPE are read
    tokenizer_config.json    do_lower_case and the like, which have the last word; names of the marks, which
                             older folders say in special_tokens_map.json
    generation_config.json   the tokens that end a text, where they are several; older folders say it in
                             config.json
    chat_template.jinja      how a dialogue is written; older folders say it in tokenizer_config.json

The files are read as data: no class that they name is looked up, and no code is run.
"""

import json
from pathlib import Path
from typing import Any

from zoo import untrusted
from zoo.data.files import read_text
from zoo.errors import DataError

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
GENERATION, CONFIG, MARKS = "generation_config.json", "config.json", "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
LONGEST_TEMPLATE = 1 << 20  # characters; the longest that is published has some 30,000


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file, empty where there is no such file. Raises DataError for anything else."""
    return parsed(path, dict) if path.is_file() else {}


def parsed(path: Path, kind: type):
    """The object or list that a tokenizer's file is, plain or .gz. Raises DataError for anything else."""
    text = read_text(path, most=untrusted.TOKENIZER)
    try:
        found = untrusted.json_value(text)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); fetch the file again") from None
    if not isinstance(found, kind):
        wanted = {dict: "an object", list: "a list"}[kind]
        raise DataError(f"{path}: a JSON {type(found).__name__}, not {wanted}; fetch the file again")
    return found


def read_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, with the names of marks that only special_tokens_map.json has."""
    found = read_object(folder / SETTINGS)
    marks = read_object(folder / MARKS)
    return {name: mark for name, mark in marks.items() if name.endswith("_token")} | {
        name: value for name, value in found.items() if value is not None or name not in marks
    }


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes tokenizer_config.json, in the order of the names."""
    text = json.dumps(dict(sorted(settings.items())), indent=2, ensure_ascii=False)
    (folder / SETTINGS).write_text(text + "\n", encoding="utf-8")


def read_ends(folder: Path) -> tuple[int, ...]:
    """The tokens that end a text by generation_config.json, or config.json where there is none; none where
    neither says it. Raises DataError for what is no list of tokens."""
    path = folder / GENERATION
    path = path if path.is_file() else folder / CONFIG
    found = read_object(path).get("eos_token_id")
    ends = [] if found is None else found if isinstance(found, list) else [found]
    if not all(type(each) is int and each >= 0 for each in ends):
        raise DataError(f"{path}: eos_token_id={found!r:.80} is no token's number or list of these; mend it")
    return tuple(ends)


def write_ends(folder: Path, ends: tuple[int, ...]) -> None:
    """Writes generation_config.json with them alone."""
    text = json.dumps({"eos_token_id": list(ends)}, indent=2)
    (folder / GENERATION).write_text(text + "\n", encoding="utf-8")


def read_template(folder: Path) -> str:
    """The chat template of a folder, empty where it has none; of several for several purposes the default.
    Raises DataError for one that is no text or far too long."""
    path = folder / TEMPLATE
    if path.is_file():
        found = read_text(path, most=untrusted.TOKENIZER)
    else:
        path, found = folder / SETTINGS, read_settings(folder).get("chat_template") or ""
        if isinstance(found, list):
            named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
            found = named.get("default") or ""
    if not isinstance(found, str):
        raise DataError(f"{path}: chat_template is a JSON {type(found).__name__}, not a string; mend it")
    if len(found) > LONGEST_TEMPLATE:
        raise DataError(
            f"{path}: a chat template of {len(found):,} characters, more than {LONGEST_TEMPLATE:,}; refused"
        )
    return found


def write_template(folder: Path, template: str) -> None:
    """Writes chat_template.jinja."""
    (folder / TEMPLATE).write_text(template, encoding="utf-8", newline="")


def read_whole(folder: Path, kind: str) -> dict[str, Any]:
    """tokenizer.json, empty where there is none. Raises DataError where its model is not of this kind."""
    path = folder / FILE
    whole = read_object(path)
    found = part(whole, "model", path).get("type", "BPE") if whole else kind
    if found != kind:
        raise DataError(f"{path}: a tokenizer of the kind {found!r:.80}, not {kind}; give one of these")
    return whole


def kind_of(folder: Path) -> str:
    """What a folder's tokenizer.json calls its model; nothing where there is none."""
    whole = read_object(folder / FILE)
    return str(part(whole, "model", folder / FILE).get("type", "BPE")) if whole else ""


def is_gpt2s(folder: Path) -> bool:
    """Whether a tokenizer.json does no more than GPT-2's: it cuts text into words and bytes by a ByteLevel
    alone, and marks its beginning only where it marks its end too, as RoBERTa and ModernBERT do."""
    path = folder / FILE
    whole = read_object(path)
    by_bytes = part(whole, "pre_tokenizer", path).get("type", "ByteLevel") == "ByteLevel"
    return by_bytes and not part(whole, "model", path).get("byte_fallback") and not begins_alone(whole, path)


def begins_alone(whole: dict[str, Any], path: Path) -> bool:
    """Whether a post-processor puts a mark before a text and none behind it, as decoders' do."""
    processor = part(whole, "post_processor", path)
    steps = processor.get("processors") if processor.get("type") == "Sequence" else [processor]
    templates = [step.get("single") for step in steps or () if isinstance(step, dict)]
    pieces = [each for each in templates if isinstance(each, list) and each]
    return any("SpecialToken" in each[0] and "Sequence" in each[-1] for each in pieces)


def part(whole: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """One of its parts: model, normalizer, pre_tokenizer; an absent one is empty."""
    found = whole.get(name) or {}
    if not isinstance(found, dict):
        raise DataError(f"{path}: {name} is no object; fetch the file again")
    return found


def expect(found: dict[str, Any], wanted: dict[str, Any], what: str, path: Path) -> None:
    """DataError where a part is made in another way than ours."""
    for name, value in wanted.items():
        if found.get(name, value) not in (value, None):
            raise DataError(
                f"{path}: {what} has {name}={found[name]!r:.80}, and here it is {value!r}; refused"
            )


def bert_normalizer(whole: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The settings of a BertNormalizer, under our names. Raises DataError where text is cut otherwise."""
    path = folder / FILE
    if not whole:
        return {}
    found = part(whole, "normalizer", path)
    expect(found, {"type": "BertNormalizer", "clean_text": True}, "its normalizer", path)
    expect(part(whole, "pre_tokenizer", path), {"type": "BertPreTokenizer"}, "its pre_tokenizer", path)
    model = {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    expect(part(whole, "model", path), model, "its model", path)
    names = {
        "lowercase": "lowercase",
        "strip_accents": "strip_accents",
        "splits_chinese": "handle_chinese_chars",
    }
    return {ours: found[theirs] for ours, theirs in names.items() if type(found.get(theirs)) is bool}


def vocabulary(whole: dict[str, Any], path: Path) -> dict[str, int]:
    """{piece: id} in the order of the ids, which count up from 0; added pieces are among them."""
    vocab = part(whole, "model", path).get("vocab")
    pieces = dict(vocab) if isinstance(vocab, dict) else {}
    for added in added_pieces(whole, path):
        pieces[added["content"]] = added["id"]
    if not pieces or not all(type(i) is int for i in pieces.values()):
        raise DataError(f"{path}: its model has no vocab of pieces and their ids; fetch the file again")
    found = dict(sorted(pieces.items(), key=lambda item: item[1]))
    for expected, (piece, i) in enumerate(found.items()):
        if i != expected:
            raise DataError(
                f"{path}: the {len(found)} ids do not count up from 0 ({piece!r} has {i} in place of "
                f"{expected}); fetch the file again"
            )
    return found


def added_pieces(whole: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The entries of added_tokens: content, id, special, ..."""
    found = whole.get("added_tokens") or []
    if not isinstance(found, list) or not all(
        isinstance(each, dict) and isinstance(each.get("content"), str) and type(each.get("id")) is int
        for each in found
    ):
        raise DataError(f"{path}: added_tokens is no list of pieces with their ids; fetch the file again")
    return found
