"""What a person and metrics.jsonl see of a run, one step late: the device works while numbers are read."""

import contextlib
import math

import jax
import numpy as np

from zoo import cluster, events, host_memory, kernels, metrics, optim, sharding, throughput
from zoo.errors import NumericsError
from zoo.mesh import describe
from zoo.micro_batches import pipeline_of
from zoo.optim.finetune import without
from zoo.progress import Progress
from zoo.tree import named_leaves

TOLERATED = 0.02  # of the parameters' bytes, whole on every device where they are meant to be shared


class Reporter:
    """The progress bar, the metrics log and the speed of one run, from step `start` on."""

    def __init__(self, recipe, model, dataset, mesh, log, receipts, start):
        device = mesh.devices.flat[0]
        peak, self.peak_source = throughput.peak_flops(
            device.device_kind, device.platform, num_devices=mesh.size
        )
        self.speed = throughput.Throughput(
            dataset.tokens_per_step,
            flops_per_token=recipe.model.flops_per_token(recipe.data.length).full,
            peak_flops=peak,
        )
        self.bar = Progress(recipe.steps, start=start, stream=cluster.stderr())
        self.saved = start
        before = cluster.from_first(lambda: metrics.records(log.path))
        self.last_loss = next((r["loss"] for r in before if r["step"] == start and "loss" in r), None)
        self._evaluated = {record["step"] for record in before if "eval_loss" in record}
        self._recipe, self._model, self._mesh, self._log, self._pending = recipe, model, mesh, log, None
        self._receipts = receipts
        # Of all steps at once, before the first: one small program, and nothing to ask a busy device for.
        rate = optim.learning_rate(recipe.optimizer, recipe.schedule, recipe.steps)
        self._rates = np.asarray(jax.jit(jax.vmap(rate))(np.arange(recipe.steps)))

    def introduce(self, run, dataset, flags, frozen):
        """What is about to run, on what; `frozen` are the names of the parameters that stay."""
        device = self._mesh.devices.flat[0]
        trained = sum(spec.size for spec in jax.tree.leaves(without(self._model.abstract(), frozen)))
        part = f", {trained:,} of them trained" if frozen else ""
        mesh = describe(self._mesh.shape)
        mesh += f" of {jax.process_count()} processes" * cluster.is_several()
        lines = {
            "run": f"{run.path}" + (f", continued at step {self.saved}" if self.saved else ""),
            "data": dataset.describe(),
            "model": f"{type(self._recipe.model).__name__}, {self._model.num_params():,} parameters{part}",
            "devices": f"{mesh}, {device.device_kind}; {self.peak_source}",
            "XLA": " ".join(flags) or "no settings of ours",
        }
        if device.platform == "cpu" and (text := host_memory.keep()):
            lines["malloc"] = text
        if self._recipe.deterministic and device.platform != "gpu":
            lines["XLA"] += f"; a {device.platform.upper()} is deterministic without any"
        rows = self._recipe.data.batch_size // self._recipe.accumulate
        stages, parts = pipeline_of(rows, self._mesh)
        if stages > 1:
            idle = f"each stage idle for {bubble(stages, parts):.0%}"
            lines["pipeline"] = f"{stages} stages, {parts} micro-batches, {idle}"
        if text := unspread(self._model.abstract(), self._mesh):
            lines["memory"] = text
        for name, text in lines.items():
            self.bar.note(f"{name:8} {text}")

    def telling_kernels(self, step):
        """`step`, which says once, as it is compiled, which kernels compute attention, and why these."""
        told = set()

        def tell(chosen):
            if str(chosen) not in told:
                told.add(str(chosen))
                self.bar.note(f"attention {chosen}")

        def telling(*arguments):
            with kernels.noted(tell):
                return step(*arguments)

        return telling

    def report_late(self, receipt, numbers):
        """Takes a step's receipt and its numbers, still on the device, and reports the step before."""
        self._report()
        self._pending = (receipt, numbers)

    @contextlib.contextmanager
    def caught_up(self):
        """Everything so far is reported; the time spent inside counts as no training."""
        self._report()
        with self.speed.pause():
            yield

    def event(self, kind, step, text, **facts):
        """Something that a person should know of a step: a line of events.jsonl, and one above the bar."""
        events.write(kind, step=step, **facts)
        self.bar.note(f"{kind:8} step {step}: {text}")

    def went_back(self, step):
        """The run goes on from an earlier step: what was recorded of later ones is forgotten."""
        self._log.truncate_after(step)
        self._receipts.truncate_after(step)
        self._evaluated = {each for each in self._evaluated if each <= step}
        self.saved = step
        self.bar.advance(step)

    def evaluated(self, step, metrics):
        """Records the metrics of an evaluation, once, and returns them."""
        if step not in self._evaluated:
            self._evaluated.add(step)
            self._log.write(step, **metrics)
        self.bar.show({"step": step, **metrics})
        return metrics

    def owes_evaluation(self, step, best):
        """Whether an evaluation is due at `step` and has no record yet: a run may die between the two.

        Where the best parameters are kept, they are the record, and the last step is evaluated like others.
        """
        due = 0 < step < self._recipe.steps and step % self._recipe.eval_every == 0
        if best is None:
            return due and step not in self._evaluated
        return (due or step == self._recipe.steps) and int(best.evaluated) < step

    def _report(self):
        if self._pending is None:
            return
        receipt, numbers = self._pending[0], jax.device_get(self._pending[1])
        step, self._pending = receipt.step, None
        skipped = bool(numbers.get("skipped", not numbers["finite"]))
        self._receipts.write(receipt._replace(is_applied=not skipped))
        if skipped:
            self._refused(receipt, numbers)
        elif not math.isfinite(numbers["param_norm"]):
            self._overflowed(step, numbers)
        self.speed.step()
        self.bar.advance(step)
        self.last_loss = float(numbers["loss"])
        may_end = self._recipe.patience and step % self._recipe.eval_every == 0
        if step % self._recipe.log_every == 0 or step == self._recipe.steps or may_end:
            skips = int(numbers.get("all_skipped", 0))  # the optimizer counts updates
            record = {"loss": self.last_loss, "learning_rate": float(self._rates[step - 1 - skips])}
            record |= {"grad_norm": float(numbers["grad_norm"]), **self.speed.read()}
            record |= {name: float(value) for name, value in numbers["gauges"].items()}
            record |= {"skipped": skips} if skips else {}
            self.bar.show(self._log.write(step, **record))

    def _last_good(self):
        return f"the last good checkpoint is step {self.saved}" if self.saved else "nothing was saved yet"

    def _overflowed(self, step, numbers):
        """Finite gradients have led to parameters that are not: the end of the run, which stores nothing."""
        what = f"{wrong_numbers(numbers)}: the update of a finite gradient overflowed"
        self.event("stop", step, what, loss=numbers["loss"])
        raise NumericsError(f"step {step}: {what}; {self._last_good()}; lower the learning rate")

    def _refused(self, receipt, numbers):
        """An update was not applied: an event, or the end of the run."""
        guard, step = self._recipe.guard, receipt.step
        last = self._last_good()
        why = "not finite" if not numbers["finite"] else f"a leap of more than {guard.spike:g} deviations"
        what = f"{wrong_numbers(numbers)}: {why}, so the update was not applied"
        ends = not numbers["finite"] and guard.nonfinite == "stop"
        facts = {"batch": receipt.batch, "digest": receipt.digest, "finite": bool(numbers["finite"])}
        facts |= metrics.finite({"loss": numbers["loss"], "in_a_row": numbers.get("in_a_row", 1)})
        self.event("stop" if ends else "skip", step, what, **facts)
        if ends:
            raise NumericsError(
                f"step {step}: {what}; {last}; lower the learning rate, look at that step's data with "
                f"`python -m zoo data --step {step}`, or set guard.nonfinite to skip in a new run"
            )
        if numbers["in_a_row"] >= guard.limit:
            raise NumericsError(
                f"step {step}: {guard.limit} updates in a row were not applied (guard.limit), this one for a "
                f"{wrong_numbers(numbers)}; {last}; lower the learning rate, or look at the data"
            )


def wrong_numbers(numbers) -> str:
    """Which numbers of a step are not finite; the loss where all are."""
    names = {"loss": "loss", "grad_norm": "gradient norm", "param_norm": "norm of the new parameters"}
    bad = {name: text for name, text in names.items() if not math.isfinite(numbers[name])}
    if not bad and not numbers["finite"]:
        return "what the rows remember"
    return ", ".join(f"{text} {numbers[name]:.5g}" for name, text in (bad or {"loss": "loss"}).items())


def bubble(stages: int, parts: int) -> float:
    """The share of a step for which a stage of a pipeline has nothing to do (zoo/models/stack.py)."""
    return (stages - 1) / (parts + stages - 1)


def unspread(specs, mesh) -> str:
    """What lies whole on every device of a mesh that is meant to share parameters, if that is more than
    TOLERATED of their bytes; empty where it is not."""
    if all(mesh.shape[axis] == 1 for axis in ("pipeline", "fsdp", "expert", "tensor")):
        return ""
    sizes, whole = {}, {}
    placed = named_leaves(sharding.shardings(specs, mesh))
    for name, spec in named_leaves(specs).items():
        sizes[name] = math.prod(spec.shape) * spec.dtype.itemsize
        if placed[name].is_fully_replicated:
            whole[name] = sizes[name]
    share = sum(whole.values()) / sum(sizes.values())
    if share <= TOLERATED:
        return ""
    largest = ", ".join(sorted(whole, key=whole.get, reverse=True)[:3])
    remedy = "" if mesh.shape["fsdp"] > 1 else ", --mesh.fsdp would"
    return (
        f"{share:.1%} of the parameters lie whole on every device: {largest}; no axis of this mesh takes "
        f"them{remedy}"
    )
