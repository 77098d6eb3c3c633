"""The families: which module a configuration builds, and the sizes that papers published."""

import fnmatch
from typing import Any

from zoo.errors import ConfigError, nearest
from zoo.models import gpt
from zoo.models.gpt import GPT, GPTConfig
from zoo.models.pure import Model

MODELS = {GPTConfig: GPT}
SIZES: dict[str, Any] = {**gpt.SIZES}


def create(config) -> Model:
    """The pure functions of a configuration, or of a published size by name ("gpt2").

    Raises ConfigError for an unknown name.
    """
    if isinstance(config, str):
        if config not in SIZES:
            raise ConfigError(
                f"unknown model {config!r}{nearest(config, SIZES)}; `python -m zoo list` shows all"
            )
        config = SIZES[config]
    if type(config) not in MODELS:
        known = ", ".join(kind.__name__ for kind in MODELS)
        raise ConfigError(f"no model has a configuration of type {type(config).__name__}; known: {known}")
    return Model(config, MODELS[type(config)](config))


def list_models(pattern: str = "*") -> list[str]:
    """Names of the published sizes that match a shell pattern such as "gpt2*"."""
    return sorted(fnmatch.filter(SIZES, pattern))
