"""CoNLL columns: a word and its tag per line, a blank line between sentences (Tjong Kim Sang 2003).

    Empire⇥B-location        or   EU NNP B-NP B-ORG
    State⇥I-location              rejects VBZ B-VP O

The word stands first and the tag last, wherever `columns` does not number them otherwise. Columns are parted
by tabs in a line that has one, else by blanks: no other white space parts, as it may be a word itself.
`-DOCSTART-` lines are passed over. A "#" begins a word like any other: tweets are full of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from zoo.data.examples.record import Record, make_record
from zoo.data.examples.records.lines import read_lines
from zoo.errors import DataError

FIRST_AND_LAST = {"words": "0", "tags": "-1"}


def read_conll(path: Path, wanted: Sequence[str], columns: Mapping[str, str]) -> list[Record]:
    """A record of words and, where they are wanted, tags per sentence."""
    places = {}
    fields = {field: place for field, place in FIRST_AND_LAST.items() if field in wanted}
    for field, number in (fields | dict(columns)).items():
        if not number.removeprefix("-").isdecimal():
            raise DataError(f"columns {field}={number} is no number of a column; 0 is the first, -1 the last")
        places[field] = int(number)
    return [_sentence(rows, path, places) for rows in _sentences(read_lines(path))]


def _sentences(lines: Iterable[str]) -> Iterator[list[tuple[int, list[str]]]]:
    """Runs of lines that are not blank, each line with its number and cut into cells."""
    rows: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip(" ") for cell in line.split("\t" if "\t" in line else " ")]
        cells = cells if "\t" in line else list(filter(None, cells))
        if not any(cells):
            if rows:
                yield rows
            rows = []
        elif cells[0] != "-DOCSTART-":
            rows.append((number, cells))
    if rows:
        yield rows


def _sentence(rows: list[tuple[int, list[str]]], path: Path, places: Mapping[str, int]) -> Record:
    least = max(len(places), *(place + 1 if place >= 0 else -place for place in places.values()))
    fields: dict[str, list[str]] = {field: [] for field in places}
    for number, cells in rows:
        if len(cells) < least:
            shown = " ".join(cells)[:60]
            raise DataError(
                f"{path}:{number}: a row of {len(cells)} ({shown!r}), {least} columns are needed; "
                "write a word and its tag, parted by a tab or a blank"
            )
        for field, place in places.items():
            if not cells[place]:
                raise DataError(f"{path}:{number}: column {place} of {field} is empty; write one")
            fields[field].append(cells[place])
    return make_record({field: tuple(items) for field, items in fields.items()}, f"{path}:{rows[0][0]}")
