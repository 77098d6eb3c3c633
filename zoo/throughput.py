"""How fast a run is: tokens per second, and what share of the machine's arithmetic that uses (MFU).

MFU is by convention A: 6 N + 12 L d T FLOPs per trained token, attention counted in full (PaLM, arXiv
2204.02311, appendix B), over the dense bfloat16 rate on the vendor's sheet. About 80 % of a sheet is
what a large matmul reaches. A CPU has no such sheet: there it is the share of the float32 matmul rate
measured at the start.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# Dense bfloat16 FLOP/s of one JAX device by its `device_kind`: vendors' sheets, and jax-ml/scaling-book
# (tpus.md) for TPUs. H100 is the SXM module.
PEAK_FLOPS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H200": 989.4e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}


def peak_flops(device_kind: str, platform: str, *, num_devices: int = 1) -> tuple[float | None, str]:
    """FLOP/s of `num_devices` such devices together, and where the number is from; None if unknown.

    The devices of a CPU are threads of the same cores, so their number does not count there.
    """
    if platform == "cpu" and num_devices > 1:
        return (
            None,
            f"{num_devices} virtual devices share the cores: they show that it is right, not how fast",
        )
    if platform == "cpu":
        measured = measured_matmul_flops()
        return measured, f"{measured / 1e9:.0f} GFLOP/s, the float32 matmul rate measured on this CPU"
    rate = PEAK_FLOPS.get(device_kind)
    if rate is None:
        return None, f"no peak FLOP/s known for {device_kind!r}; MFU is null"
    return (
        rate * num_devices,
        f"{num_devices} x {rate / 1e12:g} TFLOP/s dense bfloat16 ({device_kind}, vendor's sheet)",
    )


def measured_matmul_flops(size: int = 1024, repeats: int = 5) -> float:
    """Float32 FLOP/s of a square matmul on the default device, the median of a few, in ~0.1 s."""
    import jax
    import jax.numpy as jnp

    random = np.random.default_rng(0)
    a, b = (jnp.asarray(random.standard_normal((size, size), np.float32)) for _ in "ab")
    matmul = jax.jit(jnp.dot).lower(a, b).compile()
    matmul(a, b).block_until_ready()
    elapsed_s = []
    for _ in range(repeats):
        start = time.perf_counter()
        matmul(a, b).block_until_ready()
        elapsed_s.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(elapsed_s)


class Throughput:
    """Counts completed steps against a monotonic clock.

        step() step() ... read()   step() | pause: evaluation | step() ... read()
        ^ compiles:                        not counted
          starts the clock

    Only completed steps tell the speed: call `step` when a step's numbers have arrived from the
    device, and let the device finish before a pause.
    """

    def __init__(
        self,
        tokens_per_step: int,
        *,
        flops_per_token: float = 0.0,
        peak_flops: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._tokens_per_step = tokens_per_step
        self._mfu_per_token = flops_per_token / peak_flops if peak_flops else None
        self._clock = clock
        self._first_s: float | None = None  # when the first step was complete
        self._paused_s = 0.0
        self._now = self._then = (0.0, 0)  # timed seconds and steps: at the last step, at the last read

    def step(self) -> None:
        """One more step is complete."""
        if self._first_s is None:
            self._first_s, self._paused_s = self._clock(), 0.0
        else:
            self._now = (self._clock() - self._first_s - self._paused_s, self._now[1] + 1)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Time spent inside is not training: evaluation, a checkpoint, a sample."""
        start = self._clock()
        try:
            yield
        finally:
            self._paused_s += self._clock() - start

    def read(self) -> dict[str, Any]:
        """tokens_per_s, step_ms and mfu since the last `read`; None where no step was timed."""
        rates = self._rates(self._now[0] - self._then[0], self._now[1] - self._then[1])
        self._then = self._now
        return rates

    def overall(self) -> dict[str, Any]:
        """The same over all steps but the first."""
        return self._rates(*self._now)

    def _rates(self, busy_s: float, steps: int) -> dict[str, Any]:
        if steps == 0 or busy_s <= 0:
            return {"tokens_per_s": None, "step_ms": None, "mfu": None}
        tokens_per_s = steps * self._tokens_per_step / busy_s
        mfu = None if self._mfu_per_token is None else tokens_per_s * self._mfu_per_token
        return {"tokens_per_s": tokens_per_s, "step_ms": 1000 * busy_s / steps, "mfu": mfu}
