"""checkpoints: what a run has on disk, whether it is what was written, and where a restart would go on."""

import time
from pathlib import Path

from zoo import manifest, steps
from zoo.errors import CheckpointError
from zoo.metrics import print_result


def show(options) -> int:
    """Prints a line for each step and a JSON object; returns 0, or 4 where something is damaged. Changes
    nothing, and starts no device."""
    run = Path(options.run_folder)
    if not (run / "config.json").is_file():
        raise CheckpointError(f"{run} is not a run's folder: it has no config.json")
    found = [looked_at(run / "checkpoints" / str(step)) for step in steps.numbered(run / "checkpoints")]
    newest = next((each for each in reversed(found) if each["state"] != "damaged"), None)
    for each in found:
        text = f"{each['step']:>10} {each['bytes']:>16,} bytes  {each['saved']}  {each['state']}"
        text += f": {each['wrong']}" if each["wrong"] else ""
        print(text + "; a restart goes on here" * (each is newest))
    if not found:
        print(f"{run} holds no checkpoint yet")
    print_result({"run": str(run), "continues_at": newest and newest["step"], "checkpoints": found})
    return CheckpointError.exit_code if any(each["wrong"] for each in found) else 0


def looked_at(folder: Path) -> dict:
    """One step: verified, damaged (and what), or not sealed, which a restart would look at array by array."""
    found = manifest.look(folder)
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    saved = max((file.st_mtime for file in files), default=folder.stat().st_mtime)
    state = "damaged" if found.wrong else "verified"
    return {
        "step": int(folder.name),
        "bytes": sum(file.st_size for file in files),
        "saved": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(saved)),
        "state": state if found.sealed else "not sealed",
        "wrong": found.wrong,
    }
