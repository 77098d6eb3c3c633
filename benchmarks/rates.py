"""What this machine reaches, measured on the spot: matmuls on random numbers, and reading memory."""

import threading
import time
from collections.abc import Callable

import numpy as np

SIZE = 2048
BLOCK = 64 << 20  # float32 numbers, 256 MiB: no cache holds them


def operands(size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((size, size), np.float32), rng.standard_normal((size, size), np.float32)


def matmul_flops(product: Callable[[], object], size: int = SIZE, repeats: int = 5) -> float:
    """FLOP/s of `product`, which multiplies two square matrices and waits: the best of a few."""
    product()
    best = min(seconds(product) for _ in range(repeats))
    return 2 * size**3 / best


def read_rate(repeats: int = 4) -> float:
    """Bytes per second at which two threads, or one, sum up what no cache holds: the best of a few."""
    block = np.ones(BLOCK, np.float32)
    best = 0.0
    for count in (1, 2) * repeats:
        threads = [threading.Thread(target=part.sum) for part in np.split(block, count)]

        def together(threads=threads):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        best = max(best, block.nbytes / seconds(together))
    return best


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
