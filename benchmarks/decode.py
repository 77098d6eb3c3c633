"""`python -m benchmarks.decode [--size gpt2] [--batches 1 8]`: tokens per second of generation.

A GPT-2 of random weights, float32, prompts of 32 tokens, 128 greedy tokens behind them: zoo, zoo again and
transformers' `generate` on torch take turns, and their tokens must be equal before a time counts. A step is
what each further token takes: the whole call less a call for one token, which is the time to the first token.
The bound is the time to read all parameters once at the rate at which two threads read memory here, measured
on the spot. Needs the extra `parity`. The last line is one JSON object.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import threading
import time

from zoo import xla

FLAGS = xla.apply()

import jax  # noqa: E402
import numpy as np  # noqa: E402

import zoo  # noqa: E402
from zoo.inference.apart import apart  # noqa: E402
from zoo.inference.generate import generate  # noqa: E402
from zoo.pretrained.gpt2 import config_to_hf, to_hf  # noqa: E402

PROMPT, NEW, TURNS = 32, 128, 5


def read_rate() -> float:
    """Bytes per second at which two threads, or one, sum up what no cache holds: the best of eight."""
    block = np.ones(64 << 20, np.float32)
    best = 0.0
    for count in (1, 2) * 4:
        threads = [threading.Thread(target=part.sum) for part in np.split(block, count)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, block.nbytes / (time.perf_counter() - start))
    return best


def their_generate(config, params):
    """(prompts, count) -> tokens, by transformers."""
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config_to_hf(config))).eval()
    tensors = {name: torch.tensor(np.array(x)) for name, x in to_hf(params, config).items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(
            f"transformers does not take our tensors: missing {missing}, unexpected {unexpected}"
        )

    def run(prompts_BT, count):
        ids_BT = torch.tensor(prompts_BT)
        settings = {"do_sample": False, "max_new_tokens": count, "min_new_tokens": count, "pad_token_id": 0}
        with torch.inference_mode():
            out_BT = model.generate(ids_BT, attention_mask=torch.ones_like(ids_BT), **settings)
        return out_BT[:, prompts_BT.shape[1] :].tolist()

    return run


def measure(ours, theirs, prompts_BT) -> dict:
    """Seconds of whole calls and of calls for one token, in turns."""
    start = time.perf_counter()
    tokens = ours(prompts_BT, NEW)
    cold_s = time.perf_counter() - start
    ours(prompts_BT, 1)
    expected = theirs(prompts_BT, NEW)
    apart = sum(
        a != b for row, other in zip(tokens, expected, strict=True) for a, b in zip(row, other, strict=True)
    )
    if apart:
        raise SystemExit(
            f"{apart} of {len(prompts_BT) * NEW} tokens differ from transformers': not the same text"
        )
    runs = {"zoo": ours, "again": ours, "torch": theirs}
    times = {(name, count): [] for name in runs for count in (1, NEW)}
    for _ in range(TURNS):
        for name, run in runs.items():
            for count in (1, NEW):
                start = time.perf_counter()
                run(prompts_BT, count)
                times[name, count].append(time.perf_counter() - start)
    steps = {
        name: [
            (whole - first) / (NEW - 1) for whole, first in zip(times[name, NEW], times[name, 1], strict=True)
        ]
        for name in runs
    }
    return {
        "first_call_s": cold_s,
        "first_token_ms": {name: 1e3 * statistics.median(times[name, 1]) for name in runs},
        "step_ms": {name: 1e3 * statistics.median(values) for name, values in steps.items()},
        "tokens_per_s": {name: len(prompts_BT) / statistics.median(values) for name, values in steps.items()},
        "torch_over_zoo": spread(steps["torch"], steps["zoo"]),
        "again_over_zoo": spread(steps["again"], steps["zoo"]),
        "whole_call_torch_over_zoo": spread(times["torch", NEW], times["zoo", NEW]),
    }


def spread(upper, lower) -> list[float]:
    """Median, least and most of the ratios of the same turn."""
    ratios = sorted(a / b for a, b in zip(upper, lower, strict=True))
    return [statistics.median(ratios), ratios[0], ratios[-1]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="gpt2", help="a GPT-2's size (gpt2)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    options = parser.parse_args()
    model = zoo.create(options.size)
    params = model.init(jax.random.key(0))
    theirs = their_generate(model.config, params)
    model, params = apart(model, params)
    rate = read_rate()
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    rows = {}
    for B in options.batches:
        prompts_BT = np.random.default_rng(0).integers(0, model.config.vocab_size, (B, PROMPT))

        def ours(prompts_BT, count):
            return generate(model, params, prompts_BT.tolist(), max_new_tokens=count)

        row = measure(ours, theirs, prompts_BT)
        bound_ms = 1e3 * size / rate
        shares = {f"{name}_share_of_bound": bound_ms / row["step_ms"][name] for name in ("zoo", "torch")}
        rows[f"batch {B}"] = row | {"bound_ms": bound_ms} | shares
    names = ("jax", "jaxlib", "torch", "transformers")
    result = {
        "workload": f"{options.size}, random weights, float32, prompts of {PROMPT}, {NEW} greedy tokens",
        "rows": rows,
        "read_GB_per_s": rate / 1e9,
        "parameter_bytes": size,
        "xla_flags": FLAGS,
        "versions": {name: importlib.metadata.version(name) for name in names},
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
