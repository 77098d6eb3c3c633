"""Masked language modelling: logits at the masked words only, whatever the row; pairs beside it; training."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit, logits
from training import eight_devices, mesh_of

import train
import zoo
from zoo import cli, optim, schedules
from zoo.data import MaskedConfig
from zoo.data.masked.chunks import make_chunks
from zoo.data.masked.rows import MaskedRows
from zoo.data.masked.sentences import Sentences
from zoo.data.tokenizers.byte import ByteTokenizer
from zoo.data.tokenizers.word_piece import WordPieceTokenizer
from zoo.errors import ConfigError, UserError
from zoo.feed import place_rows
from zoo.inference.masked import fill, pseudo_log_probabilities
from zoo.models.bert import BERTConfig
from zoo.models.gpt import GPTConfig
from zoo.models.pretraining import PretrainingConfig
from zoo.models.rnn import RNNConfig
from zoo.recipes import CHOICES, CONFIGS
from zoo.step import TrainStep
from zoo.tasks import MaskedLM, MaskedPairs
from zoo.tasks.masked_lm import at

T, V = 32, 70
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TOKENIZER = WordPieceTokenizer((*SPECIAL, *(f"w{i}" for i in range(V - 5))))
DATA = MaskedConfig(vocab_path="x", length=T, batch_size=16, mask_rate=0.3)
BERT = BERTConfig(
    vocab_size=V,
    max_length=T,
    num_layers=1,
    num_heads=4,
    d_model=16,
    d_ff=24,
    dropout_rate=0.0,
    layer_unroll=0,
)
PAIRS = PretrainingConfig(BERT)
CASES = {"none": (BERT, MaskedLM()), "next_sentence": (PAIRS, MaskedPairs())}
each_case = pytest.mark.parametrize("pairs", CASES)


@functools.cache
def layout_of(pairs="none", layout="packed", **changes) -> MaskedRows:
    """Rows of documents whose sentences count upwards, so that what is masked can be found."""
    draws = np.random.default_rng(0)
    sizes = draws.integers(2, 8, 400)
    ids = (np.repeat(draws.integers(0, V - 5, 400), sizes) + np.arange(sizes.sum())) % (V - 5) + 5
    sentences = Sentences(ids, np.cumsum([0, *sizes]), np.arange(0, 401, 20))
    cfg = dataclasses.replace(DATA, pairs=pairs, layout=layout, **changes)
    return MaskedRows(ids, make_chunks(sentences, cfg, [7]), TOKENIZER, cfg)


def examples_of(rows, **changes) -> dict:
    return layout_of(**changes).rows(np.asarray(rows), np.full(len(rows), 5, np.uint64))


def parameters(config, scale=0.3, seed=0):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda spec: (scale * random.standard_normal(spec.shape)).astype(np.float32),
        zoo.create(config).abstract(),
    )


def sums(config, task, params, batch):
    model = zoo.create(config)
    x_BTD, _ = model.features(params, batch["inputs"])
    return task.loss(x_BTD, functools.partial(model.readout_stored, params), batch)


sums_of = jit(sums, static_argnums=(0, 1))


@functools.partial(jit, static_argnums=(0, 1))
def gradient_of(config, task, params, batch):
    return jax.grad(lambda params: sums(config, task, params, batch)["loss"])(params)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


# --- what is summed -------------------------------------------------------------------------------


@each_case
def test_the_loss_is_that_of_the_masked_words_among_the_logits_of_all_positions(pairs):
    config, task = CASES[pairs]
    examples, params, model = examples_of(range(6), pairs=pairs), parameters(config), zoo.create(config)
    batch = task.batch(examples)
    read = logits(model, params, batch["inputs"])
    logp = log_softmax(read["words"] if pairs != "none" else read)
    nats = right = count = 0
    for row, place in zip(*np.nonzero(examples["weights"]), strict=True):
        at, target = examples["picked"][row, place], examples["targets"][row, place]
        nats -= logp[row, at, target]
        right += logp[row, at].argmax() == target
        count += 1
    found = sums_of(config, task, params, batch)
    assert found["weight"] == count > 30 and found["right"] == right
    np.testing.assert_allclose(found["nats" if pairs != "none" else "loss"], nats, rtol=1e-5)


def test_a_pair_is_told_by_its_first_position_and_weighs_as_many_words_as_it_masks():
    examples, params = examples_of(range(6), pairs="next_sentence"), parameters(PAIRS)
    logp = log_softmax(logits(zoo.create(PAIRS), params, MaskedPairs().batch(examples)["inputs"])["pair"])
    nats = right = count = 0
    for row in range(6):
        for segment in range(examples["segments"][row].max()):
            first = np.flatnonzero(examples["segments"][row] == segment + 1)[0]
            label = examples["labels"][row, segment]
            nats, right = nats - logp[row, first, label], right + (logp[row, first].argmax() == label)
            count += 1
    found = sums_of(PAIRS, MaskedPairs(), params, MaskedPairs().batch(examples))
    assert count > 6 and found["pairs"] == count and found["pair_right"] == right
    np.testing.assert_allclose(found["pair_nats"] / found["pair_weight"], nats / count, rtol=1e-5)
    np.testing.assert_allclose(found["loss"], found["nats"] + found["pair_nats"], rtol=1e-6)
    layout = layout_of(pairs="next_sentence")
    found = layout.rows(np.arange(layout.num_rows), np.zeros(layout.num_rows, np.uint64))
    np.testing.assert_allclose(found["label_weights"].sum(), found["weights"].sum(), rtol=1e-5)


def test_logits_are_computed_at_the_picked_positions_only():
    batch = MaskedLM().batch(examples_of(range(6)))
    shapes = []

    def readout(x):
        shapes.append(x.shape)
        return jnp.zeros((*x.shape[:-1], V))

    MaskedLM().loss(jnp.zeros((6, T, 16)), readout, batch)
    assert shapes == [(1, 16), (6, int(np.ceil(0.3 * T)), 16)]  # of one position first, for its shape alone


# --- what changes nothing -------------------------------------------------------------------------


@each_case
def test_packed_rows_have_the_loss_of_their_chunks_alone(pairs):
    config, task = CASES[pairs]
    params = parameters(config)
    totals = []
    for layout in ("packed", "padded"):
        rows, total = layout_of(pairs=pairs, layout=layout), {}
        for start in range(0, rows.num_rows, 6):  # rows behind the last are empty
            batch = task.batch(examples_of(range(start, start + 6), pairs=pairs, layout=layout))
            for name, value in sums_of(config, task, params, batch).items():
                total[name] = total.get(name, 0.0) + float(value)
        totals.append((rows.num_rows, total))
    (packed, together), (padded, alone) = totals
    assert packed < padded
    for name, value in alone.items():
        np.testing.assert_allclose(together[name], value, rtol=2e-5, err_msg=name)


def test_padding_and_the_length_of_the_row_change_nothing():
    params, examples = parameters(BERT), examples_of(range(6))
    want = sums_of(BERT, MaskedLM(), params, MaskedLM().batch(examples))
    loud = np.where(examples["segments"] > 0, examples["tokens"], 17)  # any token where there is none
    assert (loud != examples["tokens"]).any()
    same = sums_of(BERT, MaskedLM(), params, MaskedLM().batch(examples | {"tokens": loud}))
    np.testing.assert_allclose(same["loss"], want["loss"], rtol=1e-5)
    names = ("tokens", "segments", "positions")
    longer = {name: np.pad(examples[name], ((0, 0), (0, 16))) for name in names}
    params["positions"]["table"] = np.pad(params["positions"]["table"], ((0, 16), (0, 0)))
    wide = dataclasses.replace(BERT, max_length=T + 16)
    got = sums_of(wide, MaskedLM(), params, MaskedLM().batch(examples | longer))
    np.testing.assert_allclose(got["loss"], want["loss"], rtol=1e-5)


@each_case
def test_the_order_of_the_rows_changes_nothing(pairs):
    config, task = CASES[pairs]
    params = parameters(config)
    straight, turned = (
        sums_of(config, task, params, task.batch(examples_of(rows, pairs=pairs)))
        for rows in (range(6), [3, 5, 0, 1, 4, 2])
    )
    for name, value in straight.items():
        np.testing.assert_allclose(turned[name], value, rtol=1e-5, err_msg=name)


@each_case
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_empty_row_is_finite_and_adds_nothing(pairs, dtype):
    config, task = CASES[pairs]
    inner = dataclasses.replace(BERT, dtype=dtype)
    config = inner if config is BERT else PretrainingConfig(inner)
    params, behind = parameters(config), layout_of(pairs=pairs).num_rows
    full = sums_of(config, task, params, task.batch(examples_of([0, 1] * 3, pairs=pairs)))
    for rows in ([0, behind, 1, behind, behind, behind], [behind] * 6):
        batch = task.batch(examples_of(rows, pairs=pairs))
        found, gradients = sums_of(config, task, params, batch), gradient_of(config, task, params, batch)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((found, gradients)))
        np.testing.assert_allclose(3 * found["loss"], full["loss"] if 0 in rows else 0.0, rtol=1e-5)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


@each_case
def test_the_gradient_reaches_every_parameter(pairs):
    config, task = CASES[pairs]
    batch = task.batch(examples_of(range(6), pairs=pairs))
    gradients = gradient_of(config, task, parameters(config), batch)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.any(leaf), jax.tree_util.keystr(path)


# --- the model ------------------------------------------------------------------------------------


def test_bert_with_both_heads_has_its_parameters():
    """BertForPreTraining's in transformers 5.24: 110,106,428; the large one's 336,226,108."""
    for name, count in {"bert_base": 110_106_428, "bert_large": 336_226_108}.items():
        assert zoo.create(CONFIGS[name].model).num_params() == count
        assert (
            zoo.create(CONFIGS[name].model.encoder).num_params()
            == count
            - {"bert_base": 768 * 768 + 768 + 2 * 768 + 2, "bert_large": 1024 * 1024 + 1024 + 2 * 1024 + 2}[
                name
            ]
        )


def test_the_encoder_of_both_heads_is_a_whole_bert():
    assert zoo.create(PAIRS).abstract()["encoder"] == zoo.create(BERT).abstract()
    params, tokens = parameters(PAIRS), np.arange(12).reshape(2, 6)
    read = zoo.create(PAIRS).apply(params, tokens)
    np.testing.assert_allclose(read["words"], zoo.create(BERT).apply(params["encoder"], tokens), rtol=1e-6)
    assert read["words"].shape == (2, 6, V) and read["pair"].shape == (2, 6, 2)


def test_the_pairs_head_is_a_tanh_layer_and_a_softmax():
    params, x_BD = parameters(PAIRS), np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)
    w, b = params["pooler"]["w"].reshape(16, 16), params["pooler"]["b"].reshape(16)
    want = np.tanh(x_BD @ w + b) @ params["classes"]["w"] + params["classes"]["b"]
    np.testing.assert_allclose(zoo.create(PAIRS).readout(params, x_BD)["pair"], want, rtol=1e-4)


def test_only_bert_has_both_heads():
    with pytest.raises(ConfigError, match="RNNConfig has no head for masked words"):
        PretrainingConfig(RNNConfig())


# --- recipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert_stdlib", "bert_base", "bert_large"])
def test_a_recipe_builds_its_whole_step_without_arrays(name):
    recipe = CONFIGS[name]
    inner = getattr(recipe.model, "encoder", recipe.model)
    sized = dataclasses.replace(inner, vocab_size=inner.vocab_size or recipe.data.vocab_size)
    model = zoo.create(sized if inner is recipe.model else PretrainingConfig(sized))
    parts = TrainStep(
        model, recipe.task, optim.transform(recipe.optimizer, recipe.schedule, recipe.steps, model.abstract())
    )
    B, L, P, S = 2, recipe.data.length, int(np.ceil(0.15 * recipe.data.length)), 3
    whole = dict.fromkeys(("tokens", "segments", "positions", "token_types"), (B, L))
    picked = dict.fromkeys(("picked", "targets", "weights"), (B, P))
    firsts = dict.fromkeys(("firsts", "labels", "label_weights"), (B, S))
    shapes = whole | picked | firsts
    examples = {
        n: jax.ShapeDtypeStruct(shape, "float32" if "weights" in n else "int32")
        for n, shape in shapes.items()
    }
    state = jax.eval_shape(parts.init)
    after, numbers = jax.eval_shape(parts.step, state, recipe.task.batch(examples))
    assert jax.tree.structure(after) == jax.tree.structure(state) and numbers["loss"].shape == ()


def test_the_papers_rate_goes_on_from_the_first_run_to_the_second():
    recipe = CONFIGS["bert_base"]
    whole = recipe.schedule.rate(1e-4, 1_000_000)
    first = dataclasses.replace(recipe.schedule, final_fraction=0.101).rate(1e-4, 900_000)
    second = schedules.Linear(warmup_steps=0).rate(1.01e-5, 100_000)
    for step in (0, 9_999, 10_000, 500_000, 899_999):
        np.testing.assert_allclose(first(step), whole(step), rtol=2e-3)
    for step in (0, 50_000, 99_000):
        np.testing.assert_allclose(second(step), whole(900_000 + step), rtol=2e-3)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("bert_stdlib --data.pairs next_sentence", "kind 'masked', and data gives 'masked_pairs'"),
        (
            "bert_stdlib --task causal_lm",
            "trains a model that is 'causal', and this BERTConfig is bidirectional",
        ),
        ("bilm_stdlib --task masked_lm", "trains a model that is 'bidirectional', and this BiLMConfig"),
        ("gpt_stdlib --task masked_lm", "and this GPTConfig is causal"),
        ("bert_base --task masked_lm", "this PretrainingConfig is head, pretraining"),
        ("bert_stdlib --data text --data.length 64", "kind 'masked', and data gives 'text'"),
        ("bert_stdlib --data.tokenizer sentencepiece", "has no token for a masked one"),
        ("bert_base --data.length 513", "data.length=513 is longer than the model"),
    ],
)
def test_parts_that_do_not_fit_are_one_line(command, said):
    with pytest.raises(ConfigError) as caught:
        cli.parse(command.split(), CONFIGS, CHOICES)
    assert said in str(caught.value) and "\n" not in str(caught.value)


# --- training -------------------------------------------------------------------------------------


@functools.cache
def parts_of(pairs, accumulate=1) -> TrainStep:
    config, task = CASES[pairs]
    model = zoo.create(config)
    tx = optim.transform(optim.AdamW(learning_rate=1e-2), schedules.Constant(), 10, model.abstract())
    return TrainStep(model, task, tx, seed=3, clip_norm=1.0, accumulate=accumulate)


def trained(pairs, sizes, steps=3, accumulate=1):
    """(losses, how many programs were compiled) of a few steps on a mesh."""
    parts, mesh, losses = parts_of(pairs, accumulate), mesh_of(sizes), []
    task, layout = parts.task, layout_of(pairs=pairs)
    with jax.set_mesh(mesh):
        state, step = parts.init_on(mesh), parts.compiled(mesh)
        for number in range(steps):
            rows = (16 * number + np.arange(16)) % layout.num_rows

            def read(part, rows=rows, number=number):
                chosen = rows[part.start : part.stop]
                return task.batch(layout.rows(chosen, np.full(len(chosen), number, np.uint64)))

            state, numbers = step(state, place_rows(read, 16, mesh))
            losses.append(float(numbers["loss"]))
    return losses, step._cache_size()


@pytest.mark.long
@eight_devices
def test_the_loss_is_the_same_on_a_mesh_and_in_micro_batches_by_one_program_for_all_steps():
    losses, programs = trained("next_sentence", (1, 1, 1))
    on_mesh, others = trained("next_sentence", (2, 2, 2), accumulate=2)
    assert programs == others == 1
    np.testing.assert_allclose(on_mesh, losses, rtol=2e-5)


@eight_devices
def test_picking_positions_moves_nothing_between_devices():
    mesh = mesh_of((8, 1, 1))
    with jax.set_mesh(mesh):
        place = functools.partial(jax.device_put, device=zoo.sharding.rows_sharding(mesh))
        inputs = place(np.zeros((16, T, 8), np.float32)), place(np.zeros((16, 5), np.int32))
        program = jax.jit(at).lower(*inputs).compile().as_text()
    assert "all-gather" not in program and "all-reduce" not in program and "all-to-all" not in program


@pytest.fixture(scope="module")
def argv(tmp_path_factory):
    """The command of a tiny run, and its folder of runs."""
    folder = tmp_path_factory.mktemp("masked")
    draws = np.random.default_rng(0)
    for part, count in (("train", 12), ("valid", 3)):
        (folder / "text" / part).mkdir(parents=True)
        for i in range(count):
            lines = [" ".join(f"word{j % 9} follows" for j in draws.integers(0, 9, 4)) for _ in range(12)]
            (folder / "text" / part / f"{i}.txt").write_text(".\n".join(lines))
    return (
        f"bert_base --data.path {folder}/text --data.vocab-size 36 --data.length 32 --data.batch-size 8 "
        f"--model.encoder.vocab-size 0 --model.encoder.num-layers 1 --model.encoder.d-model 16 "
        "--model.encoder.num-heads 2 --model.encoder.dtype float32 --schedule.warmup-steps 2 --steps 6 "
        f"--log-every 1 --eval-every 3 --save-every 3 --seed 1 --runs {folder} --data.masking static"
    ).split() + ["--data.vocab-path="]


@pytest.fixture(scope="module")
def whole(argv):
    """The run's folder."""
    assert train.main([*argv, "--name", "whole"]) == 0
    return Path(argv[argv.index("--runs") + 1]) / "whole"


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.long
@eight_devices
def test_a_run_ends_as_one_that_was_stopped_and_continued(argv, whole, capsys, monkeypatch):
    result = json.loads((whole / "result.json").read_text())
    names = {"eval_loss", "masked_accuracy", "sentence_accuracy", "unigram_accuracy", "unigram_loss"}
    assert names | {"sentence_loss", "majority_sentence_accuracy"} <= set(result)
    monkeypatch.setenv("ZOO_FAULT", "term@1")
    assert train.main([*argv, "--name", "parts"]) == 75
    monkeypatch.delenv("ZOO_FAULT")
    assert train.main([*argv, "--name", "parts"]) == 0
    again = last_line(capsys)
    assert again["state_digest"] == result["state_digest"] and again["eval_loss"] == result["eval_loss"]


@pytest.mark.long
@eight_devices
def test_a_run_fills_blanks_and_scores_lines(whole, capsys, tmp_path):
    from zoo.__main__ import main

    assert main(["fill", str(whole), "word1 [MASK] word2 [MASK]", "--count", "3"]) == 0
    found = last_line(capsys)
    assert [len(words) for words in found["blanks"]] == [3, 3]
    (tmp_path / "lines.txt").write_text("word1 follows\nword2 follows")
    assert main(["score", str(whole), str(tmp_path / "lines.txt")]) == 0
    found = last_line(capsys)
    assert found["lines"] == 2 and found["pseudo_perplexity"] > 1
    assert main(["eval", str(whole)]) == 0
    result = json.loads((whole / "result.json").read_text())
    assert abs(last_line(capsys)["eval_loss"] - result["eval_loss"]) < 1e-4


# --- hidden words ---------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [BERT, PAIRS], ids=["bert", "both heads"])
def test_blanks_are_filled_by_the_models_own_probabilities(config):
    model, params = zoo.create(config), parameters(config)
    tokens = np.array([[2, 5 + 7, 4, 5 + 8, 4, 3]])
    read = model.apply(params, tokens)
    logp_TV = log_softmax(read if config is BERT else read["words"])[0]
    found = fill(model, params, TOKENIZER, "w7 [MASK] w8 [MASK]", count=V)
    for place, words in zip((2, 4), found, strict=True):
        assert [word.probability for word in words] == sorted((w.probability for w in words), reverse=True)
        for word in words[:5]:
            want = np.exp(logp_TV[place, TOKENIZER.pieces.index(word.piece)])
            assert word.probability == pytest.approx(want, rel=1e-4)


def test_each_token_is_scored_with_all_others_in_sight():
    model, params = zoo.create(BERT), parameters(BERT)
    texts = ["w1 w2 w3", "", "w4 " * (T - 2)]
    found = pseudo_log_probabilities(model, params, TOKENIZER, texts)
    assert [len(logp) for logp in found] == [3, 0, T - 2]
    for place, token in enumerate((6, 7, 8)):
        tokens = np.array([[2, 6, 7, 8, 3]])
        tokens[0, place + 1] = 4
        want = log_softmax(model.apply(params, tokens))[0, place + 1, token]
        assert found[0][place] == pytest.approx(want, rel=1e-4)


def test_what_cannot_be_filled_is_one_line():
    model, params = zoo.create(BERT), parameters(BERT)
    with pytest.raises(UserError, match=r"has no blank; write \[MASK\]"):
        fill(model, params, TOKENIZER, "w1 w2")
    with pytest.raises(UserError, match="33 tokens with its marks are more than the model's 32"):
        pseudo_log_probabilities(model, params, TOKENIZER, ["w1 " * 31])
    with pytest.raises(UserError, match="has no token for a masked word"):
        fill(model, params, ByteTokenizer(), "a [MASK]")
    with pytest.raises(UserError, match="GPTConfig does not read both ways"):
        fill(zoo.create(GPTConfig()), params, TOKENIZER, "a [MASK]")
