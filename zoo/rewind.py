"""Back to a checkpoint from before a leap of the loss, and on with other batches (zoo/guard.py)."""

import dataclasses
from collections.abc import Callable

from zoo.checkpoint import Checkpoints
from zoo.errors import NumericsError


def gone_back(recipe, state, numbers, checkpoints: Checkpoints, restore: Callable, reporter):
    """The state that a leap of the loss at this state's step sends the run back to.

    Of the checkpoints those of every `save_every` steps count and no others, so that a run that was stopped
    on the way, and saved there, goes back to the same one as a run that was not. Where none is old enough it
    is the beginning, which `restore` makes where there is no checkpoint. Raises NumericsError where the run
    has gone back often enough.
    """
    guard, step = recipe.guard, int(state.step)
    loss = f"loss {float(numbers['loss']):.5g}, a leap of more than {guard.spike:g} deviations"
    if int(state.guard.rewound) >= guard.rewinds:
        reporter.event("stop", step, loss, loss=float(numbers["loss"]), rewinds=guard.rewinds)
        raise NumericsError(
            f"step {step}: {loss}, and the run went back {guard.rewinds} times (guard.rewinds); lower the "
            "learning rate, or look at the data"
        )
    with reporter.caught_up():
        oldest = step - guard.rewind_steps
        checkpoints.leave(lambda saved: saved > oldest or saved % recipe.save_every > 0)
        before = restore()
        watch = before.guard.further(state.guard, guard.skip_batches)
        back = int(before.step)
        skipped = [back + state.offset, back + int(watch.offset) - 1]
        text = f"{loss}; back to step {back}, batches {skipped[0]} to {skipped[1]} are skipped"
        reporter.event("rewind", step, text, loss=float(numbers["loss"]), to=back, skipped=skipped)
        reporter.went_back(back)
    return dataclasses.replace(before, guard=watch)
