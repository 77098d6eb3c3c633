"""`python -m zoo VERB`: look at models and runs, and use them.

list [PATTERN]              published sizes and recipes
show NAME                   a size, a recipe or a run's folder: settings, parameters, FLOPs
generate MODEL PROMPT       continue a text with a run's folder
"""

import argparse
import dataclasses
import json
import os
import sys
import time
import traceback
from pathlib import Path

from zoo.errors import INTERNAL, ConfigError, UserError, nearest


def main(argv: list[str]) -> int:
    """Runs one verb; returns the exit code. The last line on stdout is one JSON object."""
    parser = Parser(
        prog="python -m zoo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    verb = verbs.add_parser("list", help="published sizes and recipes")
    verb.add_argument("pattern", nargs="?", default="*", help='a shell pattern such as "gpt2*"')
    verb.set_defaults(run=show_list)

    verb = verbs.add_parser("show", help="settings, parameters and FLOPs of a size, a recipe or a run")
    verb.add_argument("name")
    verb.set_defaults(run=show)

    verb = verbs.add_parser("generate", help="continue a text")
    verb.add_argument("model", help="a run's folder")
    verb.add_argument("prompt")
    verb.add_argument("--tokens", type=int, default=200, help="how many to write at most (200)")
    verb.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token (0.8)")
    verb.add_argument("--top-k", type=int, default=200, help="draw among the k likeliest; 0: all (200)")
    verb.add_argument(
        "--top-p", type=float, default=1.0, help="draw among the likeliest that hold this share (1)"
    )
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(run=write)

    try:
        options = parser.parse_args(argv)
        print(json.dumps(options.run(options), separators=(",", ":"), ensure_ascii=False))
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        traceback.print_exc()
        return INTERNAL


class Parser(argparse.ArgumentParser):
    """Mistakes are one line like everybody else's."""

    def error(self, message):
        raise ConfigError(f"{message}; `python -m zoo --help` shows how")


def show_list(options) -> dict:
    """Every published size with its parameters, then every recipe with its model."""
    import fnmatch

    import zoo

    models = {name: zoo.create(name).num_params() for name in zoo.list_models(options.pattern)}
    recipes = fnmatch.filter(zoo.CONFIGS, options.pattern)
    for name, count in models.items():
        print(f"{name:28} model   {count:>15,} parameters")
    for name in recipes:
        recipe = zoo.CONFIGS[name]
        print(
            f"{name:28} recipe  {type(recipe.model).__name__}, {recipe.steps:,} steps "
            f"of {recipe.data.batch_size} rows"
        )
    if not models and not recipes:
        raise ConfigError(
            f"nothing is called {options.pattern!r}"
            f"{nearest(options.pattern, [*zoo.list_models(), *zoo.CONFIGS])}"
        )
    return {"models": models, "recipes": recipes}


def show(options) -> dict:
    """One size, recipe or run: the recipe of a name that is both has the model in it."""
    import zoo
    from zoo import config
    from zoo.models import SIZES
    from zoo.run import recipe_of

    name, recipe = options.name, None
    if Path(name).is_dir():
        recipe = recipe_of(name)
    elif name in zoo.CONFIGS:
        recipe = zoo.CONFIGS[name]
    elif name not in SIZES:
        known = [*SIZES, *zoo.CONFIGS]
        raise ConfigError(
            f"{name!r} is no model, recipe or run's folder{nearest(name, known)}; `python -m zoo list`"
        )
    settings = config.to_json(SIZES[name] if recipe is None else recipe)
    print(json.dumps(settings, indent=2))
    model_config = SIZES[name] if recipe is None else recipe.model
    if not model_config.vocab_size:
        return {"name": name, "parameters": None, "why": "the vocabulary's size comes with the data"}
    length = model_config.max_length if recipe is None else recipe.data.length
    flops = model_config.flops_per_token(length)
    for path, spec in tree_rows(zoo.create(model_config).abstract()):
        print(f"{path:40} {spec.letters:6} {'x'.join(map(str, spec.visible_shape)):>24} {spec.size:>15,}")
    return {
        "name": name,
        "parameters": zoo.create(model_config).num_params(),
        "length": length,
        "flops_per_token_full_attention": flops.full,
        "flops_per_token_causal_half": flops.causal,
    }


def tree_rows(specs):
    from zoo.checkpoint import named_leaves

    return named_leaves(specs).items()


def write(options) -> dict:
    """Prints the prompt with its continuation."""
    import zoo
    from zoo.inference.generate import Sampling, generate

    if options.tokens < 1:
        raise ConfigError(f"--tokens={options.tokens} must be at least 1")
    if not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed={options.seed} must be at least 0 and less than {2**32}")
    sampling = Sampling(options.temperature, options.top_k, options.top_p)
    model, params, tokenizer = zoo.from_pretrained(options.model)
    prompt = tokenizer.encode(options.prompt).tolist()
    if not prompt and tokenizer.eot is not None:
        prompt = [tokenizer.eot]
    started = time.monotonic()
    new = generate(
        *(model, params, [prompt]),
        max_new_tokens=options.tokens,
        sampling=sampling,
        seed=options.seed,
        eot=tokenizer.eot,
    )[0]
    text = tokenizer.decode(new)
    print(options.prompt + text)
    return {
        "model": options.model,
        **dataclasses.asdict(sampling),
        "seed": options.seed,
        "prompt_tokens": len(prompt),
        "new_tokens": len(new),
        "seconds": round(time.monotonic() - started, 2),
        "text": text,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
