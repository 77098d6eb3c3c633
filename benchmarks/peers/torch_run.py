"""A run of torch, whatever the model: devices, weights, turns, and the train step around a loss."""

import contextlib
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import rates
from benchmarks.side import peak_bytes
from zoo.optim import SGD


@functools.cache
def device() -> torch.device:
    """The GPU where there is one. To be asked in a fork: those of a process with CUDA have none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare() -> None:
    """As many threads as cores; on a GPU TF32 for what is left in float32."""
    if device().type == "cuda":
        torch.set_float32_matmul_precision("high")
    else:
        torch.set_num_threads(os.cpu_count() or 1)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with np.load(folder / "weights.npz") as found:
        return {name: torch.tensor(found[name]) for name in found.files}


def load(model: torch.nn.Module, folder: Path, *, without: str = "", unused: tuple[str, ...] = ()) -> None:
    """zoo's initial weights; every tensor of theirs must find its place, and only `unused` may get none."""
    tensors = weights(folder)
    if without:
        tensors = {k.removeprefix(without): v for k, v in tensors.items() if k.startswith(without)}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not any(part in name for part in unused)]
    assert not unexpected and not missing, (missing, unexpected)


def optimizer_of(recipe, model: torch.nn.Module):
    """The recipe's, torch's own fused AdamW, or SGD; what has one dimension is not decayed."""
    rule = recipe.optimizer
    trained = [p for p in model.parameters() if p.requires_grad]
    if isinstance(rule, SGD):
        return torch.optim.SGD(trained, lr=rule.learning_rate)
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": rule.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (rule.beta1, rule.beta2)
    return torch.optim.AdamW(groups, lr=rule.learning_rate, betas=betas, eps=rule.eps, fused=True)


class TrainingRun:
    """`loss_of(batch)` gives a step's mean loss; clipping and update are here."""

    def __init__(self, work, model: torch.nn.Module, loss_of: Callable):
        self.work, self.model, self.loss_of = work, model.to(device()).train(), loss_of
        self.optimizer = optimizer_of(work.recipe, self.model)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        return self.work.data.batch(step, range(self.work.recipe.data.batch_size))

    def start(self) -> dict:
        return {"compile_s": None}

    def step(self, batch):
        halved = self.work.dtype == "bfloat16"
        with attention(), torch.autocast(device().type, torch.bfloat16, enabled=halved):
            loss = self.loss_of(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.work.recipe.clip_norm)
        self.optimizer.step()
        return loss

    def first(self, count: int) -> dict[str, np.ndarray]:
        return {"losses": np.array([self.step(self.batch(n)).item() for n in range(count)])}

    def turn(self, step: int, count: int) -> list[float]:
        """As zoo's: on a CPU each step is waited for, on a GPU the last."""
        batches = [self.batch(step + n) for n in range(count)]
        start, found = time.perf_counter(), []
        for batch in batches:
            loss = self.step(batch)
            if device().type == "cpu":
                loss.item()
                found.append(time.perf_counter() - start)
                start = time.perf_counter()
        if found:
            return found
        loss.item()
        return [(time.perf_counter() - start) / count]

    def facts(self) -> dict:
        return memory()

    def matmul(self) -> float:
        return matmul(self.work.dtype)


def attention():
    """cuDNN's kernel on Hopper, where torch would choose another one (huggingface/transformers#48163)."""
    if device().type != "cuda" or torch.cuda.get_device_capability()[0] < 9:
        return contextlib.nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(
        [SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True
    )


def on_device(x: np.ndarray, dtype=None) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(device(), dtype)


def memory() -> dict:
    """The most memory of the process, and of the GPU."""
    on_gpu = device().type == "cuda"
    return {"process_bytes": peak_bytes()} | (
        {"device_bytes": torch.cuda.max_memory_allocated()} if on_gpu else {}
    )


def matmul(dtype: str) -> float:
    """FLOP/s of torch.mm on this device."""
    size = rates.SIZE if device().type == "cpu" else 4 * rates.SIZE
    a, b = (torch.tensor(x).to(device(), getattr(torch, dtype)) for x in rates.operands(size))

    def product():
        torch.mm(a, b)
        if device().type == "cuda":
            torch.cuda.synchronize()

    return rates.matmul_flops(product, size)
