"""Embeddings and what compares them: pooling, losses and metrics against loops in NumPy."""

import dataclasses
import functools
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoders import LSTM, TRANSFORMER, WORDS, model_of
from families import assert_close, jit, parameters

import zoo
from zoo.errors import ConfigError, DataError
from zoo.feed import place_rows
from zoo.mesh import MeshConfig, make_mesh
from zoo.models.classifier import ClassifierConfig
from zoo.models.embedder import LENGTHS, POOLINGS, EmbedderConfig
from zoo.scores import pearson, retrieval_scores, spearman
from zoo.tasks import Choice, Contrastive, CosineRegression, Regress, Triplet

B, G, T = 4, 3, 5
SIZES = np.array([[5, 1, 3], [2, 4, 1], [1, 1, 5], [3, 2, 2]], np.int32)


def tokens(seed=1):
    return np.random.default_rng(seed).integers(0, 11, (B, G, T)).astype(np.int32)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@functools.partial(jit, static_argnums=0)
def embedded(model, params, inputs):
    x, _ = model.features(params, inputs)
    return model.readout(params, x)


# --- the model ------------------------------------------------------------------------------------


def test_the_default_has_the_parameters_of_minilm_without_its_pooler():
    # sentence-transformers/all-MiniLM-L6-v2 has 22,713,216, of which its pooler is 384 x 384 + 384.
    assert zoo.create("minilm_l6_embedder").num_params() == 22_713_216 - (384 * 384 + 384)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("normalize", LENGTHS)
def test_an_embedding_is_the_pooled_features_projected_and_made_one_long(pooling, normalize):
    model = model_of(EmbedderConfig(WORDS, pooling=pooling, normalize=normalize, d_output=4))
    params = parameters(model)
    got = embedded(model, params, {"tokens": tokens()[:, 0], "lengths": SIZES[:, 0]})
    pool = {
        "mean": lambda x: x.mean(0),
        "first": lambda x: x[0],
        "max": lambda x: x.max(0),
        "last": lambda x: x[-1],
    }
    for row, length, vector in zip(tokens()[:, 0], SIZES[:, 0], got, strict=True):
        x_TD = np.asarray(params["encoder"]["table"]["table"])[row[:length]]
        want = pool[pooling](x_TD) @ params["projection"]["w"] + params["projection"]["b"]
        assert_close(vector, want / (np.linalg.norm(want) if normalize == "l2" else 1))


@pytest.mark.parametrize("encoder", [LSTM, TRANSFORMER], ids=type)
@pytest.mark.parametrize("kind", [EmbedderConfig, ClassifierConfig])
def test_a_group_of_texts_is_read_as_its_texts_one_by_one(kind, encoder):
    model = model_of(kind(encoder, dropout_rate=0.0))
    params = parameters(model)
    together = embedded(model, params, {"tokens": tokens(), "lengths": SIZES})
    for g in range(G):
        alone = embedded(model, params, {"tokens": tokens()[:, g], "lengths": SIZES[:, g]})
        assert_close(together[:, g], alone)


def test_an_empty_text_has_a_finite_embedding_and_gradient():
    model = model_of(EmbedderConfig(WORDS))
    params = parameters(model)

    def total(params):
        inputs = {"tokens": tokens()[:, 0], "lengths": np.zeros(B, np.int32)}
        return model.readout(params, model.features(params, inputs)[0]).sum()

    value, gradient = jit(jax.value_and_grad(total))(params)
    assert value == 0 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_a_length_that_is_none_of_a_text_in_a_group_is_named_by_its_place():
    model = model_of(EmbedderConfig(WORDS))
    wrong = SIZES.copy()
    wrong[2, 1] = 6
    with pytest.raises(ValueError, match=r"^lengths\[2, 1\]=6 is not between 0 and 5"):
        model.features(parameters(model), {"tokens": tokens(), "lengths": wrong})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pooling": "attention"}, "pooling='attention' is none of mean, first, max, last"),
        ({"normalize": "l1"}, "normalize='l1' is none of l2, none"),
        ({"d_output": -1}, "d_output=-1 must not be negative"),
    ],
)
def test_an_embedder_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        EmbedderConfig(WORDS, **changes)


# --- losses ---------------------------------------------------------------------------------------


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def summed(task, x, readout=lambda x: x, **batch):
    sums = jit(lambda x, batch: task.loss(x, readout, batch))(x, batch)
    return {name: float(value) for name, value in sums.items()}


def rows_of(tree, rows: range):
    return jax.tree.map(lambda x: x[rows.start : rows.stop], tree)


def contrastive_by_loop(x_BGE, texts_BG, present_B, scale, backward_weight):
    """Both directions, one pair at a time, over lists of candidates."""
    x_BGE, total = unit(x_BGE.astype(np.float64)), 0.0
    there = [i for i in range(len(x_BGE)) if present_B[i]]
    for i in there:
        nats = []
        for own, other in ((0, 1), (1, 0)):
            wrong = []
            for j in there:
                pair = (i, j) if own == 0 else (j, i)  # whose first text searches, whose second is found
                first, second = texts_BG[pair[0], 0], texts_BG[pair[1], 1]
                right = {texts_BG[pair[0], 1], texts_BG[pair[0], 0]}
                if j != i and second not in right and texts_BG[pair[1], 0] != first:
                    wrong.append(math.exp(scale * float(x_BGE[i, own] @ x_BGE[j, other])))
            score = scale * float(x_BGE[i, 0] @ x_BGE[i, 1])
            nats.append(math.log(math.exp(score) + sum(wrong)) - score)
        total += (nats[0] + backward_weight * nats[1]) / (1 + backward_weight)
    return total


@pytest.mark.parametrize("backward_weight", [0.0, 1.0, 0.5])
def test_the_contrastive_loss_is_that_of_a_loop_over_pairs(backward_weight):
    x_BGE = normal(7, 2, 6)
    # Pairs 0 and 1 share the second text, 2 and 3 the first; 4's first is 5's second; 6 is not there.
    texts_BG = np.array([[0, 10], [1, 10], [2, 12], [2, 13], [4, 14], [5, 4], [-1, -1]], np.int32)
    present_B = np.array([1, 1, 1, 1, 1, 1, 0], np.float32)
    task = Contrastive(scale=3.0, backward_weight=backward_weight)
    sums = summed(task, x_BGE, texts=texts_BG, present=present_B)
    want = contrastive_by_loop(x_BGE, texts_BG, present_B, 3.0, backward_weight)
    assert sums["weight"] == 6
    np.testing.assert_allclose(sums["loss"], want, rtol=1e-5)


def test_the_contrastive_loss_is_cross_entropy_where_all_texts_differ():
    """sentence-transformers' MultipleNegativesRankingLoss: cross_entropy(20 cos, 0 1 2 ...)."""
    x_BGE = normal(6, 2, 5)
    cos_BC = unit(x_BGE[:, 0].astype(np.float64)) @ unit(x_BGE[:, 1].astype(np.float64)).T
    logp_BC = 20 * cos_BC - np.log(np.exp(20 * cos_BC).sum(1, keepdims=True))
    sums = summed(Contrastive(), x_BGE, texts=np.arange(12).reshape(6, 2), present=np.ones(6, np.float32))
    np.testing.assert_allclose(sums["loss"] / sums["weight"], -np.diag(logp_BC).mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("task", "targets", "size"),
    [
        (CosineRegression(), {"targets": np.array([0, 5, 2.5, 1], np.float32)}, 2),
        (Contrastive(backward_weight=1.0), {"texts": np.arange(8).reshape(4, 2)}, 2),
        (Triplet(margin=0.5), {}, 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_rows_that_only_fill_a_batch_up_change_neither_loss_nor_gradient(task, targets, size):
    x_BGE, more = normal(4, size, 6), normal(2, size, 6, seed=1)

    def loss(x, batch):
        return task.loss(x, lambda x: x, batch)["loss"]

    short = {**targets, "present": np.ones(4, np.float32)}
    long = {name: np.concatenate([x, np.zeros_like(x[:2])]) for name, x in short.items()}
    value, gradient = jit(jax.value_and_grad(loss))(x_BGE, short)
    filled, gradient_filled = jit(jax.value_and_grad(loss))(np.concatenate([x_BGE, more]), long)
    np.testing.assert_allclose(filled, value, rtol=1e-6)
    assert_close(gradient_filled[:4], gradient)
    np.testing.assert_array_equal(gradient_filled[4:], 0)


def test_the_contrastive_loss_sees_the_whole_batch_on_every_mesh():
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices: JAX_NUM_CPU_DEVICES=8, which conftest.py sets")
    x_BGE, texts_BG = normal(8, 2, 4), np.arange(16).reshape(8, 2)
    batch = {"texts": texts_BG, "present": np.ones(8, np.float32)}
    alone = summed(Contrastive(), x_BGE, **batch)
    mesh = make_mesh(MeshConfig(data=4, fsdp=2), jax.devices()[:8])
    with jax.set_mesh(mesh):
        spread = place_rows(
            lambda rows: jax.tree.map(lambda x: x[rows.start : rows.stop], (x_BGE, batch)), 8, mesh
        )
        sums = jit(lambda x, batch: Contrastive().loss(x, lambda x: x, batch))(*spread)
    np.testing.assert_allclose(float(sums["loss"]), alone["loss"], rtol=1e-6)


def test_cosine_regression_is_the_squared_distance_of_cosine_and_score():
    x_BGE, scores = normal(4, 2, 6), np.array([0, 5, 2.5, 1], np.float32)
    cosines = [float(unit(a) @ unit(b)) for a, b in x_BGE.astype(np.float64)]
    sums = summed(CosineRegression(), x_BGE, targets=scores, present=np.array([1, 1, 0, 1], np.float32))
    want = sum((cosines[i] - scores[i] / 5) ** 2 for i in (0, 1, 3))
    np.testing.assert_allclose([sums["loss"], sums["weight"]], [want, 3], rtol=1e-5)


def test_the_triplet_loss_is_by_how_much_the_margin_is_missed():
    x_BGE = normal(5, 3, 4)
    missed = [max(np.linalg.norm(a - p) - np.linalg.norm(a - n) + 1.5, 0) for a, p, n in x_BGE]
    assert 0 < min(missed) or 0 in missed
    sums = summed(Triplet(margin=1.5), x_BGE, present=np.ones(5, np.float32))
    np.testing.assert_allclose(sums["loss"], sum(missed), rtol=1e-5)


def test_a_triplet_of_equal_texts_has_a_finite_gradient():
    same = jnp.ones((2, 3, 4))
    present = {"present": jnp.ones(2)}
    gradient = jit(jax.grad(lambda x: Triplet().loss(x, lambda x: x, present)["loss"]))(same)
    assert np.isfinite(gradient).all()


def test_regression_is_the_squared_error_of_the_one_logit():
    logits, scores = normal(4, 1), normal(4, seed=1)
    sums = summed(Regress(), logits, targets=scores, present=np.array([1, 0, 1, 1], np.float32))
    np.testing.assert_allclose(sums["loss"], ((logits[:, 0] - scores) ** 2)[[0, 2, 3]].sum(), rtol=1e-5)


def test_a_choice_is_a_softmax_over_the_choices_that_are_there():
    logits_BGC, sizes, answers = normal(3, 4, 1), np.array([4, 2, 3]), np.array([3, 0, 1])
    want = 0.0
    for row, size, answer in zip(logits_BGC[..., 0].astype(np.float64), sizes, answers, strict=True):
        want += np.log(np.exp(row[:size]).sum()) - row[answer]
    batch = {"sizes": sizes, "targets": answers, "present": np.ones(3, np.float32)}
    np.testing.assert_allclose(summed(Choice(), logits_BGC, **batch)["loss"], want, rtol=1e-5)
    best = [int(row[:size].argmax()) for row, size in zip(logits_BGC[..., 0], sizes, strict=True)]
    assert best != logits_BGC[..., 0].argmax(1).tolist()  # what only fills a group up would win
    said = Choice().outputs(SimpleNamespace(readout=lambda params, x: x), None, logits_BGC, batch)
    assert said["predicted"].tolist() == best
    metrics = Choice().metrics({"loss": want, "weight": 3}, [jax.device_get(said)], None)
    assert metrics["accuracy"] == np.mean(best == answers)


# --- metrics --------------------------------------------------------------------------------------


def retrieval_by_loop(queries, documents, pairs):
    found = {"recall_at_1": [], "recall_at_10": [], "mrr": [], "ndcg_at_10": []}
    for q, query in enumerate(queries):
        own = {d for p, d in pairs if p == q}
        order = sorted(range(len(documents)), key=lambda d: (-float(query @ documents[d]), d in own))
        places = [place for place, d in enumerate(order, 1) if d in own]
        found["recall_at_1"].append(sum(p <= 1 for p in places) / len(own))
        found["recall_at_10"].append(sum(p <= 10 for p in places) / len(own))
        found["mrr"].append(1 / places[0])
        best = sum(1 / math.log2(1 + p) for p in range(1, min(len(own), 10) + 1))
        found["ndcg_at_10"].append(sum(1 / math.log2(1 + p) for p in places if p <= 10) / best)
    return {name: sum(values) / len(values) for name, values in found.items()}


@pytest.mark.parametrize("block", [1 << 24, 100])
def test_retrieval_scores_are_those_of_a_loop_over_sorted_documents(monkeypatch, block):
    monkeypatch.setattr("zoo.scores.retrieval.BLOCK", block)
    random = np.random.default_rng(0)
    queries = random.integers(-1, 2, (13, 3)).astype(np.float32)  # whole numbers: many ties, and all exact
    documents = random.integers(-1, 2, (40, 3)).astype(np.float32)
    pairs = [(q, int(d)) for q in range(13) for d in random.choice(40, random.integers(1, 14), replace=False)]
    got, want = (
        retrieval_scores(queries, documents, pairs + pairs[:2]),
        retrieval_by_loop(queries, documents, pairs),
    )
    assert got == pytest.approx(want, rel=1e-12)


def test_embeddings_that_are_all_the_same_find_nothing():
    same = np.ones((50, 3), np.float32)
    scores = retrieval_scores(same, same, [(i, i) for i in range(50)])
    assert scores == {"recall_at_1": 0, "recall_at_10": 0, "mrr": 1 / 50, "ndcg_at_10": 0}


def test_embeddings_that_cannot_be_searched_are_refused():
    good, bad = np.ones((2, 3)), np.array([[1, 0, 0], [1, np.nan, 0]])
    with pytest.raises(DataError, match="^document 1 has an embedding that is not finite"):
        retrieval_scores(good, bad, [(0, 0), (1, 1)])
    with pytest.raises(DataError, match="^query 1 has no document"):
        retrieval_scores(good, good, [(0, 0)])


def test_correlations_are_scipys():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    random = np.random.default_rng(0)
    x = random.integers(0, 6, 200) / 5  # ties
    y = x + random.standard_normal(200).round(1)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_an_evaluation_searches_every_second_text_once():
    """Texts 1 and 2 share their answer, 20; batches are joined, and what only fills them up is left out."""
    embeddings = normal(6, 2, 4)
    texts = np.array([[1, 20], [2, 20], [3, 30], [3, 31], [4, 40], [-1, -1]])
    embeddings[3, 0], embeddings[1, 1] = embeddings[2, 0], embeddings[0, 1]  # equal texts are embedded alike
    outputs = [
        {"embeddings": embeddings[i : i + 3], "texts": texts[i : i + 3], "present": np.array(present)}
        for i, present in ((0, [1, 1, 1]), (3, [1, 1, 0]))
    ]
    found = Contrastive().metrics({"loss": 8.0, "weight": 5.0}, outputs, None)
    queries, documents = embeddings[[0, 1, 2, 4], 0], embeddings[[0, 2, 3, 4], 1]
    want = retrieval_by_loop(queries, documents, [(0, 0), (1, 0), (2, 1), (2, 2), (3, 3)])
    assert found == pytest.approx({"eval_loss": 1.6, **want}, rel=1e-6)


# --- PyTorch --------------------------------------------------------------------------------------


@pytest.mark.parity
def test_mean_pooling_and_multiple_choice_are_those_of_transformers():
    """sentence-transformers' mean pooling and normalisation on a BertModel, and BertForMultipleChoice."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from zoo.pretrained.bert import config_from_hf, from_hf

    torch.manual_seed(0)
    settings = {"vocab_size": 97, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    settings |= {"intermediate_size": 40, "max_position_embeddings": 14}
    net = transformers.BertForMultipleChoice(transformers.BertConfig(**settings)).double().eval()
    with torch.no_grad():
        for x in net.parameters():
            x.add_(0.2 * torch.randn_like(x))
    config = dataclasses.replace(config_from_hf(settings | {"model_type": "bert"}), dtype="float64")
    theirs = {name: x.detach().numpy() for name, x in net.named_parameters()}
    unread = {"bias": 97, "transform.dense.weight": (24, 24), "transform.dense.bias": 24}
    unread |= {"transform.LayerNorm.weight": 24, "transform.LayerNorm.bias": 24}
    zeros = {f"cls.predictions.{name}": np.zeros(shape) for name, shape in unread.items()}
    random = np.random.default_rng(0)
    ids = random.integers(1, 97, (B, G, 9))
    lengths = random.integers(2, 10, (B, G))
    types = random.integers(0, 2, (B, G, 9))
    mask = np.arange(9) < lengths[..., None]
    read = {"input_ids": ids, "attention_mask": mask.astype(int), "token_type_ids": types}
    with torch.no_grad():
        given = {name: torch.tensor(x) for name, x in read.items()}
        wanted_logits = net(**given).logits.numpy()
        rows = {name: x.reshape(B * G, 9) for name, x in given.items()}
        states, there = net.bert(**rows).last_hidden_state, rows["attention_mask"][..., None].double()
        means = (states * there).sum(1) / there.sum(1).clamp(min=1e-9)
        wanted = torch.nn.functional.normalize(means, p=2, dim=1).reshape(B, G, 24).numpy()
    with jax.enable_x64(True):
        loaded = from_hf({k: x for k, x in theirs.items() if k.startswith("bert.")} | zeros, config)
        model = zoo.create(EmbedderConfig(config))
        encoder = {name: loaded[name] for name in model.abstract()["encoder"]}
        inputs = {"tokens": ids, "lengths": lengths, "token_types": types}
        got = jit(model.apply)({"encoder": encoder}, inputs)
        chooser = zoo.create(ClassifierConfig(config, num_classes=1, pooling="first", d_hidden=24))
        params = {
            "encoder": encoder,
            "hidden": {"w": theirs["bert.pooler.dense.weight"].T, "b": theirs["bert.pooler.dense.bias"]},
            "classes": {"w": theirs["classifier.weight"].T, "b": theirs["classifier.bias"]},
        }
        logits = jit(chooser.apply)(params, inputs)[..., 0]
    for ours, his in ((got, wanted), (logits, wanted_logits)):
        assert np.abs(np.asarray(ours) - his).max() <= 1e-9 * np.abs(his).max()
