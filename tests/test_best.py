"""The best parameters and early stopping: the rule, and runs that are stopped, killed and continued."""

import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from test_train import refusal, run, text  # noqa: F401
from training import mesh_of

import train
import zoo
from zoo import metrics
from zoo.best import best_specs, judged, smaller_is_better, unknown_best, value_of
from zoo.checkpoint import Checkpoints
from zoo.digest import leaf_sums
from zoo.errors import ConfigError
from zoo.evaluation import Evaluation
from zoo.lettered import ParamSpec
from zoo.reporter import Reporter
from zoo.tree import named_leaves

# --- the rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["accuracy", "eval_loss"])
def test_the_first_of_the_best_values_wins_and_the_others_are_counted(metric):
    values = [0.5, np.nan, 0.7, 0.7, 0.2, 0.2, 0.6]
    best = unknown_best({"w": jnp.zeros(2)})
    for step, value in enumerate(values, 1):
        best = judged(best, {"w": jnp.full(2, 1.0 * step)}, value, jnp.int32(step), metric)
    expected = values.index(min(values) if metric == "eval_loss" else max(values)) + 1
    assert (int(best.step), int(best.waited), int(best.evaluated)) == (expected, 7 - expected, 7)
    assert best.params["w"].tolist() == [expected, expected]
    assert float(best.value) == np.float32(values[expected - 1])


def test_a_value_that_is_no_number_is_never_the_best():
    best = unknown_best({"w": jnp.zeros(2)})
    best = judged(best, {"w": jnp.ones(2)}, value_of("accuracy", {"accuracy": np.inf}), 1, "accuracy")
    assert (int(best.step), int(best.waited)) == (0, 1)
    assert int(judged(best, {"w": jnp.ones(2)}, 0.1, 2, "accuracy").step) == 2


def test_losses_fall_and_scores_rise():
    falling = {"eval_loss", "perplexity", "bits_per_byte", "word_error_rate"}
    rising = {"accuracy", "macro_f1", "matthews", "entity_f1", "bleu", "chrf", "spearman", "exact_match"}
    assert {name for name in falling | rising if smaller_is_better(name)} == falling


def test_an_unknown_metric_shows_the_nearest_and_one_without_value_is_none():
    found = {"eval_loss": 1.0, "accuracy": 0.5, "bits_per_byte": None}
    with pytest.raises(ConfigError, match="^best='acuracy' is no metric.*; did you mean 'accuracy'"):
        value_of("acuracy", found)
    with pytest.raises(ConfigError, match="it has eval_loss, accuracy$"):
        value_of("bits_per_byte", found)


def test_specs_have_the_shape_of_the_state():
    specs = best_specs({"w": ParamSpec("D", (2,), (2,), jnp.float32)})
    state = unknown_best({"w": jnp.zeros(2)})
    described = {name: (spec.shape, spec.dtype) for name, spec in named_leaves(specs).items()}
    assert described == {name: (x.shape, x.dtype) for name, x in named_leaves(state).items()}


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture
def luck(monkeypatch):
    """A metric that is a function of the parameters' bits and rises and falls with no pattern."""

    class Lucky(Evaluation):
        def __call__(self, params, batches=0):
            sums = leaf_sums(params, self._parts.model.abstract()).values()
            return super().__call__(params, batches) | {"luck": sum(map(sum, sums)) % 997}

    monkeypatch.setattr(train, "Evaluation", Lucky)


BEST = ("--best", "luck", "--eval-every", "2", "--save-every", "2", "--keep", "9", "--log-every", "5")


def test_a_run_ends_with_its_best_parameters_however_it_was_interrupted(text, capsys, monkeypatch, luck):  # noqa: F811
    """Stopped for want of patience, started again, given more patience; and stopped by a signal at step 6,
    before its evaluation, and by a failure at step 8 between evaluation and save: one digest, one best."""
    code, early, err = run(text, capsys, "--name", "one", *BEST, "--patience", "1")
    assert code == 0 and early["step"] < 12 and early["evaluations_since_best"] == 1
    assert f"best     step {early['best_step']}, luck" in err
    code, again, err = run(text, capsys, "--name", "one", *BEST, "--patience", "1")
    assert (code, again) == (0, early) and "it waited 1 evaluations for a better luck; raise patience" in err
    _, whole, _ = run(text, capsys, "--name", "one", *BEST)

    folder = text.parent / "runs" / "one"
    values = {r["step"]: r["luck"] for r in metrics.records(folder / "metrics.jsonl") if "luck" in r}
    steps = sorted(values)
    assert steps == [2, 4, 6, 8, 10, 12] and whole["step"] == 12
    assert whole["best_step"] == max(steps, key=values.get)
    assert early["step"] == next(s for s in steps[1:] if values[s] <= max(values[t] for t in steps if t < s))
    model, params, _ = zoo.from_pretrained(folder)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        assert checkpoints.steps() == steps
        saved, _ = checkpoints._restore(whole["best_step"], {"params": model.abstract()}, mesh_of())
    for name, leaf in named_leaves(saved["params"]).items():
        np.testing.assert_array_equal(named_leaves(params)[name], leaf, err_msg=name)

    write, evaluated = metrics.MetricsLog.write, Reporter.evaluated

    def terminated(log, step, **numbers):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)  # seen while step 6 is computed
        return write(log, step, **numbers)

    def fails(reporter, step, numbers):
        if evaluated(reporter, step, numbers) and step == 8:
            raise KeyboardInterrupt
        return numbers

    monkeypatch.setattr(metrics.MetricsLog, "write", terminated)
    assert run(text, capsys, "--name", "two", *BEST)[0] == 75
    monkeypatch.setattr(metrics.MetricsLog, "write", write)
    left = metrics.records(text.parent / "runs" / "two" / "metrics.jsonl")
    assert [record["step"] for record in left if "luck" in record] == [2, 4]
    monkeypatch.setattr(Reporter, "evaluated", fails)
    with pytest.raises(KeyboardInterrupt):
        run(text, capsys, "--name", "two", *BEST)
    monkeypatch.setattr(Reporter, "evaluated", evaluated)
    _, stopped, _ = run(text, capsys, "--name", "two", *BEST)
    timed = {"seconds", "tokens_per_s", "step_ms", "mfu", "run"}
    assert {k: stopped[k] for k in stopped.keys() - timed} == {k: whole[k] for k in whole.keys() - timed}


def test_a_run_that_starts_from_another_keeps_its_best_too(text, capsys, luck):  # noqa: F811
    assert run(text, capsys, "--name", "one", "--steps", "2")[0] == 0
    start = ("--init", str(text.parent / "runs" / "one"))
    code, found, err = run(text, capsys, "--name", "two", "--steps", "4", *BEST, *start)
    assert code == 0, err
    values = {
        r["step"]: r["luck"] for r in metrics.records(text.parent / "runs/two/metrics.jsonl") if "luck" in r
    }
    assert found["best_step"] == max(values, key=values.get)


def test_an_unknown_metric_is_refused_before_the_first_step(text, capsys):  # noqa: F811
    from test_train import command

    error = refusal(capsys, 2, command(text, "--best", "eval_lost"))
    assert "best='eval_lost' is no metric of this run; did you mean 'eval_loss'?" in error
    assert not list((text.parent / "runs" / "gpt_stdlib" / "checkpoints").iterdir())
    error = refusal(capsys, 2, command(text, "--patience", "2"))
    assert "patience=2 waits for a metric" in error
