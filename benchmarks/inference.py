"""zoo's generation and embeddings, as sides of a comparison."""

import time
from pathlib import Path

import jax
import numpy as np

import zoo
from benchmarks import rates
from benchmarks.device import Run, device_memory, hand_over, ready, tensors_of
from benchmarks.kinds import Embedding, Generation
from benchmarks.side import peak_bytes
from zoo.inference.apart import apart
from zoo.inference.generate import generate


class GenerationRun(Run):
    """What `python -m zoo generate` runs, layers apart. A step is what each further token takes: a whole call
    less a call for one token, over the tokens between."""

    def __init__(self, work: Generation, folder: Path):
        self.work = work
        model = zoo.create(work.model)
        params = model.init(jax.random.key(0))
        hand_over(folder, tensors_of(work.model, params))
        self.bytes = sum(x.nbytes for x in jax.tree.leaves(params))
        self.model, self.params = apart(model, params)

    def start(self) -> dict:
        start = time.perf_counter()
        self.generated(self.work.new)
        took = time.perf_counter() - start
        self.generated(1)
        return ready(took)

    def generated(self, count: int) -> list[list[int]]:
        return generate(self.model, self.params, self.work.prompts(), max_new_tokens=count)

    def first(self) -> dict[str, np.ndarray]:
        return {"tokens": np.array(self.generated(self.work.new))}

    def turn(self, step: int, count: int) -> list[float]:
        return [step_seconds(self.generated, self.work.new) for _ in range(count)]

    def facts(self) -> dict:
        return {"weight_bytes": self.bytes, "process_bytes": peak_bytes()} | device_memory()

    def parts_of(self, rate: float) -> dict:
        first = rates.seconds(lambda: self.generated(1))
        return {"first_token": {"ms": 1e3 * first, "how": "measured: the prompt read, one token"}}


def step_seconds(generated, new: int) -> float:
    """What a further token takes."""
    whole, first = (rates.seconds(lambda n=n: generated(n)) for n in (new, 1))
    return max(whole - first, 1e-6) / (new - 1)  # on a busy machine the call for one may take longer


class EmbeddingRun(Run):
    """What `python -m zoo embed` runs: texts, WordPiece, batches by length, mean pooling, length 1."""

    def __init__(self, work: Embedding, folder: Path):
        from zoo.data.tokenizers import load_tokenizer

        (folder / "vocab.txt").write_text("\n".join(work.vocabulary) + "\n", encoding="utf-8")
        self.work = work
        self.texts, self.tokenizer = work.texts(), load_tokenizer(folder)
        self.model = zoo.create(work.model)
        self.params = self.model.init(jax.random.key(0))
        hand_over(folder, tensors_of(work.model, self.params))

    def vectors(self) -> np.ndarray:
        from zoo.inference.embed import embed

        return embed(self.model, self.params, self.tokenizer, self.texts, wrap="both")

    def start(self) -> dict:
        return ready(rates.seconds(self.vectors))

    def first(self) -> dict[str, np.ndarray]:
        return {"vectors": self.vectors()}

    def turn(self, step: int, count: int) -> list[float]:
        return [rates.seconds(self.vectors) for _ in range(count)]

    def facts(self) -> dict:
        return {"process_bytes": peak_bytes()} | device_memory()

    def parts_of(self, rate: float) -> dict:
        tokens = rates.seconds(lambda: [self.tokenizer.encode(text) for text in self.texts])
        return {"host": {"ms": 1e3 * tokens, "how": "measured: tokenising alone"}}
