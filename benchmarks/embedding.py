"""`python -m benchmarks.embedding TEXTS VOCAB`: sentences per second, beside sentence-transformers on torch.

A BERT of 6 layers, 384 wide, 12 heads (the shape of all-MiniLM-L6), random weights, mean pooling, length 1.
TEXTS is a file with a sentence on each line, or a .tsv whose columns `sentence`, `sentence1` and `sentence2`
are read; VOCAB is BERT's vocab.txt. Both sides tokenise, sort by length, batch and embed; the vectors must be
equal before a time counts, and they take turns. Needs the extra `parity` and sentence-transformers. The last
line is one JSON object.
"""

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from zoo import xla

FLAGS = xla.apply()

import jax  # noqa: E402
import numpy as np  # noqa: E402

import zoo  # noqa: E402
from zoo.data.tokenizers import load_tokenizer  # noqa: E402
from zoo.inference.embed import embed  # noqa: E402
from zoo.models.bert import BERTConfig  # noqa: E402
from zoo.pretrained.bert import config_to_hf, to_hf  # noqa: E402

SHAPE = {"num_layers": 6, "d_model": 384, "num_heads": 12, "layer_unroll": 0}
TURNS = 5


def read_texts(path: Path, count: int) -> list[str]:
    """The first `count` different sentences of a file, in an order that says nothing of their length."""
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as file:
        lines = [line.rstrip("\n") for line in file]
    if ".tsv" in path.suffixes:
        names = lines[0].split("\t")
        columns = [i for i, name in enumerate(names) if name in ("sentence", "sentence1", "sentence2")]
        lines = [row[i] for row in (line.split("\t") for line in lines[1:]) for i in columns if i < len(row)]
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        sys.exit(f"{path}: no sentences; give a line for each, or a .tsv whose header names sentence columns")
    np.random.default_rng(0).shuffle(found)
    return found[:count]


def their_model(folder: Path, config: BERTConfig, params, vocab: Path):
    """The same encoder in sentence-transformers."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    model = transformers.BertModel(transformers.BertConfig(**config_to_hf(config)))
    tensors = {
        name.removeprefix("bert."): torch.tensor(np.array(x))
        for name, x in to_hf(params, config).items()
        if name.startswith("bert.")
    }
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and all("pooler" in name or "position_ids" in name for name in missing), missing
    model.save_pretrained(folder)
    pieces = vocab.read_text(encoding="utf-8").rstrip("\n").split("\n")
    transformers.BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}).save_pretrained(folder)
    encoder = Transformer(str(folder), max_seq_length=config.max_length)
    pooling = Pooling(config.d_model, pooling_mode="mean")
    return SentenceTransformer(modules=[encoder, pooling, Normalize()], device="cpu")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", type=Path)
    parser.add_argument("vocab", type=Path)
    parser.add_argument("--count", type=int, default=2000, help="sentences (2000)")
    options = parser.parse_args()
    texts, tokenizer = read_texts(options.texts, options.count), load_tokenizer(options.vocab.parent)
    config = BERTConfig(vocab_size=tokenizer.vocab_size, **SHAPE)
    model = zoo.create(config)
    params = model.init(jax.random.key(0))

    def ours() -> np.ndarray:
        return embed(model, params, tokenizer, texts, wrap="both")

    with tempfile.TemporaryDirectory() as folder:
        theirs = their_model(Path(folder), config, params, options.vocab)
        batch_sizes = (32, 128)  # 32 is its default

        def encode(batch_size: int) -> np.ndarray:
            return theirs.encode(texts, batch_size=batch_size, show_progress_bar=False)

        started = time.perf_counter()
        apart = float(np.abs(ours() - encode(32)).max())
        first_s = time.perf_counter() - started
        if apart > 1e-4:
            sys.exit(f"the vectors are {apart:.1e} apart: not the same model")
        runs = {"zoo": ours, **{f"torch_{size}": (lambda size=size: encode(size)) for size in batch_sizes}}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(TURNS):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    rate = {name: len(texts) / statistics.median(values) for name, values in times.items()}
    best = max(rate["torch_32"], rate["torch_128"])
    faster = "torch_32" if rate["torch_32"] == best else "torch_128"
    ratios = sorted(b / a for a, b in zip(times["zoo"], times[faster], strict=True))
    names = ("jax", "jaxlib", "torch", "transformers", "sentence-transformers")
    result = {
        "workload": "6 x 384 encoder, mean pooling, sentences per second",
        "texts": len(texts),
        "tokens_per_text": float(np.mean([len(tokenizer.encode(text)) + 2 for text in texts])),
        "sentences_per_s": rate,
        "zoo_over_faster_torch": [statistics.median(ratios), ratios[0], ratios[-1]],
        "vectors_apart": apart,
        "first_pass_of_both_s": first_s,
        "xla_flags": FLAGS,
        "versions": {name: importlib.metadata.version(name) for name in names},
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
