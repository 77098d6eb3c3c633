"""`python -m zoo`: list, show, generate."""

import json

import pytest
from test_train import TINY

import train
from zoo.__main__ import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a tiny finished run."""
    return trained(tmp_path_factory.mktemp("main"))


def trained(folder):
    """A tiny run in a folder of its own."""
    (folder / "text.txt").write_text("".join(f"line {i} of the text.\n" for i in range(400)))
    argv = [
        "gpt_stdlib",
        "--data.path",
        str(folder / "text.txt"),
        *TINY,
        "--runs",
        str(folder),
        "--name",
        "run",
    ]
    assert train.main(argv) == 0
    return folder / "run"


def result(capsys, *argv):
    assert main([str(word) for word in argv]) == 0
    lines = capsys.readouterr().out.splitlines()
    return lines[:-1], json.loads(lines[-1])


def refused(capsys, code, *argv):
    assert main([str(word) for word in argv]) == code
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_list_shows_sizes_with_their_parameters_and_recipes(capsys):
    lines, found = result(capsys, "list", "gpt2*")
    assert found["models"]["gpt2"] == 124_439_808 and "gpt2_xl" in found["recipes"]
    assert any("124,439,808" in line for line in lines)
    assert "gpt_stdlib" in result(capsys, "list")[1]["recipes"]


def test_show_adds_up_to_the_papers_count_without_padding(capsys):
    lines, found = result(capsys, "show", "gpt2")
    assert found["parameters"] == 124_439_808
    start = next(i for i, line in enumerate(lines) if line.startswith("}")) + 1  # behind the recipe
    rows = [line.split() for line in lines[start:] if "/" in line]
    assert sum(int(row[-1].replace(",", "")) for row in rows) == 124_439_808
    assert any("50257x768" in line for line in lines)


def test_show_reads_a_run(capsys, run):
    _, found = result(capsys, "show", run)
    assert found["parameters"] > 0 and found["length"] == 32


def test_generate_continues_the_prompt_reproducibly(capsys, run):
    lines, first = result(capsys, "generate", run, "line 3", "--tokens", "12", "--seed", "5")
    assert first["new_tokens"] == 12 and lines[0] == "line 3" + first["text"].splitlines()[0]
    assert (
        result(capsys, "generate", run, "line 3", "--tokens", "12", "--seed", "5")[1]["text"] == first["text"]
    )


def test_generate_goes_on_beyond_the_context(capsys, run):
    assert result(capsys, "generate", run, "line 3", "--tokens", "50")[1]["new_tokens"] == 50


@pytest.mark.parametrize(
    ("code", "argv", "said"),
    [
        (2, ["generat"], "invalid choice"),
        (2, ["show", "gpt3"], "did you mean"),
        (2, ["list", "zzz"], "nothing is called"),
        (4, ["generate", "nowhere", "x"], "no such folder"),
        (2, ["launch", "--processes", "2", "--devices", "-2"], "--devices=-2 must be at least 1"),
    ],
)
def test_mistakes_are_one_line(capsys, code, argv, said):
    assert said in refused(capsys, code, *argv)


@pytest.mark.parametrize(
    ("code", "more", "said"),
    [
        (2, ["line", "--tokens", "0"], "--tokens=0"),
        (2, ["line", "--temperature", "-1"], "temperature=-1.0"),
        (2, ["line", "--top-p", "0"], "top_p=0.0"),
        (2, ["line " * 20], "longer than the model's context of 32"),
        (2, [""], "is empty"),
        (3, ["\u4f60\u597d"], "\u4f60"),
    ],
)
def test_what_cannot_be_generated_is_refused_in_one_line(capsys, run, code, more, said):
    assert said in refused(capsys, code, "generate", run, *more)
