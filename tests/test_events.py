"""events.jsonl: whole lines, whatever was torn before; the first process's, and everybody's own end."""

import json

import pytest

from zoo import cluster, events
from zoo.errors import CheckpointError


def test_an_event_is_a_line_with_its_time_and_process(tmp_path):
    with events.of_run(tmp_path):
        events.write("preempted", step=6)
    (found,) = events.read(tmp_path / "events.jsonl")
    assert found.pop("time").endswith("Z") and found == {"event": "preempted", "process": 0, "step": 6}


def test_a_line_torn_by_a_kill_spoils_no_other(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "fault"}\n{"event": "pree')
    with events.of_run(tmp_path):
        events.write("watchdog")
        events.write("preempted")
    assert [found["event"] for found in events.read(path)] == ["fault", "watchdog", "preempted"]


def test_outside_a_run_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    events.write("preempted")
    with events.of_run(tmp_path):
        pass
    events.write("preempted")
    assert not list(tmp_path.iterdir()) and events.read(tmp_path / "events.jsonl") == []


def test_of_several_processes_the_first_writes_and_each_its_own_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "is_first", lambda: False)
    monkeypatch.setattr(cluster, "index", lambda: 3)
    with events.of_run(tmp_path):
        events.write("preempted")
        events.write("watchdog", of_all=True)
    assert [(each["event"], each["process"]) for each in events.read(tmp_path / "events.jsonl")] == [
        ("watchdog", 3)
    ]


def test_an_error_that_ends_a_run_is_an_event(tmp_path):
    with pytest.raises(CheckpointError), events.of_run(tmp_path):
        raise CheckpointError("nothing is intact")
    (found,) = events.read(tmp_path / "events.jsonl")
    assert (found["event"], found["code"]) == ("error", 4) and "nothing is intact" in found["error"]


def test_where_they_cannot_be_written_the_run_goes_on_and_says_so(tmp_path, capsys):
    (tmp_path / "events.jsonl").mkdir()
    with events.of_run(tmp_path):
        events.write("preempted")
    assert "events.jsonl cannot be written" in capsys.readouterr().err


def test_what_is_no_event_is_passed_over(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'[1]\n\xff\xfe\n{"step": 3}\n' + json.dumps({"event": "fault"}).encode() + b"\n")
    assert events.read(path) == [{"event": "fault"}]
