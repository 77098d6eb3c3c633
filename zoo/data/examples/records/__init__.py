"""Examples from files: `read_records(path, kind, columns, valid_fraction)` for a run's data,
`read_file(path, kind, columns)` for one file of it, `read_inputs` for one without the answers.

    kind        one file                        a folder
    classify    .tsv .csv .jsonl                train.tsv, dev.tsv, test.tsv, ...
    tag         .conll .bmes .txt ... .jsonl    train.conll, ...  (.jsonl: words, or a text with spans)
    slots       .jsonl                          train/{seq.in, seq.out, label}, ...
    pairs       .tsv .csv .jsonl .txt (SCAN)    the same, or train.en beside train.de, ...
    span        .json (SQuAD) .jsonl            train-v1.1.json, dev-v1.1.json, ...
    score, similarity, matches, triplets        as for classify
    choice      .jsonl                          train.jsonl, ...

Each may also be .gz. What does not come divided is split by a hash of the text. `columns` says where a field
stands, where the file's own names do not say it (columns.py):

    {"text": "review", "label": "stars"}     names in a table's header, keys of a JSON object
    {"text": "3", "label": "1"}              columns of a table without header, or of a .conll, from 0
    {"source": "de", "target": "en"}         extensions of parallel files
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from zoo.data.examples.record import INPUTS, KINDS, OPTIONAL, Parts, Record, check_kind, make_record, split
from zoo.data.examples.records.columns import Unlabelled
from zoo.data.examples.records.conll import read_conll
from zoo.data.examples.records.json_lines import read_json_lines
from zoo.data.examples.records.lines import read_lines
from zoo.data.examples.records.parallel import read_parallel, read_slots
from zoo.data.examples.records.parts import find_files, find_folders, find_parallel
from zoo.data.examples.records.scan import PAIR, read_scan
from zoo.data.examples.records.spans import read_tagged_lines
from zoo.data.examples.records.squad import read_questions, read_squad
from zoo.data.examples.records.tables import read_csv, read_tsv
from zoo.data.files import kind as extension
from zoo.errors import DataError, nearest

__all__ = ["KINDS", "Record", "read_file", "read_inputs", "read_records"]

Columns = Mapping[str, str]
Reader = Callable[[Path, Sequence[str], Columns], list[Record]]

TABLES: dict[str, Reader] = {".tsv": read_tsv, ".csv": read_csv, ".jsonl": read_json_lines}
TAGGED = ".conll .bmes .bio .bioes .iob .iob2 .tsv".split()
READERS: dict[str, dict[str, Reader]] = {
    "classify": TABLES,
    "tag": {**dict.fromkeys([*TAGGED, ".txt"], read_conll), ".jsonl": read_tagged_lines},
    "slots": {".jsonl": read_tagged_lines},
    "pairs": TABLES | {".txt": read_scan},
    "span": {".json": read_squad, ".jsonl": read_questions},
    **dict.fromkeys(("score", "similarity", "matches", "triplets"), TABLES),
    "choice": {".jsonl": read_json_lines},
}

log = logging.getLogger("zoo.data")


def read_records(path: str | Path, kind: str, columns: Columns, valid_fraction: float) -> Parts:
    """The records of a file or folder by part: "train", "valid" and, where the source has one, "test".

    A folder's further test parts go by their own names ("test2016"). Where the source has no validation part,
    about `valid_fraction` of the training records become one; with 0 there is none. A test part without
    labels is left out. Raises DataError, one line with file, line and remedy, for whatever cannot be read.
    """
    check_kind(kind)
    for field in columns:
        if field not in KINDS[kind]:
            fields = KINDS[kind]
            raise DataError(
                f"columns {field}=...: kind={kind} has the fields {', '.join(fields)}{nearest(field, fields)}"
            )
    source = Path(path)
    try:
        parts = _read_source(source, kind, columns)
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: cannot be read ({error.strerror}); check its permissions"
        ) from None
    if "valid" not in parts and valid_fraction and parts["train"]:
        divided = split(parts["train"], valid_fraction)
        parts |= with_every_label(divided) if kind == "classify" else divided
    for part, records in parts.items():
        if not records:
            raise DataError(f"{path}: the {part} part has no record; add some, or change valid_fraction")
    first = [part for part in ("train", "valid", "test") if part in parts]
    return {part: parts[part] for part in first + sorted(parts.keys() - set(first))}


def with_every_label(parts: Parts) -> Parts:
    """Train and valid parts of which the first has every label: of a class so rare that all of it fell to
    validation, nothing could be learned."""
    known = {record.fields["label"] for record in parts["train"]}
    rare = [record for record in parts["valid"] if record.fields["label"] not in known]
    if not rare:
        return parts
    shown = ", ".join(sorted({str(record.fields["label"]) for record in rare})[:8])
    log.info("%s: trained on, as no other example has its label: %s", rare[0].where, shown)
    groups = {record.group for record in rare}  # copies of a text stay together
    moved, left = (
        tuple(record for record in parts["valid"] if (record.group in groups) == is_moved)
        for is_moved in (True, False)
    )
    return {"train": parts["train"] + moved, "valid": left}


def _read_source(source: Path, kind: str, columns: Columns) -> Parts:
    if source.is_file():
        return {"train": tuple(read_file(source, kind, columns))}
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder; check the path")
    readings = _readings(source, kind, columns)
    if "train" not in readings:
        raise DataError(f"{source}: has no train part for kind={kind}; {_expected(source, kind)}")
    parts = {}
    for part, read in readings.items():
        try:
            parts[part] = tuple(read())
        except Unlabelled as error:
            if not part.startswith("test"):
                raise
            log.info("the %s part is left out, as it is without labels: %s", part, error)
    return parts


def _readings(folder: Path, kind: str, columns: Columns) -> dict[str, Callable[[], list[Record]]]:
    """How each part of a folder is read: as subfolders, as parallel files, else as one file."""
    if kind == "slots" and (folders := find_folders(folder)):
        return {part: partial(read_slots, path, columns) for part, path in folders.items()}
    if kind == "pairs" and (pairs := find_parallel(folder, columns)):
        return {part: partial(read_parallel, *paths) for part, paths in pairs.items()}
    files = find_files(folder, READERS[kind])
    return {part: partial(read_file, path, kind, columns) for part, path in files.items()}


def read_file(path: Path, kind: str, columns: Columns) -> list[Record]:
    """The records of one file, read as its extension says; of slots in three files, of their folder."""
    if kind == "slots" and path.is_dir():
        return read_slots(path, columns)
    return _reader(path, kind)(path, KINDS[kind], columns)


def _reader(path: Path, kind: str) -> Reader:
    reader = READERS[kind].get(extension(path))
    if not path.exists():
        raise DataError(f"{path}: no such file; check the path")
    if reader is None:
        known = " ".join(READERS[kind])
        folder = ", or a folder with seq.in, seq.out and label" * (kind == "slots")
        raise DataError(f"{path}: not a file of kind={kind}; give {known}, each also .gz{folder}")
    return reader


def read_inputs(path: Path, kind: str, columns: Columns) -> list[Record]:
    """The records of one file without what is to be predicted, which may be missing.

    Tables and .jsonl have names for their columns, as with labels; .conll and the like have a word first in
    each line. Any other text has a record per line: a text, words between blanks, a source. Raises DataError
    for a .txt that holds answers too, as training reads it: it would be taken for texts.
    """
    wanted = tuple(field for field in KINDS[kind] if field in INPUTS)
    columns = {field: name for field, name in columns.items() if field in INPUTS}
    if kind in ("tag", "slots") and extension(path) in TAGGED:
        return read_conll(path, wanted, columns)
    if kind == "span":
        return _reader(path, kind)(path, wanted, columns)
    readers = TABLES | {".jsonl": READERS[kind][".jsonl"]}
    if extension(path) in readers:
        return readers[extension(path)](path, wanted, columns)
    if len(wanted) > len(OPTIONAL & set(wanted)) + 1:
        known = " ".join(READERS[kind])
        raise DataError(
            f"{path}: a line is one text, and kind={kind} reads {', '.join(wanted)}; give {known}"
        )
    lines = [(number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip()]
    if kind == "pairs" and lines and PAIR.fullmatch(lines[0][1]):
        raise DataError(f"{path}:{lines[0][0]}: has a target behind OUT:; give the sources alone, one a line")
    words = "words" in wanted
    return [
        make_record({"words": tuple(filter(None, line.split(" ")))} if words else {wanted[0]: line}, where)
        for line, where in ((line, f"{path}:{number}") for number, line in lines)
    ]


def _expected(folder: Path, kind: str) -> str:
    """What would make a train part, as the end of a message."""
    if kind == "slots":
        return "give train/seq.in, train/seq.out and train/label, or train.jsonl"
    beside = sorted({extension(path)[1:] for path in folder.glob("train.*")} - {""})
    if kind == "pairs" and len(beside) == 2:
        return f"for parallel files give columns source={beside[0]} target={beside[1]}, or the reverse"
    names = ", ".join(f"train{name}" for name in READERS[kind])
    return f"give {names} (each also .gz), or the path of one file"
