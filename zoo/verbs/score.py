"""score: how probable lines of text are."""

import math
from pathlib import Path

import numpy as np

from zoo.data.files import read_text
from zoo.data.tokenizers.marks import ends_of, prefix_of
from zoo.errors import ConfigError
from zoo.inference.masked import pseudo_log_probabilities
from zoo.inference.score import log_probabilities
from zoo.pretrained import with_tokenizer


def score(options) -> dict:
    """Prints nats, tokens and the text of each line; perplexity is per token over all lines. Of a model that
    reads both ways these are pseudo-log-likelihoods, each token given all others of its line."""
    model, params, tokenizer = with_tokenizer(options.model, options.adapter, options.weights)
    lines = [line for line in read_text(Path(options.file)).split("\n") if line.strip()]
    if not lines:
        raise ConfigError(f"{options.file}: has no line to score")
    reads_both_ways = bool(model.traits & {"bidirectional", "pretraining"})
    if reads_both_ways:
        logps = pseudo_log_probabilities(model, params, tokenizer, lines)
    else:
        start = list(prefix_of(tokenizer) or ends_of(tokenizer)[:1])
        texts = [start + tokenizer.encode(line).tolist() for line in lines]
        logps = log_probabilities(model, params, texts)
    for line, logp in zip(lines, logps, strict=True):
        print(f"{float(np.sum(logp, dtype=np.float64)):12.4f} {len(logp):6d}  {line}")
    total, count = float(sum(logp.sum(dtype=np.float64) for logp in logps)), sum(map(len, logps))
    perplexity = math.exp(min(-total / count, 700.0)) if count else None
    counts = {"lines": len(lines), "tokens": count}
    pseudo = "pseudo_" if reads_both_ways else ""
    found = {f"{pseudo}log_probability": total, f"{pseudo}perplexity": perplexity}
    return {"model": options.model, **counts, **found}
