"""XLA settings that were measured to help, per jaxlib version; set before JAX starts, never by `import zoo`.

An XLA flag that a jaxlib does not know aborts the process, and one that helps today may hurt after
the next release. So the table names exact versions, a test starts JAX with every entry for the
installed one, and an unknown version gets nothing. What the user has put into XLA_FLAGS wins.
"""

import importlib.util
import os
from importlib import metadata

from zoo.errors import ConfigError

# {(jaxlib, platform): flags}. Each with its measurement.
FLAGS: dict[tuple[str, str], tuple[str, ...]] = {
    ("0.10.2", "cpu"): (
        # YNN fusions off. Two cores of a Cascade Lake: the gradient of an MLP 154 -> 100 ms, the train step
        # of GPT 6x384 (T 256, B 8) 1.56 -> 1.39 s. Two cores of an AMD EPYC, family 26: GPT 4x256 with 4,096
        # words 469 -> 430 ms; a GPT of 4x128 and 65 characters unchanged.
        "--xla_cpu_experimental_ynn_fusion_type=",
    ),
}

# Those that make every start give the same bits. CPUs (one core and two, measured)
# and TPUs need none. On GPUs sums by atomic additions differ from run to run, and so does which kernel
# autotuning finds fastest; XLA says of this flag that it excludes both. Its name is probed here, what it does
# was not: no GPU was at hand.
DETERMINISTIC: dict[tuple[str, str], tuple[str, ...]] = {
    ("0.10.2", "gpu"): ("--xla_gpu_deterministic_ops=true",),
}


def apply(platform: str | None = None, *, deterministic: bool = False) -> list[str]:
    """Adds the table's flags to XLA_FLAGS and returns those it added. Call it before the first device.

    `platform` is "cpu", "gpu" or "tpu"; without one, it is what JAX will most likely start. Raises
    ConfigError where a GPU is to be `deterministic` and no flags are known for this jaxlib.
    """
    platform = platform or likely_platform()
    given = os.environ.get("XLA_FLAGS", "").split()
    if given and not given[0].startswith("--"):  # the name of a file with flags, which cannot be added to
        return []
    names = {flag.partition("=")[0] for flag in given}
    wanted = FLAGS.get((jaxlib_version(), platform), ())
    if deterministic:
        wanted += deterministic_flags(platform)
    added = [flag for flag in wanted if flag.partition("=")[0] not in names]
    if added:
        os.environ["XLA_FLAGS"] = " ".join([*given, *added])
    return added


def deterministic_flags(platform: str) -> tuple[str, ...]:
    """What makes a platform repeat its bits; nothing for those that do so by themselves."""
    flags = DETERMINISTIC.get((jaxlib_version(), platform), ())
    if platform == "gpu" and not flags:
        known = ", ".join(version for version, _ in DETERMINISTIC)
        raise ConfigError(
            f"deterministic: no flags are known for the GPUs of jaxlib {jaxlib_version()}, only for {known}; "
            "set XLA_FLAGS yourself and leave it out"
        )
    return flags


def jaxlib_version() -> str:
    """The installed version without a local part ("0.10.2+cuda" is "0.10.2"); asking does not import JAX."""
    try:
        return metadata.version("jaxlib").partition("+")[0]
    except metadata.PackageNotFoundError:
        return ""


def likely_platform() -> str:
    """JAX_PLATFORMS where it is set, else the accelerator whose plugin is installed, else cpu."""
    first = os.environ.get("JAX_PLATFORMS", "").partition(",")[0].lower()
    if first:
        return "gpu" if first in ("cuda", "rocm") else first
    if importlib.util.find_spec("libtpu"):
        return "tpu"
    return "gpu" if any(map(importlib.util.find_spec, GPU_PLUGINS)) else "cpu"


GPU_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm60_plugin", "jax_rocm7_plugin")
