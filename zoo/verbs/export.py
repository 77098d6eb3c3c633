"""export: a model as Hugging Face publishes one."""

from pathlib import Path

import zoo
from zoo.pretrained import described_problem


def export(options) -> dict:
    """Writes a run, or a published model, to a new folder."""
    model, params, tokenizer = zoo.from_pretrained(options.model)
    names = zoo.labels_of(options.model)
    labels = names["labels"] or names["tags"]
    settings = {"labels": labels, "problem_type": described_problem(options.model)}
    settings["max_shard_size"] = int(options.max_shard_size * 10**9)
    zoo.save_pretrained(options.folder, model, params, tokenizer, format="hf", **settings)
    files = {path.name: path.stat().st_size for path in sorted(Path(options.folder).iterdir())}
    for name, size in files.items():
        print(f"{name:40} {size:>15,}")
    counts = {"parameters": model.num_params(), "bytes": sum(files.values())}
    return {"model": options.model, "folder": options.folder, **counts}
