"""Where a model's files lie: a path as it is, and `hf:ID` in the local copy that huggingface_hub keeps.

Only the prefix `hf:` ever asks the network. Fetched are JSON, text, safetensors and tokenizer models: no
pickles, no code.
"""

import importlib.util
import os
from pathlib import Path

from zoo import untrusted
from zoo.errors import CheckpointError, ConfigError, first_line

PREFIX = "hf:"
PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]


def local(name: str | os.PathLike) -> Path:
    """The folder of a model that is named by a path or by `hf:ID`.

    Raises CheckpointError where there is no such folder, or the hub does not give it; ConfigError where
    huggingface_hub is not installed.
    """
    if str(name).startswith(PREFIX):
        return checked(snapshot(str(name).removeprefix(PREFIX)))
    folder = Path(name)
    if not folder.is_dir():
        hub = (
            f"; from the hub: {PREFIX}{name}"
            if str(name).count("/") <= 1 and not folder.is_absolute()
            else ""
        )
        what = "a file; give the folder that holds it" if folder.exists() else f"no such folder{hub}"
        raise CheckpointError(f"{name}: {what}")
    return checked(folder)


def checked(folder: Path) -> Path:
    """The folder. CheckpointError where a file in it is a link to somewhere else."""
    try:
        untrusted.check_links(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: {error}") from None
    return folder


def snapshot(name: str) -> Path:
    """The folder that huggingface_hub keeps of a model; what is there already is not fetched again."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ConfigError(
            f"{PREFIX}{name} needs huggingface_hub; pip install huggingface_hub, or give a folder"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=PATTERNS))
    except Exception as error:  # of many libraries below it
        raise CheckpointError(
            f"{PREFIX}{name}: not to be had from the hub ({first_line(error)}); check the name and the "
            "network, or give a folder"
        ) from None
