"""Limits that the settings of every kind of data share."""

from zoo.errors import ConfigError


def check_least(cfg, least: int, *fields: str) -> None:
    """ConfigError for a field that is less than `least`."""
    for field in fields:
        if getattr(cfg, field) < least:
            raise ConfigError(f"{field}={getattr(cfg, field)} must be at least {least}")


def check_valid_fraction(cfg) -> None:
    """ConfigError for a part for validation that leaves nothing to it, or to training."""
    if not 0 < cfg.valid_fraction < 1:
        raise ConfigError(f"valid_fraction={cfg.valid_fraction} must lie between 0 and 1, for example 0.1")
