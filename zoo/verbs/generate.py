"""generate: a text goes on."""

import dataclasses
import time

from zoo.errors import ConfigError
from zoo.inference.generate import Sampling, continuation, generate
from zoo.inference.stream import stream
from zoo.inference.translate import translate
from zoo.pretrained import with_tokenizer
from zoo.run import recipe_of


def write(options) -> dict:
    """Prints the prompt with its continuation."""
    if options.tokens < 1:
        raise ConfigError(f"--tokens={options.tokens} must be at least 1")
    if not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed={options.seed} must be at least 0 and less than {2**32}")
    sampling = Sampling(options.temperature, options.top_k, options.top_p)
    model, params, tokenizer = with_tokenizer(options.model)
    if "pair" in model.traits:
        return write_target(options, model, params, tokenizer)
    prompt = tokenizer.encode(options.prompt).tolist()
    if not prompt and tokenizer.eot is not None:
        prompt = [tokenizer.eot]
    started = time.monotonic()
    settings = {"max_new_tokens": options.tokens, "sampling": sampling, "seed": options.seed}
    settings["eot"] = tokenizer.eot
    if options.stream:
        print(options.prompt, end="", flush=True)
        new = shown(prompt, stream(model, params, prompt, **settings), tokenizer)
    else:
        new = generate(model, params, [prompt], **settings)[0]
        print(options.prompt + continuation(tokenizer, prompt, new))
    text = continuation(tokenizer, prompt, new)
    return {
        "model": options.model,
        **dataclasses.asdict(sampling),
        "seed": options.seed,
        "prompt_tokens": len(prompt),
        "new_tokens": len(new),
        "seconds": round(time.monotonic() - started, 2),
        "text": text,
    }


def write_target(options, model, params, tokenizer) -> dict:
    """Prints what a model of pairs makes of the prompt as its source, searched for as its run's evaluation
    does; nothing is drawn at random."""
    started, recipe = time.monotonic(), recipe_of(options.model)
    settings = {"max_new_tokens": options.tokens, "wrap": recipe.data.wrap, "beam": recipe.task.beam}
    text = translate(model, params, tokenizer, [options.prompt], **settings)[0]
    print(text)
    seconds = round(time.monotonic() - started, 2)
    return {"model": options.model, **dataclasses.asdict(recipe.task.beam), "seconds": seconds, "text": text}


def shown(prompt: list[int], pieces, tokenizer) -> list[int]:
    """Prints a text while it is written; returns its tokens. Half a character waits for its other half."""
    new: list[int] = []
    before = ""
    for piece in pieces:
        new += piece
        whole = continuation(tokenizer, prompt, new).rstrip("\ufffd")  # what half a character decodes to
        print(whole.removeprefix(before), end="", flush=True)
        before = whole
    print(continuation(tokenizer, prompt, new).removeprefix(before))
    return new
