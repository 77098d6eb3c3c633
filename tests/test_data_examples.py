"""Labelled examples: what a row holds, that epochs and evaluations hold each once, what is refused."""

import dataclasses
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from zoo.data.characters import NO_WORD, spelled
from zoo.data.examples import labels, record
from zoo.data.examples.buckets import Buckets, permutation
from zoo.data.examples.example_set import ExamplesConfig, load_examples, make_examples
from zoo.data.examples.majority import guess_scores
from zoo.data.examples.one_pass import one_pass
from zoo.data.examples.record import Record
from zoo.data.tokenizers import load_tokenizer
from zoo.data.tokenizers.word import WordTokenizer
from zoo.errors import ConfigError, DataError

DATA = Path(__file__).parents[2] / "shared" / "data"
published = pytest.mark.skipif(
    not DATA.is_dir(), reason="the published data sets (../shared/data) are not here"
)

WORDS = [f"w{i}" for i in range(30)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def random_record(kind, i, rng, longest=40):
    """A record whose first word names it, so that it can be told from every other."""
    words = (f"id{i}", *rng.choices(WORDS, k=rng.randint(0, longest - 1)))
    tags = tuple(rng.choice(["O", "B-x", "I-x"]) for _ in words)
    target = " ".join((f"id{i}", *rng.choices(WORDS, k=rng.randint(0, longest // 2))))
    fields = {
        "classify": {"text": " ".join(words), "label": rng.choice("ab")},
        "tag": {"words": words, "tags": tags},
        "slots": {"words": words, "tags": tags, "label": rng.choice("ab")},
        "pairs": {"source": " ".join(words), "target": target},
    }
    return Record(fields[kind], f"made:{i}")


def random_parts(kind, train=100, valid=23, seed=0, longest=40):
    """Parts of such records; the names of all are in training, where no word is unknown."""
    rng = random.Random(seed)
    return {
        part: tuple(random_record(kind, i, rng, longest) for i in range(count))
        for part, count in (("train", train), ("valid", valid))
    }


def make(kind, parts=None, seed=3, evaluate="valid", **settings):
    settings = {"batch_size": 6} | settings
    return make_examples(parts or random_parts(kind), ExamplesConfig(kind=kind, **settings), seed, evaluate)


def whole(dataset, step):
    return dataset.batch(step, range(dataset.cfg.batch_size))


def evaluation(dataset):
    return [dataset.eval_batch(i, range(dataset.cfg.batch_size)) for i in range(dataset.num_eval_batches)]


def names(dataset, batches):
    """The first word of every example that is there: "id12"."""
    field = "source" if dataset.cfg.kind == "pairs" else "tokens"
    return [
        dataset.tokenizer.words[row[0]]
        for batch in batches
        for row, present in zip(batch[field], batch["present"], strict=True)
        if present
    ]


def assert_equal(examples, others):
    assert examples.keys() == others.keys()
    for name, array in examples.items():
        np.testing.assert_array_equal(array, others[name])
        assert array.dtype == others[name].dtype


def refusal(call, *args, error=DataError, **kwargs):
    """The one line with which a call is refused."""
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


KINDS = ("classify", "tag", "slots", "pairs")


# What a row holds.


def test_a_text_is_its_words_and_marks_and_its_label():
    records = (
        Record({"text": "no  wit", "label": "neg"}, "a:1"),
        Record({"text": "fun", "label": "pos"}, "a:2"),
    )
    parts = {"train": records, "valid": records}
    plain, end, both = (
        make("classify", parts, wrap=wrap, batch_size=2).eval_batch(0, range(2))
        for wrap in ("none", "end", "both")
    )
    assert plain["tokens"][:, :4].tolist() == [[3, 4, 0, 0], [2, 0, 0, 0]]
    assert end["tokens"][:, :4].tolist() == [[5, 6, 3, 0], [4, 3, 0, 0]]
    assert both["tokens"][:, :4].tolist() == [[2, 5, 6, 3], [2, 4, 3, 0]]
    assert both["lengths"].tolist() == [4, 3] and both["label"].tolist() == [0, 1]
    assert both["tokens"].shape == (2, 8) and both["present"].tolist() == [1, 1]
    assert {name: str(array.dtype) for name, array in both.items()} == {
        "tokens": "int32", "lengths": "int32", "present": "float32", "label": "int32",
    }  # fmt: skip


def test_two_texts_have_an_end_mark_between_and_the_longer_is_cut_first():
    record = Record({"text": "a a a a a a", "text_pair": "b b", "label": "x"}, "a:1")
    other = Record({"text": "c", "text_pair": "b", "label": "y"}, "a:2")
    dataset = make(
        "classify", {"train": (record, other), "valid": (record,)}, wrap="both", max_length=8, batch_size=1
    )
    row = dataset.eval_batch(0, range(1))
    words = [dataset.tokenizer.words[i] for i in row["tokens"][0]]
    assert words == "<s> a a a </s> b b </s>".split() and row["lengths"].tolist() == [8]


def test_cutting_two_texts_keeps_all_of_what_fits():
    from zoo.data.examples.encoding import _shares

    for first in range(12):
        for second in range(12):
            for room in range(2, 12):
                kept = _shares(first, second, room)
                assert sum(kept) == min(first + second, room) and kept[0] <= first and kept[1] <= second
                assert (
                    first + second <= room
                    or kept[0] == first
                    or kept[1] == second
                    or abs(kept[0] - kept[1]) < 2
                )


def test_every_word_has_its_tag():
    dataset = make("slots")
    seen = 0
    for batch in evaluation(dataset):
        for i in np.flatnonzero(batch["present"]):
            length = batch["lengths"][i]
            name = dataset.tokenizer.words[batch["tokens"][i, 0]]
            record = dataset.records[int(name[2:])]
            assert (
                tuple(dataset.tokenizer.words[t] for t in batch["tokens"][i, :length])
                == record.fields["words"]
            )
            assert tuple(dataset.tags[t] for t in batch["tags"][i, :length]) == record.fields["tags"]
            assert dataset.labels[batch["label"][i]] == record.fields["label"]
            assert not batch["tokens"][i, length:].any() and not batch["tags"][i, length:].any()
            seen += 1
    assert seen == 23


def test_a_pair_is_its_source_and_its_target_between_marks():
    dataset = make("pairs", wrap="end")
    assert (dataset.tokenizer.bos, dataset.tokenizer.eot) == (2, 3)
    for batch in evaluation(dataset):
        S, T = batch["source"].shape[1], batch["weights"].shape[1]
        assert batch["tokens"].shape[1] == T + 1 and S % 8 == T % 8 == 0
        for i in np.flatnonzero(batch["present"]):
            record = dataset.records[batch["index"][i]]
            source = batch["source"][i, : batch["source_lengths"][i]]
            target = batch["tokens"][i, : batch["lengths"][i] + 1]
            assert dataset.tokenizer.decode(source) == record.fields["source"] and source[-1] == 3
            assert dataset.tokenizer.decode(target) == record.fields["target"]
            assert target[0] == 2 and target[-1] == 3 and batch["weights"][i].sum() == len(target) - 1
            assert (batch["weights"][i] == (np.arange(T) < len(target) - 1)).all()


def test_source_and_target_share_one_vocabulary_of_the_training_part():
    parts = {
        "train": (Record({"source": "a b", "target": "b c"}, "1"),),
        "valid": (Record({"source": "c d", "target": "a"}, "2"),),
    }
    dataset = make("pairs", parts, batch_size=1)
    assert dataset.tokenizer.words == ("<pad>", "<unk>", "<s>", "</s>", "b", "a", "c")
    assert dataset.eval_batch(0, range(1))["source"][0, :2].tolist() == [6, 1]
    assert "1 of valid with an unknown word" in dataset.describe()


def test_pieces_of_pairs_are_trained_on_both_sides_and_end_of_text_is_both_marks():
    code = [f"def f{i}(x):\n    return x + {i}\n" for i in range(60)]
    records = tuple(Record({"source": text, "target": f"Add {i} to x."}, "1") for i, text in enumerate(code))
    parts = {"train": records, "valid": records[:9]}
    dataset = make("pairs", parts, tokenizer="sentencepiece", vocab_size=300)
    batch = evaluation(dataset)[0]
    eot = dataset.tokenizer.eot
    target = batch["tokens"][0, : batch["lengths"][0] + 1]
    assert target[0] == target[-1] == eot and eot not in target[1:-1]
    assert dataset.tokenizer.decode(target) == records[batch["index"][0]].fields["target"]
    assert dataset.tokenizer.decode(batch["source"][0, : batch["source_lengths"][0]]) in code


@pytest.mark.parametrize("tokenizer", ["byte", "char"])
def test_characters_and_bytes_are_tokens_too(tokenizer):
    dataset = make("pairs", tokenizer=tokenizer)
    batch = evaluation(dataset)[0]
    record = dataset.records[batch["index"][0]]
    assert (
        dataset.tokenizer.decode(batch["source"][0, : batch["source_lengths"][0]]) == record.fields["source"]
    )


@pytest.mark.parametrize("kind", ["tag", "slots", "classify"])
def test_every_word_has_its_own_spelling_though_the_vocabulary_lacks_it(kind):
    settings = {"wrap": "both", "min_count": 3} if kind == "classify" else {"min_count": 3}
    dataset = make(kind, characters=True, bucket=4, max_length=50, **settings)
    plain = make(kind, bucket=4, max_length=50, **settings)
    assert dataset.layout.having(dataset.tokenizer.unk).any()  # "id7" and the like
    seen = 0
    for i in range(dataset.num_eval_batches):
        batch = dataset.eval_batch(i, range(6))
        for name, array in plain.eval_batch(i, range(6)).items():
            np.testing.assert_array_equal(batch[name], array)
        assert batch["characters"].dtype == np.int32 and batch["characters"].shape[-1] == 50
        for number, row, length in zip(
            dataset.numbers(i), batch["characters"], batch["lengths"], strict=True
        ):
            np.testing.assert_array_equal(row[length:], NO_WORD)
            if number >= 0:
                fields = dataset.records[number].fields
                words = fields.get("words") or ["<s>", *fields["text"].split(), "</s>"]
                np.testing.assert_array_equal(row[:length], spelled(words))
                seen += 1
    assert seen == 23
    batch, whole_step = dataset.batch(0, range(2, 4)), whole(dataset, 0)
    np.testing.assert_array_equal(batch["characters"], whole_step["characters"][2:4])


def test_two_texts_are_spelled_with_the_mark_between_them_and_cut_as_their_tokens_are():
    fields = {"text": "ab </s> cd", "text_pair": "ef gh ij", "label": "x"}
    parts = {"train": (Record(fields, "1"), Record(fields | {"label": "y"}, "2"))}
    dataset = make("classify", parts | {"valid": parts["train"]}, batch_size=2, max_length=6, characters=True)
    row = dataset.eval_batch(0, range(1))["characters"][0]
    np.testing.assert_array_equal(row[:6], spelled(["ab", "<unk>", "</s>", "ef", "gh", "ij"]))


def test_rare_words_are_unknown():
    dataset = make("classify", min_count=2)
    assert all(name == "<unk>" for name in names(dataset, evaluation(dataset)))
    assert "23 of valid with an unknown word" in dataset.describe()
    assert make("classify", vocab_size=10).sizes["vocab_size"] == 10


def test_a_saved_vocabulary_can_be_used_again(tmp_path):
    make("pairs").save(tmp_path)
    again = make("pairs", random_parts("pairs", seed=9), vocab_path=str(tmp_path / "tokenizer"))
    assert again.tokenizer == load_tokenizer(tmp_path / "tokenizer")


# Names.


def test_labels_are_in_order_and_whole_numbers_in_theirs():
    assert labels.ordered(["pos", "neg", "pos"]) == ("neg", "pos")
    assert labels.ordered(["10", "9", "-1", "10"]) == ("-1", "9", "10")
    assert labels.ordered(["10", "9", "x"]) == ("10", "9", "x")


def test_a_label_that_training_lacks_is_refused_with_its_place_and_the_nearest():
    train = (Record({"text": "a", "label": "pos"}, "t:1"), Record({"text": "a", "label": "neg"}, "t:2"))
    for label, remedy in (("pso", "did you mean 'pos'?"), ("4", "mend it, or give training examples of it")):
        parts = {"train": train, "valid": (Record({"text": "a", "label": label}, "data/dev.tsv:7"),)}
        message = refusal(make, "classify", parts, batch_size=1)
        assert (
            f"data/dev.tsv:7: label {label!r} is none of the training part's, neg, pos; {remedy}" in message
        )


def test_classes_that_nobody_has_named_go_by_their_numbers():
    assert labels.numbers(["1", "LABEL_0"], ("LABEL_0", "LABEL_1"), "a.csv:2").tolist() == [1, 0]
    assert "'1' is none of" in refusal(labels.numbers, ["1"], ("LABEL_0", "neg"), "a.csv:2")


def test_a_tag_or_intent_that_training_lacks_gets_a_number_behind_those_it_has(caplog):
    fields = {"words": ("a",), "tags": ("B-z",), "label": "b"}
    train = (Record(fields, "1"), Record(fields | {"label": "c", "tags": ("O",)}, "2"))
    valid = (Record(fields | {"label": "a", "tags": ("B-a",)}, "3"),)
    dataset = make("slots", {"train": train, "valid": valid}, batch_size=1)
    assert dataset.tags == ("B-z", "O", "B-a") and dataset.labels == ("b", "c", "a")
    assert dataset.sizes == {"vocab_size": 3, "num_classes": 3, "num_tags": 3}
    batch = dataset.eval_batch(0, range(1))
    assert (batch["tags"][0, 0], batch["label"][0]) == (2, 2)
    assert "tags: not in the training part, so that no model can learn them: 'B-a'" in caplog.text


def test_names_are_saved_with_the_tokenizer(tmp_path):
    dataset = make("slots")
    dataset.save(tmp_path)
    inputs = {"inputs": ("words",)}
    assert labels.read(tmp_path) == {"labels": dataset.labels, "tags": dataset.tags} | inputs
    assert load_tokenizer(tmp_path / "tokenizer") == dataset.tokenizer
    (tmp_path / "labels.json").write_text("[")
    assert "labels.json: damaged" in refusal(labels.read, tmp_path)
    assert "has no labels.json" in refusal(labels.read, tmp_path / "tokenizer")


# What is too long.


def test_a_long_text_is_cut_with_its_marks_kept():
    parts = random_parts("classify", longest=30)
    dataset = make("classify", parts, max_length=12, wrap="both")
    for batch in [*evaluation(dataset), whole(dataset, 0)]:
        for row, length in zip(batch["tokens"][batch["present"] > 0], batch["lengths"], strict=False):
            assert length <= 12 and row[0] == 2 and row[length - 1] == 3
    cut = sum(len(record.fields["text"].split()) > 10 for record in parts["train"])
    assert cut and f"{cut} of train too long and cut" in dataset.describe()


def test_a_long_pair_is_not_trained_with_and_cut_where_it_is_evaluated():
    parts = random_parts("pairs", longest=30)
    dataset = make("pairs", parts, max_length=12, max_target_length=9)
    fits = [
        record
        for record in parts["train"]
        if len(record.fields["source"].split()) <= 12 and len(record.fields["target"].split()) < 9
    ]
    assert 0 < len(fits) < 100 and dataset.steps_per_epoch == len(fits) // 6
    assert f"{100 - len(fits)} of train too long and left out" in dataset.describe()
    seen = names(dataset, (whole(dataset, step) for step in range(40 * dataset.steps_per_epoch)))
    assert set(seen) == {record.fields["source"].split()[0] for record in fits}
    assert sorted(names(dataset, evaluation(dataset))) == sorted(f"id{i}" for i in range(23))
    for batch in evaluation(dataset):
        for i in np.flatnonzero(batch["present"]):
            target = dataset.records[batch["index"][i]].fields["target"].split()
            tokens = batch["tokens"][i, : batch["lengths"][i] + 1]
            assert dataset.tokenizer.decode(tokens).split() == target[:9]
            assert (tokens[-1] == 3) == (len(target) < 9)  # what was cut does not end there


def test_a_long_tagged_sentence_is_cut_in_training_and_refused_in_evaluation():
    parts = random_parts("tag", longest=30)
    short = tuple(each for each in parts["valid"] if len(each.fields["words"]) <= 12)
    dataset = make("tag", parts | {"valid": short}, max_length=12)
    assert max(whole(dataset, step)["lengths"].max() for step in range(16)) == 12
    longest = max(parts["valid"], key=lambda record: len(record.fields["words"]))
    size = len(longest.fields["words"])
    message = refusal(make, "tag", parts, max_length=12)
    assert f"{longest.where}: {size} words, more than max_length=12" in message
    assert f"set max_length to {size} or more" in message
    parts |= {"valid": short, "test": parts["valid"]}
    assert f"{longest.where}: {size} words" in refusal(make, "tag", parts, max_length=12)


def test_a_second_text_that_training_lacks_is_refused_with_its_place():
    one, two = ({"text": "a", "label": "x"}, {"text": "b", "text_pair": "c", "label": "y"})
    train = tuple(Record(one | {"label": label}, f"train:{label}") for label in "xy")
    said = refusal(make, "classify", {"train": train, "valid": (Record(two, "valid:7"),)}, batch_size=2)
    assert said.startswith("valid:7: has text and text_pair, and training examples have text;")
    both = tuple(Record(two | {"label": label}, f"train:{label}") for label in "xy")
    said = refusal(make, "classify", {"train": both, "valid": (Record(one, "valid:8"),)}, batch_size=2)
    assert said.startswith("valid:8: has text, and training examples have text and text_pair;")


def test_a_character_that_a_vocabulary_lacks_is_refused_with_its_place():
    dataset = make("classify", tokenizer="char")
    strange = Record({"text": "w1 \ue000"}, "new.txt:7")
    said = refusal(one_pass, [strange], dataset.tokenizer, dataset.labels, (), dataset.cfg)
    assert said.startswith("new.txt:7: character '\\ue000' (U+E000, at 3) is not among the ")


def test_an_empty_text_is_refused_with_its_place():
    good = Record({"text": "a", "label": "x"}, "1"), Record({"text": "b", "label": "y"}, "2")
    for text in ("", "  \n"):
        parts = {"train": good, "valid": (Record({"text": text, "label": "x"}, "dev.tsv:3"),)}
        for settings in ({}, {"tokenizer": "byte"}, {"wrap": "both"}):
            assert "dev.tsv:3: the text" in refusal(make, "classify", parts, batch_size=1, **settings)


# Which row comes when.


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_the_same_whatever_was_asked_before(kind):
    dataset, fresh = make(kind), make(kind)
    forward = [whole(dataset, step) for step in range(50)]
    steps = list(range(50))
    random.Random(1).shuffle(steps)
    for step in steps:
        assert_equal(whole(fresh, step), forward[step])


@pytest.mark.parametrize("kind", KINDS)
def test_any_rows_of_a_batch_are_those_rows_of_the_whole(kind):
    dataset = make(kind)
    last = dataset.num_eval_batches - 1
    for read, i in (
        (dataset.batch, 0),
        (dataset.batch, 10**9),
        (dataset.eval_batch, 1),
        (dataset.eval_batch, last),
    ):
        every = read(i, range(6))
        for rows in (range(3), range(3, 6), range(5, 6), range(0, 6, 2), range(0)):
            assert_equal(read(i, rows), {name: array[list(rows)] for name, array in every.items()})


@pytest.mark.parametrize("bucket", [0, 1, 8, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_holds_each_example_once_but_for_fewer_than_a_batch(kind, bucket):
    dataset = make(kind, bucket=bucket)
    assert dataset.steps_per_epoch == 100 // 6
    orders = []
    for epoch in range(3):
        steps = range(epoch * dataset.steps_per_epoch, (epoch + 1) * dataset.steps_per_epoch)
        orders.append(names(dataset, (whole(dataset, step) for step in steps)))
        assert len(orders[-1]) == len(set(orders[-1])) == 96
    left_out = [frozenset(f"id{i}" for i in range(100)).difference(order) for order in orders]
    assert orders[0] != orders[1] != orders[2] and len(set(left_out)) == 3


@pytest.mark.parametrize("bucket", [0, 1, 8, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_holds_each_example_once(kind, bucket):
    for count in (1, 5, 6, 7, 23):
        dataset = make(kind, random_parts(kind, valid=count), bucket=bucket)
        batches = evaluation(dataset)
        assert sorted(names(dataset, batches)) == sorted(f"id{i}" for i in range(count))
        assert len(batches) == -(-count // 6) and all(batch["present"].all() for batch in batches[:-1])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_fill_the_last_batch_up_are_one_padding_token_that_does_not_count(kind):
    parts = random_parts(kind)
    final = parts["valid"][-1].fields
    final = final | ({"label": "b"} if "label" in final else {})  # not class 0
    last = evaluation(make(kind, parts | {"valid": (*parts["valid"][:-1], Record(final, ""))}))[-1]
    filling = last["present"] == 0
    assert filling.tolist() == [False] * 5 + [True]  # 23 = 3 * 6 + 5
    ones = {"lengths", "source_lengths"}
    for name, array in last.items():
        expected = 1 if name in ones else -1 if name == "index" else 0
        assert (array[filling] == expected).all(), name


def test_another_seed_gives_another_order_and_the_same_digest():
    one, other = make("classify"), make("classify", seed=4)
    together, elsewhere = (
        {frozenset(names(each, [whole(each, step)])) for step in range(each.steps_per_epoch)}
        for each in (one, other)
    )
    assert not together & elsewhere  # other examples share a batch; not only do batches come in another order
    assert one.digest == other.digest
    assert_equal(one.eval_batch(0, range(6)), other.eval_batch(0, range(6)))


def test_the_epochs_order_is_what_it_always_was():
    """Written down once: a change of this order would make resumed runs read other batches."""
    assert permutation(8, 3, "examples of epoch 0").tolist() == [3, 6, 0, 7, 4, 5, 2, 1]


# Buckets.


def random_buckets(rng):
    count, columns = rng.randint(1, 200), rng.randint(1, 2)
    limits = [rng.randint(5, 60) for _ in range(columns)]
    lengths_NK = np.array([[rng.randint(1, limit) for limit in limits] for _ in range(count)])
    numbers_N = np.sort(np.array(rng.sample(range(1000), count)))
    return Buckets(
        numbers_N, lengths_NK, limits, bucket=rng.choice([0, 1, 4, 8]), batch_size=rng.randint(1, 20)
    )


@pytest.mark.parametrize("seed", range(60))
def test_batches_hold_what_they_should_in_few_shapes_that_fit(seed):
    rng = random.Random(seed)
    buckets = random_buckets(rng)
    N, B = len(buckets.numbers_N), buckets.batch_size
    lengths = dict(zip(buckets.numbers_N.tolist(), buckets.lengths_NK, strict=True))
    for batches, kept in ((buckets.epoch(seed, 2), N // B * B), (buckets.once(), N)):
        numbers = [i for row in batches.numbers_MB for i in row.tolist() if i >= 0]
        assert len(numbers) == len(set(numbers)) == kept and set(numbers) <= set(lengths)
        assert batches.numbers_MB.shape == (-(-kept // B), B)
        for row, shape in zip(batches.numbers_MB, batches.shapes_MK, strict=True):
            assert all((lengths[i] <= shape).all() for i in row.tolist() if i >= 0)
            assert all(
                size == limit or (size < limit and size % (buckets.bucket or 8) == 0)
                for size, limit in zip(shape, buckets.limits, strict=True)
            )
        shapes = {tuple(shape) for shape in batches.shapes_MK.tolist()}
        assert len(shapes) <= min(17, N // B + 1) and (buckets.bucket or len(shapes) <= 1)
        assert (batches.numbers_MB[:-1] >= 0).all()


def test_every_example_has_its_turn_however_rare_its_length():
    lengths_NK = np.array([[5]] * 50 + [[37]])
    buckets = Buckets(np.arange(51), lengths_NK, [40], bucket=8, batch_size=8)
    seen = Counter(i for epoch in range(40) for i in buckets.epoch(0, epoch).numbers_MB.ravel().tolist())
    assert set(seen) == set(range(51)) and min(seen.values()) > 30
    assert buckets.shapes_GK.tolist() == [[8], [40]]


def test_rows_of_like_length_share_a_batch():
    rng = random.Random(0)
    lengths_NK = np.array([[rng.randint(1, 64)] for _ in range(2000)])
    buckets = Buckets(np.arange(2000), lengths_NK, [64], bucket=8, batch_size=16)
    batches = buckets.epoch(0, 0)
    assert lengths_NK.sum() / (batches.shapes_MK.sum() * 16) > 0.85
    assert len(set(batches.shapes_MK[:10, 0].tolist())) > 3  # shapes come mixed, not in order


def test_a_group_takes_no_shape_below_a_group_of_shorter_ones():
    lengths_NK = np.array([[1, 9]] * 4 + [[20, 2]] * 4)
    buckets = Buckets(np.arange(8), lengths_NK, [24, 24], bucket=4, batch_size=4)
    assert buckets.shapes_GK.tolist() == [[4, 12], [20, 12]]


# What the set says of itself.


def test_the_digest_tells_what_changes_the_rows_and_nothing_else():
    parts = random_parts("pairs")
    base = make("pairs", parts)
    moved = {
        part: tuple(Record(each.fields, "elsewhere") for each in records) for part, records in parts.items()
    }
    for same in ({"batch_size": 4}, {"bucket": 0}, {"path": "x"}, {"valid_fraction": 0.3}):
        assert make("pairs", moved, **same).digest == base.digest
    assert (
        make("pairs", parts | {"test": parts["valid"]}, evaluate="test").digest
        == make("pairs", parts | {"test": parts["valid"]}).digest
    )
    first = Record(parts["train"][0].fields | {"target": "w1 w2"}, "")
    others = [
        parts | {"train": (first, *parts["train"][1:])},
        parts | {"train": (*parts["train"][1:], parts["train"][0])},
        parts | {"valid": parts["valid"][1:]},
        parts | {"test": parts["valid"]},
        parts
        | {"valid": (Record(parts["valid"][0].fields | {"references": ("w1",)}, ""), *parts["valid"][1:])},
    ]
    settings = [
        {"wrap": "end"},
        {"max_length": 99},
        {"max_target_length": 99},
        {"min_count": 9},
        {"tokenizer": "byte"},
    ]
    digests = [make("pairs", each).digest for each in others] + [
        make("pairs", parts, **each).digest for each in settings
    ]
    assert len({base.digest, *digests}) == 1 + len(others) + len(settings)
    assert make("tag").digest != make("slots").digest


def test_the_line_about_the_set_has_its_numbers():
    line = make("slots", path="some/folder").describe()
    assert line.startswith("some/folder, digest ") and "\n" not in line
    assert ": slots, train 100, valid 23, 2 classes, 3 tags, 132 tokens (word)" in line


def test_tokens_per_step_counts_no_padding():
    dataset = make("tag", random_parts("tag", train=60))
    steps = range(dataset.steps_per_epoch)
    total = sum(whole(dataset, step)["lengths"].sum() for step in steps)
    assert dataset.tokens_per_step == pytest.approx(total / len(steps))
    pairs = make("pairs", random_parts("pairs", train=60))
    total = sum(whole(pairs, step)["lengths"].sum() for step in range(10))
    assert pairs.tokens_per_step == pytest.approx(total / 10)


def test_guessing_takes_the_most_frequent_answer_of_training():
    def record(words, tags, label):
        return Record({"words": tuple(words.split()), "tags": tuple(tags.split()), "label": label}, "")

    train = [
        record("new york", "B-loc I-loc", "a"),
        record("the new day", "O O O", "a"),
        record("new", "O", "b"),
    ]
    valid = [
        record("new york", "B-loc I-loc", "a"),
        record("york x", "B-loc O", "b"),
        record("the", "O", "c"),
    ]
    # york is guessed I-loc, everything else O: two entities, of which the second is right.
    assert guess_scores(train, valid) == {
        "majority_accuracy": 1 / 3,
        "frequent_tag_accuracy": 3 / 5,
        "frequent_tag_f1": 0.5,
    }
    assert make("pairs").baselines() == {}
    assert make("classify").baselines().keys() == {"majority_accuracy"}


def test_guessing_reads_tags_in_the_scheme_of_all_of_training():
    """Those evaluated look like IOE, which is none."""
    words, tags = ("one", "two", "three"), ("B-x", "I-x", "E-x")
    train = [Record({"words": words, "tags": tags}, "")]
    found = guess_scores(train, [Record({"words": words[1:], "tags": tags[1:]}, "")])
    assert found["frequent_tag_f1"] == found["frequent_tag_accuracy"] == 1


# What is refused.


@pytest.mark.parametrize(
    "settings, complaint",
    [
        (
            {"kind": "clasify"},
            f"kind='clasify' is none of {', '.join(record.KINDS)}; did you mean 'classify'?",
        ),
        ({"tokenizer": "words"}, "did you mean 'word'?"),
        (
            {"characters": True, "tokenizer": "byte"},
            "characters=true spells words, and tokenizer=byte has none",
        ),
        ({"characters": True, "kind": "pairs"}, "and kind=pairs is read by no model of spelling"),
        ({"wrap": "bth"}, "did you mean 'both'?"),
        ({"max_length": 4}, "max_length=4 must be at least 5"),
        ({"max_target_length": 1}, "max_target_length=1 must be at least 2"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"min_count": 0}, "min_count=0"),
        ({"bucket": -1}, "bucket=-1"),
        ({"vocab_size": -1}, "vocab_size=-1"),
        ({"valid_fraction": 1.0}, "valid_fraction=1.0"),
        ({"columns": ("text",)}, "columns='text' is not field=column"),
        ({"tokenizer": "wordpiece"}, "needs vocab_path"),
        ({"tokenizer": "char", "vocab_path": "x"}, "is not read by tokenizer=char"),
        ({"tokenizer": "sentencepiece"}, "needs vocab_size"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, complaint):
    assert complaint in refusal(ExamplesConfig, error=ConfigError, **settings)


def test_records_that_cannot_be_trained_with_are_refused(tmp_path):
    parts = random_parts("classify", train=5)
    assert "stdlib: has no test part, only train, valid" in refusal(make, "classify", parts, evaluate="test")
    assert "5 training examples do not fill a batch of 6" in refusal(make, "classify", parts)
    one = tuple(Record(each.fields | {"label": "a"}, "") for each in parts["train"])
    assert "all 5 training examples have the label 'a'" in refusal(make, "classify", parts | {"train": one})
    assert "or a greater max_length" in refusal(
        make, "pairs", random_parts("pairs", train=9, longest=30), max_length=5, max_target_length=2
    )
    WordTokenizer(("<pad>", "<unk>", "a")).save(tmp_path)
    message = refusal(make, "pairs", vocab_path=str(tmp_path))
    assert f"{tmp_path}: this vocabulary has no marks" in message


@pytest.mark.parametrize("kind", ["tag", "slots"])
def test_tags_of_no_scheme_are_refused_before_training(kind):
    """The metrics would refuse them at the first evaluation."""
    parts = random_parts(kind)
    odd = [
        Record(r.fields | {"tags": ("noun",) * len(r.fields["tags"])}, r.where) for r in parts["valid"][:2]
    ]
    message = refusal(make, kind, parts | {"valid": (*odd, *parts["valid"][2:])})
    assert message.startswith("stdlib: tags 'B-x' and 'noun' are not of one scheme; write O")


# From files.


def test_examples_are_read_from_files_by_the_columns_given(tmp_path):
    lines = [json.dumps({"review": f"w{i} good", "stars": str(i % 3)}) for i in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    cfg = ExamplesConfig(path=str(tmp_path / "a.jsonl"), columns=("text=review", "label=stars"), batch_size=4)
    dataset = load_examples(cfg, seed=0)
    assert dataset.labels == ("0", "1", "2") and sum(map(len, dataset.parts.values())) == 40
    copied = dataclasses.replace(cfg, path=str((tmp_path / "a.jsonl").rename(tmp_path / "b.jsonl")))
    assert load_examples(copied, seed=0).digest == dataset.digest


@published
def test_sst2_has_the_13523_words_of_flaxs_example():
    cfg = ExamplesConfig(path=str(DATA / "glue-sst2"), min_count=3, wrap="both", max_length=60, batch_size=64)
    dataset = load_examples(cfg, seed=0)
    assert dataset.sizes == {"vocab_size": 13523, "num_classes": 2} and dataset.labels == ("0", "1")
    assert dataset.tokenizer.words[:4] == ("<pad>", "<unk>", "<s>", "</s>")
    assert dataset.baselines()["majority_accuracy"] == pytest.approx(444 / 872)
    assert dataset.steps_per_epoch == 67349 // 64


@published
def test_snips_has_its_words_tags_and_intents():
    dataset = load_examples(ExamplesConfig(kind="slots", path=str(DATA / "snips"), batch_size=16), 0, "test")
    assert dataset.sizes == {"vocab_size": 11418 + 2, "num_classes": 7, "num_tags": 72}
    assert sum(batch["lengths"][batch["present"] > 0].sum() for batch in evaluation(dataset)) == 6354


@published
def test_multi30k_and_scan_have_their_joint_vocabularies():
    columns = ("source=en", "target=de")
    cfg = ExamplesConfig(kind="pairs", path=str(DATA / "multi30k-bpe"), columns=columns)
    assert load_examples(cfg, 0, "test2016").sizes == {"vocab_size": 9708 + 4}
    scan = load_examples(ExamplesConfig(kind="pairs", path=str(DATA / "scan" / "length")), 0, "test")
    assert scan.sizes == {"vocab_size": 13 + 6 + 4}
    assert (
        max(scan.eval_batch(i, range(32))["weights"].sum(1).max() for i in range(scan.num_eval_batches)) == 49
    )
