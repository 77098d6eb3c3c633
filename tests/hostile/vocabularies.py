"""Tokenizers: vocabularies, tokenizer.json, SentencePiece models, and what lies beside them."""

import json

from hostile import CANARY, Case, folder, link, pipe, sparse
from zoo.data.tokenizers.bpe import byte_symbols

PIECES = [*byte_symbols(), "th", "the"]
VOCAB = {piece: i for i, piece in enumerate(PIECES)}
MERGES = "#version: 0.2\nt h\nth e\n"
WORDS = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\n"

BYTEWISE = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
WHOLE = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTEWISE],
    },
    "post_processor": None,
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "vocab": VOCAB, "merges": [["t", "h"], ["th", "e"]]},
}


def model(**changes) -> dict:
    return WHOLE | {"model": WHOLE["model"] | changes}


def cut_by(pattern: str) -> dict:
    """A tokenizer whose words a regular expression finds."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return WHOLE | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, BYTEWISE]}}


def without(piece: str) -> dict:
    return {each: i for i, each in enumerate(piece_ for piece_ in PIECES if piece_ != piece)}


BPE = {  # vocab.json, merges.txt
    "ids from 1": ({piece: i + 1 for piece, i in VOCAB.items()}, MERGES),
    "an id of 2^40": (VOCAB | {"the": 2**40}, MERGES),
    "an id below 0": (VOCAB | {"the": -1}, MERGES),
    "an id twice": (VOCAB | {"the": 3}, MERGES),
    "ids of floats": ({piece: float(i) for piece, i in VOCAB.items()}, MERGES),
    "ids of booleans": (VOCAB | {"the": True}, MERGES),
    "ids in text": ({piece: str(i) for piece, i in VOCAB.items()}, MERGES),
    "a list": (PIECES, MERGES),
    "no pieces": ({}, MERGES),
    "a byte missing": (without("!"), MERGES),
    "a merge of one": (VOCAB, "t\n"),
    "a merge of three": (VOCAB, "t h e\n"),
    "a merge of nothing": (VOCAB, " h\n"),
    "a merge that makes no piece": (VOCAB, "x y\n"),
    "merges of zeros": (VOCAB, "\0" * 1000),
    "merges in latin1": (VOCAB, b"t \xe9\n"),
    "a piece twice": (json.dumps(VOCAB)[:-1] + ', "t": 9}', MERGES),
    "deep": ("[" * 100_000, MERGES),
    "a pipe": (pipe, MERGES),
    "merges in a pipe": (VOCAB, pipe),
    "100 MB": (sparse(100 << 20, b"{"), MERGES),
    "merges of 1 GB": (VOCAB, sparse(1 << 30)),
    "half a character": (VOCAB | {"\ud800": 258}, MERGES),
    "a link out": (link("/etc/hostname"), MERGES),
}
TEXTS = {  # vocab.txt
    "empty": "",
    "no [UNK]": "a\nb\n",
    "an empty line": WORDS + "\n\nx\n",
    "a piece twice": WORDS + "the\n",
    "carriage returns": WORDS.replace("\n", "\r\n"),
    "latin1": WORDS.encode() + b"\xe9\n",
    "utf-16": WORDS.encode("utf-16"),
    "1 GB": sparse(1 << 30, WORDS.encode()),
    "a pipe": pipe,
    "a device": link("/dev/zero"),
    "a folder": folder,
}
READ = {  # tokenizer.json that no library sees
    "a list": [],
    "a model that is a list": WHOLE | {"model": []},
    "a kind that nobody has": model(type="Evil"),
    "a kind that is a list": model(type=["BPE"]),
    "a kind of Python's": model(type="os.system"),
    "a WordPiece without pieces": model(type="WordPiece", vocab={}),
    "added pieces that are numbers": WHOLE
    | {"added_tokens": [1], "pre_tokenizer": BYTEWISE | {"use_regex": True}},
    "pieces of text": model(vocab={"a": "b"}) | {"pre_tokenizer": BYTEWISE | {"use_regex": True}},
    "merges of numbers": model(merges=[1]) | {"pre_tokenizer": BYTEWISE | {"use_regex": True}},
    "merges of lists of lists": model(merges=[[["t"], ["h"]]])
    | {"pre_tokenizer": BYTEWISE | {"use_regex": True}},
    "a merge of three": model(merges=["t h e"]) | {"pre_tokenizer": BYTEWISE | {"use_regex": True}},
    "a pre_tokenizer that is text": WHOLE | {"pre_tokenizer": "ByteLevel"},
    "steps that are a number": WHOLE | {"post_processor": {"type": "Sequence", "processors": 5}},
}
TRIED = {  # tokenizer.json that the library is given, in a process of its own
    "an id of 2^32 - 1": model(vocab=VOCAB | {"the": 2**32 - 1}),
    "an id of 2^40": model(vocab=VOCAB | {"the": 2**40}),
    "an expression that takes 2^n": cut_by("(a+)+$"),
    "an expression that takes n^2": cut_by(r"\p{L}+\p{N}"),
    "an expression that is none": cut_by("(a"),
    "merges without pieces": model(merges=[["x", "y"]]),
    "no pieces": model(vocab={}, merges=[]),
    "a decoder that is none": WHOLE | {"decoder": {"type": "Evil"}},
    "an unknown piece that is none": model(unk_token="zzz", byte_fallback=True, vocab={"a": 0}, merges=[]),
    "25 sequences in each other": WHOLE | {"normalizer": None},
}
for _ in range(25):
    inner = TRIED["25 sequences in each other"]["normalizer"] or {"type": "NFC"}
    TRIED["25 sequences in each other"]["normalizer"] = {"type": "Sequence", "normalizers": [inner]}
MODELS = {
    "empty": b"",
    "zeros": bytes(1000),
    "text": b"<unk>\t0\n",
    "a length beyond the end": b"\x0a\xff\xff\xff\xff\x0f\x0a\x01a",
    "a piece without end": b"\x0a" * 1000,
    "no pieces": b"\x12\x02\x18\x02",
    "groups in groups": b"\x0b" * 10_000,
}
NOTES = {
    "a list": b"[]",
    "no name": b'{"digest": "x"}',
    "a name that is a list": b'{"name": ["bpe"]}',
    "a name of Python's": b'{"name": "os.system"}',
    "a name of Python's own": b'{"name": "__class__"}',
    "deep": b"[" * 100_000,
    "another digest": b'{"name": "byte", "digest": "x"}',
    "a digest that is a list": b'{"name": "byte", "digest": []}',
    "100 MB": sparse(100 << 20, b"{"),
    "a pipe": pipe,
}
SAVED = {  # (name in the note, file, content)
    "characters that are a list": ("char", "characters.json", b'{"characters": ["a"], "eot": null}'),
    "characters twice": ("char", "characters.json", b'{"characters": "aa", "eot": null}'),
    "an end of text of 2^40": ("char", "characters.json", b'{"characters": "ab", "eot": 1099511627776}'),
    "an end of text in text": ("char", "characters.json", b'{"characters": "ab", "eot": "x"}'),
    "arguments of Python's": (
        "char",
        "characters.json",
        b'{"characters": "ab", "eot": null, "__class__": 1}',
    ),
    "deep characters": ("char", "characters.json", b"[" * 100_000),
    "words of numbers": ("word", "words.json", b'["<unk>", 1]'),
    "a word twice": ("word", "words.json", b'["<unk>", "a", "a"]'),
    "no unknown word": ("word", "words.json", b'["a"]'),
    "half a word": ("word", "words.json", b'["<unk>", "\\ud800"]'),
    "words of 1 GB": ("word", "words.json", sparse(1 << 30, b"[")),
    "words in a pipe": ("word", "words.json", pipe),
}
BESIDE = {  # tokenizer_config.json and others beside a sound vocab.txt
    "tokenizer_config.json": b"[" * 100_000,
    "special_tokens_map.json": b"[1]",
}
HARMLESS = {
    "tokenizer_config.json": json.dumps(
        {
            "auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]},
            "tokenizer_class": "tokenization_evil.Evil",
            "added_tokens_decoder": {"99999999999": {"content": "x", "special": True}},
            "chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "model_max_length": 10**30,
        }
    ),
    "tokenization_evil.py": f"open('/tmp/{CANARY}', 'w')",
    "vocab.txt": WORDS,
}


def text(content) -> bytes | str:
    return content if callable(content) or isinstance(content, str | bytes) else json.dumps(content)


def cases():
    for name, (vocab, merges) in BPE.items():
        files = {"vocab.json": text(vocab), "merges.txt": text(merges)}
        yield Case(f"bpe: {name}", "tokenizer", files, "DataError", "I6")
    for name, content in TEXTS.items():
        yield Case(f"vocab.txt: {name}", "tokenizer", {"vocab.txt": content}, "DataError", "I6")
    for name, content in READ.items():
        files = {"tokenizer.json": json.dumps(content)}
        yield Case(
            f"tokenizer.json: {name}", "tokenizer", files, "DataError", "I6, huggingface/tokenizers#2151"
        )
    for name, content in TRIED.items():
        files = {"tokenizer.json": json.dumps(content)}
        error = "" if name.startswith("25") else "DataError"
        yield Case(f"tokenizer.json: {name}, tried", "tokenizer", files, error, "I6, S6", seconds=0.5)
    for name, content in MODELS.items():
        files = {"tokenizer.model": content}
        yield Case(f"sentencepiece: {name}", "tokenizer", files, "DataError", "CVE-2026-1260", seconds=0.5)
    for name, content in NOTES.items():
        yield Case(f"note: {name}", "tokenizer", {"tokenizer.zoo.json": content}, "DataError", "I6")
    for name, (kind, file, content) in SAVED.items():
        files = {"tokenizer.zoo.json": json.dumps({"name": kind, "digest": "x"}), file: content}
        yield Case(f"saved: {name}", "tokenizer", files, "DataError", "I6")
    for name, content in BESIDE.items():
        yield Case(f"beside: {name}", "tokenizer", {"vocab.txt": WORDS, name: content}, "DataError", "I6")
    yield Case("tokenizer: code named beside a vocabulary", "tokenizer", HARMLESS, source="CVE-2026-4372")
    big = {"tokenizer.json": sparse(100 << 20, b"{")}
    yield Case("tokenizer.json: 100 MB", "tokenizer", big, "DataError", "S11")
