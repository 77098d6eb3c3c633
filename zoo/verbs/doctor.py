"""doctor: what a machine has, and what is wrong with it."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from zoo import cluster, joining
from zoo.doctor import FAULT, Finding, of_the_devices, of_the_host
from zoo.ending import die
from zoo.errors import ConfigError
from zoo.metrics import print_result


def examine(options) -> int:
    """Prints each finding as it is made; returns 0 where none is a fault, else the code of what a person
    must mend."""
    found: list[dict] = []
    config = joining.ClusterConfig(
        options.coordinator, options.processes, options.process, options.start_seconds
    )

    def tell(finding: Finding) -> None:
        print(finding, flush=True)
        found.append(dataclasses.asdict(finding))

    def conclude() -> int:
        faults = sum(each["kind"] == FAULT for each in found)
        print_result({"faults": faults, "findings": found})
        return ConfigError.exit_code if faults else 0

    def late(text: str) -> None:
        tell(not_joined(text))
        die(conclude())

    for finding in itertools.chain(of_the_host(Path(options.runs)), joined(config, late), of_the_devices()):
        tell(finding)
    code = conclude()
    cluster.leave(code)
    return code


def joined(config: joining.ClusterConfig, late: Callable[[str], None]) -> Iterator[Finding]:
    """Joins the processes that a launcher has started; a finding where that cannot be. `late` ends it all
    where the others do not come."""
    try:
        joining.join(config, late)
    except ConfigError as error:
        yield not_joined(str(error))


def not_joined(text: str) -> Finding:
    """The fault that an error of joining is, whose remedy stands behind its semicolon."""
    said, _, remedy = text.partition("; ")
    return Finding(FAULT, "cluster", said, remedy)
