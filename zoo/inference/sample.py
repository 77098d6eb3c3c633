"""The text that a run writes at its end."""

import sys
from pathlib import Path

from zoo.data.tokenizers.marks import ends_of
from zoo.errors import UserError, storage_errors
from zoo.inference.generate import generate
from zoo.inference.sampling import Sampling
from zoo.inference.stop import continuation

SAMPLING = Sampling(temperature=0.8, top_k=200)  # nanoGPT's sample.py


def write_sample(recipe, model, params, dataset, folder: Path) -> None:
    """Goes on from the recipe's prompt, on stderr and in samples.txt. A prompt that the tokenizer cannot
    spell costs the sample, not the run."""
    if not recipe.sample_tokens:
        return
    tokenizer = dataset.tokenizer
    try:
        prompt = dataset.prompt(recipe.sample_prompt) or [0]
        new = generate(
            *(model, params, [prompt]),
            max_new_tokens=recipe.sample_tokens,
            sampling=SAMPLING,
            seed=recipe.seed,
            eot=ends_of(tokenizer),
        )
    except UserError as error:
        print(f"no sample: {error}", file=sys.stderr)
        return
    text = recipe.sample_prompt + dataset.between + continuation(tokenizer, prompt, new[0])
    with storage_errors(folder):
        (folder / "samples.txt").write_text(text + "\n", encoding="utf-8")
    print(f"sample   {text}", file=sys.stderr)
