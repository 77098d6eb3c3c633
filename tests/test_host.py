"""What the host does while a device works: it never waits for the step that has just begun."""

import dataclasses

import jax
import pytest
from jax._src import array as arrays  # where every way to read an array ends: float(), np.asarray, device_get
from test_train import command, text_in

import train
from benchmarks.host import REQUIRED_TOKENS_PER_S, pipelines, tokens_per_s
from zoo.step import TrainStep


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return text_in(tmp_path)


def test_each_step_is_read_one_step_late_and_nothing_else_is_waited_for(text, monkeypatch, capsys):
    steps, ages = [], []
    compiled, value = TrainStep.compiled, arrays.ArrayImpl._value

    def counted(parts, *arguments):
        step = compiled(parts, *arguments)

        def run(state, batch):
            steps.append(step(state, batch))
            return steps[-1]

        return run

    def read(array):
        if 0 < len(steps) < 6:  # behind the last step a run has nothing to do but wait
            of_step = [any(array is x for x in jax.tree.leaves(made)) for made in reversed(steps)]
            ages.append(of_step.index(True) if any(of_step) else None)
        return value.fget(array)

    monkeypatch.setattr(TrainStep, "compiled", counted)
    monkeypatch.setattr(arrays.ArrayImpl, "_value", property(read))
    flags = {"--steps": "6", "--log-every": "1", "--eval-every": "9", "--save-every": "9"}
    changes = [each for flag in flags.items() for each in flag]
    assert train.main(command(text, *changes, "--sample-tokens", "0")) == 0
    capsys.readouterr()
    numbers = len(("loss", "grad_norm", "param_norm", "finite"))
    assert ages == [1] * numbers * 4  # of steps 1 to 4, while 2 to 5 run


@pytest.mark.parametrize("kind", ("text", "packed", "streams"))
def test_a_core_makes_batches_of_texts_faster_than_any_device_here_reads_them(text, kind):
    text.write_text("A line of a text whose rows are not so few that a shuffle turns in circles.\n" * 20_000)
    recipe = pipelines()[kind]
    cfg = dataclasses.replace(recipe.data, path=str(text), tokenizer="byte", vocab_size=0, batch_size=8)
    assert tokens_per_s(dataclasses.replace(recipe, data=cfg)) > REQUIRED_TOKENS_PER_S
