"""eval: a run on its validation or test data."""

import time

from zoo.inference.evaluate import evaluate


def report(options) -> dict:
    """A run's metrics."""
    started = time.monotonic()
    found = evaluate(options.model, path=options.data, part=options.part, batch_size=options.batch_size)
    for name, value in found.items():
        print(f"{name:24} {value}")
    seconds = round(time.monotonic() - started, 1)
    return {"model": options.model, "part": options.part, **found, "seconds": seconds}
