"""Trains a recipe: `python train.py [RECIPE] [--field value ...]`, the same on a laptop and on a pod.

    python train.py                                             # a small GPT on the text of Python itself
    python train.py gpt_shakespeare_char --data.path input.txt
    python train.py gpt2 --data.path corpus/ --data.vocab-path gpt2/ --mesh.fsdp 8
    python train.py gpt2 --mesh.fsdp 8 --plan v5e:2x4           # compiles it for a pod, trains nothing

The same command continues a run that was stopped; a run that is complete says so. Progress goes to
stderr, and the last line on stdout is one JSON object. README.md lists the exit codes.
"""

import contextlib
import logging
import sys
import time
import traceback
from typing import NoReturn

import jax

from zoo import cli, cluster, data, ending, events, faults, fits, host_memory, joining, models, plan, xla
from zoo.assembly import complete, step_of
from zoo.audit import audited
from zoo.beginning import first_state
from zoo.best import kept, out_of_patience, value_of
from zoo.checkpoint import Checkpoints
from zoo.digest import state_digest
from zoo.errors import (
    INTERNAL,
    LOST,
    PREEMPTED,
    CheckpointError,
    ConfigError,
    UserError,
    first_line,
    storage_errors,
)
from zoo.evaluation import Abandoned, Evaluation
from zoo.feed import Feed
from zoo.inference.sample import write_sample
from zoo.mesh import make_mesh
from zoo.metrics import MetricsLog, plot_loss, print_result, require
from zoo.pretrained.start import completed
from zoo.pretrained.teacher import load_teacher
from zoo.receipts import Receipt, Receipts
from zoo.recipes import CHOICES, CONFIGS
from zoo.reporter import Reporter
from zoo.rewind import gone_back
from zoo.run import RunFolder
from zoo.signals import StopRequest
from zoo.watchdog import Watchdog

DEFAULT = "gpt_stdlib"


def program(argv: list[str]) -> NoReturn:
    """What the command line is: as `main`, and nothing keeps the process from ending with its code."""
    ending.arm()
    ending.die(main(argv))


def main(argv: list[str]) -> int:
    """Runs what `argv` describes; returns the exit code."""
    code = guarded(argv)
    cluster.leave(code)
    return code


def guarded(argv: list[str]) -> int:
    """The exit code of what `argv` describes; a line on stderr for what a person can mend."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("zoo").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # a failed save reaches us as an error, in one line
    try:
        faults.arm()
        request, argv = plan.requested(argv)
        name = argv[0] if argv and not argv[0].startswith("-") else DEFAULT
        recipe = cli.parse(argv, CONFIGS, CHOICES, default=DEFAULT, beside=[plan.HELP])
        if request:
            from zoo.plan.planner import run

            return run(request, recipe)
        with StopRequest() as stop:
            try:
                return train(name, recipe, stop)
            except SystemExit as error:  # whose code may be that of a success
                raise RuntimeError(f"sys.exit({error.code}) in the midst of a run") from error
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, SystemExit):  # --help
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if cluster.is_lost(error):
            print(f"error: another process is gone ({first_line(error)}); start all again", file=sys.stderr)
            return LOST
        if "RESOURCE_EXHAUSTED: Out of memory" in str(error):
            remedy = "lower data.batch_size, raise accumulate, or set model.remat to full"
            print(f"error: the devices have too little memory for this run; {remedy}", file=sys.stderr)
            return ConfigError.exit_code
        traceback.print_exc()
        return INTERNAL


def train(name: str, recipe, stop: StopRequest) -> int:
    """Everything before a device starts, where most mistakes show: libraries, text, folder; then the run."""
    started = time.monotonic()
    # This and the next before a published folder's shapes are asked for: that starts JAX.
    flags = xla.apply(deterministic=recipe.deterministic)
    if xla.likely_platform() == "cpu":
        host_memory.keep()
    joining.join(recipe.cluster)
    faults.reach("start", 0)
    if recipe.plot:
        require("matplotlib", extra="plot")
    for module, extra in getattr(recipe.task, "needs", ()):
        require(module, extra=extra)
    recipe = completed(recipe, CONFIGS[name])
    dataset = data.load(recipe.data, recipe.seed)
    recipe = complete(recipe, dataset)
    mesh = checked_mesh(recipe)
    with RunFolder(recipe, dataset.digest, name) as run, events.of_run(run.path):
        result = run.ending()
        if result is not None:
            again = "use another --name to train again"
            if result["step"] < recipe.steps:
                again = f"it waited {recipe.patience} evaluations for a better {recipe.best}; raise patience"
            print(f"{run.path} is complete at step {result['step']}; {again}", file=sys.stderr)
        else:
            cluster.from_first(lambda: saved_data(run, dataset))
            result = train_in(run, recipe, dataset, mesh, stop, flags)
            if result is None:
                return PREEMPTED
            result["seconds"] = round(time.monotonic() - started, 1)
            faults.reach("end", result["step"])
            run.write("result.json", result)
        if cluster.is_first():
            print_result(result)
    return 0


def checked_mesh(recipe):
    """The devices, over which the recipe's rows and model can be spread: ConfigError before anything is
    written."""
    mesh = make_mesh(recipe.mesh)
    fits.check_rows(recipe, mesh.shape)
    fits.check_axes(models.create(recipe.model), getattr(recipe.data, "length", 0), mesh)
    return mesh


def train_in(run, recipe, dataset, mesh, stop, flags) -> dict | None:
    """The run, phase by phase; returns its result, or None where it was asked to stop and has saved."""
    # Model, step.
    teacher = teacher_params = None
    if recipe.distill.teacher:
        teacher, teacher_params = load_teacher(recipe.distill.teacher, recipe, mesh, dataset)
    parts = step_of(recipe, dataset, teacher)
    model, frozen = parts.model, parts.frozen
    specs, guard, first = parts.specs(), recipe.guard, cluster.is_first()
    settings = run.settings | {"mesh": dict(mesh.shape)}

    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(mesh))
        watchdog = stack.enter_context(Watchdog(recipe.stall_seconds))
        checkpoints = stack.enter_context(Checkpoints(run.path / "checkpoints", recipe.keep))
        log = stack.enter_context(MetricsLog(run.path, tensorboard=recipe.tensorboard, writes=first))
        receipts = stack.enter_context(Receipts(run.path, writes=first))

        checkpoints.require_room(specs)
        faults.reach("restore", 0)

        def restore():
            """What the newest checkpoint holds, or what a run begins with."""
            state = checkpoints.restore(specs, mesh, note=fallen_back, places=parts.places(mesh))
            return first_state(recipe, parts, mesh, dataset) if state is None else state

        state = restore()
        start = int(state.step)
        if start > recipe.steps:
            raise CheckpointError(f"{run.path} is at step {start} already, beyond steps={recipe.steps}")
        log.truncate_after(start)
        receipts.truncate_after(start)
        reporter = Reporter(recipe, model, dataset, mesh, log, receipts, start)
        reporter.introduce(run, dataset, flags, frozen)

        def goes_on():
            """For an evaluation: it does, unless a signal asks for the current step to be saved first."""
            watchdog.beat()
            return not stop.abandons()

        evaluate, judge = Evaluation(parts, dataset, mesh, goes_on), parts.judge(mesh)
        if recipe.best and not start:  # a metric that is none shows before the first step
            value_of(recipe.best, evaluate(state.evaluated_params, 1))

        def look(state):
            """An evaluation on the way. Where it is broken off, the next start makes up for it."""
            faults.reach("evaluate", int(state.step))
            with watchdog.slow(), contextlib.suppress(Abandoned):
                metrics = evaluate(state.evaluated_params, recipe.eval_batches)
                host_memory.settle("evaluation")
                return judge(state, reporter.evaluated(int(state.step), metrics))
            return state

        # Steps. While the device works on one, the numbers of the one before are read.
        with reporter.bar:
            if reporter.owes_evaluation(start, state.best):
                state = look(state)
            end = start if out_of_patience(recipe, state) else recipe.steps
            train_step = reporter.telling_kernels(parts.compiled(mesh, teacher_params))
            audit = audited(train_step, mesh, reporter.event)
            feed = Feed(dataset, recipe.task, mesh, start, end, state.offset)
            faults.reach("compile", start + 1)
            for step, batch, digest in feed:
                checkpoints.poll()
                state, numbers = (audit if guard.audits(step) else train_step)(state, batch)
                stop.unsaved = True
                host_memory.settle("step")
                faults.reach("step", step)
                if guard.may_rewind and numbers["spike"]:
                    with watchdog.slow():
                        state = gone_back(recipe, state, numbers, checkpoints, restore, reporter)
                    feed.move(int(state.step), state.offset)
                    continue
                reporter.report_late(Receipt(step, digest, feed.offset), numbers)
                watchdog.step(step)
                last, leave = step == end, stop.is_due(step)
                if reporter.owes_evaluation(step, state.best) and (last or not leave):
                    with reporter.caught_up():
                        state = look(state)
                        last |= out_of_patience(recipe, state)
                    leave |= stop.abandons()
                if last or leave or step % recipe.save_every == 0:
                    with reporter.caught_up(), watchdog.slow():
                        checkpoints.save(state, specs, settings)
                        reporter.saved = step
                if leave:
                    with watchdog.slow():
                        checkpoints.wait()
                    events.write("preempted", step=step)
                    reporter.bar.note(f"stopped at step {step}, which is saved; the same command continues")
                    return None
                if last:
                    break

        # The end: the whole validation set beside what a simpler method makes of it, and a text.
        stack.enter_context(watchdog.slow())
        checkpoints.wait()
        stop.all_saved()
        if stop.abandons():
            return None
        faults.reach("evaluate", int(state.step))
        result = {
            "recipe": run.settings["recipe_name"],
            "step": int(state.step),
            "loss": reporter.last_loss,
            **(kept(recipe, state, reporter) if recipe.best else {}),
            **reporter.evaluated(int(state.step), evaluate(state.final_params)),
            **dataset.baselines(),
            **reporter.speed.overall(),
            "seconds": None,
            "run": str(run.path),
            "state_digest": state_digest(state, specs),
        }
        if "causal" in model.traits and "pair" not in model.traits and not cluster.is_several():
            write_sample(recipe, model, state.final_params, dataset, run.path)
    if recipe.plot and first:
        plot_loss(run.path, title=recipe.name)
    return result


def fallen_back(text: str) -> None:
    """Says that a checkpoint was passed over."""
    print(text, file=cluster.stderr())
    events.write("fall-back", text=text)


def saved_data(run, dataset) -> None:
    """What turns text into tokens, in the run's folder."""
    with storage_errors(run.path):
        dataset.save(run.path)


if __name__ == "__main__":
    program(sys.argv[1:])
