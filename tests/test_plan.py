"""The planner: its step, closed forms beside compiled programs, and what it refuses.

Programs are compiled for the eight virtual CPU devices. Tests that need the TPU's compiler are marked `plan`
and are skipped where the extra of that name is not installed.
"""

import dataclasses
import importlib.util
import json
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from training import eight_devices, mesh_of

import train
from zoo import assembly, data, optim
from zoo.errors import ConfigError
from zoo.feed import training_batches
from zoo.fits import check_rows
from zoo.models.gpt import GPTConfig
from zoo.plan import Request, expected, planner, requested
from zoo.plan.abstract import abstract_data, bytes_per_device, placed_batch, placed_state
from zoo.plan.apart import Crashed
from zoo.plan.chips import CHIPS, GiB
from zoo.plan.collectives import Collective, collectives_of
from zoo.plan.gpus import cluster
from zoo.plan.matmuls import matmul_flops, update_flops
from zoo.plan.planner import asked_for
from zoo.plan.program import read_program
from zoo.plan.remedies import changes, needed_on, smallest_change
from zoo.plan.roofline import Roofline, roofline
from zoo.plan.topology import TOPOLOGIES, Slice, check_topology
from zoo.plan.wires import wire_bytes
from zoo.recipes import CONFIGS
from zoo.tasks import MaskedPairs

ROOT = Path(__file__).parents[1]


def step_on(mesh, **changes):
    """(parts, recipe, state, batch) of a tiny float32 GPT on the eight CPU devices."""
    model = GPTConfig(vocab_size=256, max_length=32, num_layers=2, num_heads=8, d_model=64, dropout_rate=0.0)
    rows = {"tokenizer": "byte", "vocab_size": 0, "length": 32, "batch_size": 16}
    recipe = dataclasses.replace(
        CONFIGS["gpt_stdlib"],
        model=dataclasses.replace(model, **changes),
        data=dataclasses.replace(CONFIGS["gpt_stdlib"].data, **rows),
    )
    given = abstract_data(recipe)
    parts = assembly.step_of(recipe, given)
    state, batch = placed_state(parts, mesh), placed_batch(parts.task, given, mesh)
    return parts, recipe, state, batch


def memory_on(mesh, parts, recipe, state, batch):
    held = expected.held(parts, recipe.model, state, batch, mesh, math.prod)
    return expected.memory(parts, recipe.model, batch, mesh, held)


def compiled_on(mesh, parts, state, batch):
    with jax.set_mesh(mesh):
        return parts.compiled(mesh).lower(state, batch).compile()


def test_what_the_optimizer_multiplies_is_told_apart():
    """Of Muon's step all matmuls that AdamW's has not; losses have branches too, and are none of it."""
    mesh = mesh_of()
    found = []
    for optimizer in (optim.Muon(), optim.AdamW()):
        _, recipe, _, batch = step_on(mesh)
        parts = assembly.step_of(dataclasses.replace(recipe, optimizer=optimizer), abstract_data(recipe))
        program = read_program(compiled_on(mesh, parts, placed_state(parts, mesh), batch).as_text())
        found.append((matmul_flops(program), update_flops(program)))
    (muon, of_update), (adamw, none) = found
    assert none == 0
    assert of_update == pytest.approx(muon - adamw) and of_update > 0.1 * adamw


@eight_devices
def test_the_planned_step_is_the_one_that_trains(tmp_path):
    """The same program from shapes as from a run's first state and a batch of its data."""
    mesh = mesh_of((2, 4, 1))
    recipe = dataclasses.replace(step_on(mesh)[1], data=text_in(tmp_path, "gpt_stdlib"))
    dataset = data.load(recipe.data, recipe.seed)
    parts, given = assembly.step_of(recipe, dataset), abstract_data(recipe)
    with jax.set_mesh(mesh):
        batch = next(training_batches(dataset, recipe.task, mesh, 0, 1))
        trained = parts.compiled(mesh).lower(parts.init_on(mesh), batch).as_text()
        parts = assembly.step_of(recipe, given)
        planned = parts.compiled(mesh).lower(placed_state(parts, mesh), placed_batch(parts.task, given, mesh))
    assert planned.as_text() == trained


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gpt_stdlib", {"layout": "packed"}),
        ("lstm_stdlib", {"layout": "streams"}),
        ("bilm_stdlib", {}),
        ("bert_stdlib", {}),
        ("bert_stdlib", {"pairs": "next_sentence", "layout": "padded"}),
    ],
    ids=str,
)
def test_batches_without_data_have_the_shapes_of_those_with(name, changes, tmp_path):
    cfg = text_in(tmp_path, name, **changes)
    task = MaskedPairs() if "pairs" in changes else CONFIGS[name].task
    recipe = types.SimpleNamespace(data=cfg, distill=CONFIGS[name].distill, model=CONFIGS[name].model)
    real, given = data.load(cfg, 0), abstract_data(recipe)
    shapes = [
        jax.tree.map(lambda x: (x.shape, x.dtype), task.batch(examples))
        for examples in (real.batch(0, range(cfg.batch_size)), given.examples())
    ]
    assert shapes[0] == shapes[1]
    assert given.carried_rows == real.carried_rows
    assert name == "bilm_stdlib" or given.sizes == real.sizes  # words: as many as the text has, at most


def text_in(folder, name, **changes):
    """A recipe's data, of a small text in rows of 32."""
    words = ("the", "a", "cat", "mat", "dog", "sat", "ran", "on", "under", "house")
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(words, 9)) + "." for _ in range(400)]
    folder = folder / "corpus"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.txt").write_text("\n".join(lines[number::10]))
    known = {"path": str(folder), "length": 32, "batch_size": 16, "valid_fraction": 0.2}
    known |= (
        {"tokenizer": "byte", "vocab_size": 0}
        if name in ("gpt_stdlib", "lstm_stdlib")
        else {"vocab_size": 44}
    )
    return dataclasses.replace(CONFIGS[name].data, **known | changes)


@eight_devices
def test_the_closed_form_of_data_parallelism_is_what_the_program_sends():
    mesh = mesh_of((8, 1, 1))
    parts, recipe, state, batch = step_on(mesh)
    program = read_program(compiled_on(mesh, parts, state, batch).as_text())
    sent = sum(c.wire_bytes for c in collectives_of(program, dict(mesh.shape)))
    closed = wire_bytes(parts, recipe.model, batch, mesh)["data"]
    assert sent == pytest.approx(closed, rel=0.001)


@eight_devices
def test_closed_form_arguments_are_the_compilers_where_nothing_is_tiled():
    mesh = mesh_of((2, 4, 1))
    parts, _, state, batch = step_on(mesh)
    used = compiled_on(mesh, parts, state, batch).memory_analysis()
    assert bytes_per_device((state, batch), numbers=math.prod) == used.argument_size_in_bytes


@eight_devices
def test_recomputing_keeps_less_and_micro_batches_need_less_at_a_time():
    mesh = mesh_of((8, 1, 1))
    sizes = {}
    for remat in ("none", "full"):
        sizes[remat] = memory_on(mesh, *step_on(mesh, remat=remat, num_layers=8, max_length=64)).temporary
    assert sizes["full"] < 0.7 * sizes["none"]


@eight_devices
def test_parameters_that_are_frozen_send_no_gradients():
    mesh, (_, recipe, _, _) = mesh_of((8, 1, 1)), step_on(mesh_of((8, 1, 1)))
    given = abstract_data(recipe)
    sizes = {}
    for freeze in ("", "blocks/*"):
        finetune = dataclasses.replace(recipe.finetune, freeze=(freeze,) if freeze else ())
        parts = assembly.step_of(dataclasses.replace(recipe, finetune=finetune), given)
        batch = placed_batch(parts.task, given, mesh)
        sizes[freeze] = wire_bytes(parts, recipe.model, batch, mesh)["data"]
    blocks = parts.model.abstract()["blocks"]
    held = sum(spec.size for spec in jax.tree.leaves(blocks)) * 4
    assert sizes[""] - sizes["blocks/*"] == pytest.approx(2 * 7 / 8 * held)


def test_a_roofline_adds_what_the_step_waits_for_and_overlaps_the_rest():
    chip = CHIPS["v5e"]
    waits = Collective("all-gather", ("fsdp",), 8, 1.0, "bf16", (8,), 8 * 90e9 / 7, overlapped=False)
    found = roofline(197e12, 819e9 / 2, [waits], chip, {"fsdp": 90e9})
    assert found == Roofline(compute_s=1.0, memory_s=0.5, waiting_s=pytest.approx(1.0), overlapped_s=0.0)
    assert found.best_s == pytest.approx(2.0)
    assert found.worst_s == pytest.approx(1.25 + 0.5 + 1.0)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("v5e:3x3", "no such slice of v5e; there are v5e:2x2, v5e:2x4"),
        ("v5e:2x5x1", "no such slice of v5e"),
        ("v5e", "no such slice of v5e; there are v5e:2x2, v5e:2x4"),
        ("v5e-2x4", "did you mean 'v5e:2x4'?"),
        ("h200", "no such topology"),
    ],
)
def test_a_topology_that_does_not_exist_is_one_line(name, says):
    with pytest.raises(ConfigError) as caught:
        check_topology(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_topology_is_of_a_chip_that_is_known():
    for name in TOPOLOGIES:
        check_topology(name)
        assert name.partition(":")[0] in CHIPS
    assert {Slice(name).count for name in TOPOLOGIES if name.startswith("v5p")} >= {4, 64, 256}
    assert max(Slice(name).count for name in TOPOLOGIES if name.startswith("v5e")) == 256


def laid(*shape, **axes):
    """A mesh of chips at the places of a torus of this shape, in their order."""
    places = [types.SimpleNamespace(coords=coords) for coords in np.ndindex(*shape)]
    devices = np.array(places, object).reshape(tuple(axes.values()))
    return types.SimpleNamespace(devices=devices, axis_names=tuple(axes))


@pytest.mark.parametrize(
    ("name", "mesh", "links"),
    [
        ("v5p:4x4x4", laid(4, 4, 4, fsdp=64), {"fsdp": 6}),  # three closed rings, both ways round
        ("v5p:4x4x4", laid(4, 4, 4, data=4, fsdp=16), {"data": 2, "fsdp": 4}),
        ("v5p:4x4x4", laid(4, 4, 4, data=8, fsdp=8), {"data": 3, "fsdp": 3}),  # a ring, and a half of one
        ("v5e:2x4", laid(2, 4, data=2, fsdp=4), {"data": 1, "fsdp": 1}),  # too short to be closed
        ("v5e:16x16", laid(16, 16, data=16, fsdp=16), {"data": 2, "fsdp": 2}),
        ("v5e:2x4", laid(2, 4, data=8, fsdp=1), {"data": 2, "fsdp": 1}),
    ],
)
def test_an_axis_sends_over_the_links_of_each_dimension_that_it_runs_along(name, mesh, links):
    place = Slice(name)
    assert place.bandwidths(mesh) == {axis: n * place.chip.link_bandwidth for axis, n in links.items()}


def test_the_command_line_gives_up_its_plan_and_keeps_the_rest():
    line = "gpt2 --plan v5e:2x4 --mesh.fsdp 8 --price=1.2"
    assert requested(line.split()) == (Request("v5e:2x4", 1.2), ["gpt2", "--mesh.fsdp", "8"])
    assert requested(["gpt2"]) == (None, ["gpt2"])


def test_help_names_the_flags_that_are_no_fields(capsys):
    with pytest.raises(SystemExit):
        train.main(["gpt2", "--help"])
    assert "--plan TOPOLOGY" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("gpt2 --plan", "--plan: needs a value"),
        ("gpt2 --plan --price 1", "--plan: needs a value"),
        ("gpt2 --price 1", "give --plan TOPOLOGY too"),
        ("gpt2 --plan v5e:2x4 --price cheap", "--price=cheap"),
        ("gpt2 --plan v5e:2x4 --price -1", "--price=-1"),
        ("gpt2 --plan v5e:2x4 --plan v5e:2x2", "given twice"),
        ("gpt2 --plan v5e:9x9", "no such slice"),
        ("gpt2 --plan v5e:2x4 --mesh.fsdp 3", "does not fit 8 devices"),
        ("gpt2_xl --plan v5p:4x4x4 --mesh.fsdp 64", "give --data.batch-size 512 --accumulate 1"),
        ("lstm_ptb_large --plan v5e:2x2", "say it, as in --model.vocab-size 10000"),
        ("slot_snips --plan v5e:2x2", "text, masked and dialogues are planned"),
        ("gpt2 --plan v5e:2x4 --distill.teacher runs/x", "leave distill.teacher out"),
        ("gpt2 --plan v5e:2x4 --modle.remat full", "no such field"),
        ("gpt2 --plan auto", "as in --plan auto:v5e:2x4"),
        ("gpt2 --plan auto:v5e:9x9", "no such slice"),
        ("gpt2 --plan auto:v5e:2x4 --mesh.fsdp 3", "does not fit 8 devices"),
    ],
)
def test_what_cannot_be_planned_is_one_line_and_exit_code_2(line, says, capsys):
    assert train.main(line.split()) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not told.out


def test_without_the_compiler_the_extra_is_named_and_nothing_is_set(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "libtpu.so"))
    assert train.main(["gpt2", "--plan", "v5e:2x4"]) == 2
    assert capsys.readouterr().err.strip().endswith('pip install -e ".[plan]"')
    assert os.environ.get("ALLOW_MULTIPLE_LIBTPU_LOAD") is None


def test_rows_that_do_not_divide_name_numbers_that_do():
    recipe = CONFIGS["gpt2_xl"]  # 480 rows in 40 parts
    with pytest.raises(ConfigError, match="give --data.batch-size 512 --accumulate 1"):
        check_rows(recipe, {"data": 1, "fsdp": 64, "tensor": 1})
    check_rows(recipe, {"data": 1, "fsdp": 4, "tensor": 3})


@eight_devices
def test_the_smallest_change_that_fits_is_named():
    mesh = mesh_of((8, 1, 1))
    parts, recipe, state, batch = step_on(mesh, num_layers=8)
    data = abstract_data(recipe)
    needed, place = memory_on(mesh, parts, recipe, state, batch).total, cluster("h100:8x1")
    enough = (
        1.01 * place.chip.hbm_bytes / needed
    )  # as if the compiler asked for a hundredth more than there is
    little = smallest_change(recipe, data, place, mesh, scale=enough)
    assert little.startswith("--model.remat dots should")
    nothing = smallest_change(recipe, data, place, mesh, scale=1e12)
    assert "nor would a larger one of its kind with 16 rows" in nothing


@eight_devices
def test_where_no_change_fits_the_next_larger_place_that_holds_it_is_named():
    """As if a chip had less than the least that eight need, and more than the least of sixteen."""
    mesh = mesh_of((1, 8, 1))
    parts, recipe, state, batch = step_on(mesh, num_layers=8)
    data, place = abstract_data(recipe), cluster("h100:8x1")

    def least(devices):
        wide = dict(mesh.shape) | {"fsdp": devices}
        kept = [(recipe, wide), *((changed, sizes) for _, changed, sizes in changes(recipe, wide))]
        return min(needed_on(changed, data, place, sizes) for changed, sizes in kept)

    assert least(16) < least(8)
    scale = place.chip.hbm_bytes / ((least(8) + least(16)) / 2)  # between the two
    said = smallest_change(recipe, data, place, mesh, scale=scale)
    assert "h100:8x2 should, with --mesh.fsdp 16" in said
    cut = dataclasses.replace(recipe, accumulate=2)  # 16 rows over 16 devices are one part
    said = smallest_change(cut, data, place, mesh, scale=scale)
    assert "h100:8x2 should, with --mesh.fsdp 16" in said and "--accumulate 1 (" in said


def test_what_the_compiler_says_of_too_large_programs_is_read():
    assert asked_for("Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.") == 20.5 * GiB
    assert asked_for("memory required for HLO temporaries (400.00G) exceeds available") == 400 * GiB
    assert asked_for("something else") is None


@eight_devices
def test_a_step_that_the_compiler_cannot_do_is_one_line(monkeypatch):
    """Whether it says so or ends by a signal."""

    def failing(_):
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure (mask_aggregator.cc:271)\n\nand more")

    mesh = mesh_of((8, 1, 1))
    _, recipe, *_ = step_on(mesh)
    place = types.SimpleNamespace(chip=CHIPS["v5e"], mesh=lambda _: mesh, numbers=math.prod)
    monkeypatch.setattr(jax.stages.Lowered, "compile", failing)
    monkeypatch.setattr(planner, "apart", lambda work: work())
    with pytest.raises(Crashed) as error:
        planner.compiled_apart(Request("v5e:2x4"), recipe, abstract_data(recipe), place)
    said = str(error.value)
    assert (
        "RET_CHECK failure (mask_aggregator.cc:271)), a defect of its own; try" in said and "\n" not in said
    )


# --- with the TPU's compiler ----------------------------------------------------------------------

LIBRARY = os.environ.get("TPU_LIBRARY_PATH", "")
has_libtpu = bool(importlib.util.find_spec("libtpu")) or Path(LIBRARY).is_file()


def with_compiler(test):
    reason = 'needs the TPU compiler: pip install -e ".[plan]"'
    return pytest.mark.plan(pytest.mark.skipif(not has_libtpu, reason=reason)(test))


def run(line: str, folder):
    environment = {key: value for key, value in os.environ.items() if key != "JAX_NUM_CPU_DEVICES"}
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *line.split()],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert not any(folder.iterdir())  # a plan leaves nothing behind
    return done


def planned(line: str, folder) -> dict:
    """What a plan's last line says."""
    done = run(line, folder)
    assert done.returncode == 0, done.stderr
    assert "predicted" in done.stdout.splitlines()[0]
    return json.loads(done.stdout.splitlines()[-1])


@with_compiler
def test_a_step_with_one_expert_a_chip_is_compiled(tmp_path):
    sizes = (
        "--model.num-layers 1 --model.vocab-size 512 --data.length 64 --model.d-model 64 --model.num-heads 2"
    )
    found = planned(f"moe_stdlib {sizes} --model.num-kv-heads 2 --mesh.expert 8 --plan v5e:2x4", tmp_path)
    assert found["fits"] and found["mesh"]["expert"] == 8


@with_compiler
def test_a_step_that_the_compiler_finds_too_large_is_one_line_with_a_change_that_fits(tmp_path):
    line = "gpt_stdlib --data.tokenizer byte --data.vocab-size 0 --mesh.fsdp 4 --plan v5e:2x2"
    done = run(f"{line} --data.batch-size 65536", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "does not fit v5e:2x2" in said and "--accumulate" in said and "should" in said
    assert "Traceback" not in done.stderr


@with_compiler
def test_what_waits_in_the_hosts_memory_is_none_of_a_chips(tmp_path):
    """Moments, twice the parameters' bytes: the program's peak, as the compiler tells it, counts them too."""
    line = (
        "gpt_stdlib --data.tokenizer byte --data.vocab-size 0 --mesh.fsdp 4 --plan v5e:2x2 --optimizer adamw"
    )
    here, there = (planned(line + offload, tmp_path) for offload in ("", " --offload optimizer"))
    moments = here["argument_bytes"] - there["argument_bytes"]
    assert there["host_bytes"] == pytest.approx(moments, rel=0.01)
    assert there["total_bytes"] < here["total_bytes"]


@with_compiler
def test_a_tiny_gpt_is_planned_for_a_slice_of_v5e_and_its_loop_is_counted_as_its_unrolled_twin(tmp_path):
    line = "gpt_stdlib --data.tokenizer byte --data.vocab-size 0 --mesh.fsdp 4 --price 1 --plan v5e:2x2"
    told, unrolled = (planned(f"{line} --model.layer-unroll {unroll}", tmp_path) for unroll in (1, 0))
    assert told["predicted"] and told["fits"] and told["chips"] == 4
    assert told["argument_bytes"] < told["total_bytes"] < told["hbm_bytes"]
    assert 0 < told["mfu"][0] <= told["mfu"][1] < 1
    assert math.isfinite(told["dollars_per_billion_tokens"][0])
    assert told["compiled_flops"] == pytest.approx(unrolled["compiled_flops"], rel=0.01)


def test_a_plan_is_of_one_slice(capfd):
    assert train.main("gpt2 --plan v5e:2x4 --mesh.slice 2".split()) == 2
    assert capfd.readouterr().err == "error: mesh.slice=2: a plan is of one slice; leave mesh.slice at 1\n"
