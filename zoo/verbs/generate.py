"""generate: texts go on."""

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

from zoo.data.tokenizers.marks import ends_of, prompt_of
from zoo.errors import ConfigError, DataError, UserError
from zoo.inference.apart import apart
from zoo.inference.beam import Beam, beam_search
from zoo.inference.generate import Text, bucket, check, complete, context_of, padded
from zoo.inference.sampling import Sampling
from zoo.inference.speculative import speculate
from zoo.inference.stop import Stop, continuation
from zoo.inference.stream import stream
from zoo.inference.translate import translate
from zoo.pretrained import with_tokenizer
from zoo.run import recipe_of

DEFAULT = Sampling(temperature=0.8, top_k=200)  # nanoGPT's sample.py
DRAWING = (
    *(field.name for field in dataclasses.fields(Sampling)),
    "seed",
    "stop",
    "draft",
    "stream",
    "logprobs",
)


def write(options) -> dict:
    """Prints each prompt with its continuations."""
    if options.tokens < 1:
        raise ConfigError(f"--tokens={options.tokens} must be at least 1")
    if options.seed is not None and not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed={options.seed} must be at least 0 and less than {2**32}")
    if options.count is not None and options.count < 1:
        raise ConfigError(f"--count={options.count} must be at least 1")
    if options.beam is not None:
        refuse(options, DRAWING, "is of no use to --beam, which searches and draws nothing")
    if options.draft:
        refuse(options, ["stream"], "cannot be together with --draft, which writes all at once")
    sampling = sampling_of(options)
    model, params, tokenizer = with_tokenizer(options.model, options.adapter, options.weights)
    model, params = apart(model, params)
    prompts = [options.prompt] if options.prompt != "-" else read_lines()
    started = time.monotonic()
    if "pair" in model.traits:
        found = write_targets(options, model, params, tokenizer, prompts)
    elif options.beam is not None:
        found = search(options, model, params, tokenizer, prompts)
    else:
        found = draw(options, sampling, model, params, tokenizer, prompts)
    return {"model": options.model} | found | {"seconds": round(time.monotonic() - started, 2)}


def draw(options, sampling: Sampling, model, params, tokenizer, prompts: list[str]) -> dict:
    """Continuations drawn at random, each by a seed of its own: the first of a prompt is what the prompt has
    alone, the next what it has with the next seed."""
    count, seed = options.count or 1, options.seed or 0
    stop = Stop(tuple(options.stop), tokenizer) if options.stop else None
    texts = [prompt for prompt in prompts for _ in range(count)]
    rows = [prompt_of(tokenizer, text) for text in texts]
    seeds = [(seed + index) % 2**32 for _ in prompts for index in range(count)]
    settings = {"max_new_tokens": options.tokens, "sampling": sampling, "stop": stop}
    settings |= {"eot": ends_of(tokenizer), "cache_dtype": options.cache}
    report = dataclasses.asdict(sampling) | {"seed": seed}
    if options.draft:
        draft, draft_params, draft_tokenizer = with_tokenizer(options.draft)
        if draft_tokenizer.digest != tokenizer.digest:
            raise UserError(
                f"--draft={options.draft} has another vocabulary than {options.model}; use one with its"
            )
        done = speculate(model, params, draft, draft_params, rows, seeds=seeds, **settings)
        continued, report["acceptance_rate"] = done.continuations, round(done.acceptance_rate, 4)
    elif options.stream:
        continued = []
        for text, row, own_seed in zip(texts, rows, seeds, strict=True):
            print(text, end="", flush=True)
            pieces = stream(model, params, row, seed=own_seed, **settings)
            continued.append(shown(row, pieces, tokenizer, stop))
            if continued[-1].ended == "interrupted":
                break
    else:
        continued = complete(model, params, rows, seeds=seeds, **settings)
    results = []
    for text, row, each in zip(texts, rows, continued, strict=False):  # an interrupted stream has fewer
        new = continuation(tokenizer, row, each.tokens)
        new = new if stop is None else stop.cut(new)
        if not options.stream:
            print(text + new)
        result = {"prompt_tokens": len(row), "new_tokens": len(each.tokens), "ended": each.ended, "text": new}
        if options.logprobs:
            result |= {"tokens": each.tokens, "logprobs": [round(logp, 6) for logp in each.logprobs]}
        results.append(result)
    return report | joined(results)


def search(options, model, params, tokenizer, prompts: list[str]) -> dict:
    """The likeliest continuations that a beam finds, best first, with their scores."""
    count, beam = options.count or 1, Beam(size=options.beam)
    rows = [prompt_of(tokenizer, prompt) for prompt in prompts]
    check(model, rows)
    longest = max(map(len, rows))
    width = max(longest, min(bucket(longest), context_of(model) - options.tokens))
    tokens_BT, lengths_B = padded(rows, int(width))
    found = beam_search(
        *(model, params, {"tokens": tokens_BT, "lengths": lengths_B}),
        max_new_tokens=options.tokens,
        end=tokenizer.eot,
        beam=beam,
        count=count,
        cache_dtype=options.cache,
    )
    results = []
    for b, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        for c in range(int(np.isfinite(found.scores_BC[b]).sum())):
            new = np.asarray(found.tokens_BCT[b, c, : found.lengths_BC[b, c]]).tolist()
            text = continuation(tokenizer, row, new)
            print(prompt + text)
            score = round(float(found.scores_BC[b, c]), 6)
            results.append({"prompt_tokens": len(row), "new_tokens": len(new), "score": score, "text": text})
    return dataclasses.asdict(beam) | joined(results)


def write_targets(options, model, params, tokenizer, sources: list[str]) -> dict:
    """Prints what a model of pairs makes of each source, searched for as its run's evaluation does, with as
    many texts in the beam as are asked for; nothing is drawn at random."""
    refuse(
        options,
        (*DRAWING, "count", "cache"),
        "is of no use to a model of pairs, which finds one text by beam",
    )
    recipe = recipe_of(options.model)
    beam = recipe.task.beam
    if options.beam is not None:
        beam = dataclasses.replace(beam, size=options.beam)
    settings = {"max_new_tokens": options.tokens, "wrap": recipe.data.wrap, "beam": beam}
    texts = translate(model, params, tokenizer, sources, **settings)
    print("\n".join(texts))
    return dataclasses.asdict(beam) | joined([{"text": text} for text in texts])


# --- options --------------------------------------------------------------------------------------


def refuse(options, names: Sequence[str], why: str) -> None:
    """Raises ConfigError for the first of the named options that was given."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value is not False and value != []:
            raise ConfigError(f"--{name.replace('_', '-')} {why}; leave it out")


def sampling_of(options) -> Sampling:
    """The default with what was asked for in its place."""
    asked = {field.name: getattr(options, field.name) for field in dataclasses.fields(Sampling)}
    return dataclasses.replace(DEFAULT, **{name: value for name, value in asked.items() if value is not None})


def read_lines() -> list[str]:
    """The lines of standard input that are not blank. Raises DataError where there is none."""
    try:
        lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"standard input is no UTF-8 ({error.reason}); convert it") from None
    if not lines:
        raise DataError("standard input has no prompt; write one on each line")
    return lines


# --- what is shown --------------------------------------------------------------------------------


def joined(results: list[dict]) -> dict:
    """One result as it is; several as a list."""
    return results[0] if len(results) == 1 else {"continuations": results}


def shown(prompt: list[int], pieces: Iterator[Text], tokenizer, stop: Stop | None):
    """Prints a text while it is written and returns it. Half a character waits for its other half, and what
    may become a stop string until it has not. Ctrl-C ends the text."""
    text, printed, ended = Text(prompt), "", None
    try:
        for text in pieces:
            whole = continuation(tokenizer, prompt, text.new).rstrip(
                "\ufffd"
            )  # what half a character decodes to
            whole = whole if stop is None else stop.settled(whole)
            print(whole.removeprefix(printed), end="", flush=True)
            printed = whole
    except KeyboardInterrupt:
        ended = "interrupted"
    whole = continuation(tokenizer, prompt, text.new)
    print((whole if stop is None else stop.cut(whole)).removeprefix(printed), flush=True)
    return dataclasses.replace(text.continuation, ended=ended or text.ended)
