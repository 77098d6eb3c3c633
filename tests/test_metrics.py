"""What a run records and shows: metrics.jsonl, TensorBoard, the loss curve, the bar, speed, the last line."""

import io
import json
import math
import os
import pty
import subprocess
import sys
import threading

import numpy as np
import pytest

from zoo import metrics, progress
from zoo.errors import ConfigError, StorageError
from zoo.metrics import MetricsLog, plot_loss, print_result, records
from zoo.progress import Progress
from zoo.throughput import Throughput, peak_flops


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


def written(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_each_line_is_on_disk_before_the_next_step(tmp_path):
    log = MetricsLog(tmp_path / "run")  # not closed: a killed process would not either
    log.write(1, loss=2.5, mfu=None)
    assert written(tmp_path / "run") == [{"step": 1, "loss": 2.5, "mfu": None}]
    log.write(2, loss=np.float32(0.1))
    assert written(tmp_path / "run")[1] == {"step": 2, "loss": float(np.float32(0.1))}
    log.close()


def test_what_is_not_finite_is_null_in_the_record(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, loss=math.nan, grad_norm=math.inf)
    assert written(tmp_path) == [{"step": 1, "loss": None, "grad_norm": None}]


def test_a_second_process_appends(tmp_path):
    for step in (1, 2):
        with MetricsLog(tmp_path) as log:
            log.write(step, loss=1.0)
    assert [record["step"] for record in written(tmp_path)] == [1, 2]


def test_resuming_at_a_step_forgets_later_steps_and_a_torn_line(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in range(1, 6):
            log.write(step, loss=1.0)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 3, "lo\xc3')
    with MetricsLog(tmp_path) as log:
        log.truncate_after(3)
        log.write(4, loss=2.0)
    assert [record["step"] for record in written(tmp_path)] == [1, 2, 3, 4]
    assert written(tmp_path)[3]["loss"] == 2.0


def test_a_torn_line_does_not_swallow_the_next(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2')
    with MetricsLog(tmp_path) as log:
        log.write(3, loss=1.0)
    assert [record["step"] for record in written(tmp_path)] == [1, 3]


def test_a_kill_while_truncating_leaves_the_old_record(tmp_path, monkeypatch):
    with MetricsLog(tmp_path) as log:
        log.write(1, loss=1.0)
        log.write(2, loss=1.0)
        monkeypatch.setattr(metrics.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            log.truncate_after(1)
    assert [record["step"] for record in written(tmp_path)] == [1, 2]


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"metrics\.jsonl: cannot be written \(.*Not a directory"):
        MetricsLog(tmp_path / "file" / "run")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_a_storage_error(tmp_path):
    log = MetricsLog(tmp_path)
    log._file.close()
    log._file = open("/dev/full", "w")
    for write in (lambda: log.write(1, loss=1.0), log.close):
        with pytest.raises(StorageError, match="No space left on device"):
            write()


@pytest.mark.parametrize(
    ("module", "use", "extra"),
    [
        ("tensorboardX", lambda folder: MetricsLog(folder, tensorboard=True), "tensorboard"),
        ("matplotlib", lambda folder: metrics.loss_curve([], title="run"), "plot"),
    ],
)
def test_a_missing_package_names_its_extra(module, use, extra, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        use(tmp_path)
    assert str(caught.value) == f'{module} is not installed; pip install -e ".[{extra}]"'


def test_tensorboard_gets_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with MetricsLog(tmp_path, tensorboard=True) as log:
        log.write(1, loss=2.5, mfu=None)
        log.write(2, loss=1.5)
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, found = path.read_bytes(), []
    while data:  # a TFRecord: length (8 bytes), its crc (4), the event, its crc (4)
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    assert found == [("loss", 1, 2.5), ("loss", 2, 1.5)]


def drawn(logged):
    """{label: (steps, losses, marker)} of the loss curve."""
    (axes,) = metrics.loss_curve(logged, title="run").axes
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == (
        "run",
        "step",
        "loss (nats per token)",
    )
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()), line.get_marker())
        for line in axes.lines
    }


def test_the_loss_curve_shows_what_was_logged_and_one_point_as_a_dot():
    pytest.importorskip("matplotlib")
    assert drawn([]) == {}
    assert drawn([{"step": 1, "loss": None}, {"step": 2, "loss": 2.0}]) == {"training": ([2], [2.0], "o")}
    run = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "eval_loss": 2.5}]
    assert drawn(run) == {"training": ([1, 2], [3.0, 2.0], "None"), "validation": ([2], [2.5], "o")}


def test_the_loss_curve_is_a_png_and_needs_no_window_system(tmp_path):
    pytest.importorskip("matplotlib")
    with MetricsLog(tmp_path) as log:
        log.write(1, loss=2.0)
    path = plot_loss(tmp_path, title="run")
    assert path == tmp_path / "loss.png" and path.read_bytes().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules


def test_the_result_is_one_compact_line_of_json(capsys, tmp_path):
    result = {"recipe": "gpt2", "loss": math.nan, "tokens_per_s": np.float32(2.0), "step": np.int64(3)}
    print_result(result | {"eval": {"bits": math.inf}, "folder": tmp_path})
    shown = capsys.readouterr().out
    start = '{"recipe":"gpt2","loss":null,"tokens_per_s":2.0,"step":3,"eval":{"bits":null},"folder":"'
    assert shown.startswith(start) and shown.count("\n") == 1 and shown.endswith("}\n")


# The progress of a run.


def test_without_a_terminal_there_is_one_plain_line_per_logged_step():
    stream, clock = io.StringIO(), Clock()
    with Progress(1000, start=400, stream=stream, clock=clock) as bar:
        for step in range(401, 421):
            clock.now_s += 2.0
            bar.advance(step)
            if step % 10 == 0:
                bar.show({"step": step, "loss": 2.5, "tokens_per_s": 31204.4, "mfu": 0.412, "grad_norm": 1.0})
        bar.show({"step": 420, "eval_loss": 2.25, "perplexity": 9.4877, "bits_per_byte": 1.875})
        bar.note("saved [420]")
    assert stream.getvalue().splitlines() == [
        "step 410/1000  19:40 left  loss 2.5000  31,204 tokens/s  MFU 41.2% (A)",
        "step 420/1000  19:20 left  loss 2.5000  31,204 tokens/s  MFU 41.2% (A)",
        "step 420/1000  19:20 left  eval loss 2.2500  perplexity 9.49  1.8750 bits/byte",
        "saved [420]",
    ]


def test_what_is_unknown_is_left_out_of_the_line():
    stream = io.StringIO()
    with Progress(10, stream=stream) as bar:
        bar.advance(1)
        bar.show({"step": 1, "loss": None, "tokens_per_s": None, "mfu": None})
    assert stream.getvalue() == "step 1/10  \n"


def test_time_left_counts_neither_compilation_nor_the_steps_of_an_earlier_process():
    clock = Clock()
    bar = Progress(100, start=90, stream=io.StringIO(), clock=clock)
    clock.now_s += 60.0  # compilation
    bar.advance(91)
    assert bar.seconds_left() is None
    clock.now_s += 3.0
    bar.advance(92)
    assert bar.seconds_left() == pytest.approx(3.0 * 8)


def test_on_a_terminal_there_is_a_live_bar_and_stdout_stays_clean():
    program = """
import sys, time
from zoo.progress import Progress
with Progress(8, start=4) as bar:
    for step in range(5, 9):
        bar.advance(step)
        bar.show({"step": step, "loss": 2.5, "tokens_per_s": 1234.0})
    bar.show({"step": step, "eval_loss": 2.25})
    bar.note("a note [bold] with brackets")
    print("result")
"""
    shown = []
    ours, theirs = pty.openpty()

    def drain():
        try:
            while chunk := os.read(ours, 65536):
                shown.append(chunk)
        except OSError:  # how Linux reports that the other side was closed
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True
    )
    os.close(theirs)
    reader.join()
    os.close(ours)
    text = b"".join(shown).decode()
    assert done.stdout == b"result\n"
    for part in (
        "train",
        "8/8",
        "loss 2.5000  1,234 tokens/s",
        "step 8/8  eval loss 2.2500",
        "a note [bold] with brackets",
        "\x1b[",
    ):
        assert part in text


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setenv("TERM", "dumb")
    with Progress(3, stream=stream) as bar:
        bar.advance(1)
        bar.show({"step": 1, "loss": 1.0})
    assert stream.getvalue() == "step 1/3  loss 1.0000\n"


def test_durations_read_like_a_clock():
    assert [progress.duration(s) for s in (0, 59.4, 60, 3599.6, 36_061)] == [
        "0:00",
        "0:59",
        "1:00",
        "1:00:00",
        "10:01:01",
    ]


# Its speed.


def test_speed_excludes_the_first_step_and_every_pause():
    clock = Clock()
    meter = Throughput(1000, flops_per_token=6.0, peak_flops=48_000.0, clock=clock)
    clock.now_s += 30.0  # compilation
    meter.step()
    assert meter.read() == {"tokens_per_s": None, "step_ms": None, "mfu": None}
    for _ in range(4):
        clock.now_s += 0.5
        meter.step()
    with meter.pause():
        clock.now_s += 100.0
    for _ in range(4):
        clock.now_s += 0.25
        meter.step()
    # 8 steps in 4 x 0.5 + 4 x 0.25 = 3 s; MFU = 2,667 x 6 / 48,000 = 1/3
    expected = {"tokens_per_s": 8000 / 3, "step_ms": 375.0, "mfu": 1 / 3}
    assert meter.read() == pytest.approx(expected)


def test_each_reading_is_of_the_steps_since_the_last():
    clock = Clock()
    meter = Throughput(10, clock=clock)
    meter.step()
    for seconds in (1.0, 2.0):
        clock.now_s += seconds
        meter.step()
        clock.now_s += 50.0  # nothing is complete yet, so this is the next step's
        assert meter.read()["step_ms"] == 1000 * seconds
        clock.now_s -= 50.0
    assert meter.overall()["step_ms"] == 1500.0
    assert meter.overall()["mfu"] is None


def test_a_pause_that_raises_is_still_a_pause():
    clock = Clock()
    meter = Throughput(10, clock=clock)
    meter.step()
    with pytest.raises(KeyError), meter.pause():
        clock.now_s += 7.0
        raise KeyError
    clock.now_s += 1.0
    meter.step()
    assert meter.read()["step_ms"] == 1000.0


def test_peaks_are_the_sheets_and_scale_with_the_devices():
    rate, source = peak_flops("NVIDIA H100 80GB HBM3", "gpu", num_devices=8)
    assert rate == 8 * 989.4e12 and "8 x 989.4 TFLOP/s dense bfloat16" in source
    assert peak_flops("TPU v5 lite", "tpu")[0] == 197e12


def test_an_unknown_accelerator_has_no_peak_and_says_so():
    rate, source = peak_flops("Imaginary 9000", "gpu")
    assert rate is None and "Imaginary 9000" in source
    assert Throughput(1, flops_per_token=1.0, peak_flops=rate).read()["mfu"] is None


def test_the_peak_of_a_cpu_is_measured_and_virtual_devices_have_none():
    rate, source = peak_flops("cpu", "cpu")
    assert 1e8 < rate < 1e14 and "measured" in source  # from a tenth of one core to a hundred sockets
    assert peak_flops("cpu", "cpu", num_devices=8)[0] is None


def test_records_skips_what_is_not_a_record(tmp_path):
    (tmp_path / "m").write_text('{"step": 1}\n\n[1]\n{"loss": 1}\n3\n{"step": 2}\n')
    assert [record["step"] for record in records(tmp_path / "m")] == [1, 2]
