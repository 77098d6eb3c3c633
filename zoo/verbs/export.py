"""export: a model as Hugging Face publishes one, or the adapters of a run as peft does."""

from pathlib import Path

import zoo
from zoo.errors import ConfigError
from zoo.pretrained import chat_template_of, described_problem
from zoo.pretrained.write_adapter import export_adapter

SHARD_GB = 5.0


def export(options) -> dict:
    """Writes a run, or a published model, to a new folder."""
    write = {"hf": write_model, "peft": write_adapters}[options.format]
    parameters = write(options)
    files = {path.name: path.stat().st_size for path in sorted(Path(options.folder).iterdir())}
    for name, size in files.items():
        print(f"{name:40} {size:>15,}")
    counts = {"parameters": parameters, "bytes": sum(files.values())}
    return {"model": options.model, "folder": options.folder, "format": options.format, **counts}


def write_model(options) -> int:
    """All of a model; returns how many parameters it has."""
    model, params, tokenizer = zoo.from_pretrained(options.model, adapter=options.adapter)
    names = zoo.labels_of(options.model)
    labels = names["labels"] or names["tags"]
    settings = {"labels": labels, "problem_type": described_problem(options.model)}
    size = SHARD_GB if options.max_shard_size is None else options.max_shard_size
    settings["chat_template"] = chat_template_of(options.model)
    settings["max_shard_size"] = int(size * 10**9)
    zoo.save_pretrained(options.folder, model, params, tokenizer, format="hf", **settings)
    return model.num_params()


def write_adapters(options) -> int:
    """What a run has trained beside its base; returns how many parameters that is."""
    for name in ("adapter", "max_shard_size"):
        if (value := getattr(options, name)) not in ("", None):
            raise ConfigError(
                f"--{name.replace('_', '-')}={value} is of no use to --format peft; leave it out"
            )
    return export_adapter(options.model, options.folder)
