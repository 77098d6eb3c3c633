"""How much is done before a run's first step, in counts that no machine changes; and how it is timed."""

import os

import pytest
from jax import monitoring
from test_train import command, text_in

import train
from benchmarks.startup import Row, environment_in, markdown, measured


def test_a_run_compiles_three_programs_before_its_first_step(tmp_path, monkeypatch, capsys):
    """First values, the rates of all steps, and the step. On one device there are two small ones more, which
    measure how fast it multiplies."""
    monkeypatch.chdir(tmp_path)
    compiled = []

    def note(event, _, **about):
        if event.endswith("backend_compile_duration"):
            compiled.append(about.get("fun_name"))

    monitoring.register_event_duration_secs_listener(note)
    assert train.main(command(text_in(tmp_path), "--steps", "3", "--sample-tokens", "0")) == 0
    capsys.readouterr()
    assert compiled[:3] == ["jit(init)", "jit(rate)", "jit(step)"]
    assert compiled.count("jit(step)") == 1


def test_a_wait_ends_at_its_mark_and_counts_the_processor_until_then():
    code = "import time; print('begin'); print('step 1/9', flush=True); time.sleep(60)"
    clock_s, processor_s = measured(("-c", code), r"step \d+/", dict(os.environ))
    assert 0 < processor_s < clock_s + 1 and clock_s < 30


def test_a_process_that_ends_otherwise_is_an_error():
    with pytest.raises(RuntimeError, match="ended with 3: all that it said"):
        measured(("-c", "print('all that it said'); raise SystemExit(3)"), "", dict(os.environ))
    with pytest.raises(RuntimeError, match="ended with 0"):
        measured(("-c", "print('done')"), "step", dict(os.environ))


def test_a_budget_that_is_exceeded_is_marked():
    rows = [Row("resume", True, 9.0, 4.0, 5.0), Row("resume", False, 9.0, 6.0, 5.0)]
    assert [row.holds for row in rows] == [True, False]
    assert "| resume | none | 9.00 | 6.00 | 5 | **no** |" in markdown(rows)


def test_only_a_cached_start_has_a_folder_for_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert "JAX_COMPILATION_CACHE_DIR" not in environment_in(tmp_path, cache=False)
    assert environment_in(tmp_path, cache=True)["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "programs")


def test_importing_the_trainer_waits_for_no_reader_of_data_or_checkpoints(tmp_path):
    heavy = "{'grain', 'orbax', 'sentencepiece', 'tokenizers', 'torch', 'matplotlib', 'tensorboardX'}"
    code = f"import sys, train; found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    measured(("-c", code), "", environment_in(tmp_path, cache=False))
