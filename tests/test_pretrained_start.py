"""Published folders at work: their tokenizers, `python -m zoo`, and training runs that start from them."""

import dataclasses
import json
import re
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from families import jit
from folders import (
    CONFIGS,
    ENCODER,
    LABELS,
    PIECES,
    SIZES,
    TOKENIZER,
    change,
    classifier,
    digests,
    equal,
    random_params,
    refusal,
    written,
)

import train
import zoo
from zoo.__main__ import main as command
from zoo.config import to_json
from zoo.data import ExamplesConfig, MaskedConfig, load_tokenizer
from zoo.data.tokenizers.bpe import byte_symbols
from zoo.data.tokenizers.word_piece import WordPieceTokenizer
from zoo.errors import ConfigError, DataError, StorageError
from zoo.mesh import MeshConfig, make_mesh
from zoo.models.bert import BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.models.gpt import GPTConfig
from zoo.models.pretraining import PretrainingConfig
from zoo.models.tagger import TaggerConfig
from zoo.pretrained import described_problem, start
from zoo.pretrained.architectures import exported
from zoo.pretrained.start import completed, load_start, shared_part
from zoo.pretrained.teacher import load_teacher
from zoo.recipes import Recipe
from zoo.schedules import Constant
from zoo.tasks import Classify, MaskedPairs
from zoo.tree import named_leaves

# --- tokenizers -----------------------------------------------------------------------------------


def tokenizer_json(folder, **changes) -> None:
    """A tokenizer.json such as transformers writes for BERT."""
    model = {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {piece: i for i, piece in enumerate(PIECES)}}
    normalizer = {"type": "BertNormalizer", "lowercase": True, "strip_accents": None, "clean_text": True}
    whole = {"model": model, "normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"}}
    (folder / "tokenizer.json").write_text(json.dumps(whole | changes))


@pytest.mark.parametrize(
    ("settings", "lowercases", "strips", "text", "pieces"),
    [
        ({}, True, True, "Good f\u00efLm", "good film"),
        ({"do_lower_case": False}, False, False, "Good film", "[UNK] film"),
        ({"strip_accents": False}, True, False, "Good f\u00efLm", "good [UNK]"),
        ({"do_lower_case": None}, True, True, "GOOD", "good"),
    ],
)
def test_tokenizer_config_json_has_the_last_word(settings, lowercases, strips, text, pieces, tmp_path):
    tokenizer_json(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = WordPieceTokenizer.read(tmp_path)
    assert (tokenizer.lowercases, tokenizer.strips_accents) == (lowercases, strips)
    assert [PIECES[i] for i in tokenizer.encode(text)] == pieces.split()
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").digest == tokenizer.digest


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"type": "Unigram"}}, "a tokenizer of the kind 'Unigram'"),
        ({"model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "b": 2}}}, "'b' has 2 in place of 1"),
        ({"model": {"type": "WordPiece", "vocab": 3}}, "its model has no vocab"),
        (
            {"normalizer": {"type": "Lowercase"}},
            "its normalizer has type='Lowercase', and here it is 'BertNormalizer'",
        ),
        ({"normalizer": 7}, "normalizer is no object"),
        ({"added_tokens": [{"content": "x"}]}, "added_tokens is no list of pieces"),
    ],
)
def test_a_tokenizer_json_of_another_make_is_refused(changes, said, tmp_path):
    tokenizer_json(tmp_path, **changes)
    assert said in refusal(load_tokenizer, tmp_path, error=DataError)


def byte_level(folder):
    """A tokenizer.json of ModernBERT's make, by the library: NFC, runs of blanks as pieces of their own,
    marks behind the vocabulary. Returns the library's tokenizer."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    merges = [("\u0120", "f"), ("i", "l"), ("\u0120f", "il"), ("\u0120fil", "m")]
    pieces = [*byte_symbols(), *(left + right for left, right in merges)]
    library = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    library.normalizer, library.decoder = normalizers.NFC(), decoders.ByteLevel()
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.add_tokens([AddedToken("    ", normalized=True), AddedToken("  ", normalized=True)])
    library.add_special_tokens(["<|endoftext|>", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    around = [(mark, library.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")]
    pair = "[CLS] $A [SEP] $B [SEP]"
    library.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", pair, special_tokens=around)
    library.save(str(folder / "tokenizer.json"))
    return library


def test_a_byte_level_tokenizer_json_is_read_and_written_as_the_library_has_it(tmp_path):
    library = byte_level(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    marks = (tokenizer.bos, tokenizer.eot, tokenizer.mask, tokenizer.pad)
    assert marks == tuple(library.token_to_id(mark) for mark in ("[CLS]", "[SEP]", "[MASK]", "[PAD]"))
    assert tokenizer.vocab_size == library.get_vocab_size()
    tokenizer.save(tmp_path / "saved")
    (tmp_path / "published").mkdir()
    tokenizer.publish(tmp_path / "published")
    again = type(library).from_file(str(tmp_path / "published" / "tokenizer.json"))
    for text in ("a film", "if x:\n      return  film", "e\u0301   film\u4e2d", "film  "):
        wanted = library.encode(text, add_special_tokens=False).ids
        for each in (tokenizer, load_tokenizer(tmp_path / "saved"), load_tokenizer(tmp_path / "published")):
            assert each.encode(text).tolist() == wanted, text
        assert again.encode(text).ids == library.encode(text).ids
        assert again.encode(text, "film").ids == library.encode(text, "film").ids
    # A mark inside a text is text: no document can end itself.
    assert not set(tokenizer.encode("a [SEP] b").tolist()) & set(tokenizer.special_ids)
    assert tokenizer.decode([tokenizer.bos, *tokenizer.encode("a [SEP]"), tokenizer.eot]) == "a [SEP]"


# --- commands -------------------------------------------------------------------------------------


def test_show_and_export_of_a_published_folder(tmp_path, capsys):
    written(tmp_path / "a", classifier(ENCODER), max_shard_size=10**9)
    assert command(["show", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().out
    assert '"perhaps"' in shown and json.loads(shown.splitlines()[-1])["parameters"] == 2327
    assert command(["export", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert command(["export", str(tmp_path / "a"), str(tmp_path / "b")]) == StorageError.exit_code


def test_predict_answers_with_the_folders_own_names(tmp_path, capsys):
    written(tmp_path / "a", classifier(ENCODER))
    (tmp_path / "texts.txt").write_text("a good film\nbad films.\n")
    assert command(["predict", str(tmp_path / "a"), str(tmp_path / "texts.txt")]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()[:2]]
    assert [answer["text"] for answer in answers] == ["a good film", "bad films."]
    model, params, tokenizer = zoo.from_pretrained(tmp_path / "a")
    tokens = [tokenizer.bos, *tokenizer.encode("a good film"), tokenizer.eot]
    logits_BC = jit(lambda p: model.apply(p, np.array([tokens])))(params)
    assert answers[0]["label"] == LABELS[int(np.argmax(logits_BC))]


def test_a_published_model_of_one_number_gives_scores(tmp_path, capsys):
    """A class alone is certain of every text: problem_type says that its logit is a number."""
    config = dataclasses.replace(classifier(ENCODER), num_classes=1)
    model, params = zoo.create(config), random_params(config)
    zoo.save_pretrained(tmp_path / "a", model, params, TOKENIZER, problem_type="regression")
    (tmp_path / "texts.tsv").write_text("text\tscore\na good film\t1\nbad films.\t-2\n")
    assert command(["predict", str(tmp_path / "a"), str(tmp_path / "texts.tsv")]) == 0
    scores = [json.loads(line)["score"] for line in capsys.readouterr().out.splitlines()[:2]]
    apply = jit(lambda p, tokens: model.apply(p, tokens))
    rows = [[2, *TOKENIZER.encode(text).tolist(), 3] for text in ("a good film", "bad films.")]
    wanted = [float(apply(params, np.array([row]))[0, 0]) for row in rows]
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=2e-6)  # they are said with six digits
    assert command(["eval", str(tmp_path / "a"), str(tmp_path / "texts.tsv")]) == 0
    loss = json.loads(capsys.readouterr().out.splitlines()[-1])["eval_loss"]
    np.testing.assert_allclose(loss, np.mean(np.square(np.subtract(wanted, [1, -2]))), rtol=1e-4)


@pytest.mark.parametrize(("classes", "problem"), [(1, "regression"), (2, "single_label_classification")])
def test_a_run_is_exported_with_what_its_logits_mean(classes, problem, tmp_path):
    model = dataclasses.replace(NAMED.model, num_classes=classes)
    settings = {"recipe": to_json(dataclasses.replace(NAMED, model=model)), "data_digest": ""}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert described_problem(tmp_path) == problem


def test_what_a_published_model_cannot_do_is_one_line(tmp_path, capsys):
    written(tmp_path / "words")
    written(tmp_path / "mute", CONFIGS["gpt2"], tokenizer=None)
    (tmp_path / "texts.txt").write_text("a film\n")
    for verb, folder, said in (
        ("predict", "words", "MaskedLM, predicts nothing of a text"),
        ("score", "mute", "holds no tokenizer, so that it reads no text"),
        ("eval", "mute", "holds no tokenizer"),
    ):
        assert command([verb, str(tmp_path / folder), str(tmp_path / "texts.txt")]) > 0
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ") and said in error


# --- a training run -------------------------------------------------------------------------------

EXAMPLES = ExamplesConfig(kind="classify", tokenizer="wordpiece", vocab_size=500, wrap="both", max_length=12)
NAMED = Recipe(
    model=ClassifierConfig(
        BERTConfig(vocab_size=0, num_layers=2, num_heads=2, d_model=16, dropout_rate=0.3, dtype="bfloat16"),
        num_classes=0,
        pooling="first",
        d_hidden=16,
    ),
    task=Classify(),
    data=EXAMPLES,
)


def started(folder, *, named=NAMED, encoder=(), model=(), **changes):
    """A recipe with what was set by hand, completed from a folder."""
    inner = dataclasses.replace(named.model.encoder, **dict(encoder))
    head = dataclasses.replace(named.model, encoder=inner, **dict(model))
    recipe = dataclasses.replace(named, model=head, init=str(folder), **changes)
    return completed(recipe, named)


def test_a_run_takes_sizes_and_vocabulary_from_the_folder_it_starts_from(tmp_path):
    written(tmp_path / "a")
    recipe = started(tmp_path / "a")
    assert recipe.model.encoder == dataclasses.replace(ENCODER, dropout_rate=0.3, dtype="bfloat16")
    assert recipe.model.d_hidden == 8 and recipe.model.num_classes == 0
    assert (recipe.data.tokenizer, recipe.data.vocab_path, recipe.data.vocab_size) == (
        *("wordpiece", str(tmp_path / "a")),
        0,
    )
    assert started(tmp_path / "a", encoder={"num_layers": 3}) == recipe  # what the folder has too
    by_hand = dataclasses.replace(EXAMPLES, vocab_path="mine", vocab_size=0)
    assert started(tmp_path / "a", data=by_hand).data == by_hand


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": {"num_layers": 4}}, "model.encoder.num_layers=4, but "),
        ({"encoder": {"activation": "relu"}}, "model.encoder.activation='relu', but "),
        ({"data": dataclasses.replace(EXAMPLES, tokenizer="word")}, "set data.tokenizer=wordpiece"),
        ({"data": dataclasses.replace(EXAMPLES, max_length=13)}, "data.length=13 is longer than the model"),
    ],
)
def test_a_value_set_by_hand_that_the_folder_has_not_is_refused(changes, said, tmp_path):
    written(tmp_path / "a")
    with pytest.raises(ConfigError) as caught:
        started(tmp_path / "a", **changes)
    assert said in str(caught.value)


def test_a_head_for_bert_is_put_on_a_modernbert(tmp_path, capsys):
    """The encoder is the folder's, dropout and dtype the recipe's; sizes of BERT set by hand are refused."""
    theirs = written(tmp_path / "a", CONFIGS["modernbert"])
    model = started(tmp_path / "a").model
    assert model.encoder == dataclasses.replace(CONFIGS["modernbert"], dropout_rate=0.3, dtype="bfloat16")
    assert (model.d_hidden, model.hidden_activation) == (8, "tanh")
    model = zoo.create(dataclasses.replace(model, num_classes=3))
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    found = load_start(tmp_path / "a", model, {}, mesh, TOKENIZER)
    assert equal(found["encoder"], {name: theirs[name] for name in found["encoder"]})
    assert "random at first: classes, hidden\n" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="model.encoder is a BERTConfig, and .* holds a ModernBERTConfig"):
        started(tmp_path / "a", encoder={"num_layers": 5})


def test_a_recipe_of_another_family_is_refused(tmp_path):
    written(tmp_path / "a", CONFIGS["gpt2"], tokenizer=None)
    with pytest.raises(ConfigError, match="model.encoder is a BERTConfig, and .* holds a GPTConfig"):
        started(tmp_path / "a")


@pytest.mark.parametrize(
    ("source", "fresh"), [("bert", "classes, hidden"), ("bert classes", ""), ("bert tags", "classes, hidden")]
)
def test_a_classifier_starts_from_what_a_folder_has_of_it(source, fresh, tmp_path, capsys):
    theirs = written(tmp_path / "a", CONFIGS[source])
    model = zoo.create(CONFIGS["bert classes"])
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    found = load_start(tmp_path / "a", model, {}, mesh, TOKENIZER)
    said = capsys.readouterr().err
    assert (f"not in it, random at first: {fresh}\n" in said) == bool(fresh)
    encoder = theirs.get("encoder", theirs)
    wanted = {name: x for name, x in named_leaves(encoder).items() if name in named_leaves(found["encoder"])}
    assert equal(found["encoder"], wanted)
    if not fresh:
        assert equal(found, theirs)
    strange = WordPieceTokenizer((*PIECES[:-2], ".", ","))
    assert "another vocabulary" in refusal(load_start, tmp_path / "a", model, {}, mesh, strange)


def test_a_classifier_takes_the_pooler_of_a_pretrained_bert(tmp_path, capsys):
    params = random_params(PretrainingConfig(ENCODER))
    zoo.save_pretrained(tmp_path / "a", zoo.create(PretrainingConfig(ENCODER)), params)
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    found = load_start(tmp_path / "a", zoo.create(CONFIGS["bert classes"]), {}, mesh, TOKENIZER)
    pooler = params["pooler"]["w"].reshape(8, 8)  # [D, H, K]
    np.testing.assert_array_equal(found["hidden"]["w"], pooler)
    said = capsys.readouterr().err
    assert "random at first: classes" in said and "hidden" not in said


def test_a_distilbert_is_fine_tuned_under_the_head_that_it_is_published_with(tmp_path):
    """BERT's tanh layer over it could not be exported: DistilBertForSequenceClassification has a ReLU."""
    written(tmp_path / "a", CONFIGS["distilbert"])
    head = started(tmp_path / "a").model
    assert (head.hidden_activation, head.d_hidden) == ("relu", 8)
    exported(dataclasses.replace(head, num_classes=2))
    assert started(tmp_path / "a", model={"pooling": "mean"}).model.hidden_activation == "tanh"


def test_a_classifier_takes_the_pooler_of_a_run_of_both_heads(tmp_path, monkeypatch):
    """As it does of a folder: the layer that next sentences were told apart by."""
    theirs, config = random_params(PretrainingConfig(ENCODER)), CONFIGS["bert classes"]
    for name, stand_in in (("is_run", True), ("load_params", theirs)):
        monkeypatch.setattr(start, name, lambda *args, found=stand_in: found)
    data = MaskedConfig(pairs="next_sentence", length=12)
    source = Recipe(model=PretrainingConfig(ENCODER), task=MaskedPairs(), data=data)
    monkeypatch.setattr(start, "recipe_of", lambda folder: source)
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    first = random_params(config)
    found = load_start(tmp_path, zoo.create(config), first, mesh, TOKENIZER)
    np.testing.assert_array_equal(found["encoder"]["tokens"]["table"], theirs["encoder"]["tokens"]["table"])
    np.testing.assert_array_equal(found["hidden"]["w"], theirs["pooler"]["w"].reshape(8, 8))
    np.testing.assert_array_equal(found["hidden"]["b"], theirs["pooler"]["b"].reshape(8))
    np.testing.assert_array_equal(found["classes"]["w"], first["classes"]["w"])
    for other in ({"hidden_activation": "relu"}, {"pooling": "mean"}):
        model = zoo.create(dataclasses.replace(config, **other))
        found = load_start(tmp_path, model, first, mesh, TOKENIZER)
        np.testing.assert_array_equal(found["hidden"]["w"], first["hidden"]["w"])


@pytest.mark.parametrize("source", ["bert classes", "bert tags"])
def test_a_heads_rows_go_where_their_names_are(source, tmp_path):
    """The folder's classes are LABELS; a run's are ordered by spelling."""
    theirs, model = written(tmp_path / "a", CONFIGS[source]), zoo.create(CONFIGS[source])
    kind = "labels" if source == "bert classes" else "tags"
    ours = {"labels": (), "tags": ()} | {kind: ("no", "perhaps", "yes")}
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    found = named_leaves(load_start(tmp_path / "a", model, theirs, mesh, TOKENIZER, ours))
    for name, x in named_leaves(theirs).items():
        of_classes = x.shape and x.shape[-1] == 3 and not name.startswith("encoder")
        np.testing.assert_array_equal(found[name], x[..., [0, 2, 1]] if of_classes else x)


def test_a_head_for_other_names_begins_at_random(tmp_path, capsys):
    theirs, model = written(tmp_path / "a", CONFIGS["bert classes"]), zoo.create(CONFIGS["bert classes"])
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    first = jax.tree.map(lambda x: x + 1, theirs)
    ours = {"labels": ("bad", "fair", "good"), "tags": ()}
    found = load_start(tmp_path / "a", model, first, mesh, TOKENIZER, ours)
    assert equal(found["classes"], first["classes"]) and equal(found["hidden"], theirs["hidden"])
    said = "other labels there (no, yes, perhaps): random at first: classes/b, classes/w"
    assert said in capsys.readouterr().err
    change(tmp_path / "a", id2label={str(n): f"LABEL_{n}" for n in range(3)})  # nobody has named them
    found = load_start(tmp_path / "a", model, first, mesh, TOKENIZER, ours)
    assert equal(found["classes"], theirs["classes"])


def test_a_published_teacher_reads_and_answers_as_its_student(tmp_path):
    theirs = written(tmp_path / "a", CONFIGS["bert classes"])
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    data = SimpleNamespace(tokenizer=TOKENIZER, labels=("0", "1", "2"), tags=())
    assert "other names of classes" in refusal(load_teacher, str(tmp_path / "a"), NAMED, mesh, data)
    longer = dataclasses.replace(NAMED, data=dataclasses.replace(EXAMPLES, max_length=13))
    assert "longer than the teacher" in refusal(load_teacher, str(tmp_path / "a"), longer, mesh, data)
    strange = SimpleNamespace(tokenizer=WordPieceTokenizer((*PIECES[:-2], ".", ",")), labels=LABELS, tags=())
    assert "another vocabulary" in refusal(load_teacher, str(tmp_path / "a"), NAMED, mesh, strange)
    change(tmp_path / "a", id2label={str(n): f"LABEL_{n}" for n in range(3)})
    assert equal(load_teacher(str(tmp_path / "a"), NAMED, mesh, data)[1], theirs)


def test_sizes_that_no_tensor_has_are_refused_before_a_model_is_made(tmp_path):
    written(tmp_path / "a")
    settings = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps(settings | {"hidden_size": 10**9}))
    assert "of another shape" in refusal(started, tmp_path / "a")


def test_a_folder_without_a_vocabulary_trains_none_of_its_own(tmp_path):
    written(tmp_path / "a", tokenizer=None)
    assert "holds no tokenizer" in refusal(started, tmp_path / "a")


def test_another_number_of_classes_leaves_the_classes_new(tmp_path, capsys):
    theirs = written(tmp_path / "a", CONFIGS["bert classes"])
    model = zoo.create(dataclasses.replace(CONFIGS["bert classes"], num_classes=5))
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    found = load_start(tmp_path / "a", model, {}, mesh, TOKENIZER)
    assert equal(found["hidden"], theirs["hidden"]) and found["classes"]["w"].shape == (8, 5)
    assert "random at first: classes" in capsys.readouterr().err


@pytest.fixture
def examples(tmp_path):
    """Sentences of two classes, divided."""
    for part, count in (("train", 24), ("valid", 8)):
        rows = [f"a {'good' if i % 2 else 'bad'} film{'s' * (i % 3)} .\t{i % 2}" for i in range(count)]
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{part}.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    return tmp_path / "data"


@pytest.mark.slow
def test_a_run_from_a_folder_goes_on_without_it_and_is_exported(tmp_path, examples, monkeypatch, capsys):
    """Two steps, two more when the folder is gone, and the run as a folder again, which predicts the same."""
    written(tmp_path / "a")
    recipe = dataclasses.replace(NAMED, schedule=Constant(), sample_tokens=0, data=EXAMPLES)
    monkeypatch.setitem(train.CONFIGS, "named", dataclasses.replace(recipe, name="named"))
    flags = ["--data.path", str(examples), "--data.batch-size", "8", "--runs", str(tmp_path / "runs")]
    flags += ["--init", str(tmp_path / "a"), "--model.encoder.dtype", "float32", "--save-every", "2"]
    assert train.main(["named", "--steps", "2", *flags]) == 0
    assert "random at first: classes, hidden" in capsys.readouterr().err
    shutil.move(tmp_path / "a", tmp_path / "elsewhere")
    assert train.main(["named", "--steps", "4", *flags]) == 0
    assert "continued at step 2" in capsys.readouterr().err
    run = tmp_path / "runs" / "named"
    model, params, _ = zoo.from_pretrained(run)
    assert model.config.encoder.d_model == 8 and model.config.d_hidden == 8

    assert command(["export", str(run), str(tmp_path / "b")]) == 0
    assert zoo.labels_of(tmp_path / "b")["labels"] == ("0", "1")
    assert equal(zoo.from_pretrained(tmp_path / "b")[1], params)
    capsys.readouterr()
    answers = []
    for folder in (run, tmp_path / "b"):
        for verb in ("predict", "eval"):
            assert command([verb, str(folder), str(examples / "valid.tsv")]) == 0
        out = capsys.readouterr().out.splitlines()
        answers.append([line for line in out if not line.startswith('{"model"')])
    assert "accuracy" in "".join(answers[0])
    words, again = (re.split(r"([-\d.e]+)", "\n".join(lines)) for lines in answers)
    assert words[::2] == again[::2]
    for number, same in zip(words[1::2], again[1::2], strict=True):  # two programs, so to rounding
        assert number == same or float(number) == pytest.approx(float(same), rel=1e-5)


@pytest.mark.parametrize(
    ("model", "source", "here", "there"),
    [
        (ENCODER, PretrainingConfig(ENCODER), "", "encoder/"),
        (classifier(ENCODER), PretrainingConfig(ENCODER), "encoder/", "encoder/"),
        (TaggerConfig(ENCODER, num_tags=5, dropout_rate=0.0), classifier(ENCODER), "encoder/", "encoder/"),
        (classifier(ENCODER), ENCODER, "encoder/", ""),
        (classifier(ENCODER), classifier(ENCODER), "", ""),
    ],
)
def test_a_run_starts_from_the_largest_part_that_another_has_too(model, source, here, there):
    found = shared_part(zoo.create(model), zoo.create(source))
    assert found[:2] == (here, there)
    assert here != "" or found[2].keys() == named_leaves(zoo.create(model).abstract()).keys()


def test_layers_with_biases_are_no_part_of_those_without():
    with_biases = GPTConfig(**SIZES)
    assert (
        shared_part(zoo.create(dataclasses.replace(with_biases, bias=False)), zoo.create(with_biases)) is None
    )
