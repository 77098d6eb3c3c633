"""The layout "streams": rows go on from step to step, and evaluation holds every target once."""

import numpy as np
import pytest

from zoo.data import DataConfig, load
from zoo.data.streams import Streams
from zoo.data.tokens import Tokens
from zoo.errors import DataError


def streams(size: int, *, length: int, num_streams: int) -> Streams:
    """Of a text whose token at place i is i."""
    return Streams(Tokens(np.arange(size, dtype=np.uint16), np.array([0, size]), False), length, num_streams)


def training_step(layout, step):
    return layout.training_rows(step * layout.num_streams + row for row in range(layout.num_streams))


SHAPES = pytest.mark.parametrize(
    "size, length, num_streams", [(41, 4, 2), (100, 7, 3), (97, 16, 6), (1000, 20, 20), (33, 16, 2)]
)


@SHAPES
def test_a_row_goes_on_where_the_same_row_of_the_step_before_stopped(size, length, num_streams):
    layout = streams(size, length=length, num_streams=num_streams)
    steps = layout.num_rows // num_streams
    assert steps == (size - 1) // num_streams // length
    before = None
    for step in range(2 * steps):
        rows = training_step(layout, step)
        assert rows["tokens"].dtype == np.int32 and rows["weights"].all()
        assert rows["begins"].tolist() == [step % steps == 0] * num_streams
        np.testing.assert_array_equal(np.diff(rows["tokens"], axis=1), 1)
        if step % steps:
            np.testing.assert_array_equal(rows["tokens"][:, 0], before)
        before = rows["tokens"][:, -1]
    for name, array in training_step(layout, steps).items():  # every epoch is the same
        np.testing.assert_array_equal(array, training_step(layout, 0)[name])


@SHAPES
def test_streams_share_the_text_evenly(size, length, num_streams):
    first = training_step(streams(size, length=length, num_streams=num_streams), 0)["tokens"][:, 0]
    np.testing.assert_array_equal(first, np.arange(num_streams) * ((size - 1) // num_streams))


@SHAPES
def test_evaluation_holds_every_target_once_and_in_order(size, length, num_streams):
    layout = streams(size, length=length, num_streams=num_streams)
    numbers = np.arange(layout.num_eval_rows)
    rows = layout.rows(numbers, np.zeros_like(numbers))
    counted = rows["weights"] > 0
    targets = rows["tokens"][:, 1:][counted]
    assert sorted(targets.tolist()) == list(range(1, size)) and layout.num_targets == size - 1
    np.testing.assert_array_equal(rows["tokens"][:, :-1][counted], targets - 1)
    by_stream = rows["tokens"][:, 1:].reshape(-1, num_streams, length).swapaxes(0, 1)
    weights = counted.reshape(-1, num_streams, length).swapaxes(0, 1)
    read = [part[mask].tolist() for part, mask in zip(by_stream, weights, strict=True)]
    assert sum(read, []) == list(range(1, size))  # a stream is one piece of the text
    assert not rows["tokens"][:, 1:][~counted].any()


def test_one_stream_is_the_text_itself():
    layout = streams(50, length=8, num_streams=1)
    rows = layout.rows(np.arange(layout.num_eval_rows), np.zeros(layout.num_eval_rows, int))
    assert rows["begins"].tolist() == [True] + [False] * 6
    assert rows["tokens"][:, 1:][rows["weights"] > 0].tolist() == list(range(1, 50))


def test_rows_can_be_shared_out(tmp_path):
    (tmp_path / "a.txt").write_text("some words and then some more of them " * 30)
    dataset = load(DataConfig(path=str(tmp_path / "a.txt"), layout="streams", length=8, batch_size=4), seed=0)
    assert dataset.carried_rows == 4
    whole = dataset.batch(3, range(4))
    for name, array in dataset.batch(3, range(1, 3)).items():
        np.testing.assert_array_equal(array, whole[name][1:3])


def test_a_text_too_short_for_its_streams_is_one_line(tmp_path):
    (tmp_path / "a.txt").write_text("abc " * 20)
    with pytest.raises(DataError, match=r"has 74 tokens and 16 streams take 129; give more text"):
        load(DataConfig(path=str(tmp_path / "a.txt"), layout="streams", length=8, batch_size=16), seed=0)
