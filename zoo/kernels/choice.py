"""Which kernel computes an attention, and why: of platform, shapes and what is asked, and of nothing else.

A kernel runs only where it gives the numbers of the plain form (zoo/attention.py); what it would leave out is
a reason against it. No setting names a kernel.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import jax.numpy as jnp

from zoo.kernels import splash
from zoo.kernels.seen import Seen, alternatives
from zoo.mesh import describe
from zoo.sees import Sees
from zoo.sharding import RULES, placement

XLA, CUDNN, SPLASH = "XLA", "cuDNN", "splash"


@dataclass(frozen=True)
class Target:
    """What a program is compiled for."""

    platform: str
    """cpu, gpu, tpu, or another one's name."""
    kind: str = ""
    """The device's name."""
    capability: tuple[int, int] = (0, 0)
    """The compute capability of an NVIDIA GPU; (0, 0) elsewhere."""

    def __str__(self) -> str:
        return self.platform.upper()


@dataclass(frozen=True)
class Chosen:
    """A kernel, and why this one."""

    kernel: str
    """XLA, cuDNN or splash."""
    reason: str

    def __str__(self) -> str:
        return f"{self.kernel}: {self.reason}"


def choice(
    q_BTHK, k_BSJK, v_BSJK, sees: Sees, *, target: Target | None, mesh, dropout_rate, cap, has_positions
) -> Chosen:
    """Pure: of queries, keys and values only shapes and dtypes count, of `mesh` its sizes. `target` is None
    where nothing says what the program is for; `has_positions` says that queries and keys do not stand at 0,
    1, 2, ... in their rows, as with a cache."""
    if target is None:
        return Chosen(XLA, "no mesh says on which devices; jax.set_mesh does")
    if target.platform == "tpu":
        kernel, against = SPLASH, against_splash
    elif target.platform == "gpu" and target.capability != (0, 0):
        kernel, against = CUDNN, against_cudnn
    else:
        return Chosen(XLA, f"{target}, which has no kernel of its own")
    arrays = (q_BTHK, k_BSJK, v_BSJK)
    reasons = against_any(*arrays, kernel=kernel, mesh=mesh, rate=dropout_rate, has_positions=has_positions)
    try:
        seen = [one for one in map(Seen.of, alternatives(sees)) if not one.is_nothing]
    except ValueError as unknown:
        reasons, seen = [*reasons, str(unknown)], []
    for reason in (*reasons, *against(*arrays, target=target, cap=cap, seen=seen)):
        return Chosen(XLA, reason)
    told = " or ".join(dict.fromkeys(map(str, seen))) or "nothing is seen"
    return Chosen(kernel, f"{target}, {told}")


def against_any(q_BTHK, k_BSJK, v_BSJK, *, kernel, mesh, rate, has_positions) -> Iterable[str]:
    """What no kernel here does."""
    if has_positions:
        yield "a cache says where queries and keys stand, and kernels count from 0"
    if rate:
        yield (
            f"dropout of attention weights, which {kernel} has not; the model's dropout_rate=0 uses it, "
            "without dropout anywhere"
        )
    if q_BTHK.shape[1] != k_BSJK.shape[1]:
        yield f"{q_BTHK.shape[1]} queries and {k_BSJK.shape[1]} keys, {kernel} is for as many of both"
    dtypes = {jnp.dtype(x.dtype).name for x in (q_BTHK, k_BSJK, v_BSJK)}
    if len(dtypes) > 1:
        yield f"queries, keys and values of different dtypes, {', '.join(sorted(dtypes))}"
    heads = placement("A", (0,), mesh)[0]  # all the axes that spread heads, as each divides 0
    if any(placement("BSAK", x.shape, mesh)[2] != heads for x in (q_BTHK, k_BSJK)):
        devices = describe({axis: mesh.shape[axis] for axis in RULES["A"]})
        yield (
            f"{q_BTHK.shape[2]} heads and {k_BSJK.shape[2]} key heads do not both divide over {devices}; "
            f"sizes that divide both use {kernel}"
        )


def against_splash(q_BTHK, k_BSJK, v_BSJK, *, target, cap, seen) -> Iterable[str]:
    """What the TPU's kernel does not do. It knows soft caps, windows, documents and lengths."""
    dtype, (_, T, _, K) = jnp.dtype(q_BTHK.dtype).name, q_BTHK.shape
    if dtype not in ("float32", "bfloat16"):
        yield f"{dtype} activations, {SPLASH} is for bfloat16 and float32"
    if T < splash.BLOCK:
        yield f"rows of {T}, shorter than {SPLASH}'s block of {splash.BLOCK}"
    if K > splash.WIDEST:
        yield f"heads {K} wide, {SPLASH} was compiled up to {splash.WIDEST}"


def against_cudnn(q_BTHK, k_BSJK, v_BSJK, *, target, cap, seen) -> Iterable[str]:
    """What cuDNN's kernel does not do (jax.nn.dot_product_attention, implementation="cudnn")."""
    dtype, K = jnp.dtype(q_BTHK.dtype).name, q_BTHK.shape[3]
    if target.capability < (8, 0):
        capability = ".".join(map(str, target.capability))
        yield f"{target.kind}, of compute capability {capability}, {CUDNN}'s kernel needs 8.0"
    if dtype not in ("bfloat16", "float16"):
        yield f"{dtype} activations, {CUDNN}'s is for bfloat16; model.dtype=bfloat16 uses it"
    widest = 256 if target.capability >= (9, 0) else 128
    if K > widest or K % 8:
        yield f"heads {K} wide, {CUDNN}'s is for multiples of 8 up to {widest}"
    if cap:
        yield f"scores capped at {cap:g}, which {CUDNN} would leave out"
    for one in seen:
        if one.segments is not None:
            yield f"packed documents, which {CUDNN} would mix; another data.layout uses it"
        if one.window is not None and not one.causal:
            yield f"a window on both sides, which {CUDNN} has not"
        if one.window is not None and one.lengths is not None:
            yield f"a window and lengths at once, which {CUDNN} was not seen to do"
