"""Tables: a record per row, .tsv split on every tab and .csv as RFC 4180 has it.

Published .tsv files (GLUE's are) carry quotation marks that open and never close, so nothing in a .tsv is
quoted; a text with a tab or a line end in it goes into a .csv or .jsonl.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo import untrusted
from zoo.data.examples.record import INPUTS, OPTIONAL, Record, make_record
from zoo.data.examples.records.columns import find_columns, is_input_name
from zoo.data.examples.records.lines import read_lines
from zoo.data.files import read_text
from zoo.errors import DataError

INDEX = frozenset({"index", "id"})  # names that no text has alone

Row = tuple[int, list[str]]  # the line on which it begins, its cells


def read_tsv(path: Path, wanted: Sequence[str], columns: Mapping[str, str]) -> list[Record]:
    """The records of a table whose columns are parted by tabs."""
    rows = [(number, line.split("\t")) for number, line in enumerate(read_lines(path), start=1)]
    return _records([(number, cells) for number, cells in rows if cells != [""]], path, wanted, columns)


def read_csv(path: Path, wanted: Sequence[str], columns: Mapping[str, str]) -> list[Record]:
    """The records of a table whose columns are parted by commas, quoted where they hold commas or lines."""
    text = read_text(path, line=untrusted.LINE).removeprefix("\ufeff")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    limit = csv.field_size_limit(len(text) + 1)  # the library's own is 131,072: a report may be longer
    rows, line = [], 1
    try:
        for cells in reader:
            if cells:
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{line}: not CSV ({error}); mend the quotation marks, or give .tsv or .jsonl"
        ) from None
    finally:
        csv.field_size_limit(limit)
    return _records(rows, path, wanted, columns)


def _records(
    rows: Sequence[Row], path: Path, wanted: Sequence[str], columns: Mapping[str, str]
) -> list[Record]:
    if not rows:
        return []
    number, first = rows[0]
    places, has_header = _locate(first, wanted, columns, f"{path}:{number}")
    least = max(places.values()) + 1
    records = []
    for number, cells in rows[has_header:]:
        where = f"{path}:{number}"
        if has_header and len(cells) != len(first):
            raise DataError(
                f"{where}: a row of {len(cells)}, the header has {len(first)} columns; {_mend(cells)}"
            )
        if len(cells) < least:
            raise DataError(f"{where}: a row of {len(cells)}, {least} columns are needed; {_mend(cells)}")
        records.append(make_record({field: cells[i] for field, i in places.items()}, where))
    return records


def _locate(
    first: list[str], wanted: Sequence[str], columns: Mapping[str, str], where: str
) -> tuple[dict[str, int], bool]:
    """{field: column}, and whether the first row is a header.

    It is one unless every column is given as a number. Even then it may look like one: where a text is
    numbered it says "sentence", or there is an "index" beside that. (CoLA's test part has a header, its train
    and dev have none.)
    """
    numbers = {field: int(name) for field, name in columns.items() if name.isdecimal()}
    inputs = {i for i, name in enumerate(first) if is_input_name(name, wanted)}
    has_index = any(name.strip().lower() in INDEX for name in first)
    if not columns or len(numbers) < len(columns):
        names = dict(columns)
    elif inputs and (has_index or any(numbers.get(field) in inputs for field in INPUTS)):
        find_columns(first, wanted, {}, where)  # raises Unlabelled where only inputs are named
        names = dict(columns)
    else:
        missing = [field for field in wanted if field not in numbers and field not in OPTIONAL]
        if missing:
            raise DataError(
                f"{where}: columns has a number for {', '.join(numbers)} and none for {missing[0]}; "
                f"add {missing[0]}=NUMBER, counted from 0"
            )
        return numbers, False
    if len(first) == 1 and any(mark in first[0] for mark in ",;\t"):
        raise DataError(
            f"{where}: the header {first[0][:60]!r} is one column; part columns by commas in a .csv, by tabs "
            "in a .tsv"
        )
    for field, number in numbers.items():
        if number >= len(first):
            raise DataError(
                f"{where}: columns {field}={number}, and the last of the header is {len(first) - 1}"
            )
        names[field] = first[number]
    found = find_columns(first, wanted, names, where)
    called = [name.strip().lower() for name in first]
    for field, name in found.items():
        if field not in numbers and called.count(name.strip().lower()) > 1:
            raise DataError(
                f"{where}: several columns are called {name!r}; say which in columns by its number, as "
                f"{field}={first.index(name)}"
            )
    return {field: first.index(name) for field, name in found.items()} | numbers, True


def _mend(cells: list[str]) -> str:
    text = " | ".join(cells)
    return f"mend the row {text if len(text) <= 60 else text[:60] + '...'!r}"
