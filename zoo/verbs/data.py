"""data: what a step of a run saw, or the proof that the run saw every example as its data set promises."""

from pathlib import Path

import numpy as np

from zoo import data
from zoo.errors import ConfigError, DataError
from zoo.receipts import NAME, Receipt, check, digest_of, receipts
from zoo.run import read_json, recipe_of, settings_in

SHOWN = 72  # characters of a row's text
READ = ("source", "tokens", "words", "contexts")  # the arrays of a batch that hold tokens to be shown


def show(options) -> dict:
    """What step --step saw, row by row; with --check, that all receipts are right."""
    folder = Path(options.folder)
    if options.check == bool(options.step):
        raise ConfigError(f"--step={options.step} --check={options.check}: give one of --step and --check")
    recipe, settings = recipe_of(folder), settings_in(folder / "config.json")
    dataset = data.load(data.kept_in(folder, recipe.data), recipe.seed)
    if dataset.digest != settings["data_digest"]:
        raise DataError(
            f"{folder}: its data has digest {dataset.digest[:12]} now, and the run was made with "
            f"{settings['data_digest'][:12]}; give back the files that it had"
        )
    if options.check:
        found = check(dataset, receipts_of(folder), step_of(folder))
        for name, value in found.items():
            print(f"{name:24} {value:,}")
        return {"run": options.folder, **found}
    return {"run": options.folder, **seen_at(folder, dataset, options.step, options.rows)}


def receipts_of(folder: Path) -> Path:
    """The run's receipts. Raises DataError where it has none."""
    if not (folder / NAME).is_file():
        raise DataError(f"{folder}: has no {NAME}; it was made before there were any")
    return folder / NAME


def step_of(folder: Path) -> int:
    """How far a run has come: its result, else its newest checkpoint."""
    result = read_json(folder / "result.json") or {}
    steps = [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]
    return max([int(result.get("step", 0)), *steps])


def seen_at(folder: Path, dataset, step: int, count: int) -> dict:
    """Prints the first `count` rows of a step; returns them with the batch's number and digest."""
    if step < 1:
        raise ConfigError(f"--step={step} must be at least 1: step 1 is the first update")
    if count < 0:
        raise ConfigError(f"--rows={count} must not be negative; 0 shows all")
    receipt = found_receipt(folder, step)
    size = dataset.cfg.batch_size
    places_B2 = dataset.places(receipt.batch, range(size))
    rows = range(min(count or size, size))
    examples, shown = dataset.batch(receipt.batch, rows), []
    for row in rows:
        epoch, number = places_B2[row].tolist()
        text = texts_of(examples, row, dataset.tokenizer)
        shown.append({"row": row, "epoch": epoch, "example": number, "text": text})
        shown[-1]["from"] = dataset.origins(epoch, number)
        places = ", ".join(said(origin) for origin in shown[-1]["from"])
        print(f"row {row}  epoch {epoch}  example {number}  {places}\n    {text}")
    digest = digest_of(places_B2)
    state = {"": "has no receipt yet", digest: "as its receipt says"}
    told = state.get(receipt.digest, f"its receipt says {receipt.digest}")
    print(f"step {step}  batch {receipt.batch}  digest {digest}, {told}")
    return {
        "step": step,
        "batch": receipt.batch,
        "digest": digest,
        "receipt": receipt.digest or None,
        "applied": receipt.is_applied,
        "rows": shown,
    }


def found_receipt(folder: Path, step: int) -> Receipt:
    """The receipt of a step; of one that is still to come, with what it will see and no digest."""
    last = Receipt(step, "")
    if (folder / NAME).is_file():
        for receipt, _ in receipts(folder / NAME):
            if receipt.step == step:
                return receipt
            last = Receipt(step, "", receipt.offset)
    return last


def said(origin: dict) -> str:
    """One of the places that an example is from."""
    rest = " ".join(f"{name} {value}" for name, value in origin.items() if name != "document")
    return f"{origin['document']} ({rest})"


def texts_of(examples: dict[str, np.ndarray], row: int, tokenizer) -> str:
    """What a row reads, shortened; parts of it side by side. Padding at its end is left out."""
    parts = []
    for name in (name for name in READ if name in examples):
        for tokens_T in np.atleast_2d(examples[name][row]):
            present = np.flatnonzero(tokens_T)
            text = tokenizer.decode(tokens_T[: present[-1] + 1].tolist() if len(present) else [])
            parts.append(text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}...")
    return " | ".join(repr(part)[1:-1] for part in parts)
