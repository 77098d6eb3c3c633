"""embed: texts as vectors, into a file of NumPy's or of JSON lines."""

import json
import sys
import time
from pathlib import Path

import numpy as np

from zoo.data import ExamplesConfig
from zoo.data.examples.records import TABLES
from zoo.data.examples.records.lines import lines_of, read_lines
from zoo.data.files import decoded
from zoo.data.files import kind as extension
from zoo.errors import ConfigError, DataError, storage_errors
from zoo.inference.embed import embed as embeddings_of
from zoo.pretrained import with_tokenizer
from zoo.pretrained.hub import local
from zoo.pretrained.runs import is_run
from zoo.run import recipe_of

LONGEST = 512  # tokens of a text, where neither model nor data says less
WRITTEN = (".npy", ".jsonl")


def embed(options) -> dict:
    """Writes a vector for each text, or prints a JSON object for each; the file's order is kept."""
    suffix = Path(options.out).suffix
    if options.out and suffix not in WRITTEN:
        raise ConfigError(f"--out={options.out}: the name ends in none of {', '.join(WRITTEN)}")
    texts = texts_of(options.file, options.column)
    model, params, tokenizer = with_tokenizer(options.model, options.adapter, options.weights)
    wrap, max_length = reading(options.model, model, tokenizer)
    started = time.monotonic()
    found_NE = embeddings_of(
        *(model, params, tokenizer, texts),
        wrap=options.wrap or wrap,
        max_length=max_length,
        pooling=options.pooling,
        normalize=options.normalize,
    )
    seconds = time.monotonic() - started
    rows = ({"text": text, "embedding": row.tolist()} for text, row in zip(texts, found_NE, strict=True))
    if suffix == ".npy":
        with storage_errors(options.out):
            np.save(options.out, found_NE)
    elif suffix == ".jsonl":
        with storage_errors(options.out), open(options.out, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    count, width = found_NE.shape
    return {
        "model": options.model,
        "file": options.file,
        "out": options.out,
        "count": count,
        "width": width,
        "seconds": round(seconds, 2),
        "sentences_per_s": round(count / seconds, 1),
    }


def texts_of(file: str, column: str) -> list[str]:
    """A column of a table or of a .jsonl, else every line of a text; "-" is standard input, line by line.

    Raises DataError for a line that is blank: the vectors would not be those of the lines of that number.
    """
    path = Path(file)
    if file != "-" and extension(path) in TABLES:
        records = TABLES[extension(path)](path, ("text",), {"text": column} if column else {})
        texts = [str(record.fields["text"]) for record in records]
    else:
        if column:
            raise ConfigError(f"--column={column}: {file} has no columns; give .tsv, .csv or .jsonl")
        name = "standard input" if file == "-" else file
        texts = lines_of(decoded(sys.stdin.buffer.read(), name)) if file == "-" else read_lines(path)
        for number, text in enumerate(texts, 1):
            if not text.strip():
                raise DataError(f"{name}:{number}: is blank; write a text, or remove the line")
    if not texts:
        raise DataError(f"{file}: has no text; give a file with some")
    return texts


def reading(folder: str, model, tokenizer) -> tuple[str, int]:
    """(wrap, max_length) of the texts that the model knows: as in its run's examples; else an encoder that
    reads both ways has its marks around a text, and a language model has none."""
    if is_run(local(folder)):
        data = recipe_of(folder).data
        if isinstance(data, ExamplesConfig):
            return data.wrap, data.max_length
    has_marks = tokenizer.bos is not None and tokenizer.bos != tokenizer.eot
    return ("both" if has_marks and "bidirectional" in model.traits else "none"), LONGEST
