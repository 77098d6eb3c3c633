"""Texts, records and dialogues with lines that nobody wrote in good faith."""

import gzip
import json
import os

from hostile import Case, link, pipe, sparse

GOOD = "one two three\n" * 40
ROW = '{"text": "a b", "label": "x"}\n'
LONG = b"x" * (17 << 20)
DEEP = b'{"text": "a", "x": ' + b"[" * 200 + b"]" * 200 + b"}\n"
BOMB = gzip.compress(b"x\n" * (12 << 20), 9)


def zeros_in_gzip(path):
    """80 MB of zeros, in 80 kB."""
    path.write_bytes(gzip.compress(bytes(1 << 20), 9) * 80)


def header_of_gzip(name: bytes) -> bytes:
    """A .gz that says it was called something."""
    packed = gzip.compress(GOOD.encode(), mtime=0)
    return packed[:3] + b"\x08" + packed[4:10] + name + b"\0" + packed[10:]


TEXTS = {  # name: (content, error)
    "zeros.txt": (sparse(1 << 30), "DataError"),
    "zeros_behind.txt": (sparse(1 << 30, GOOD.encode()), "DataError"),
    "zeros.jsonl": (sparse(1 << 30), "DataError"),
    "10_gb.txt": (sparse(10 << 30), "DataError"),
    "zeros.txt.gz": (zeros_in_gzip, "DataError"),
    "bomb.txt.gz": (BOMB, "DataError"),
    "bomb.jsonl.gz": (BOMB, "DataError"),
    "line.jsonl": (LONG, "DataError"),
    "line_behind.jsonl": (b'{"text": "a"}\n' + LONG, "DataError"),
    "cut.txt.gz": (gzip.compress(GOOD.encode())[:-9], "DataError"),
    "sum.txt.gz": (gzip.compress(GOOD.encode())[:-8] + bytes(8), "DataError"),
    "plain.txt.gz": (GOOD, "DataError"),
    "twice.txt.gz": (gzip.compress(gzip.compress(os.urandom(999))), "DataError"),
    "header.txt.gz": (b"\x1f\x8b\x08\x1c\xff\xff\xff\xff\xff\xff" + b"\xff" * 99, "DataError"),
    "named.txt.gz": (header_of_gzip(b"../../../tmp/x"), ""),
    "members.txt.gz": (gzip.compress(GOOD.encode()) * 9, ""),
    "latin1.txt": (b"abc \xe9 " * 99, "DataError"),
    "utf16.txt": (GOOD.encode("utf-16"), "DataError"),
    "surrogates.txt": (b"\xed\xa0\x80" * 99, "DataError"),
    "overlong.txt": (b"\xc0\xaf" * 99, "DataError"),
    "empty.txt": (b"", "DataError"),
    "nul.txt": (b"a\0b\0" * 99, ""),
    "mark.txt": (b"\xef\xbb\xbf" + GOOD.encode(), ""),
    "crlf.txt": (GOOD.replace("\n", "\r\n"), ""),
    "newlines.txt": ("\n" * 999, ""),
    "separators.txt": ("\u2028\u2029\x85\x0b\x0c" * 99, ""),
    "right_to_left.txt": ("\u202eabc\u202d\u200b\u200d\ufeff" * 99, ""),
    "escapes.txt": ("\x1b[2J\x1b]0;x\x07" * 99, ""),
    "unassigned.txt": ("\U000e0fff\U0010ffff\ufdd0" * 99, ""),
    "deep.jsonl": (b"[" * 100_000, "DataError"),
    "deep_inside.jsonl": (DEEP, "DataError"),
    "digits.jsonl": (b'{"text": ' + b"1" * 5000 + b"}", "DataError"),
    "numbers.jsonl": (b'{"text": 1e999}', "DataError"),
    "half.jsonl": (b'{"text": "\\ud83d"}', "DataError"),
    "code.jsonl": (b'{"text": {"__reduce__": ["os.system", ["id"]]}}', "DataError"),
    "newlines.jsonl": (b"\n" * 999, "DataError"),
    "zeros_line.jsonl": (b"\0\0\0\n", "DataError"),
    "array.jsonl": (b'[{"text": "a"}]', "DataError"),
    "concatenated.jsonl": (b'{"text": "a"}{"text": "b"}', "DataError"),
    "pipe.txt": (pipe, "DataError"),
    "device.txt": (link("/dev/zero"), "DataError"),
    "circle.txt": (link("circle.txt"), "DataError"),
    "nowhere.txt": (link("absent"), "DataError"),
    "a.pickle": (b"\x80\x04.", "DataError"),
    "a.zip": (b"PK\x03\x04", "DataError"),
}
FOLDERS = {
    "with a pipe": ({"a.txt": GOOD, "b.txt": pipe}, "DataError"),
    "with a device": ({"a.txt": GOOD, "b.txt": link("/dev/zero")}, "DataError"),
    "with a circle": ({"a.txt": GOOD, "b.txt": link("b.txt")}, "DataError"),
    "with a circle of folders": ({"a.txt": GOOD, "b.txt": GOOD, "c/d": link("..")}, ""),
    "with zeros": ({"a.txt": GOOD, "b.txt": sparse(1 << 30)}, "DataError"),
    "whose train part is a pipe": ({"train.txt": pipe, "valid.txt": GOOD}, "DataError"),
    "with a name that is no text": ({"a.txt": GOOD, os.fsdecode(b"\xff.txt"): GOOD}, ""),
    "with a line end in a name": ({"a.txt": GOOD, "b\n\x1b[2J.txt": b"\xff"}, "DataError"),
    "100 folders deep": ({"a.txt": GOOD, "/".join("d" * 100) + "/b.txt": GOOD}, ""),
}

RECORDS = {  # kind: {name: (content, error)}
    "classify": {
        "line.tsv": (b"text\tlabel\n" + LONG, "DataError"),
        "zeros.tsv": (sparse(1 << 30, b"text\tlabel\n"), "DataError"),
        "zeros.csv": (sparse(1 << 30, b"text,label\n"), "DataError"),
        "quote.csv": (b'text,label\n"' + b"a\n" * 9999, "DataError"),
        "nul.csv": (b"text,label\na\0b,x\n" * 9, ""),
        "cells.tsv": (b"text\tlabel\n" + b"\t" * 100_000 + b"\n", "DataError"),
        "columns.tsv": (b"text\t" * 100_000 + b"label\na\n", "DataError"),
        "digits.jsonl": ('{"text": "a", "label": ' + "1" * 4000 + "}\n" + ROW, ""),
        "long_label.tsv": ("text\tlabel\n" + "".join(f"a{n}\t{'1' * 5000}\n" for n in range(9)), ""),
        "deep.jsonl": (DEEP, "DataError"),
        "label.jsonl": (b'{"text": "a", "label": {"__class__": 1}}', "DataError"),
        "bool.jsonl": (b'{"text": true, "label": "x"}', "DataError"),
        "half.jsonl": (b'{"text": "\\udc00", "label": "x"}', "DataError"),
        "nan.jsonl": (b'{"text": "a", "label": NaN}', "DataError"),
        "utf16.csv": ("text,label\na,x\n".encode("utf-16"), "DataError"),
        "mark.tsv": (b"\xef\xbb\xbftext\tlabel\n" + b"".join(b"a%d\tx\n" % n for n in range(20)), ""),
        "bomb.tsv.gz": (BOMB, "DataError"),
        "pipe.tsv": (pipe, "DataError"),
        "formula.csv": ("text,label\n" + "".join(f"=cmd|'/c calc'!A{n},x\n" for n in range(20)), ""),
    },
    "tag": {
        "zeros.conll": (sparse(1 << 30), "DataError"),
        "line.conll": (LONG, "DataError"),
        "cells.conll": (b"a " * 100_000 + b"O\n\n" + b"b O\n" * 3, ""),
        "tab.conll": (b"a\t\n", "DataError"),
        "spans.jsonl": (b'{"text": "a b", "spans": [{"start": -1, "end": 3, "label": "X"}]}', "DataError"),
        "spans_far.jsonl": (
            b'{"text": "a b", "spans": [{"start": 0, "end": 1e30, "label": "X"}]}',
            "DataError",
        ),
        "spans_huge.jsonl": (
            b'{"text": "a", "spans": [{"start": 0, "end": 99999999999, "label": "X"}]}',
            "DataError",
        ),
        "spans_code.jsonl": (b'{"text": "a", "spans": "os.system"}', "DataError"),
        "surrogates.conll": (b"\xed\xa0\x80 O\n", "DataError"),
        "marks.conll": ("\u0300" * 9999 + " O\n\nb O\n", ""),
    },
    "pairs": {
        "scan.txt": (("IN: " + "OUT:" * 20_000 + "\n") * 2, "DataError"),
        "no_out.txt": ("IN:" * 100_000, "DataError"),
        "blanks.txt": (" " * 1_000_000 + "x", "DataError"),
        "references.jsonl": (b'{"source": "a", "target": [["b"]]}', "DataError"),
        "zeros.txt": (sparse(1 << 30), "DataError"),
    },
    "span": {
        "list.json": (b"[]", "DataError"),
        "data.json": (b'{"data": {"paragraphs": []}}', "DataError"),
        "qas.json": (b'{"data": [{"paragraphs": [{"context": "a", "qas": ["x"]}]}]}', "DataError"),
        "deep.json": (b'{"data": ' * 50_000, "DataError"),
        "start.jsonl": (
            b'{"question": "q", "context": "a", "answers": [{"text": "a", "answer_start": -1}]}',
            "DataError",
        ),
        "start_huge.jsonl": (
            b'{"question": "q", "context": "a", "answers": [{"text": "a", "answer_start": 1e99}]}',
            "DataError",
        ),
        "start_digits.jsonl": (
            b'{"question": "q", "context": "a", "answers": [{"text": "a", "answer_start": %s}]}'
            % (b"9" * 4000),
            "DataError",
        ),
        "id.jsonl": (b'{"id": {"\\ud800": []}, "question": "q", "context": "a", "answers": []}', ""),
        "zeros.json": (sparse(300 << 20, b"{"), "DataError"),
    },
    "choice": {
        "answer.jsonl": (
            json.dumps({"question": "q", "choices": ["a", "b"], "answer": "1" * 5000}),
            "DataError",
        ),
        "below.jsonl": (b'{"question": "q", "choices": ["a", "b"], "answer": -1}', "DataError"),
        "float.jsonl": (b'{"question": "q", "choices": ["a", "b"], "answer": 0.5}', "DataError"),
    },
    "score": {
        "nan.jsonl": (b'{"text": "a", "score": NaN}', "DataError"),
        "huge.jsonl": (b'{"text": "a", "score": 1e999}', "DataError"),
        "digits.tsv": ("text\tscore\na\t" + "1" * 5000 + "\n", "DataError"),
        "code.tsv": ("text\tscore\na\t__import__('os')\n", "DataError"),
    },
}

ANSWER = {"role": "assistant", "content": "x"}


def deep(levels: int):
    found = {}
    for _ in range(levels):
        found = {"a": found}
    return found


CALL = {"function": {"arguments": json.dumps(deep(300))}}
CALLED = json.dumps({"messages": [ANSWER | {"tool_calls": [CALL]}]})
DIALOGUES = {
    "list.json": (b"[1]", "DataError"),
    "deep.json": (b"[" * 100_000, "DataError"),
    "deep_tools.jsonl": (json.dumps({"messages": [ANSWER], "tools": [deep(300)]}), "DataError"),
    "deep_in_text.jsonl": (json.dumps({"messages": [ANSWER], "tools": json.dumps([deep(300)])}), "DataError"),
    "deep_arguments.jsonl": (CALLED + "\n" + CALLED.replace("x", "y"), ""),
    "role.jsonl": (json.dumps({"messages": [{"role": ["x"], "content": "x"}]}), "DataError"),
    "content.jsonl": (json.dumps({"messages": [ANSWER | {"content": {"__class__": 1}}]}), "DataError"),
    "half.jsonl": (b'{"messages": [{"role": "assistant", "content": "\\ud800"}]}', "DataError"),
    "weight.jsonl": (json.dumps({"messages": [ANSWER | {"weight": [1]}]}), "DataError"),
    "weight_list.jsonl": (json.dumps({"messages": [ANSWER | {"weight": 1e308}]}), "DataError"),
    "history.jsonl": (json.dumps({"instruction": "a", "output": "b", "history": "x"}), "DataError"),
    "history_deep.jsonl": (
        json.dumps({"instruction": "a", "output": "b", "history": [[["x"], "y"]]}),
        "DataError",
    ),
    "nobody.jsonl": (json.dumps({"messages": []}), "DataError"),
    "zeros.json": (sparse(1 << 30, b"["), "DataError"),
    "line.jsonl": (LONG, "DataError"),
    "bomb.jsonl.gz": (BOMB, "DataError"),
    "many.json": (json.dumps([{"messages": [ANSWER | {"content": str(n)}]} for n in range(2000)]), ""),
}


def cases():
    for name, (content, error) in TEXTS.items():
        yield Case(f"text: {name}", "text", {name: content}, error, "H3, H5, H9", {"file": name}, seconds=0.4)
    for name, (files, error) in FOLDERS.items():
        yield Case(f"folder {name}", "text", files, error, "H4, S9", seconds=0.4)
    for kind, files in RECORDS.items():
        for name, (content, error) in files.items():
            arguments = {"file": name, "kind": kind}
            yield Case(f"{kind}: {name}", "records", {name: content}, error, "H3, H5", arguments, seconds=0.4)
    for name, (content, error) in DIALOGUES.items():
        yield Case(
            f"dialogues: {name}", "dialogues", {name: content}, error, "H3, S8", {"file": name}, seconds=0.4
        )
