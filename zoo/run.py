"""One run's folder: who owns it, which configuration it belongs to, what it has finished.

runs/NAME/config.json      the recipe, the digest of its data, versions; written before step 0
runs/NAME/metrics.jsonl    numbers by step
runs/NAME/checkpoints/     the train state by step
runs/NAME/tokenizer/       what turns text into this model's tokens
runs/NAME/samples.txt      text written at the end
runs/NAME/result.json      the last line of stdout, once the run is complete
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from zoo import config
from zoo.errors import CheckpointError, StorageError, storage_errors
from zoo.recipes import EXEMPT, PARTS, Recipe


class RunFolder:
    """The folder of `recipe`'s run, created if need be, and held until it is closed or the process ends.

    Raises StorageError where it cannot be written or another process holds it, CheckpointError where
    it belongs to another configuration.
    """

    def __init__(self, recipe: Recipe, data_digest: str):
        self.path = Path(recipe.runs) / recipe.name
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("a")
        try:
            self._hold()
            self.settings: dict[str, Any] = {"recipe": config.to_json(recipe), "data_digest": data_digest}
            self._compare(recipe)
            self.write("config.json", self.settings)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Lets another process have the folder."""
        self._lock.close()

    def _hold(self):
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"{self.path} is in use by another process; wait for it or choose another --name"
            ) from None

    def _compare(self, recipe: Recipe):
        """Refuses what would make one run of two: another model, other data, another schedule."""
        old = self.read("config.json")
        if old is None:
            return
        differing = config.semantic_differences(old["recipe"], self.settings["recipe"], EXEMPT)
        if old["data_digest"] != self.settings["data_digest"]:
            differing.append(f"data: digest {old['data_digest'][:12]} -> {self.settings['data_digest'][:12]}")
        steps = old["recipe"]["steps"]
        if steps != recipe.steps and recipe.schedule.depends_on_steps:
            kind = type(recipe.schedule).__name__
            differing.append(
                f"steps: {steps} -> {recipe.steps}, which changes the {kind} schedule of steps already taken"
            )
        if differing:
            raise CheckpointError(
                f"{self.path} belongs to another configuration ({'; '.join(differing)}); "
                "choose another --name"
            )

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder, or None."""
        return read_json(self.path / name)

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Replaces a JSON file of the folder, whole or not at all."""
        with storage_errors(self.path):
            partial = self.path / f".{name}.partial"
            partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            os.replace(partial, self.path / name)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is no such file; CheckpointError where it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); restore it from a copy") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; restore it from a copy")
    return content


def recipe_of(folder: str | os.PathLike) -> Recipe:
    """The recipe that a run's folder was made with. Raises CheckpointError where it is none."""
    settings = read_json(Path(folder) / "config.json")
    if settings is None or "recipe" not in settings:
        raise CheckpointError(f"{folder} is not a run's folder: it has no config.json with a recipe")
    return config.from_json(settings["recipe"], Recipe, PARTS)
