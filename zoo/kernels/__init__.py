"""Attention by the kernels of a platform: cuDNN's on NVIDIA GPUs, splash on TPUs, none elsewhere.

The devices of the mesh in force say what a program is compiled for (jax.set_mesh; train.py, the planner and
the benchmarks set it). Not the machine's: the planner compiles for TPUs on a machine that has none. And not
jax.lax.platform_dependent: its other branch would be traced too, with all the scores that its gradient keeps.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from zoo.kernels import cudnn, splash
from zoo.kernels.choice import CUDNN, SPLASH, XLA, Chosen, Target, choice
from zoo.kernels.seen import Seen, alternatives, choice_in
from zoo.mesh import abstract_mesh
from zoo.sees import Sees
from zoo.sharding import free_axes, placement

__all__ = [
    *("CUDNN", "SPLASH", "XLA", "Chosen", "Target"),
    *("attend", "choice", "chosen", "noted", "only_xla", "target"),
]

KERNELS: dict[str, Callable] = {CUDNN: cudnn.attention, SPLASH: splash.attention}

_tell: contextvars.ContextVar[Callable[[Chosen], None] | None] = contextvars.ContextVar("tell", default=None)
_only_xla: contextvars.ContextVar[bool] = contextvars.ContextVar("only_xla", default=False)


def chosen(q_BTHK, k_BSJK, v_BSJK, sees: Sees, *, dropout_rate, cap, has_positions) -> Chosen | None:
    """The kernel for this attention on the mesh in force; None where that is the plain form."""
    found = choice(
        *(q_BTHK, k_BSJK, v_BSJK, sees),
        target=target(),
        mesh=jax.sharding.get_abstract_mesh(),
        dropout_rate=dropout_rate,
        cap=cap,
        has_positions=has_positions,
    )
    if _only_xla.get():
        found = Chosen(XLA, "asked for by only_xla")
    if tell := _tell.get():
        tell(found)
    return None if found.kernel == XLA else found


def target() -> Target | None:
    """What the devices of the mesh in force are; None without a mesh."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return None
    if device.platform != "gpu":
        return Target(device.platform, device.device_kind)
    # A mesh does not know the capability. JAX's own check asks the first GPU of this process too.
    capability = getattr(jax.local_devices(backend="gpu")[0], "compute_capability", "")
    major, _, minor = capability.partition(".")
    known = (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)
    return Target("gpu", device.device_kind, known)


def attend(kernel: Chosen, q_BTHK, k_BTJK, v_BTJK, sees: Sees, *, scale: float, cap: float):
    """Attention by a kernel, each device with its rows and heads: [B, T, H, K]."""
    local = functools.partial(on_one_device, KERNELS[kernel.kernel], scale=scale, cap=cap)
    auto = free_axes(jax.sharding.get_abstract_mesh())
    if all(size == 1 for size in auto.values()):
        return local(q_BTHK, k_BTJK, v_BTJK, sees)

    def place(letters, x):
        return placement(letters, jnp.shape(x), abstract_mesh(auto))

    queries, keys = place("BSAK", q_BTHK), place("BSAK", k_BTJK)
    seen = jax.tree.map(lambda x: place("B."[: jnp.ndim(x)], x), sees)
    return jax.shard_map(
        local,
        in_specs=(queries, keys, keys, seen),
        out_specs=queries,
        axis_names=set(auto),
        check_vma=False,  # kernels do not say how their results vary over devices
    )(q_BTHK, k_BTJK, v_BTJK, sees)


def on_one_device(kernel: Callable, q_BTHK, k_BTJK, v_BTJK, sees: Sees, *, scale: float, cap: float):
    """The kernel's result, of the alternative that is chosen, and zeros where nothing is seen."""

    def of(sees: Sees):
        seen = Seen.of(sees)
        if seen.is_nothing:
            return jnp.zeros_like(q_BTHK)
        out_BTHK = kernel(q_BTHK, k_BTJK, v_BTJK, seen, scale=scale, cap=cap)
        if not seen.may_be_nothing:
            return out_BTHK
        place_BT = jnp.arange(q_BTHK.shape[1])[None]
        seen_BT = sees.mask_BTS(place_BT, place_BT).any(-1)
        return jnp.where(seen_BT[:, :, None, None], out_BTHK, 0)

    rule = choice_in(sees)
    if rule is None:
        return of(sees)
    one, other = alternatives(sees)
    return jax.lax.cond(rule.is_one, lambda: of(one), lambda: of(other))


@contextlib.contextmanager
def noted(tell: Callable[[Chosen], None]) -> Iterator[None]:
    """Calls `tell` with what is chosen for every attention that is traced inside."""
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


@contextlib.contextmanager
def only_xla() -> Iterator[None]:
    """What is traced inside takes the plain form: for tests and benchmarks that compare. A function that was
    compiled before stays as it is."""
    token = _only_xla.set(True)
    try:
        yield
    finally:
        _only_xla.reset(token)
