"""The header of a .safetensors file, read by a few lines of Python: what stands where.

    8 bytes, little endian: the length of the header
    {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..., "__metadata__": {...}}
    the numbers, one tensor after the other, from the first byte to the last

The format's own library checks sizes, overlaps and the end of the file. It takes files without tensors, sizes
of 0 by 2^60, names such as ../../x and any number of tensors; here these are refused too, before anything is
allocated.
"""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from zoo import untrusted
from zoo.errors import CheckpointError, first_line

FETCH = "fetch the file again"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,254}")
SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2}
SIZES |= {"F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8}


@dataclass(frozen=True)
class Entry:
    """What a header says of one tensor; `offset` counts from the beginning of the file."""

    kind: str
    shape: tuple[int, ...]
    offset: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a file. CheckpointError, one line, where it is no .safetensors file, or part of one."""
    try:
        with untrusted.opened(path) as file:
            total = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            untrusted.check_size(length, min(untrusted.HEADER, max(total - 8, 0)))
            text = file.read(length)
        if text.count(b"data_offsets") > untrusted.TENSORS:
            raise ValueError(f"more than {untrusted.TENSORS:,} tensors")
        return entries(untrusted.json_object(text), 8 + length, total)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); {FETCH}") from None
    except ValueError as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({first_line(error)}); {FETCH}"
        ) from None


def entries(header: dict, start: int, total: int) -> dict[str, Entry]:
    """The tensors of a header, in its order. ValueError where their numbers do not fill the file from `start`
    to its end, one after the other."""
    found, spans = {}, []
    for name, said in header.items():
        if name != "__metadata__":
            found[name], span = entry(name, said, start)
            spans.append((*span, name))
    if not found:
        raise ValueError("no tensors in it")
    end = 0
    for first, last, name in sorted(spans):
        if first != end:
            raise ValueError(f"{name} begins at {first}, and the tensor before it ends at {end}")
        end = last
    if start + end != total:
        raise ValueError(f"its tensors end at byte {start + end:,}, and the file at {total:,}")
    return found


def entry(name: str, said, start: int) -> tuple[Entry, tuple[int, int]]:
    """One tensor, and which bytes of the numbers are its own."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r:.80} is no name of a tensor")
    if not isinstance(said, dict) or said.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} has not just dtype, shape and data_offsets")
    kind, shape, span = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(kind, str) or kind not in SIZES:
        raise ValueError(f"{name} is of the dtype {kind!r:.20}")
    if not are_sizes(shape) or not are_sizes(span) or len(span) != 2 or len(shape) > 16:
        raise ValueError(f"{name} has a shape or data_offsets that are no numbers from 0")
    if 0 in shape and max(shape) > 0 and math.prod(filter(None, shape)) > untrusted.TEXT:
        raise ValueError(f"{name} has the shape {shape!r:.80}")
    if span[1] - span[0] != math.prod(shape) * SIZES[kind]:
        raise ValueError(f"{name} is {kind}{shape!r:.80} in {span[1] - span[0]} bytes")
    return Entry(kind, tuple(shape), start + span[0]), (span[0], span[1])


def are_sizes(value) -> bool:
    """Whether it is a list of whole numbers that a file can have."""
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 1 << 62 for each in value)
