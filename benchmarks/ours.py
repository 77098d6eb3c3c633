"""zoo's side: the train step that train.py loops over, recurrent layers, generation, embeddings."""

import functools
import time
from importlib import metadata
from pathlib import Path

from zoo import xla

FLAGS = xla.apply()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import zoo  # noqa: E402
from benchmarks import parts, rates  # noqa: E402
from benchmarks.side import peak_bytes  # noqa: E402
from benchmarks.workloads import Embedding, Generation, Stack, Training  # noqa: E402
from zoo import recurrence, sharding  # noqa: E402
from zoo.inference.apart import apart  # noqa: E402
from zoo.inference.generate import generate  # noqa: E402
from zoo.mesh import MeshConfig, make_mesh  # noqa: E402
from zoo.models.bert import BERTConfig  # noqa: E402
from zoo.models.rnn_config import RNNConfig  # noqa: E402
from zoo.pretrained import bert as bert_names  # noqa: E402
from zoo.pretrained import gpt2 as gpt_names  # noqa: E402
from zoo.pretrained import torch_rnn as rnn_names  # noqa: E402


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}


def make(work, folder: Path, how: str):
    """The run of a workload; programs are kept in `folder`, so that the second one finds the first one's."""
    jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return {Training: TrainingRun, Stack: StackRun, Generation: GenerationRun, Embedding: EmbeddingRun}[
        type(work)
    ](work, folder)


def hand_over(folder: Path, tensors) -> None:
    """Weights for the peers, by their names there; the first of zoo's two sides writes them."""
    path = folder / "weights.npz"
    if not path.exists():
        np.savez(path, **{name: np.asarray(x, np.float32) for name, x in tensors.items()})


# --- training -------------------------------------------------------------------------------------


class TrainingRun:
    """train.py's step on train.py's mesh. On a CPU each step is waited for; elsewhere the last of a turn, as
    train.py reads a step's numbers while the next one runs."""

    def __init__(self, work: Training, folder: Path):
        self.work, self.parts = work, work.parts()
        self.mesh = make_mesh(MeshConfig())
        jax.set_mesh(self.mesh)
        self.state = self.parts.init_on(self.mesh)
        hand_over(folder, tensors_of(work.recipe.model, self.state.params))
        self.step = self.parts.compiled(self.mesh)

    def batch(self, step: int):
        """Examples as the task wants them, on the host."""
        rows = range(self.work.recipe.data.batch_size)
        return self.parts.task.batch(self.work.data.batch(step, rows))

    def place(self, batch):
        def rows_of(rows):
            return jax.tree.map(lambda x: x[rows.start : rows.stop], batch)

        return sharding.place_rows(rows_of, self.work.recipe.data.batch_size, self.mesh)

    def start(self) -> dict:
        """Compiles; what the compiler says of it is kept for `facts`."""
        lowered = self.step.lower(self.state, self.place(self.batch(0)))
        start = time.perf_counter()
        self.program = lowered.compile()
        return {"compile_s": time.perf_counter() - start, "flags": FLAGS, "mesh": dict(self.mesh.shape)}

    def first(self) -> dict[str, np.ndarray]:
        """The losses of the first steps."""
        losses = []
        for step in range(self.work.checked):
            self.state, numbers = self.step(self.state, self.place(self.batch(step)))
            losses.append(float(numbers["loss"]))
        return {"losses": np.array(losses)}

    def turn(self, step: int, count: int) -> list[float]:
        """Seconds of `count` steps from `step` on: of each, or where a device runs ahead, of one on average."""
        batches = [self.batch(step + n) for n in range(count)]
        start, found = time.perf_counter(), []
        for batch in batches:
            self.state, numbers = self.step(self.state, self.place(batch))
            if jax.default_backend() == "cpu":
                float(numbers["loss"])
                found.append(time.perf_counter() - start)
                start = time.perf_counter()
        if found:
            return found
        float(numbers["loss"])
        return [(time.perf_counter() - start) / count]

    def facts(self) -> dict:
        return facts(self.program) | device_memory()

    def parts_of(self, rate: float) -> dict:
        """Milliseconds of the step's parts, each measured alone or computed at the measured rate."""
        return parts.of_training(self, rate)

    def matmul(self) -> float:
        return matmul(self.work.dtype)


def tensors_of(config, params) -> dict[str, np.ndarray]:
    """Parameters by the names under which the peers know them."""
    if isinstance(config, RNNConfig):
        return rnn_names.to_torch(params, config)
    return (bert_names if isinstance(config, BERTConfig) else gpt_names).to_hf(params, config)


# --- recurrent layers alone -----------------------------------------------------------------------


class StackRun:
    """Forward and backward of the layers in zoo/recurrence, with the inputs' projections."""

    def __init__(self, work: Stack, folder: Path):
        self.work, self.arrays = work, jax.device_put(work.arrays())

    def start(self) -> dict:
        lowered = jax.jit(functools.partial(forward_backward, self.work.cell)).lower(*self.arrays)
        start = time.perf_counter()
        self.program = lowered.compile()
        return {"compile_s": time.perf_counter() - start, "flags": FLAGS, "mesh": {}}

    def first(self) -> dict[str, np.ndarray]:
        """Outputs and all gradients, matrices as [outputs, inputs]."""
        y_TBZ, (d_params, d_x_TBD) = self.program(*self.arrays)
        found, width = {"y": y_TBZ, "d_x": d_x_TBD}, self.work.width
        for n, layer in enumerate(d_params):
            found |= {f"{name}_l{n}": layer[name].reshape(width, -1).T for name in ("w_in", "w")}
            found |= {f"{name}_l{n}": layer[name].ravel() for name in ("b_in", "b") if name in layer}
        return {name: np.asarray(x) for name, x in found.items()}

    def turn(self, step: int, count: int) -> list[float]:
        return [
            rates.seconds(lambda: jax.block_until_ready(self.program(*self.arrays))) for _ in range(count)
        ]

    def facts(self) -> dict:
        return facts(self.program) | device_memory()

    def parts_of(self, rate: float) -> dict:
        return {}

    def matmul(self) -> float:
        return matmul("float32")


def forward_backward(cell: str, params, x_TBD, d_TBZ):
    y_TBZ, back = jax.vjp(lambda *inputs: stack(cell, *inputs), params, x_TBD)
    return y_TBZ, back(d_TBZ)


def stack(cell: str, params, x_TBD):
    """The outputs of the last layer, all layers starting from zeros."""
    for layer in params:
        x = recurrence.project(x_TBD, layer["w_in"], layer["b_in"])
        zeros_BZ = jnp.zeros((x.shape[1], x.shape[-1]), x.dtype)
        if cell == "lstm":
            x_TBD, _ = recurrence.lstm(x, layer["w"], (zeros_BZ, zeros_BZ))
        elif cell == "gru":
            x_TBD, _ = recurrence.gru(x, layer["w"], layer["b"], zeros_BZ)
        else:
            x_TBD, _ = recurrence.elman(x, layer["w"], zeros_BZ)
    return x_TBD


# --- inference ------------------------------------------------------------------------------------


class GenerationRun:
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
        return {"compile_s": took, "flags": FLAGS, "mesh": {}}

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

    def matmul(self) -> float:
        return matmul(self.work.dtype)


def step_seconds(generated, new: int) -> float:
    """What a further token takes."""
    whole, first = (rates.seconds(lambda n=n: generated(n)) for n in (new, 1))
    return (whole - first) / (new - 1)


class EmbeddingRun:
    """What `python -m zoo embed` runs: texts, WordPiece, batches by length, mean pooling, length 1."""

    def __init__(self, work: Embedding, folder: Path):
        from zoo.data.tokenizers import load_tokenizer

        (folder / "vocab.txt").write_text("\n".join(work.vocabulary) + "\n", encoding="utf-8")
        self.texts, self.tokenizer = work.texts(), load_tokenizer(folder)
        self.model = zoo.create(work.model)
        self.params = self.model.init(jax.random.key(0))
        hand_over(folder, tensors_of(work.model, self.params))

    def vectors(self) -> np.ndarray:
        from zoo.inference.embed import embed

        return embed(self.model, self.params, self.tokenizer, self.texts, wrap="both")

    def start(self) -> dict:
        return {"compile_s": rates.seconds(self.vectors), "flags": FLAGS, "mesh": {}}

    def first(self) -> dict[str, np.ndarray]:
        return {"vectors": self.vectors()}

    def turn(self, step: int, count: int) -> list[float]:
        return [rates.seconds(self.vectors) for _ in range(count)]

    def facts(self) -> dict:
        return {"process_bytes": peak_bytes()} | device_memory()

    def parts_of(self, rate: float) -> dict:
        tokens = rates.seconds(lambda: [self.tokenizer.encode(text) for text in self.texts])
        return {"host": {"ms": 1e3 * tokens, "how": "measured: tokenising alone"}}

    def matmul(self) -> float:
        return matmul("float32")


# --- what is asked of all -------------------------------------------------------------------------


def facts(program) -> dict:
    """What the compiler says of a program, and which kernel its text has for attention."""
    used, text = program.memory_analysis(), program.as_text()
    kernel = "cuDNN" if "fmha" in text else "splash" if "splash_mha" in text else "XLA"
    return {
        "program_bytes": getattr(used, "peak_memory_in_bytes", 0)
        or used.argument_size_in_bytes + used.temp_size_in_bytes,
        "argument_bytes": used.argument_size_in_bytes,
        "attention": kernel,
        "process_bytes": peak_bytes(),
        **parts.of_program(text),
    }


def device_memory() -> dict:
    stats = jax.local_devices()[0].memory_stats() or {}
    return {"device_bytes": stats["peak_bytes_in_use"]} if "peak_bytes_in_use" in stats else {}


def matmul(dtype: str) -> float:
    """FLOP/s of jnp.dot on this device; 8,192 wide where it is no CPU, so that the call's own time is lost."""
    size = rates.SIZE if jax.default_backend() == "cpu" else 4 * rates.SIZE
    a, b = (jnp.asarray(x, dtype) for x in rates.operands(size))
    product = jax.jit(jnp.dot)
    return rates.matmul_flops(lambda: product(a, b).block_until_ready(), size)
