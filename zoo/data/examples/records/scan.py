"""SCAN's commands and actions (Lake and Baroni 2018, 1711.00350), a pair per line.

IN: turn left after jump twice OUT: I_JUMP I_JUMP I_TURN_LEFT
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo.data.examples.record import Record, make_record
from zoo.data.examples.records.lines import read_lines
from zoo.errors import DataError

PAIR = re.compile(r"\s*IN:(?P<source>.*?)\bOUT:(?P<target>.*)")


def read_scan(path: Path, wanted: Sequence[str], columns: Mapping[str, str]) -> list[Record]:
    """The records of a file of such lines; blank lines are passed over."""
    records = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        match = PAIR.fullmatch(line)
        if match is None:
            raise DataError(
                f"{path}:{number}: not a line such as 'IN: jump OUT: I_JUMP' ({line[:40]!r}); "
                "write that, or give pairs as .tsv, .csv, .jsonl or parallel files"
            )
        fields = {field: text.strip() for field, text in match.groupdict().items()}
        records.append(make_record(dict(fields), f"{path}:{number}"))
    return records
