"""The command line and the JSON form, on a stand-in recipe with every kind of field, and on the real ones."""

import dataclasses
import json
import math
import os
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from zoo import errors
from zoo.cli import parse
from zoo.config import from_json, semantic_differences, to_json
from zoo.errors import ConfigError


@dataclass(frozen=True)
class AdamW:
    learning_rate: float = 1e-3
    """Peak of the learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Muon:
    learning_rate: float = 0.02
    """Peak of Muon's learning rate."""
    momentum: float = 0.95
    nesterov: bool = True


@dataclass(frozen=True)
class Model:
    d_model: int = 64
    num_heads: int = 4
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        if self.d_model % self.num_heads:
            raise ValueError(
                f"d_model={self.d_model} is not a multiple of num_heads={self.num_heads};\n8 divides it"
            )


@dataclass(frozen=True)
class Mesh:
    data: int = -1
    """Rest of the devices."""
    fsdp: int = 1


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    model: Model = field(default_factory=Model)
    optimizer: AdamW | Muon = field(default_factory=AdamW)
    mesh: Mesh = field(default_factory=Mesh)
    average: Muon | None = None
    steps: int = 100
    """Updates in all."""
    save_every: int = 10
    seed: int | None = None
    eval_at: tuple[int, ...] = ()
    prompt: str = "def "
    tensorboard: bool = False

    def __post_init__(self):
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps} must be at least 1")
        if isinstance(self.optimizer, Muon) and self.model.d_model < 8:
            raise ConfigError("Muon wants matrices")


CONFIGS = {"gpt_stdlib": Recipe(), "gpt2": Recipe(model=Model(d_model=768, num_heads=12), steps=600_000)}
CHOICES = {
    "optimizer": {"adamw": AdamW, "muon": Muon},
    "model": {"wide": Model(d_model=4096), "tiny": Model(d_model=4)},
}


def parsed(line: str) -> Recipe:
    return parse(line.split(), CONFIGS, CHOICES)


def refusal(line: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(line)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_arguments_are_the_default_recipe():
    assert parsed("") == CONFIGS["gpt_stdlib"]


def test_the_first_positional_names_the_recipe():
    assert parsed("gpt2 --steps 7") == dataclasses.replace(CONFIGS["gpt2"], steps=7)


def test_dotted_overrides_reach_nested_fields_in_both_spellings():
    recipe = parsed("--save-every 4 --mesh.fsdp=8 --model.num_heads 8 --optimizer.learning-rate 3e-4")
    expected = Recipe(save_every=4, mesh=Mesh(fsdp=8), model=Model(num_heads=8), optimizer=AdamW(3e-4))
    assert recipe == expected


def test_a_choice_takes_the_place_of_the_field_before_the_overrides_wherever_it_stands():
    expected = Recipe(optimizer=Muon(learning_rate=0.01))
    assert parsed("--optimizer muon --optimizer.learning-rate 0.01") == expected
    assert parsed("--optimizer.learning-rate 0.01 --optimizer=muon") == expected


def test_a_choice_may_be_a_ready_config():
    assert parsed("--model wide").model == Model(d_model=4096)


def test_an_override_may_mend_what_a_choice_alone_would_break():
    assert refusal("--model tiny --optimizer muon") == "Muon wants matrices"
    assert parsed("--model tiny --optimizer muon --model.d-model 8").model.d_model == 8


def test_values_that_begin_with_a_dash_are_values():
    assert parsed("--mesh.data -1").mesh.data == -1
    assert parsed("--optimizer.betas -0.5 1").optimizer.betas == (-0.5, 1.0)
    assert parse(["--prompt", "- item one"], CONFIGS, CHOICES).prompt == "- item one"
    assert parse(["--prompt=--steps"], CONFIGS, CHOICES).prompt == "--steps"


def test_text_arrives_as_it_was_typed():
    for prompt in ("", "a=b", "two\nlines", "None", "[plot] ½"):
        assert parse(["--prompt", prompt], CONFIGS, CHOICES).prompt == prompt
        assert parse([f"--prompt={prompt}"], CONFIGS, CHOICES).prompt == prompt


def test_optional_and_variable_length_fields_are_read():
    assert parsed("--seed 3 --eval-at 1 2 3") == Recipe(seed=3, eval_at=(1, 2, 3))
    assert parsed("--seed None --eval-at") == Recipe(seed=None, eval_at=())


def test_a_switch_is_bare_negated_or_has_a_value():
    for line in ("--tensorboard", "--tensorboard true", "--tensorboard=True"):
        assert parsed(line).tensorboard
    for line in ("--optimizer.no-nesterov", "--optimizer.nesterov false"):
        assert not parsed(f"--optimizer muon {line}").optimizer.nesterov


REFUSALS = {
    "gpt3": "'gpt3' is not a recipe; did you mean 'gpt2'?",
    "zzzz": "'zzzz' is not a recipe; the recipes are gpt_stdlib, gpt2",
    "--stepz 3": "--stepz: no such field; did you mean '--steps'?",
    "--mesh.fdsp 3": "--mesh.fdsp: no such field; did you mean '--mesh.fsdp'?",
    "--learning-rate 3": "--learning-rate: no such field; did you mean '--optimizer.learning-rate'?",
    "--optimizer.momentum 3": "--optimizer.momentum: AdamW has no such field; --optimizer muon has",
    "--qqqq 3": "--qqqq: no such field; --help lists them all",
    "--mesh 3": "--mesh: a group of fields; set --mesh.data, --mesh.fsdp",
    "--steps": "--steps: needs a value, an int",
    "--steps --save-every 4": "--steps: needs a value, an int",
    "--steps=abc": "--steps=abc: not an int",
    "--steps 1e3": "--steps=1e3: not an int",
    "--optimizer.learning-rate fast": "--optimizer.learning-rate=fast: not a number",
    "--optimizer.betas 1": "--optimizer.betas=1: not 2 values: a number, a number",
    "--eval-at 1 x": "--eval-at=1 x: not values that are each an int",
    "--seed x": "--seed=x: not an int or None",
    "--model.dtype bfloat": "--model.dtype=bfloat: not one of float32, bfloat16; did you mean 'bfloat16'?",
    "--tensorboard=maybe": "--tensorboard=maybe: not true or false",
    "--steps 3 --steps 4": "--steps: given twice",
    "--save-every 3 --save_every 4": "--save_every: given twice",
    "--tensorboard --no-tensorboard": "--no-tensorboard: given twice",
    "--optimizer adamw --optimizer muon": "--optimizer: given twice",
    "--optimizer mu": "--optimizer=mu: not one of adamw, muon; did you mean 'muon'?",
    "--optimizer": "--optimizer: needs one of adamw, muon",
    "-steps 3": "-steps: a field is set with two dashes; write --steps",
    "gpt2 30": "unexpected argument '30'; a field is set by --field value",
    "--steps 30 gpt2": "unexpected argument 'gpt2' after --steps; a recipe's name comes first of all",
    "--steps 0": "steps=0 must be at least 1",
    "--model.num-heads 10": "model: d_model=64 is not a multiple of num_heads=10; 8 divides it",
}


@pytest.mark.parametrize("line", REFUSALS)
def test_a_mistake_is_one_line_with_the_remedy(line, capfd):
    assert refusal(line) == REFUSALS[line]
    assert capfd.readouterr() == ("", "")  # and the parser's own box is not shown


def test_help_shows_every_field_its_docstring_the_choices_and_the_recipes(capsys):
    with pytest.raises(SystemExit) as caught:
        parsed("gpt2 --optimizer muon --help")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for text in ("Updates in all.", "Peak of Muon's learning rate.", "Rest of the devices.", "600000"):
        assert text in shown
    for text in (
        "gpt_stdlib, gpt2",
        "--optimizer {adamw,muon}",
        "--save-every INT",
        "--mesh.fsdp",
        "--optimizer.momentum",
    ):
        assert text in shown


def test_help_that_nobody_reads_to_its_end_is_no_error():
    program = (
        "from zoo import cli; from zoo.mesh import MeshConfig; "
        "cli.parse(['--help'], {'gpt_stdlib': MeshConfig()}, {})"
    )
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=theirs, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")


def test_json_round_trips_every_value_exactly():
    recipe = Recipe(
        model=Model(dtype="bfloat16"),
        optimizer=Muon(learning_rate=0.1 + 0.2, momentum=5e-324, nesterov=False),
        average=Muon(momentum=math.inf),
        seed=2**63,
        eval_at=(1, 20),
        prompt="½\n",
    )
    text = json.dumps(to_json(recipe), allow_nan=False)
    assert from_json(json.loads(text), Recipe) == recipe
    assert to_json(from_json(json.loads(text), Recipe)) == to_json(recipe)
    assert from_json(to_json(Recipe()), Recipe) == Recipe()


def test_json_with_missing_keys_takes_the_defaults():
    assert from_json({"steps": 3, "optimizer": {"type": "Muon"}}, Recipe) == Recipe(steps=3, optimizer=Muon())


def test_json_of_a_field_that_became_a_union_is_still_read():
    @dataclass(frozen=True)
    class Before:
        optimizer: Muon = field(default_factory=Muon)

    assert from_json(to_json(Before()), Recipe).optimizer == Muon()


def test_json_finds_the_class_of_an_open_field_only_in_the_table_it_is_given():
    @dataclass(frozen=True)
    class Open:
        model: Any = None

    written = to_json(Open(Model()))
    assert from_json(written, Open, [Model]) == Open(Model())
    with pytest.raises(ConfigError, match="not one of Mesh"):
        from_json(written, Open, [Mesh])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"stepz": 3}, "stepz: Recipe has no such field; did you mean 'steps'?"),
        ({"mesh": {"fdsp": 3}}, "mesh.fdsp: Mesh has no such field; did you mean 'fsdp'?"),
        (
            {"optimizer": {"type": "Adam"}},
            "optimizer.type='Adam': not one of AdamW, Muon; did you mean 'AdamW'?",
        ),
        ({"optimizer": {}}, "optimizer.type='': not one of AdamW, Muon"),
        (
            {"optimizer": {"type": ["Muon"]}},
            "optimizer.type=['Muon']: not one of AdamW, Muon; did you mean 'Muon'?",
        ),
        ({"optimizer": {"type": "Model"}}, "optimizer.type='Model': not one of AdamW, Muon"),
        ({"optimizer": 3}, "optimizer=3: not AdamW or Muon"),
        ({"steps": "3"}, 'steps="3": not an int'),
        ({"steps": True}, "steps=true: not an int"),
        ({"steps": 3.0}, "steps=3.0: not an int"),
        ({"steps": {}}, "steps={}: not an int"),
        ({"steps": None}, "steps=null: not an int"),
        ({"tensorboard": 1}, "tensorboard=1: not true or false"),
        ({"eval_at": [1, "x"]}, 'eval_at[1]="x": not an int'),
        (
            {"optimizer": {"type": "AdamW", "betas": [1]}},
            "optimizer.betas=[1]: not 2 values: a number, a number",
        ),
        (
            {"model": {"dtype": "float16"}},
            "model.dtype=\"float16\": not one of float32, bfloat16; did you mean 'bfloat16'?",
        ),
        ({"model": {"num_heads": 10}}, "model: d_model=64 is not a multiple of num_heads=10; 8 divides it"),
        ([], "config=[]: not an object with named fields"),
    ],
)
def test_json_that_does_not_fit_is_refused_by_name(data, message):
    with pytest.raises(ConfigError) as caught:
        from_json(data, Recipe)
    assert str(caught.value) == message


def test_json_without_a_field_that_has_no_default_is_refused():
    @dataclass(frozen=True)
    class Strict:
        model: Model

    with pytest.raises(ConfigError, match="model: missing, and Strict has no default for it"):
        from_json({}, Strict)


def test_what_has_no_json_form_is_not_written():
    with pytest.raises(TypeError, match="no JSON form"):
        to_json(Recipe(prompt=object()))


def test_differences_name_the_field_and_both_values():
    old = to_json(Recipe(steps=3, optimizer=AdamW(1e-3)))
    new = to_json(Recipe(steps=4, optimizer=AdamW(2e-3), mesh=Mesh(fsdp=8), eval_at=(1,)))
    assert semantic_differences(old, new) == [
        "optimizer.learning_rate: 0.001 -> 0.002",
        "mesh.fsdp: 1 -> 8",
        "steps: 3 -> 4",
        "eval_at: [] -> [1]",
    ]
    exempt = {"mesh", "steps", "optimizer.learning_rate"}
    assert semantic_differences(old, new, exempt) == ["eval_at: [] -> [1]"]


def test_differences_name_another_class_once_and_a_field_of_one_side():
    old, new = to_json(Recipe()), to_json(Recipe(optimizer=Muon(), average=Muon()))
    assert semantic_differences(old, new) == ["optimizer: AdamW -> Muon", "average: null -> Muon"]
    assert semantic_differences({"steps": 3}, {"seed": 1}) == ["steps: 3 -> absent", "seed: absent -> 1"]


def test_every_recipe_survives_json_and_its_own_command_line():
    from zoo.recipes import CHOICES, CONFIGS, PARTS, Recipe

    for name, recipe in CONFIGS.items():
        assert parse([name], CONFIGS, CHOICES) == recipe
        assert from_json(json.loads(json.dumps(to_json(recipe), allow_nan=False)), Recipe, PARTS) == recipe
    for group, options in CHOICES.items():
        for option in options:
            short = ["--data.length", "2"] if group == "model" else []  # some are for short rows only
            try:
                parse([f"--{group}", option, *short, "--steps", "50000"], CONFIGS, CHOICES)
            except ConfigError as error:  # a part that needs others to go with it
                assert group in ("model", "task", "data") and "choose another task or" in str(error), error


def test_a_refusal_starts_no_device_and_takes_less_than_three_seconds():
    program = """
from zoo import cli, errors, recipes
try:
    cli.parse(["--stepz", "3"], recipes.CONFIGS, recipes.CHOICES)
except errors.ConfigError as error:
    import jax
    assert not jax._src.xla_bridge._backends, "a backend was started"
    raise SystemExit(error.exit_code)
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)  # processor time: others may hold the cores
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2, done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


def test_the_command_line_itself_does_not_import_jax():
    program = f"""
import sys, types
zoo = sys.modules["zoo"] = types.ModuleType("zoo")  # without zoo/__init__.py, whose models are JAX
zoo.__path__ = [{str(Path(errors.__file__).parent)!r}]
import zoo.cli, zoo.metrics, zoo.progress, zoo.throughput, zoo.xla
assert "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
