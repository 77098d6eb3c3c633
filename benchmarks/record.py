"""The record of a run of the suite: what was measured where, as JSON that another run can be held against.

    {"schema": 1, "command": ..., "date": ..., "git": ..., "versions": ..., "machine": ..., "flags": ...,
     "rows": [a row a workload, as benchmarks/measure.py makes it]}

It is written anew after every row, whole or not at all, so that a run may be stopped at any moment.
"""

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import DataError, storage_errors

SCHEMA = 1
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
HEAD = ("schema", "command", "date", "git", "versions", "machine", "flags", "settings", "rows")
ROW = ("workload", "about", "kind", "dtype", "unit", "failed", "counts", "why_not")
MEASURED = (
    *("sides", "mesh", "turns", "steps_a_turn", "compile_s", "matmul_flops_per_s", "model_flops"),
    *("mfu_peak", "bound", "parts", "load"),
)
SIDE = ("apart", "agrees", "step_ms", "real_per_s", "nominal_per_s", "zoo_over", "mfu_a", "mfu_b")


def begun(command: str, versions: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A record without rows."""
    return {
        "schema": SCHEMA,
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git": git(),
        "versions": {"python": platform.python_version(), **dict(sorted(versions.items()))},
        "machine": machine(),
        "flags": {name: os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")},
        "settings": dict(settings),
        "rows": [],
    }


def git() -> dict[str, Any]:
    """The commit, and whether the sources differ from it; without git, nothing is known."""

    def said(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    try:
        return {
            "commit": said("rev-parse", "HEAD").strip(),
            "dirty": bool(said("status", "--porcelain", "-uno").strip()),
        }
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system, and how busy it is."""
    found = {"system": platform.platform(), "cpus": os.cpu_count(), "processor": platform.processor()}
    about = Path("/proc/cpuinfo")
    if about.exists():
        lines = [line.partition(":") for line in about.read_text().splitlines()]
        said = {name.strip(): value.strip() for name, _, value in lines}
        found["processor"] = f"{said.get('model name', '')}, family {said.get('cpu family', '?')}"
    memory = Path("/proc/meminfo")
    if memory.exists():
        found["memory_bytes"] = int(memory.read_text().split()[1]) * 1024
    found["load"] = [round(load, 2) for load in os.getloadavg()]
    found["malloc"] = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    return found


def write(path: Path, record: Mapping[str, Any]) -> None:
    """The whole record under its name at once."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        beside.replace(path)


def read(path: Path) -> dict[str, Any]:
    """A record that was written; DataError, a line, for what is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such record; benchmarks/results has those that were kept"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a record of the suite ({error})") from None
    check(record, str(path))
    return record


def check(record: Any, name: str = "record") -> None:
    """DataError, a line with the first thing that a record lacks."""
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise DataError(f"{name}: not a record of the suite with schema {SCHEMA}")
    missing = [field for field in HEAD if field not in record]
    for row in record.get("rows", []):
        place = row.get("workload", "a row")
        wanted = ROW if not row.get("turns") else ROW + MEASURED
        missing += [f"{place}: {field}" for field in wanted if field not in row]
        for side, mine in row.get("sides", {}).items() if row.get("turns") else ():
            missing += [f"{place}: {side}: {field}" for field in SIDE if field not in mine]
    if missing:
        raise DataError(f"{name}: {missing[0]} is missing; this is no whole record")
