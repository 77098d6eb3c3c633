"""What a machine has: each fault is found, named with its remedy, and gives a code that is not 0."""

import json
import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from zoo import doctor, joining
from zoo.__main__ import main


def kinds(found) -> list[str]:
    return [finding.kind for finding in found]


def only(found, kind=doctor.FAULT):
    (finding,) = [finding for finding in found if finding.kind == kind]
    assert finding.remedy and "\n" not in str(finding)
    return finding


@pytest.fixture(autouse=True)
def small_and_alone(monkeypatch):
    monkeypatch.setattr(doctor, "PROBE_BYTES", 1 << 16)
    monkeypatch.setattr(doctor, "ACCELERATORS", {})
    for name in (*joining.COUNTS.values(), *joining.HOSTS, joining.SLICES, *doctor.PROXIES):
        monkeypatch.delenv(name, raising=False)


def test_a_sound_machine_has_no_fault_and_keeps_nothing(tmp_path, capsys):
    assert main(["doctor", "--runs", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(lines[-1])
    assert report["faults"] == 0 and len(report["findings"]) == len(lines) - 1
    subjects = {finding["subject"] for finding in report["findings"]}
    assert subjects == {"libraries", "processes", "memory", "disk", "devices", "mesh", "links"}
    assert list(tmp_path.iterdir()) == []


def test_a_fault_gives_a_code(tmp_path, capsys):
    os.chmod(tmp_path, 0o500)
    try:
        code = main(["doctor", "--runs", str(tmp_path / "runs")])
    finally:
        os.chmod(tmp_path, 0o700)
    if os.geteuid():  # root writes anywhere
        assert code == 2 and "make room" in capsys.readouterr().out


def test_a_disk_that_takes_nothing_or_gives_back_something_else_is_a_fault(tmp_path, monkeypatch):
    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor, "written_in", full)
    assert "No space left" in only(doctor.disk(tmp_path)()).text
    (tmp_path / "file").write_text("")
    monkeypatch.undo()
    assert "Not a directory" in only(doctor.disk(tmp_path / "file" / "runs")()).text
    monkeypatch.undo()
    monkeypatch.setattr(Path, "read_bytes", lambda self: b"else")
    assert "did not come back" in only(doctor.disk(tmp_path)()).text


def test_little_room_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1 << 60)
    assert "checkpoint" in only(doctor.disk(tmp_path)(), doctor.WARNING).remedy
    monkeypatch.setattr(doctor, "LITTLE_MEMORY", 1 << 60)
    only(doctor.memory(), doctor.WARNING)


def test_libraries_that_do_not_belong_together_are_a_fault(monkeypatch):
    monkeypatch.setattr(doctor, "versions", lambda: {"jax": "0.10.2", "jaxlib": "0.10.1"})
    assert "pip install jaxlib==0.10.2" in only(doctor.libraries()).remedy
    monkeypatch.setattr(doctor, "versions", lambda: {"jax": "0.10.2", "jaxlib": "0.10.2+cuda"})
    monkeypatch.setattr(doctor, "plugins", lambda: {"jax-cuda12-plugin": "0.10.1"})
    assert "jax-cuda12-plugin==0.10.2" in only(doctor.libraries()).remedy


def test_an_accelerator_that_is_not_used_is_a_fault(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ACCELERATORS", {str(tmp_path): "cuda13"})
    assert "[cuda13]" in only(doctor.devices()).remedy


def test_a_sum_that_is_wrong_is_a_fault(monkeypatch):
    whole = jax.make_array_from_callback

    def broken(shape, sharding, callback):
        return whole(shape, sharding, lambda index: callback(index) + (index[0].start == 3))

    monkeypatch.setattr(jax, "make_array_from_callback", broken)
    found = doctor.collective(jax.devices())
    assert found.kind == doctor.FAULT and f"{doctor.PROBE_BYTES // 4:,} numbers of it are wrong" in found.text


def test_the_rate_of_links_is_what_a_ring_moves_by_the_time_it_takes(monkeypatch):
    """Of eight devices each sends and receives 2 x 7 / 8 of 64 KiB, here in a tenth of a millisecond."""
    seconds = iter([1.0, 1.0001])
    monkeypatch.setattr(doctor.time, "perf_counter", lambda: next(seconds))
    found = doctor.collective(jax.devices())
    assert found.kind == doctor.GOOD and "1.15 GB/s in and out of each" in found.text


def test_a_tpus_host_may_be_alone(monkeypatch):
    monkeypatch.setattr(joining, "launched", lambda: joining.TPU)
    assert kinds(doctor.processes()) == [doctor.GOOD]


def test_one_that_should_be_several_is_a_fault_and_a_proxy_a_warning(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "n1")
    monkeypatch.setenv("https_proxy", "http://x")
    found = list(doctor.processes())
    assert kinds(found) == [doctor.FAULT, doctor.WARNING]
    assert "SLURM" in found[0].text and "SLURM_NTASKS=4" in found[0].text and "https_proxy" in found[1].text


def test_what_goes_wrong_in_looking_is_a_fault_and_the_rest_is_looked_at(monkeypatch):
    def broken():
        raise RuntimeError("no such\ndriver")

    monkeypatch.setattr(doctor, "memory", broken)
    found = list(doctor.of_the_host(Path("runs")))
    assert only(found).text == "RuntimeError: no such" and found[-1].subject == "disk"
    assert np.isin(kinds(found), [doctor.GOOD, doctor.FAULT, doctor.WARNING]).all()


def test_a_mesh_is_told_with_what_stays_within_a_process(monkeypatch):
    assert (
        doctor.layout(jax.devices()).text == "mesh data=8 unless --mesh says otherwise; sizes multiply to 8"
    )
    monkeypatch.setattr("jax.local_device_count", lambda: 4)
    assert doctor.layout(jax.devices()).text.endswith("the last ones up to 4 stay within a process")


def test_others_who_do_not_come_are_the_last_finding(monkeypatch, capsys, tmp_path):
    """The runtime is not left any more: what has been seen of the host is told, with a code."""
    left = []
    monkeypatch.setattr("zoo.verbs.doctor.die", left.append)
    monkeypatch.setattr("jax.distributed.initialize", lambda **_: wait_for(lambda: left))
    flags = ["--cluster.coordinator", "a:1", "--cluster.processes", "2", "--cluster.process", "0"]
    main(["doctor", "--runs", str(tmp_path), *flags, "--cluster.start-seconds", "1"])
    assert left == [2]
    lines = capsys.readouterr().out.splitlines()
    first = next(json.loads(line) for line in lines if line.startswith("{"))
    *_, disk, found = first["findings"]
    assert disk["subject"] == "disk" and first["faults"] == 1
    assert "do not come together at a:1 within 1 s" in found["text"] and "all were started" in found["remedy"]


def wait_for(is_so):
    until = time.monotonic() + 60
    while not is_so() and time.monotonic() < until:
        time.sleep(0.01)
