"""Eight virtual devices, and compiled programs kept between tests and between runs of the suite."""

import gc
import os
import sys
import tempfile
from pathlib import Path

import pytest

# Both are read when JAX starts, so they are set before any test imports it. Subprocesses inherit them.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"zoo-test-cache-{os.getuid()}")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Compiled quickly rather than well, as tiny programs run once or twice. And each in one piece: in pieces,
# which other cores could take if any were free, compiling took a fifth longer.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
)

import jax

from zoo import xla

if xla.jaxlib_version() == "0.10.2":  # later ones abort: the train step of a tiny GPT in 6 s instead of 9
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
xla.apply()  # as train.py does, so that a run in this process equals one in a process of its own


@pytest.fixture(autouse=True, scope="module")
def few_maps():
    """Drops compiled programs after a file, once there are many. Each holds some memory maps on a CPU, and
    Linux gives a process 65,530 of them: the suite reached that in one worker, which ended in a segfault."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > 15_000:
        for name, module in list(sys.modules.items()):
            if name == "training" or name.startswith("test_"):
                for value in list(vars(module).values()):
                    getattr(value, "cache_clear", int)()  # what functools.cache keeps between tests
        jax.clear_caches()
        gc.collect()
