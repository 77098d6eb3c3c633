"""Masked texts: how much is masked and by what, where pairs come from, and what a batch depends on."""

import dataclasses
import random

import numpy as np
import pytest

from zoo.data import MaskedConfig, load, load_file, load_tokenizer
from zoo.data.files import Document
from zoo.data.masked.chunks import make_chunks
from zoo.data.masked.rows import MaskedRows
from zoo.data.masked.sentences import Sentences, encode_sentences, split
from zoo.data.order import Order, draw
from zoo.data.tokenizers.bpe import BPETokenizer, byte_symbols
from zoo.data.tokenizers.word_piece import WordPieceTokenizer
from zoo.errors import ConfigError, DataError

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PIECES = (*SPECIAL, *(f"w{i}" for i in range(60)), *(f"##{i}" for i in range(40)))
TOKENIZER = WordPieceTokenizer(PIECES)
CFG = MaskedConfig(vocab_path="x", length=32, batch_size=8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


def sentences_of(*documents) -> Sentences:
    """Documents given as the sizes of their sentences; tokens are drawn, most of them ordinary words."""
    sizes = [size for document in documents for size in document]
    draws = np.random.default_rng(0)
    ids = draws.choice(np.arange(5, len(PIECES)), sum(sizes))
    ids[draws.random(len(ids)) < 0.02] = UNK
    counts = [len(document) for document in documents]
    return Sentences(ids.astype(np.uint16), np.cumsum([0, *sizes]), np.cumsum([0, *counts]))


def many_documents(count=40, seed=0):
    rng = random.Random(seed)
    return sentences_of(*([rng.randint(1, 12) for _ in range(rng.randint(3, 40))] for _ in range(count)))


def layout_of(cfg, sentences=None) -> MaskedRows:
    sentences = many_documents() if sentences is None else sentences
    return MaskedRows(sentences.ids, make_chunks(sentences, cfg, [7]), TOKENIZER, cfg)


def rows_of(layout, *, key=1, rows=None):
    rows = np.arange(layout.num_rows) if rows is None else np.asarray(rows)
    return layout.rows(rows, np.full(len(rows), key, np.uint64))


def original(found):
    """The tokens of rows with the masked ones put back."""
    tokens = found["tokens"].copy()
    row, place = np.nonzero(found["weights"])
    tokens[row, found["picked"][row, place]] = found["targets"][row, place]
    return tokens


def is_picked(found):
    picked = np.zeros(found["tokens"].shape, bool)
    row, place = np.nonzero(found["weights"])
    picked[row, found["picked"][row, place]] = True
    return picked


def assert_equal(found, other):
    assert found.keys() == other.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


# --- how much is masked ---------------------------------------------------------------------------


def within(share, want, count):
    """Four standard deviations of a share of `count` independent draws: one test in 15,000 fails by chance,
    and draws are the same each time."""
    return abs(share - want) < 4 * np.sqrt(want * (1 - want) / count)


@pytest.mark.parametrize("words", ["pieces", "whole"])
def test_eighty_ten_ten(words):
    layout = layout_of(dataclasses.replace(CFG, words=words))
    read, target = [], []
    for key in range(10):
        found = rows_of(layout, key=key)
        read.append(found["tokens"][is_picked(found)])
        target.append(found["targets"][found["weights"] > 0])
    read, target = np.concatenate(read), np.concatenate(target)
    count, ordinary = len(read), len(PIECES) - 5
    assert count > 4000
    assert within((read == MASK).mean(), 0.8, count)
    assert within((read == target).mean(), 0.1 + 0.1 / ordinary, count)
    others = read[(read != MASK) & (read != target)]
    assert within(len(others) / count, 0.1 * (1 - 1 / ordinary), count)
    counts = np.bincount(others, minlength=len(PIECES))[5:]  # every ordinary token as often as any other
    assert (counts > 0).mean() > 0.9 and counts.max() < 4 * counts.mean()


def test_the_shares_are_those_of_the_configuration():
    found = rows_of(layout_of(dataclasses.replace(CFG, masked_share=0.0, random_share=0.0)))
    np.testing.assert_array_equal(found["tokens"], original(found))
    found = rows_of(layout_of(dataclasses.replace(CFG, masked_share=1.0, random_share=0.0)))
    assert (found["tokens"][is_picked(found)] == MASK).all()
    found = rows_of(layout_of(dataclasses.replace(CFG, masked_share=0.0, random_share=1.0)))
    assert MASK not in found["tokens"]


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_each_chunk_has_its_rate_of_predictions_and_one_at_least(rate):
    layout = layout_of(dataclasses.replace(CFG, mask_rate=rate, length=48))
    found = rows_of(layout)
    tokens, picked = original(found), is_picked(found)
    sizes = []
    for row in range(layout.num_rows):
        for segment in range(1, found["segments"][row].max() + 1):
            inside = found["segments"][row] == segment
            words = (inside & (tokens[row] > SEP)).sum() + (inside & (tokens[row] == UNK)).sum()
            assert (picked[row] & inside).sum() == max(1, round(rate * words))
            sizes.append(words)
    assert min(sizes) < 8 and max(sizes) == 46
    assert found["picked"].shape[1] == np.ceil(rate * 48)


def test_marks_and_unknown_words_are_never_predicted_and_never_stand_in_for_others():
    for pairs in ("none", "next_sentence"):
        found = rows_of(layout_of(dataclasses.replace(CFG, pairs=pairs, mask_rate=0.5)))
        assert found["targets"][found["weights"] > 0].min() > MASK
        read = found["tokens"][is_picked(found)]
        assert set(np.unique(read[read <= MASK])) == {MASK}


def test_every_word_is_predicted_equally_often():
    layout = layout_of(CFG, sentences_of([30], [5, 5]))
    counts = sum(is_picked(rows_of(layout, key=key)).astype(int) for key in range(600))
    ordinary = original(rows_of(layout)) > MASK
    assert not counts[~ordinary].any()
    per_row = [counts[row][ordinary[row]] for row in range(len(counts))]
    for row in per_row:  # Poisson-like counts of mean about 90
        assert abs(row - row.mean()).max() < 5 * np.sqrt(row.mean())


def test_whole_words_stay_whole():
    layout = layout_of(dataclasses.replace(CFG, words="whole", mask_rate=0.4))
    found = rows_of(layout)
    tokens, picked = original(found), is_picked(found)
    goes_on = TOKENIZER.goes_on_V[tokens]
    follows = goes_on[:, 1:] & (tokens[:, :-1] > MASK)
    assert follows.sum() > 500
    np.testing.assert_array_equal(picked[:, 1:][follows], picked[:, :-1][follows])
    pieces = is_picked(rows_of(layout_of(dataclasses.replace(CFG, mask_rate=0.4))))
    assert (pieces[:, 1:][follows] != pieces[:, :-1][follows]).any()


# --- when it changes ------------------------------------------------------------------------------


def write_documents(folder, count=60, seed=0):
    rng = random.Random(seed)
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(PIECES))
    for part, number in {"train": count, "valid": count // 3}.items():
        (folder / part).mkdir()
        for i in range(number):
            lines = [
                " ".join(
                    f"w{rng.randrange(60)}" + rng.choice(["", "7", "23"]) for _ in range(rng.randint(2, 9))
                )
                for _ in range(rng.randint(2, 20))
            ]
            (folder / part / f"{i:03}.txt").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture
def cfg(tmp_path):
    path = write_documents(tmp_path / "text")
    return dataclasses.replace(CFG, path=path, vocab_path=path)


def epoch(dataset, number):
    """All rows of an epoch in the layout's order."""
    rows = dataset.training.num_rows
    wanted = range(number * rows, (number + 1) * rows)
    found, order = dataset.training_rows(wanted), np.argsort(Order(dataset.training, 3).places(wanted)[0])
    return {name: array[order] for name, array in found.items()}


def test_dynamic_masks_differ_between_epochs_and_static_ones_do_not(cfg):
    dynamic = load(cfg, seed=3)
    one, two = epoch(dynamic, 0), epoch(dynamic, 1)
    np.testing.assert_array_equal(original(one), original(two))
    assert (is_picked(one) != is_picked(two)).any(axis=1).mean() > 0.9
    static = load(dataclasses.replace(cfg, masking="static"), seed=3)
    assert_equal(epoch(static, 0), epoch(static, 1))
    assert (is_picked(epoch(static, 0)) != is_picked(one)).any()


def test_copies_of_a_static_text_are_masked_each_in_its_own_way(cfg):
    once = load(dataclasses.replace(cfg, masking="static", short_rate=0.0), seed=3)
    thrice = load(dataclasses.replace(cfg, masking="static", short_rate=0.0, duplicates=3), seed=3)
    count = len(once.training.chunks)
    assert len(thrice.training.chunks) == 3 * count
    layout = MaskedRows(
        thrice.training.ids, thrice.training.chunks, TOKENIZER, dataclasses.replace(cfg, layout="padded")
    )
    found = rows_of(layout)
    copies = np.split(is_picked(found), 3)
    np.testing.assert_array_equal(original(found)[:count], original(found)[count : 2 * count])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (copies[one] != copies[other]).any(axis=1).mean() > 0.5


def test_evaluation_masks_are_the_same_each_time_and_for_every_seed(cfg):
    first, other = load(cfg, seed=0), load(cfg, seed=1)
    for i in range(first.num_eval_batches):
        assert_equal(first.eval_batch(i, range(8)), other.eval_batch(i, range(8)))
        assert_equal(first.eval_batch(i, range(8)), first.eval_batch(i, range(8)))


def test_evaluation_reads_the_whole_part_once(cfg):
    dataset = load(cfg, seed=0)
    parts = [dataset.eval_batch(i, range(8)) for i in range(dataset.num_eval_batches)]
    words = np.sort(np.concatenate([original(part)[original(part) > MASK] for part in parts]))
    sentences = encode_sentences(dataset.corpus.parts["valid"], dataset.tokenizer)
    np.testing.assert_array_equal(words, np.sort(sentences.ids[sentences.ids > MASK]))


@pytest.mark.parametrize("pairs", ["none", "next_sentence"])
def test_a_batch_is_a_function_of_seed_and_step(cfg, pairs):
    cfg = dataclasses.replace(cfg, pairs=pairs)
    dataset, fresh = load(cfg, seed=3), load(cfg, seed=3)
    steps = [0, 1, 2, 50, 10**6]
    forward = {step: dataset.batch(step, range(8)) for step in steps}
    for step in reversed(steps):
        assert_equal(fresh.batch(step, range(8)), forward[step])
        for rows in (range(3), range(3, 8), range(5, 6), range(0)):
            part = {name: array[list(rows)] for name, array in forward[step].items()}
            assert_equal(fresh.batch(step, rows), part)
    assert (load(cfg, seed=4).batch(0, range(8))["tokens"] != forward[0]["tokens"]).any()
    assert {array.dtype for array in forward[0].values()} == {np.dtype("int32"), np.dtype("float32")}
    assert len({tuple(batch["picked"].shape) for batch in forward.values()}) == 1


def test_a_file_is_evaluated_in_the_runs_vocabulary(cfg, tmp_path):
    dataset = load(cfg, seed=0)
    dataset.save(tmp_path / "run")
    (tmp_path / "new.txt").write_text("w1 w2 w37 w4\nw5 w6")
    tokenizer = load_tokenizer(tmp_path / "run" / "tokenizer")
    found = load_file(cfg, tmp_path / "new.txt", tokenizer, {}).eval_batch(0, range(8))
    read = original(found)[0]
    assert dataset.tokenizer.decode(read[read > MASK]) == "w1 w2 w37 w4 w5 w6"
    assert not found["weights"][1:].any() and not found["segments"][1:].any()


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", ["none", "next_sentence", "sentence_order"])
def test_packed_rows_hold_what_padded_ones_do_with_the_same_masks(pairs):
    packed = layout_of(dataclasses.replace(CFG, pairs=pairs))
    padded = layout_of(dataclasses.replace(CFG, pairs=pairs, layout="padded"))
    assert packed.num_rows < padded.num_rows == len(padded.chunks)
    alone, together = rows_of(padded), rows_of(packed)
    assert together["segments"].max() > 1 and alone["segments"].max() == 1

    def every_chunk(found):
        chunks = []
        for row in range(len(found["tokens"])):
            for segment in range(1, found["segments"][row].max() + 1):
                inside = found["segments"][row] == segment
                names = ["tokens", "positions"] + ["token_types"] * (pairs != "none")
                arrays = [found[name][row][inside] for name in names]
                arrays += [original(found)[row][inside], is_picked(found)[row][inside]]
                if pairs != "none":
                    assert found["tokens"][row, found["firsts"][row, segment - 1]] == CLS
                    arrays.append([found["labels"][row, segment - 1]])
                chunks.append(tuple(map(tuple, arrays)))
        return sorted(chunks)

    assert every_chunk(together) == every_chunk(alone)


def test_a_row_begins_with_its_marks_and_positions_restart():
    found = rows_of(layout_of(CFG))
    starts = (found["positions"] == 0) & (found["segments"] > 0)
    np.testing.assert_array_equal(starts, found["tokens"] == CLS)
    ends = np.diff(found["segments"], axis=1, append=0) != 0
    assert (found["tokens"][ends & (found["segments"] > 0)] == SEP).all()
    assert (found["tokens"][found["segments"] == 0] == PAD).all()


# --- pairs ----------------------------------------------------------------------------------------


def numbered(count=30, seed=1):
    """Sentences whose tokens are all different, so that each says where it is from."""
    rng = random.Random(seed)
    sentences = sentences_of(*([rng.randint(1, 9) for _ in range(rng.randint(2, 30))] for _ in range(count)))
    return dataclasses.replace(sentences, ids=np.arange(len(sentences.ids)) + 5)


def sides_of(cfg, sentences, keys=(1, 2, 3)):
    """(places of a, places of b, label) of every chunk, places in the running text."""
    chunks = make_chunks(sentences, cfg, list(keys))
    for a, a_end, b, b_end, label in zip(
        *(chunks.a_begin, chunks.a_end, chunks.b_begin, chunks.b_end, chunks.labels), strict=True
    ):
        yield range(a, a_end), range(b, b_end), label


def document_of(sentences, place):
    return np.searchsorted(sentences.starts[sentences.documents], place, side="right") - 1


def test_the_second_text_goes_on_from_the_first_or_is_from_another_document():
    cfg, sentences = dataclasses.replace(CFG, pairs="next_sentence"), numbered()
    pairs = list(sides_of(cfg, sentences))
    for a, b, label in pairs:
        assert 0 < len(a) and 0 < len(b) and len(a) + len(b) <= 29
        assert a.start in sentences.starts and a.stop in sentences.starts and b.start in sentences.starts
        if label == 0:
            assert b.start == a.stop and document_of(sentences, b[-1]) == document_of(sentences, a[0])
        else:
            assert document_of(sentences, b[0]) != document_of(sentences, a[0])
            assert document_of(sentences, b[-1]) == document_of(sentences, b[0])
    labels = np.array([label for _, _, label in pairs])
    assert len(labels) > 400 and 0.45 < labels.mean() < 0.58  # a document's last sentence alone has label 1
    others = {document_of(sentences, b[0]) for _, b, label in pairs if label}
    assert len(others) == 30


def test_the_labels_of_long_documents_are_balanced():
    cfg = dataclasses.replace(CFG, pairs="next_sentence")
    labels = [label for *_, label in sides_of(cfg, sentences_of(*([6] * 3000 for _ in range(3))))]
    assert len(labels) > 4000 and within(np.mean(labels), 0.5, len(labels))


def test_every_sentence_is_read_as_a_first_or_a_following_text():
    for pairs in ("none", "next_sentence"):
        cfg, sentences = dataclasses.replace(CFG, pairs=pairs), numbered()
        read = [
            place
            for a, b, label in sides_of(cfg, sentences, [1])
            for place in [*a, *(b if not label else [])]
        ]
        assert sorted(read) == list(range(len(sentences.ids)))


def test_sentence_order_swaps_half_of_the_consecutive_texts():
    cfg, sentences = dataclasses.replace(CFG, pairs="sentence_order"), numbered()
    labels = []
    for a, b, label in sides_of(cfg, sentences):
        first, second = (b, a) if label else (a, b)
        assert first.stop == second.start and len(first) and len(second)
        assert document_of(sentences, first[0]) == document_of(sentences, second[-1])
        labels.append(label)
    assert len(labels) > 300 and within(np.mean(labels), 0.5, len(labels))


def test_types_tell_the_two_texts_apart():
    found = rows_of(layout_of(dataclasses.replace(CFG, pairs="next_sentence")))
    for row in range(20):
        for segment in range(1, found["segments"][row].max() + 1):
            inside = found["segments"][row] == segment
            separators = np.flatnonzero(found["tokens"][row][inside] == SEP)
            want = np.arange(inside.sum()) > separators[0]
            assert len(separators) == 2 and separators[1] == inside.sum() - 1
            np.testing.assert_array_equal(found["token_types"][row][inside], want)


def test_a_tenth_of_the_chunks_ends_early():
    sizes = [[1] * 5000]
    full, some = (
        make_chunks(sentences_of(*sizes), dataclasses.replace(CFG, short_rate=rate), [5]).num_tokens[:-1]
        for rate in (0.0, 0.1)
    )
    assert (full == 30).all()
    assert 0.03 < (some < 30).mean() < 0.2 and some.min() >= 2


def test_one_document_has_no_other_to_draw_from():
    with pytest.raises(DataError, match="set data.pairs to sentence_order"):
        make_chunks(sentences_of([3, 4, 5]), dataclasses.replace(CFG, pairs="next_sentence"), [0])


# --- sentences ------------------------------------------------------------------------------------


def test_sentences_end_at_lines_and_behind_full_stops():
    text = 'It rains. "Does it?" Yes, 3.5 mm e.g. here.\n\n  def f(x):\n    return x.y\n'
    want = ["It rains. ", '"Does it?" Yes, 3.5 mm e.g. here.\n\n', "  def f(x):\n", "    return x.y\n"]
    assert split(text) == want and "".join(split(text)) == text
    assert split("") == []


def test_sentences_are_the_documents_tokens_with_their_borders():
    documents = [
        Document("a", "w1 w2. W3\n\nw4 w5", "a"),
        Document("b", "\n \n", "b"),
        Document("c", "w6", "c"),
    ]
    found = encode_sentences(documents, TOKENIZER)
    assert found.documents.tolist() == [0, 3, 4]
    together = np.concatenate([TOKENIZER.encode(document.text) for document in documents])
    np.testing.assert_array_equal(found.ids, together)


def test_a_long_sentence_is_cut_into_parts():
    found = sentences_of([3, 11, 2], [8]).cut(4)
    assert found.starts.tolist() == [0, 3, 7, 11, 14, 16, 20, 24] and found.documents.tolist() == [0, 5, 7]


# --- baselines and refusals -----------------------------------------------------------------------


def test_the_unigram_baseline_is_that_of_counting(cfg):
    dataset = load(cfg, seed=0)
    parts = [dataset.eval_batch(i, range(8)) for i in range(dataset.num_eval_batches)]
    targets = np.concatenate([part["targets"][part["weights"] > 0] for part in parts]).tolist()
    train = encode_sentences(dataset.corpus.parts["train"], dataset.tokenizer).ids.tolist()
    counts = {token: train.count(token) + 1 for token in range(5, len(PIECES))}
    best = max(counts, key=lambda token: (counts[token], -token))
    found = dataset.baselines()
    assert found.keys() == {"unigram_accuracy", "unigram_loss"}
    assert found["unigram_accuracy"] == pytest.approx(targets.count(best) / len(targets))
    nats = [np.log(sum(counts.values()) / counts[token]) for token in targets]
    assert found["unigram_loss"] == pytest.approx(np.mean(nats))


def test_a_vocabulary_without_a_mask_is_one_line(cfg, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(piece for piece in PIECES if piece != "[MASK]"))
    with pytest.raises(ConfigError, match=r"has no token for the mask; give one with") as caught:
        load(dataclasses.replace(cfg, vocab_path=str(tmp_path)), seed=0)
    assert "\n" not in str(caught.value)


def bpe(*marks):
    pieces = [*marks, *byte_symbols(), "an", "\u0120an"]
    return BPETokenizer({piece: i for i, piece in enumerate(pieces)}, (("a", "n"), ("\u0120", "an")))


def test_words_of_byte_pairs_begin_with_a_blank():
    tokenizer = bpe("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    ids = tokenizer.encode("ana b\nan")
    assert tokenizer.goes_on_V[ids].tolist() == [True, True, False, True, False, True]
    assert not tokenizer.goes_on_V[list(tokenizer.special_ids)].any()


def test_a_text_in_robertas_pieces_is_masked_and_gpt2s_are_refused(cfg, tmp_path):
    bpe("<s>", "<pad>", "</s>", "<unk>", "<mask>").save(tmp_path / "roberta")
    bpe("<|endoftext|>").save(tmp_path / "gpt2")
    cfg = dataclasses.replace(cfg, tokenizer="bpe", vocab_path=str(tmp_path / "roberta"), words="whole")
    dataset = load(cfg, seed=0)
    found = dataset.batch(0, range(8))
    assert (found["tokens"][:, 0] == 0).all() and 4 in found["tokens"] and found["weights"].sum() > 10
    with pytest.raises(ConfigError, match="has no token for the mask and the padding"):
        load(dataclasses.replace(cfg, vocab_path=str(tmp_path / "gpt2")), seed=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer": "sentencepiece"}, "tokenizer='sentencepiece' has no token for a masked one"),
        ({"pairs": "next_sentense"}, "did you mean 'next_sentence'"),
        ({"mask_rate": 0.0}, "mask_rate=0.0"),
        ({"masked_share": 0.8, "random_share": 0.3}, "are more than 1 together"),
        ({"short_rate": 1.5}, "short_rate=1.5"),
        ({"duplicates": 2}, "set it to 1, or masking to static"),
        ({"length": 7}, "length=7 must be at least 8"),
        ({"vocab_path": "", "vocab_size": 0}, "needs vocab_path"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, said):
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(CFG, **changes)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_keys_are_drawn_for_purposes_of_their_own():
    purposes = ["masks", "masks of epoch 0", "masks of epoch 1", "chunks of copy 0", "masks of evaluation"]
    assert len({draw(0, purpose) for purpose in purposes}) == len(purposes)
