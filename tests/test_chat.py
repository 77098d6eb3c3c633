"""Dialogues with a model: what it sees, where its answers end, what the verb does."""

import io

import jax
import pytest
from dialogues import file_of, process, said, tokenizer_in
from templates import CHATML, STRICT, TRIMMING
from test_main import refused, result

import train
import zoo
from zoo.__main__ import main
from zoo.data.dialogues.encoding import encode_prompt
from zoo.data.dialogues.template import PLAIN
from zoo.data.tokenizers.published import TEMPLATE, read_template
from zoo.errors import UserError
from zoo.inference.chat import Chat, ends_of_turn
from zoo.inference.generate import generate
from zoo.models.decoder_config import DecoderConfig

TINY = {"num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "d_model": 16, "d_ff": 24}


def folder_of(path, template=CHATML, max_length=200):
    """A published model of random weights with its tokenizer and chat template."""
    tokenizer = tokenizer_in(path.with_name(path.name + "_tokenizer"), template)
    model = zoo.create(DecoderConfig(vocab_size=tokenizer.vocab_size, max_length=max_length, **TINY))
    zoo.save_pretrained(path, model, model.init(jax.random.key(2)), tokenizer)
    return path


def talk_with(folder, **settings) -> tuple[Chat, object]:
    model, params, tokenizer = zoo.from_pretrained(folder)
    template = process(tokenizer.chat_template, tokenizer)
    return Chat(model, params, tokenizer, template, **settings), tokenizer


def answer(talk, text, count=6):
    prompt, pieces = talk.ask(text, max_new_tokens=count)
    *_, last = pieces
    talk.answered(talk.tokenizer.decode(last.new))
    return prompt, last.new


@pytest.mark.parametrize("template", [CHATML, STRICT, TRIMMING, PLAIN], ids=["a", "b", "c", "plain"])
def test_an_answer_ends_by_the_mark_that_the_template_puts_behind_it(template, tmp_path):
    tokenizer = tokenizer_in(tmp_path / "t", template)
    with process(template, tokenizer) as made:
        found = ends_of_turn(made, tokenizer)
    mark = tokenizer.marks["<|end|>" if template == PLAIN else "<|im_end|>"]
    assert found == tuple(dict.fromkeys((tokenizer.eot, mark)))


def test_each_answer_is_what_the_model_writes_after_all_that_was_said(tmp_path):
    talk, tokenizer = talk_with(folder_of(tmp_path / "m"), messages=[{"role": "system", "content": "Be."}])
    with talk.template:
        first, new = answer(talk, "a film")
        assert generate(talk.model, talk.params, [first], max_new_tokens=6, eot=talk.ends)[0] == new
        second, _ = answer(talk, "why?")
        assert [m["role"] for m in talk.messages] == ["system", "user", "assistant", "user", "assistant"]
        assert second == encode_prompt(talk.messages[:-1], talk.template, tokenizer)
        talk.undo()
        assert len(talk.messages) == 3
        again, _ = answer(talk, "why?")
        assert again == second
        talk.undo(), talk.undo(), talk.undo()
        assert talk.messages == [{"role": "system", "content": "Be."}]


def test_the_oldest_turns_are_forgotten_and_the_systems_message_never(tmp_path):
    talk, tokenizer = talk_with(folder_of(tmp_path / "m"), messages=[{"role": "system", "content": "Be."}])
    with talk.template:
        forgotten = []
        for number in range(12):
            prompt, _ = answer(talk, f"question {number} of a film")
            forgotten.append(talk.forgotten)
            text = tokenizer.decode(prompt)
            assert "system\nBe." in text and f"question {number} " in text
            assert len(prompt) <= 200 - 6
            assert (f"question {number - 1} " in text) == (talk.forgotten < 2 * number)
        assert forgotten[0] == 0 and forgotten == sorted(forgotten) and forgotten[-1] > 2
        assert all(count % 2 == 0 for count in forgotten)
        before = list(talk.messages)
        with pytest.raises(UserError, match="the model reads 200; shorten it"):
            talk.ask("film " * 300, max_new_tokens=6)
        assert talk.messages == before


# --- the verb -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("chat") / "m")


def typed(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


WORDS = ["red", "blue", "green", "black"]
COLOURS = [
    said(f"Say {word}{'!' * i}", word, "Again?", f"{word} {word}") for word in WORDS for i in range(10)
]
SHORT = ("--tokens", "5", "--temperature", "0")


def test_lines_are_messages_and_commands_are_obeyed(capsys, monkeypatch, folder):
    typed(monkeypatch, "a film\n\n/undo\n/nonsense\nwhy\\\nnot?\n//path\n/quit\nnever\n")
    lines, found = result(capsys, "chat", folder, *SHORT, "--system", "Be.")
    asked = [m["content"] for m in found["messages"] if m["role"] == "user"]
    assert asked == ["why\nnot?", "/path"] and found["turns"] == 3
    assert found["messages"][0] == {"role": "system", "content": "Be."}
    answers = [m["content"] for m in found["messages"] if m["role"] == "assistant"]
    assert "\n".join(lines).endswith("\n".join(answers))


def test_the_same_questions_and_seed_have_the_same_answers(capsys, monkeypatch, folder):
    found = []
    for seed in ("3", "3", "4"):
        typed(monkeypatch, "a film\nwhy?\n")
        found.append(result(capsys, "chat", folder, "--tokens", "8", "--seed", seed)[1]["messages"])
    assert found[0] == found[1] != found[2]


def test_new_begins_anew_and_system_under_another(capsys, monkeypatch, folder):
    typed(monkeypatch, "a\n/new\nb\n/system Be kind.\nc\n")
    messages = result(capsys, "chat", folder, *SHORT)[1]["messages"]
    assert [m["content"] for m in messages[:2]] == ["Be kind.", "c"] and len(messages) == 3


def test_a_system_that_a_template_refuses_can_be_taken_back(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    strict = folder_of(tmp_path / "strict", STRICT)
    typed_lines = iter(["/system Be.", "a", "/system", "b", "/quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(typed_lines))
    _, found = result(capsys, "chat", strict, *SHORT)
    assert [m["content"] for m in found["messages"] if m["role"] != "assistant"] == ["b"]


def test_a_model_without_a_template_and_one_that_writes_no_texts_are_refused(
    capsys, monkeypatch, tmp_path, folder
):
    typed(monkeypatch, "a\n")
    plain = folder_of(tmp_path / "plain", template="")
    err = refused(capsys, 2, "chat", plain)
    assert "has no chat template" in err and "--template" in err
    (tmp_path / "t.jinja").write_text(CHATML)
    assert result(capsys, "chat", plain, *SHORT, "--template", tmp_path / "t.jinja")[1]["turns"] == 1
    (tmp_path / "bad.jinja").write_text("{% for %}")
    assert "bad.jinja: its chat template cannot be read" in refused(
        capsys, 3, "chat", plain, "--template", tmp_path / "bad.jinja"
    )
    assert "--tokens=0" in refused(capsys, 2, "chat", folder, "--tokens", "0")
    typed(monkeypatch, "film " * 300 + "\n")
    assert "shorten it" in refused(capsys, 2, "chat", folder, *SHORT)


def test_without_jinja2_a_line_says_what_to_install(capsys, monkeypatch, folder):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 'pip install -e ".[chat]"' in refused(capsys, 2, "chat", folder)


def test_adapters_bring_the_template_that_they_were_trained_by(capsys, monkeypatch, tmp_path):
    """Of a base that knows no dialogues: by a run, as peft has them, and whole."""
    base = folder_of(tmp_path / "base", template="")
    (tmp_path / "t.jinja").write_text(CHATML)
    argv = ["llama_chat", "--init", str(base), "--data.path", file_of(tmp_path / "d.jsonl", COLOURS)]
    argv += ["--data.template", str(tmp_path / "t.jinja"), "--data.length", "64", "--data.batch-size", "8"]
    argv += ["--lora.rank", "2", "--model.dtype", "float32", "--steps", "4", "--sample-tokens", "4"]
    assert train.main([*argv, "--runs", str(tmp_path), "--name", "run"]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "adapter"), "--format", "peft"]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "whole")]) == 0
    capsys.readouterr()
    found = []
    for model in ((tmp_path / "run",), (tmp_path / "whole",), (base, "--adapter", tmp_path / "adapter")):
        typed(monkeypatch, "Say red\n")
        found.append(result(capsys, "chat", *model, *SHORT)[1]["messages"])
    assert found[0] == found[1] == found[2]


# --- from dialogues to a dialogue -----------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small decoder that was taught to say the colour that it is asked for, by a template of its own."""
    folder = tmp_path_factory.mktemp("colours")
    own = PLAIN.replace("message.role | capitalize", "'<' + message.role + '>'")
    (folder / "t.jinja").write_text(own.replace("Assistant", "<assistant>"))
    argv = ["chat_stdlib", "--data.path", file_of(folder / "d.jsonl", COLOURS)]
    argv += ["--data.template", str(folder / "t.jinja"), "--data.tokenizer", "byte", "--data.vocab-size", "0"]
    argv += ["--data.length", "96", "--model.d-model", "48", "--model.num-heads", "4"]
    argv += ["--model.num-kv-heads", "2", "--model.d-ff", "96", "--model.num-layers", "1"]
    argv += ["--model.max-length", "96", "--steps", "150", "--sample-prompt", "Say red"]
    assert train.main([*argv, "--runs", str(folder), "--name", "run"]) == 0
    return folder / "run"


def test_what_was_fine_tuned_on_dialogues_answers_them(capsys, monkeypatch, run):
    typed(monkeypatch, "Say blue!!\nAgain?\n")
    lines, found = result(capsys, "chat", run, "--temperature", "0", "--tokens", "20")
    assert lines == ["blue", "blue blue"]
    assert (run / "samples.txt").read_text().startswith("Say red\nred")


def test_it_is_evaluated_when_the_file_of_its_template_is_gone(capsys, run):
    want = result(capsys, "eval", run)[1]
    template = run.parent / "t.jinja"
    template.rename(run.parent / "gone.jinja")
    try:
        assert result(capsys, "eval", run)[1]["eval_loss"] == want["eval_loss"]
        assert result(capsys, "eval", run, run.parent / "d.jsonl")[1]["eval_loss"] < 0.3
    finally:
        (run.parent / "gone.jinja").rename(template)


def test_its_answers_are_evaluated_and_its_template_goes_with_it(capsys, monkeypatch, run, tmp_path):
    found = result(capsys, "eval", run)[1]
    assert found["eval_loss"] < 0.3
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert read_template(tmp_path / "out") == read_template(run / "tokenizer") != ""
    assert "<assistant>" in (tmp_path / "out" / TEMPLATE).read_text()
