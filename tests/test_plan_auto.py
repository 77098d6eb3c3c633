"""`--plan auto:...`: what it tries, what it keeps, how it chooses; and the process that the compiler has."""

import dataclasses
import functools
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import train
from zoo import assembly, cli
from zoo.errors import ConfigError
from zoo.fits import check_rows
from zoo.mesh import MeshConfig, mesh_sizes
from zoo.plan import Request, auto, requested
from zoo.plan.abstract import abstract_data
from zoo.plan.analytic import analysed
from zoo.plan.candidates import flags, meshes, parts_of_a_batch
from zoo.plan.gpus import cluster
from zoo.plan.remedies import TooLarge
from zoo.recipes import CHOICES, CONFIGS

ROOT = Path(__file__).parents[1]
PLACE = cluster("h100:8x1")


def complete(line: str):
    """(recipe, stand-in of its data) of a command line."""
    recipe = cli.parse(line.split(), CONFIGS, CHOICES, default="gpt_stdlib")
    data = abstract_data(recipe)
    return assembly.complete(recipe, data), data


@functools.cache
def searched(line: str):
    recipe, data = complete(line)
    return recipe, auto.search(recipe, data, PLACE)


def test_auto_is_asked_for_before_the_topology():
    assert requested("gpt2 --plan auto:v5e:2x4 --price 1".split()) == (
        Request("v5e:2x4", 1.0, True),
        ["gpt2"],
    )


def test_meshes_are_all_products_of_three_and_what_is_given_stays():
    found = meshes(MeshConfig(), 8)
    sizes = {tuple(each[axis] for axis in ("data", "fsdp", "tensor")) for each in found}
    products = {(a, b, c) for a in (1, 2, 4, 8) for b in (1, 2, 4, 8) for c in (1, 2, 4, 8) if a * b * c == 8}
    assert sizes == products
    assert len(found) == len(products)
    assert all(each["fsdp"] == 4 for each in meshes(MeshConfig(fsdp=4), 8))
    assert len(meshes(MeshConfig(fsdp=4), 8)) == 2
    with pytest.raises(ConfigError, match="does not fit 8 devices"):
        meshes(MeshConfig(fsdp=3), 8)


def test_the_rows_of_a_step_are_cut_in_every_way_that_divides_over_the_mesh():
    sizes = {"data": 2, "fsdp": 4, "tensor": 1}
    recipe = CONFIGS["gpt2"]  # 480 rows
    found = parts_of_a_batch(480, sizes)
    assert found == sorted(found)
    for count in range(1, 481):
        try:
            check_rows(dataclasses.replace(recipe, accumulate=1 if 480 % count else count), sizes)
            divides = 480 % count == 0
        except ConfigError:
            divides = False
        assert (count in found) == divides


def test_a_setting_changes_how_a_run_is_computed_and_nothing_else():
    recipe, found = searched("gpt2")
    chosen = [each.recipe for group in found.groups for each in group]
    assert {each.model.remat for each in chosen} == {"none", "dots", "full"}
    assert len({tuple(each.mesh.sizes.values()) for each in chosen}) > 5
    for each in chosen:
        model = dataclasses.replace(each.model, remat=recipe.model.remat)
        assert (
            dataclasses.replace(each, model=model, mesh=recipe.mesh, accumulate=recipe.accumulate) == recipe
        )


def test_a_mesh_that_does_not_divide_the_model_is_not_tried():
    _, found = searched("gpt2_xl")  # 25 heads
    assert {each.recipe.mesh.tensor for group in found.groups for each in group} == {1}


def test_the_fastest_of_a_group_is_the_one_in_the_fewest_parts_that_fits():
    (_, found), data = searched("gpt2"), complete("gpt2")[1]
    available = PLACE.chip.hbm_bytes / 2
    fast = found.fastest(available)
    assert [each.estimate.time.worst_s for each in fast] == sorted(
        each.estimate.time.worst_s for each in fast
    )
    for each in fast:
        assert each.bytes <= available
        fewer = [
            count for count in parts_of_a_batch(480, each.recipe.mesh.sizes) if count < each.recipe.accumulate
        ]
        if fewer:
            cut = dataclasses.replace(each.recipe, accumulate=fewer[-1])
            plan = analysed(Request("h100:8x1"), cut, data, PLACE)
            assert plan.total_bytes > available
            assert plan.time.worst_s <= each.estimate.time.worst_s


@pytest.mark.parametrize("line", ["gpt2", "gpt2 --mesh.data 1", "bert_base --model.encoder.vocab-size 30522"])
def test_the_flags_that_are_told_give_the_setting(line):
    recipe, found = searched(line)
    for group in found.groups[::4]:
        for each in group[:2]:
            again, _ = complete(f"{line} {flags(recipe, each.recipe)}")
            assert mesh_sizes(again.mesh, PLACE.count) == each.recipe.mesh.sizes
            assert dataclasses.replace(again, mesh=each.recipe.mesh) == each.recipe


def test_what_the_compiler_asks_for_beyond_the_closed_form_is_expected_of_the_others(capsys):
    (recipe, found), data = searched("gpt2"), complete("gpt2")[1]
    asked = []

    def plan_of(candidate):
        asked.append(candidate.bytes)
        if len(asked) == 1:
            raise TooLarge("too large", 2 * PLACE.chip.hbm_bytes)
        return analysed(Request("h100:8x1"), candidate.recipe, data, PLACE)

    plans = auto.ranked(found, recipe, PLACE, plan_of)
    assert 1 < len(asked) <= auto.PLANNED
    assert len(plans) == len(asked) - 1
    scale = 2 * PLACE.chip.hbm_bytes / asked[0]
    assert all(size * scale <= PLACE.chip.hbm_bytes for size in asked[1:])
    assert "does not fit" in capsys.readouterr().err


def test_every_kind_of_recomputation_is_looked_at():
    (recipe, found), data = searched("gpt2"), complete("gpt2")[1]
    plans = auto.ranked(
        *(found, recipe, PLACE),
        lambda each: analysed(Request("h100:8x1"), each.recipe, data, PLACE),
    )
    assert {plan.recipe.model.remat for plan in plans} == {"none", "dots", "full"}
    assert len(plans) == auto.PLANNED


def test_three_are_told_with_their_flags_and_the_record_agrees(capsys):
    assert train.main(shlex.split("gpt2 --plan auto:h100:8x1 --price 2")) == 0
    told = capsys.readouterr()
    lines, record = told.out.splitlines(), json.loads(told.out.splitlines()[-1])
    assert "predicted" in lines[0]
    assert "480 rows, 491,520 tokens a step in every setting" in lines[1]
    assert "pipeline, context and expert are not tried" in lines[2]
    assert record["predicted"] and record["batch_tokens"] == 480 * 1024
    assert len(record["best"]) == 3
    speeds = [each["tokens_per_s"][0] for each in record["best"]]
    assert speeds == sorted(speeds, reverse=True)
    for each in record["best"]:
        assert any(line.endswith(each["flags"]) for line in lines)
        assert each["total_bytes"] <= each["hbm_bytes"]
        assert math.prod(each["mesh"].values()) == 8
    assert len(told.err.splitlines()) == record["planned"]


def test_where_nothing_fits_the_next_larger_cluster_that_holds_it_is_named(capsys):
    line = "gpt2 --model gpt3_13b --model.dtype bfloat16 --data.batch-size 64 --accumulate 1"
    assert train.main(f"{line} --plan auto:a100:2x1".split()) == 2
    told = capsys.readouterr().err.strip()
    assert len(told.splitlines()) == 1
    assert "does not fit a100:2x1" in told
    assert "a100:8x1 should hold it" in told


def test_rows_that_divide_over_no_mesh_are_one_line(capsys):
    line = "gpt2 --data.batch-size 7 --accumulate 1 --mesh.tensor 1 --mesh.data 8 --plan auto:h100:8x1"
    assert train.main(line.split()) == 2
    assert "give a --data.batch-size that is a multiple of 8" in capsys.readouterr().err


def test_work_apart_returns_raises_and_crashes_as_it_did_there():
    code = """
import os, signal
from zoo.errors import DataError
from zoo.plan.apart import Crashed, apart
from zoo.plan.remedies import TooLarge

def raised(error):
    raise error

def message(work):
    try:
        return apart(work)
    except Exception as error:
        return f"{type(error).__name__}: {error}", getattr(error, "asked", None), error.exit_code

print(message(lambda: {"pid": os.getpid()}) != {"pid": os.getpid()})
print(message(lambda: raised(DataError("no text"))))
print(message(lambda: raised(TooLarge("large", 7.0))))
print(message(lambda: os.kill(os.getpid(), signal.SIGSEGV)))
try:
    apart(lambda: 1 / 0)
except SystemExit as error:
    print(error.code)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "True",
        "('DataError: no text', None, 3)",
        "('TooLarge: large', 7.0, 2)",
        "('Crashed: SIGSEGV', None, 2)",
        "70",
    ]
    assert "ZeroDivisionError" in done.stderr
