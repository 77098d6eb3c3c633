"""doctor: what a machine has, and what is wrong with it."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

from zoo import cluster
from zoo.doctor import FAULT, Finding, findings
from zoo.errors import ConfigError
from zoo.metrics import print_result


def examine(options) -> int:
    """Prints each finding as it is made; returns 0 where none is a fault, else the code of what a person
    must mend."""
    found = []
    config = cluster.ClusterConfig(options.coordinator, options.processes, options.process)
    for finding in itertools.chain(joined(config), findings(Path(options.runs))):
        print(finding, flush=True)
        found.append(dataclasses.asdict(finding))
    faults = sum(each["kind"] == FAULT for each in found)
    print_result({"faults": faults, "findings": found})
    code = ConfigError.exit_code if faults else 0
    cluster.leave(code)
    return code


def joined(config: cluster.ClusterConfig) -> Iterator[Finding]:
    """Joins the processes that a launcher has started; a finding where they do not come together."""
    try:
        cluster.join(config)
    except ConfigError as error:
        yield Finding(FAULT, "cluster", str(error), "every process must reach the first one's host and port")
