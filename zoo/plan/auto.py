"""Chooses how to compute a run: `--plan auto:v5e:2x4` tries meshes, recomputation and micro-batches.

What a run learns stays as the recipe says: the rows of a step, the model, the optimizer. All settings are
judged in closed form first, in seconds; the compiler, where there is one, then looks at the few that promise
most. Settings are ranked by the slower of the two bounds on a step, in which nothing overlaps.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from zoo.assembly import step_of
from zoo.errors import ConfigError
from zoo.plan import Request, expected
from zoo.plan.abstract import placed_batch, placed_state
from zoo.plan.apart import Crashed, apart
from zoo.plan.candidates import SEARCHED, flags, meshes, parts_of_a_batch, remats, with_setting
from zoo.plan.estimate import Estimate, estimate
from zoo.plan.expected import innermost
from zoo.plan.gpus import Cluster
from zoo.plan.remedies import TooLarge
from zoo.plan.report import dollars, gib, speed

PLANNED = 4
SHOWN = 3
UNCHANGED = "(as the recipe stands)"


@dataclass(frozen=True)
class Candidate:
    """A setting and what it should need."""

    recipe: Any
    estimate: Estimate

    @property
    def bytes(self) -> int:
        return self.estimate.memory.total

    @property
    def remat(self) -> str:
        return getattr(innermost(self.recipe.model), "remat", "")


@dataclass(frozen=True)
class Found:
    """What a search has found."""

    groups: list[list[Candidate]]
    """Of every mesh and recomputation the settings that fit, with ever more parts: each slower than the one
    before, and smaller."""
    least: Candidate
    """The one that needs the least memory, whether it fits or not."""
    tried: int

    def fastest(self, available: float) -> list[Candidate]:
        """Of each group the first that needs no more than that; the fastest first."""
        fitting = (next((each for each in group if each.bytes <= available), None) for group in self.groups)
        return sorted(filter(None, fitting), key=lambda each: each.estimate.time.worst_s)


def search(recipe, data, place) -> Found:
    """Judges every setting on `place`, a Slice or a Cluster; ConfigError where nothing divides over it."""
    groups, tried, least, available = [], 0, None, place.chip.hbm_bytes
    for settings in grouped(recipe, data, place):
        group = []
        for candidate in settings:
            tried += 1
            if least is None or candidate.bytes < least.bytes:
                least = candidate
            if candidate.bytes <= available:
                group.append(candidate)
            if candidate.bytes <= available / 2:
                break  # in more parts it would only be slower
        groups.append(group)
    if least is None:
        raise ConfigError(
            f"data.batch_size={recipe.data.batch_size} and the sizes of the model divide over no mesh of "
            f"{place.count} chips; give a --data.batch-size that is a multiple of {place.count}"
        )
    return Found(groups, least, tried)


def grouped(recipe, data, place) -> Iterator[Iterator[Candidate]]:
    """For every mesh and recomputation the candidates with ever more parts."""
    for sizes in meshes(recipe.mesh, place.count):
        counts = parts_of_a_batch(recipe.data.batch_size, sizes)
        known = None
        for path, remat in remats(recipe.model) if counts else ():
            chosen = with_setting(recipe, sizes, path, remat, counts[0])
            parts = step_of(chosen, data)
            if known is None:
                try:
                    mesh = place.mesh(chosen.mesh)
                    state, batch = placed_state(parts, mesh), placed_batch(parts.task, data, mesh)
                except ConfigError:  # a dimension of the model that the mesh does not divide
                    break
                known = expected.held(parts, chosen.model, state, batch, mesh, place.numbers)
            yield candidates(chosen, parts, counts, batch, mesh, place, known)


def candidates(chosen, parts, counts, batch, mesh, place, known) -> Iterator[Candidate]:
    """One setting in so many parts each."""
    for count in counts:
        cut = dataclasses.replace(chosen, accumulate=count)
        cut_parts = dataclasses.replace(parts, accumulate=count)
        yield Candidate(cut, estimate(cut_parts, cut, batch, mesh, place, known))


@dataclass(frozen=True)
class Choice:
    """The plans of a few settings, the fastest first."""

    request: Request
    recipe: Any
    plans: list
    tried: int

    def lines(self) -> list[str]:
        """For a person."""
        first, rows = self.plans[0], self.recipe.data.batch_size
        told = [
            f"plan     {self.recipe.name} on {self.request.topology}, {first.chips} chips: {self.tried} "
            f"settings judged in closed form, {first.how(len(self.plans))}, none run: all below is predicted",
            f"batch    {rows:,} rows, {rows * self.recipe.data.length:,} tokens a step in every setting, as "
            "the recipe says: a run learns the same, up to rounding and dropout's draws",
            f"meshes   every one of {', '.join(SEARCHED)}; pipeline, context and expert are not tried, and "
            "stay as given",
        ]
        for number, plan in enumerate(self.plans[:SHOWN], 1):
            step = f"step {1e3 * plan.time.best_s:,.1f} to {1e3 * plan.time.worst_s:,.1f} ms"
            told += [
                f"{number}        {flags(self.recipe, plan.recipe) or UNCHANGED}",
                f"         {speed(plan)}, {step}, memory {gib(plan.total_bytes)} of "
                f"{gib(plan.chip.hbm_bytes)} a chip{cost(plan)}",
            ]
        told.append(
            "         flags to add to the same command line, or to change there; --plan tells the rest"
        )
        return told

    def record(self) -> dict[str, Any]:
        """For a script."""
        best = [{"flags": flags(self.recipe, plan.recipe), **plan.record()} for plan in self.plans[:SHOWN]]
        batch = {"batch_tokens": self.recipe.data.batch_size * self.recipe.data.length}
        head = {"plan": f"auto:{self.request.topology}", "recipe": self.recipe.name, "predicted": True}
        return head | batch | {"tried": self.tried, "planned": len(self.plans), "best": best}


def cost(plan) -> str:
    """What a thousand million tokens cost, where the price is known."""
    if plan.request.price is None:
        return ""
    low, high = dollars(plan, plan.request.price * plan.chips)
    return f", ${low:,.2f} to ${high:,.2f} a thousand million tokens"


def chosen(request: Request, recipe, data, place, plan_of: Callable) -> Choice:
    """The settings that promise most, planned; ConfigError where none fits."""
    found = search_apart(recipe, data, place)
    if not any(found.groups):
        raise ConfigError(refusal(found, recipe, data, place))

    def planned(candidate: Candidate):
        return plan_of(request, candidate.recipe, data, place)

    return Choice(request, recipe, ranked(found, recipe, place, planned), found.tried)


def search_apart(recipe, data, place) -> Found:
    """The search of a slice asks the compiler's library for its chips, and so runs apart."""
    work = functools.partial(search, recipe, data, place)
    return work() if isinstance(place, Cluster) else apart(work)


def ranked(found: Found, recipe, place, plan_of: Callable) -> list:
    """Plans of the few settings that promise most, the fastest first.

    The fastest of each kind of recomputation are looked at first, as closed forms tell these apart least.
    What the compiler asks for beyond the closed form, where it refuses one, is expected of the others too.
    """
    plans: list = []
    seen: set[str] = set()
    kinds: set[str] = set()
    scale = 1.0
    failure: ConfigError | None = None
    while len(seen) < PLANNED:
        fast = found.fastest(place.chip.hbm_bytes / scale)
        left = [each for each in fast if flags(recipe, each.recipe) not in seen]
        if not left:
            break
        left.sort(key=lambda each: each.remat in kinds)  # and by time, as they are sorted
        name = flags(recipe, left[0].recipe)
        seen.add(name)
        kinds.add(left[0].remat)
        note(f"auto     {len(seen)} of at most {PLANNED}: {name or UNCHANGED}")
        try:
            plans.append(plan_of(left[0]))
        except TooLarge as error:
            scale, failure = max(scale, error.asked / left[0].bytes), error
            note(f"         does not fit, needs {gib(error.asked)} of {gib(place.chip.hbm_bytes)}")
        except Crashed as error:
            failure = error
            note(f"         {error}")
    if failure and not plans:
        raise failure
    return sorted(plans, key=lambda plan: plan.time.worst_s)


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def refusal(found: Found, recipe, data, place) -> str:
    """One line where nothing fits: what comes closest, and the next larger place that holds it."""
    least = found.least
    with_flags = flags(recipe, least.recipe) or UNCHANGED
    told = (
        f"{recipe.name} does not fit {place.name} by the closed form, however it is computed: at least "
        f"{gib(least.bytes)} of a chip's {gib(place.chip.hbm_bytes)}, with {with_flags}"
    )
    for larger in place.larger():
        bigger = search_apart(recipe, data, larger)
        if any(bigger.groups):
            return f"{told}; {larger.name} should hold it ({gib(bigger.least.bytes)})"
    return f"{told}; no larger one of its kind holds it: take chips with more memory, or a smaller model"
