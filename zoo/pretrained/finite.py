"""Whether tensors of another program hold numbers only."""

from collections.abc import Mapping

import numpy as np

from zoo.errors import CheckpointError


def check_finite(tensors: Mapping[str, np.ndarray]) -> None:
    """Raises CheckpointError, one line with the first tensor, in their order, that holds nan or an infinity,
    and where: a model of such weights answers nan to everything, long after anyone asks why."""
    faulty = [name for name, x in tensors.items() if not np.isfinite(x).all()]
    if not faulty:
        return
    tensor = np.asarray(tensors[faulty[0]])
    place = tuple(np.argwhere(~np.isfinite(tensor))[0].tolist())
    others = f", and so are numbers of {', '.join(faulty[1:4])}" if faulty[1:] else ""
    more = f" and {len(faulty) - 4} more" if faulty[4:] else ""
    raise CheckpointError(
        f"tensor {faulty[0]} is {float(tensor[place])} at {list(place)}{others}{more}; take weights from "
        "before training diverged"
    )
