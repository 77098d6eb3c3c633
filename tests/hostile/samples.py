"""Sound files, small: what fuzzing begins with, one for each reader of tests/fuzz.py."""

import gzip
import json

from hostile import settings, texts, vocabularies, weights

SAMPLES = {
    "text": b"one two\nthree\n",
    "jsonl": b'{"text": "a b"}\n{"text": "c"}\n',
    "classify_tsv": b"sentence\tlabel\na b\t1\nc\t0\nd\t1\n",
    "classify_csv": b'text,label\n"a, b",1\nc,0\n',
    "classify_jsonl": b'{"text": "a", "label": 1}\n{"text": "b", "label": "x"}\n',
    "conll": b"-DOCSTART- O\n\nEU B-ORG\nrejects O\n\nBo\tB-PER\n",
    "spans": b'{"text": "Anna met Bo.", "spans": [{"start": 0, "end": 4, "label": "PER"}]}\n',
    "scan": b"IN: jump OUT: I_JUMP\nIN: walk OUT: I_WALK\n",
    "pairs": b'{"source": "a", "target": ["b", "c"]}\n{"source": ["a", "b"], "target": "c"}\n',
    "squad": b'{"data": [{"paragraphs": [{"context": "a b", "qas": [{"id": "1", "question": "q", '
    b'"answers": [{"text": "b", "answer_start": 2}]}]}]}]}',
    "questions": b'{"id": 1, "question": "q", "context": "a b", "answers": [{"text": "b", "answer_start": 2}]}\n',
    "choice": b'{"question": "q", "choices": ["a", "b"], "answer": 1}\n',
    "score": b'{"text": "a", "score": 0.5}\n{"text": "b", "score": "1"}\n',
    "dialogues": texts.CALLED.replace('{"a": ', "", 290).replace("}" * 290, "", 1).encode()
    + b'\n{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}\n'
    + b'{"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]]}\n',
    "vectors": b"2 2\na 1 2\nb 0.5 -1e-3\n",
    "binary_vectors": b"2 2\na \0\0\0\0\0\0\x80?\nb \0\0\0\0\0\0\0\0\n",
    "wordpiece": vocabularies.WORDS.encode(),
    "bpe": json.dumps(vocabularies.VOCAB).encode() + b"\0" + vocabularies.MERGES.encode(),
    "gzip": gzip.compress(b"one two\nthree\n", mtime=0),
    "sentencepiece": b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n\x0a\n\x01a\x15\0\0\x80\xbf\x12\x02\x18\x02",
    "command": b"gpt2\0--steps\x0010\0--model.d-model=8\0--optimizer\0muon\0--name=a",
    "header": weights.stored({"x": weights.ENTRY} | weights.SECOND, bytes(16)),
    "index": b'{"metadata": {"total_size": 8}, "weight_map": {"x": "a.safetensors"}}',
    "config": json.dumps(settings.LLAMA).encode(),
    "adapter": json.dumps(weights.ADAPTER).encode(),
    "recipe": json.dumps(settings.RUN | {"recipe": settings.RECIPE}).encode(),
    "labels": b'{"labels": ["a", "b"], "tags": [], "inputs": ["text"]}',
    "tokenizer": json.dumps(vocabularies.WHOLE).encode(),
    "characters": b'{"characters": "abc", "eot": 3}',
    "words": b'["<unk>", "a", "b"]',
    "note": b'{"name": "byte", "digest": "x"}',
}
