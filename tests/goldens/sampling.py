"""Makes sampling.json: what transformers draws from, given made-up logits.

    pip install transformers torch        # in an environment of its own; the suite does without them
    python tests/goldens/sampling.py      # writes the file beside this one

Per case: settings of a Sampling, and for each row the logits after transformers' processors, in the order in
which it applies them itself; null where nothing is drawn.
"""

import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".json")
V = 12
PROMPTS = [[3, 1, 3], [0], [7, 8, 9, 10, 11]]
WRITTEN = [[5, 5, 2], [], [1, 1, 1, 1, 7]]
SETTINGS = [
    {"temperature": 0.7},
    {"temperature": 1.5, "top_k": 5},
    {"temperature": 0.8, "top_p": 0.7},
    {"temperature": 1.3, "min_p": 0.2},
    {"temperature": 1.0, "repetition_penalty": 1.8},
    {"temperature": 1.2, "repetition_penalty": 0.6, "min_p": 0.1},
    {"temperature": 0.9, "top_k": 7, "top_p": 0.8, "min_p": 0.15, "repetition_penalty": 1.3},
]


def processed(logits_BV, settings: dict) -> list:
    """The logits that transformers draws from."""
    import torch
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": V, "n_layer": 1, "n_head": 1, "n_embd": 4, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    config = GenerationConfig(**GenerationConfig(do_sample=True, top_k=0).to_dict() | settings)
    processors, rows = model._get_logits_processor(config, input_ids_seq_length=1), []
    for prompt, written, logits_V in zip(PROMPTS, WRITTEN, logits_BV, strict=True):
        out_V = processors(torch.tensor([prompt + written]), torch.tensor(logits_V[None].copy()))[0].numpy()
        rows.append([round(float(x), 6) if np.isfinite(x) else None for x in out_V])
    return rows


def main() -> None:
    logits_BV = 2.5 * np.random.default_rng(0).standard_normal((len(PROMPTS), V)).astype(np.float32)
    cases = ({"settings": each, "shaped": processed(logits_BV, each)} for each in SETTINGS)
    given = {"made_with": "transformers 5.24", "prompts": PROMPTS, "written": WRITTEN}
    given["logits"] = logits_BV.round(6).tolist()
    lines = ",\n".join(json.dumps(case) for case in cases)
    FILE.write_text(f'{json.dumps(given)[:-1]}, "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
