"""`python -m benchmarks.quantised MODEL FILE`: what weights of fewer bits cost and save.

MODEL is a run's folder, a Hugging Face one or hf:ID, of a model that reads from left to right; FILE is a text
that it was not trained on. The same model four times: float32; its matmuls and vocabularies rounded to
bfloat16; 8 and 4 bits as `--weights` has them. Of the text, in windows of the model's context: perplexity per
token, bits per byte, and the share of places where the likeliest next token is float32's. Behind the first 32
tokens of some windows: the share of 64 greedy tokens that are float32's, where one that differs takes what
follows along. Bytes are those of the parameters as stored, padding and scales among them; 4 bits are half a
byte. The last line is one JSON object.
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import math
import os
import platform
from pathlib import Path

from zoo import xla

FLAGS = xla.apply()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from zoo.data.files import read_text  # noqa: E402
from zoo.data.tokenizers.marks import ends_of, prefix_of  # noqa: E402
from zoo.inference.generate import context_of, generate  # noqa: E402
from zoo.models.quantised import WEIGHTS  # noqa: E402
from zoo.pretrained import with_tokenizer  # noqa: E402
from zoo.tree import named_leaves, nested  # noqa: E402

SETTINGS = ("float32", "bfloat16", *WEIGHTS)
PROMPT, NEW = 32, 64


def loaded(name: str, weights: str):
    """(model, params, tokenizer) at one of SETTINGS."""
    if weights in WEIGHTS:
        return with_tokenizer(name, weights=weights)
    model, params, tokenizer = with_tokenizer(name)
    if weights == "bfloat16":
        leaves, specs = named_leaves(params), named_leaves(dataclasses.replace(model, bits=8).abstract())
        halved = {name: x.astype(jnp.bfloat16) for name, x in leaves.items() if f"{name}_scale" in specs}
        params = nested(leaves | halved)
    return model, params, tokenizer


def bytes_of(params) -> float:
    """Of all parameters; two whole numbers of 4 bits are one byte."""
    return sum(x.size * (0.5 if x.dtype == jnp.int4 else x.dtype.itemsize) for x in jax.tree.leaves(params))


@functools.partial(jax.jit, static_argnums=0)
def read(model, params, tokens_BT):
    """(nats of all tokens but the first, the likeliest instead of each)."""
    logits_BTV = model.apply(params, tokens_BT[:, :-1])
    logp_BTV = jax.nn.log_softmax(logits_BTV)
    return -jnp.take_along_axis(logp_BTV, tokens_BT[:, 1:, None], -1).sum(), logits_BTV.argmax(-1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a run's folder, a Hugging Face one, or hf:ID")
    parser.add_argument("file", help="a text")
    parser.add_argument("--windows", type=int, default=64, help="of the text, at most (64)")
    parser.add_argument("--prompts", type=int, default=16, help="that are continued greedily (16)")
    options = parser.parse_args()
    rows, first = {}, {}
    for weights in SETTINGS:
        model, params, tokenizer = loaded(options.model, weights)
        start = list(prefix_of(tokenizer) or ends_of(tokenizer)[:1])
        T = int(min(context_of(model), 1024)) - len(start)
        tokens_T = tokenizer.encode(read_text(Path(options.file)))
        windows_BT = tokens_T[: len(tokens_T) // T * T].reshape(-1, T)
        windows_BT = windows_BT[:: math.ceil(len(windows_BT) / options.windows)]
        prompts = windows_BT[:: math.ceil(len(windows_BT) / options.prompts), :PROMPT].tolist()
        nats, likeliest = 0.0, []
        for row_T in windows_BT:
            row_nats, row = read(model, params, np.concatenate([start, row_T]).astype(np.int32)[None])
            nats += float(row_nats)
            likeliest.append(np.asarray(row))
        found = {
            "likeliest": np.concatenate(likeliest),
            "greedy": np.asarray(generate(model, params, prompts, max_new_tokens=NEW)),
        }
        first = first or found
        size = sum(len(tokenizer.decode(row_T.tolist()).encode()) for row_T in windows_BT)
        rows[weights] = {
            "parameter_bytes": bytes_of(params),
            "perplexity": math.exp(nats / windows_BT.size),
            "bits_per_byte": nats / math.log(2) / size,
            "same_likeliest": float((found["likeliest"] == first["likeliest"]).mean()),
            "same_greedy": float((found["greedy"] == first["greedy"]).mean()),
        }
        print(f"{weights:10}" + "".join(f"  {name} {value:,.5g}" for name, value in rows[weights].items()))
    result = {
        "model": options.model,
        "file": options.file,
        "tokens": windows_BT.size,
        "windows": len(windows_BT),
        "prompts": len(prompts),
        "greedy_tokens": NEW,
        "rows": rows,
        "xla_flags": FLAGS,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
