"""Schedules against closed forms written in plain Python, at every step."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.errors import ConfigError
from zoo.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    InverseSquareRoot,
    Linear,
    SlantedTriangle,
    StepDecay,
    WarmupStableDecay,
)

PEAK, STEPS, WARMUP = 0.3, 50, 7


def warmup_of(schedule):
    """The steps that climb."""
    if isinstance(schedule, SlantedTriangle):
        return math.floor(schedule.warmup_fraction * STEPS + 0.5)
    return schedule.warmup_steps


def shapes(schedule, step):
    """The fraction of the peak at `step` after the warm-up, from the papers."""
    w, progress = warmup_of(schedule), None
    if isinstance(schedule, Constant):
        return 1.0
    if isinstance(schedule, InverseSquareRoot):
        return math.sqrt((w + 1) / (step + 1))  # Vaswani: updates counted from 1, warm-up of w + 1
    if isinstance(schedule, StepDecay):
        passed = [s for s in range(schedule.start, step + 1) if (s - schedule.start) % schedule.every == 0]
        return schedule.factor ** -len(passed)
    if isinstance(schedule, WarmupStableDecay):
        first = STEPS - round(schedule.decay_fraction * STEPS)
        progress = max(0, step - first) / (STEPS - first)
        return 1 - progress * (1 - schedule.final_fraction)
    progress = (step - w) / (STEPS - w)
    if isinstance(schedule, Linear | SlantedTriangle):
        return 1 - progress * (1 - schedule.final_fraction)
    assert isinstance(schedule, Cosine)  # nanoGPT, train.py, get_lr with lr_decay_iters = steps
    return schedule.final_fraction + 0.5 * (1 + math.cos(math.pi * progress)) * (1 - schedule.final_fraction)


def closed_form(schedule, step):
    if step < warmup_of(schedule):
        return PEAK * (step + 1) / (warmup_of(schedule) + 1)
    return PEAK * shapes(schedule, step)


def examples(warmup_steps):
    return [
        Constant(warmup_steps),
        Linear(warmup_steps, final_fraction=0.0),
        Linear(warmup_steps, final_fraction=0.25),
        SlantedTriangle(warmup_steps / STEPS, final_fraction=0.03125),
        Cosine(warmup_steps, final_fraction=0.0),
        Cosine(warmup_steps, final_fraction=0.1),
        WarmupStableDecay(warmup_steps, decay_fraction=0.3, final_fraction=0.05),
        InverseSquareRoot(warmup_steps),
        StepDecay(warmup_steps, start=20, every=8, factor=1.2),
    ]


every_schedule = pytest.mark.parametrize("schedule", examples(0) + examples(WARMUP), ids=str)
every_warm_schedule = pytest.mark.parametrize("schedule", examples(WARMUP), ids=str)


def rates(schedule, steps=STEPS, last=STEPS):
    """The rates of steps 0 to `last` (one after the last step of a run of STEPS)."""
    return np.array(schedule.rate(PEAK, steps)(np.arange(last + 1)))


def test_every_schedule_has_a_name_and_an_example():
    assert {type(schedule) for schedule in examples(0)} == set(SCHEDULES.values())


@every_schedule
def test_schedule_equals_its_closed_form(schedule):
    expected = [closed_form(schedule, step) for step in range(STEPS + 1)]
    # float32, and near the end of a cosine 1 + cos cancels to a few of its roundings
    np.testing.assert_allclose(rates(schedule), expected, rtol=1e-6, atol=2e-7 * PEAK)


@every_schedule
def test_schedule_is_traceable_and_float32(schedule):
    rate = schedule.rate(PEAK, STEPS)
    jitted = jax.jit(rate)
    for step in (0, WARMUP - 1, WARMUP, 31, STEPS - 1):
        assert jitted(jnp.int32(step)).dtype == rate(step).dtype == jnp.float32
        assert jitted(jnp.int32(step)).shape == ()
        np.testing.assert_allclose(jitted(jnp.int32(step)), rate(step), rtol=1e-6, atol=2e-7 * PEAK)
    assert jitted._cache_size() == 1


@every_warm_schedule
def test_warmup_climbs_in_equal_strides_from_above_zero_to_the_peak(schedule):
    climb = rates(schedule)[: WARMUP + 1]
    assert climb[0] > 0
    np.testing.assert_allclose(np.diff(climb), PEAK / (WARMUP + 1), rtol=1e-5)
    np.testing.assert_allclose(climb[-1], PEAK, rtol=1e-6)


@every_schedule
def test_rate_never_rises_after_the_warmup(schedule):
    after = rates(schedule)[warmup_of(schedule) :]
    np.testing.assert_allclose(after[0], PEAK, rtol=1e-6)
    assert (np.diff(after) <= 1e-7 * PEAK).all()
    assert (after >= 0).all()


@pytest.mark.parametrize("schedule", [s for s in examples(WARMUP) if not isinstance(s, StepDecay)], ids=str)
def test_rate_has_no_jump(schedule):
    # the steepest descent is the cosine's middle, pi / 2 times a straight line's; WSD's line is shorter,
    # and the inverse square root falls by less than 1 / 2W of itself
    length = STEPS * schedule.decay_fraction if isinstance(schedule, WarmupStableDecay) else STEPS - WARMUP
    steepest = max(1 / (WARMUP + 1), math.pi / 2 / length)
    assert np.abs(np.diff(rates(schedule))).max() <= 1.001 * PEAK * steepest


@every_schedule
def test_decay_ends_at_the_final_fraction_one_after_the_last_step(schedule):
    if hasattr(schedule, "final_fraction"):
        at_last, after = rates(schedule)[-2:]
        np.testing.assert_allclose(after, schedule.final_fraction * PEAK, rtol=1e-6, atol=1e-8)
        assert at_last > after


@every_schedule
def test_depends_on_steps_says_whether_more_steps_change_earlier_rates(schedule):
    changed = not np.array_equal(rates(schedule, STEPS), rates(schedule, 2 * STEPS))
    assert type(schedule).depends_on_steps == changed


@pytest.mark.parametrize("kind", SCHEDULES.values())
def test_every_field_of_a_schedule_changes_the_rate(kind):
    (base,) = {type(s): s for s in examples(WARMUP) if type(s) is kind}.values()
    changes = {
        "warmup_steps": 5,
        "warmup_fraction": 0.3,
        "final_fraction": 0.5,
        "decay_fraction": 0.5,
        "start": 12,
        "every": 3,
        "factor": 2.0,
    }
    for field in dataclasses.fields(kind):
        other = dataclasses.replace(base, **{field.name: changes[field.name]})
        assert not np.array_equal(rates(base), rates(other)), field.name


@pytest.mark.parametrize("kind", SCHEDULES.values())
def test_defaults_fit_a_run_of_their_paper(kind):
    rate = kind().rate(PEAK, 100_000)
    assert 0 < rate(0) <= PEAK and 0 <= rate(99_999) <= PEAK


@pytest.mark.parametrize(
    "schedule",
    [s for s in examples(WARMUP) if not isinstance(s, WarmupStableDecay | SlantedTriangle)],
    ids=str,
)
def test_a_run_may_end_with_its_warmup(schedule):
    np.testing.assert_allclose(rates(schedule, steps=WARMUP, last=WARMUP)[-1], PEAK, rtol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in SCHEDULES.values() if kind is not SlantedTriangle])
def test_a_run_shorter_than_its_warmup_ends_on_the_climb(kind):
    schedule = kind(**{"warmup_steps": 20} | ({"start": 30} if kind is StepDecay else {}))
    rate = schedule.rate(PEAK, 10)
    np.testing.assert_allclose([rate(step) for step in range(10)], PEAK * np.arange(1, 11) / 21, rtol=1e-6)


def test_a_decay_that_warmup_leaves_no_room_for_takes_what_is_left():
    rate = WarmupStableDecay(6, decay_fraction=0.5, final_fraction=0.0).rate(PEAK, 10)
    np.testing.assert_allclose(
        [rate(step) for step in range(6, 11)], PEAK * np.array([1, 0.75, 0.5, 0.25, 0]), atol=1e-7
    )


@pytest.mark.parametrize(
    "kind, field, value",
    [(kind, "warmup_steps", -1) for kind in SCHEDULES.values() if kind is not SlantedTriangle]
    + [(SlantedTriangle, "warmup_fraction", value) for value in (-0.1, 1.0, math.nan)]
    + [
        (kind, "final_fraction", value)
        for kind in (Linear, SlantedTriangle, Cosine, WarmupStableDecay)
        for value in (-0.1, 1.1, math.nan)
    ]
    + [(WarmupStableDecay, "decay_fraction", value) for value in (0.0, 1.5, math.nan)]
    + [(StepDecay, "every", 0), (StepDecay, "start", -1)]
    + [(StepDecay, "factor", value) for value in (1.0, 0.0, math.inf, math.nan)],
)
def test_bad_setting_is_one_line_with_field_and_value(kind, field, value):
    with pytest.raises(ConfigError) as caught:
        kind(**{field: value})
    message = str(caught.value)
    assert f"{kind.__name__} {field}={value!r}" in message and "\n" not in message


def test_a_tenth_of_warmup_is_berts_schedule_without_its_first_step():
    """Step s takes what the schedule of BERT's and transformers' fine-tuning code gives its step s + 1, of a
    run and a warm-up one longer; theirs starts with a step of rate 0."""

    def theirs(step, warmup_steps, steps):
        return PEAK * min(step / warmup_steps, (steps - step) / (steps - warmup_steps))

    ours = SlantedTriangle(0.1).rate(PEAK, STEPS)(np.arange(STEPS))
    np.testing.assert_allclose(ours, [theirs(s + 1, 6, STEPS + 1) for s in range(STEPS)], rtol=1e-6)
