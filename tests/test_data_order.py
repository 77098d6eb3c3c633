"""Rows: what each holds, that an epoch holds every target once, and that evaluation does."""

import itertools
import json
import random

import numpy as np
import pytest

from zoo.data import DataConfig, load
from zoo.data.order import Order
from zoo.data.packed import Packed, count_up, cut, first_fit
from zoo.data.stream import Stream
from zoo.data.tokens import Tokens

EOT = 0


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def tokens_of(sizes, *, has_eot=True):
    """Documents of these sizes, with the numbers from 1 on as their tokens: no two tokens are the same."""
    documents = np.split(np.arange(1, sum(sizes) + 1), np.cumsum(sizes)[:-1])
    if not has_eot:
        return Tokens(np.concatenate(documents).astype(np.uint16), np.cumsum([0, *sizes]), False)
    ids = np.concatenate([[EOT], *([*document, EOT] for document in documents)])
    return Tokens(ids.astype(np.uint16), np.cumsum([0, *(size + 1 for size in sizes)]), True)


def random_sizes(count, largest, seed=0):
    rng = random.Random(seed)
    return [rng.randint(1, largest) for _ in range(count)]


def all_rows(layout):
    return layout.rows(np.arange(layout.num_eval_rows), np.zeros(layout.num_eval_rows, np.int64))


def counted_pairs(examples):
    """Every (token, target) with weight 1, over all rows."""
    tokens_BT, weights_BT = examples["tokens"], examples["weights"]
    assert set(np.unique(weights_BT)) <= {0, 1}
    counted_BT = weights_BT == 1
    return list(zip(tokens_BT[:, :-1][counted_BT], tokens_BT[:, 1:][counted_BT], strict=True))


def write_jsonl(path, count, seed=0):
    rng = random.Random(seed)
    texts = ["".join(rng.choices("abc déf\n", k=rng.randint(1, 60))) for _ in range(count)]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return str(path)


@pytest.fixture(params=["stream", "packed"])
def dataset(request, tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", 80)
    return load(DataConfig(path=path, layout=request.param, length=16, batch_size=6), seed=3)


def assert_equal(examples, others):
    assert examples.keys() == others.keys()
    for name, array in examples.items():
        np.testing.assert_array_equal(array, others[name])
        assert array.dtype == others[name].dtype


def test_a_batch_is_the_same_whatever_was_asked_before(dataset):
    rows = range(dataset.cfg.batch_size)
    forward = [dataset.batch(step, rows) for step in range(40)]
    fresh = load(dataset.cfg, seed=3)
    steps = list(range(40))
    random.Random(1).shuffle(steps)
    for step in steps:
        assert_equal(fresh.batch(step, rows), forward[step])


def test_any_rows_of_a_batch_are_those_rows_of_the_whole(dataset):
    for step in (0, 7, 10**9):
        whole = dataset.batch(step, range(6))
        for rows in (range(3), range(3, 6), range(5, 6), range(0, 6, 2), range(0)):
            assert_equal(
                dataset.batch(step, rows), {name: array[list(rows)] for name, array in whole.items()}
            )


def test_another_seed_gives_another_order(dataset):
    other = load(dataset.cfg, seed=4)
    rows = range(dataset.cfg.batch_size)
    assert any((other.batch(s, rows)["tokens"] != dataset.batch(s, rows)["tokens"]).any() for s in range(3))
    assert other.digest == dataset.digest


def epoch_rows(layout, epoch, seed=0):
    numbers = range(epoch * layout.num_rows, (epoch + 1) * layout.num_rows)
    return Order(layout, seed).rows(numbers)


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_an_epoch_of_the_stream_holds_each_target_once(epoch):
    layout = Stream(tokens_of([999], has_eot=False), length=10)
    targets = np.sort(epoch_rows(layout, epoch)["tokens"][:, 1:].ravel())
    np.testing.assert_array_equal(targets, np.arange(targets[0], targets[0] + len(targets)))
    assert 999 - len(targets) <= 2 * 10


def test_a_row_of_the_stream_is_a_piece_of_the_text():
    layout = Stream(tokens_of([999], has_eot=False), length=10)
    examples = epoch_rows(layout, 2)
    assert (np.diff(examples["tokens"], axis=1) == 1).all() and (examples["weights"] == 1).all()


def test_epochs_of_the_stream_differ_in_order_and_in_borders():
    layout = Stream(tokens_of([999], has_eot=False), length=10)
    firsts = [epoch_rows(layout, epoch)["tokens"][:, 0] for epoch in range(8)]
    assert len({tuple(first_B) for first_B in firsts}) == 8
    assert len({int(first_B.min()) for first_B in firsts}) > 3


@pytest.mark.parametrize("size", [11, 12, 19, 20, 21, 29, 30, 31])
def test_every_phase_of_a_short_stream_fits(size):
    layout = Stream(tokens_of([size], has_eot=False), length=10)
    assert layout.num_rows >= 1 and layout.num_phases == (10 if size >= 20 else size - 10)
    for row, phase in itertools.product(range(layout.num_rows), range(layout.num_phases)):
        assert layout.rows(np.array([row]), np.array([phase]))["weights"].all()


def test_a_stream_shorter_than_a_row_has_none():
    assert Stream(tokens_of([10], has_eot=False), length=10).num_rows == 0


@pytest.mark.parametrize("size", [2, 10, 11, 12, 21, 22, 100])
def test_evaluating_the_stream_counts_each_target_once_and_in_order(size):
    layout = Stream(tokens_of([size], has_eot=False), length=10)
    pairs = counted_pairs(all_rows(layout))
    assert pairs == [(i, i + 1) for i in range(1, size)] and layout.num_targets == len(pairs)


@pytest.mark.parametrize("has_eot", [True, False])
@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_packed_rows_hold_each_target_of_each_document_once(length, has_eot):
    sizes = random_sizes(200, 40)
    tokens = tokens_of(sizes, has_eot=has_eot)
    layout = Packed(tokens, length)
    pairs = counted_pairs(all_rows(layout))
    documents = [tokens.ids[a:b].tolist() for a, b in zip(tokens.starts[:-1], tokens.ends, strict=True)]
    expected = [pair for document in documents for pair in itertools.pairwise(document)]
    assert sorted(pairs) == sorted(expected) and layout.num_targets == len(expected)
    assert all(document[0] == document[-1] == EOT for document in documents) == has_eot


@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_of_packed_rows_is_all_rows_in_another_order(epoch):
    layout = Packed(tokens_of(random_sizes(200, 40)), length=16)
    shuffled, straight = epoch_rows(layout, epoch), all_rows(layout)
    assert sorted(map(bytes, shuffled["tokens"])) == sorted(map(bytes, straight["tokens"]))
    assert (shuffled["tokens"] != straight["tokens"]).any()
    assert (shuffled["tokens"] != epoch_rows(layout, epoch + 1)["tokens"]).any()


def test_packed_rows_are_what_a_slow_loop_writes():
    tokens = tokens_of(random_sizes(300, 50, seed=2))
    length = 16
    starts, sizes = cut(tokens.starts[:-1], tokens.ends, length)
    rows = first_fit(sizes, capacity=length + 1)
    shape = (rows.max() + 1, length + 1)
    tokens_BT, segments_BT, positions_BT = (np.zeros(shape, np.int32) for _ in range(3))
    weights_BT = np.zeros((shape[0], length), np.float32)
    used, pieces = [0] * shape[0], [0] * shape[0]
    for start, size, row in zip(starts, sizes, rows, strict=True):
        pieces[row] += 1
        for position in range(size):
            column = used[row] + position
            tokens_BT[row, column] = tokens.ids[start + position]
            segments_BT[row, column] = pieces[row]
            positions_BT[row, column] = position
            if position < size - 1:
                weights_BT[row, column] = 1
        used[row] += size
    assert_equal(
        all_rows(Packed(tokens, length)),
        {
            "tokens": tokens_BT,
            "segments": segments_BT[:, :-1],
            "positions": positions_BT[:, :-1],
            "weights": weights_BT,
        },
    )


def test_first_fit_takes_the_first_row_with_room():
    assert first_fit(np.array([6, 7, 4, 3, 10, 2]), capacity=10).tolist() == [0, 1, 0, 1, 2, 3]


def test_first_fit_fills_rows_well_and_never_over(monkeypatch):
    monkeypatch.setattr("zoo.data.packed.OPEN_ROWS", 20)
    sizes = np.array(random_sizes(3000, 60))
    filled = np.bincount(first_fit(sizes, capacity=64), sizes)
    assert filled.max() <= 64 and filled.mean() > 0.93 * 64


def test_pieces_of_a_document_share_one_token():
    starts, sizes = cut(np.array([0, 12, 12]), np.array([12, 12, 13]), length=5)
    assert list(zip(starts, sizes, strict=True)) == [(0, 6), (5, 6), (10, 2)]


def test_counting_up():
    assert count_up(np.array([3, 0, 1, 2])).tolist() == [0, 1, 2, 0, 0, 1]


def test_evaluation_holds_the_validation_text_once(dataset):
    batches = [dataset.eval_batch(i, range(6)) for i in range(dataset.num_eval_batches)]
    assert all(array.shape[0] == 6 for batch in batches for array in batch.values())
    targets = [int(target) for batch in batches for _, target in counted_pairs(batch)]
    assert len(targets) == dataset.num_eval_targets
    text = bytes(target for target in targets if target != dataset.tokenizer.eot)
    assert sorted(text) == sorted(dataset.corpus.text("valid")) and len(text) == dataset.eval_bytes
    if dataset.cfg.layout == "stream":
        assert text == dataset.corpus.text("valid")


def test_rows_behind_the_last_weigh_nothing(dataset):
    behind = dataset.eval_batch(dataset.num_eval_batches, range(6))
    assert not behind["weights"].any() and not behind["tokens"].any()
    last = dataset.eval_batch(dataset.num_eval_batches - 1, range(6))
    assert last["weights"].any() and behind.keys() == dataset.batch(0, range(6)).keys()


def test_evaluation_rows_can_be_shared_out(dataset):
    whole = dataset.eval_batch(1, range(6))
    assert_equal(dataset.eval_batch(1, range(2, 5)), {name: array[2:5] for name, array in whole.items()})


def test_the_bytes_of_a_token_that_is_never_a_target_do_not_count(tmp_path):
    (tmp_path / "a.txt").write_text("abcxyzxyzxyz" + "€xyzxyzxyz€€", encoding="utf-8")
    cfg = DataConfig(path=str(tmp_path / "a.txt"), tokenizer="char", length=8, valid_fraction=0.5)
    dataset = load(cfg, seed=0)
    assert dataset.corpus.text("valid") == "€xyzxyzxyz€€".encode() and dataset.eval_bytes == 9 + 2 * 3


def test_the_test_part_can_be_evaluated(tmp_path):
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_text(f"this is to {part} " * 9)
    dataset = load(DataConfig(path=str(tmp_path), length=8), seed=0, evaluate="test")
    batches = [dataset.eval_batch(i, range(8)) for i in range(dataset.num_eval_batches)]
    targets = [target for batch in batches for _, target in counted_pairs(batch)]
    assert dataset.tokenizer.decode(targets) == "this is to test " * 9
    assert dataset.corpus.text(dataset.evaluate) == b"this is to test " * 9
    assert dataset.corpus.text("train") == b"this is to train " * 9


def test_the_digest_tells_what_changes_the_rows(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", 30)
    base = DataConfig(path=path, length=16)
    others = [
        DataConfig(path=path, length=8),
        DataConfig(path=path, length=16, layout="packed"),
        DataConfig(path=path, length=16, tokenizer="char"),
        DataConfig(path=path, length=16, valid_fraction=0.6),
        DataConfig(path=write_jsonl(tmp_path / "b.jsonl", 30, seed=1), length=16),
    ]
    digests = [load(cfg, seed=0).digest for cfg in (base, *others)]
    assert len(set(digests)) == len(digests)
    assert load(DataConfig(path=path, length=16, batch_size=2), seed=9).digest == digests[0]
