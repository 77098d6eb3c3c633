"""Word vectors: scores of chosen rows, losses and gradients by hand, how examples are drawn, and learning."""

import dataclasses
import functools
import itertools
from collections import Counter

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training

from zoo import optim, schedules
from zoo.data import cooccurrences, draws
from zoo.data.cooccurrences import CooccurrencesConfig, count_cells, load_cooccurrences
from zoo.data.sentences import Sentences, read_sentences
from zoo.data.word_pairs import Stretches, WordPairsConfig, keep_probability, load_word_pairs
from zoo.errors import ConfigError, DataError
from zoo.feed import evaluation_batches, place_rows, training_batches
from zoo.inference.words import neighbours
from zoo.lettered import stored_size
from zoo.mesh import MeshConfig, make_mesh
from zoo.models.pure import Model
from zoo.models.word_vectors import SIZES, WordVectors, WordVectorsConfig
from zoo.pretrained.tables import vectors_of
from zoo.step import TrainStep
from zoo.tasks.word_vectors import CBOW, GloVe, SkipGram

V, D = 9, 4


def model_of(bias=False, dtype="float64", vocab_size=V, d_model=D):
    config = WordVectorsConfig(vocab_size=vocab_size, d_model=d_model, bias=bias, dtype=dtype)
    return Model(config, WordVectors(config))


def parameters(model, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda spec: rng.standard_normal(spec.shape), model.abstract())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A text of 12 words of very different frequency in lines of 2 to 9."""
    monkeypatch.setattr(cooccurrences, "HELD_OUT", 0.2)  # so few words make few cells
    rng = np.random.default_rng(5)
    names = [f"w{i}" for i in range(12)]
    share = 1 / np.arange(1, 13)
    for part, lines in (("train", 700), ("valid", 60)):
        rows = [" ".join(rng.choice(names, rng.integers(2, 10), p=share / share.sum())) for _ in range(lines)]
        (tmp_path / f"{part}.txt").write_text("\n".join(rows) + "\n")
    return str(tmp_path)


def assert_plausible(observed, expected):
    """Pearson's chi-square is within five standard deviations of its mean."""
    observed, expected = np.asarray(observed, float), np.asarray(expected, float)
    assert observed.sum() == pytest.approx(expected.sum()) and expected.min() > 5
    freedom = len(observed) - 1
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


# --- the model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(3,), (3, 5)], ids=["words", "rows of words"])
def test_scores_of_chosen_rows_are_those_columns_of_all_scores(bias, shape):
    with jax.enable_x64(True):
        model = model_of(bias)
        params, rng = parameters(model), np.random.default_rng(1)
        x, _ = model.features(params, rng.integers(0, V, shape))
        rows_BC = rng.integers(0, V, (3, 7))
        whole = np.asarray(model.readout(params, x))
        index = rows_BC.reshape(3, *[1] * (len(shape) - 1), 7)
        chosen = np.take_along_axis(whole, np.broadcast_to(index, (*shape, 7)), axis=-1)
        np.testing.assert_allclose(model.readout(params, x, rows_BC), chosen, rtol=1e-12)


def test_a_score_is_the_product_of_two_vectors_and_their_biases():
    with jax.enable_x64(True):
        model = model_of(bias=True)
        params = parameters(model)
        x, _ = model.features(params, np.array([2]))
        score = model.readout(params, x, np.array([[7]]))[0, 0]
        by_hand = params["words"]["table"][2] @ params["contexts"]["table"][7]
        assert score == pytest.approx(by_hand + params["word_bias"][2] + params["context_bias"][7], rel=1e-12)


def test_the_published_sizes_have_the_published_counts():
    # 3 million words of 300, in two tables; GloVe's files hold the sum of its tables without the biases.
    assert SIZES["word2vec_news"].num_params == 2 * 3_000_000 * 300
    assert SIZES["glove_6b"].num_params == 2 * 400_000 * 301


def test_the_gradient_of_sampled_rows_touches_no_others():
    model = model_of(dtype="float32")
    params = jax.tree.map(jnp.float32, parameters(model))

    def total(params):
        x, _ = model.features(params, np.array([1, 2]))
        return model.readout_stored(params, x, np.array([[3], [4]])).sum()

    gradient = jax.grad(total)(params)
    assert np.flatnonzero(np.abs(gradient["words"]["table"]).sum(1)).tolist() == [1, 2]
    assert np.flatnonzero(np.abs(gradient["contexts"]["table"]).sum(1)).tolist() == [3, 4]


@pytest.mark.parametrize("bias", [False, True])
def test_what_pads_the_vocabulary_never_shows(bias):
    model = model_of(bias, "float32")
    silent, loud = (families.parameters(model, padding=padding) for padding in (0.0, 50.0))
    tokens, stored = np.arange(V)[:, None], stored_size("V", V)
    whole = model.apply(silent, tokens)
    assert whole.shape == (V, 1, V) and stored > V
    np.testing.assert_array_equal(model.apply(loud, tokens), whole)
    every = model.readout_stored(loud, model.features(loud, tokens)[0])
    np.testing.assert_array_equal(jax.nn.softmax(every)[..., V:], np.zeros((V, 1, stored - V)))


def test_features_have_the_dtype_asked_for_and_scores_at_least_float32():
    for dtype, scores in (("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")):
        with jax.enable_x64(True):
            model = model_of(bias=True, dtype=dtype)
            params = jax.tree.map(jnp.asarray, families.parameters(model))
            x, _ = model.features(params, np.array([[1, 2]]))
            assert x.dtype == dtype
            assert model.readout(params, x).dtype == model.readout(params, x, np.array([[1]])).dtype == scores


@training.eight_devices
@pytest.mark.parametrize("task", [SkipGram(), CBOW(), GloVe()], ids=lambda task: type(task).__name__)
def test_training_is_the_same_where_rows_words_and_width_are_split(task):
    whole, split = (steps_on(sizes, task) for sizes in ((1, 1, 1), (2, 2, 2)))
    np.testing.assert_allclose(split, whole, rtol=2e-5)  # sums of float32 in another order
    assert whole[-1] < whole[0]


def steps_on(sizes, task):
    """The losses of five steps on a mesh."""
    model, mesh = model_of(isinstance(task, GloVe), "float32", 20, 8), training.mesh_of(sizes)
    rng = np.random.default_rng(0)
    cells = {name: rng.integers(0, 20, 16).astype(np.int32) for name in ("words", "contexts")}
    cells |= {"counts": rng.uniform(1, 200, 16).astype(np.float32), "present": np.ones(16, np.float32)}
    examples = cells if isinstance(task, GloVe) else examples_of(B=16)
    tx = optim.transform(
        optim.AdamW(learning_rate=0.1), schedules.Linear(warmup_steps=1), 5, model.abstract()
    )
    parts = TrainStep(model, task, tx, seed=0)
    with jax.set_mesh(mesh):
        state, step, losses = parts.init_on(mesh), parts.compiled(mesh), []
        for _ in range(5):
            rows = task.batch(examples)
            batch = place_rows(
                lambda span, rows=rows: jax.tree.map(lambda x: x[span.start : span.stop], rows), 16, mesh
            )
            state, numbers = step(state, batch)
            losses.append(float(numbers["loss"]))
    return losses


# --- losses and gradients by hand -----------------------------------------------------------------


def sigmoid(score):
    return 1 / (1 + np.exp(-score))


def examples_of(seed=0, B=3, T=4, window=2, C=5):
    """A few rows, with two sentences in each and places where nothing is."""
    rng = np.random.default_rng(seed)
    S = T + 2 * window
    segments = np.sort(rng.integers(1, 3, (B, S)), axis=1)
    segments[0, :window] = 0  # the beginning of the text
    segments[-1, -window - 2 :] = 0  # and its end
    weights = np.ones((B, T), np.float32)
    weights[-1, -2:] = 0
    return {
        "tokens": (rng.integers(0, V, (B, S)) * (segments > 0)).astype(np.int32),
        "segments": segments.astype(np.int32),
        "windows": rng.integers(1, window + 1, (B, T)).astype(np.int32),
        "weights": weights,
        "negatives": rng.integers(0, V, (B, C)).astype(np.int32),
    }


def windows_by_hand(examples):
    """(row, centre word, words in its window) of every centre, by a slow loop."""
    margin = (examples["tokens"].shape[1] - examples["windows"].shape[1]) // 2
    for b, t in np.ndindex(*examples["windows"].shape):
        if not examples["weights"][b, t]:
            continue
        here, reach = t + margin, examples["windows"][b, t]
        places = [s for s in range(here - reach, here + reach + 1) if s != here]
        near = [s for s in places if examples["segments"][b, s] == examples["segments"][b, here]]
        yield b, examples["tokens"][b, here], [examples["tokens"][b, s] for s in near]


def add_logistic(total, gradients, word_D, context, sign, weight, spread):
    """Adds weight * -log sigmoid(sign * word . context) and its gradients, the word's over `spread`."""
    contexts = total["contexts"]
    score = sign * word_D @ contexts[context]
    slope = -sign * sigmoid(-score) * weight
    gradients["contexts"][context] += slope * word_D
    for word, share in spread:
        gradients["words"][word] += share * slope * contexts[context]
    total["loss"] += weight * -np.log(sigmoid(score))


def skip_gram_by_hand(params, examples, negatives):
    total = {name: params[name]["table"] for name in ("words", "contexts")} | {"loss": 0.0, "weight": 0}
    gradients = {name: np.zeros_like(total[name]) for name in ("words", "contexts")}
    for b, centre, near in windows_by_hand(examples):
        for context in near:
            word_D, spread = total["words"][centre], [(centre, 1.0)]
            add_logistic(total, gradients, word_D, context, +1, 1.0, spread)
            for made_up in examples["negatives"][b]:
                share = negatives / len(examples["negatives"][b])
                add_logistic(total, gradients, word_D, made_up, -1, share, spread)
            total["weight"] += 1
    return total["loss"], total["weight"], gradients


def cbow_by_hand(params, examples, negatives):
    total = {name: params[name]["table"] for name in ("words", "contexts")} | {"loss": 0.0, "weight": 0}
    gradients = {name: np.zeros_like(total[name]) for name in ("words", "contexts")}
    for b, centre, near in windows_by_hand(examples):
        if near:
            word_D, spread = total["words"][near].mean(axis=0), [(word, 1 / len(near)) for word in near]
            add_logistic(total, gradients, word_D, centre, +1, 1.0, spread)
            for made_up in examples["negatives"][b]:
                share = negatives / len(examples["negatives"][b])
                add_logistic(total, gradients, word_D, made_up, -1, share, spread)
            total["weight"] += 1
    return total["loss"], total["weight"], gradients


def loss_and_gradients(model, task, params, examples):
    batch = task.batch(examples)

    def loss(params):
        x, _ = model.features(params, batch["inputs"])
        sums = task.loss(x, functools.partial(model.readout_stored, params), batch)
        return sums["loss"], sums["weight"]

    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.mark.parametrize("task, by_hand", [(SkipGram, skip_gram_by_hand), (CBOW, cbow_by_hand)])
def test_loss_and_gradients_of_negative_sampling_equal_a_slow_loop(task, by_hand):
    with jax.enable_x64(True):
        model, examples = model_of(), examples_of()
        params = parameters(model)
        (loss, weight), gradients = loss_and_gradients(model, task(negatives=3), params, examples)
        want_loss, want_weight, want = by_hand(params, examples, negatives=3)
        assert weight == want_weight > 5
        assert loss == pytest.approx(want_loss, rel=1e-12)
        for name in ("words", "contexts"):
            np.testing.assert_allclose(gradients[name]["table"], want[name], rtol=1e-9, atol=1e-12)


def test_shared_samples_expect_the_loss_of_samples_for_each_pair():
    # The weight k / C of each of C shared samples: averaged over many draws it is k times the mean.
    with jax.enable_x64(True):
        model, examples = model_of(), examples_of()
        params = parameters(model)
        every = dict(examples, negatives=np.tile(np.arange(V, dtype=np.int32), (3, 1)))
        losses = []
        for made_up in range(V):
            one = dict(examples, negatives=np.full((3, 1), made_up, np.int32))
            losses.append(float(loss_and_gradients(model, SkipGram(negatives=5), params, one)[0][0]))
        whole = float(loss_and_gradients(model, SkipGram(negatives=5), params, every)[0][0])
        assert whole == pytest.approx(np.mean(losses), rel=1e-12)


def test_glove_loss_and_gradients_equal_a_slow_loop():
    with jax.enable_x64(True):
        model, rng = model_of(bias=True), np.random.default_rng(2)
        params = parameters(model)
        examples = {
            "words": rng.integers(0, V, 20).astype(np.int32),
            "contexts": rng.integers(0, V, 20).astype(np.int32),
            "counts": np.append(rng.uniform(0.1, 90, 17), [100.0, 100.5, 1e6]).astype(np.float64),
            "present": (np.arange(20) != 4).astype(np.float64),
        }
        (loss, weight), gradients = loss_and_gradients(model, GloVe(), params, examples)
        want = jax.tree.map(np.zeros_like, params)
        total = 0.0
        for i, j, count, present in zip(*examples.values(), strict=True):
            word_D, context_D = params["words"]["table"][i], params["contexts"]["table"][j]
            bias = params["word_bias"][i] + params["context_bias"][j]
            error = word_D @ context_D + bias - np.log(count)
            importance = present * (min(1.0, (count / 100) ** 0.75))
            total += importance * error**2
            want["words"]["table"][i] += 2 * importance * error * context_D
            want["contexts"]["table"][j] += 2 * importance * error * word_D
            want["word_bias"][i] += 2 * importance * error
            want["context_bias"][j] += 2 * importance * error
        assert weight == 19 and loss == pytest.approx(total, rel=1e-12)
        for got, by_hand in zip(jax.tree.leaves(gradients), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(got, by_hand, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("task", [SkipGram, CBOW])
def test_a_row_without_words_costs_nothing(task):
    model, examples = model_of(dtype="float32"), examples_of()
    nothing = dict(examples, weights=np.zeros_like(examples["weights"]))
    params = jax.tree.map(jnp.float32, parameters(model))
    (loss, weight), gradients = loss_and_gradients(model, task(), params, nothing)
    assert loss == 0 and weight == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradients))
    assert task().metrics({"loss": 0.0, "weight": 0.0}, [], None) == {"eval_loss": 0.0}


# --- random numbers -------------------------------------------------------------------------------


def test_draws_are_splitmix64():
    # The generator's first outputs from the seed 1234567, as published with it.
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert draws.bits(1234567, np.arange(4)).tolist() == first


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 1000, 4097])
def test_a_permutation_holds_every_number_once(size):
    assert sorted(draws.permuted(7, np.arange(size), size)) == list(range(size))


def test_permutations_differ_by_key_and_are_spread_evenly():
    places = np.array([draws.permuted(key, np.array([0, 1]), 5) for key in range(1000)])
    assert (places[:, 0] != places[:, 1]).all()
    pairs = Counter(map(tuple, places.tolist()))
    assert_plausible([pairs[pair] for pair in itertools.permutations(range(5), 2)], np.full(20, 50))


# --- rows of text ---------------------------------------------------------------------------------

CFG = WordPairsConfig(min_count=1, window=3, subsample=0.05, negatives=6, length=8, batch_size=4)


def with_path(config, path, **changes):
    return dataclasses.replace(config, path=path, **changes)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_batch_is_a_function_of_seed_step_and_row(folder):
    first, again, other = (load_word_pairs(with_path(CFG, folder), seed) for seed in (0, 0, 1))
    steps = [0, 5, 2, 400, 3]
    batches = {step: first.batch(step, range(4)) for step in steps}
    for step in reversed(steps):
        assert_equal(again.batch(step, range(4)), batches[step])
        halves = [first.batch(step, range(2)), first.batch(step, range(2, 4))]
        joined = {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}
        assert_equal(joined, batches[step])
    assert any(np.any(other.batch(0, range(4))[name] != batches[0][name]) for name in batches[0])


def epoch_of(dataset, epoch):
    """All examples of an epoch, row by row."""
    rows = dataset.train.num_rows
    numbers = range(epoch * rows, (epoch + 1) * rows)
    size = dataset.cfg.batch_size
    return [dataset.batch(n // size, range(n % size, n % size + 1)) for n in numbers]


def test_every_word_that_an_epoch_keeps_is_a_centre_once(folder):
    dataset = load_word_pairs(with_path(CFG, folder), seed=0)
    window = dataset.cfg.window
    texts = []
    for epoch in (0, 1):
        rows = epoch_of(dataset, epoch)
        seen = np.concatenate([row["tokens"][0, window:-window][row["weights"][0] > 0] for row in rows])
        kept = dataset.train.text.words[dataset.train._kept(epoch)]
        missed = max(0, len(kept) - dataset.train.num_rows * dataset.cfg.length)  # as rows are counted by
        assert missed < 0.1 * len(kept)  # what an epoch is expected to keep
        assert Counter(seen.tolist()) == Counter(kept[: len(kept) - missed].tolist())
        texts.append(seen)
    assert not np.array_equal(texts[0][:100], texts[1][:100])


def test_rows_hold_the_text_with_its_line_ends(folder, tmp_path):
    dataset = load_word_pairs(with_path(CFG, folder, subsample=0.0), seed=0)
    lines = (tmp_path / "train.txt").read_text().splitlines()
    words = [(dataset.tokenizer.ids[word], i + 2) for i, line in enumerate(lines) for word in line.split()]
    window, length = dataset.cfg.window, dataset.cfg.length
    for row in (0, 1, 17, dataset.train.num_rows - 1):
        examples = dataset.train.rows(0, np.array([row]))
        for s, (token, segment) in enumerate(
            zip(examples["tokens"][0], examples["segments"][0], strict=True)
        ):
            place = row * length - window + s
            there = 0 <= place < len(words)
            # Lines are told apart, whatever their numbers are: here by an offset.
            assert bool(segment) == there
            assert token == (words[place][0] if there else 0)
    numbers = dataset.train.text.lines
    assert len(np.unique(numbers)) == len(lines)
    by_line = np.array([line for _, line in words])
    np.testing.assert_array_equal(np.diff(numbers) > 0, np.diff(by_line) > 0)


def test_words_below_min_count_and_unknown_ones_leave_the_text(tmp_path):
    (tmp_path / "train.txt").write_text("a b rare a\na <unk> b\n\nb a\n")
    (tmp_path / "valid.txt").write_text("a new b\n")
    dataset = load_word_pairs(with_path(CFG, str(tmp_path), min_count=2), seed=0)
    train, valid = dataset.train.text, dataset.valid.text
    spelled = [dataset.tokenizer.words[i] for i in train.words]
    assert spelled == ["a", "b", "a", "a", "b", "b", "a"]
    assert [len(list(group)) for _, group in itertools.groupby(train.lines.tolist())] == [3, 2, 2]
    assert [dataset.tokenizer.words[i] for i in valid.words] == ["a", "b"]


def big_text(size=400_000):
    rng = np.random.default_rng(0)
    share = np.array([0.4, 0.25, 0.15, 0.1, 0.05, 0.03, 0.02])
    words = rng.choice(np.arange(2, 9), size, p=share).astype(np.uint16)
    return Sentences(words, np.zeros(size, np.int32), 9)


def test_frequent_words_are_kept_as_often_as_the_formula_says():
    text = big_text()
    stretches = Stretches(text, text.counts_V, dataclasses.replace(CFG, subsample=0.02), seed=4)
    kept = np.bincount(text.words[stretches._kept(0)], minlength=9)[2:]
    count = text.counts_V[2:]
    ratio = 0.02 * len(text) / count
    keep = np.minimum(1, np.sqrt(ratio) + ratio)
    assert keep[-1] == 1 and kept[-1] == count[-1]
    spread = np.sqrt(count * keep * (1 - keep))
    assert (np.abs(kept - count * keep) <= 5 * spread).all() and (kept[:3] < count[:3]).all()
    assert (keep_probability(count, 0.0) == 1).all()


def test_window_widths_are_even_and_drawn_anew_each_epoch():
    text = big_text()
    stretches = Stretches(text, text.counts_V, dataclasses.replace(CFG, window=5), seed=4)
    one, two = (stretches.windows(epoch, np.arange(100_000)) for epoch in (0, 1))
    assert_plausible(np.bincount(one, minlength=6)[1:], np.full(5, 20_000))
    both = np.bincount(5 * (one - 1) + two - 1, minlength=25)
    assert_plausible(both, np.full(25, 4_000))


def test_made_up_words_come_as_counts_to_the_power_of_three_quarters():
    text = big_text()
    stretches = Stretches(text, text.counts_V, CFG, seed=4)
    drawn = np.bincount(stretches.made_up(0, np.arange(200_000)), minlength=9)
    assert not drawn[:2].any()  # marks are no words
    weight = text.counts_V[2:] ** 0.75
    assert_plausible(drawn[2:], 200_000 * weight / weight.sum())


def test_evaluation_holds_the_same_words_once_whatever_the_seed(folder):
    sets = [load_word_pairs(with_path(CFG, folder), seed) for seed in (0, 1)]
    batches = [[each.eval_batch(i, range(4)) for i in range(each.num_eval_batches)] for each in sets]
    for one, other in zip(*batches, strict=True):
        assert_equal(one, other)
    kept = sets[0].valid.text.words[sets[0].valid._kept("valid")]
    seen = np.concatenate([batch["tokens"][:, 3:-3][batch["weights"] > 0] for batch in batches[0]])
    np.testing.assert_array_equal(seen, kept)


def test_the_digest_tells_what_changes_the_rows(folder):
    first = load_word_pairs(with_path(CFG, folder), 0).digest
    assert load_word_pairs(with_path(CFG, folder, batch_size=2), 1).digest == first
    for change in ({"window": 2}, {"subsample": 0.0}, {"min_count": 200}, {"negatives": 7}, {"length": 9}):
        assert load_word_pairs(with_path(CFG, folder, **change), 0).digest != first, change


# --- counts ---------------------------------------------------------------------------------------

CELLS = CooccurrencesConfig(min_count=1, window=3, batch_size=16)


def counted_by_hand(text, window):
    counts = Counter()
    for here in range(len(text.words)):
        for there in range(max(0, here - window), min(len(text.words), here + window + 1)):
            if here != there and text.lines[here] == text.lines[there]:
                counts[text.words[here].item(), text.words[there].item()] += 1 / abs(here - there)
    return counts


@pytest.mark.parametrize("piece", [1, 50, 1 << 21])
def test_counts_equal_a_slow_loop_however_the_text_is_cut(folder, monkeypatch, piece):
    monkeypatch.setattr(cooccurrences, "PIECE", piece)
    dataset = load_word_pairs(with_path(CFG, folder), 0)
    text = dataset.train.text
    text = Sentences(text.words[:400], text.lines[:400], text.vocab_size)
    cells, counts = count_cells(text, window=4)
    assert (np.diff(cells) > 0).all()
    by_hand = counted_by_hand(text, 4)
    every = cooccurrences.Cells(cells, counts, text.vocab_size)
    rows = every.rows(np.arange(len(every)))
    got = dict(
        zip(zip(rows["words"].tolist(), rows["contexts"].tolist(), strict=True), rows["counts"], strict=True)
    )
    assert len(got) == len(every) == len(by_hand)
    for cell, count in by_hand.items():
        assert got[cell] == pytest.approx(count, rel=1e-6), cell


def test_an_epoch_holds_every_cell_once_and_none_that_is_held_out(folder):
    dataset = load_cooccurrences(with_path(CELLS, folder), seed=0)
    size = len(dataset.train)
    for epoch in (0, 3):
        numbers = range(epoch * size, (epoch + 1) * size)
        rows = [dataset.batch(n // 16, range(n % 16, n % 16 + 1)) for n in numbers]
        seen = Counter((row["words"].item(), row["contexts"].item()) for row in rows)
        assert len(seen) == size and set(seen.values()) == {1}
    held = [dataset.eval_batch(i, range(16)) for i in range(dataset.num_eval_batches)]
    pairs = {
        (word.item(), context.item())
        for batch in held
        for word, context, there in zip(batch["words"], batch["contexts"], batch["present"], strict=True)
        if there
    }
    assert len(pairs) == len(dataset.valid) > 0 and not pairs & set(seen)
    assert {(context, word) for word, context in pairs} == pairs


def test_counts_are_found_again_on_a_second_start(folder, monkeypatch):
    first = load_cooccurrences(with_path(CELLS, folder), seed=0).batch(3, range(16))
    monkeypatch.setattr(cooccurrences, "count_cells", None)
    assert_equal(load_cooccurrences(with_path(CELLS, folder), seed=0).batch(3, range(16)), first)


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: WordVectorsConfig(d_model=0), "d_model=0 must be at least 1"),
        (lambda: WordPairsConfig(window=0), "window=0 must be at least 1"),
        (lambda: WordPairsConfig(subsample=-1.0), "subsample=-1.0 must be 0 or above"),
        (lambda: WordPairsConfig(valid_fraction=1.0), "valid_fraction=1.0 must lie between 0 and 1"),
        (lambda: CooccurrencesConfig(min_count=0), "min_count=0 must be at least 1"),
        (lambda: SkipGram(negatives=0), "negatives=0 must be at least 1"),
        (lambda: GloVe(exponent=0.0), "exponent=0.0 must be above 0"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_line(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_text_without_two_known_words_in_a_line_is_one_line(tmp_path):
    (tmp_path / "train.txt").write_text("a b\nc d\n")
    (tmp_path / "valid.txt").write_text("a b\n")
    with pytest.raises(DataError, match="no line of the train part has two words .* smaller min_count"):
        load_word_pairs(with_path(CFG, str(tmp_path), min_count=2), 0)
    dataset = load_word_pairs(with_path(CFG, str(tmp_path)), 0)
    with pytest.raises(DataError, match="has no test part, only train, valid"):
        read_sentences(dataset.corpus, "test", dataset.tokenizer)


# --- learning -------------------------------------------------------------------------------------

TOPICS, WORDS = 4, 6


@pytest.fixture
def topics(tmp_path):
    """Lines of six words, most of them of the line's topic, and one word that stands in every line.

    A few of other topics: GloVe learns nothing from words that never meet.
    """
    rng = np.random.default_rng(3)
    for part, lines in (("train", 1500), ("valid", 100)):
        rows = []
        for topic in rng.integers(0, TOPICS, lines):
            topics = np.where(rng.random(6) < 0.15, rng.integers(0, TOPICS, 6), topic)
            words = [f"{'abcd'[t]}{i}" for t, i in zip(topics, rng.integers(0, WORDS, 6), strict=True)]
            words.insert(int(rng.integers(0, 7)), "the")
            rows.append(" ".join(words))
        (tmp_path / f"{part}.txt").write_text("\n".join(rows) + "\n")
    return str(tmp_path)


@pytest.mark.parametrize("task", [SkipGram(), CBOW(), GloVe()], ids=lambda task: type(task).__name__)
def test_words_of_one_topic_become_neighbours(task, topics):
    is_glove = isinstance(task, GloVe)
    if is_glove:
        dataset = load_cooccurrences(with_path(CELLS, topics, window=5, batch_size=256), seed=0)
    else:
        cfg = with_path(CFG, topics, window=5, subsample=0.1, length=16, negatives=16)
        dataset = load_word_pairs(dataclasses.replace(cfg, batch_size=16), seed=0)
    model = model_of(is_glove, "float32", dataset.sizes["vocab_size"], d_model=8)
    steps = 250
    tx = optim.transform(
        optim.AdamW(learning_rate=0.03, weight_decay=0.0),
        schedules.Linear(warmup_steps=5),
        steps,
        model.abstract(),
    )
    parts = TrainStep(model, task, tx, seed=0)
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        state, step = parts.init_on(mesh), parts.compiled(mesh)
        evaluate = jax.jit(parts.evaluate)

        def eval_loss(params):
            parts = [evaluate(params, batch)[0] for batch in evaluation_batches(dataset, task, mesh)]
            return sum(float(part["loss"]) for part in parts) / sum(float(part["weight"]) for part in parts)

        before = eval_loss(state.params)
        for batch in training_batches(dataset, task, mesh, 0, steps):
            state, numbers = step(state, batch)
        assert bool(numbers["finite"])
        assert eval_loss(state.params) < 0.95 * before
    vectors = vectors_of(state.params, dataset.tokenizer, ("words", "contexts") if is_glove else ("words",))
    assert len(vectors.words) == TOPICS * WORDS + 1  # no marks
    for word in vectors.words:
        if word != "the":
            near = [other for other, _ in neighbours(vectors, word, WORDS - 1)]
            assert all(other[0] == word[0] for other in near), (word, near)
