"""doctor: what a machine has, and what is wrong with it."""

import dataclasses
from pathlib import Path

from zoo import cluster
from zoo.doctor import FAULT, findings
from zoo.errors import ConfigError
from zoo.metrics import print_result


def examine(options) -> int:
    """Prints each finding as it is made; returns 0 where none is a fault, else the code of what a person
    must mend."""
    cluster.join(cluster.ClusterConfig())
    found = []
    for finding in findings(Path(options.runs)):
        print(finding, flush=True)
        found.append(dataclasses.asdict(finding))
    faults = sum(each["kind"] == FAULT for each in found)
    print_result({"faults": faults, "findings": found})
    code = ConfigError.exit_code if faults else 0
    cluster.leave(code)
    return code
