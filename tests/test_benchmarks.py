"""The suite that measures zoo beside its peers: turns, records, tables, and whether a record still holds.

No speed is tested, and no peer is needed; the losses of peers are compared by tests marked parity.
"""

import copy
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import drawn, record, table, throughput, turns, verify
from benchmarks.find import ALL, PEERS
from benchmarks.gpu_workloads import GPU
from benchmarks.measure import judge
from benchmarks.side import MODULES
from benchmarks.workloads import WORKLOADS, Training
from zoo.errors import DataError

ROOT = Path(__file__).parents[1]

# A row of a tiny LSTM, zoo beside itself, in one process that has nothing but JAX, Flax, Optax and NumPy.
ROW = """
import json, pathlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("grain", "sentencepiece", "tokenizers", "tyro", "safetensors", "torch",
                                      "transformers", "keras", "matplotlib", "tensorboardX"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import benchmarks.gpu
from benchmarks import measure, ours
import numpy as np

class Here:
    versions = {"jax": "here"}
    def __init__(self, name):
        self.name = name
    def open(self, workload, folder):
        self.folder, self.run = folder, ours.make(measure.workload_of(workload), folder, "zoo")
        return self.run.start()
    def ask(self, what, **given):
        if what == "first":
            np.savez(self.folder / f"{self.name}.npz", **self.run.first(**given))
        return {} if what == "first" else {"value": getattr(self.run, what)(**given)}
    def shut(self):
        pass

sides = {name: Here(name) for name in ("zoo", "again")}
print(json.dumps(measure.row("tiny_lstm", sides, seconds=0.0, least=2, checked=2, say=print)))
"""


@pytest.fixture(scope="module")
def measured() -> dict:
    """The row."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ROW], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def with_peer(row: dict, *, over=1.5, a_a=1.01, agrees=True) -> dict:
    """A row that says that zoo is `over` times as fast as torch."""
    row = copy.deepcopy(row)
    side = copy.deepcopy(row["sides"]["zoo"])
    side |= {"zoo_over": {"p5": 0.97 * over, "p50": over, "p95": 1.03 * over, "min": over}, "agrees": agrees}
    row["sides"]["torch"] = side | {"real_per_s": row["sides"]["zoo"]["real_per_s"] / over}
    row["sides"]["again"]["zoo_over"] = {"p5": 0.99, "p50": a_a, "p95": 1.02, "min": 0.99}
    for name in ("fastest_peer", "over_fastest"):
        row.pop(name, None)
    judge(row)
    return row


def whole(*rows: dict) -> dict:
    return record.begun("python -m benchmarks.throughput", {"jax": "0"}, {"quick": True}) | {
        "rows": list(rows)
    }


# --- a row ----------------------------------------------------------------------------------------


def test_a_row_is_measured_from_end_to_end_without_any_library_that_a_gpu_may_lack(measured):
    row = measured
    assert set(row["sides"]) == {"zoo", "again"}
    assert row["turns"] == 2
    assert row["sides"]["again"]["apart"] == 0  # the same program, the same losses
    assert len(row["sides"]["zoo"]["first_losses"]) == 2
    step_ms = row["sides"]["zoo"]["step_ms"]
    assert 0 < step_ms["min"] <= step_ms["p5"] <= step_ms["p50"] <= step_ms["p95"]
    assert row["bound"]["ms"] > 0
    assert sum(part["ms"] for part in row["parts"].values()) == pytest.approx(step_ms["p50"])
    assert row["sides"]["zoo"]["program_bytes"] > row["sides"]["zoo"]["argument_bytes"] > 0
    record.check(whole(row))


def test_the_second_side_finds_the_programs_of_the_first(measured):
    assert measured["compile_s"]["warm"] < measured["compile_s"]["cold"]


@pytest.mark.parametrize("changes", [{"a_a": 1.031}, {"a_a": 0.969}, {"agrees": False}])
def test_a_row_with_noise_or_other_numbers_is_shown_and_does_not_count(measured, changes):
    good, bad = with_peer(measured), with_peer(measured, **changes)
    assert good["counts"]
    assert not bad["counts"]
    said = table.markdown(whole(good, bad))
    assert said.count("| yes |") == 1
    assert said.count("| no: ") == 1


def test_a_row_without_its_peer_says_so_and_has_no_ratio(measured):
    row = copy.deepcopy(measured) | {"failed": {"torch": "torch: ImportError: no such library"}}
    judge(row)
    assert "over_fastest" not in row
    assert "no such library" in table.markdown(whole(row))


# --- turns ----------------------------------------------------------------------------------------


def test_sides_take_turns_and_the_order_is_turned_round_each_time():
    order = []

    def side(name):
        return lambda step, count: order.append(name) or [float(step)] * count

    found = turns.interleaved({name: side(name) for name in "abc"}, begin=7, count=2, seconds=0.0, least=3)
    assert "".join(order) == "abc" + "cba" + "abc" + "cba"  # the first of them warms up
    assert found["a"] == found["b"] == [[9.0, 9.0], [11.0, 11.0], [13.0, 13.0]]


def test_turns_end_when_time_is_up_and_not_before_the_least():
    counter = itertools.count()
    found = turns.interleaved({"a": lambda *_: [next(counter)]}, begin=0, count=1, seconds=1e9)
    assert len(found["a"]) == turns.MOST


def test_percentiles_and_ratios_of_the_same_turn():
    found = turns.spread(range(101))
    assert found == {"p5": 5, "p50": 50, "p95": 95, "min": 0}
    rates = turns.rates([[1.0, 2.0, 9.0], [4.0]], [100, 100])
    assert rates == [50, 25]
    assert turns.ratios(rates, [25, 25])["p50"] == 1.5


# --- records --------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written_and_a_torn_one_is_a_line(tmp_path, measured):
    path = tmp_path / "results" / "r.json"
    written = whole(with_peer(measured))
    record.write(path, written)
    assert record.read(path) == json.loads(json.dumps(written))
    assert not list(path.parent.glob("*.part"))
    del written["rows"][0]["sides"]["torch"]["step_ms"]
    record.write(path, written)
    with pytest.raises(DataError, match="tiny_lstm: torch: step_ms is missing"):
        record.read(path)
    path.write_text("{")
    with pytest.raises(DataError, match="not a record"):
        record.read(path)
    with pytest.raises(DataError, match="no such record"):
        record.read(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("now", "holds"),
    [({"over": 1.5}, True), ({"over": 1.4}, True), ({"over": 3.0}, True), ({"over": 1.2}, False)]
    + [({"over": 1.5, "agrees": False}, False)],
)
def test_a_record_holds_where_its_ratio_is_within_the_noise_of_both_runs(measured, now, holds):
    found, lines = verify.verdict(whole(with_peer(measured)), whole(with_peer(measured, **now)))
    assert found is holds
    assert len(lines) == 1


def test_what_never_counted_cannot_fail(measured):
    old, new = with_peer(measured, a_a=1.2), with_peer(measured, over=0.5)
    holds, (line,) = verify.verdict(whole(old), whole(new))
    assert holds
    assert "did not count" in line


def test_a_peer_that_is_gone_does_not_hold(measured):
    holds, (line,) = verify.verdict(whole(with_peer(measured)), whole(measured))
    assert not holds
    assert "torch was not measured now" in line


# --- what is asked for ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--models", "gpt_6x383"], "workload 'gpt_6x383': not one of .*did you mean 'gpt_6x384'"),
        (["--peers", "torhc"], "peer 'torhc': not one of .*did you mean 'torch'"),
        (["--verify", "nowhere.json"], "nowhere.json: there is no such record"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(argv, line, capsys):
    code = throughput.main(argv)
    said = capsys.readouterr().err
    assert code == (3 if argv[0] == "--verify" else 2)
    assert len(said.strip().splitlines()) == 1
    assert re.search(line, said)


def test_every_side_that_a_workload_names_exists():
    sides = {side for kind in PEERS.values() for side in kind}
    assert set(MODULES) == {"zoo", "again", *sides}
    assert not {peer for work in ALL.values() for peer in work.peers} - sides


def test_a_peer_that_is_not_installed_is_a_line(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert throughput.sides_of(["torch"], ["gpt_6x384"]) == ["zoo", "again"]
    assert "torch is not installed" in capsys.readouterr().err


# --- workloads ------------------------------------------------------------------------------------


def test_random_batches_are_functions_of_their_step_and_never_zeros():
    data = WORKLOADS["gpt_6x384"].data
    one, same, other = (data.batch(step, range(8))["tokens"] for step in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert len(np.unique(one)) == 65


def test_packed_rows_hold_more_of_the_same_texts_than_padded_ones():
    packed = WORKLOADS["bert_mini_packed"]
    assert packed.beside.recipe == WORKLOADS["bert_mini"].recipe
    counts = [sum(work.real(step) for step in range(10)) for work in (packed, packed.beside)]
    assert counts[1] < 0.75 * counts[0] <= 0.75 * 10 * packed.positions
    batch = packed.data.batch(0, range(16))
    assert batch["segments"].max() > 1
    assert (batch["positions"][batch["segments"] > 0] < 128).all()


def test_sentences_are_as_long_as_those_of_sts_b():
    words = [len(text.split()) for text in drawn.sentences(2000, ["a", "b"])]
    assert 11.5 < np.mean(words) < 13
    assert min(words) >= 3


def test_gpt2_is_counted_as_the_references_do():
    """Conventions A and B at T 1,024: 0.8596 and 0.8030 GFLOPs a token (nanoGPT leaves positions out)."""
    full, causal = GPU["gpu_gpt2"].flops()
    positions = GPU["gpu_gpt2"].positions
    assert full / positions / 1e9 == pytest.approx(0.8596, rel=0.01)
    assert causal / positions / 1e9 == pytest.approx(0.8030, rel=0.01)


def test_every_training_workload_has_the_step_of_train_py():
    for name in ("gpt_4x128", "bert_mini", "lstm_2x200"):
        work = WORKLOADS[name]
        assert isinstance(work, Training)
        parts = work.parts()
        assert (parts.clip_norm, parts.task) == (work.recipe.clip_norm, work.recipe.task)
        assert parts.carried_rows == work.data.carried_rows == (20 if name == "lstm_2x200" else 0)
