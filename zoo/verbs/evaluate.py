"""eval: a run on its validation or test data, or on a file."""

import time

from zoo.errors import ConfigError
from zoo.inference.evaluate import evaluate


def report(options) -> dict:
    """A run's metrics."""
    started = time.monotonic()
    for option in ("data", "part"):
        if options.file and (value := getattr(options, option)):
            raise ConfigError(f"a file ({options.file}) and --{option}={value}: give one of them")
    settings = {"path": options.data, "part": options.part or "valid", "batch_size": options.batch_size}
    settings |= {"adapter": options.adapter, "weights": options.weights}
    found = evaluate(options.model, file=options.file, columns=options.columns, **settings)
    for name, value in found.items():
        print(f"{name:24} {value}")
    seconds = round(time.monotonic() - started, 1)
    what = {"file": options.file} if options.file else {"part": options.part or "valid"}
    return {"model": options.model, **what, **found, "seconds": seconds}
