"""Trains a recipe: `python train.py [RECIPE] [--field value ...]`, the same on a laptop and on a pod.

    python train.py                                             # a small GPT on the text of Python itself
    python train.py gpt_shakespeare_char --data.path input.txt
    python train.py gpt2 --data.path corpus/ --data.vocab-path gpt2/ --mesh.fsdp 8

The same command continues a run that was stopped; a run that is complete says so. Progress goes to
stderr, and the last line on stdout is one JSON object. README.md lists the exit codes.
"""

import contextlib
import dataclasses
import importlib.metadata
import os
import signal
import sys
import time
import traceback

import jax

from zoo import cli, data, models, optim, sharding, throughput, xla
from zoo.checkpoint import Checkpoints, state_digest
from zoo.errors import INTERNAL, PREEMPTED, ConfigError, NumericsError, UserError
from zoo.evaluation import Evaluation
from zoo.feed import training_batches
from zoo.inference.sample import write_sample
from zoo.metrics import MetricsLog, plot_loss, print_result, require
from zoo.pretrained import load_params
from zoo.progress import Progress
from zoo.recipes import CHOICES, CONFIGS
from zoo.run import RunFolder
from zoo.step import TrainStep


def main(argv: list[str]) -> int:
    """Runs what `argv` describes; returns the exit code."""
    try:
        return train(cli.parse(argv, CONFIGS, CHOICES))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception:
        traceback.print_exc()
        return INTERNAL


def train(recipe) -> int:
    """Everything before a device starts, where most mistakes show: libraries, text, folder; then the run."""
    started, stop = time.monotonic(), StopRequest()
    if recipe.plot:
        require("matplotlib", extra="plot")
    dataset = data.load(recipe.data, recipe.seed)
    recipe = complete(recipe, dataset)
    with RunFolder(recipe, dataset.digest) as run:
        result = run.read("result.json")
        if result is not None and result["step"] >= recipe.steps:
            again = "use another --name to train again"
            print(f"{run.path} is complete at step {result['step']}; {again}", file=sys.stderr)
        else:
            dataset.tokenizer.save(run.path / "tokenizer")
            result = train_in(run, recipe, dataset, stop)
            if result is None:
                return PREEMPTED
            result["seconds"] = round(time.monotonic() - started, 1)
            run.write("result.json", result)
        print_result(result)
    return 0


def train_in(run, recipe, dataset, stop) -> dict | None:
    """The run, phase by phase; returns its result, or None where it was asked to stop and has saved."""
    # Devices, model, step.
    flags = xla.apply()
    mesh = sharding.make_mesh(recipe.mesh)
    sharding.check_rows(recipe.data.batch_size // recipe.accumulate, mesh, "data.batch_size / accumulate")
    model = models.create(recipe.model)
    tx = optim.transform(recipe.optimizer, recipe.schedule, recipe.steps, model.abstract())
    parts = TrainStep(
        *(model, recipe.task, tx, recipe.seed, recipe.accumulate, recipe.clip_norm, recipe.average_decay)
    )
    specs, evaluate = parts.specs(), Evaluation(parts, dataset, mesh)
    settings = run.settings | {"versions": versions(), "mesh": dict(mesh.shape)}

    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(mesh))
        checkpoints = stack.enter_context(Checkpoints(run.path / "checkpoints", recipe.keep))
        log = stack.enter_context(MetricsLog(run.path, tensorboard=recipe.tensorboard))

        # State: what the newest checkpoint holds, or the parameters of --init, or random ones.
        state = checkpoints.restore(specs, mesh, note=lambda text: print(text, file=sys.stderr))
        start = 0 if state is None else int(state.step)
        if state is None:
            state = parts.init_on(mesh)
            if recipe.init:
                state = dataclasses.replace(state, params=load_params(recipe.init, model, mesh))
        log.truncate_after(start)
        reporter = Reporter(recipe, model, mesh, log, start)
        reporter.introduce(run, dataset, flags)

        # Steps. While the device works on one, the numbers of the one before are read.
        with reporter.bar:
            train_step = parts.compiled(mesh)
            for step, batch in enumerate(
                training_batches(dataset, recipe.task, mesh, start, recipe.steps), start + 1
            ):
                state, numbers = train_step(state, batch)
                reporter.report_late(step, numbers)
                last, leave = step == recipe.steps, stop.requested
                if last or leave or step % recipe.save_every == 0:
                    with reporter.caught_up():
                        checkpoints.save(state, specs, settings)
                        reporter.saved = step
                if step % recipe.eval_every == 0 and not last:
                    with reporter.caught_up():
                        reporter.evaluated(step, evaluate(state.best_params, recipe.eval_batches))
                if leave and not last:
                    checkpoints.wait()
                    reporter.bar.note(f"stopped at step {step}, which is saved; the same command continues")
                    return None

        # The end: the whole validation set beside two baselines, and a text.
        checkpoints.wait()
        result = {
            "recipe": recipe.name,
            "step": recipe.steps,
            "loss": reporter.last_loss,
            **reporter.evaluated(recipe.steps, evaluate(state.best_params)),
            **baselines(dataset),
            **reporter.speed.overall(),
            "seconds": None,
            "run": str(run.path),
            "state_digest": state_digest(state, specs),
        }
        write_sample(recipe, model, state.best_params, dataset.tokenizer, run.path)
    if recipe.plot:
        plot_loss(run.path, title=recipe.name)
    return result


def complete(recipe, dataset):
    """The recipe with what the data decides: the vocabulary's size."""
    size = dataset.tokenizer.vocab_size
    if recipe.model.vocab_size not in (0, size):
        raise ConfigError(
            f"model.vocab_size={recipe.model.vocab_size}, but the {dataset.tokenizer.name} tokenizer has "
            f"{size} words; give the model's own vocabulary, or model.vocab_size=0 to follow the tokenizer"
        )
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, vocab_size=size))


def baselines(dataset) -> dict[str, float]:
    """Bits per byte that a compressor and an order-3 model need for the same validation text."""
    from zoo.data.baselines import gzip_bits_per_byte, order3_bits_per_byte

    train, valid = dataset.train_bytes(), dataset.valid_bytes()
    if len(train) + len(valid) > 1 << 28:  # 256 MiB: counting would take minutes
        return {}
    return {
        "gzip_bits_per_byte": gzip_bits_per_byte(valid),
        "order3_bits_per_byte": order3_bits_per_byte(train, valid),
    }


class Reporter:
    """What a person and metrics.jsonl see, one step late: the device is at work while numbers are read."""

    def __init__(self, recipe, model, mesh, log, start):
        device = mesh.devices.flat[0]
        peak, self.peak_source = throughput.peak_flops(
            device.device_kind, device.platform, num_devices=mesh.size
        )
        self.speed = throughput.Throughput(
            recipe.data.batch_size * recipe.data.length,
            flops_per_token=recipe.model.flops_per_token(recipe.data.length).full,
            peak_flops=peak,
        )
        self.bar = Progress(recipe.steps, start=start)
        self.saved, self.last_loss = start, None
        self._recipe, self._model, self._mesh, self._log, self._pending = recipe, model, mesh, log, None
        self._rate = optim.learning_rate(recipe.optimizer, recipe.schedule, recipe.steps)

    def introduce(self, run, dataset, flags):
        """What is about to run, on what."""
        device = self._mesh.devices.flat[0]
        lines = {
            "run": f"{run.path}" + (f", continued at step {self.saved}" if self.saved else ""),
            "data": f"{dataset.corpus}, digest {dataset.digest[:12]}",
            "model": f"{type(self._recipe.model).__name__}, {self._model.num_params():,} parameters",
            "devices": f"{sharding.describe(self._mesh.shape)}, {device.device_kind}; {self.peak_source}",
            "XLA": " ".join(flags) or "no settings of ours",
        }
        for name, text in lines.items():
            self.bar.note(f"{name:8} {text}")

    def report_late(self, step, numbers):
        """Takes a step's numbers, still on the device, and reports the step before."""
        self._report()
        self._pending = (step, numbers)

    @contextlib.contextmanager
    def caught_up(self):
        """Everything so far is reported; the time spent inside counts as no training."""
        self._report()
        with self.speed.pause():
            yield

    def evaluated(self, step, metrics):
        """Records the metrics of an evaluation, and returns them."""
        self.bar.show(self._log.write(step, **metrics))
        return metrics

    def _report(self):
        if self._pending is None:
            return
        step, numbers = self._pending[0], jax.device_get(self._pending[1])
        self._pending = None
        if not numbers["finite"]:
            last = f"the last good checkpoint is step {self.saved}" if self.saved else "nothing was saved yet"
            raise NumericsError(
                f"step {step}: loss {numbers['loss']}, gradient norm {numbers['grad_norm']}: not finite, and "
                f"not applied; {last}; lower the learning rate, or look at that step's data"
            )
        self.speed.step()
        self.bar.advance(step)
        self.last_loss = float(numbers["loss"])
        if step % self._recipe.log_every == 0 or step == self._recipe.steps:
            record = {"loss": self.last_loss, "learning_rate": float(self._rate(step - 1))}
            record |= {"grad_norm": float(numbers["grad_norm"]), **self.speed.read()}
            self.bar.show(self._log.write(step, **record))


class StopRequest:
    """SIGTERM or SIGINT: the loop saves the step it is at and leaves; a second one leaves at once."""

    def __init__(self):
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)

    def _received(self, number, _):
        if self.requested:
            os._exit(128 + number)
        self.requested = True


def versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
