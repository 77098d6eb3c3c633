"""Weights: .safetensors files, indices, other formats, adapters, vectors."""

import gzip
import io
import json
import struct
import zipfile

from hostile import CANARY, Case, folder, link, pipe, sparse

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def stored(header, body: bytes = bytes(8), length: int | None = None) -> bytes:
    """A .safetensors file; `length` is what it says of its header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def one(**changes) -> bytes:
    return stored({"x": {name: value for name, value in (ENTRY | changes).items() if value is not ...}})


def named(name: str) -> bytes:
    return stored({name: ENTRY})


def many(count: int) -> bytes:
    """So many tensors of no bytes."""
    entry = '"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return stored(("{" + ",".join(entry % n for n in range(count)) + "}").encode(), b"")


TWICE = (
    b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "x": ' + json.dumps(ENTRY).encode() + b"}"
)
SECOND = {"y": ENTRY | {"data_offsets": [8, 16]}}

HEADERS = {
    "empty": b"",
    "seven bytes": bytes(7),
    "only a length": struct.pack("<Q", 2),
    "a length of 0": stored(b"", b""),
    "a length of 2^63": stored({"x": ENTRY}, length=2**63),
    "a length of 2^64 - 1": stored({"x": ENTRY}, length=2**64 - 1),
    "a length one too long": stored({"x": ENTRY}, b"", length=len(json.dumps({"x": ENTRY})) + 1),
    "a header of 17 MB": sparse(40 << 20, struct.pack("<Q", 17 << 20) + b"{"),
    "10 GB of zeros": sparse(10 << 30),
    "zeros behind a length": sparse(1 << 30, struct.pack("<Q", 1 << 20)),
    "cut": stored({"x": ENTRY}, bytes(7)),
    "without its numbers": stored({"x": ENTRY}, b""),
    "more behind": stored({"x": ENTRY}, bytes(9)),
    "two tensors in one place": stored({"x": ENTRY, "y": ENTRY}),
    "two that overlap": stored({"x": ENTRY, "y": ENTRY | {"data_offsets": [4, 12]}}, bytes(12)),
    "a hole": stored({"x": ENTRY, "y": ENTRY | {"data_offsets": [12, 20]}}, bytes(20)),
    "a hole before": one(data_offsets=[4, 12]),
    "turned round": one(data_offsets=[8, 0]),
    "offsets below 0": one(data_offsets=[-8, 0]),
    "offsets of floats": one(data_offsets=[0.0, 8.0]),
    "offsets of booleans": one(data_offsets=[False, True], shape=[]),
    "offsets in text": one(data_offsets=["0", "8"]),
    "three offsets": one(data_offsets=[0, 8, 8]),
    "one offset": one(data_offsets=[8]),
    "offsets of 2^63": one(data_offsets=[0, 2**63], shape=[2**61]),
    "no offsets": one(data_offsets=...),
    "no dtype": one(dtype=...),
    "no shape": one(shape=...),
    "one key more": one(code="x"),
    "a dtype that is none": one(dtype="OBJ"),
    "a dtype of Python": one(dtype="object"),
    "a dtype in small letters": one(dtype="f32"),
    "a dtype that is a list": one(dtype=["F32"]),
    "a dtype that is null": one(dtype=None),
    "a shape below 0": one(shape=[-2]),
    "two sizes below 0": one(shape=[-1, -2]),
    "a shape of floats": one(shape=[2.0]),
    "a shape of booleans": one(shape=[True, 2]),
    "a shape in text": one(shape="2"),
    "a shape of lists": one(shape=[[2]]),
    "a shape that is null": one(shape=None),
    "a shape too large": one(shape=[3]),
    "a shape too small": one(shape=[1]),
    "sizes of 2^62": one(shape=[2**62, 4]),
    "a product that wraps to 2": one(shape=[2**63 + 1, 2]),
    "a product that wraps to 0": one(shape=[2**32, 2**32]),
    "a thousand sizes": one(shape=[1] * 1000 + [2]),
    "no numbers, 2^60 of a size": stored(
        {"x": {"dtype": "F32", "shape": [0, 2**60], "data_offsets": [0, 0]}}, b""
    ),
    "no numbers, 2^60 first": stored(
        {"x": {"dtype": "F32", "shape": [2**60, 0], "data_offsets": [0, 0]}}, b""
    ),
    "no tensors": stored({}, b""),
    "only notes": stored({"__metadata__": {"format": "pt"}}, b""),
    "notes alone with numbers": stored({"__metadata__": {"format": "pt"}}),
    "a name twice": stored(TWICE),
    "a key twice": stored(b'{"x": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'),
    "latin1": stored(b'{"\xff": ' + json.dumps(ENTRY).encode() + b"}"),
    "utf-16": stored(json.dumps({"x": ENTRY}).encode("utf-16")),
    "a byte-order mark": stored(b"\xef\xbb\xbf" + json.dumps({"x": ENTRY}).encode()),
    "a zero in the header": stored(json.dumps({"x": ENTRY}).encode() + b"\0"),
    "cut JSON": stored(b'{"x": {"dtype": "F32"'),
    "two objects": stored(json.dumps({"x": ENTRY}).encode() * 2),
    "a list": stored([ENTRY]),
    "a string": stored("x"),
    "a number": stored(1),
    "null": stored(b"null"),
    "an entry that is a list": stored({"x": [ENTRY]}),
    "an entry that is null": stored({"x": None}),
    "100,000 brackets": stored(b"[" * 100_000),
    "100,000 objects in each other": stored(b'{"a":' * 100_000),
    "a shape 500 deep": stored(b'{"x": {"dtype": "F32", "shape": ' + b"[" * 500 + b"]" * 500 + b"}}"),
    "NaN in the shape": stored(b'{"x": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}'),
    "Infinity in the offsets": stored(
        b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, Infinity]}}'
    ),
    "a size of 5,000 digits": stored(
        b'{"x": {"dtype": "F32", "shape": [' + b"1" * 5000 + b'], "data_offsets": [0, 8]}}'
    ),
    "a size of 1e400": stored(b'{"x": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 8]}}'),
    "a pipe": pipe,
    "a folder": folder,
    "a link out": link("/etc/hostname"),
    "a link to itself": link(FILE),
    "a device": link("/dev/zero"),
    "a link to nothing": link("absent.safetensors"),
}
NAMES = {
    "traversal": "../../etc/x",
    "absolute": "/etc/x",
    "a slash": "a/b",
    "a backslash": "..\\x",
    "nothing": "",
    "a dot": ".",
    "two dots": "..",
    "hidden": ".x",
    "blanks": "a b",
    "300 letters": "x" * 300,
    "a line end": "x\ny",
    "an escape": "x\x1b[2J",
    "a zero": "x\0",
    "half a pair": "\ud800",
    "right to left": "x\u202egpj",
    "a drive": "C:\\x",
    "a template": "{{x}}",
    "a letter of another script": "\u0445",
}


def zipped(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, content)
    return made.getvalue()


PICKLE = b"cos\nsystem\n(S'touch /tmp/" + CANARY.encode() + b"'\ntR."
PICKLE4 = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x15touch /tmp/" + CANARY.encode() + b"\x85R."
FORMATS = {
    "pytorch_model.bin": zipped("archive/data.pkl", PICKLE),
    "model.pt": PICKLE,
    "model.pkl": PICKLE4,
    "model.ckpt": zipped("archive/data.pkl", PICKLE4),
    "model.npy": b"\x93NUMPY\x01\x00\x3e\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }  \n"
    + PICKLE4,
    "model.npz": zipped("a.npy", b"\x93NUMPY\x01\x00" + PICKLE4),
    "tf_model.h5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "model.keras": zipped("config.json", b'{"class_name": "Lambda", "config": {"function": ["4wEAAAA="]}}'),
    "flax_model.msgpack": b"\x81\xa1x\xc7\x10\x01" + bytes(16),
    "model.gguf": b"GGUF\x03\x00\x00\x00" + struct.pack("<QQ", 2**60, 2**60),
    "model.joblib": PICKLE4,
    "model.tar.gz": gzip.compress(PICKLE + bytes(512)),
    "training_args.bin": PICKLE,
    "rng_state.pth": PICKLE,
}

INDICES = {
    "traversal": {"x": "../model.safetensors"},
    "absolute": {"x": "/etc/passwd"},
    "absolute weights": {"x": "/tmp/a.safetensors"},
    "code": {"x": "code.py"},
    "missing": {"x": "b.safetensors"},
    "in a folder": {"x": "b/a.safetensors"},
    "back again": {"x": "b/../a.safetensors"},
    "a backslash": {"x": "..\\a.safetensors"},
    "an address": {"x": "https://example.org/a.safetensors"},
    "only an extension": {"x": ".safetensors"},
    "a zero": {"x": "a\0.safetensors"},
    "a line end": {"x": "a\n.safetensors"},
    "300 letters": {"x": "a" * 300 + ".safetensors"},
    "a number": {"x": 1},
    "a list of files": {"x": ["a.safetensors"]},
    "null": {"x": None},
    "another tensor": {"y": "a.safetensors"},
    "no tensors": {},
    "a list": [],
    "text": "a.safetensors",
    "200,000 tensors": {f"x{n}": "a.safetensors" for n in range(200_000)},
    "50,000 files": {f"x{n}": f"a{n}.safetensors" for n in range(50_000)},
}
WHOLE_INDICES = {
    "no JSON": b"{",
    "a list of maps": b"[]",
    "latin1": b'{"weight_map": {"\xff": "a.safetensors"}}',
    "a tensor twice": b'{"weight_map": {"x": "a.safetensors", "x": "b.safetensors"}}',
    "two maps": b'{"weight_map": {}, "weight_map": {"x": "a.safetensors"}}',
    "deep": b"[" * 100_000,
    "17 MB": sparse(17 << 20),
    "a pipe": pipe,
    "a link out": link("/etc/hostname"),
}

ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "x"}
ADAPTERS = {
    "r=0": {"r": 0},
    "r=2^40": {"r": 2**40},
    "r in text": {"r": "2"},
    "r a list": {"r": [2]},
    "alpha below 0": {"lora_alpha": -1},
    "alpha of 400 digits": {"lora_alpha": 10**400},
    "a pattern that is an expression": {"rank_pattern": {"(a+)+$": 4}},
    "a pattern that is a list": {"rank_pattern": ["q"]},
    "a pattern of text": {"alpha_pattern": {"q": "4"}},
    "another kind": {"peft_type": "PROMPT_TUNING"},
    "no kind": {"peft_type": None},
    "a kind that is an object": {"peft_type": {"x": 1}},
    "code to import": {"auto_mapping": None, "_target_": "os.system"},
    "a list for a name": {"base_model_name_or_path": ["x"]},
    "DoRA": {"use_dora": True},
    "initial weights that change the base": {"init_lora_weights": "pissa"},
}

VECTORS = {
    "no.txt": (b"", "no vectors"),
    "sparse.txt": (sparse(1 << 30), "a line without end"),
    "long.txt": (b"a " + b"1" * (17 << 20), "a line of 17 MB"),
    "wide.txt": (b"a" + b" 1" * 70_000, "70,000 numbers"),
    "header.txt": (b"9999999999999999999 2\na 1 2\n", "promises 10^19 words"),
    "wide_header.txt": (b"1 999999999999\na 1 2\n", "a width of 10^12"),
    "nan.txt": (b"a nan 1\n", "a number that is none"),
    "inf.txt": (b"a 1e99 1\n", "a number beyond float32"),
    "underscore.txt": (b"a 1_0 1\n", "1_0 is a number for Python alone"),
    "twice.txt": (b"a 1 2\na 1 2\n", "a word twice"),
    "ragged.txt": (b"a 1 2\nb 1\n", "another width"),
    "cut.bin": (b"2 2\na \0\0\0\0\0\0\0\0b \0\0", "ends inside"),
    "blankless.bin": (b"2 2\n" + b"x" * 9000, "no blank"),
    "zeros.bin": (sparse(1 << 30, b"2 2\n"), "zeros for ever"),
    "count.bin": (b"99999999999999 2\na \0\0\0\0\0\0\0\0", "promises 10^14 words"),
    "pipe.txt": (pipe, "a pipe"),
    "no.txt.gz": (b"plain", "no gzip"),
    "bomb.txt.gz": (gzip.compress(b"aa 1 1\n" * (3 << 20), 9), "unzips to 22 MB"),
}


def cases():
    for name, content in HEADERS.items():
        yield Case(f"header: {name}", "weights", {FILE: content}, "CheckpointError", "I1, S11")
    yield Case("header: 100,001 tensors", "weights", {FILE: many(100_001)}, "CheckpointError", "I1: 0.85 s")
    for name, tensor in NAMES.items():
        yield Case(f"name: {name}", "weights", {FILE: named(tensor)}, "CheckpointError", "I1, S9")
    for name, content in FORMATS.items():
        yield Case(f"format: {name}", "weights", {name: content}, "CheckpointError", "I2, CVE-2025-32434")
        yield Case(f"renamed: {name}", "weights", {FILE: content}, "CheckpointError", "I2")
        shard = {INDEX: json.dumps({"weight_map": {"x": "a.safetensors"}}), "a.safetensors": content}
        yield Case(f"as a shard: {name}", "weights", shard, "CheckpointError", "I2")
    for name, index in INDICES.items():
        files = {"a.safetensors": one(), INDEX: json.dumps({"weight_map": index})}
        slow = {"seconds": 0.4} if ",000" in name else {}
        yield Case(
            f"index: {name}", "weights", files, "CheckpointError", "I4, unslothai/unsloth#6796", **slow
        )
    for name, content in WHOLE_INDICES.items():
        yield Case(f"index file: {name}", "weights", {INDEX: content}, "CheckpointError", "I4")
    for name, content in {"a pipe": pipe, "a link out": link("/etc/hostname"), "a folder": folder}.items():
        index = json.dumps({"weight_map": {"x": "a.safetensors"}})
        yield Case(
            f"shard: {name}", "weights", {INDEX: index, "a.safetensors": content}, "CheckpointError", "I4"
        )
    for name, changes in ADAPTERS.items():
        files = {"adapter_config.json": json.dumps(ADAPTER | changes)}
        yield Case(f"adapter: {name}", "adapter", files, "CheckpointError", "I5")
    for name, (content, what) in VECTORS.items():
        yield Case(
            f"vectors: {name}, {what}", "vectors", {name: content}, "DataError", "H5, H9", {"file": name}
        )
    fine = {FILE: stored({"x": ENTRY} | SECOND, bytes(16)), "modeling_evil.py": f"open('/tmp/{CANARY}', 'w')"}
    yield Case("weights: two tensors, code beside them", "weights", fine, source="CVE-2026-4372")
    padded = json.dumps({"x": ENTRY}).encode() + b" " * 1000
    yield Case("weights: a padded header", "weights", {FILE: stored(padded)}, source="the format's own")
