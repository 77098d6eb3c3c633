"""Rules of the house, read from the sources: who imports whom, what stays out, what every file has."""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("zoo/**/*.py"), ROOT / "train.py"])
LEAVES = (
    "tasks",
    "data",
    "losses",
    "optim",
    "checkpoint",
    "metrics",
    "scores",
    "crf",
    "recurrence",
)  # know nothing of models
LINEN = ("models", "layers", "lettered")


def imports(path: Path) -> dict[str, set[str]]:
    """{module: names} that a file imports anywhere."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.setdefault(alias.name, set())
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.setdefault(node.module, set()).update(alias.name for alias in node.names)
    return found


def part(path: Path) -> str:
    """zoo/data/order.py -> data; zoo/optim.py -> optim; train.py -> train."""
    return path.relative_to(ROOT).parts[1].removesuffix(".py") if path.parent != ROOT else path.stem


def breaking(rule) -> list[str]:
    """The files for which `rule(path)` does not hold."""
    return [str(path.relative_to(ROOT)) for path in SOURCES if not rule(path)]


def packages(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imports(path)}


def test_every_file_starts_by_saying_what_it_is():
    assert not breaking(lambda path: ast.get_docstring(ast.parse(path.read_text())))


def test_only_sharding_writes_partition_specs():
    def names(path):
        return {name for found in imports(path).values() for name in found}

    assert not breaking(
        lambda path: part(path) == "sharding" or not {"PartitionSpec", "NamedSharding"} & names(path)
    )


def test_only_models_layers_and_boxes_of_parameters_know_linen():
    assert not breaking(lambda path: part(path) in LINEN or "flax" not in packages(path))


def test_leaves_know_nothing_of_models():
    upwards = ("zoo.models", "zoo.recipes", "zoo.step")
    assert not breaking(
        lambda path: part(path) not in LEAVES or not [m for m in imports(path) if m.startswith(upwards)]
    )


def test_data_and_scores_know_no_jax():
    assert not breaking(lambda path: part(path) not in ("data", "scores") or "jax" not in packages(path))


def test_nothing_imports_train_or_private_jax():
    private = ("jax._src", "jax.core", "jax.interpreters")
    assert not breaking(
        lambda path: "train" not in imports(path) and not [m for m in imports(path) if m.startswith(private)]
    )


def test_no_pickle_no_eval_and_no_other_framework():
    banned = {
        "pickle",
        "dill",
        "cloudpickle",
        "joblib",
        "marshal",
        "shelve",
        "torch",
        "tensorflow",
        "transformers",
    }

    def calls(path):
        nodes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        return {node.func.id for node in nodes if isinstance(node.func, ast.Name)}

    assert not breaking(
        lambda path: not banned & packages(path) and not {"eval", "exec", "compile"} & calls(path)
    )


def test_there_is_no_drawer_for_everything():
    names = {path.stem for path in SOURCES}
    assert not names & {"utils", "util", "helpers", "common", "misc"}


def test_every_public_function_and_class_says_what_it_does():
    missing = []
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            lines = (node.end_lineno or 0) - node.lineno if public else 0
            if public and lines > 6 and not ast.get_docstring(node):
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not missing


def test_importing_zoo_is_quick_and_starts_nothing():
    code = (
        "import sys, time; start = time.process_time(); import zoo; took = time.process_time() - start\n"
        "from jax._src import xla_bridge\n"
        "heavy = {'torch', 'tensorflow', 'transformers', 'orbax', 'grain', 'tyro'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "print(took)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    took = []
    for _ in range(3):  # processor time, the best of three: about the program, not about a busy machine
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        took.append(float(done.stdout))
        if min(took) < 2:
            break
    assert min(took) < 2, took
