"""One run's folder: who owns it, which configuration it belongs to, what it has finished.

runs/NAME/config.json      the recipe, the digest of its data, versions; also beside every checkpoint,
                           which is what a later start is compared with
runs/NAME/metrics.jsonl    numbers by step
runs/NAME/receipts.txt     what every step saw
runs/NAME/events.jsonl     what happened beside: stops, faults, checkpoints passed over
runs/NAME/checkpoints/     the train state by step
runs/NAME/tokenizer/       what turns text into this model's tokens
runs/NAME/samples.txt      text written at the end
runs/NAME/result.json      the last line of stdout, once the run is complete
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import time
from pathlib import Path
from typing import Any

from zoo import cluster, config, durable, manifest, steps, untrusted
from zoo.errors import CheckpointError, StorageError, storage_errors
from zoo.recipes import EXEMPT, JUDGING, PARTS, Recipe


class RunFolder:
    """The folder of `recipe`'s run, created if need be, and held until it is closed or the process ends. Of
    several processes the first holds it, reads and writes.

    It is held by a lock of the kernel's, which goes with the process that has it, however that ends. Network
    file systems know it as far as their servers do: where NFS is mounted with local locks, or Lustre without
    `flock`, two hosts do not see each other's.

    Raises StorageError where it cannot be written or another process holds it, CheckpointError where
    it belongs to another configuration.
    """

    def __init__(self, recipe: Recipe, data_digest: str, recipe_name: str):
        self.path, self._recipe = Path(recipe.runs) / recipe.name, recipe
        self.settings: dict[str, Any] = {
            "recipe_name": recipe_name,
            "recipe": config.to_json(recipe),
            "data_digest": data_digest,
            "versions": versions(),
        }
        self._lock: Any = None
        try:
            cluster.check_alike(self.settings | code(), differing_starts)
            cluster.from_first(self._take)
            cluster.check_shared(self.path)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Lets another process have the folder."""
        if self._lock is not None:
            self._lock.close()

    def _take(self):
        self._hold()
        self._compare(self._recipe)
        self._sign()
        self.write("config.json", self.settings)

    def _hold(self):
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            owner = self._lock.readline().strip() or "which has not said who it is"
            raise StorageError(
                f"{self.path} is in use by another process ({owner}); wait for it or choose another --name"
            ) from None

    def _sign(self):
        """Leaves word in the lock of who holds it."""
        with storage_errors(self.path):
            self._lock.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M:%S %z")
            self._lock.write(f"{os.getpid()} on {socket.gethostname()}, since {since}\n")
            self._lock.flush()

    def _compare(self, recipe: Recipe):
        """Refuses what would make one run of two: another model, other data, another schedule."""
        old = self._settings_before()
        if old is None:
            return
        # Read and written again: a field that did not exist when the run was made has its default.
        before = config.to_json(config.from_json(old["recipe"], Recipe, PARTS))
        exempt = EXEMPT - JUDGING if recipe.best else EXEMPT
        differing = config.semantic_differences(before, self.settings["recipe"], exempt)
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

    def _settings_before(self) -> dict[str, Any] | None:
        """What the newest checkpoint, or else the result, was made with; None where there is neither: a
        start that got nowhere leaves a folder that belongs to nobody yet."""
        checkpoints = self.path / "checkpoints"
        saved = steps.numbered(checkpoints)
        for step in reversed(saved):
            with contextlib.suppress(CheckpointError):
                if not manifest.look(checkpoints / str(step), only="meta/metadata").wrong:
                    return settings_in(checkpoints / str(step) / "meta" / "metadata")
        if saved or self.result() is not None:
            return settings_in(self.path / "config.json")
        return None

    def result(self) -> dict[str, Any] | None:
        """The result of a complete run. It can be made again, so a damaged one counts as none."""
        try:
            result = self.read("result.json")
        except CheckpointError:
            return None
        return result if result and isinstance(result.get("step"), int) else None

    def ending(self) -> dict[str, Any] | None:
        """The result, where the recipe asks for nothing more: its steps are done or its patience is over."""
        result, recipe = cluster.from_first(self.result), self._recipe
        if result is None:
            return None
        waited = recipe.patience and result.get("evaluations_since_best", 0) >= recipe.patience
        return result if waited or result["step"] >= recipe.steps else None

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder, or None."""
        return read_json(self.path / name)

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Replaces a JSON file of the folder, whole or not at all."""
        if not cluster.is_first():
            return
        with storage_errors(self.path):
            durable.replace(self.path / name, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is no such file; CheckpointError where it is damaged."""
    try:
        content = untrusted.json_value(untrusted.contents(path, untrusted.NOTE))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); restore it from a copy") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; restore it from a copy")
    return content


def settings_in(path: Path) -> dict[str, Any]:
    """The settings of a run from a JSON file; CheckpointError where the file is missing or damaged."""
    settings = read_json(path)
    if settings is None or not isinstance(settings.get("recipe"), dict) or "data_digest" not in settings:
        raise CheckpointError(f"{path} does not hold the settings of a run; restore it from a copy")
    config.from_json(settings["recipe"], Recipe, PARTS)
    return settings


def versions() -> dict[str, str]:
    """Of the libraries that decide a run's numbers."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


def code() -> dict[str, str]:
    """Which code runs, and by which Python."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return {"code": digest.hexdigest()[:16], "python": platform.python_version()}


# What may differ between the processes of one run: who they are, and where things lie on their hosts.
PRIVATE = {
    *("recipe.cluster.process", "recipe.runs"),
    *("recipe.data.path", "recipe.data.vocab_path", "recipe.data.template"),
}


def differing_starts(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """'seed: 0 -> 1' for everything that one process is about to do otherwise than the first."""
    found = config.semantic_differences(first, other, PRIVATE)
    return [line.removeprefix("recipe.") for line in found]


def recipe_of(folder: str | os.PathLike) -> Recipe:
    """The recipe that a run's folder was made with. Raises CheckpointError where it is none."""
    if not (Path(folder) / "config.json").is_file():
        raise CheckpointError(f"{folder} is not a run's folder: it has no config.json")
    settings = settings_in(Path(folder) / "config.json")
    return config.from_json(settings["recipe"], Recipe, PARTS)
