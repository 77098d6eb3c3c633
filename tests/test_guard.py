"""Numbers that cannot be right: never stored, skipped as if the batch had never been, or gone back from."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train import done, refusal, run, terminate_at_step_six, text  # noqa: F401
from training import batch_of, compiled, eight_devices, initial, mesh_of, parts_of

from zoo import audit as audit_module
from zoo.audit import audited
from zoo.errors import ConfigError, NumericsError
from zoo.feed import Feed
from zoo.guard import Guard
from zoo.models.gpt import GPTConfig
from zoo.models.rnn import RNNConfig
from zoo.receipts import receipts
from zoo.state import TrainState

SKIP = Guard(nonfinite="skip")


def taken(parts, mesh, state, steps, poison=()):
    """(state, numbers) after these steps; in those of `poison` one row's weights are not finite."""
    told = {}
    with jax.set_mesh(mesh):
        for step in steps:
            batch = batch_of(step, mesh)
            if step in poison:
                batch = batch | {"weights": batch["weights"].at[3, 2].set(poison[step])}
            state, told = compiled(parts, mesh)(state, batch)
    return state, jax.device_get(told)


def copied(state):
    """The step gives up the state that it is given."""
    return jax.tree.map(lambda x: x.copy(), state)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (GPTConfig, (1, 1, 1)),
        pytest.param(GPTConfig, (2, 2, 2), marks=eight_devices),
        (RNNConfig, (1, 1, 1)),
    ],
)
def test_a_skipped_batch_has_never_been(kind, sizes):
    """Bit for bit: parameters, moments and their count, average, what rows remember; on every device. The
    step goes on, and the steps after it are those of a run that was given nothing there."""
    parts, mesh = parts_of(kind, guard=SKIP, accumulate=2, average_decay=0.2), mesh_of(sizes)
    before, _ = taken(parts, mesh, initial(parts, mesh), range(2))
    kept = copied(before)
    after, told = taken(parts, mesh, before, [2, 3], poison={2: np.nan, 3: np.inf})
    assert told["skipped"] and not told["finite"] and (told["in_a_row"], told["all_skipped"]) == (2, 2)
    assert int(after.step) == 4
    never = copied(dataclasses.replace(kept, step=kept.step + 2, guard=after.guard))
    jax.tree.map(np.testing.assert_array_equal, after, never)
    assert not list(
        audit_module.unlike(audit_module.sums_of(after, mesh), audit_module.places_of(after, mesh))
    )
    after, told = taken(parts, mesh, after, [4])
    never, _ = taken(parts, mesh, never, [4])
    jax.tree.map(np.testing.assert_array_equal, after, never)
    assert not told["skipped"] and (told["in_a_row"], told["all_skipped"]) == (0, 2)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(after)))


def judged(guard, losses, nonfinite=()):
    """(parameters, told) after each of these losses, of a state whose parameter counts its updates."""
    state = TrainState(jnp.int32(0), jnp.float32(0), {}, None, guard=guard.first())
    verdict = jax.jit(guard.verdict)
    for number, loss in enumerate(losses):
        found = verdict(state.guard, jnp.float32(loss), jnp.bool_(number not in nonfinite))
        step, params = state.step + found.goes_on, state.params + found.applies
        state = dataclasses.replace(state, step=step, params=params, guard=found.watch)
        yield state, found.told


def test_a_leap_is_so_many_deviations_above_the_last_accepted_losses():
    """Against a loop over lists; a loss far below is none, nor is one before the window is full."""
    draws = np.random.default_rng(0)
    losses = draws.normal(3.0, 0.1, 60).astype(np.float32)
    losses[[2, 30, 31, 45]] += 5
    losses[50] -= 2.5
    guard, accepted, leaps = Guard(nonfinite="skip", spike=6.0, window=8), [], []
    for number, (state, told) in enumerate(judged(guard, losses, nonfinite={40})):
        window = np.array(accepted[-8:])
        is_leap = number != 40 and len(window) == 8 and losses[number] > window.mean() + 6 * window.std()
        assert bool(told["spike"]) == is_leap, number
        leaps += [number] * bool(is_leap)
        accepted += [losses[number]] if not is_leap and number != 40 else []
        assert int(state.params) == len(accepted) and int(state.step) == number + 1
        assert int(told["all_skipped"]) == number + 1 - len(accepted)
    assert leaps == [30, 31, 45]  # the third loss leaps before there is a window


def test_where_the_first_ends_the_run_the_step_stays_too():
    guard = Guard(spike=6.0, window=8)
    (state, told) = list(judged(guard, [1.0, 1.0], nonfinite={1}))[-1]
    assert int(state.step) == 1 and bool(told["skipped"])


def test_a_guard_that_has_nothing_to_remember_adds_nothing_to_the_state():
    assert parts_of(GPTConfig).specs().guard is None and Guard().first() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 0}, "limit=0 must be a number of at least 1"),
        ({"spike": math.nan}, "spike=nan must be a number of at least 0"),
        ({"action": "rewind"}, "action=rewind waits for a leap of the loss; set spike"),
    ],
)
def test_a_guard_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Guard(**settings)


def test_going_back_needs_checkpoints_that_are_kept_and_a_gap_past_the_leap():
    guard = Guard(spike=6.0, action="rewind", rewind_steps=100, skip_batches=200)
    guard.check(save_every=50, keep=3)
    guard.check(save_every=100, keep=2)
    with pytest.raises(
        ConfigError, match="further back than keep=2 checkpoints each 50 steps; set keep to 3"
    ):
        guard.check(save_every=50, keep=2)
    with pytest.raises(
        ConfigError, match=r"skip_batches=200 may end before .* = 600 steps on; set it to that"
    ):
        guard.check(save_every=500, keep=2)


# --- whole runs -----------------------------------------------------------------------------------


def spoil(monkeypatch, numbers, spoiled):
    """From now on the batches with these numbers are what `spoiled` makes of them."""
    given = Feed._given

    def changed(feed, step):
        fed = given(feed, step)
        return fed._replace(batch=spoiled(fed.batch)) if step - 1 + feed.offset in numbers else fed

    monkeypatch.setattr(Feed, "_given", changed)


def not_finite(batch):
    return batch | {"weights": batch["weights"] * jnp.nan}


def leaping(batch):
    """Nobody would expect these targets: one and the same token."""
    return batch | {"targets": jnp.zeros_like(batch["targets"])}


def events_of(folder):
    lines = (folder / "runs" / "gpt_stdlib" / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def seen(folder):
    return [receipt for receipt, _ in receipts(folder / "runs" / "gpt_stdlib" / "receipts.txt")]


BACK = ("--guard.spike", "6", "--guard.window", "4", "--guard.action", "rewind", "--guard.rewind-steps", "2")
BACK += ("--guard.skip-batches", "4", "--save-every", "2", "--keep", "3", "--eval-every", "50")
BACK += ("--guard.nonfinite", "skip")


def trouble(monkeypatch):
    """The third batch is not finite, the eighth leaps."""
    spoil(monkeypatch, {2}, not_finite)
    spoil(monkeypatch, {7}, leaping)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """A run that was not stopped, with all that happened to it."""
    with pytest.MonkeyPatch.context() as patch:
        trouble(patch)
        return done(tmp_path_factory.mktemp("troubled"), *BACK)


def test_a_skip_is_an_event_and_counted(troubled):
    assert troubled.code == 0 and "skip     step 3: loss nan" in troubled.err
    (event,) = [event for event in events_of(troubled.folder) if event["event"] == "skip"]
    assert (event["step"], event["batch"], event["loss"], event["in_a_row"]) == (3, 2, None, 1)
    assert event["digest"] == seen(troubled.folder)[2].digest
    assert [receipt.step for receipt in seen(troubled.folder) if not receipt.is_applied] == [3]
    logged = (troubled.folder / "runs" / "gpt_stdlib" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line).get("skipped") for line in logged if '"loss"' in line] == [None] * 2 + [1] * 10


def test_a_leap_goes_back_and_skips_batches(troubled):
    assert "back to step 6, batches 6 to 9 are skipped" in troubled.err
    (event,) = [event for event in events_of(troubled.folder) if event["event"] == "rewind"]
    assert (event["step"], event["to"], event["skipped"]) == (8, 6, [6, 9])
    assert [(receipt.step, receipt.batch) for receipt in seen(troubled.folder)] == [
        *((step, step - 1) for step in range(1, 7)),
        *((step, step + 3) for step in range(7, 13)),
    ]


def test_after_a_stop_the_same_is_skipped_and_gone_back_to(troubled, text, capsys, monkeypatch):  # noqa: F811
    """The stop saves step 7, between a skip and a leap, which a run without a stop has not."""
    trouble(monkeypatch)
    with monkeypatch.context() as patch:
        terminate_at_step_six(patch)
        assert run(text, capsys, *BACK)[0] == 75
    code, resumed, err = run(text, capsys, *BACK)
    assert code == 0 and "back to step 6" in err
    assert resumed["state_digest"] == troubled.result["state_digest"]
    assert seen(text.parent) == seen(troubled.folder)


def test_too_many_in_a_row_end_the_run(text, capsys, monkeypatch):  # noqa: F811
    spoil(monkeypatch, range(4, 12), not_finite)
    code, _, err = run(text, capsys, "--guard.nonfinite", "skip", "--guard.limit", "3")
    assert code == 5 and "error: step 7: 3 updates in a row were not applied (guard.limit)" in err
    assert "the last good checkpoint is step 4" in err


def test_a_run_goes_back_so_often_and_no_more(text, capsys, monkeypatch):  # noqa: F811
    spoil(monkeypatch, {7, 11}, leaping)
    code, _, err = run(text, capsys, *BACK, "--guard.rewinds", "1")
    assert code == 5 and "the run went back 1 times (guard.rewinds)" in err
    assert [event["event"] for event in events_of(text.parent)][-2:] == ["stop", "error"]


def test_a_run_that_cannot_go_back_is_refused_before_anything_is_written(text, capsys):  # noqa: F811
    argv = ["gpt_stdlib", "--data.path", str(text), "--guard.spike", "6", "--guard.action", "rewind"]
    assert "guard.skip_batches=200 may end before the batch that leaped" in refusal(capsys, 2, argv)
    assert not (text.parent / "runs").exists()


# --- the audit ------------------------------------------------------------------------------------


def spread_state(mesh):
    """A parameter that every device has, and one of which each has a part."""
    whole = jax.device_put(jnp.arange(8.0), jax.sharding.NamedSharding(mesh, jax.P()))
    parts = jax.device_put(jnp.arange(16.0), jax.sharding.NamedSharding(mesh, jax.P("data")))
    return TrainState(jnp.int32(6), {"whole": whole, "parts": parts}, {}, None)


@jax.jit
def plain_step(state, batch):
    params = jax.tree.map(lambda x: x * 1.5 + batch, state.params)
    return TrainState(state.step + 1, params, {}, None), {"loss": params["whole"].sum()}


def corrupted(x, device):
    """The array with one bit of what this device holds flipped."""
    parts = []
    for shard in x.addressable_shards:
        data = np.array(shard.data)
        if shard.device.id == device:
            data.view(np.uint32)[1] ^= 1 << 7
        parts.append(jax.device_put(data, shard.device))
    return jax.make_array_from_single_device_arrays(x.shape, x.sharding, parts)


@eight_devices
def test_one_flipped_bit_of_one_replica_is_found_and_named():
    mesh, told = mesh_of((8, 1, 1)), []
    with jax.set_mesh(mesh):
        state = spread_state(mesh)
        again, _ = audited(plain_step, mesh, lambda *a, **facts: told.append(facts))(state, 1.0)
        jax.tree.map(np.testing.assert_array_equal, again, plain_step(state, 1.0)[0])
        assert not told
        bad = corrupted(state.params["whole"], device=3)
        state = dataclasses.replace(state, params=state.params | {"whole": bad})
        with pytest.raises(
            NumericsError, match=r"step 7: 0/params/whole on .*3 is not what the other devices"
        ):
            audited(plain_step, mesh, lambda *a, **facts: told.append(facts))(state, 1.0)
    assert told[0]["leaf"] == "0/params/whole" and "3" in told[0]["device"]


@eight_devices
@pytest.mark.parametrize("leaf", ["whole", "parts"])
def test_a_step_that_gives_other_bits_the_second_time_is_found_and_named(leaf):
    mesh, calls = mesh_of((8, 1, 1)), []

    def step(state, batch):
        state, numbers = plain_step(state, batch)
        calls.append(1)
        if len(calls) == 2:
            state = dataclasses.replace(
                state, params=state.params | {leaf: corrupted(state.params[leaf], device=5)}
            )
        return state, numbers

    with (
        jax.set_mesh(mesh),
        pytest.raises(
            NumericsError, match=f"0/params/{leaf} on .*5 is not the same when it is computed again"
        ),
    ):
        audited(step, mesh, lambda *a, **facts: None)(spread_state(mesh), 1.0)


@eight_devices
def test_an_audited_step_is_the_step():
    """Of a real one, over a mesh with parts and replicas: no alarm, the same bits, the state that went in
    given up."""
    parts, mesh = parts_of(GPTConfig, guard=SKIP, accumulate=2, average_decay=0.2), mesh_of((2, 2, 2))
    with jax.set_mesh(mesh):
        step, batch = compiled(parts, mesh), batch_of(0, mesh)
        expected, numbers = step(initial(parts, mesh), batch)
        state = initial(parts, mesh)
        found, same = audited(step, mesh, None)(state, batch)
    jax.tree.map(np.testing.assert_array_equal, (found, same), (expected, numbers))
    assert state.params["tokens"]["table"].is_deleted()
