"""Plans a run on a pod that is not there: `python train.py gpt2 --plan v5e:2x4 --mesh.fsdp 8`.

    planner.py      the flow: the very train step of train.py, compiled for a slice, looked at, told
    topology.py     names of slices, the settings of the TPU's compiler, the mesh over a slice
    gpus.py         names of clusters of GPUs; analytic.py: their plans, without a compiler
    chips.py        what each kind of chip can do, with sources
    abstract.py     state and batch as shapes
    program.py      the text of a compiled program; collectives.py, matmuls.py, traffic.py: what it moves,
                    multiplies and reads
    estimate.py     the same in closed form, without compiling: expected.py memory, wires.py collectives
    auto.py         the choice of a setting, among those of candidates.py
    report.py       what a person and a script see

All numbers are predictions: nothing runs. This file starts nothing, so that a run that plans nothing pays
nothing.
"""

import math
from dataclasses import dataclass

from zoo.errors import ConfigError

HELP = (
    "--plan TOPOLOGY compiles the run for a slice, such as v5e:2x4, v5p:4x4x4 or v6e:16x16, and trains "
    "nothing; of GPUs, such as h100:8x4 (eight a node, four nodes), it computes without compiling. --plan "
    "auto:TOPOLOGY chooses mesh, recomputation and micro-batches. --price DOLLARS a chip and hour adds what "
    "it costs."
)


@dataclass(frozen=True)
class Request:
    """What the command line asks of a plan."""

    topology: str
    price: float | None = None
    """Dollars per chip and hour."""
    auto: bool = False
    """Whether mesh, recomputation and micro-batches are to be chosen."""


def requested(argv: list[str]) -> tuple[Request | None, list[str]]:
    """The plan that a command line asks for, and the command line without it.

    gpt2 --plan v5e:2x4 --price 1.2 --mesh.fsdp 8     ->    Request("v5e:2x4", 1.2), gpt2 --mesh.fsdp 8
    """
    found: dict[str, str] = {}
    rest, waiting = [], iter(argv)
    for token in waiting:
        flag, has_value, value = token.partition("=")
        if flag not in ("--plan", "--price"):
            rest.append(token)
            continue
        if flag in found:
            raise ConfigError(f"{flag}: given twice")
        found[flag] = value if has_value else next(waiting, "")
        if not found[flag] or found[flag].startswith("--"):
            example = "a topology, such as v5e:2x4" if flag == "--plan" else "dollars per chip and hour"
            raise ConfigError(f"{flag}: needs a value, {example}")
    if "--plan" not in found:
        if "--price" in found:
            raise ConfigError("--price: is of a plan; give --plan TOPOLOGY too")
        return None, rest
    kind, _, topology = found["--plan"].partition(":")
    if kind != "auto":
        return Request(found["--plan"], price_of(found.get("--price"))), rest
    if not topology:
        raise ConfigError("--plan auto: add what to choose for, as in --plan auto:v5e:2x4 or auto:h100:8x4")
    return Request(topology, price_of(found.get("--price")), auto=True), rest


def price_of(text: str | None) -> float | None:
    """The number that `--price` gives; ConfigError where it is none."""
    if text is None:
        return None
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise ConfigError(f"--price={text}: not a number of dollars per chip and hour")
    return price
