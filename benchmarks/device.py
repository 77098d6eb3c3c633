"""What zoo's sides say whatever they run: flags, device, what the compiler says of a program, what the device
reaches, and the weights that peers begin with."""

from pathlib import Path

from zoo import host_memory, xla

FLAGS = xla.apply()
MALLOC = host_memory.keep() if xla.likely_platform() == "cpu" else ""

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import parts, rates  # noqa: E402
from benchmarks.side import peak_bytes  # noqa: E402
from zoo.models.bert import BERTConfig  # noqa: E402
from zoo.models.rnn_config import RNNConfig  # noqa: E402
from zoo.pretrained import bert as bert_names  # noqa: E402
from zoo.pretrained import gpt2 as gpt_names  # noqa: E402
from zoo.pretrained import torch_rnn as rnn_names  # noqa: E402


def ready(compile_s: float, mesh=None) -> dict:
    """What is told once a workload is compiled."""
    device = jax.devices()[0]
    return {
        "compile_s": compile_s,
        "flags": FLAGS,
        "malloc": MALLOC,
        "mesh": dict(mesh.shape) if mesh is not None else {},
        "device": {"kind": device.device_kind, "platform": device.platform, "count": jax.device_count()},
    }


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


class Run:
    """What all of zoo's runs are asked."""

    def matmul(self) -> float:
        return matmul_flops(self.work.dtype)

    def reading(self) -> float:
        return read_rate()


def read_rate() -> float:
    """Bytes per second that this device reads: on a CPU two threads, elsewhere a sum over 1 GiB."""
    if jax.default_backend() == "cpu":
        return rates.read_rate()
    x, total = jax.random.normal(jax.random.key(0), (1 << 28,)), jax.jit(jnp.sum)
    total(x).block_until_ready()
    return x.nbytes / min(rates.seconds(lambda: total(x).block_until_ready()) for _ in range(10))


def matmul_flops(dtype: str) -> float:
    """FLOP/s of jnp.dot on this device; 8,192 wide where it is no CPU, which hides the call's own time."""
    size = rates.SIZE if jax.default_backend() == "cpu" else 4 * rates.SIZE
    a, b = (jnp.asarray(x, dtype) for x in rates.operands(size))
    product = jax.jit(jnp.dot)
    return rates.matmul_flops(lambda: product(a, b).block_until_ready(), size)


def hand_over(folder: Path, tensors) -> None:
    """Weights for the peers, by their names there; the first of zoo's two sides writes them."""
    path = folder / "weights.npz"
    if not path.exists():
        np.savez(path, **{name: np.asarray(x, np.float32) for name, x in tensors.items()})


def tensors_of(config, params) -> dict[str, np.ndarray]:
    """Parameters by the names under which the peers know them."""
    if isinstance(config, RNNConfig):
        return rnn_names.to_torch(params, config)
    return (bert_names if isinstance(config, BERTConfig) else gpt_names).to_hf(params, config)
