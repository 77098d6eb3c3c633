"""Which entry of a folder is which part: train, valid (val, dev, validation), test and further test parts.

train.tsv.gz  dev.tsv  test.tsv             a file per part
train/  valid/  test/                       a folder per part
train.en  train.de  valid.en  valid.de      two parallel files per part
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from zoo.data.corpus import PARTS
from zoo.data.files import kind as extension
from zoo.errors import DataError


def part_of(name: str) -> str | None:
    """The part that a name stands for, "test2016" being one of its own, or None; "dev-v1.1" is SQuAD's."""
    stem = re.sub(r"-v\d$", "", name.split(".")[0].lower())
    return PARTS.get(stem) or (stem if re.fullmatch(r"test\w+", stem) else None)


def find_files(folder: Path, extensions: Collection[str]) -> dict[str, Path]:
    """The file of each part among those with one of the extensions."""
    return _one_each(
        folder, (path for path in folder.iterdir() if path.is_file() and extension(path) in extensions)
    )


def find_folders(folder: Path) -> dict[str, Path]:
    """The subfolder of each part."""
    return _one_each(folder, (path for path in folder.iterdir() if path.is_dir()))


def find_parallel(folder: Path, columns: Mapping[str, str]) -> dict[str, tuple[Path, Path]]:
    """The source and the target file of each part; `columns` has their extensions.

    A folder with a single such pair, however it is called, is a train part.
    """
    if not {"source", "target"} <= columns.keys():
        return {}
    sides = []
    for field in ("source", "target"):
        files = [path for path in folder.iterdir() if extension(path) == f".{columns[field].lower()}"]
        sides.append({_stem(path): path for path in sorted(files)})
    sources, targets = sides
    for stem in sorted(sources.keys() ^ targets.keys()):
        present, absent = (sources, "target") if stem in sources else (targets, "source")
        if part_of(stem):
            raise DataError(f"{present[stem]}: has no {stem}.{columns[absent]} beside it; add the {absent}s")
    both = sources.keys() & targets.keys()
    if len(both) == 1 and not part_of(stem := min(both)):
        return {"train": (sources[stem], targets[stem])}
    named = _one_each(folder, (sources[stem] for stem in both))
    return {part: (path, targets[_stem(path)]) for part, path in named.items()}


def _stem(path: Path) -> str:
    """The name without .gz and extension."""
    return Path(re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE)).stem


def _one_each(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in sorted(paths):
        part = part_of(path.name)
        if part in named:
            raise DataError(
                f"{folder}: {named[part].name} and {path.name} both name the {part} part; keep one"
            )
        if part is not None:
            named[part] = path
    return named
